// The ghost of s3fifo as it is defined: a FIFO of what was pushed out of the trial queue, of nine
// tenths of the budget, counted as their cost was.
#pragma once
#include <array>
#include <cstdint>

#include "l1/line_table.h"

namespace nearcached::l1 {

class GhostFifo {
 public:
  GhostFifo(uint64_t lines_max, uint64_t grain_bytes) : lines_(lines_max, grain_bytes) {}

  /// Keeps room for them; call it once per eviction.
  void step();
  /// The oldest are forgotten until all that are remembered cost at most `cost_max`.
  void remember(uint64_t hash, uint64_t cost, uint64_t cost_max);
  /// Whether it is remembered; forgets it. `cost`: what it would have now.
  bool take(uint64_t hash, uint64_t cost);
  uint64_t bytes() const { return lines_.bytes(); }
  void clear();

 private:
  static constexpr unsigned kWays = 16;
  static constexpr unsigned kEpochs = 1024;
  /// So many make up a full FIFO of which nothing has been taken.
  static constexpr unsigned kEpochsHeld = 128;
  struct alignas(64) Line {
    uint32_t prints[kWays];  ///< newest first; 22 bits of print, 10 of epoch; 0: free
  };
  struct Epoch {
    uint64_t cost = 0;
    uint64_t items = 0;
  };

  static uint32_t print_of(uint64_t hash) {
    const auto print = static_cast<uint32_t>(hash >> 32) & ~(kEpochs - 1);
    return print != 0 ? print : kEpochs;
  }
  unsigned age(uint32_t word) const { return (newest_ - word) % kEpochs; }  ///< in epochs
  bool holds(uint32_t word) const { return word != 0 && age(word) < held_; }
  void forget_oldest();
  void merge(Line& to, const Line& from) const;

  LineTable<Line> lines_;
  std::array<Epoch, kEpochs> epochs_;
  unsigned newest_ = 0;  ///< epoch that is filled now
  unsigned held_ = 1;    ///< how many epochs, up to that one
  uint64_t cost_ = 0;    ///< of all that are remembered
  uint64_t items_ = 0;
};

}  // namespace nearcached::l1
