// spdlog does what it is good at: the sink, its mutex and the clock. Level and formatting stay in
// our header, so that no other file sees spdlog's (they triple the time to compile one), and so
// that the level's names are those of the configuration. An asynchronous logger would take the
// write off the caller, but loses the last lines of a crash, which are the ones that matter, and
// needs a bounded queue of its own; messages on the request path are limited to one a second
// instead.
#include "nearcached/base/log.h"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace nearcached::log {
namespace {

constexpr std::array<std::string_view, 5> kNames{"trace", "debug", "info", "warn", "error"};

std::unique_ptr<spdlog::logger> make_logger(spdlog::sink_ptr sink) {
  auto logger = std::make_unique<spdlog::logger>("", std::move(sink));
  logger->set_formatter(std::make_unique<spdlog::pattern_formatter>(
      "%Y-%m-%dT%H:%M:%S.%eZ %v", spdlog::pattern_time_type::utc));
  logger->flush_on(spdlog::level::info);  // all of ours are handed over as info
  return logger;
}

std::unique_ptr<spdlog::logger>& logger() {
  // Never destroyed: threads and destructors may still log while the process exits.
  static auto* const instance = new std::unique_ptr<spdlog::logger>(
      make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>()));
  return *instance;
}

void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) out += fmt::format("\\x{:02x}", byte);
    else out += c;
  }
}

}  // namespace

Result<void> init(LogLevel level, const std::string& file) {
  if (file.empty()) {
    logger() = make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>());
  } else {
    // spdlog would create missing directories, and a mistyped path would go unnoticed.
    FILE* probe = std::fopen(file.c_str(), "ae");
    if (probe == nullptr) return Error{"log.file = \"" + file + "\": " + std::strerror(errno)};
    std::fclose(probe);
    try {
      logger() = make_logger(std::make_shared<spdlog::sinks::basic_file_sink_mt>(file));
    } catch (const spdlog::spdlog_ex& failure) {
      return Error{std::string("log.file: ") + failure.what()};
    }
  }
  least_level.store(level, std::memory_order_relaxed);
  return {};
}

void write(LogLevel level, std::string_view message) {
  std::string line(kNames[static_cast<size_t>(level)]);
  line += ' ';
  append_escaped(line, message);
  logger()->log(spdlog::level::info, line);
}

std::optional<uint64_t> EverySecond::admit(uint64_t now_ms) {
  uint64_t next_ms = next_ms_.load(std::memory_order_relaxed);
  // Of the threads that find the second over, the exchange lets exactly one through.
  if (now_ms < next_ms ||
      !next_ms_.compare_exchange_strong(next_ms, now_ms + 1000, std::memory_order_relaxed)) {
    suppressed_.fetch_add(1, std::memory_order_relaxed);
    return std::nullopt;
  }
  return suppressed_.exchange(0, std::memory_order_relaxed);
}

}  // namespace nearcached::log
