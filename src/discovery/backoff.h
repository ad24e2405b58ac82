// Backoff: pauses between attempts, doubled each time, jittered so that many proxies that lost the
// same server do not come back at once.
#pragma once
#include <algorithm>
#include <cstdint>
#include <random>

namespace nearcached {

/// Between half of `ms` and the whole of it.
inline uint64_t jittered(uint64_t ms) {
  thread_local std::minstd_rand random{std::random_device{}()};
  return std::uniform_int_distribution<uint64_t>(ms / 2, ms)(random);
}

class Backoff {
 public:
  Backoff(uint64_t min_ms, uint64_t max_ms) : min_ms_(min_ms), max_ms_(max_ms) {}
  void reset() { pause_ms_ = 0; }
  uint64_t next_ms() {
    pause_ms_ = std::clamp(pause_ms_ * 2, min_ms_, max_ms_);
    return jittered(pause_ms_);
  }

 private:
  const uint64_t min_ms_, max_ms_;
  uint64_t pause_ms_ = 0;
};

}  // namespace nearcached
