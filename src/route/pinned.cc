// Pinned sessions: whatever needs a connection of its own in the server gets one, speaking the
// client's own protocol, so that replies pass through untouched. The state is followed only as far
// as it takes to know when it ends; then the session goes back to its lane and the connection into
// a small pool.
//
// SUBSCRIBE and its kin answer with any number of messages. Behind each goes a PING with a nonce of
// ours (the sentinel): what comes before its reply belongs to the request or is a message, and its
// reply ends the request. So nothing has to be counted, in either protocol.
// A session in such a state is never served from L1: with WATCH that would commit lost updates.
#include <algorithm>
#include <charconv>
#include <random>

#include "nearcached/base/check.h"
#include "nearcached/base/hash.h"
#include "nearcached/resp/writer.h"
#include "route/gather.h"
#include "route/router.h"

namespace nearcached {
namespace {

// Nobody can publish what looks like it: it is made anew by every process.
const std::string& nonce() {
  static const std::string value = [] {
    std::random_device random;
    std::string text = "nearcached-";
    for (int i = 0; i < 16; ++i) text += "0123456789abcdef"[random() % 16];
    return text;
  }();
  return value;
}

bool is_sentinel_reply(Bytes reply) {
  // RESP2 while subscribed: *2 pong nonce; else the nonce alone. A user without the right to PING
  // gets an error that names it.
  static const std::string alone = "$" + std::to_string(nonce().size()) + "\r\n" + nonce() + "\r\n";
  static const std::string subscribed = "*2\r\n$4\r\npong\r\n" + alone;
  return reply == alone || reply == subscribed ||
         (reply.starts_with("-NOPERM") && reply.find("'ping'") != Bytes::npos);
}

bool is_pubsub_message(Bytes reply) {
  for (const Bytes head :
       {Bytes("*3\r\n$7\r\nmessage\r\n"), Bytes("*4\r\n$8\r\npmessage\r\n"),
        Bytes("*3\r\n$8\r\nsmessage\r\n"), Bytes("*3\r\n$12\r\nsunsubscribe\r\n")})
    if (reply.starts_with(head)) return true;
  return false;
}

// What MULTI queues takes effect at EXEC, unseen: what would change the connection itself is not
// let in. (SELECT is, and followed: clients use it there.)
bool may_be_queued(const Command* command) {
  if (command == nullptr) return true;
  switch (command->route) {
    case Route::auth:
    case Route::hello:
    case Route::subscribe:
    case Route::monitor:
    case Route::pinned_state: return false;
    case Route::client:
      return command->name == "client|id" || command->name == "client|getname" ||
             command->name == "client|info" || command->name == "client|list";
    default: return true;
  }
}

bool redirects(std::span<const Bytes> args) {
  return std::any_of(args.begin(), args.end(),
                     [](Bytes arg) { return equals_upper(arg, "REDIRECT"); });
}

constexpr uint64_t kTableReloadNs = 10'000'000'000;

// An integer argument, or −1.
int64_t to_index(Bytes text) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : -1;
}

}  // namespace

bool Router::acquire_pin(Session& session) {
  Pin* pin = nullptr;
  const NodeIndex node = session.lane->node;
  for (const auto& idle : pins_)
    if (idle->idle && idle->node == node && *idle->identity == *session.identity &&
        idle->connection->options().database == session.database &&
        idle->connection->options().resp == session.resp && idle->connection->up())
      pin = idle.get();
  if (pin != nullptr) {
    stats_.private_connections_idle.subtract();
  } else {
    if (!has_room_for_pin(node)) return false;
    process_.pins.fetch_add(1);
    process_.nodes[node].links.fetch_add(1);
    pins_.push_back(std::make_unique<Pin>());
    pin = pins_.back().get();
    pin->identity = session.identity;
    pin->node = node;
    Connection::Options options =
        connection_options(*session.identity, session.database, session.resp, node);
    options.once = true;
    options.keep_requests = cluster_;
    options.client_name = session.name().empty() ? Bytes("nearcached-private") : session.name();
    pin->connection = std::make_unique<Connection>(loop_, *this, std::move(options));
    pin->connection->owner_data = static_cast<Link*>(pin);
    stats_.upstream_connections.add();
    pin->connection->connect();
  }
  pin->session = session.ref;
  pin->slot = -1;
  pin->asking = false;
  pin->unbound.clear();
  pin->unbound_bytes = 0;
  pin->bound = false;
  pin->idle = false;
  pin->reusable = session.name().empty();
  session.pin = pin;
  stats_.pinned_sessions.add();
  return true;
}

bool Router::has_room_for_pin(NodeIndex node) {
  const Config::Limits& limits = process_.config.limits;
  const bool full = process_.pins.load() >= limits.private_connections;
  const bool node_full = process_.nodes[node].links.load() >= limits.node_connections;
  if (full) stats_.limit_private_connections_hit.add();
  if (node_full) stats_.limit_node_connections_hit.add();
  return !full && !node_full;
}

void Router::close_pin(Pin& pin) {
  if (pin.idle) stats_.private_connections_idle.subtract();
  else stats_.pinned_sessions.subtract();
  if (Session* session = find(pin.session)) {
    session->pin = nullptr;
    session->gives_up_on_eof = false;
  }
  pin.session = {};
  const auto at = std::find_if(pins_.begin(), pins_.end(),
                               [&](const auto& other) { return other.get() == &pin; });
  NC_CHECK(at != pins_.end());
  const std::unique_ptr<Pin> dying = std::move(*at);
  pins_.erase(at);
  process_.pins.fetch_sub(1);
  process_.nodes[pin.node].links.fetch_sub(1);
  retire(std::move(dying->connection));
}

void Router::unpin(Session& session, bool reuse) {
  Pin& pin = *session.pin;
  const auto idle = static_cast<size_t>(stats_.private_connections_idle.get());
  if (!reuse || !pin.reusable || !pin.connection->up() ||
      idle >= process_.config.upstream.private_idle_max)
    return close_pin(pin);
  session.pin = nullptr;
  session.gives_up_on_eof = false;
  stats_.pinned_sessions.subtract();
  stats_.private_connections_idle.add();
  pin.session = {};
  pin.idle = true;
  pin.idle_since_ns = now_ns_;
}

// The state has ended and every reply is out: back to the lane.
void Router::maybe_unpin(Session& session) {
  Pin* pin = session.pin;
  if (pin == nullptr || pin->has_state() || pin->connection->pending() > 0 || session.outstanding())
    return;
  pin->connection->set_wants_whole(false);
  if (adopt_lane(session)) unpin(session, true);  // else it stays pinned: slower, but right
}

// The lane of what the session has become on its private connection.
bool Router::adopt_lane(Session& session) {
  Lane* lane = lane_for(session.identity, session.database, 3, session.lane->node);
  if (lane != nullptr && lane != session.lane) attach(session, *lane);
  return lane != nullptr;
}

Session::Outcome Router::pinned(Session& session, const Request& request, const Command* command) {
  maybe_unpin(session);
  const Route kind = command == nullptr ? Route::lane : command->route;
  if (session.pin == nullptr) {
    const bool needs_pin =
        kind == Route::multi || kind == Route::watch || kind == Route::subscribe ||
        kind == Route::monitor || kind == Route::pinned_state || kind == Route::client ||
        command == nullptr || (kind == Route::blocking && may_block(*command, request.args));
    if (!needs_pin) return route(session, request, *command);
    if (session.outstanding()) return Outcome::later;
    if (!acquire_pin(session)) {
      session.reply(kNoPin);
      return Outcome::done;
    }
  }
  Pin& pin = *session.pin;
  if (must_wait(session, pin) || pin.changing) return Outcome::later;
  if (pin.monitor && kind != Route::reset && kind != Route::quit &&
      (command == nullptr || command->name != "ping")) {
    session.reply("-ERR nearcached allows only PING, QUIT and RESET while monitoring\r\n");
    return Outcome::done;
  }
  if (pin.multi && !may_be_queued(command)) {
    pin.poisoned = true;
    session.reply("-ERR nearcached cannot run '" + command->name + "' inside a transaction\r\n");
    return Outcome::done;
  }
  if (is_refused(command) || kind == Route::replication) {
    if (pin.multi) pin.poisoned = true;
    refuse(session, command->name);
    return Outcome::done;
  }
  if (kind == Route::reset || kind == Route::quit)
    return connection_command(session, request, *command);
  // A RESP2 client that subscribes may hardly do anything: that is the server's to refuse.
  const bool restricted = session.resp == 2 && pin.subscribed();
  const bool local = !pin.multi && !restricted;
  if (local && kind == Route::nearcache) return nearcache(session, request.args);
  if (local && kind == Route::info) return info(session, request, *command);
  if (local && kind == Route::client && is_local_client_command(*command, request.args.size()))
    return client_command(session, request, *command);
  if (kind == Route::client && command->name == "client|tracking" && redirects(request.args)) {
    session.reply("-ERR nearcached cannot redirect tracking to another connection; use RESP3\r\n");
    return Outcome::done;
  }
  // One at a time: its reply decides how the following requests are to be understood.
  const bool changes_session = kind == Route::hello || kind == Route::auth ||
                               kind == Route::select || kind == Route::monitor ||
                               (kind == Route::subscribe && session.resp == 2);
  if (changes_session && session.outstanding()) return Outcome::later;
  if (!can_send(session, pin, wire_of(request).size())) {
    // To the client a transaction ends with EXEC, and loses no command without being aborted.
    if (pin.multi) pin.poisoned = true;
    if (pin.multi && (kind == Route::exec || kind == Route::discard)) session.close_when_done();
    return Outcome::done;
  }
  pin.changing = changes_session && !pin.multi;
  forward_pinned(session, request, command);
  return Outcome::done;
}

// Remembers what the queued commands will write, for EXEC.
void Router::queue_transaction(Session& session, const Command* command,
                               std::span<const Bytes> args) {
  Pin& pin = *session.pin;
  const uint32_t place = pin.queued++;
  if (command == nullptr) {
    pin.writes_unknown = true;
    pin.reusable = false;
    return;
  }
  if (command->route == Route::select) pin.selects.push_back({place, to_index(args[1])});
  const Effect effect = effect_of(*command, args);
  if (effect == Effect::none) return;
  if (effect == Effect::everything) pin.writes_everything = true;
  if (effect == Effect::unknown && !process_.config.coherence.trust_script_keys)
    pin.writes_unknown = true;
  keys_.clear();
  if (!extract_keys(*command, args, keys_)) pin.writes_unknown = true;
  pin.wait.raise(wait_for(args));
  for (const KeyRef& key : keys_)
    if (key.write) {
      pin.writes.push_back(hash_key(args[key.arg], process_.hash_seed));
      if (records_writes_) pin.written_keys.emplace_back(args[key.arg]);
    }
  if (pin.writes.size() > process_.config.limits.transaction_keys) {
    stats_.limit_transaction_keys_hit.add();
    pin.writes.clear();
    pin.written_keys.clear();
    pin.writes_everything = true;
  }
}

// EXEC or DISCARD: the queued writes begin now, all at once. If we refused one of its commands, the
// server knows nothing of that and is told to DISCARD.
PinEvent Router::end_transaction(Pin& pin, Pending& pending, bool exec, Bytes& wire) {
  const bool abort = exec && pin.poisoned;
  if (abort) wire = "*1\r\n$7\r\nDISCARD\r\n";
  if (exec && !abort) {
    pending.read_only = false;
    if (pin.writes_unknown && writes_unseen()) pin.writes_everything = true;
    pending.fence = pin.writes_unknown && !pin.writes_everything;
    pin.changing = !pin.selects.empty();
    if (pin.writes_everything) process_.begin_write_all();
    for (const uint64_t hash : pin.writes) process_.stamps.begin_write(hash);
    if (pin.writes_everything || !pin.writes.empty()) {
      pending.writes = std::make_unique<WriteMarks>();
      pending.writes->hashes = std::move(pin.writes);
      pending.writes->announced_keys = std::move(pin.written_keys);
      pending.writes->all = pin.writes_everything;
      pending.writes->announced_everything = records_writes_ && pin.writes_everything;
      pending.writes->wait = pin.wait;
    }
  } else {
    pin.selects.clear();
  }
  pin.writes.clear();
  pin.written_keys.clear();
  pin.writes_unknown = pin.writes_everything = pin.multi = pin.watch = pin.poisoned = false;
  pin.wait = {};
  pin.queued = 0;
  pin.slot = -1;
  pin.bound = pin.asking = false;
  pin.unbound.clear();
  pin.unbound_bytes = 0;
  return abort ? PinEvent::exec_aborted : PinEvent::exec;
}

// What the request does to the connection's state, as far as that is known before its reply.
PinEvent Router::begin_state(Session& session, Pending& pending, const Command& command,
                             std::span<const Bytes> args, Bytes& wire) {
  Pin& pin = *session.pin;
  const Route kind = command.route;
  PinEvent event = PinEvent::none;
  switch (kind) {
    case Route::multi: pin.multi = true; break;
    case Route::watch:
      if (!pin.multi) pin.watch = true;
      if (!pin.multi) pin.slot = aimed_slot_;
      break;
    case Route::unwatch:
      pin.watch = false;
      if (!pin.multi) pin.bound = pin.asking = false;
      break;
    case Route::discard:
    case Route::exec:
      // Without MULTI it is an error that changes nothing: a WATCH stays.
      if (pin.multi) event = end_transaction(pin, pending, kind == Route::exec, wire);
      break;
    case Route::blocking:
      if (!may_block(command, args)) break;
      // WAIT counts from its own connection's last command: one PING puts that behind our writes.
      if (command.name == "wait") {
        Pending ignored;
        ignored.sent_ns = now_ns_;
        pin.connection->send({"PING"}, std::move(ignored));
      }
      event = PinEvent::unblock;
      ++pin.blocking;
      pending.no_timeout = true;
      session.gives_up_on_eof = true;
      break;
    case Route::monitor: event = PinEvent::monitor; break;
    case Route::subscribe:
      event = PinEvent::sentinel;
      ++pin.sentinels;
      pin.connection->set_wants_whole(true);
      break;
    case Route::select:
      event = PinEvent::select;
      pin.new_database = args.size() == 2 ? to_index(args[1]) : -1;
      break;
    case Route::auth:
    case Route::hello:
      event = kind == Route::auth ? PinEvent::auth : PinEvent::hello;
      note_credentials(pin, session, args);
      break;
    case Route::client:
      if (args.size() < 3) break;
      [[fallthrough]];
    case Route::pinned_state:
      event =
          args.size() > 2 && equals_upper(args[2], "OFF") ? PinEvent::sticky_off : PinEvent::sticky;
      if (event == PinEvent::sticky) ++pin.sticky_pending;
      pin.reusable = false;
      break;
    default: break;
  }
  return event;
}

void Router::forward_pinned(Session& session, const Request& request, const Command* command) {
  Pin& pin = *session.pin;
  Connection& connection = *pin.connection;
  const std::span<const Bytes> args = request.args;
  const bool valid = command != nullptr && command->arity_ok(args.size());
  const Route kind = valid ? command->route : Route::lane;
  Pending pending;
  pending.kind = Pending::Kind::relay;
  pending.session = session.ref;
  pending.sent_ns = now_ns_;
  if (aimed_slot_ >= 0) pending.hash_slot = static_cast<uint16_t>(aimed_slot_);
  PinEvent event = PinEvent::none;
  Bytes wire = wire_of(request);
  if (command == nullptr || valid) mark_writes(pending, pin, command, args);
  if (command == nullptr) {
    event = PinEvent::sticky;  // whatever it was, its effect on the connection lasts
    ++pin.sticky_pending;
    pin.reusable = false;
  }
  const bool queued = pin.multi && kind != Route::exec && kind != Route::discard &&
                      kind != Route::multi && kind != Route::watch;
  if (queued && (command == nullptr || valid)) queue_transaction(session, command, args);
  if (!queued && valid) note_waits(pending, args);
  // Queued or refused, nothing runs now: EXEC's own fence is the one that counts.
  if (queued || (session.resp == 2 && pin.subscribed())) pending.fence = false;
  if (valid && !queued) event = begin_state(session, pending, *command, args, wire);
  if (cluster_ && event == PinEvent::none && (queued || kind == Route::watch))
    event = bind(pin, wire, aimed_slot_ >= 0);
  if (cluster_ && queued && command == nullptr) (void)bind(pin, wire, false);
  pending.event = static_cast<uint8_t>(event);
  const bool in_multi = queued || kind == Route::exec || kind == Route::discard;
  if (pin.asking && !in_multi) send_ignored(connection, kAsking);
  went_to(session, pin);
  stats_.upstream_requests.add();
  if (pin.monitor) return connection.send_unanswered(wire);  // PING: its answer is one more line
  pending.slot = session.reserve();
  if (pending.fence) session.hold(pending.slot);
  if (event == PinEvent::sentinel) {
    connection.send_unanswered(wire);
    connection.send({"PING", nonce()}, std::move(pending));
  } else {
    connection.send(wire, std::move(pending));
  }
}

// What is queued before the first key has to be queued again if that key is elsewhere. The first
// one itself goes alone: its reply says whether this is its node.
PinEvent Router::bind(Pin& pin, Bytes wire, bool has_key) {
  if (pin.bound) return PinEvent::none;
  if (has_key) {
    pin.bound = pin.changing = true;
    return PinEvent::bind;
  }
  pin.unbound_bytes += wire.size();
  if (pin.unbound_bytes <= kUnboundBytesMax) pin.unbound.emplace_back(wire);
  return PinEvent::none;
}

// HELLO and AUTH on a private connection are the server's to judge; what they will mean if it
// agrees is kept until it has.
void Router::note_credentials(Pin& pin, const Session& session, std::span<const Bytes> args) {
  pin.reusable = false;
  pin.new_identity = nullptr;
  pin.new_resp = session.resp;
  pin.new_name.clear();
  const auto identity = [](Bytes user, Bytes password, bool with_user) {
    return std::make_shared<const Identity>(
        Identity{std::string(user), std::string(password), true, with_user});
  };
  if (equals_upper(args[0], "AUTH")) {
    pin.new_identity =
        args.size() == 3 ? identity(args[1], args[2], true) : identity({}, args[1], false);
    return;
  }
  if (args.size() > 1) pin.new_resp = args[1] == "3" ? 3 : 2;
  for (size_t i = 2; i + 1 < args.size(); ++i) {
    if (equals_upper(args[i], "AUTH") && i + 2 < args.size()) {
      pin.new_identity = identity(args[i + 1], args[i + 2], true);
      i += 2;
    } else if (equals_upper(args[i], "SETNAME")) {
      pin.new_name.assign(args[++i]);
    }
  }
}

// Which database a transaction's SELECTs left: the last one that EXEC says went well, or −1.
int64_t Router::selected_by(const Pin& pin, Bytes reply) {
  if (!reply.starts_with("*") || reply.starts_with("*-1")) return -1;
  reply.remove_prefix(reply.find("\r\n") + 2);
  int64_t database = -1;
  size_t next = 0;
  for (uint32_t place = 0; !reply.empty() && next < pin.selects.size(); ++place) {
    ReplyScanner scanner;
    const ReplyScanner::Step step = scanner.scan(reply);
    if (step.status != ReplyScanner::Status::done) break;
    if (pin.selects[next].place == place) {
      if (reply.starts_with("+OK")) database = pin.selects[next].database;
      ++next;
    }
    reply.remove_prefix(step.consumed);
  }
  return database;
}

void Router::apply_pin_event(Pin& pin, Session& session, PinEvent event, Bytes reply) {
  const bool error = reply.starts_with("-");
  switch (event) {
    case PinEvent::exec:
      if (pin.selects.empty()) break;
      pin.new_database = selected_by(pin, reply);
      pin.selects.clear();
      [[fallthrough]];
    case PinEvent::select:
      if (error || pin.new_database < 0) break;
      session.database = static_cast<uint32_t>(pin.new_database);
      pin.connection->set_database(session.database);
      pin.new_database = -1;
      adopt_lane(session);
      break;
    case PinEvent::auth:
    case PinEvent::hello:
      if (error) break;
      session.resp = pin.new_resp;
      pin.connection->set_resp(pin.new_resp);
      if (!pin.new_name.empty()) session.set_name(pin.new_name);
      if (pin.new_identity != nullptr) {
        session.identity = pin.new_identity;
        session.authenticated = true;
        adopt_lane(session);
      }
      break;
    case PinEvent::unblock:
      --pin.blocking;
      session.gives_up_on_eof = pin.blocking > 0;
      break;
    case PinEvent::sticky:
      --pin.sticky_pending;
      if (error) break;
      pin.sticky = true;
      // A command we did not know that the server does: perhaps it now tells us about it.
      if (now_ns_ > table_loaded_ns_ + kTableReloadNs && main_lane_->connection->up())
        load_command_table(*main_lane_);
      break;
    case PinEvent::sticky_off:
      if (!error) pin.sticky = false;
      break;
    case PinEvent::monitor:
      if (error) break;
      pin.monitor = true;
      pin.reusable = false;
      pin.connection->set_wants_whole(true);
      break;
    default: break;
  }
}

void Router::on_pin_reply(Pin& pin, Session* session, Pending& pending, Bytes bytes, bool last,
                          ReplicaWait wait) {
  if (session == nullptr) return;
  const auto event = static_cast<PinEvent>(pending.event);
  if (event == PinEvent::sentinel) {
    --pin.sentinels;
    pin.changing = false;
    if (!pin.subscribed()) pin.connection->set_wants_whole(false);
    session->deliver(pending.slot, {}, true);
    return maybe_unpin(*session);
  }
  if (last) {
    pin.changing = false;
    apply_pin_event(pin, *session, event, bytes);
  }
  // EXEC of a transaction in which we refused a command: it was made a DISCARD.
  if (event == PinEvent::exec_aborted && bytes == "+OK\r\n")
    bytes = "-EXECABORT Transaction discarded because of previous errors.\r\n";
  // Nothing was written where nothing came in time, or a watched key had changed.
  const bool in_vain = (event == PinEvent::unblock || event == PinEvent::exec) && is_null(bytes);
  if (wait.replicas > 0 && !in_vain) await_replicas(pin.node, pending, bytes, wait);
  else session->deliver(pending.slot, bytes, last);
  if (!last || session->closing()) return;
  // Only of a command we do not know is it certain that this very error came before anything ran.
  if (pending.fence && event == PinEvent::sticky && bytes.starts_with("-ERR unknown command"))
    session->release(pending.slot);
  else if (pending.fence) await_fence(pending.session, pending.slot);
  maybe_unpin(*session);
}

bool Router::is_message(Connection& connection, Bytes reply) {
  Pin& pin = *static_cast<Pin*>(static_cast<Link*>(connection.owner_data));
  if (pin.monitor) return true;
  const Pending* front = connection.front_pending();
  if (front == nullptr) return true;
  if (front->event == static_cast<uint8_t>(PinEvent::sentinel)) return !is_sentinel_reply(reply);
  return pin.subscribed() && is_pubsub_message(reply);
}

// (un)subscribe confirmations end with the number of channels that are left.
void Router::count_channels(Pin& pin, Bytes message) {
  const size_t kind_at = message.find("\r\n", 4);
  if (kind_at == Bytes::npos) return;
  const size_t begin = kind_at + 2;
  const Bytes kind = message.substr(begin, message.find("\r\n", begin) - begin);
  if (!kind.ends_with("subscribe")) return;
  const size_t count_at = message.rfind("\r\n:");
  if (count_at == Bytes::npos) return;
  uint64_t count = 0;
  std::from_chars(message.data() + count_at + 3, message.data() + message.size(), count);
  if (kind == "ssubscribe" || kind == "sunsubscribe") pin.shard_channels = count;
  else pin.channels = count;
}

}  // namespace nearcached
