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

}  // namespace

void Index::prefetch_item(uint64_t mix) const {
  if (bucket_count_ == 0) return;
  const uint64_t tag = tag_of(mix);
  for (const uint64_t word : bucket(locate(mix)).words) {
    if (word >> kTagShift == tag) {
      const char* block = reinterpret_cast<const char*>(item_of(word));
      __builtin_prefetch(block);
      __builtin_prefetch(block + 64);
      return;
    }
  }
}

void Index::set_bucket_count(uint64_t count) {
  const uint64_t segments = (count + kSegmentBuckets - 1) / kSegmentBuckets;
  constexpr size_t kSegmentBytes = kSegmentBuckets * sizeof(Bucket);
  while (segments_.size() < segments) {
    segments_.push_back(static_cast<Bucket*>(heap_alloc_lines(kSegmentBytes)));
    block_bytes_ += heap_cost(segments_.back(), kSegmentBytes);
  }
  while (segments_.size() > segments) {
    block_bytes_ -= heap_cost(segments_.back(), kSegmentBytes);
    heap_free(segments_.back());
    segments_.pop_back();
  }
  bucket_count_ = count;
  mask_ = count == 0 ? 0 : std::bit_ceil(count) - 1;
}

Index::Bucket* Index::add_overflow() {
  auto* b = static_cast<Bucket*>(heap_alloc_lines(sizeof(Bucket)));
  block_bytes_ += heap_cost(b, sizeof(Bucket));
  return b;
}

void Index::free_overflow(Bucket* b) {
  block_bytes_ -= heap_cost(b, sizeof(Bucket));
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
  if (bucket_count_ == 0) set_bucket_count(kSegmentBuckets);
  const auto address = reinterpret_cast<uint64_t>(item);
  NC_CHECK(address >> kTagShift == 0);
  append(bucket(locate(mix)), tag_of(mix) << kTagShift | address);
  ++items_;
}

void Index::remove(uint64_t mix, const Item* item) {
  const uint64_t word = tag_of(mix) << kTagShift | reinterpret_cast<uint64_t>(item);
  uint64_t* place = nullptr;
  Bucket* before_last = nullptr;
  Bucket* last = &bucket(locate(mix));
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
  if (items_ > bucket_count_ * kSplitAbove) {
    split();
  } else if (items_ < bucket_count_ * kMergeBelow && bucket_count_ > kSegmentBuckets) {
    merge();
  }
}

void Index::split() {
  const uint64_t fresh = bucket_count_;
  set_bucket_count(fresh + 1);
  Bucket& source = bucket(fresh - std::bit_floor(fresh));
  for_each(fresh - std::bit_floor(fresh), [](const Item* item) { __builtin_prefetch(item); });

  // The chain is compacted in place: words that stay are written back behind the reader.
  Bucket* to = &source;
  uint64_t at = 0;
  for (Bucket* from = &source; from != nullptr; from = from->overflow) {
    for (uint64_t& from_word : from->words) {
      const uint64_t word = from_word;
      if (word == 0) break;
      from_word = 0;
      if (locate(mix(*item_of(word))) == fresh) {
        append(bucket(fresh), word);
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
  const uint64_t last = bucket_count_ - 1;
  Bucket& target = bucket(last - std::bit_floor(last));
  Bucket* from = &bucket(last);
  while (from != nullptr) {
    for (uint64_t& word : from->words) {
      if (word != 0) append(target, word);
      word = 0;
    }
    Bucket* const next = from->overflow;
    from->overflow = nullptr;
    if (from != &bucket(last)) free_overflow(from);
    from = next;
  }
  set_bucket_count(last);
}

void Index::clear() {
  for (uint64_t n = 0; n < bucket_count_; ++n) {
    Bucket* b = bucket(n).overflow;
    while (b != nullptr) {
      Bucket* const next = b->overflow;
      free_overflow(b);
      b = next;
    }
  }
  set_bucket_count(0);
  segments_ = std::vector<Bucket*>();
  items_ = 0;
}

uint64_t Index::bytes() const {
  if (segments_.capacity() == 0) return 0;
  return block_bytes_ + heap_cost(segments_.data(), segments_.capacity() * sizeof(Bucket*));
}

void Index::check_invariants() const {
  uint64_t seen = 0, blocks = 0;
  for (const Bucket* segment : segments_) {
    blocks += heap_cost(segment, kSegmentBuckets * sizeof(Bucket));
  }
  for (uint64_t n = 0; n < bucket_count_; ++n) {
    bool ended = false;
    for (const Bucket* b = &bucket(n); b != nullptr; b = b->overflow) {
      NC_CHECK(b == &bucket(n) || b->words[0] != 0);
      if (b != &bucket(n)) blocks += heap_cost(b, sizeof(Bucket));
      for (const uint64_t word : b->words) {
        NC_CHECK(!ended || word == 0);
        ended = word == 0;
        if (word == 0) continue;
        const uint64_t m = mix(*item_of(word));
        NC_CHECK(locate(m) == n);
        NC_CHECK(tag_of(m) == word >> kTagShift);
        ++seen;
      }
    }
  }
  NC_CHECK(seen == items_);
  NC_CHECK(blocks == block_bytes_);
  NC_CHECK(segments_.size() == (bucket_count_ + kSegmentBuckets - 1) / kSegmentBuckets);
}

}  // namespace nearcached::l1
