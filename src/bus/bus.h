// The bus: this process's line to the other proxies of its upstream, over Redis pub/sub.
//
// Two connections on the control loop: one subscribes, the other publishes. It carries explicit
// invalidations in every mode; the server's invalidations in mode redirect; what each proxy writes
// in modes publish and keyspace. It proves itself by publishing to a channel of its own: what comes
// back was sent at a known time, and whatever Redis published before that has been seen.
//
//   <channel>:<db>           to all proxies (pattern <channel>:*)
//   <channel>.to.<proxy id>  to one: acknowledgements, its own proofs
//
// Whenever something may have been missed (a connection lost, a gap in a peer's messages, a peer
// that fell silent) the owner is told to drop everything.
// Thread: the control loop's, except what says "any thread".
#pragma once
#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "loop/redis_link.h"
#include "nearcached/base/ring_queue.h"
#include "nearcached/coherence/bus_message.h"
#include "nearcached/coherence/peers.h"
#include "nearcached/config/config.h"

namespace nearcached {

/// Numbers this process's announcements, and knows up to which all have been executed. Any thread.
class AnnouncementLog {
 public:
  uint64_t begin(uint64_t now_ns);
  void end(uint64_t sequence);
  /// All up to this one have been executed, or were lost.
  uint64_t executed() const;
  /// When the oldest that is still under way began; far in the future if there is none.
  uint64_t oldest_ns() const;

 private:
  struct Entry {
    uint64_t began_ns = 0;
    bool ended = false;
  };
  mutable std::mutex mutex_;
  uint64_t last_ = 0;
  RingQueue<Entry> under_way_;  ///< the last ones, from the oldest that has not ended
};

class Bus final : private RedisLink::Handler {
 public:
  enum class State : uint8_t {
    down,     ///< not (yet) connected or proven
    up,       ///< subscribed, and a proof has come back
    refused,  ///< the server does not let us publish or subscribe
  };
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void on_invalidate(Bytes key, coherence::Cause cause) = 0;
    virtual void on_everything(coherence::Cause cause, Bytes reason) = 0;
    virtual void on_pattern(Bytes glob, coherence::Cause cause) = 0;
    /// state(), subscriber_id() or keyspace() has changed.
    virtual void on_state() = 0;
    /// Somebody who called request_proof() may look at proof_ns() again.
    virtual void on_proof() = 0;
    /// The schedules kept in L2 have changed (or may have: the link is new).
    virtual void on_schedules() = 0;
  };
  struct Outcome {
    uint64_t receivers = 0;     ///< proxies that Redis delivered it to, this one included
    uint64_t acknowledged = 0;  ///< of those, how many said in time that they did it
    std::string error;          ///< not empty: it reached nobody else
  };

  Bus(Loop& loop, Mailbox& mailbox, const Config& config, Owner& owner);

  void start();
  void close();
  /// Where the bus is: connects anew if that was elsewhere. Control loop.
  void set_address(const Address& address);

  // Any thread.
  State state() const { return state_.load(); }
  uint64_t subscriber_id() const { return subscriber_id_.load(); }
  bool keyspace() const { return keyspace_.load(); }
  /// When the latest proof that has come back was sent; 0: none, or not up.
  uint64_t proof_ns() const { return proof_ns_.load(); }
  /// The same, kept when the bus goes down.
  uint64_t last_proof_ns() const { return last_proof_ns_.load(); }
  uint64_t proxy_id() const { return proxy_id_; }
  const std::string& channel() const { return channel_; }
  AnnouncementLog& announcements() { return announcements_; }
  std::string down_reason() const;
  /// From now on heartbeats say what this process has announced.
  void set_announcing();
  /// From now on proofs are made at every heartbeat, not just now and then.
  void set_needed();
  void want_keyspace();
  void request_proof();
  /// Calls `done` on the control loop when whatever was published before this call has been seen,
  /// or everything has been dropped because the bus was lost. `saw`: the server's invalidation of
  /// `probe` was among it.
  void confirm(std::string probe, std::function<void(bool saw)> done);
  /// Publishes an explicit invalidation to all proxies. `done` on the control loop, within the
  /// configuration's ack_timeout. If the bus is down, or goes down, it is said (again) once it is
  /// up.
  void request(coherence::BusMessage::Kind kind, coherence::Cause cause,
               std::vector<std::string> items, uint32_t database,
               std::function<void(const Outcome&)> done);
  /// Tells all proxies to drop everything, if it can; nobody acknowledges.
  void tell_flush();
  /// Publishes what a lane that may not publish has written. Ends the announcement.
  void announce(std::string message, uint32_t database, uint64_t sequence);

  /// The publishing link, for the schedules. Control loop only.
  RedisLink& publisher() { return publisher_; }
  /// Encodes an explicit invalidation that needs no acknowledgement.
  std::string unacknowledged(coherence::BusMessage::Kind kind, coherence::Cause cause, Bytes item);
  std::string channel_of(uint32_t database) const {
    return channel_ + ":" + std::to_string(database);
  }

  // Gauges; any thread.
  uint64_t peers() const { return peers_known_.load(); }
  uint64_t gaps() const { return gaps_.load(); }
  uint64_t bad_messages() const { return bad_messages_.load(); }
  uint64_t peers_refused() const { return peers_refused_.load(); }
  uint64_t requests_refused() const { return requests_refused_.load(); }
  uint64_t queue_full() const { return queue_full_.load(); }

 private:
  void on_up(RedisLink& link) override;
  void on_down(RedisLink& link, Bytes reason) override;
  void on_message(RedisLink& link, redisReply& reply) override;

  struct Request;
  void tick();
  void subscribe();
  void listen_to(Bytes command, const std::string& channel);
  bool is_refused_channel(Bytes reason);
  void publish(const std::string& channel, const coherence::BusMessage& message,
               RedisLink::Callback callback);
  void send_proof();
  bool is_queue_full();
  void send_heartbeat();
  void send_request(uint64_t number, Request& request);
  void say_again();
  void pay_flush();
  void check_keyspace();
  void refuse(Bytes reason);
  void leave_up(State state, Bytes reason);
  void dispatch(Bytes channel, Bytes payload);
  void to_me(Bytes payload);
  void to_all(Bytes payload);
  void from_server(redisReply& payload);
  void apply(const coherence::BusMessage& message);
  void acknowledged(uint64_t number);
  void missed(Bytes reason);
  void finish(uint64_t number, Bytes error);
  std::string direct_channel(uint64_t proxy) const;

  struct Request {
    coherence::BusMessage::Kind kind{};
    coherence::Cause cause{};
    std::vector<std::string> items;
    uint32_t database = 0;
    uint64_t deadline_ns = 0;
    uint64_t receivers = 0;  ///< 0: Redis has not said yet
    uint64_t acknowledged = 0;
    std::function<void(const Outcome&)> done;
  };
  struct Confirmation {
    uint64_t proof;  ///< done when this or a later one has come back
    std::string probe;
    std::function<void(bool)> done;
  };
  struct Proof {
    uint64_t number;
    uint64_t sent_ns;
  };

  Mailbox& mailbox_;
  const Config& config_;
  Owner& owner_;
  RedisLink subscriber_, publisher_;
  Timer timer_;
  Address address_;  ///< host and path empty: not known yet
  const uint64_t proxy_id_;
  const std::string channel_;
  AnnouncementLog announcements_;
  coherence::PeerTable peers_;

  std::atomic<State> state_{State::down};
  std::atomic<uint64_t> subscriber_id_{0};
  std::atomic<uint64_t> proof_ns_{0}, last_proof_ns_{0};
  std::atomic<bool> keyspace_{false}, announcing_{false}, needed_{false}, want_keyspace_{false};
  std::atomic<uint64_t> peers_known_{0}, gaps_{0}, bad_messages_{0}, peers_refused_{0},
      requests_refused_{0}, queue_full_{0};
  mutable std::mutex reason_mutex_;
  std::string down_reason_;

  uint64_t id_ = 0;                  ///< the subscriber's, before it is up
  bool subscribed_ = false;          ///< all subscriptions have been confirmed
  std::deque<std::string> awaited_;  ///< channels whose confirmation is to come, in order
  std::set<std::string> refused_channels_;
  bool flush_owed_ = false;      ///< tell_flush, until it has been answered
  std::set<uint64_t> relayed_;   ///< announcements that the publisher has under way
  bool keyspace_asked_ = false;  ///< the subscriber listens to keyspace events
  uint64_t next_number_ = 1;
  std::deque<Proof> proofs_;
  std::vector<Confirmation> confirmations_;
  std::set<std::string, std::less<>> probes_seen_;
  std::map<uint64_t, Request> requests_;
  uint64_t proof_due_ns_ = 0, heartbeat_due_ns_ = 0, keyspace_due_ns_ = 0;
  std::array<uint64_t, 2> retry_ns_{}, started_ns_{};  ///< subscriber, publisher
  std::array<uint64_t, 2> backoff_ms_{};
  unsigned attempt_ = 0;
  bool proof_wanted_ = false;
};

/// Keys that begin so are the proxies' own: probes, schedules.
constexpr Bytes kReservedPrefix = "__nearcached:";
/// What the probes of one proxy begin with.
std::string probe_prefix(uint64_t proxy_id);

}  // namespace nearcached
