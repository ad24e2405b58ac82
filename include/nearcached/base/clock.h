// The monotonic clock. Pure modules never call it: they take `now_ms` as an argument.
#pragma once
#include <time.h>

#include <cstdint>

namespace nearcached {

constexpr uint64_t kNsPerMs = 1'000'000;

inline uint64_t monotonic_ns() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return static_cast<uint64_t>(ts.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(ts.tv_nsec);
}
inline uint64_t monotonic_ms() { return monotonic_ns() / kNsPerMs; }

}  // namespace nearcached
