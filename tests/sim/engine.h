// Simulated time: one queue of events, one source of randomness, one trace. A schedule is a pure
// function of its seed, so whatever goes wrong in it goes wrong again.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "nearcached/base/clock.h"

namespace nearcached::sim {

constexpr uint64_t kNever = UINT64_MAX;
constexpr uint64_t kNsPerUs = 1'000;

/// splitmix64: any seed is as good as any other, so that schedules can be numbered.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x1234567) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) { return n == 0 ? 0 : next() % n; }
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  bool percent(uint64_t n) { return below(100) < n; }
  /// Mostly far below `most`, sometimes near it: what delays look like.
  uint64_t skewed(uint64_t most) { return below((most >> below(8)) + 1); }

 private:
  uint64_t state_;
};

/// A promise that was broken. Thrown where it is noticed; ends the schedule.
struct Violation {
  std::string guarantee;
  std::string what;
};

class Engine {
 public:
  explicit Engine(uint64_t seed, bool tracing) : random(seed), tracing_(tracing) {}

  uint64_t now_ns() const { return now_ns_; }
  void at(uint64_t when_ns, std::function<void()> task) {
    queue_.push_back({std::max(when_ns, now_ns_), next_++, std::move(task)});
    std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
  }
  void after(uint64_t delay_ns, std::function<void()> task) {
    at(now_ns_ + delay_ns, std::move(task));
  }
  void run_until(uint64_t end_ns) {
    while (!queue_.empty() && queue_.front().when_ns <= end_ns) {
      std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
      Event event = std::move(queue_.back());
      queue_.pop_back();
      now_ns_ = event.when_ns;
      event.task();
    }
    now_ns_ = end_ns;
  }

  /// One line of the trace; the parts are only put together if somebody looks.
  template <typename... Parts>
  void trace(const Parts&... parts) {
    if (!tracing_) return;
    std::string line;
    (append(line, parts), ...);
    char time[32];
    std::snprintf(time, sizeof time, "%12.6f ms  ", static_cast<double>(now_ns_) / 1e6);
    lines_.push_back(time + line);
  }

  std::vector<std::string> take_trace() { return std::move(lines_); }

  Random random;

 private:
  struct Event {
    uint64_t when_ns;
    uint64_t order;
    std::function<void()> task;
    bool operator>(const Event& other) const {
      return when_ns != other.when_ns ? when_ns > other.when_ns : order > other.order;
    }
  };
  static void append(std::string& line, const std::string& part) { line += part; }
  static void append(std::string& line, const char* part) { line += part; }
  static void append(std::string& line, uint64_t part) { line += std::to_string(part); }

  std::vector<Event> queue_;
  uint64_t now_ns_ = 0;
  uint64_t next_ = 0;
  bool tracing_;
  std::vector<std::string> lines_;
};

}  // namespace nearcached::sim
