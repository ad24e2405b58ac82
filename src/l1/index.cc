// A table that doubles at once stops the worker for tens of milliseconds at a few million items,
// and one sized for the whole budget costs memory that an idle proxy never uses. Linear hashing
// does neither: bucket n is split out of bucket n − 2^k when the load asks for it, one per insert.
// The price is that the buckets not split yet carry up to twice the load of the others: hence
// overflow buckets, and a mean of five items for seven words. Rejected: cuckoo hashing (two cache
// lines for a miss), Redis's two tables (half as much memory again while growing).
#include "l1/index.h"

#include "l1/heap.h"
#include "nearcached/base/check.h"

namespace nearcached::l1 {
namespace {

constexpr uint64_t kSplitAbove = 5;  // items per bucket
constexpr uint64_t kMergeBelow = 3;
constexpr uint64_t kBucketsMin = 64;  // one page

}  // namespace

void Index::prefetch_item(uint64_t mix) const {
  if (buckets_.size() == 0) return;
  const uint64_t tag = tag_of(mix);
  for (const uint64_t word : buckets_[buckets_.locate(mix)].words) {
    if (word >> kTagShift == tag) {
      // Header, key and a short reply span three lines: blocks are aligned to 16 bytes only.
      const char* block = reinterpret_cast<const char*>(item_of(word));
      __builtin_prefetch(block);
      __builtin_prefetch(block + 64);
      __builtin_prefetch(block + 128);
      return;
    }
  }
}

Index::Bucket* Index::add_overflow() {
  auto* b = static_cast<Bucket*>(heap_alloc_lines(sizeof(Bucket)));
  overflow_bytes_ += heap_cost(b, sizeof(Bucket));
  return b;
}

void Index::free_overflow(Bucket* b) {
  overflow_bytes_ -= heap_cost(b, sizeof(Bucket));
  heap_free(b);
}

void Index::append(Bucket& head, uint64_t word) {
  Bucket* b = &head;
  while (b->overflow != nullptr) b = b->overflow;
  for (uint64_t& free : b->words) {
    if (free == 0) {
      free = word;
      return;
    }
  }
  b->overflow = add_overflow();
  b->overflow->words[0] = word;
}

void Index::insert(uint64_t mix, Item* item) {
  if (buckets_.size() == 0) buckets_.resize(kBucketsMin);
  const auto address = reinterpret_cast<uint64_t>(item);
  NC_CHECK(address >> kTagShift == 0);
  append(buckets_[buckets_.locate(mix)], tag_of(mix) << kTagShift | address);
  ++items_;
}

void Index::remove(uint64_t mix, const Item* item) {
  const uint64_t word = tag_of(mix) << kTagShift | reinterpret_cast<uint64_t>(item);
  uint64_t* place = nullptr;
  Bucket* before_last = nullptr;
  Bucket* last = &buckets_[buckets_.locate(mix)];
  while (true) {
    for (uint64_t& w : last->words) {
      if (w == word) place = &w;
    }
    if (last->overflow == nullptr) break;
    before_last = last;
    last = last->overflow;
  }
  NC_CHECK(place != nullptr);
  uint64_t used = kWords;
  while (last->words[used - 1] == 0) --used;
  *place = last->words[used - 1];
  last->words[used - 1] = 0;
  if (used == 1 && before_last != nullptr) {
    before_last->overflow = nullptr;
    free_overflow(last);
  }
  --items_;
}

void Index::step() {
  if (items_ > buckets_.size() * kSplitAbove) {
    split();
  } else if (items_ < buckets_.size() * kMergeBelow && buckets_.size() > kBucketsMin) {
    merge();
  }
}

void Index::split() {
  const uint64_t fresh = buckets_.size();
  buckets_.resize(fresh + 1);
  Bucket& source = buckets_[buckets_.split_source(fresh)];
  for_each(buckets_.split_source(fresh), [](const Item* item) { __builtin_prefetch(item); });

  // The chain is compacted in place: words that stay are written back behind the reader.
  Bucket* to = &source;
  uint64_t at = 0;
  for (Bucket* from = &source; from != nullptr; from = from->overflow) {
    for (uint64_t& from_word : from->words) {
      const uint64_t word = from_word;
      if (word == 0) break;
      from_word = 0;
      if (buckets_.locate(mix(*item_of(word))) == fresh) {
        append(buckets_[fresh], word);
        continue;
      }
      if (at == kWords) {
        to = to->overflow;
        at = 0;
      }
      to->words[at++] = word;
    }
  }
  Bucket* empty = to->overflow;
  to->overflow = nullptr;
  while (empty != nullptr) {
    Bucket* const next = empty->overflow;
    free_overflow(empty);
    empty = next;
  }
}

void Index::merge() {
  const uint64_t last = buckets_.size() - 1;
  Bucket& target = buckets_[buckets_.split_source(last)];
  Bucket* from = &buckets_[last];
  while (from != nullptr) {
    for (uint64_t& word : from->words) {
      if (word != 0) append(target, word);
      word = 0;
    }
    Bucket* const next = from->overflow;
    from->overflow = nullptr;
    if (from != &buckets_[last]) free_overflow(from);
    from = next;
  }
  buckets_.resize(last);
}

void Index::clear() {
  for (uint64_t n = 0; n < buckets_.size(); ++n) {
    Bucket* b = buckets_[n].overflow;
    while (b != nullptr) {
      Bucket* const next = b->overflow;
      free_overflow(b);
      b = next;
    }
  }
  buckets_.resize(0);
  items_ = 0;
}

void Index::check_invariants() const {
  uint64_t seen = 0, overflow_bytes = 0;
  for (uint64_t n = 0; n < buckets_.size(); ++n) {
    bool ended = false;
    for (const Bucket* b = &buckets_[n]; b != nullptr; b = b->overflow) {
      NC_CHECK(b == &buckets_[n] || b->words[0] != 0);
      if (b != &buckets_[n]) overflow_bytes += heap_cost(b, sizeof(Bucket));
      for (const uint64_t word : b->words) {
        NC_CHECK(!ended || word == 0);
        ended = word == 0;
        if (word == 0) continue;
        const uint64_t m = mix(*item_of(word));
        NC_CHECK(buckets_.locate(m) == n);
        NC_CHECK(tag_of(m) == word >> kTagShift);
        ++seen;
      }
    }
  }
  NC_CHECK(seen == items_);
  NC_CHECK(items_ <= buckets_.size() * kSplitAbove);
  NC_CHECK(overflow_bytes == overflow_bytes_);
}

}  // namespace nearcached::l1
