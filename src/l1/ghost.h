// The ghost: fingerprints of items that were pushed out unread a short while ago. Who comes back
// while still remembered was evicted too early, and enters the main queue at once.
#pragma once
#include <cstdint>

#include "l1/line_table.h"

namespace nearcached::l1 {

class Ghost {
 public:
  /// Moves the size by one line towards remembering as many items as are live.
  void step(uint64_t live_items);
  /// Does nothing before the first step().
  void remember(uint64_t mix);
  /// True if it was remembered; forgets it.
  bool take(uint64_t mix);
  void clear() { lines_.resize(0); }
  uint64_t bytes() const { return lines_.bytes(); }

 private:
  static constexpr uint64_t kWays = 32;
  struct alignas(64) Line {
    uint16_t prints[kWays];  ///< newest first; 0 = empty
  };

  // From bits that locate() does not look at below 2^48 lines.
  static uint16_t print_of(uint64_t mix) {
    const auto print = static_cast<uint16_t>(mix >> 48);
    return print != 0 ? print : 1;
  }

  LineTable<Line> lines_;
};

}  // namespace nearcached::l1
