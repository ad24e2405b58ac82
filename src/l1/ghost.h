// The ghost: which keys were pushed out lately, and how much they had been used; without their
// values.
#pragma once
#include <cstdint>

#include "l1/line_table.h"

namespace nearcached::l1 {

class Ghost {
 public:
  static constexpr unsigned kUsedMax = 3;

  Ghost(uint64_t lines_max, uint64_t grain_bytes) : lines_(lines_max, grain_bytes) {}

  /// Keeps room for about as many memories as there are live items; call it once per eviction.
  void step(uint64_t live_items);
  /// `used`: 1..kUsedMax.
  void remember(uint64_t hash, unsigned used);
  /// How much it had been used, 0 if it is not remembered; forgets it.
  unsigned take(uint64_t hash);
  uint64_t bytes() const { return lines_.bytes(); }
  void clear() { lines_.clear(); }

 private:
  static constexpr uint64_t kWays = 32;
  struct alignas(64) Line {
    uint16_t prints[kWays];  ///< newest first; 14 bits of print, 2 of use; 0 = free
  };
  static void merge(Line& to, const Line& from);
  static unsigned print_of(uint64_t hash) { return static_cast<unsigned>(hash >> 48) & ~3u; }

  LineTable<Line> lines_;
};

}  // namespace nearcached::l1
