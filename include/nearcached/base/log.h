// The log: one line per message on standard error or in a file, "2026-01-31T12:00:00.000Z info …".
//
// Thread: any, except init(). A message below the level costs one relaxed load and a branch, but
// its arguments are evaluated: hand over values, not work. A message is written before the call
// returns (nothing is lost in a crash), so on a request's path use EverySecond. Control bytes are
// escaped: what a peer sends cannot forge a line.
#pragma once
#include <fmt/core.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "nearcached/base/clock.h"
#include "nearcached/base/log_level.h"
#include "nearcached/base/result.h"

namespace nearcached::log {

/// Until then: level info, standard error. `file` is appended to; empty: standard error. Call it
/// while there is one thread only.
Result<void> init(LogLevel level, const std::string& file);

inline std::atomic<LogLevel> least_level{LogLevel::info};
inline bool enabled(LogLevel level) { return level >= least_level.load(std::memory_order_relaxed); }

/// Writes one line whatever the level; the functions below are what is wanted.
void write(LogLevel level, std::string_view message);

template <typename... Args>
void message(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(level)) write(level, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void trace(fmt::format_string<Args...> format, Args&&... args) {
  message(LogLevel::trace, format, std::forward<Args>(args)...);
}
template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  message(LogLevel::debug, format, std::forward<Args>(args)...);
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  message(LogLevel::info, format, std::forward<Args>(args)...);
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  message(LogLevel::warn, format, std::forward<Args>(args)...);
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  message(LogLevel::error, format, std::forward<Args>(args)...);
}

/// Lets one message a second through and counts the rest, which the next one mentions. One object
/// per place that logs, shared by all threads:
///   static log::EverySecond limiter;
///   limiter.message(LogLevel::warn, "{}: refused", peer);
class EverySecond {
 public:
  template <typename... Args>
  void message(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
    if (!enabled(level)) return;
    const std::optional<uint64_t> suppressed = admit(monotonic_ms());
    if (!suppressed) return;
    std::string text = fmt::format(format, std::forward<Args>(args)...);
    if (*suppressed > 0) text += fmt::format(" ({} more like this were not logged)", *suppressed);
    write(level, text);
  }

  /// The number suppressed since the last one if a message may be written now, else nothing.
  std::optional<uint64_t> admit(uint64_t now_ms);

 private:
  std::atomic<uint64_t> next_ms_{0};
  std::atomic<uint64_t> suppressed_{0};
};

}  // namespace nearcached::log
