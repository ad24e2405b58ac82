// How the store gets memory back: eviction, compaction, and the hands of the sweep.
//
// Memory comes free by segments. With queues that is the rule: the oldest leave from the head of a
// queue until its first segment is empty. Holes (what expired, was replaced, was dropped by a key)
// become memory again when all of a segment is holes, or when an eighth of the log is: then a hand
// walks along the queues and moves what is left together, keeping the order. With a ranking
// everybody leaves from somewhere, and the same hand does all the work: those policies write an
// item up to eight times, which is what their order costs.
#include <algorithm>
#include <bit>

#include "l1/heap.h"
#include "l1/store.h"
#include "nearcached/base/check.h"

namespace nearcached::l1 {
namespace {

constexpr unsigned kHandSteps = 1000;   // second chances per put: 0.2 ms at the worst
constexpr uint64_t kGhostFrom = 65536;  // bytes; below, its first page costs more than it saves
constexpr unsigned kCompactSteps = 16;  // merges per call
constexpr uint64_t kSparseShare = 8;
constexpr uint64_t kLooksPerMs = 64;     // descriptions of segments that the hand of expiry reads
constexpr uint64_t kMsPerDeadLook = 16;  // per segment that is read for the dead
constexpr uint64_t kScansPerSweep = 16;  // segments read per call, for either reason
constexpr unsigned kIndexSteps = 8;

}  // namespace

bool Store::is_gone(const Item& item, const Item::Parts& parts, Cause& cause) const {
  cause = Cause::expired;
  if (expired(item, latest_ms_)) return true;
  cause = Cause::dead;
  return options.is_dead &&
         options.is_dead(options.hash_of(parts.key), contexts.space(item.context()), parts.stamp);
}

unsigned Store::queue_for(const Incoming& in) const {
  if (ranking_) return 0;
  return in.trial ? queues_.trial_queue(in.cost) : queues_.main_queue(in.frequency, in.cost);
}

bool Store::fits(const Incoming& in) const {
  if (options.entries_max != 0 && index.items() + 1 > options.entries_max) return false;
  if (!options.charge_overhead) {
    return reply_bytes_ + in.reply_bytes <= options.memory_bytes && index.has_room() &&
           (log.reserve(queue_for(in), in.log_bytes) != 0 || log.has_unused());
  }
  uint64_t wanted = used() + in.block_bytes + headroom_ + (ranking_ ? ranking_->growth() : 0);
  if (index.bucket_count() == 0) wanted += 1024;
  if (log.reserve(queue_for(in), in.log_bytes) == 0) {
    if (!log.has_unused()) return false;
    wanted += log.segment_bytes();
  }
  return wanted <= memory_max_ && index.has_room();
}

bool Store::make_room(const Incoming& in) {
  for (unsigned step = 0; !fits(in); ++step) {
    if (is_sparse() && compact()) continue;
    if (!evict_one(step >= kHandSteps)) return false;
  }
  return true;
}

// One item leaves, or moves on, or both: the order is that of the log.
bool Store::evict_one(bool force) {
  if (ranking_) return evict_ranked();
  const unsigned queue = queues_.next(log, cost_max());
  if (queue == Queues::kNone) return false;
  const Place place = log.head(queue);
  NC_CHECK(place != 0);
  const Item item = log.item(place);
  const Item::Parts parts = item.parts();
  __builtin_prefetch(item.at() + parts.bytes);
  Cause cause;
  if (is_gone(item, parts, cause)) {
    drop(place, parts, cause);
    return true;
  }
  Use use = item.use();
  const uint64_t cost = cost_of(parts);
  const bool trial = Queues::is_trial(queue);
  if (!force && (trial ? queues_.promotes(use) : queues_.stays(use))) {
    // What it was used for in trial counts from the first time it was asked for again.
    const unsigned worth = trial && use.frequency() > 0 ? use.frequency() - 1 : use.frequency();
    if (requeue(place, parts, use, queues_.main_queue(std::max(1u, worth), cost))) return true;
  }
  if (options.memory_bytes >= kGhostFrom || !options.charge_overhead) {
    if (ghost_fifo_) ghost_fifo_->step();
    else ghost_.step(queues_.items());
  }
  drop(place, parts, Cause::evicted);
  return true;
}

bool Store::evict_ranked() {
  const Place place = ranking_->victim();
  if (place == 0) return false;
  const Item item = log.item(place);
  const Item::Parts parts = item.parts();
  Cause cause;
  drop(place, parts, is_gone(item, parts, cause) ? cause : Cause::evicted);
  return true;
}

// False if there is no segment for it: then it must leave after all.
bool Store::requeue(Place place, const Item::Parts& parts, Use use, unsigned queue) {
  Place to = log.reserve(queue, parts.bytes);
  if (to == 0) {
    if (!log.has_unused() || used() + log.segment_bytes() + grain_ > memory_max_) return false;
    log.open(queue);
    to = log.reserve(queue, parts.bytes);
  }
  Item item = log.item(place);
  item.set_use(use);
  std::memcpy(log.item(to).at(), item.at(), parts.bytes);
  log.commit(to, parts.bytes, expires_ms(item), queues_.base(queue));
  index.move(address_at(place), place, to);
  const uint64_t cost = cost_of(parts);
  queues_.remove(log.queue_of(place), cost);
  queues_.add(queue, cost);
  log.kill(place, parts.bytes);
  return true;
}

bool Store::is_sparse() const {
  const uint64_t memory = log.segment_memory();
  const auto queues = static_cast<uint64_t>(std::popcount(log.occupied()));
  return memory - log.live_bytes() > memory / kSparseShare + 2 * queues * log.segment_bytes();
}

void Store::moved(Place from, Place to) {
  index.move(address_at(to), from, to);
  if (ranking_) ranking_->move(to);
}

// True if a segment came free.
bool Store::compact() {
  for (unsigned step = 0; step < kCompactSteps; ++step) {
    const uint32_t count = log.segment_count();
    if (compact_at_ >= count || log.segment(compact_at_).queue == Log::kNone ||
        log.segment(compact_at_).next == Log::kNone) {
      // The end of a queue, or what was there has gone: on to the head of the next one.
      const unsigned queue = compact_at_ < count && log.segment(compact_at_).queue != Log::kNone
                                 ? log.segment(compact_at_).queue + 1
                                 : 0;
      uint64_t others = queue < Log::kQueues ? log.occupied() >> queue << queue : 0;
      if (others == 0) others = log.occupied();
      if (others == 0) return false;
      compact_at_ = log.head_segment(static_cast<unsigned>(__builtin_ctzll(others)));
    }
    const uint32_t to = compact_at_;
    const uint32_t from = log.segment(to).next;
    if (from == Log::kNone) continue;
    // The expired are not moved: the hand of expiry must not have to run after them.
    if (drop_gone(to) + drop_gone(from) > 0) return true;
    if (log.merge(to, from,
                  [this](Place old_place, Place new_place) { moved(old_place, new_place); }))
      return true;
    compact_at_ = from;
  }
  return false;
}

/// Drops the expired of a segment, and the dead. Returns how many went.
uint64_t Store::drop_gone(uint32_t segment) {
  uint64_t dropped = 0, earliest = UINT64_MAX;
  log.for_each(segment, [&](Place place, const Item& item) {
    const Item::Parts parts = item.parts();
    Cause cause;
    if (is_gone(item, parts, cause)) {
      drop(place, parts, cause);
      ++dropped;
    } else {
      earliest = std::min(earliest, expires_ms(item));
    }
  });
  if (log.segment(segment).queue != Log::kNone) log.set_expires(segment, earliest);
  return dropped;
}

void Store::sweep(uint64_t now_ms) {
  if (now_ms <= swept_ms_) return;
  advance(now_ms);
  const uint64_t elapsed = std::min<uint64_t>(now_ms - swept_ms_, 64);
  uint64_t scans = 0;
  // Once round is enough, however much time has passed.
  const uint64_t looks = std::min<uint64_t>(elapsed * kLooksPerMs, log.segment_count() + 1u);
  for (uint64_t look = 0; look < looks && scans < kScansPerSweep; ++look, ++hand_) {
    if (hand_ >= log.segment_count()) {
      hand_ = 0;
      complete_ms_ = pass_began_ms_;
      pass_began_ms_ = now_ms;
      if (log.segment_count() == 0) break;
    }
    const Log::Segment& s = log.segment(hand_);
    if (s.queue == Log::kNone || s.expires_ms > now_ms) continue;
    drop_gone(hand_);
    ++scans;
  }
  uint64_t reads = now_ms / kMsPerDeadLook - swept_ms_ / kMsPerDeadLook;
  for (; options.is_dead && reads > 0 && scans < kScansPerSweep; --reads, ++scans) {
    if (dead_hand_ >= log.segment_count()) dead_hand_ = 0;
    if (dead_hand_ >= log.segment_count()) break;
    // Where much is gone, more is likely: a flushed space goes at the full rate.
    if (log.segment(dead_hand_).queue != Log::kNone && drop_gone(dead_hand_) > 0) reads += 2;
    ++dead_hand_;
  }
  swept_ms_ = now_ms;
  for (unsigned i = 0; i < kIndexSteps; ++i) index.step();
  while (used() > memory_max_ && evict_one(true)) {
  }
}

// The hand has not been round for twelve days: nobody has called sweep(). Then expiries can no
// longer be told apart from those of another turn of the counter, and everything goes.
void Store::forget_old() {
  if (index.items() != 0) {
    stats.expired += index.items();
    clear();
  }
  complete_ms_ = pass_began_ms_ = latest_ms_;
}

}  // namespace nearcached::l1
