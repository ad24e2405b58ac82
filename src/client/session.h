// Session: one client connection: its bytes in, its requests, its replies out.
//
// A session parses what it reads and offers each request to its Owner (the router), which answers
// at once, takes a reply slot, or asks to be offered the same request again later (`later`: earlier
// replies must be out first, or a lane must be ready). It is not read from while its replies pile
// up (limits.client_output_pause) or too many requests are outstanding (limits.client_inflight),
// and closed beyond limits.client_output. Thread: its worker's. Lifetime: owned by the worker's
// session table; others hold a SessionRef, which dies with close().
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>

#include "client/reply_queue.h"
#include "loop/loop.h"
#include "nearcached/coherence/rules.h"
#include "nearcached/config/config.h"
#include "nearcached/resp/request_parser.h"
#include "upstream/connection.h"

namespace nearcached {

struct Lane;
struct Lookahead;
struct Pin;

class Session final : private Stream::Handler {
 public:
  enum class Outcome : uint8_t {
    done,   ///< answered, or a slot is reserved for the answer
    later,  ///< offer the same request again when resume() has been called
  };
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual Outcome on_request(Session& session, const Request& request) = 0;
    /// Answers the requests at the start of `in` that need nothing but what is held in memory.
    /// Asked only while nothing is outstanding and replies are wanted. Returns the bytes they took;
    /// 0 is always right.
    virtual size_t serve_hits(Session& session, Bytes in) = 0;
    /// serve_hits() will be asked about `in`, which may be empty, once the same has been said of
    /// other sessions, too. `last`: it has been.
    virtual void foresee(const Session& session, Bytes in, bool last) = 0;
    virtual void on_dirty(Session& session) = 0;      ///< has something to flush at the turn's end
    virtual void on_resumable(Session& session) = 0;  ///< wants resume() at the turn's end
    virtual void on_closing(Session& session) = 0;    ///< let go of everything that refers to it
    virtual void on_closed(Session& session) = 0;  ///< may be destroyed (not from inside this call)
    virtual void on_limit(uint8_t which) = 0;      ///< counts a limit that was hit (Limit)
    virtual uint64_t now_ns() = 0;                 ///< refreshes and returns the worker's clock
    virtual const Config& config() const = 0;
    virtual RequestParser& parser() = 0;  ///< all sessions': idle whenever none is being read
  };
  enum Limit : uint8_t { output_closed, output_paused, inflight_paused, request_too_big, protocol };

  Session(Loop& loop, Owner& owner, SessionRef ref, uint64_t id);
  static RequestLimits limits_of(const Config& config);

  /// Takes over an accepted socket and starts reading.
  bool open(int fd, bool is_unix);
  void close();
  /// No more requests are taken; closes once every reply is out.
  void close_when_done();
  /// SIGTERM, called at every tick until it is closed: once it has been quiet for `quiet_ns` and
  /// owes nothing, sends FIN, and closes when the client does or after `linger_ns` more. A close
  /// without that could overtake replies (RST) that the client has not read yet. `stop_taking`: it
  /// is read from no more, so that a client that never pauses comes to its end too.
  void drain(uint64_t quiet_ns, uint64_t linger_ns, bool stop_taking);
  /// At the end of a turn in which it was dirty: writes. False: it is better done at the end of the
  /// next turn, which should begin at once, and stays dirty. That is so when the answers to the
  /// rest of a pipeline are known but for a reply that is on its way: to write a pipeline's replies
  /// twice costs twice. Not more than kDeferrals times in a row.
  bool flush_at_turn_end();
  void resume();
  /// Tries again later what answered Outcome::later.
  void wake();

  /// A complete local reply, in its turn.
  void reply(Bytes bytes);
  ReplyQueue::Slot reserve() { return replies_.reserve(muted()); }
  void deliver(ReplyQueue::Slot slot, Bytes bytes, bool last);
  void hold(ReplyQueue::Slot slot) { replies_.hold(slot); }
  void release(ReplyQueue::Slot slot);
  void out_of_band(Bytes bytes, const ReplyQueue::Slot* before);
  /// Is what has been answered, and `more`, so much that it must go out before more is?
  bool wants_flush(size_t more = 0) const {
    return output_bytes() + more >
           std::min<uint64_t>(kEagerFlushBytes, owner_.config().limits.client_output_pause_bytes);
  }
  /// Room for a reply that is given at once; only while nothing is outstanding.
  Buffer& direct_out() {
    mark_dirty();
    return replies_.out();
  }
  /// The same for a reply that goes to the socket now, and from where it is.
  void reply_uncopied(Bytes bytes) {
    mark_dirty();  // whose flush meets the error if there is one
    stream_.flush_with(replies_.out(), bytes);
  }
  bool muted() const { return reply_off || skip_this; }

  bool outstanding() const { return !replies_.empty(); }
  size_t requests_outstanding() const { return replies_.outstanding(); }
  size_t output_bytes() const { return replies_.bytes() + stream_.unsent_bytes(); }
  size_t input_bytes() const { return input_ != nullptr ? input_->bytes.size() : 0; }
  bool closing() const { return stream_.closing(); }
  std::string peer_name() const { return stream_.peer_name(); }
  std::string local_name() const { return stream_.local_name(); }
  int fd() const { return stream_.fd(); }
  /// CLIENT SETNAME; empty: none.
  Bytes name() const { return name_ != nullptr ? Bytes(*name_) : Bytes(); }
  void set_name(Bytes name) {
    name_ = name.empty() ? nullptr : std::make_unique<std::string>(name);
  }
  void set_unauthenticated(bool value) { unauthenticated_ = value; }

  // The connection's state as Redis would keep it; owned by the router's code. Ten thousand idle
  // ones are to fit 15 MB: small fields share words.
  const SessionRef ref;
  const uint64_t id;
  uint64_t created_ns = 0;
  uint64_t active_ns = 0;
  std::shared_ptr<const Identity> identity;
  Lane* lane = nullptr;
  Pin* pin = nullptr;
  Lookahead* lookahead = nullptr;  ///< while it waits: what its next requests found
  uint64_t floor_ns = 0;           ///< it has seen other connections' replies up to this time
  const void* last_connection = nullptr;  ///< where its last request went; compared, never followed
  uint64_t last_sequence = 0;             ///< that request's place on that connection
  uint64_t topology_version = 0;          ///< when its last request was sent
  uint64_t waiting_since_ns = 0;          ///< for a topology; 0: it is not
  uint32_t database = 0;
  uint32_t retries = 0;                ///< of its requests, how many wait to be sent again
  uint16_t write_node = UINT16_MAX;    ///< where its last write went (NodeIndex), in a cluster
  uint16_t last_command = UINT16_MAX;  ///< Command::id; for CLIENT LIST
  uint8_t resp = 2;
  bool reply_off = false;  ///< CLIENT REPLY OFF
  bool skip_this = false;  ///< the request being handled gets no reply (CLIENT REPLY SKIP)
  bool skip_next = false;
  bool authenticated = false;
  bool parked = false;           ///< has waited for the bus once for the request at hand
  bool gives_up_on_eof = false;  ///< blocked upstream: hanging up ends the request, as in Redis
  bool spread = false;           ///< what is outstanding is on lanes of several nodes, in no order
  bool multi_begun = false;      ///< MULTI was answered; its node is not known before its first key

 private:
  void on_read(Bytes bytes) override;
  void foresee(Bytes bytes, bool last) override;
  std::span<char> read_space() override;
  void on_eof() override;
  void on_connected(int) override {}
  void on_error(int status) override;
  void on_drained() override;
  void on_closed(Stream& stream) override;

  // A buffer that grows beyond this costs more in copies and fresh pages than one more write.
  static constexpr size_t kEagerFlushBytes = 64 * 1024;
  // A reply asked for at one turn's end comes during the next two or three, of 50 clients'
  // pipelines of 16 with 10 % misses: 1.8 writes a pipeline with none, 1.2 with 4; 6 gain nothing.
  static constexpr unsigned kDeferrals = 4;

  void mark_dirty();
  void flush();
  struct Input {
    RequestParser parser;
    Buffer bytes;
  };
  size_t process(RequestParser& parser, Bytes bytes);
  void process_input();
  void keep(Bytes rest);
  bool must_pause();
  void settle();

  Owner& owner_;
  Stream stream_;
  std::unique_ptr<std::string> name_;
  std::unique_ptr<Input> input_;  ///< what has been read and could not be handled yet
  ReplyQueue replies_;
  uint64_t fin_sent_ns_ = 0;  ///< drained: only the client's end is awaited
  bool dirty_ = false;        ///< the owner has been told, and will flush
  unsigned deferrals_ = 0;    ///< since the last flush
  bool resumable_ = false;
  bool waiting_ = false;  ///< a request answered Outcome::later
  bool paused_ = false;   ///< too much outstanding or unread by the client
  bool eof_ = false;
  bool taking_ = true;      ///< requests are still read
  bool finishing_ = false;  ///< close_when_done
  bool partial_ = false;    ///< what is kept begins with a request that is not complete
  bool unauthenticated_ = false;
};

}  // namespace nearcached
