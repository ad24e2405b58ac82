// Replies under a byte budget. The log (log.h) holds the items and is the order in which they
// leave, the index (index.h) finds them, queues or ranking (queues.h, ranking.h) say which leaves,
// the ghost remembers who left. A hit writes two bytes of the item and nothing else. There is no
// allocation but for items larger than a quarter of a segment, whose payload lies in a block of its
// own.
//
// Everything counts: whole segments, the tables' pages, blocks as the allocator rounds them.
// Invariants: used() ≤ budget whenever a public call returns; every live item is in the index once.
//
// Rejected: a header with everything in fixed fields (64 bytes instead of 15), keeping the key's
// hash (8 bytes; an item that moves or leaves hashes its key again), a timing wheel for expiry (16
// bytes per item; segments know their earliest expiry instead).
#include "l1/store.h"

#include <bit>

#include "l1/heap.h"
#include "nearcached/base/check.h"

namespace nearcached::l1 {
namespace {

constexpr uint64_t kGhostTenthsS3 = 9;           // of what all items may cost
constexpr uint64_t kLargestShare = 8;            // an item may take an eighth of the budget
constexpr uint32_t kInlineShare = 4;             // and a quarter of a segment inside the log
constexpr uint64_t kIndexBytes = 9;              // per item, about: for its cost only
constexpr uint64_t kUnchargedMax = 32ull << 30;  // addresses when overhead is not charged

bool is_ranked(L1Policy policy) {
  return policy != L1Policy::automatic && policy != L1Policy::s3fifo;
}

uint64_t memory_max_of(const L1Options& o) {
  return o.charge_overhead || o.memory_bytes == 0 ? o.memory_bytes : kUnchargedMax;
}

/// 1/4096 of the budget, so that the ends of some dozens of queues are a few per cent of it; less
/// fine where segments would become smaller than a few items.
uint32_t segment_bytes_of(const L1Options& o) {
  uint64_t wanted = 0;
  if (!o.charge_overhead) {
    constexpr uint64_t kBareItem = 32;
    wanted = (o.entries_max != 0 ? o.entries_max * kBareItem : o.memory_bytes) / 512;
  } else {
    wanted = std::min<uint64_t>(4096, o.memory_bytes / 1024);
    wanted = std::max(wanted, o.memory_bytes / 4096);
  }
  return static_cast<uint32_t>(std::bit_floor(std::clamp<uint64_t>(wanted, 512, 65536)));
}

uint64_t entry_cost_of(const L1Options& o) {
  if (o.entries_max == 0) return 0;
  return o.charge_overhead ? std::max<uint64_t>(1, o.memory_bytes / o.entries_max) : 1;
}

uint64_t grain_of(const L1Options& o) { return o.memory_bytes < (1u << 20) ? 64 : 4096; }

}  // namespace

Store::Store(L1Options given)
    : options(std::move(given)),
      log(memory_max_of(options), segment_bytes_of(options),
          is_ranked(options.policy) ? Ranking::kItemBytes : 0),
      // Half the budget in lines is three times as many items as fit beside them.
      index(memory_max_of(options) / 128 + 64, grain_of(options),
            [this](Place place) { return address_at(place); }),
      memory_max_(memory_max_of(options)),
      entry_cost_(entry_cost_of(options)),
      grain_(grain_of(options)),
      headroom_(4 * grain_ + (options.memory_bytes >= 65536 ? 4 : 1) * log.segment_bytes()),
      ghost_(memory_max_ / 512 + 1, grain_),
      queues_(options.policy) {
  NC_CHECK(options.memory_bytes == 0 || options.hash_of);
  if (options.policy == L1Policy::s3fifo)
    ghost_fifo_ = std::make_unique<GhostFifo>(memory_max_ / 256 + 1, grain_);
  if (is_ranked(options.policy)) ranking_.emplace(options.policy, log);
  stats.budget_bytes = options.memory_bytes;
}

Store::~Store() { clear(); }

Address Store::address_at(Place place) const {
  const Item item = log.item(place);
  const Item::Parts parts = item.parts();
  return address_of({options.hash_of(parts.key), 0, 0, parts.key, parts.variant}, item.context());
}

Store::Place Store::look_up(const L1Key& key) const {
  const uint16_t context = contexts.find(key.space, key.command);
  if (context == Contexts::kNone) return 0;
  return index.find(address_of(key, context), [&](Place place) {
    const Item item = log.item(place);
    return item.context() == context && item.is_of(key.key, key.variant);
  });
}

uint64_t Store::bytes_of(const Item::Parts& parts) const {
  const uint64_t block =
      parts.block == nullptr ? 0 : heap_cost(parts.block, sizeof(External) + parts.payload());
  return parts.bytes + kIndexBytes + block;
}

uint64_t Store::cost_of(const Item::Parts& parts) const {
  if (options.charge_overhead) return bytes_of(parts) + entry_cost_;
  return entry_cost_ != 0 ? entry_cost_ : parts.reply.size();
}

uint64_t Store::used() const {
  return log.bytes() + index.bytes() + ghost_.bytes() + block_bytes_ + contexts.bytes() +
         (ghost_fifo_ ? ghost_fifo_->bytes() : 0) + (ranking_ ? ranking_->bytes() : 0);
}

External* Store::new_block(uint64_t payload) {
  auto* block = static_cast<External*>(heap_alloc(sizeof(External) + payload));
  block->newer = nullptr;
  block->older = newest_block_;
  if (newest_block_ != nullptr) newest_block_->newer = block;
  newest_block_ = block;
  block_bytes_ += heap_cost(block, sizeof(External) + payload);
  return block;
}

void Store::free_block(External* block, uint64_t payload) {
  (block->newer == nullptr ? newest_block_ : block->newer->older) = block->older;
  if (block->older != nullptr) block->older->newer = block->newer;
  block_bytes_ -= heap_cost(block, sizeof(External) + payload);
  heap_free(block);
}

void Store::rank_access(Item item) { ranking_->hit(item, cost_of(item.parts())); }

void Store::drop(Place place, const Item::Parts& parts, Cause cause) {
  const Item item = log.item(place);
  const Address address = address_at(place);
  index.remove(address, place);
  const unsigned queue = log.queue_of(place);
  const Use use = item.use();
  switch (cause) {
    case Cause::evicted: ++stats.evictions; break;
    case Cause::expired: ++stats.expired; break;
    case Cause::dead: ++stats.reclaimed; break;
    case Cause::superseded: break;
  }
  // What was in use when its time ended will be fetched again: it need not prove itself twice.
  const bool overtaken = cause == Cause::expired || cause == Cause::dead;
  const bool remembers =
      (cause == Cause::evicted && (Queues::is_trial(queue) || queues_.first_frequency() > 0)) ||
      (overtaken && (!Queues::is_trial(queue) || use.hit()));
  const uint64_t cost = cost_of(parts);
  if (remembers && !ranking_) remember(address.sub, use, cost);
  queues_.remove(queue, cost);
  if (ranking_) ranking_->remove(place);
  contexts.release(item.context());
  reply_bytes_ -= parts.reply.size();
  const uint32_t bytes = parts.bytes;
  if (parts.block != nullptr) free_block(parts.block, parts.payload());
  log.kill(place, bytes);
}

void Store::remember(uint64_t hash, Use use, uint64_t cost) {
  if (ghost_fifo_) ghost_fifo_->remember(hash, cost, cost_max() * kGhostTenthsS3 / 10);
  else ghost_.remember(hash, std::clamp(use.frequency(), 1u, Ghost::kUsedMax));
}

/// How much it had been used, 0 if it is not remembered; forgets it.
unsigned Store::recall(uint64_t hash, uint64_t cost) {
  if (ghost_fifo_) return ghost_fifo_->take(hash, cost) ? 1 : 0;
  return ghost_.take(hash);
}

bool Store::put(const L1Key& key, const L1Fill& fill, uint64_t now_ms) {
  if (options.memory_bytes == 0) return false;
  advance(now_ms);
  Incoming in;
  ItemFields fields;
  fields.use.set(queues_.first_frequency(), false);
  if (const Place old = look_up(key); old != 0) {
    fields.use = log.item(old).use();
    in.trial = Queues::is_trial(log.queue_of(old));
    drop(old, Cause::superseded);
  }
  if (now_ms >= fill.expires_ms || fill.filled_ms >= fill.expires_ms) return false;
  fields.key = key.key, fields.variant = key.variant, fields.reply = fill.reply;
  fields.stamp = fill.stamp;
  fields.plain = fill.plain, fields.bare = fill.bare, fields.negative = fill.negative;
  const uint64_t payload = key.key.size() + key.variant.size() + fill.reply.size();
  const uint64_t end = std::min(fill.expires_ms, now_ms + kLifetimeMax);
  fields.expires_ms = end;
  if (end - fill.filled_ms > UINT32_MAX) return false;  // 49 days old: such a reply is not a fill
  fields.lifetime_ms = end - fill.filled_ms;

  const unsigned rank = ranking_ ? Ranking::kItemBytes : 0u;
  in.log_bytes = Item::bytes_of(fields, rank, false);
  const bool external = payload > UINT32_MAX || in.log_bytes > log.segment_bytes() / kInlineShare;
  if (external) {
    in.log_bytes = Item::bytes_of(fields, rank, true);
    in.block_bytes = heap_cost_expected(sizeof(External) + payload);
  }
  in.reply_bytes = fill.reply.size();
  in.cost = options.charge_overhead ? in.log_bytes + kIndexBytes + in.block_bytes + entry_cost_
            : entry_cost_ != 0      ? entry_cost_
                                    : in.reply_bytes;
  const uint64_t charged = options.charge_overhead ? in.log_bytes + in.block_bytes : in.reply_bytes;
  const uint64_t largest =
      options.charge_overhead ? options.memory_bytes / kLargestShare : options.memory_bytes;
  if (charged > largest || payload > UINT32_MAX || queues_.refuses(charged, options.memory_bytes)) {
    ++stats.rejected_too_big;
    return false;
  }
  if (!ranking_) {
    // Its number may be new, but who is remembered has left one like it, or comes as a stranger.
    const uint16_t context = contexts.find(key.space, key.command);
    const unsigned used =
        context == Contexts::kNone ? 0 : recall(address_of(key, context).sub, in.cost);
    if (used > 0) {
      in.trial = false;
      if (queues_.first_frequency() > 0)
        fields.use.set(std::max(used + 1, fields.use.frequency()), false);
    }
  }
  in.frequency = std::max(1u, fields.use.frequency());
  if (!make_room(in)) {
    ++stats.rejected_too_big;
    if (index.items() == 0) clear();
    return false;
  }
  fields.context = contexts.acquire(key.space, key.command);
  if (fields.context == Contexts::kNone) return false;
  const unsigned queue = queue_for(in);
  Place place = log.reserve(queue, in.log_bytes);
  if (place == 0) {
    log.open(queue);
    place = log.reserve(queue, in.log_bytes);
  }
  External* const block = external ? new_block(payload) : nullptr;
  Item::write(log.item(place).at(), fields, rank, block);
  log.commit(place, in.log_bytes, fields.expires_ms, queues_.base(queue));
  in.cost = cost_of(log.item(place).parts());  // the system's allocator only tells afterwards
  queues_.add(queue, in.cost);
  reply_bytes_ += in.reply_bytes;
  const Address address = address_of(key, fields.context);
  NC_CHECK(options.hash_of(key.key) == key.hash);
  index.insert(address, place);
  if (ranking_) ranking_->insert(place, in.cost);
  index.step();
  // The index may have grown by more than was foreseen, if a bucket had many variants of one key.
  while (used() > memory_max_ && evict_one(true)) {
  }
  return true;
}

void Store::clear() {
  while (newest_block_ != nullptr) {
    External* const block = newest_block_;
    newest_block_ = block->older;
    heap_free(block);
  }
  block_bytes_ = reply_bytes_ = 0;
  index.clear();
  log.clear();
  contexts.clear();
  ghost_.clear();
  if (ghost_fifo_) ghost_fifo_->clear();
  queues_.clear();
  if (ranking_) ranking_->clear();
  complete_ms_ = pass_began_ms_ = latest_ms_;
  hand_ = dead_hand_ = compact_at_ = 0;
}

void Store::check_invariants() {
  NC_CHECK(log.check_invariants() == index.items());
  index.check_invariants();
  NC_CHECK(queues_.items() == index.items());
  NC_CHECK(used() <= memory_max_);
  NC_CHECK(options.entries_max == 0 || index.items() <= options.entries_max);
  NC_CHECK(options.charge_overhead || reply_bytes_ <= options.memory_bytes);
  uint64_t cost = 0, trial = 0, replies = 0, blocks = 0;
  std::vector<uint64_t> by_context(contexts.size());
  for (uint32_t n = 0; n < log.segment_count(); ++n) {
    if (log.segment(n).queue == Log::kNone) continue;
    log.for_each(n, [&](Place place, const Item& item) {
      const Item::Parts parts = item.parts();
      NC_CHECK(index.find(address_at(place), [&](Place p) { return p == place; }) == place);
      NC_CHECK(parts.lifetime_ms > 0);
      NC_CHECK(log.segment(n).expires_ms <= expires_ms(item));
      ++by_context[item.context()];
      cost += cost_of(parts);
      if (Queues::is_trial(log.segment(n).queue)) trial += cost_of(parts);
      replies += parts.reply.size();
      if (parts.block != nullptr)
        blocks += heap_cost(parts.block, sizeof(External) + parts.payload());
    });
  }
  NC_CHECK(cost == queues_.cost() && trial == queues_.trial_cost());
  NC_CHECK(replies == reply_bytes_ && blocks == block_bytes_);
  for (size_t c = 0; c < by_context.size(); ++c)
    NC_CHECK(contexts.items(static_cast<uint16_t>(c)) == by_context[c]);
  if (ranking_) {
    ranking_->check_invariants();
    NC_CHECK(ranking_->items() == index.items());
  }
}

}  // namespace nearcached::l1
