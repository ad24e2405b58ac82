// The items by rank, for the policies whose order is not that of the log: lru, lfu, gdsf, random.
//
// A heap of (rank, place), lowest first. A rank only ever grows, so a hit writes it into the item
// alone, and the heap catches up when the item comes to its top: what leaves is exactly what an
// eagerly kept heap would let go. Costs 16 bytes per item here and 16 in the item.
#pragma once
#include <cstdint>
#include <vector>

#include "l1/item.h"
#include "l1/log.h"
#include "nearcached/l1/table.h"

namespace nearcached::l1 {

class Ranking {
 public:
  static constexpr unsigned kItemBytes = 16;

  Ranking(L1Policy policy, const Log& log) : policy_(policy), log_(log) {}

  /// A new item; `cost` of this and of the next is what it takes of the budget.
  void insert(Log::Place place, uint64_t cost);
  void hit(Item item, uint64_t cost);
  void remove(Log::Place place);
  /// The item has moved; it already carries its rank at `to`.
  void move(Log::Place to);
  /// Who should leave; 0 if there is nobody.
  Log::Place victim();
  uint64_t bytes() const { return heap_.capacity() * sizeof(Entry); }
  /// What one more item may add to bytes().
  uint64_t growth() const {
    return heap_.size() < heap_.capacity() ? 0 : (heap_.size() / 8 + 64) * sizeof(Entry);
  }
  uint64_t items() const { return heap_.size(); }
  void clear();
  void check_invariants() const;

 private:
  struct __attribute__((packed)) Rank {
    uint64_t value;
    uint32_t used;  ///< when it was last used, counted in accesses: of equals the oldest leaves
    bool operator==(const Rank&) const = default;
    bool below(const Rank& other) const {
      if (value != other.value) return value < other.value;
      return static_cast<int32_t>(used - other.used) < 0;
    }
  };
  struct __attribute__((packed)) Entry {
    Rank rank;  ///< not above the item's own
    Log::Place place;
  };
  static constexpr unsigned kPositionAt = sizeof(Rank);
  static_assert(kItemBytes == kPositionAt + sizeof(uint32_t));
  /// The rank of an item that is used now; the item has it then.
  Rank renew(Item item, uint64_t cost);
  uint64_t value_of(Item item, uint64_t cost) const;
  static Rank load_rank(Item item) { return load<Rank>(item.rank()); }
  static uint32_t load_position(Item item) { return load<uint32_t>(item.rank() + kPositionAt); }
  template <typename T>
  static T load(const char* at) {
    T value;
    std::memcpy(&value, at, sizeof(T));
    return value;
  }
  void put(size_t position, Entry entry);
  void sift_down(size_t position, Entry entry);
  void sift_up(size_t position, Entry entry);

  const L1Policy policy_;
  const Log& log_;
  std::vector<Entry> heap_;
  uint64_t clock_ = 0;
  double inflation_ = 0;  ///< the rank of who left last: what is new starts from there
  uint64_t random_ = 0x9E3779B97F4A7C15u;
};

}  // namespace nearcached::l1
