// The index: from a mixed hash to an item, without owning it.
//
// Linear hashing over 64-byte buckets: a bucket holds seven words of tag and pointer and one link
// to an overflow bucket, so that a miss reads one cache line. The table grows and shrinks by one
// bucket at a time (step()), which is the only place where items move: no pause at any size.
// Invariant: in a chain every word in use comes before every free one.
#pragma once
#include <cstdint>

#include "l1/item.h"
#include "l1/line_table.h"

namespace nearcached::l1 {

class Index {
 public:
  Index() = default;
  ~Index() { clear(); }
  Index(const Index&) = delete;
  Index& operator=(const Index&) = delete;

  Item* find(uint64_t mix, const L1Key& key) const {
    if (buckets_.size() == 0) return nullptr;
    const uint64_t tag = tag_of(mix);
    for (const Bucket* b = &buckets_[buckets_.locate(mix)]; b != nullptr; b = b->overflow) {
      for (const uint64_t word : b->words) {
        if (word >> kTagShift == tag && item_of(word)->matches(key)) return item_of(word);
      }
    }
    return nullptr;
  }
  void prefetch_bucket(uint64_t mix) const {
    if (buckets_.size() != 0) __builtin_prefetch(&buckets_[buckets_.locate(mix)]);
  }
  void prefetch_item(uint64_t mix) const;

  /// `item` must not be there yet. Allocates the first buckets, or an overflow bucket.
  void insert(uint64_t mix, Item* item);
  /// `item` must be there.
  void remove(uint64_t mix, const Item* item);
  /// Splits or merges one bucket if the load asks for it. Once per insert is enough.
  void step();
  /// Forgets all items and frees all memory.
  void clear();

  uint64_t items() const { return items_; }
  uint64_t bytes() const { return buckets_.bytes() + overflow_bytes_; }
  uint64_t bucket_count() const { return buckets_.size(); }

  /// Visits the items of one bucket's chain; `visit` must not change the index.
  template <typename Visit>
  void for_each(uint64_t bucket_number, Visit&& visit) const {
    for (const Bucket* b = &buckets_[bucket_number]; b != nullptr; b = b->overflow) {
      for (const uint64_t word : b->words) {
        if (word == 0) return;
        visit(item_of(word));
      }
    }
  }
  /// Aborts if a chain has a hole, a wrong tag or an item that belongs elsewhere, or if the index
  /// did not keep up with its items (requires a step() after each insert).
  void check_invariants() const;

 private:
  static constexpr uint64_t kWords = 7;
  static constexpr unsigned kTagShift = 48;
  struct alignas(64) Bucket {
    uint64_t words[kWords];  ///< tag << 48 | address; 0 = free
    Bucket* overflow;
  };

  // The highest bit is always set, so that no tag equals that of a free word.
  static uint64_t tag_of(uint64_t mix) { return mix >> kTagShift | 0x8000; }
  static Item* item_of(uint64_t word) {
    return reinterpret_cast<Item*>(word & ((uint64_t{1} << kTagShift) - 1));
  }
  void append(Bucket& head, uint64_t word);
  Bucket* add_overflow();
  void free_overflow(Bucket* b);
  void split();
  void merge();

  LineTable<Bucket> buckets_;
  uint64_t items_ = 0;
  uint64_t overflow_bytes_ = 0;
};

}  // namespace nearcached::l1
