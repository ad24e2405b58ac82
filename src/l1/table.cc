// Replies under a byte budget. The index (index.h) finds an item, two queues and a ghost (fifo.h,
// ghost.h) decide who leaves: S3-FIFO. New items enter a small queue of a tenth of the bytes; those
// asked for twice while there move to the main queue, the others leave and are remembered by the
// ghost, so that a scan passes through the tenth and never touches the rest. A hit only bumps a
// counter in the item: no list is relinked on the read path.
//
// Each item is one heap block; every byte of item, index and ghost is counted as the allocator
// counts it. Invariants: used ≤ budget whenever a public call returns; every item is in the index
// once and in exactly one queue. A queue's hand drops what is expired or dead before anything live.
//
// Rejected: SIEVE and LFU (a loop over more than the budget defeats them), LRU (every hit writes
// three lines), a timing wheel for expiry (16 bytes per item, for memory that eviction reuses
// anyway: a slow hand over the index costs nothing per item).
#include "nearcached/l1/table.h"

#include <algorithm>
#include <array>

#include "l1/fifo.h"
#include "l1/ghost.h"
#include "l1/heap.h"
#include "l1/index.h"
#include "l1/item.h"
#include "nearcached/base/check.h"

namespace nearcached {

using l1::Fifo;
using l1::Item;

namespace {

constexpr uint64_t kLargestShare = 8;   // an item may take an eighth of the budget
constexpr uint64_t kSmallShare = 10;    // the small queue's share of the items' bytes: a tenth
constexpr unsigned kPromoteAt = 2;      // accesses in the small queue that earn the main queue
constexpr unsigned kHandSteps = 1000;   // second chances per eviction: 0.1 ms at the worst
constexpr uint64_t kGhostFrom = 65536;  // bytes; below, its first page costs more than it saves
constexpr uint64_t kSweepPerMs = 4;     // buckets: 20 items per ms, 1M items in under a minute
constexpr uint64_t kSweepBuckets = 64;  // at most, per call

enum class Cause { evicted, expired, dead, superseded };

}  // namespace

struct L1Table::Impl {
  Impl(uint64_t budget_bytes, uint64_t max_entries, IsDead asks_dead)
      : budget(budget_bytes), entries_max(max_entries), is_dead(std::move(asks_dead)) {
    stats.budget_bytes = budget;
  }
  ~Impl() { clear(); }

  const uint64_t budget;
  const uint64_t entries_max;
  const IsDead is_dead;
  l1::Index index;
  l1::Ghost ghost;
  Fifo small;
  Fifo main;
  L1Stats stats;
  uint64_t sweep_ms = 0;
  uint64_t sweep_bucket = 0;

  uint64_t items() const { return small.items + main.items; }
  uint64_t used() const { return small.bytes + main.bytes + index.bytes() + ghost.bytes(); }
  Fifo& queue_of(const Item* item) { return item->in_main() ? main : small; }

  void drop(Item* item, Cause cause);
  bool drop_if_gone(Item* item, uint64_t now_ms);
  bool evict_one(uint64_t now_ms);
  bool evict_from_small(uint64_t now_ms);
  bool evict_from_main(uint64_t now_ms);
  bool make_room(uint64_t incoming_items, uint64_t incoming_bytes, uint64_t now_ms);
  uint64_t sweep_one_bucket(uint64_t now_ms);
  void clear();
};

void L1Table::Impl::drop(Item* item, Cause cause) {
  const uint64_t mix = l1::mix(*item);
  index.remove(mix, item);
  queue_of(item).unlink(item);
  switch (cause) {
    case Cause::evicted:
      ++stats.evictions;
      if (!item->in_main()) ghost.remember(mix);
      break;
    case Cause::expired: ++stats.expired; break;
    case Cause::dead: ++stats.reclaimed; break;
    case Cause::superseded: break;
  }
  // What was in use when its time ended will be fetched again: it need not prove itself twice.
  const bool overtaken = cause == Cause::expired || cause == Cause::dead;
  if (overtaken && (item->in_main() || item->frequency() > 0)) ghost.remember(mix);
  l1::heap_free(item);
}

bool L1Table::Impl::drop_if_gone(Item* item, uint64_t now_ms) {
  if (now_ms >= item->expires_ms) {
    drop(item, Cause::expired);
    return true;
  }
  if (is_dead && is_dead(item->hash, item->space, item->stamp)) {
    drop(item, Cause::dead);
    return true;
  }
  return false;
}

bool L1Table::Impl::evict_from_small(uint64_t now_ms) {
  for (unsigned step = 0; small.oldest != nullptr; ++step) {
    Item* const item = small.oldest;
    if (item->newer != nullptr) __builtin_prefetch(item->newer);
    if (drop_if_gone(item, now_ms)) return true;
    if (item->frequency() < kPromoteAt || step >= kHandSteps) {
      drop(item, Cause::evicted);
      return true;
    }
    small.unlink(item);
    item->set_frequency(0);
    item->bits |= Item::kInMain;
    main.push(item);
  }
  return false;
}

bool L1Table::Impl::evict_from_main(uint64_t now_ms) {
  for (unsigned step = 0; main.oldest != nullptr; ++step) {
    Item* const item = main.oldest;
    if (item->newer != nullptr) __builtin_prefetch(item->newer);
    if (drop_if_gone(item, now_ms)) return true;
    if (item->frequency() == 0 || step >= kHandSteps) {
      drop(item, Cause::evicted);
      return true;
    }
    main.unlink(item);
    item->set_frequency(item->frequency() - 1);
    main.push(item);
  }
  return false;
}

bool L1Table::Impl::evict_one(uint64_t now_ms) {
  if (budget >= kGhostFrom) ghost.step(items());
  // The small queue may run empty by promoting all it holds: then the main queue has a victim.
  const bool small_is_full = small.bytes * kSmallShare >= small.bytes + main.bytes;
  if (small_is_full && evict_from_small(now_ms)) return true;
  return evict_from_main(now_ms) || evict_from_small(now_ms);
}

/// Items in no queue yet are safe from this; `incoming` is what is not yet counted in used().
bool L1Table::Impl::make_room(uint64_t incoming_items, uint64_t incoming_bytes, uint64_t now_ms) {
  while (used() + incoming_bytes > budget ||
         (entries_max != 0 && items() + incoming_items > entries_max)) {
    if (!evict_one(now_ms)) return false;
  }
  return true;
}

uint64_t L1Table::Impl::sweep_one_bucket(uint64_t now_ms) {
  if (sweep_bucket >= index.bucket_count()) sweep_bucket = 0;
  // Copied first: dropping changes the chain. Longer chains than this do not occur by chance, and
  // what the hand leaves behind, eviction and reads still find.
  std::array<Item*, 32> chain;
  size_t count = 0;
  index.for_each(sweep_bucket, [&](Item* item) {
    __builtin_prefetch(item);
    if (count < chain.size()) chain[count++] = item;
  });
  ++sweep_bucket;
  uint64_t dropped = 0;
  for (size_t i = 0; i < count; ++i) dropped += drop_if_gone(chain[i], now_ms) ? 1 : 0;
  return dropped;
}

void L1Table::Impl::clear() {
  for (Fifo* queue : {&small, &main}) {
    while (queue->oldest != nullptr) {
      Item* const item = queue->oldest;
      queue->unlink(item);
      l1::heap_free(item);
    }
  }
  index.clear();
  ghost.clear();
}

L1Table::L1Table(uint64_t budget_bytes, uint64_t max_entries, IsDead is_dead)
    : impl_(std::make_unique<Impl>(budget_bytes, max_entries, std::move(is_dead))) {}

L1Table::~L1Table() = default;

namespace {

void fill_in(L1Hit& hit, const Item& item) {
  hit.reply = item.reply();
  hit.stamp = item.stamp;
  hit.filled_ms = item.filled_ms();
  hit.expires_ms = item.expires_ms;
  hit.plain = (item.bits & Item::kPlain) != 0;
  hit.negative = (item.bits & Item::kNegative) != 0;
  hit.first = item.accesses() == 0;
}

}  // namespace

bool L1Table::find(const L1Key& key, uint64_t now_ms, L1Hit& hit) {
  Item* const item = impl_->index.find(l1::mix(key), key);
  if (item == nullptr) return false;
  if (now_ms >= item->expires_ms) {
    impl_->drop(item, Cause::expired);
    return false;
  }
  fill_in(hit, *item);
  item->touch();
  return true;
}

bool L1Table::peek(const L1Key& key, uint64_t now_ms, L1Hit& hit) const {
  const Item* const item = impl_->index.find(l1::mix(key), key);
  if (item == nullptr || now_ms >= item->expires_ms) return false;
  fill_in(hit, *item);
  return true;
}

void L1Table::prefetch(const L1Key& key) const { impl_->index.prefetch_bucket(l1::mix(key)); }
void L1Table::prefetch_item(const L1Key& key) const { impl_->index.prefetch_item(l1::mix(key)); }

namespace {

Item* make_item(const L1Key& key, const L1Fill& fill, size_t block_bytes) {
  Item* const item = new (l1::heap_alloc(block_bytes)) Item;
  constexpr uint64_t kLifetimeMax = std::numeric_limits<uint32_t>::max();
  item->hash = key.hash;
  item->space = key.space;
  item->command = key.command;
  item->key_bytes = static_cast<uint32_t>(key.key.size());
  item->variant_bytes = static_cast<uint32_t>(key.variant.size());
  item->reply_bytes = static_cast<uint32_t>(fill.reply.size());
  const uint64_t lifetime = std::min(fill.expires_ms - fill.filled_ms, kLifetimeMax);
  item->lifetime_ms = static_cast<uint32_t>(lifetime);
  item->expires_ms = fill.filled_ms + lifetime;
  item->stamp = fill.stamp;
  item->bits = static_cast<uint16_t>((fill.plain ? Item::kPlain : 0) |
                                     (fill.negative ? Item::kNegative : 0));
  char* to = item->data();
  for (const Bytes part : {key.key, key.variant, fill.reply}) {
    std::copy(part.begin(), part.end(), to);
    to += part.size();
  }
  return item;
}

}  // namespace

bool L1Table::put(const L1Key& key, const L1Fill& fill, uint64_t now_ms) {
  Impl& t = *impl_;
  if (t.budget == 0) return false;
  const uint64_t mix = l1::mix(key);
  unsigned history = 0;
  if (Item* const old = t.index.find(mix, key)) {
    history = old->bits & Item::kHistoryMask;
    t.drop(old, Cause::superseded);
  }
  if (now_ms >= fill.expires_ms || fill.filled_ms >= fill.expires_ms) return false;
  const size_t block_bytes = sizeof(Item) + key.key.size() + key.variant.size() + fill.reply.size();
  const uint64_t cost = l1::heap_cost_expected(block_bytes);
  if (cost > t.budget / kLargestShare || block_bytes > std::numeric_limits<uint32_t>::max()) {
    ++t.stats.rejected_too_big;
    return false;
  }

  t.make_room(1, cost, now_ms);
  if (t.ghost.take(mix)) history |= Item::kInMain;
  Item* const item = make_item(key, fill, block_bytes);
  item->bits = static_cast<uint16_t>(item->bits | history);
  t.index.insert(mix, item);
  t.index.step();
  // The index may have grown, and the system's allocator may have rounded more than expected.
  const bool fits = t.make_room(0, l1::heap_cost(item, block_bytes), now_ms);
  t.queue_of(item).push(item);
  if (!fits) {
    // Not even alone beside an empty index: the budget is smaller than the least table.
    ++t.stats.rejected_too_big;
    t.clear();
  }
  return fits;
}

bool L1Table::erase(const L1Key& key) {
  Item* const item = impl_->index.find(l1::mix(key), key);
  if (item == nullptr) return false;
  impl_->drop(item, Cause::superseded);
  return true;
}

void L1Table::clear() { impl_->clear(); }

void L1Table::inspect(Bytes key, const std::function<void(const L1Entry&)>& visit) const {
  const l1::Index& index = impl_->index;
  for (uint64_t n = 0; n < index.bucket_count(); ++n) {
    index.for_each(n, [&](const Item* item) {
      if (item->key() != key) return;
      const uint64_t bytes = l1::heap_cost(item, item->block_bytes());
      visit(L1Entry{.space = item->space,
                    .command = item->command,
                    .key = item->key(),
                    .variant = item->variant(),
                    .reply_bytes = item->reply_bytes,
                    .bytes = static_cast<uint32_t>(bytes),
                    .accesses = item->accesses(),
                    .stamp = item->stamp,
                    .filled_ms = item->filled_ms(),
                    .expires_ms = item->expires_ms,
                    .negative = (item->bits & Item::kNegative) != 0});
    });
  }
}

void L1Table::sweep(uint64_t now_ms) {
  Impl& t = *impl_;
  if (now_ms <= t.sweep_ms) return;
  uint64_t quota = std::min((now_ms - t.sweep_ms) * kSweepPerMs, kSweepBuckets);
  t.sweep_ms = now_ms;
  for (uint64_t done = 0; done < quota && t.items() != 0; ++done) {
    // Where much is gone, more is likely: a flushed space goes at the full rate.
    if (t.sweep_one_bucket(now_ms) > 0) quota = std::min(quota + 2, kSweepBuckets);
  }
  t.index.step();
  t.make_room(0, 0, now_ms);
}

// The index grows by splitting buckets into higher numbers, which the walk comes to later; when it
// has shrunk, items may have moved behind the walk, which then begins again.
bool L1Table::erase_if(Walk& walk, uint64_t buckets,
                       const std::function<bool(Bytes key, uint64_t filled_ms)>& dead) {
  const l1::Index& index = impl_->index;
  if (index.bucket_count() < walk.bucket_count) walk.bucket = 0;
  walk.bucket_count = index.bucket_count();
  std::vector<Item*> doomed;
  for (; buckets > 0 && walk.bucket < index.bucket_count(); --buckets, ++walk.bucket)
    index.for_each(walk.bucket, [&](Item* item) {
      if (dead(item->key(), item->filled_ms())) doomed.push_back(item);
    });
  for (Item* item : doomed) impl_->drop(item, Cause::dead);
  return walk.bucket >= index.bucket_count();
}

const L1Stats& L1Table::stats() const {
  impl_->stats.items = impl_->items();
  impl_->stats.used_bytes = impl_->used();
  return impl_->stats;
}

void L1Table::check_invariants() const {
  const Impl& t = *impl_;
  t.index.check_invariants();
  NC_CHECK(t.index.items() == t.items());
  NC_CHECK(t.used() <= t.budget);
  NC_CHECK(t.entries_max == 0 || t.items() <= t.entries_max);
  for (const Fifo* queue : {&t.small, &t.main}) {
    uint64_t items = 0, bytes = 0;
    const Item* newer = nullptr;
    for (const Item* item = queue->newest; item != nullptr; item = item->older) {
      NC_CHECK(item->newer == newer);
      NC_CHECK(item->in_main() == (queue == &t.main));
      NC_CHECK(item->lifetime_ms > 0);
      const L1Key key{item->hash, item->space, item->command, item->key(), item->variant()};
      NC_CHECK(t.index.find(l1::mix(key), key) == item);
      bytes += l1::heap_cost(item, item->block_bytes());
      ++items;
      newer = item;
    }
    NC_CHECK(queue->oldest == newer);
    NC_CHECK(queue->items == items);
    NC_CHECK(queue->bytes == bytes);
  }
}

}  // namespace nearcached
