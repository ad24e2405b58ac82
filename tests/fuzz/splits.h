// Where a fuzzed stream is cut into reads: derived from the input's first byte, so that a found
// input reproduces by itself.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nearcached::fuzz {

class Splits {
 public:
  explicit Splits(uint8_t seed) : state_(seed * 2654435761u + 1) {}
  /// The size of the next read: mostly a few bytes, now and then more.
  size_t next() {
    state_ = state_ * 1664525u + 1013904223u;
    const uint32_t random = state_ >> 16;
    return random % 8 == 0 ? 1 + random / 8 % 200 : 1 + random / 8 % 4;
  }

 private:
  uint32_t state_;
};

}  // namespace nearcached::fuzz
