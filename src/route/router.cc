// The request path. In order: find the command; refuse what is refused; hand connection state to
// its own code; look in L1; join or start a flight; else pass the request to the lane as it came.
//
// Two things keep a session's replies in the order of its requests and never older than what it has
// seen. All its outstanding requests are on one connection at a time (must_wait), whose replies
// come in order; and a hit is served only when none are outstanding (coherence::may_serve).
#include "route/router.h"

#include <sys/socket.h>
#include <unistd.h>

#include "nearcached/base/check.h"
#include "nearcached/base/clock.h"
#include "nearcached/base/glob.h"
#include "nearcached/base/hash.h"
#include "nearcached/base/log.h"
#include "nearcached/resp/writer.h"
#include "route/flight.h"

namespace nearcached {
namespace {

constexpr uint64_t kWalkBucketsPerTurn = 64;

std::vector<L1Rule> l1_rules(const Config& config) {
  std::vector<L1Rule> rules;
  for (const Rule& rule : config.rules)
    rules.push_back({rule.keys, rule.memory_bytes.value_or(0) / config.server.threads,
                     rule.policy.value_or(config.l1.policy)});
  return rules;
}

}  // namespace

Router::Router(Process& process, Loop& loop, unsigned index)
    : process_(process),
      loop_(loop),
      index_(index),
      parser_(Session::limits_of(process.config)),
      l1_({.memory_bytes = process.config.l1.enabled
                               ? process.config.l1.memory_bytes / process.config.server.threads
                               : 0,
           .entries_max = process.config.l1.entries_max / process.config.server.threads,
           .policy = process.config.l1.policy,
           .hash_of = [seed = process.hash_seed](Bytes key) { return hash_key(key, seed); },
           .is_dead =
               [this](uint64_t hash, uint32_t space, uint64_t stamp) {
                 for (const auto& lane : lanes_)
                   if (lane->proof.space == space || lane->stale_space == space)
                     return !coherence::stamp_holds(stamp, process_.stamps.load(hash));
                 return true;
               }},
          l1_rules(process.config)),
      admission_(process.config.l1.scan_resistance && process.config.l1.enabled
                     ? process.config.l1.memory_bytes / process.config.server.threads / 256
                     : 0),
      max_staleness_ns_(process.config.coherence.max_staleness_ms * kNsPerMs),
      cluster_(process.cluster()),
      topology_(process.topology.get()),
      flight_buckets_(1024, nullptr) {
  for (const Rule& rule : process.config.rules)
    rule_value_max_ = std::max(rule_value_max_, rule.value_bytes_max.value_or(0));
  for (const Rule& rule : process.config.rules)
    waits_for_replicas_ = waits_for_replicas_ || rule.wait_replicas > 0;
  for (const Rule& rule : process.config.rules)
    serves_stale_ = serves_stale_ || rule.serve_stale_ms.value_or(0) > 0;
  stats_.rule_memory = std::vector<Stats::RuleMemory>(l1_.own().size());
  const CoherenceMode wish = process.config.coherence.mode;
  records_writes_ =
      !cluster_ && (wish == CoherenceMode::automatic || wish == CoherenceMode::publish ||
                    wish == CoherenceMode::keyspace);
  hits_until_audit_ = process.config.coherence.audit_every;
  now_ns();
  set_table(CommandTable::builtin());
  auto identity = std::make_shared<Identity>();
  const UpstreamUrl& url = process.config.upstream.parsed;
  identity->given = !url.password.empty() || !url.user.empty();
  identity->with_user = !url.user.empty();
  identity->user = url.user;
  identity->password = url.password;
  default_identity_ = std::move(identity);
}

void Router::set_table(std::shared_ptr<const CommandTable> table) {
  table_ = std::move(table);
  shapes_ = {};
  refused_.assign(table_->commands().size() + 1, false);
  const auto names = [&](const std::vector<std::string>& list, bool value) {
    for (const std::string& name : list)
      for (const Command& command : table_->commands())
        if (command.name == name ||
            (command.name.size() > name.size() && command.name.compare(0, name.size(), name) == 0 &&
             command.name[name.size()] == '|'))
          refused_[command.id] = value;
  };
  names(process_.config.security.refuse, true);
  names(process_.config.security.allow, false);
  get_command_ = table_->find_name("get");
}

uint64_t Router::now_ns() { return now_ns_ = monotonic_ns(); }

Session* Router::find(SessionRef ref) {
  if (ref.index >= sessions_.size()) return nullptr;
  Place& place = sessions_[ref.index];
  return place.generation == ref.generation ? place.session.get() : nullptr;
}

void Router::accept(int fd, bool is_unix) {
  if (free_places_.empty()) {
    free_places_.push_back(static_cast<uint32_t>(sessions_.size()));
    sessions_.emplace_back();
  }
  const uint32_t index = free_places_.back();
  free_places_.pop_back();
  Place& place = sessions_[index];
  const SessionRef ref{index, ++place.generation};
  place.session =
      std::make_unique<Session>(loop_, *this, ref, process_.next_client_id.fetch_add(1));
  Session& session = *place.session;
  session.identity = default_identity_;
  session.database = static_cast<uint32_t>(default_database());
  stats_.clients.add();
  stats_.connections_received.add();
  attach(session, *main_lane_);
  session.set_unauthenticated(process_.config.security.require_auth ||
                              main_lane_->connection->refusal().starts_with("-NOAUTH"));
  if (!session.open(fd, is_unix)) {
    ::close(fd);
    session.close();
    return;
  }
}

void Router::on_closing(Session& session) {
  // From here on nobody finds it: late replies are dropped in their turn.
  Place& place = sessions_[session.ref.index];
  dead_sessions_.push_back(std::move(place.session));
  ++place.generation;
  free_places_.push_back(session.ref.index);
  stats_.clients.subtract();
  stats_.sessions_closed.add();
  process_.clients.fetch_sub(1);
  detach(session);
  if (session.pin != nullptr) close_pin(*session.pin);
  session.pin = nullptr;
  if (session.lookahead != nullptr) forget_lookahead(session);
}

void Router::on_closed(Session& session) {
  for (auto& dead : dead_sessions_)
    if (dead.get() == &session) {
      std::swap(dead, dead_sessions_.back());
      // Freed at the turn's end: this is called from inside the session.
      closed_sessions_.push_back(std::move(dead_sessions_.back()));
      dead_sessions_.pop_back();
      break;
    }
  if (drained_ && stats_.clients.get() == 0) std::exchange(drained_, nullptr)();
}

void Router::on_limit(uint8_t which) {
  switch (which) {
    case Session::output_closed: stats_.limit_client_output_hit.add(); break;
    case Session::output_paused: stats_.limit_client_output_pause_hit.add(); break;
    case Session::inflight_paused: stats_.limit_client_inflight_hit.add(); break;
    case Session::request_too_big: stats_.limit_request_hit.add(); break;
    case Session::protocol: stats_.client_protocol_errors.add(); break;
    default: break;
  }
}

// What waits is handled until nothing waits: a flush can let a session go on, which can produce
// more. What is put off is put off to the next turn, which then begins at once.
void Router::turn_end() {
  dirty_.insert(dirty_.end(), deferred_.begin(), deferred_.end());
  deferred_.clear();
  while (!resumable_.empty() || !dirty_.empty() || !unflushed_.empty()) {
    turn_sessions_.swap(resumable_);
    for (const SessionRef ref : turn_sessions_)
      if (Session* session = find(ref)) session->resume();
    turn_sessions_.clear();
    if (announces_) send_announcements();
    turn_connections_.swap(unflushed_);
    for (Connection* connection : turn_connections_) connection->flush();
    turn_connections_.clear();
    turn_sessions_.swap(dirty_);
    for (const SessionRef ref : turn_sessions_)
      if (Session* session = find(ref); session != nullptr && !session->flush_at_turn_end())
        deferred_.push_back(ref);
    turn_sessions_.clear();
  }
  if (!deferred_.empty()) loop_.turn_again();
  if (!closed_sessions_.empty()) closed_sessions_.clear();
  if (!dead_connections_.empty()) dead_connections_.clear();
  l1_.sweep(now_ns_ / kNsPerMs);
  if (!patterns_.empty()) walk_patterns(kWalkBucketsPerTurn);
  refresh_gauges();
}

bool Router::is_refused(const Command* command) const {
  return command != nullptr && command->id < refused_.size() && refused_[command->id];
}

bool Router::needs_auth(const Session& session) const {
  return !session.authenticated && (process_.config.security.require_auth ||
                                    session.lane->connection->refusal().starts_with("-NOAUTH"));
}

void Router::refuse(Session& session, Bytes name) {
  session.reply("-ERR nearcached refuses '" + std::string(name) +
                "' by its configuration (security.refuse; security.allow lifts it)\r\n");
}

Session::Outcome Router::on_request(Session& session, const Request& request) {
  const Command* command = table_->find(request.args);
  if (session.lookahead != nullptr && take_read_ahead(session)) return Outcome::done;
  aimed_slot_ = -1;
  if (topology_->version() != process_.topology.version()) {
    adopt_topology();
    if (session.closing()) return Outcome::done;  // its private connection was at the old primary
  }
  const Outcome outcome = command == nullptr ? route_unknown(session, request)
                          : command->speaks_of_cluster && session.pin == nullptr &&
                                  !session.multi_begun && is_disguised()
                              ? cluster_command(session, request, *command)
                          : cluster_ ? route_in_cluster(session, request, *command)
                                     : route(session, request, *command);
  if (outcome == Outcome::done) {
    stats_.commands_processed.add();
    if (session.lookahead != nullptr) go_astray(session, 1);
  }
  return outcome;
}

// Not in the table: renamed, a module's that was loaded since, or nothing at all. The server will
// know; what it may do to a connection we do not, so it gets a private one.
Session::Outcome Router::route_unknown(Session& session, const Request& request) {
  const Bytes name = request.args[0];
  // HTTP aimed at a Redis port is an attack on whoever can be made to send it: Redis hangs up too.
  if (equals_upper(name, "POST") || equals_upper(name, "HOST:")) {
    session.close();
    return Outcome::done;
  }
  if (needs_auth(session)) {
    session.reply("-NOAUTH Authentication required.\r\n");
    return Outcome::done;
  }
  if (session.multi_begun) {
    if (session.outstanding()) return Outcome::later;
    if (!open_multi(session)) return Outcome::done;
  }
  for (const std::string& refused : process_.config.security.refuse)
    if (equals_lower(name, refused)) {
      if (session.pin != nullptr && session.pin->multi) session.pin->poisoned = true;
      refuse(session, refused);
      return Outcome::done;
    }
  return pinned(session, request, nullptr);
}

Session::Outcome Router::route(Session& session, const Request& request, const Command& command) {
  session.last_command = command.id;
  if (needs_auth(session) && !command.no_auth) {
    session.reply("-NOAUTH Authentication required.\r\n");
    return Outcome::done;
  }
  if (session.pin != nullptr) return pinned(session, request, &command);
  if (is_refused(&command)) {
    refuse(session, command.name);
    return Outcome::done;
  }
  switch (command.route) {
    case Route::lane:
      if (command.cache != Cache::never) return read_through(session, request, command);
      return relay(session, request, &command);
    case Route::blocking:
      if (!may_block(command, request.args)) return relay(session, request, &command);
      return pinned(session, request, &command);
    case Route::multi:
    case Route::watch:
    case Route::subscribe:
    case Route::monitor:
    case Route::pinned_state: return pinned(session, request, &command);
    case Route::exec:
    case Route::discard:
    case Route::unwatch: return relay(session, request, &command);
    case Route::select:
    case Route::auth:
    case Route::hello:
    case Route::reset:
    case Route::quit: return connection_command(session, request, command);
    case Route::client: return client_command(session, request, command);
    case Route::info: return info(session, request, command);
    case Route::nearcache: return nearcache(session, request.args);
    case Route::replication:
      session.reply("-ERR nearcached does not pass replication commands on\r\n");
      return Outcome::done;
  }
  return Outcome::done;
}

Session::Outcome Router::read_through(Session& session, const Request& request,
                                      const Command& command) {
  const Cache cache = cache_of(command, request.args);
  if (cache == Cache::never || (!session.lane->proof.tracking && session.lane->stale_space == 0))
    return relay(session, request, &command);
  if (cache == Cache::mget) return mget(session, request, command);
  size_t name_bytes = 0;
  for (const Bytes arg : request.args) name_bytes += arg.size() + sizeof(uint32_t);
  if (name_bytes > process_.config.l1.value_bytes_max) return relay(session, request, &command);
  const Bytes key = request.args[1];
  L1Key l1_key{hash_key(key, process_.hash_seed), 0, command.id, key,
               variant_of(request.args.subspan(1))};
  // Of the command, whatever this session speaks: others may join its flight or use its shape.
  const Resp2Rule rule = resp2_rule_of(command, request.args);
  if (rule == Resp2Rule::unknown && session.resp == 2) return relay(session, request, &command);
  learn_shape(request, command, rule);
  const Lane& lane = *session.lane;
  // The proof before what it vouches for: the bus may bring both between two looks.
  const bool proven = serves_hits(session, lane);
  const bool settled = catch_up();
  l1_key.space = lane.proof.space;
  const bool has_waited = std::exchange(session.parked, false);
  if (settled && proven) {
    if (serve(session, request, l1_key, rule)) {
      stats_.l1_hits.add();
      return Outcome::done;
    }
  } else if (settled && !has_waited && parks(session, lane)) {
    L1Hit hit;
    if (find_valid(l1_key, hit)) {
      park(session);
      return Outcome::later;
    }
  }
  if (serve_stale(session, l1_key, rule)) return Outcome::done;
  if (!settled || !lane.proof.tracking) return relay(session, request, &command);
  if (session.outstanding() && lane.mode == CoherenceMode::resp3 && is_held(l1_key)) {
    if (waits_for_hit(session, *session.lane, request)) return Outcome::later;
    if (!must_wait(session, *session.lane)) stats_.l1_misses.add();
    return relay(session, request, &command);
  }
  return start_read(session, request, command, l1_key, rule);
}

Bytes Router::wire_of(const Request& request) {
  if (!request.wire.empty()) return request.wire;
  wire_.clear();
  resp::write_request(wire_, request.args);
  return wire_.readable();
}

// L1Key::variant of a request that has `args`, its key first, behind its name. Lives in variant_.
Bytes Router::variant_of(std::span<const Bytes> args) {
  variant_.clear();
  for (const Bytes arg : args.subspan(1)) {
    const auto size = static_cast<uint32_t>(arg.size());
    variant_.append(reinterpret_cast<const char*>(&size), sizeof size);
    variant_.append(arg);
  }
  return variant_;
}

// Lanes to different nodes of a cluster: all that is asked about one key goes over one of them, and
// nothing is promised across nodes (G2 is each shard's).
bool Router::spreads(const Link& link) const {
  if (!cluster_ || link.kind != Link::Kind::lane) return false;
  const Lane& lane = static_cast<const Lane&>(link);
  return lane.resp == 3 && !lane.replica;
}

// May what the session has seen last, and what comes over `link`, be in no order?
bool Router::follows(const Session& session, const Link& link) const {
  return session.last_connection == nullptr || session.last_connection == &link ||
         (session.spread && session.last_connection != &kNowhere && spreads(link));
}

// Replies are in order only within one connection: moving to another waits for the last reply. So
// does what comes after a change of the topology: the same key may be elsewhere now.
bool Router::must_wait(const Session& session, const Link& link) const {
  if (!session.outstanding()) return false;
  return !follows(session, link) || session.topology_version != topology_->version();
}

// What was sent over several links, or again, is answered now, before `session` gets the reply. If
// something else of it is still under way, that one may have been sent again as well.
void Router::came_back(Session& session, const Lane& lane) {
  if (session.last_connection == &kNowhere && session.requests_outstanding() <= 1)
    session.last_connection = &lane;
}

void Router::went_to(Session& session, const Link& link) {
  if (!follows(session, link)) session.floor_ns = now_ns_;
  session.last_connection = &link;
  session.spread = spreads(link);
  session.topology_version = topology_->version();
  session.last_sequence = link.connection->sequence();
}

void Router::mark_writes(Pending& pending, Link& link, const Command* command,
                         std::span<const Bytes> args) {
  Effect effect = command == nullptr ? Effect::unknown : effect_of(*command, args);
  pending.read_only = effect == Effect::none;
  if (effect == Effect::none) return;
  keys_.clear();
  if (effect != Effect::everything) {
    const bool exact = command != nullptr && extract_keys(*command, args, keys_);
    const bool trusted = effect == Effect::keys || process_.config.coherence.trust_script_keys;
    pending.fence =
        !exact || !trusted || (effect == Effect::unknown && (command == nullptr || keys_.empty()));
    // Where the server tells nobody what it changed, there is nothing to wait for.
    if (pending.fence && writes_unseen()) effect = Effect::everything;
  }
  if (effect == Effect::everything) {
    pending.fence = false;
    process_.begin_write_all();
    pending.writes = std::make_unique<WriteMarks>();
    pending.writes->all = true;
    stats_.invalidations_write.add();
    return announce_everything(link, pending);
  }
  for (const KeyRef& key : keys_) {
    if (!key.write) continue;
    const uint64_t hash = hash_key(args[key.arg], process_.hash_seed);
    process_.stamps.begin_write(hash);
    stats_.invalidations_write.add();
    if (records_writes_) announce_key(link, pending, args[key.arg]);
    if (!pending.one_write && pending.writes == nullptr) {
      pending.one_write = true;
      pending.write_hash = hash;
    } else {
      if (pending.writes == nullptr) pending.writes = std::make_unique<WriteMarks>();
      pending.writes->hashes.push_back(hash);
    }
  }
}

void Router::end_writes(Pending& pending) {
  if (pending.one_write) process_.stamps.end_write(pending.write_hash);
  pending.one_write = false;
  if (pending.writes == nullptr) return;
  for (const uint64_t hash : pending.writes->hashes) process_.stamps.end_write(hash);
  if (pending.writes->all) process_.stamps.end_write_all();
  announce_late(*pending.writes);
  // SWAPDB pushes nothing, not even to those who are told by the server.
  if (pending.writes->all && !announces_) process_.bus->tell_flush();
  pending.writes.reset();
}

std::string Router::unreachable(NodeIndex node) const {
  return "-ERR upstream unreachable (" + topology_->nodes()[node].address.to_string() + ": " +
         process_.node_error(node) + ")\r\n";
}

// The breaker is about new links: one that is up and answers is as good as ever (maxclients).
bool Router::is_cut_off(const Link& link) const {
  const bool works = link.connection->up() &&
                     (link.kind == Link::Kind::pin || !is_silent(static_cast<const Lane&>(link)));
  return !works && process_.is_broken(link.node, now_ns_);
}

// False: the session has been answered why not.
bool Router::can_send(Session& session, const Link& link, size_t bytes) {
  if (!link.connection->refusal().empty()) {
    session.reply(refusal_for_client(link.connection->refusal()));
    return false;
  }
  if (is_cut_off(link)) {
    stats_.breaker_refusals.add();
    session.reply(unreachable(link.node));
    return false;
  }
  if (link.connection->has_room(bytes)) return true;
  stats_.limit_upstream_queue_hit.add();
  session.reply("-ERR nearcached's queue to the upstream is full (limits.upstream_queue)\r\n");
  return false;
}

// Passes the request to the session's lane, or, when its reply cannot be turned into RESP2 without
// asking, to the lane's RESP2 twin.
Session::Outcome Router::relay(Session& session, const Request& request, const Command* command) {
  Lane* lane = session.lane;
  bool convert = session.resp == 2 && lane->connection->resp() == 3;
  Resp2Rule rule = Resp2Rule::null_bulk;
  if (convert) {
    rule = command != nullptr ? resp2_rule_of(*command, request.args) : Resp2Rule::unknown;
    if (rule == Resp2Rule::unknown) {
      lane = lane_for(session.identity, session.database, 2, session.lane->node);
      convert = false;
      if (lane == nullptr) {
        session.reply(kNoLane);
        return Outcome::done;
      }
    }
  }
  if (must_wait(session, *lane)) return Outcome::later;
  const Bytes wire = wire_of(request);
  if (!can_send(session, *lane, wire.size())) return Outcome::done;
  Pending pending;
  pending.kind = Pending::Kind::relay;
  pending.convert = convert;
  pending.rule = rule;
  pending.session = session.ref;
  pending.sent_ns = now_ns_;
  if (aimed_slot_ >= 0) pending.hash_slot = static_cast<uint16_t>(aimed_slot_);
  if (command == nullptr || command->arity_ok(request.args.size())) {
    mark_writes(pending, *lane, command, request.args);
    note_waits(pending, request.args);
  }
  pending.slot = session.reserve();
  if (pending.fence) session.hold(pending.slot);
  lane->connection->send(wire, std::move(pending));
  lane->idle_since_ns = now_ns_;
  went_to(session, *lane);
  stats_.upstream_requests.add();
  return Outcome::done;
}

const Rule* Router::rule_for(Bytes key) const {
  for (const Rule& rule : process_.config.rules)
    if (glob_match(rule.keys, key)) return &rule;
  return nullptr;
}

}  // namespace nearcached
