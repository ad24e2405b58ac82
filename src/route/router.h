// Router: one worker's way of a request: command lookup → L1 hit | join a flight | lane | private
// connection. Owns the worker's lanes, pins, flights, sessions and L1.
//
// Thread: its worker's; other workers are reached only through Process (stamps) and Peers (tasks).
// The files: router.cc requests, hits.cc, fill.cc flights, mget.cc, lanes.cc links and
// invalidation, pinned.cc private connections, connection_commands.cc HELLO, AUTH, SELECT,
// client_command.cc, info.cc INFO and NEARCACHE, fence.cc; of clusters: cluster.cc, gather.cc,
// redirect.cc.
#pragma once
#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "client/session.h"
#include "loop/loop.h"
#include "nearcached/base/clock.h"
#include "nearcached/coherence/patterns.h"
#include "nearcached/coherence/stamp_table.h"
#include "nearcached/command/table.h"
#include "nearcached/config/config.h"
#include "nearcached/l1/admission.h"
#include "nearcached/l1/tables.h"
#include "nearcached/resp/request_shape.h"
#include "nearcached/resp/writer.h"
#include "route/pattern_job.h"
#include "route/process.h"
#include "upstream/lane.h"

namespace nearcached {

struct Announcement;
struct Audit;
struct Flight;
class Gather;

/// Who waits for a read that is under way.
struct FlightWaiter {
  SessionRef session;
  uint32_t slot;
  bool convert;
  Gather* gather = nullptr;  ///< `slot` is a part of it
  uint32_t ahead = 0;  ///< not 0: `slot` is a request of the session's Lookahead of this serial
};
struct MgetFlight;

/// The next requests of a session that waits for earlier replies, and what is known of theirs
/// (ahead.cc).
struct Lookahead {
  struct Next {
    uint64_t hash = 0, stamp = 0, expires_ms = 0;  ///< of what was found in L1
    uint64_t sequence = 0;                         ///< of what was asked: the flight's
    Flight* flight = nullptr;                      ///< asked, and not answered in full
    uint32_t wire_bytes = 0;
    uint32_t reply_at = 0, reply_bytes = 0;  ///< in `replies`; 0: nothing yet, or too much
    uint16_t command = 0;
    bool asked = false;

    /// It has to be asked for again, in its turn.
    void drop() {
      asked = false;
      flight = nullptr;
      reply_bytes = 0;
    }
  };
  std::vector<Next> requests;
  size_t at = 0;   ///< the session's next request; never behind the last
  Buffer replies;  ///< as they will be sent
  uint32_t serial = 0;
  uint32_t space = 0;
  uint64_t patterns_seen = 0;

  /// Is the session's next request one that has been asked upstream?
  bool is_asked() const { return requests[at].asked; }
};

class Router final : public Session::Owner, public Connection::Owner {
 public:
  Router(Process& process, Loop& loop, unsigned index);
  ~Router() override;

  /// Opens the lane of the default identity.
  void start();
  void accept(int fd, bool is_unix);
  void turn_end();
  void tick();
  /// Finishes what is under way, then closes every session; `done` when there are none.
  void drain(std::function<void()> done);
  /// Closes everything at once; the loop ends when the handles are closed.
  void shutdown();

  const Stats& stats() const { return stats_; }
  /// Any thread: how many of the accepted sessions are gone.
  uint64_t sessions_closed() const { return stats_.sessions_closed.get(); }
  unsigned index() const { return index_; }
  uint64_t default_database() const { return process_.config.upstream.parsed.database; }
  void set_table(std::shared_ptr<const CommandTable> table);
  /// Drops everything held (NEARCACHE FLUSH …): the process-wide stamp has been bumped.
  void renew_spaces();
  /// PINGs every lane that feeds L1; `finished` when all invalidations sent so far have been
  /// applied.
  void fence_lanes(std::function<void()> finished);

  // For commands that speak about clients or keys of every worker.
  std::string client_list(const std::function<bool(const Session&)>& wanted);
  /// The session with id `spare_id` is closed only after its outstanding replies.
  uint64_t kill_clients(const std::function<bool(const Session&)>& wanted, uint64_t spare_id);
  bool unblock_client(uint64_t id, bool error);
  void inspect(Bytes key, std::string& text);

  /// Walks the upstream and deletes what matches; null: limits.pattern_jobs.
  PatternJob* start_job(std::shared_ptr<const Identity> identity, uint32_t database, Bytes glob,
                        std::function<void(bool ok)> done);
  /// Deletes a key in the upstream, with the proxy's own rights.
  void delete_key(const std::string& key, uint32_t database, std::function<void(bool ok)> done);
  const std::shared_ptr<const Identity>& default_identity() const { return default_identity_; }

  // The bus's news, on this worker's thread (modes.cc).
  void on_bus_state();
  void on_bus_proof();
  /// There is a new snapshot (cluster.cc).
  void on_topology();
  /// Any thread: wants on_bus_proof().
  bool waits_for_proof() const { return waits_for_proof_.load(); }

 private:
  friend struct Announcement;
  friend struct Audit;
  friend struct Flight;
  friend struct MgetFlight;
  friend class Gather;
  friend class ReplyTask;
  using Outcome = Session::Outcome;

  // Session::Owner
  Outcome on_request(Session& session, const Request& request) override;
  size_t serve_hits(Session& session, Bytes in) override;
  void foresee(const Session& session, Bytes in, bool last) override;
  void on_dirty(Session& session) override { dirty_.push_back(session.ref); }
  void on_resumable(Session& session) override { resumable_.push_back(session.ref); }
  void on_closing(Session& session) override;
  void on_closed(Session& session) override;
  void on_limit(uint8_t which) override;
  uint64_t now_ns() override;
  const Config& config() const override { return process_.config; }
  RequestParser& parser() override { return parser_; }

  // Connection::Owner
  void on_up(Connection& connection) override;
  void on_down(Connection& connection, Bytes reason, Bytes refusal) override;
  void on_reply(Connection& connection, Pending& pending, Bytes bytes, bool last) override;
  void on_lost(Connection& connection, Pending& pending, Bytes reason, bool sent) override;
  void on_push(Connection& connection, Bytes push) override;
  bool is_message(Connection& connection, Bytes reply) override;
  void on_flush_needed(Connection& connection) override { unflushed_.push_back(&connection); }
  void on_closed(Connection& connection) override;

  // router.cc
  Outcome route(Session& session, const Request& request, const Command& command);
  Outcome route_unknown(Session& session, const Request& request);
  bool is_refused(const Command* command) const;
  void refuse(Session& session, Bytes name);
  bool needs_auth(const Session& session) const;
  std::string unreachable(NodeIndex node) const;
  bool is_cut_off(const Link& link) const;
  bool can_send(Session& session, const Link& link, size_t bytes);
  Outcome read_through(Session& session, const Request& request, const Command& command);
  Outcome relay(Session& session, const Request& request, const Command* command);
  Bytes wire_of(const Request& request);
  Bytes variant_of(std::span<const Bytes> args);
  bool must_wait(const Session& session, const Link& link) const;
  bool spreads(const Link& link) const;
  bool follows(const Session& session, const Link& link) const;
  void went_to(Session& session, const Link& link);
  void came_back(Session& session, const Lane& lane);
  void mark_writes(Pending& pending, Link& link, const Command* command,
                   std::span<const Bytes> args);
  void end_writes(Pending& pending);

  // replicas.cc
  Lane* replica_for(const Session& session, uint16_t slot, std::span<const Bytes> args,
                    const Command& command);
  Outcome read_at_replica(Session& session, const Request& request, const Command& command);
  ReplicaWait wait_for(std::span<const Bytes> args) const;
  void note_waits(Pending& pending, std::span<const Bytes> args);
  void await_replicas(NodeIndex node, const Pending& pending, Bytes reply, ReplicaWait wait);
  void start_wait_round(NodeIndex node);
  void end_wait_round(NodeIndex node, Bytes reply, Bytes failure);
  void tick_replicas();
  Session* find(SessionRef ref);
  const Rule* rule_for(Bytes key) const;

  // hits.cc
  struct KnownShape {  ///< of a request that may be a hit
    RequestShape shape;
    Resp2Rule rule = Resp2Rule::null_bulk;
    uint16_t command = 0;
  };
  struct KnownRequest {
    const KnownShape* known = nullptr;
    Lane* lane = nullptr;  ///< over which its key would be asked for
    Bytes wire;
    L1Key key{};
    L1Hint hint{};
  };
  bool catch_up();
  bool serves_hits(const Session& session, const Lane& lane) const;
  bool find_valid(const L1Key& key, L1Hit& hit, L1Hint hint = {});
  bool is_valid(const L1Key& key, const L1Hit& hit) const {
    return coherence::stamp_holds(hit.stamp, process_.stamps.load(key.hash)) &&
           ((!cluster_ && patterns_.empty()) || is_spared(key, hit));
  }
  bool is_spared(const L1Key& key, const L1Hit& hit) const;
  bool is_held(const L1Key& key) const;
  bool admits(uint64_t hash);
  bool serve(Session& session, const Request& request, const L1Key& key, Resp2Rule rule);
  bool on_hit(Session& session, const L1Hit& hit);
  bool is_audit_due() { return hits_until_audit_ != 0 && --hits_until_audit_ == 0; }
  void write_hit(Session& session, const L1Hit& hit, Resp2Rule rule, bool last = false);
  void write_hit(Buffer& out, const Session& session, const L1Hit& hit, Resp2Rule rule);
  void learn_shape(const Request& request, const Command& command, Resp2Rule rule);
  bool is_at_rest(const Session& session) const;
  size_t read_known(const Session& session, Bytes in, std::span<KnownRequest> requests);
  L1Hint hint_for(const KnownRequest& request);
  size_t read_run(const Session& session, Bytes in, size_t requests_max = kRun);
  bool serve_known(Session& session, const KnownRequest& request, bool last);

  // modes.cc
  void begin_coherence(Lane& lane);
  void set_blind(Lane& lane, bool blind);
  void change_mode(Lane& lane, CoherenceMode mode);
  bool writes_unseen() const;
  void set_mode(Lane& lane, CoherenceMode mode, Bytes why);
  void choose_mode(Lane& lane);
  void try_redirect(Lane& lane);
  void prove_redirect(Lane& lane, uint64_t subscriber);
  bool is_weaker_than_main(const Lane& lane, CoherenceMode mode) const;
  Lane* find_lane(uint64_t serial);
  coherence::LaneProof proof_of(const Lane& lane) const;
  bool parks(Session& session, const Lane& lane);
  void park(Session& session);

  // announce.cc
  void announce_key(Link& link, Pending& pending, Bytes key);
  void announce_key(Lane& lane, Bytes key);
  void announce_everything(Link& link, Pending& pending);
  void announce_late(const WriteMarks& marks);
  void send_announcements();
  void forget_announcements();
  void send_announcement(Lane& lane);
  Announcement& new_announcement();
  void release_announcement(Announcement& announcement);
  void delete_free_announcements();
  void write_was_lost(bool everything);

  // audit.cc
  void begin_audit(Lane& lane, Bytes wire, const L1Key& key, const L1Hit& hit);
  void on_audit_reply(std::unique_ptr<Audit> audit, Bytes reply, Bytes failure);
  bool is_excused(const Audit& audit);
  void end_audit(const Audit& audit);

  // stale.cc
  void remember_space(Lane& lane);
  void forget_stale_spaces();
  uint32_t stale_space(const Lane& lane, Bytes key) const;
  bool serve_stale(Session& session, L1Key key, Resp2Rule rule);

  // patterns.cc
  void adopt_patterns();
  void walk_patterns(uint64_t buckets);

  // fill.cc
  Outcome start_read(Session& session, const Request& request, const Command& command,
                     const L1Key& key, Resp2Rule rule);
  bool may_fill(const L1Key& key, uint64_t stamp) const;
  Flight* flight_behind(const Session& session, const L1Key& key, uint64_t stamp,
                        uint64_t sequence);
  bool join_flight(Session& session, Lane& lane, const L1Key& key, uint64_t stamp,
                   FlightWaiter waiter);
  Flight& start_flight(Lane& lane, const L1Key& key, uint64_t stamp, Resp2Rule rule, Bytes wire,
                       bool fills = true);
  void on_flight_reply(Connection& connection, Pending& pending, Bytes bytes, bool last);
  void finish_flight(Flight& flight, Bytes pttl);
  void release_flight(Flight& flight);
  static constexpr size_t kFreeFlightsMax = 1024;
  static constexpr int64_t kAheadCreditMax = 256;
  Flight* find_flight(const L1Key& key);
  void unlink_flight(Flight& flight);
  bool keep(const L1Key& key, const coherence::FillStart& start, Lane& lane, Bytes reply,
            Bytes pttl_reply);

  // mget.cc
  Outcome mget(Session& session, const Request& request, const Command& command);
  size_t serve_mget(Session& session, std::span<const Bytes> names);
  bool mget_stale(Session& session, std::span<const Bytes> names);
  void on_mget_reply(Connection& connection, MgetFlight& flight, Bytes reply);
  MgetFlight* new_mget(Lane& lane, size_t keys);
  void release_mget(MgetFlight& flight);
  void delete_free_mgets();
  std::pair<Pending, std::string> whole_mget(const MgetFlight& flight);
  bool mget_redirected(MgetFlight& flight, Bytes& error);
  void finish_mget(MgetFlight& flight, Bytes failure);

  // ahead.cc
  bool waits_for_hit(Session& session, Lane& lane, const Request& request);
  bool look_ahead(Session& session, Bytes in);
  bool read_ahead(Session& session, Lane& lane);
  void on_read_ahead(const FlightWaiter& waiter, Bytes bytes, bool last);
  void lose_read_ahead(const FlightWaiter& waiter);
  bool is_current(Session& session);
  size_t serve_known_ahead(Session& session, uint64_t& hits);
  bool take_read_ahead(Session& session);
  void go_on(Session& session, size_t requests);
  void go_astray(Session& session, size_t requests);
  void forget_lookahead(Session& session);
  void credit_ahead(int64_t by);
  void count_read_ahead(size_t requests);

  // lanes.cc
  Lane* lane_for(const std::shared_ptr<const Identity>& identity, uint32_t database, int resp,
                 NodeIndex node);
  Connection::Options connection_options(const Identity& identity, uint32_t database, int resp,
                                         NodeIndex node);
  bool wants_tracking() const;
  bool has_room_for_lane();
  bool is_unused(const Lane& lane) const;
  void attach(Session& session, Lane& lane);
  void detach(Session& session);
  void heartbeat(Lane& lane);
  bool is_silent(const Lane& lane) const;
  void on_role(Lane& lane, uint64_t sent_ns, Bytes reply);
  void on_cluster_info(Lane& lane, uint64_t sent_ns, Bytes reply);
  void invalidate(Lane& lane, Bytes push);
  void drain_sessions();
  void renew_space(Lane& lane);
  void drop_space(Lane& lane, Bytes reason);
  void close_lane(Lane& lane);
  void when_ready(Lane& lane, std::function<void(bool up, Bytes refusal)> callback);
  void load_command_table(Lane& lane);
  void retire(std::unique_ptr<Connection> connection);

  // cluster.cc
  Outcome route_in_cluster(Session& session, const Request& request, const Command& command);
  Outcome route_by_slot(Session& session, const Request& request, const Command& command);
  bool aim(Session& session, uint16_t slot, Outcome& outcome);
  Lane* lane_of_slot(const Session& session, uint16_t slot);
  Lane* any_lane(const Session& session);
  Outcome await_topology(Session& session);
  void adopt_topology();
  void renew_role(Lane& lane);
  void wake_topology_waiters();
  Outcome begin_multi(Session& session, const Request& request, const Command& command);
  bool open_multi(Session& session);
  Outcome in_begun_multi(Session& session, const Request& request, const Command& command, int slot,
                         bool several);
  Outcome pinned_in_cluster(Session& session, const Request& request, const Command& command,
                            int slot, bool several);
  std::string topology_text() const;
  int slot_of_request(const Command& command, std::span<const Bytes> args, bool& several);
  std::string probe_key(NodeIndex node) const;

  // present.cc
  Outcome cluster_command(Session& session, const Request& request, const Command& command);
  bool presents_cluster() const;
  bool is_disguised() const;
  std::string disguised_info(std::string text) const;

  // gather.cc
  Outcome split(Session& session, const Request& request, const Command& command);
  Outcome broadcast(Session& session, const Request& request, const Command& command);
  Outcome gather_values(Session& session, const Request& request);
  void ask_value(Session& session, Gather& gather, uint32_t part, Lane& lane, const L1Key& key,
                 uint64_t stamp, bool settled);
  Outcome scan(Session& session, const Request& request, const Command& command);
  void send_part(Gather& gather, uint32_t part, Lane& lane, const Command* command,
                 std::span<const Bytes> args, bool has_key);
  void end_gather(Gather& gather);

  // redirect.cc
  bool redirect(Lane& lane, Pending& pending, Bytes& error, const std::string& wire);
  bool move_pin(Session& session, Lane& lane, bool asking);
  void send_ignored(Connection& connection, Bytes wire);
  bool may_be_redirected(Bytes error) const;
  bool redirected(Lane& lane, Pending& pending, Bytes& error);
  bool retry_lost(Lane& lane, Pending& pending, Bytes reason, bool sent);
  std::vector<Pending> scatter(Flight& flight, const Pending& value);
  void resend(Lane& lane, Pending pending, Bytes wire, bool asking);
  void try_later(const Lane& from, Pending pending, std::string wire, Bytes error);
  void run_retries();
  bool pin_redirected(Pin& pin, Session& session, Pending& pending, Bytes& error);
  NodeIndex follow(const Redirect& redirect, const Connection& from);
  void give_up(Pending& pending, Bytes error);
  void answer(const Pending& pending, Bytes bytes, bool last);

  // pinned.cc
  Outcome pinned(Session& session, const Request& request, const Command* command);
  bool acquire_pin(Session& session);
  bool has_room_for_pin(NodeIndex node);
  void forward_pinned(Session& session, const Request& request, const Command* command);
  PinEvent begin_state(Session& session, Pending& pending, const Command& command,
                       std::span<const Bytes> args, Bytes& wire);
  void on_pin_reply(Pin& pin, Session* session, Pending& pending, Bytes bytes, bool last,
                    ReplicaWait wait);
  static int64_t selected_by(const Pin& pin, Bytes reply);
  void apply_pin_event(Pin& pin, Session& session, PinEvent event, Bytes reply);
  void count_channels(Pin& pin, Bytes message);
  PinEvent bind(Pin& pin, Bytes wire, bool has_key);
  void note_credentials(Pin& pin, const Session& session, std::span<const Bytes> args);
  void maybe_unpin(Session& session);
  bool adopt_lane(Session& session);
  void unpin(Session& session, bool reuse);
  PinEvent end_transaction(Pin& pin, Pending& pending, bool exec, Bytes& wire);
  void queue_transaction(Session& session, const Command* command, std::span<const Bytes> args);
  void close_pin(Pin& pin);

  // connection_commands.cc
  Outcome connection_command(Session& session, const Request& request, const Command& command);
  Outcome select(Session& session, const Request& request, const Command& command);
  Outcome auth(Session& session, const Request& request, const Command& command);
  Outcome hello(Session& session, std::span<const Bytes> args);
  std::string hello_reply(const Session& session) const;
  void switch_identity(Session& session, std::shared_ptr<const Identity> identity,
                       std::function<void(Session& session, Bytes error)> then);
  void reset(Session& session);
  void leave(Session& session);

  // client_command.cc
  Outcome client_command(Session& session, const Request& request, const Command& command);
  std::string client_line(const Session& session) const;
  Outcome client_kill(Session& session, std::span<const Bytes> args);
  Outcome client_list_command(Session& session, std::span<const Bytes> args);
  Outcome client_unblock(Session& session, std::span<const Bytes> args);
  Outcome client_reply(Session& session, Bytes mode);
  Bytes command_name(uint16_t id) const;
  using Each = std::function<void(Router&, std::string& part)>;
  using Answer = std::function<std::string(const std::vector<std::string>& parts)>;
  void if_allowed(Session& session, std::span<const Bytes> probe,
                  std::function<void(SessionRef, ReplyQueue::Slot)> then);
  void gather(Session& session, std::span<const Bytes> probe, Each each, Answer answer);
  void gather_parts(SessionRef ref, ReplyQueue::Slot slot, Each each, Answer answer);

  // info.cc
  Outcome info(Session& session, const Request& request, const Command& command);
  std::string info_section() const;
  void add_rule_memory(std::string& text) const;
  void add_bus_info(std::string& text, uint64_t now) const;
  void add_topology_info(std::string& text, uint64_t now) const;
  std::string verdict_on(Bytes key) const;
  void refresh_gauges();

  // nearcache.cc
  Outcome nearcache(Session& session, std::span<const Bytes> args);
  void inspect_command(Session& session, Bytes key);
  void invalidate_command(Session& session, std::span<const Bytes> args);
  void pattern_command(Session& session, std::span<const Bytes> args);
  void flush_command(Session& session, std::span<const Bytes> args);
  void schedule_command(Session& session, std::span<const Bytes> args);
  void schedules_command(Session& session, std::span<const Bytes> args);
  using Answerer = std::function<void(const std::string& reply)>;
  Answerer answerer(SessionRef ref, ReplyQueue::Slot slot);
  struct Explicit {
    coherence::BusMessage::Kind kind;
    coherence::Cause cause;
    std::vector<std::string> items;
    uint32_t database;
    int resp;
    Bytes extra_name;  ///< one more number for the answer; empty: none
    uint64_t extra;
  };
  void invalidate_everywhere(const Explicit& what, const Answerer& answer);

  // pattern_job.cc
  PatternJob* find_job(uint64_t id);
  void scan_step(PatternJob& job);
  void delete_step(PatternJob& job, std::string cursor, const std::vector<std::string>& keys);
  void begin_round(PatternJob& job);
  void leave_node(PatternJob& job);
  void unlink_keys(Lane& lane, const std::vector<std::string>& keys,
                   std::function<void(Bytes reply)> done);
  void retry_job(PatternJob& job, Bytes why);
  void end_job(PatternJob& job, Bytes error);
  void tick_jobs();

  // fence.cc
  void await_fence(SessionRef session, ReplyQueue::Slot slot);
  void start_fence_round();
  void end_fence_round();

  Process& process_;
  Loop& loop_;
  const unsigned index_;
  Stats stats_;
  std::shared_ptr<const CommandTable> table_;
  std::vector<bool> refused_;  ///< by Command::id
  const Command* get_command_ = nullptr;
  std::array<KnownShape, 256> shapes_;
  RequestParser parser_;
  L1Tables l1_;
  Admission admission_;
  uint32_t lookaheads_ = 0;                 ///< so many have been made: their serial numbers
  int64_t ahead_credit_ = kAheadCreditMax;  ///< what may be read ahead
  std::vector<std::unique_ptr<Lookahead>> free_lookaheads_;
  struct Ahead {
    Bytes wire, key;
    std::string variant;
    const KnownShape* known;
    uint64_t hash;
    size_t request;  ///< of the Lookahead

    L1Key l1_key(const Lane& lane) const {
      return {hash, lane.proof.space, known->command, key, variant};
    }
  };
  uint64_t now_ns_ = 0;
  uint64_t table_loaded_ns_ = 0;
  uint64_t flush_again_ns_ = 0;  ///< a FLUSHALL or SWAPDB was lost on its way: drop everything then
  uint64_t max_staleness_ns_;
  uint64_t rule_value_max_ = 0;  ///< the largest value_max of any rule
  uint64_t seen_all_ = 0;        ///< the process-wide stamp the spaces were made under
  uint32_t next_space_ = 1;
  uint64_t next_serial_ = 1;
  bool records_writes_ = false;  ///< for announcements; also while the mode is not yet decided
  bool announces_ = false;       ///< writes are made known over the bus
  std::string mode_said_;        ///< what the log was told last of the mode

  bool waits_for_replicas_ = false;  ///< a rule has wait_replicas
  bool serves_stale_ = false;        ///< a rule has serve_stale
  uint64_t flushes_seen_ = 0;        ///< Process::flushes
  uint64_t hits_until_audit_ = 0;    ///< 0: no audit
  uint64_t audits_ = 0;              ///< under way

  coherence::PatternSet patterns_;
  uint64_t patterns_seen_ = 0;  ///< Process::patterns_version
  uint64_t fills_void_ns_ = 0;  ///< what was asked for up to then is not kept, nor joined
  L1Tables::Walk pattern_walk_;

  struct Parked {
    SessionRef session;
    uint64_t since_ns;
  };
  std::vector<std::unique_ptr<PatternJob>> jobs_;
  std::vector<Parked> parked_;
  std::atomic<bool> waits_for_proof_{false};

  std::shared_ptr<const Identity> default_identity_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<std::unique_ptr<Pin>> pins_;
  Lane* main_lane_ = nullptr;
  std::vector<Lane*> node_lanes_;  ///< the default identity's, by node; null: none

  const bool cluster_;  ///< the upstream is a cluster
  std::shared_ptr<const Topology> topology_;
  std::vector<SessionRef> topology_waiters_;
  int aimed_slot_ = -1;  ///< of the request at hand; −1: no key
  struct Retry {
    uint64_t due_ns;
    Pending pending;
    std::string wire;
    std::shared_ptr<const Identity> identity;
    uint32_t database;
    int resp;
    std::string error;  ///< why it was not answered
  };
  std::vector<Retry> retries_;
  size_t retries_bytes_ = 0;  ///< of their requests; at most limits.upstream_queue

  /// Writes of one node that wait for its replicas, and the connection that asks (WAIT).
  struct Waiters {
    struct Held {
      Pending answer;  ///< whose it is
      std::string reply;
      ReplicaWait wait;
    };
    std::unique_ptr<Lane> lane;
    std::vector<Held> waiting, round;
    bool running = false;
    uint64_t began_ns = 0, timeout_ms = 0;  ///< of the present round
  };
  std::map<NodeIndex, Waiters> replica_waiters_;
  std::unique_ptr<Timer> retry_timer_;
  std::vector<std::unique_ptr<Connection>> closing_connections_;
  std::vector<std::unique_ptr<Connection>> dead_connections_;

  struct Place {
    std::unique_ptr<Session> session;
    uint32_t generation = 0;
  };
  std::vector<Place> sessions_;
  std::vector<uint32_t> free_places_;
  std::vector<std::unique_ptr<Session>> dead_sessions_;    ///< closing; not to be found any more
  std::vector<std::unique_ptr<Session>> closed_sessions_;  ///< freed at the end of the turn
  std::vector<SessionRef> dirty_, resumable_;
  std::vector<SessionRef> deferred_;  ///< dirty still at the end of the last turn
  std::vector<Connection*> unflushed_;

  std::vector<Flight*> flight_buckets_;
  std::vector<Flight*> free_flights_;
  std::vector<MgetFlight*> free_mgets_;
  std::vector<Announcement*> free_announcements_;

  struct Fenced {
    SessionRef session;
    ReplyQueue::Slot slot;
  };
  std::vector<Fenced> fence_waiting_, fence_round_;
  bool fence_running_ = false;

  // Scratch, reused so that a request allocates nothing.
  std::vector<SessionRef> turn_sessions_;
  std::vector<Connection*> turn_connections_;
  static constexpr size_t kRun = 16;
  std::array<KnownRequest, kRun> run_;
  std::array<KnownRequest, Loop::kGatheredMax> foreseen_;
  size_t foreseen_count_ = 0, foreseen_next_ = 0;
  bool foreseen_all_ = true;  ///< what is foreseen next is the first of others
  std::vector<Ahead> ahead_;
  std::string variant_;
  Buffer wire_;
  std::vector<KeyRef> keys_;
  std::vector<uint64_t> hashes_;  ///< of the keys of the MGET at hand
  coherence::BusMessage announced_;
  std::vector<Bytes> mget_parts_;  ///< of its request, or of its reply
  Buffer converted_;
  uint64_t ticks_ = 0;

  bool draining_ = false;
  uint64_t drain_began_ns_ = 0;
  bool shutting_down_ = false;
  std::function<void()> drained_;
  std::unique_ptr<Timer> tick_timer_;
};

/// What the server said to our introduction, as it would have said it to the client's request.
Bytes refusal_for_client(Bytes refusal);
/// "resp3", "redirect", …
const char* mode_name(CoherenceMode mode);
/// "single", "cluster" or "sentinel".
Bytes kind_name(UpstreamKind kind);
/// Does the server keep book of what is read on such a lane (after CLIENT CACHING YES)?
bool tracked(CoherenceMode mode);
/// Do invalidations come over the bus, unordered with the data?
inline bool via_bus(CoherenceMode mode) {
  return mode == CoherenceMode::redirect || mode == CoherenceMode::publish ||
         mode == CoherenceMode::keyspace;
}
/// When the reply that is held was read; rounded up.
inline uint64_t seen_ns(const L1Hit& hit) { return (hit.filled_ms + 1) * kNsPerMs; }
/// From here on a hit is sent from where L1 holds it, and so held as the whole reply; of a bulk
/// string that is shorter, only the payload (L1Fill::bare). A copy of less costs nothing beside the
/// write.
inline constexpr size_t kUncopiedBytes = 1024;
/// Appends the reply that was kept, as it came.
inline void append_hit(Buffer& out, const L1Hit& hit) {
  if (hit.bare) resp::write_bulk(out, hit.reply);
  else out.append(hit.reply);
}
/// As Session::last_connection: nothing is that, so whatever follows waits for the reply under way.
inline constexpr char kNowhere = 0;
constexpr Bytes kUnreachable = "-ERR upstream unreachable\r\n";
constexpr Bytes kNoLane = "-ERR nearcached has no connection to spare (limits.lanes)\r\n";
constexpr Bytes kNoPin =
    "-ERR nearcached has no private connection to spare (limits.private_connections)\r\n";
constexpr Bytes kAsking = "*1\r\n$6\r\nASKING\r\n";
/// Of what is queued in a MULTI before its first key; more, and it stays where it is.
constexpr size_t kUnboundBytesMax = 64 * 1024;
constexpr Bytes kCrossSlot = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
constexpr Bytes kBadClientName =
    "-ERR Client names cannot contain spaces, newlines or special characters.\r\n";
bool valid_client_name(Bytes name);
/// CLIENT subcommands that are answered here, about the connection between client and proxy.
bool is_local_client_command(const Command& command, size_t args);

/// A ReplyHandler that is a callback and frees itself.
class ReplyTask final : public ReplyHandler {
 public:
  using Callback = std::function<void(Bytes reply, Bytes failure)>;
  static Pending pending(Callback callback, uint64_t now_ns) {
    Pending p;
    p.kind = Pending::Kind::whole;
    p.handler = new ReplyTask(std::move(callback));
    p.sent_ns = now_ns;
    return p;
  }
  void on_reply(Connection&, Bytes reply, Bytes failure) override {
    callback_(reply, failure);
    delete this;
  }

 private:
  explicit ReplyTask(Callback callback) : callback_(std::move(callback)) {}
  Callback callback_;
};

}  // namespace nearcached
