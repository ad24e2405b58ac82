// The proxy around the rules: what src/route and src/upstream do with them, without bytes, sockets
// and threads. The rules themselves (coherence/rules.h), the stamps (StampTable) and L1 (L1Table)
// are the real ones. Which function here stands for which there:
//
//   model_router.cc  Router::on_request, route, read_through, serves_hits, serve, relay, must_wait,
//                    went_to, mark_writes, end_writes, catch_up, find_valid (router.cc); select,
//                    leave (connection_commands.cc); Session::process, deliver, hold, release,
//                    resume
//   model_fill.cc    start_read, find_flight, on_flight_reply, finish_flight, keep (fill.cc);
//                    mget, on_mget_reply, finish_mget (mget.cc)
//   model_lanes.cc   on_up, on_down, on_reply, on_lost, on_push, invalidate, heartbeat, tick,
//                    lane_for, when_ready (lanes.cc); await_fence, start_fence_round, fence_lanes,
//                    end_fence_round (fence.cc); Connection::connect, send, flush, tick, lose,
//                    fail, close, schedule_reconnect (upstream/connection.cc)
//   model_modes.cc   proof_of, begin_coherence, set_mode, choose_mode, try_redirect,
//                    prove_redirect, on_bus_state, parks, park, on_bus_proof (modes.cc);
//                    announce_key, announce_everything, send_announcement, write_was_lost
//                    (announce.cc)
//   model_bus.cc     Bus (bus/bus.cc), Process::on_invalidate, on_everything, on_state, on_proof
//   model_patterns.cc  accept_pattern, pattern_walked (process.cc); adopt_patterns,
//                    walk_patterns (patterns.cc); if_allowed (client_command.cc),
//                    pattern_command, invalidate_everywhere (nearcache.cc)
//   model_pins.cc    pinned, acquire_pin, maybe_unpin, unpin, close_pin, forward_pinned,
//                    queue_transaction, end_transaction, on_pin_reply (pinned.cc)
//
// A worker handles one event at a time, as its thread does; workers meet at the stamps and the
// mailbox. Left out: limits, identities (they are spaces, as databases are), RESP2, bytes.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "nearcached/coherence/patterns.h"
#include "nearcached/coherence/rules.h"
#include "nearcached/coherence/stamp_table.h"
#include "nearcached/config/config.h"
#include "nearcached/l1/table.h"
#include "sim/model_bus.h"
#include "sim/model_redis.h"

namespace nearcached::sim {

/// Measures that the simulator has shown to be needed; each can be left out, to see what then
/// happens (--turn).
struct Measures {
  bool fill_floor = true;       ///< a hit raises the session's floor to the time of its fill
  bool mget_erase = true;       ///< what MGET has read anew is not served from before
  bool early_scripts = true;    ///< a script before the mode is known counts as a write of all
  bool deaf_heartbeats = true;  ///< heartbeats are sent while the bus hears nothing
  bool early_silence = true;    ///< a peer counts as silent before max_staleness is over
  bool leave_demoted =
      false;  ///< (not in the router) a link is given up when its server is a primary no more
  bool same_server =
      false;  ///< (not in the router) a lane and the bus that feeds it must have reached one server
};

struct ProxyOptions {
  Measures measures;
  CoherenceMode mode = CoherenceMode::resp3;
  uint64_t heartbeat_ns = 100 * kNsPerMs;
  uint64_t max_staleness_ns = 500 * kNsPerMs;
  uint64_t idle_proof_ns = 1000 * kNsPerMs;  ///< of the bus, while nobody needs it
  uint64_t timeout_ns = 5000 * kNsPerMs;
  uint64_t connect_timeout_ns = 2000 * kNsPerMs;
  uint64_t ack_timeout_ns = 1000 * kNsPerMs;
  uint64_t reconnect_min_ns = 20 * kNsPerMs;
  uint64_t reconnect_max_ns = 1000 * kNsPerMs;
  coherence::FillTtls ttls{60'000, 30'000};
  uint64_t l1_bytes = 1 << 20;
};

class Router;
struct Lane;
struct Pin;
struct Session;

/// What a client asks for. `names` become keys of the session's database when it is handled.
struct ClientRequest {
  enum class Op : uint8_t {
    get,
    strlen,  ///< another cacheable command on the same key
    mget,
    read_twin,  ///< a read whose reply has no RESP2 form: goes over the twin, never kept
    set,
    del,
    set_twin,  ///< a write over the twin
    script,
    watch,
    multi,
    exec,
    flush_all,
    swap_db,
    select,
    pattern,  ///< NEARCACHE PATTERN kGlobs[glob]
  };
  Op op = Op::get;
  uint8_t glob = 0;
  uint8_t count = 0;
  std::array<Name, kNames> names{};
  uint32_t px_ms = 0;
  unsigned database = 0;  ///< select
  // Written when it is offered for the first time.
  uint64_t number = 0;  ///< 0: not offered yet
  uint64_t started_ns = 0;
  std::array<Version, kKeys> acknowledged{};  ///< what the process had acknowledged by then
  Version held;                               ///< pattern: how far the server was
};

struct Answer {
  Reply reply;
  std::array<Key, kNames> keys{};    ///< of reply.values
  std::array<bool, kNames> wrote{};  ///< reply.values tell what was written, not what was read
  bool hit = false;
  bool joined = false;  ///< the read was under way already when it was asked for
  // Of a pattern.
  uint8_t acknowledged = 0;  ///< a bit for each process by its number
  bool published = false;    ///< every subscriber has been told, or will be
};

/// Who is told what leaves a proxy: the client's side, and the checker.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_start(Session& session, ClientRequest& request) = 0;
  virtual void on_answer(Session& session, const ClientRequest& request, const Answer& answer) = 0;
  virtual void on_session_closed(Session& session) = 0;
};

/// A session's place; places are not used again within a schedule.
using SessionRef = uint32_t;
constexpr SessionRef kNobody = UINT32_MAX;

/// As Session::last_connection: whatever follows waits for the reply under way.
inline constexpr char kNowhere = 0;

struct Session {
  using Slot = uint32_t;
  struct Entry {
    ClientRequest request;
    Answer answer;
    bool complete = false;
    bool held = false;
  };
  enum class Outcome : uint8_t { done, later };

  SessionRef ref = kNobody;
  Router* router = nullptr;
  unsigned client = 0;  ///< whose it is
  unsigned database = 0;
  Lane* lane = nullptr;
  Pin* pin = nullptr;
  coherence::SessionView view;
  const void* last_connection = nullptr;
  uint64_t last_sequence = 0;
  std::deque<ClientRequest> input;
  std::deque<Entry> slots;
  Slot first_slot = 0;
  bool parked = false;
  bool waiting = false;
  bool resumable = false;
  bool closing = false;
  Version seen;                              ///< the checker's: the newest that it has been shown
  std::array<Version, 2 * kKeys> seen_of{};  ///< likewise, of each key and shape

  bool outstanding() const { return !slots.empty(); }
  Slot reserve(const ClientRequest& request);
  void reply(const ClientRequest& request, const Answer& answer);
  void deliver(Slot slot, const Answer& answer);
  void hold(Slot slot) { slots[slot - first_slot].held = true; }
  void release(Slot slot);
  void wake();
  void advance();
  const ClientRequest& request_of(Slot slot) { return slots[slot - first_slot].request; }
};

struct Flight {
  struct Waiter {
    SessionRef session;
    Session::Slot slot;
  };
  Lane* lane = nullptr;
  Key key = 0;
  uint16_t command = 0;
  coherence::FillStart start;
  uint64_t sequence = 0;
  bool linked = true;
  std::optional<Observed> value;
  std::vector<Waiter> waiters;
};

struct MgetFlight {
  struct Element {
    Key key = 0;
    bool asked = false;
    bool fillable = false;
    coherence::FillStart start;
    std::optional<Observed> value;
  };
  Lane* lane = nullptr;
  std::vector<Element> elements;
  SessionRef session = kNobody;
  Session::Slot slot = 0;
};

struct Pending {
  enum class Kind : uint8_t {
    relay,
    ignore,
    flight_value,
    flight_pttl,
    mget_value,
    mget_pttl,
    heartbeat,
    ask,  ///< ReplyTask: `answered` is called in any case, with null if the link was lost
  };
  Kind kind = Kind::ignore;
  bool fence = false;
  bool writes_all = false;
  bool announced_everything = false;  ///< of a pin: to be made known when the reply is here
  uint8_t announced = 0;              ///< likewise; a bit for each name
  uint8_t element = 0;                ///< mget_pttl: whose
  std::vector<Key> writes;
  std::vector<Command> queued;  ///< EXEC: what it runs
  SessionRef session = kNobody;
  Session::Slot slot = 0;
  uint64_t sent_ns = 0;
  std::shared_ptr<Flight> flight;
  std::shared_ptr<MgetFlight> mget;
  std::function<void(const Reply*)> answered;
};

/// upstream/connection.h: keeps itself alive unless `once`.
struct Connection final : Link::Client {
  enum class State : uint8_t { connecting, up, waiting, closing };

  Connection(Router& r, Lane* l, Pin* p) : router(r), lane(l), pin(p) {}
  void connect();
  void send(const Command& command, Pending pending);
  void flush();
  void tick();
  void lose(const char* reason);
  void close();
  bool up() const { return state == State::up; }

  void on_readable(Link& from) override;
  void on_closed(Link& from) override;
  void take_reply(const Reply& reply);
  void fail(bool unwritten_too);
  void schedule_reconnect();

  Router& router;
  Lane* const lane;  ///< one of these two is null
  Pin* const pin;
  Link* link = nullptr;
  State state = State::waiting;
  bool introduced_tracking = false;
  std::vector<Command> out;  ///< not written yet; their entries are the last of `pending`
  std::deque<Pending> pending;
  uint64_t sequence = 0;
  uint64_t progress_ns = 0;
  uint64_t connect_started_ns = 0;
  uint64_t backoff_ns = 0;
};

struct Lane {
  explicit Lane(Router& router) : connection(router, this, nullptr) {}
  coherence::LaneProof proof;
  unsigned database = 0;
  bool twin = false;
  CoherenceMode mode = CoherenceMode::off;
  uint64_t serial = 0;
  bool no_redirect = false;
  bool was_master = false;  ///< on this link
  bool heartbeat_pending = false;
  uint64_t next_heartbeat_ns = 0;
  uint8_t announced = 0;  ///< names that were written and not yet made known
  bool announced_everything = false;
  std::vector<std::function<void(bool up)>> waiting;
  Connection connection;
};

struct Pin {
  explicit Pin(Router& router) : connection(router, nullptr, this) {}
  SessionRef session = kNobody;
  unsigned database = 0;
  bool idle = false;
  bool multi = false;
  bool watch = false;
  std::vector<Command> queued;
  bool writes_unknown = false;
  Connection connection;
  bool has_state() const { return multi || watch; }
};

/// What the workers of one process share.
struct Process {
  Process(Engine& e, ModelRedis& r, Observer& o, const ProxyOptions& p, unsigned process_number)
      : engine(e),
        redis(r),
        observer(o),
        options(p),
        number(process_number),
        stamps(1024),
        bus(*this) {}
  void post(Router& router, std::function<void()> task);
  void accept_pattern(Bytes glob);
  void pattern_walked(unsigned worker, uint64_t id);
  uint64_t hash_of(Key key) const { return hashes[name_of(key)]; }

  Engine& engine;
  ModelRedis& redis;
  Observer& observer;
  const ProxyOptions& options;
  const unsigned number;
  StampTable stamps;
  std::array<uint64_t, kNames> hashes{};  ///< two names may fall on one slot
  ModelBus bus;
  uint64_t patterns_version = 0;
  std::vector<std::shared_ptr<const coherence::Pattern>> patterns;
  std::vector<uint64_t> walked;  ///< by worker: all patterns up to this id
  uint64_t next_pattern = 1;
  uint64_t blind_lanes = 0;  ///< nobody tells them of writes with unknown keys
  std::vector<std::unique_ptr<Router>> routers;
  std::array<Version, kKeys> acknowledged{};  ///< the checker's
};

/// Invalidations come over the bus / are the server's own.
bool via_bus(CoherenceMode mode);
bool tracked(CoherenceMode mode);

class Router {
 public:
  using Outcome = Session::Outcome;

  Router(Process& process, unsigned index);
  void start();
  /// Everything that reaches a worker from outside goes through here: one turn of its loop.
  void turn(const std::function<void()>& body);
  Session& accept(unsigned client);
  void on_read(SessionRef ref, std::vector<ClientRequest> requests);
  void close_session(Session& session);
  Session* find(SessionRef ref);
  std::string name() const;

  // From the connections.
  void on_up(Connection& connection);
  void on_down(Connection& connection);
  void on_reply(Connection& connection, Pending& pending, const Reply& reply);
  void on_lost(Connection& connection, Pending& pending, bool sent);
  void on_push(Lane& lane, const Reply& push);
  void flush_later(Connection& connection) { unflushed_.push_back(&connection); }
  void resume_later(Session& session) { resumable_.push_back(session.ref); }
  void tick();

  // From the bus.
  void on_bus_state();
  void on_bus_proof();
  bool waits_for_proof() const { return waits_for_proof_; }

  Process& process;
  Engine& engine;
  const unsigned index;
  uint64_t now_ns = 0;
  uint64_t hits = 0, misses = 0, joined = 0;

 private:
  friend struct Session;
  // model_router.cc
  void process_input(Session& session);
  void turn_end();
  Outcome on_request(Session& session, ClientRequest& request);
  Outcome route(Session& session, const ClientRequest& request);
  Outcome read_through(Session& session, const ClientRequest& request);
  Outcome relay(Session& session, const ClientRequest& request);
  Outcome select(Session& session, const ClientRequest& request);
  bool serve(Session& session, const ClientRequest& request, uint32_t space);
  bool serves_hits(const Session& session, const Lane& lane) const;
  bool catch_up();
  bool must_wait(const Session& session, const Connection& connection) const;
  void went_to(Session& session, const Connection& connection);
  void mark_writes(Pending& pending, Connection& connection, const ClientRequest& request,
                   const Session& session);
  void end_writes(Pending& pending);
  void leave(Session& session);
  void raise_floor(Session& session, const Command& command, uint16_t id);
  Command command_of(const Session& session, const ClientRequest& request) const;
  static uint16_t command_id(const ClientRequest& request);
  L1Key l1_key(Key key, uint16_t command, uint32_t space) const;
  struct Held {
    Observed value;
    uint64_t filled_ms;
    uint64_t seen_ns() const { return (filled_ms + 1) * kNsPerMs; }
  };
  std::optional<Held> find_valid(Key key, uint16_t command, uint32_t space);

  // model_fill.cc
  Outcome start_read(Session& session, const ClientRequest& request, Key key, uint32_t space);
  std::shared_ptr<Flight> find_flight(Key key, uint16_t command, uint32_t space);
  void unlink_flight(Flight& flight);
  void on_flight_reply(Flight& flight, const Reply& reply);
  void finish_flight(Flight& flight, const Reply& pttl);
  bool keep(Key key, uint16_t command, const coherence::FillStart& start, const Lane& lane,
            const Observed& value, const Reply& pttl);
  Outcome mget(Session& session, const ClientRequest& request);
  void on_mget_reply(Connection& connection, const std::shared_ptr<MgetFlight>& flight,
                     const Reply& reply);
  void on_mget_pttl(MgetFlight& flight, unsigned element, const Reply& pttl);
  void finish_mget(MgetFlight& flight, const Answer& failure);
  bool holds_all(const Lane& lane, const Command& command);

  // model_lanes.cc
  Lane* lane_for(unsigned database, bool twin);
  void when_ready(Lane& lane, std::function<void(bool up)> callback);
  void attach(Session& session, Lane& lane) { session.lane = &lane; }
  void heartbeat(Lane& lane);
  void renew_space(Lane& lane) { lane.proof.space = next_space_++; }
  void invalidate(Lane& lane, const Reply& push);
  void await_fence(SessionRef session, Session::Slot slot);
  void start_fence_round();
  void fence_lanes(const std::function<void()>& finished);
  void end_fence_round();

  // model_modes.cc
  coherence::LaneProof proof_of(const Lane& lane) const;
  void begin_coherence(Lane& lane);
  void change_mode(Lane& lane, CoherenceMode mode);
  void set_mode(Lane& lane, CoherenceMode mode);
  bool writes_unseen() const {
    const bool early = process.options.measures.early_scripts && records_writes_;
    return process.blind_lanes > 0 || announces_ || early;
  }
  void choose_mode(Lane& lane);
  Lane* find_lane(uint64_t serial);
  void try_redirect(Lane& lane);
  void prove_redirect(Lane& lane, uint32_t subscriber);
  bool parks(const Session& session, const Lane& lane) const;
  void park(Session& session);
  void announce_key(const Connection& connection, Pending& pending, Key key);
  void announce_everything(const Connection& connection, Pending& pending);
  void announce_late(const Pending& pending);
  void send_announcements();
  void send_announcement(Lane& lane);
  void write_was_lost(bool everything);

  // model_patterns.cc
  Outcome pattern(Session& session, const ClientRequest& request);
  void adopt_patterns();
  void walk_patterns(uint64_t buckets);

  // model_pins.cc
  Outcome pinned(Session& session, const ClientRequest& request);
  void acquire_pin(Session& session);
  void maybe_unpin(Session& session);
  void close_pin(Pin& pin);
  void forward_pinned(Session& session, const ClientRequest& request);
  void end_transaction(Pin& pin, Pending& pending);
  void on_pin_reply(Pin& pin, Pending& pending, const Reply& reply);

  static Answer answer_of(const Reply& reply, const Command& command);
  static Answer failure();

  L1Table l1_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  Lane* main_lane_ = nullptr;
  std::vector<std::unique_ptr<Pin>> pins_;          ///< never freed within a schedule
  std::vector<std::unique_ptr<Session>> sessions_;  ///< by place; the index of a SessionRef
  std::vector<std::shared_ptr<Flight>> flights_;
  std::vector<SessionRef> resumable_;
  std::vector<Connection*> unflushed_;
  uint32_t next_space_ = 1;
  uint64_t seen_all_ = 0;
  coherence::PatternSet patterns_;
  uint64_t patterns_seen_ = 0;
  uint64_t fills_void_ns_ = 0;
  L1Table::Walk pattern_walk_;
  uint64_t flush_again_ns_ = 0;
  uint64_t next_serial_ = 1;
  bool waits_for_proof_ = false;
  bool records_writes_ = false;
  bool announces_ = false;
  struct Parked {
    SessionRef session;
    uint64_t since_ns;
  };
  std::vector<Parked> parked_;
  struct Fenced {
    SessionRef session;
    Session::Slot slot;
  };
  std::vector<Fenced> fence_waiting_, fence_round_;
  bool fence_running_ = false;
};

}  // namespace nearcached::sim
