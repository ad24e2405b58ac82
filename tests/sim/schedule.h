// One schedule: proxies, clients, writers around them and faults, all drawn from one seed.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "sim/checker.h"

namespace nearcached::sim {

/// What can go wrong. All but evict and hang_up are outside the proxies.
enum class Fault : uint8_t {
  hang,
  cut,
  vanish,
  cut_all,
  stop,
  restart,
  fail_over,
  evict,
  hang_up,
  /// In mode publish only, and by itself: who has lost its own bus as well has no heartbeats that
  /// would show the others what they miss.
  mute,
};
constexpr const char* kFaultNames[] = {"hang",    "cut",       "vanish", "cut_all", "stop",
                                       "restart", "fail_over", "evict",  "hang_up", "mute"};

struct ScheduleOptions {
  CoherenceMode mode = CoherenceMode::resp3;
  bool tracing = false;
  Bounds bounds;
  Measures measures;
  std::vector<Fault> faults;  ///< these and no others; empty: drawn
  bool address_moves = true;  ///< fail_over among those that are drawn
  bool late_untold = false;   ///< see NetworkOptions
};

struct Outcome {
  std::optional<Violation> violation;
  Counts counts;
  std::vector<std::string> trace;
};

/// Runs the schedule of `seed` to its end or to the first promise that is broken.
Outcome run_schedule(const ScheduleOptions& options, uint64_t seed);

}  // namespace nearcached::sim
