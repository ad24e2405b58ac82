// Connection: one pipelined connection to an upstream node.
//
// Requests are appended and written once per loop turn; replies come back in the same order, so the
// FIFO of Pending entries is all the bookkeeping there is. A Pending names who the reply is for; if
// that one is gone, the reply is dropped in its turn and nothing else moves.
// The connection keeps itself alive: it connects, introduces itself (AUTH, HELLO, SELECT, CLIENT
// TRACKING), and after a loss connects again with jittered backoff, unless `Options::once`.
// What is lost with a link fails; what was not yet written is kept for the next one until its time
// is over. Thread: its loop's. Lifetime: close(), then destroyed after Owner::on_closed.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "loop/loop.h"
#include "nearcached/base/buffer.h"
#include "nearcached/base/ring_queue.h"
#include "nearcached/config/config.h"
#include "nearcached/resp/reply_scanner.h"
#include "nearcached/resp/resp2_converter.h"

namespace nearcached {

/// Who a connection acts as. Two identities never share a lane, nor anything held in L1.
struct Identity {
  std::string user;
  std::string password;
  bool given = false;      ///< false: no AUTH is sent
  bool with_user = false;  ///< AUTH user password rather than AUTH password
  bool operator==(const Identity&) const = default;
};

/// In place of a slot: the request names no key.
constexpr uint16_t kNoSlot = UINT16_MAX;

struct SessionRef {
  uint32_t index = UINT32_MAX;
  uint32_t generation = 0;
};

class Connection;
class Gather;

/// The reason given to Owner::on_down when limits.upstream_reply was passed.
constexpr Bytes kReplyTooLong = "a reply is longer than limits.upstream_reply";

/// Receives one whole reply; for everything that is not simply handed on to a client. Freed by
/// itself or its owner: called exactly once per Pending, with `reply` or, if the link was lost
/// first, with an empty view and `failure`.
class ReplyHandler {
 public:
  virtual ~ReplyHandler() = default;
  virtual void on_reply(Connection& connection, Bytes reply, Bytes failure) = 0;
};

/// The reply of a write is held until so many replicas have it (route/replicas.cc).
struct ReplicaWait {
  uint32_t replicas = 0;  ///< 0: it is not held
  uint64_t timeout_ms = 0;
  void raise(ReplicaWait other) {
    replicas = std::max(replicas, other.replicas);
    timeout_ms = std::max(timeout_ms, other.timeout_ms);
  }
};

/// The writes of a request: what to mark as no longer in flight when its reply is here.
struct WriteMarks {
  std::vector<uint64_t> hashes;
  bool all = false;
  /// Of a private connection: to be made known to the other proxies when the reply is here.
  std::vector<std::string> announced_keys;
  bool announced_everything = false;
  ReplicaWait wait;
};

struct Pending {
  enum class Kind : uint8_t {
    relay,   ///< the reply goes to `session`'s `slot`, converted by `rule` if `convert`
    ignore,  ///< the reply is dropped
    stream,  ///< the reply is handed in pieces to `flight`
    whole,   ///< the whole reply goes to `handler`
  };
  Kind kind = Kind::ignore;
  Resp2Rule rule = Resp2Rule::null_bulk;
  bool convert = false;
  bool read_only = false;
  bool no_timeout = false;       ///< may block for as long as it likes
  bool fence = false;            ///< acknowledged only after every lane's invalidations are through
  bool one_write = false;        ///< `write_hash` is in flight
  bool whole_reply = false;      ///< relay: handed on in one piece
  bool begun = false;            ///< a part of the reply has been handed on
  bool part = false;             ///< relay: the reply is `gather`'s, as its part `slot`
  uint16_t redirects = 0;        ///< how often it has been sent elsewhere
  uint16_t hash_slot = kNoSlot;  ///< in a cluster: its keys'
  uint8_t event = 0;  ///< what it means to a pinned session (lane.h, PinEvent): handed on whole
  uint32_t slot = 0;
  SessionRef session;
  uint64_t sent_ns = 0;
  uint64_t first_ns = 0;    ///< when it was sent for the first time, if that was not sent_ns
  uint64_t stream_end = 0;  ///< offset in the outgoing stream behind its last byte
  uint64_t write_hash = 0;
  std::unique_ptr<WriteMarks> writes;
  union {
    void* flight = nullptr;
    ReplyHandler* handler;
    Gather* gather;
  };
};

class Connection final : public Stream::Handler {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void on_up(Connection& connection) = 0;
    /// The link is gone (pendings have been failed already) or could not be made. `refusal`: the
    /// server's own error reply to the introduction, else empty.
    virtual void on_down(Connection& connection, Bytes reason, Bytes refusal) = 0;
    /// A piece of a reply for kind relay or stream. `last` completes it.
    virtual void on_reply(Connection& connection, Pending& pending, Bytes bytes, bool last) = 0;
    /// The link was lost before the reply was complete; `sent`: the request had been written.
    virtual void on_lost(Connection& connection, Pending& pending, Bytes reason, bool sent) = 0;
    /// A RESP3 push, or, while wants_whole() is set, an unsolicited message; whole.
    virtual void on_push(Connection& connection, Bytes push) = 0;
    /// While wants_whole() is set: is this reply a message rather than the answer to the request
    /// at the front?
    virtual bool is_message(Connection& connection, Bytes reply) = 0;
    virtual void on_flush_needed(Connection& connection) = 0;
    virtual void on_closed(Connection& connection) = 0;
  };

  struct Options {
    Address address;
    Identity identity;
    uint32_t database = 0;
    int resp = 3;
    bool tracking = false;
    /// With tracking: this key is read, written and deleted, and tracking counts only if the push
    /// came. Empty, or not allowed to be read and written: the server's word has to do.
    std::string probe_key;
    bool once = false;  ///< no reconnection: a loss is for the owner to deal with
    std::string client_name;
    uint64_t connect_timeout_ms, timeout_ms, reconnect_min_ms, reconnect_max_ms;
    uint64_t queue_bytes_max, reply_bytes_max;
    /// The bytes of every unanswered request are kept (request()), and errors are handed on whole.
    bool keep_requests = false;
    bool readonly = false;  ///< READONLY: the node is a replica that shall answer reads
    unsigned keepalive_s = 0;
    unsigned attempt = 0;  ///< which of the host's addresses to begin with
  };
  enum class State : uint8_t { connecting, introducing, up, waiting, closing };

  Connection(Loop& loop, Owner& owner, Options options);

  void connect();
  /// False: `bytes` more would exceed the queue's limit (an empty queue takes any one request).
  bool has_room(size_t bytes) const {
    return out_.empty() || out_.size() + bytes <= options_.queue_bytes_max;
  }
  /// Appends a request and the entry for its reply.
  void send(Bytes wire, Pending&& pending);
  void send(std::initializer_list<Bytes> args, Pending&& pending);
  /// Appends bytes whose answer comes with the next request's (SUBSCRIBE before its sentinel).
  void send_unanswered(Bytes wire);
  /// Writes what has been appended; called once per loop turn by the owner's schedule.
  void flush();
  /// Looks after timeouts; a few times per timeout.
  void tick(uint64_t now_ns);
  /// Drops the link (and connects again, unless once).
  void lose(Bytes reason) { lose(reason, true); }
  /// The same because we want another; that this one was not up yet is no failure().
  void renew(Bytes reason) { lose(reason, false); }
  void close();

  State state() const { return state_; }
  bool up() const { return state_ == State::up; }
  const Options& options() const { return options_; }
  size_t pending() const { return pending_.size(); }
  unsigned attempt() const { return options_.attempt; }  ///< the address that is being used
  Pending* front_pending() { return pending_.empty() ? nullptr : &pending_.front(); }
  uint64_t sequence() const { return sequence_; }  ///< of the last request appended
  bool tracking() const { return tracking_; }
  /// Why not, if it was asked for.
  const std::string& tracking_refusal() const { return tracking_refusal_; }
  int resp() const { return resp_; }  ///< what the server really speaks on it
  const std::string& server_version() const { return server_version_; }
  /// The server's whole RESP3 reply to HELLO 3; empty if it speaks RESP2 only.
  const std::string& hello_reply() const { return hello_reply_; }
  uint64_t upstream_id() const { return upstream_id_; }
  Bytes refusal() const { return refusal_; }  ///< the last introduction's error, or empty
  Bytes down_reason() const { return down_reason_; }
  uint64_t last_read_ns() const { return progress_ns_; }
  void set_wants_whole(bool value) { wants_whole_ = value; }
  /// In on_reply (of the last piece) and on_lost: the request that is being answered, as it was
  /// sent; empty without Options::keep_requests. A copy: whoever sends it again may do so at once.
  std::string request() const;
  /// While the link is not up: fails what has not been written.
  void abandon(Bytes reason);
  /// The node has moved: the present link, if any, is for the caller to lose().
  void set_address(const Address& address);
  /// Attempts to connect that have failed since the link was up last.
  /// From the next link on.
  void set_role(bool readonly, bool tracking) {
    options_.readonly = readonly;
    options_.tracking = tracking;
  }
  unsigned failures() const { return failures_; }
  void set_database(uint32_t database) { options_.database = database; }
  void set_resp(int resp) { options_.resp = resp_ = resp; }

  void* owner_data = nullptr;

 private:
  void on_read(Bytes bytes) override;
  void on_eof() override;
  void on_connected(int status) override;
  void on_error(int status) override;
  void on_drained() override;
  void on_closed(Stream& stream) override;

  void introduce();
  void on_introduction_reply(Bytes reply);
  void read_hello(Bytes reply);
  bool take_reply(Bytes piece, bool last);
  void fail(Bytes reason, bool unwritten_too);
  void report(const Pending& pending);
  void lose(Bytes reason, bool by_peer);
  void schedule_reconnect();

  Loop& loop_;
  Owner& owner_;
  Options options_;
  std::unique_ptr<Stream> stream_;
  std::vector<std::unique_ptr<Stream>> dying_;
  Timer reconnect_;
  State state_ = State::waiting;
  ReplyScanner scanner_;
  Buffer out_;
  Buffer introduction_;
  uint64_t appended_ = 0;  ///< bytes ever appended to out_
  RingQueue<Pending> pending_;
  Buffer sent_;                                 ///< keep_requests: everything from `sent_from_` on
  uint64_t sent_from_ = 0;                      ///< these three count as appended_ does
  uint64_t report_begin_ = 0, report_end_ = 0;  ///< the request being answered
  Buffer whole_;  ///< the beginning of a reply that must be complete to be used
  char reply_type_ = 0;
  bool reply_begun_ = false;
  bool drop_reply_ = false;  ///< the reply in progress is too long to be gathered
  bool wants_whole_ = false;
  bool tracking_ = false;
  bool probe_refused_ = false, probe_pushed_ = false;
  std::string tracking_refusal_;
  bool in_read_ = false;
  bool lose_after_read_ = false;
  bool lost_by_peer_ = true;  ///< if lose_after_read_
  int resp_ = 3;
  uint8_t introduction_step_ = 0;
  std::vector<uint8_t> introduction_steps_;
  uint64_t sequence_ = 0;
  uint64_t progress_ns_ = 0;  ///< last time bytes came in, or the link came up
  uint64_t connect_started_ns_ = 0;
  uint64_t backoff_ms_ = 0;
  unsigned failures_ = 0;
  uint64_t upstream_id_ = 0;
  std::string server_version_;
  std::string hello_reply_;
  std::string refusal_;
  std::string down_reason_;
};

}  // namespace nearcached
