// What the table is made of, and what is done with it below the calls of L1Table.
#pragma once
#include <xxhash.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "l1/contexts.h"
#include "l1/ghost.h"
#include "l1/ghost_fifo.h"
#include "l1/index.h"
#include "l1/log.h"
#include "l1/queues.h"
#include "l1/ranking.h"
#include "nearcached/l1/table.h"

namespace nearcached::l1 {

enum class Cause { evicted, expired, dead, superseded };

class Store {
 public:
  using Place = Log::Place;

  explicit Store(L1Options options);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  /// Where the items of a key are: XXH3's bits, folded once more in case a hash is a worse one.
  static uint64_t mix_of(uint64_t hash) {
    const uint64_t x = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
    return x ^ x >> 32;
  }
  /// The rest is hashed under the key's secret hash, so that who picks the arguments cannot aim
  /// them at one place either.
  static Address address_of(const L1Key& key, uint16_t context) {
    const uint64_t mix = mix_of(key.hash);
    const uint64_t sub = mix + (context + uint64_t{1}) * 0x9E3779B97F4A7C15u;
    if (key.variant.empty()) return {mix, mix_of(sub)};
    return {mix, XXH3_64bits_withSeed(key.variant.data(), key.variant.size(), sub)};
  }
  /// The item's place, or 0.
  Place look_up(const L1Key& key) const;
  /// Is the item where the hint says? False: it must be looked up.
  bool is_at(const L1Hint& hint, const L1Key& key) const {
    if (hint.place == 0 || hint.departures != index.departures()) return false;
    const Item item = log.item(hint.place);
    return contexts.is(item.context(), key.space, key.command) && key.variant.empty() &&
           item.is_common_of(key.key);
  }
  bool expired(Item item, uint64_t now_ms) const {
    return static_cast<int32_t>(item.expires_low() - static_cast<uint32_t>(now_ms)) <= 0;
  }
  /// Whole again; requires what advance() keeps true.
  uint64_t expires_ms(Item item) const {
    const auto ahead = static_cast<int32_t>(item.expires_low() - static_cast<uint32_t>(latest_ms_));
    return latest_ms_ + static_cast<uint64_t>(static_cast<int64_t>(ahead));
  }
  void count_access(Item item) {
    Use use = item.use();
    const uint16_t before = use.bits;
    use.touch();
    // Saturated counters are not written: a very hot item stays a clean line.
    if (use.bits != before) item.set_use(use);
    if (ranking_) [[unlikely]]
      rank_access(item);
  }
  bool put(const L1Key& key, const L1Fill& fill, uint64_t now_ms);
  void drop(Place place, const Item::Parts& parts, Cause cause);
  void drop(Place place, Cause cause) { drop(place, log.item(place).parts(), cause); }
  /// Time goes on: call it before anything that compares with it.
  void advance(uint64_t now_ms) {
    if (now_ms > latest_ms_) latest_ms_ = now_ms;
    if (latest_ms_ - complete_ms_ > kHorizonMs) forget_old();
  }
  void sweep(uint64_t now_ms);
  void clear();
  uint64_t used() const;
  /// What an item takes of the budget.
  uint64_t cost_of(const Item::Parts& parts) const;
  /// What an item takes by itself, for INSPECT.
  uint64_t bytes_of(const Item::Parts& parts) const;
  void check_invariants();

  const L1Options options;
  L1Stats stats;
  Log log;
  Contexts contexts;
  Index index;

 private:
  // Expiry is kept modulo 2^32 ms. No life is longer than 2^31, and no item stays for more than
  // 2^30 after its end, so the difference to now always fits 31 bits and a sign.
  static constexpr uint64_t kLifetimeMax = (uint64_t{1} << 31) - 1;
  static constexpr uint64_t kHorizonMs = uint64_t{1} << 30;

  struct Incoming {
    uint64_t cost = 0;
    uint32_t log_bytes = 0;
    uint64_t block_bytes = 0;
    uint64_t reply_bytes = 0;
    bool trial = true;
    unsigned frequency = 0;
  };

  Address address_at(Place place) const;
  void rank_access(Item item);
  bool is_gone(const Item& item, const Item::Parts& parts, Cause& cause) const;
  unsigned queue_for(const Incoming& in) const;
  bool fits(const Incoming& in) const;
  bool make_room(const Incoming& in);
  /// What all items together may cost.
  uint64_t cost_max() const {
    if (options.charge_overhead)
      return queues_.cost();  // as much as there is: the rest is overhead
    return options.entries_max != 0 ? options.entries_max : options.memory_bytes;
  }
  void remember(uint64_t hash, Use use, uint64_t cost);
  unsigned recall(uint64_t hash, uint64_t cost);
  bool evict_one(bool force);
  bool evict_ranked();
  bool requeue(Place place, const Item::Parts& parts, Use use, unsigned queue);
  bool is_sparse() const;
  bool compact();
  void moved(Place from, Place to);
  uint64_t drop_gone(uint32_t segment);
  void forget_old();
  External* new_block(uint64_t payload);
  void free_block(External* block, uint64_t payload);

  const uint64_t memory_max_;  ///< of everything; the budget unless overhead is not charged
  /// If entries are limited: an entry's share of the budget; 1 uncharged.
  const uint64_t entry_cost_;
  const uint64_t grain_;                   ///< by which tables grow
  const uint64_t headroom_;                ///< kept for what moves while room is being made
  Ghost ghost_;                            ///< auto's
  std::unique_ptr<GhostFifo> ghost_fifo_;  ///< s3fifo's, and only there
  Queues queues_;
  std::optional<Ranking> ranking_;
  External* newest_block_ = nullptr;
  uint64_t block_bytes_ = 0;
  uint64_t reply_bytes_ = 0;
  uint64_t latest_ms_ = 0;
  uint64_t complete_ms_ = 0;    ///< what had expired before this is gone
  uint64_t pass_began_ms_ = 0;  ///< the hand's pass under way
  uint64_t swept_ms_ = 0;
  uint32_t hand_ = 0;       ///< of expiry: a segment's number
  uint32_t dead_hand_ = 0;  ///< of what is dead
  uint32_t compact_at_ = 0;
};

}  // namespace nearcached::l1
