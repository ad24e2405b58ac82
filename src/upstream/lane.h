// Lane and Pin: what a Connection is used for.
//
// A Lane is a worker's multiplexed connection for one (identity, database, protocol); all sessions
// that act as that identity share it. Over RESP3 with tracking it also feeds L1, under
// `proof.space`. A Pin is a private connection for one session whose state lives in the server
// (MULTI, SUBSCRIBE, BLPOP …); idle ones are kept for the next session that needs one.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nearcached/coherence/rules.h"
#include "nearcached/topology/epoch_watch.h"
#include "nearcached/topology/topology.h"
#include "upstream/connection.h"

namespace nearcached {

struct Link {
  enum class Kind : uint8_t { lane, pin };
  explicit Link(Kind k) : kind(k) {}
  virtual ~Link() = default;
  const Kind kind;
  NodeIndex node = 0;
  std::unique_ptr<Connection> connection;
  Resp2Converter converter;  ///< of the reply in progress
  bool converting = false;   ///< it has begun
};

/// Keys, in one string: it allocates only for more than it has held before, and if that was much
/// gives it back when it is cleared.
class KeyList {
 public:
  bool empty() const { return ends_.empty(); }
  size_t size() const { return ends_.size(); }
  void add(Bytes key) {
    bytes_.append(key);
    ends_.push_back(bytes_.size());
  }
  /// The views are valid until the next add() or clear().
  void views(std::vector<Bytes>& keys) const {
    keys.clear();
    for (size_t i = 0, begin = 0; i < ends_.size(); begin = ends_[i++])
      keys.push_back(Bytes(bytes_).substr(begin, ends_[i] - begin));
  }
  void clear() {
    bytes_.clear();
    ends_.clear();
    if (bytes_.capacity() + ends_.capacity() * sizeof(size_t) > kKeptBytes) *this = KeyList();
  }

 private:
  static constexpr size_t kKeptBytes = 16 * 1024;
  std::string bytes_;
  std::vector<size_t> ends_;
};

struct Lane final : Link {
  Lane() : Link(Kind::lane) {}
  /// Written over it and not yet made known to the other proxies: goes out behind the writes.
  KeyList announced_keys;
  bool announced_everything = false;
  coherence::LaneProof proof;
  CoherenceMode mode = CoherenceMode::off;  ///< how others' writes reach it; off: it feeds no L1
  bool blind = false;   ///< its present or last mode tells nobody of writes with unknown keys
  uint64_t serial = 0;  ///< of this link's life, for answers that come late
  std::string no_resp3, no_redirect;  ///< why not
  uint64_t space_fills = 0;           ///< kept in the present space
  uint32_t stale_space = 0;     ///< what it held when it was last proven; 0: nothing to serve stale
  uint64_t stale_proof_ns = 0;  ///< when that was
  std::shared_ptr<const Identity> identity;
  uint32_t database = 0;
  int resp = 3;
  bool replica = false;      ///< to a replica, for reads that may be stale
  bool renews_role = false;  ///< the link is from before that changed
  EpochWatch epochs;         ///< of the cluster, as the node says them
  uint64_t settled_ns = 0;   ///< when the last CLUSTER INFO was sent that allows for a proof
  uint32_t sessions = 0;
  uint64_t idle_since_ns = 0;
  bool proven = false;  ///< has been up: the server accepts who it is
  bool heartbeat_pending = false;
  uint64_t heartbeat_sent_ns = 0;
  uint64_t next_heartbeat_ns = 0;
  /// Called once when the lane is up (empty refusal) or has been refused or given up on.
  std::vector<std::function<void(bool up, Bytes refusal)>> waiting;
};

/// What a reply on a pinned connection changes (Pending::event).
enum class PinEvent : uint8_t {
  none,
  exec,
  exec_aborted,
  select,
  auth,
  hello,
  monitor,
  sentinel,
  unblock,
  bind,  ///< the first key of a WATCH or MULTI in a cluster: it decides which node it is at
  sticky,
  sticky_off
};

struct Pin final : Link {
  Pin() : Link(Kind::pin) {}
  SessionRef session;
  bool idle = false;  ///< in the pool: nobody's
  std::shared_ptr<const Identity> identity;
  uint64_t idle_since_ns = 0;
  bool multi = false;
  bool watch = false;
  bool monitor = false;
  bool sticky = false;          ///< state we do not model: stays until RESET or the end
  uint32_t sticky_pending = 0;  ///< outstanding requests for such state
  // In a cluster.
  int slot = -1;                     ///< of the keys of its WATCH or MULTI
  bool asking = false;               ///< the slot is on its way here: each command needs ASKING
  std::vector<std::string> unbound;  ///< queued before the first key: they go wherever that is
  size_t unbound_bytes = 0;
  bool bound = false;      ///< its first key has been seen
  bool reusable = true;    ///< nothing was changed that another session would notice
  bool poisoned = false;   ///< a command was refused inside MULTI: EXEC must abort
  bool changing = false;   ///< a request is out whose reply decides how the next is understood
  uint32_t blocking = 0;   ///< outstanding requests that may block
  uint32_t sentinels = 0;  ///< outstanding ends of SUBSCRIBE-like requests
  uint64_t channels = 0;   ///< subscribed channels and patterns
  uint64_t shard_channels = 0;
  // The transaction being queued.
  std::vector<uint64_t> writes;
  std::vector<std::string> written_keys;  ///< the same, while writes are announced
  bool writes_unknown = false;
  bool writes_everything = false;
  ReplicaWait wait;
  struct QueuedSelect {
    uint32_t place;
    int64_t database;
  };
  uint32_t queued = 0;  ///< commands in it
  std::vector<QueuedSelect> selects;
  // Arguments of the one request whose reply changes the session (barrier: never two at once).
  int64_t new_database = -1;
  uint8_t new_resp = 0;
  std::shared_ptr<const Identity> new_identity;
  std::string new_name;

  bool has_state() const {
    return multi || watch || monitor || sticky || sticky_pending > 0 || blocking > 0 ||
           sentinels > 0 || channels > 0 || shard_channels > 0;
  }
  bool subscribed() const { return channels > 0 || shard_channels > 0 || sentinels > 0; }
};

}  // namespace nearcached
