#include <catch2/catch.hpp>

#include <unistd.h>

#include <fstream>
#include <regex>
#include <thread>
#include <vector>

#include "nearcached/base/log.h"

using namespace nearcached;

namespace {

// A log in a file of its own; the next test (and the end) finds standard error again.
class TemporaryLog {
 public:
  explicit TemporaryLog(LogLevel level) {
    const int fd = mkstemp(path_);
    REQUIRE(fd >= 0);
    close(fd);
    REQUIRE(log::init(level, path_).ok());
  }
  ~TemporaryLog() {
    static_cast<void>(log::init(LogLevel::info, ""));
    std::remove(path_);
  }
  std::vector<std::string> lines() const {
    std::vector<std::string> lines;
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
  }

 private:
  char path_[32] = "/tmp/nearcached-log-XXXXXX";
};

}  // namespace

TEST_CASE("a message is one line with UTC time and level, there at once", "[log]") {
  const TemporaryLog log_file(LogLevel::info);
  log::warn("client {} sent {}", 7, "a\r\n2026-01-01T00:00:00.000Z info forged");
  REQUIRE(log_file.lines().size() == 1);
  const std::regex kLine(
      "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z warn client 7 sent "
      "a\\\\x0d\\\\x0a2026-01-01T00:00:00.000Z info forged");
  INFO(log_file.lines()[0]);
  CHECK(std::regex_match(log_file.lines()[0], kLine));
}

TEST_CASE("what is below the level is not written", "[log]") {
  const TemporaryLog log_file(LogLevel::warn);
  log::info("no");
  log::debug("no");
  log::trace("no");
  log::error("yes");
  CHECK(log_file.lines().size() == 1);
  CHECK_FALSE(log::enabled(LogLevel::info));
  CHECK(log::enabled(LogLevel::warn));
}

TEST_CASE("a log file that cannot be opened is an error, and the old log goes on", "[log]") {
  const TemporaryLog log_file(LogLevel::info);
  const Result<void> opened = log::init(LogLevel::trace, "/nonexistent/directory/n.log");
  REQUIRE_FALSE(opened.ok());
  CHECK(opened.error().detail ==
        "log.file = \"/nonexistent/directory/n.log\": No such file or directory");
  log::info("still here");
  CHECK(log_file.lines().size() == 1);
}

TEST_CASE("a limiter lets one message a second through and counts the rest", "[log]") {
  log::EverySecond limiter;
  CHECK(limiter.admit(5'000) == 0u);
  CHECK(limiter.admit(5'000) == std::nullopt);
  CHECK(limiter.admit(5'999) == std::nullopt);
  CHECK(limiter.admit(6'000) == 2u);
  CHECK(limiter.admit(9'000) == 0u);
}

TEST_CASE("a limiter shared by threads loses no count and lets one through", "[log]") {
  constexpr uint64_t kThreads = 4, kMessages = 20'000;
  log::EverySecond limiter;
  std::atomic<uint64_t> admitted{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < kMessages; ++i)
        if (limiter.admit(1'000)) admitted.fetch_add(1);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(admitted == 1);
  CHECK(limiter.admit(2'000) == kThreads * kMessages - 1);
}

TEST_CASE("threads that log at once keep their lines whole", "[log]") {
  constexpr size_t kThreads = 4, kMessages = 500;
  const TemporaryLog log_file(LogLevel::info);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t)
    threads.emplace_back([t] {
      for (size_t i = 0; i < kMessages; ++i) log::info("{}", std::string(200, char('a' + t)));
    });
  for (std::thread& thread : threads) thread.join();
  const std::vector<std::string> lines = log_file.lines();
  REQUIRE(lines.size() == kThreads * kMessages);
  for (const std::string& line : lines) {
    const std::string text = line.substr(line.rfind(' ') + 1);
    CHECK(text == std::string(200, text[0]));
  }
}
