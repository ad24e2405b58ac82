// The L1 table: replies kept in this worker's memory, under an honest byte budget.
//
// A key of the table is (space, key, variant): `space` is the life of one lane (identity, database,
// epoch: coherence/lane_epoch.h), so another user's or database's reply can never match and
// dropping a space is O(1): it is simply never asked for again. `variant` is the command and its
// arguments behind the key. `stamp` is kept for the caller, which compares it
// (coherence/stamp_table.h); the table never interprets it, except through `is_dead` when it looks
// for memory. Nor does it interpret a reply, or `plain` and `bare`, which say what to make of it.
// Expiry is exact on read. Every byte counts against the budget: index, headers, keys,
// values, holes and the allocator's rounding. Not thread-safe: one table per worker. Time is an
// argument, in ms.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "nearcached/base/bytes.h"
#include "nearcached/base/l1_policy.h"

namespace nearcached {

struct L1Key {
  uint64_t hash;  ///< hash_key(key): of the key alone
  uint32_t space;
  uint16_t command;  ///< Command::id
  Bytes key;
  Bytes variant;  ///< arguments behind the key, each as u32 length + bytes; empty for GET
};

struct L1Hit {
  Bytes reply;  ///< L1Fill::reply; valid until the next non-const call on the table
  uint64_t stamp = 0;
  uint64_t filled_ms = 0;
  uint64_t expires_ms = 0;
  bool plain = false;     ///< L1Fill::plain
  bool bare = false;      ///< L1Fill::bare
  bool negative = false;  ///< the key did not exist
  bool first = false;     ///< nobody has asked for it since it was stored
};

/// Where prefetch_item() has seen what may be the item; its members are the table's own. It may be
/// kept for as long as one likes, and be of another key: it is believed only while nothing has left
/// the table since, and then compared like any other candidate. Only of another table it must not
/// be.
struct L1Hint {
  uint32_t place = 0;  ///< 0: none
  uint64_t departures = 0;
};

struct L1Fill {
  Bytes reply;  ///< a whole RESP3 reply, or what the caller makes one of
  uint64_t stamp;
  uint64_t filled_ms;
  uint64_t expires_ms;  ///< exclusive: at expires_ms it is gone
  bool plain;           ///< Resp2Converter::is_plain()
  bool negative;
  bool bare = false;  ///< `reply` is the payload of a bulk string: resp::read_bulk()
};

struct L1Entry {  ///< for INSPECT
  uint32_t space;
  uint16_t command;
  Bytes key;
  Bytes variant;
  uint32_t reply_bytes;  ///< of L1Fill::reply
  uint32_t bytes;        ///< charged against the budget
  uint32_t accesses;     ///< saturating
  uint64_t stamp;
  uint64_t filled_ms;
  uint64_t expires_ms;
  bool negative;
};

struct L1Stats {
  uint64_t items = 0;
  uint64_t used_bytes = 0;  ///< everything that counts against the budget
  uint64_t budget_bytes = 0;
  uint64_t evictions = 0;  ///< live items pushed out by the budget
  uint64_t expired = 0;    ///< items dropped because their time was over
  uint64_t reclaimed = 0;  ///< items dropped because they were dead (stale stamp or space)
  uint64_t rejected_too_big = 0;
};

struct L1Options {
  uint64_t memory_bytes = 0;  ///< 0: the table stores nothing
  uint64_t entries_max = 0;   ///< 0: bounded by memory alone
  L1Policy policy = L1Policy::automatic;
  /// False: memory_bytes is compared with the replies' bytes alone, as simulators of caches count.
  bool charge_overhead = true;
  /// The hash of L1Key::hash: the table does not keep it. Must be given unless memory_bytes is 0.
  std::function<uint64_t(Bytes key)> hash_of = {};
  /// Tells whether an item can never be served again (its stamp or its space is stale); asked when
  /// memory is needed, never on a lookup. May be empty.
  std::function<bool(uint64_t hash, uint32_t space, uint64_t stamp)> is_dead = {};
};

class L1Table {
 public:
  explicit L1Table(L1Options options);
  ~L1Table();
  L1Table(const L1Table&) = delete;
  L1Table& operator=(const L1Table&) = delete;

  /// The item, or nullopt-like false. An item past its time is dropped here. Counts as an access.
  /// `hint` spares it the search, and changes nothing else.
  bool find(const L1Key& key, uint64_t now_ms, L1Hit& hit, L1Hint hint = {});
  /// The same without counting as an access and without dropping anything.
  bool peek(const L1Key& key, uint64_t now_ms, L1Hit& hit) const;
  /// Prefetches the index line that find(key) will read first.
  void prefetch(const L1Key& key) const;
  /// Prefetches the item itself; call it once the line of prefetch() has had time to arrive.
  L1Hint prefetch_item(const L1Key& key) const;
  /// Stores or replaces. False if nothing was stored: already past its time, larger than an eighth
  /// of the budget, or budget 0. What was there before under this key is gone in any case.
  /// `fill` must not point into the table's own memory. A life longer than 24 days is cut to that.
  bool put(const L1Key& key, const L1Fill& fill, uint64_t now_ms);
  /// Drops one item; true if it was there.
  bool erase(const L1Key& key);
  /// Drops everything that is kept of a key, in any space, by any command, with any arguments: one
  /// walk along one chain. Returns how many items that were.
  uint64_t erase_key(uint64_t hash, Bytes key);
  /// O(1), but for values that are kept outside the log, and what the system takes for its pages.
  void clear();

  /// All items of this key in any space and variant, for INSPECT.
  void inspect(Bytes key, const std::function<void(const L1Entry&)>& visit) const;
  /// Reclaims a few expired or dead items; call once per loop turn. O(1), and nothing at all when
  /// `now_ms` has not moved since the last call. Memory where nothing has expired is not read for
  /// it, except by a slow hand that looks for the dead.
  void sweep(uint64_t now_ms);
  /// A walk through the whole table in steps, during which it may change.
  struct Walk {
    uint64_t bucket = 0;
    uint64_t bucket_count = 0;
  };
  /// Drops the items for which `dead(key, filled_ms)` holds in the next `buckets` buckets. True:
  /// every item that has been there since the walk began has been looked at.
  bool erase_if(Walk& walk, uint64_t buckets,
                const std::function<bool(Bytes key, uint64_t filled_ms)>& dead);
  const L1Stats& stats() const;
  /// Verifies every internal invariant; for tests. Aborts on a violation.
  void check_invariants() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nearcached
