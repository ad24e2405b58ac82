// Requests and hits. See model_proxy.h for what stands for what.
#include <charconv>

#include "nearcached/base/check.h"
#include "nearcached/coherence/mutations.h"
#include "sim/model_proxy.h"

namespace nearcached::sim {
namespace {

// Of thousands; here a table has a handful, and a walk must take its time.
constexpr uint64_t kWalkBucketsPerTurn = 1;

bool is_read(ClientRequest::Op op) {
  using Op = ClientRequest::Op;
  return op == Op::get || op == Op::strlen || op == Op::mget;
}

}  // namespace

Session::Slot Session::reserve(const ClientRequest& request) {
  slots.push_back({request, {}, false, false});
  return first_slot + static_cast<Slot>(slots.size() - 1);
}

void Session::reply(const ClientRequest& request, const Answer& answer) {
  deliver(reserve(request), answer);
}

void Session::deliver(Slot slot, const Answer& answer) {
  const Slot place = slot - first_slot;
  NC_CHECK(place < slots.size() && !slots[place].complete);
  slots[place].answer = answer;
  slots[place].complete = true;
  if (place == 0) advance();
  wake();
}

void Session::release(Slot slot) {
  slots[slot - first_slot].held = false;
  if (slot == first_slot) advance();
  wake();
}

void Session::advance() {
  while (!slots.empty() && slots.front().complete && !slots.front().held) {
    const Entry done = std::move(slots.front());
    slots.pop_front();
    ++first_slot;
    router->process.observer.on_answer(*this, done.request, done.answer);
  }
}

void Session::wake() {
  if (!waiting || resumable || closing) return;
  resumable = true;
  router->resume_later(*this);
}

void Process::post(Router& router, std::function<void()> task) {
  const uint64_t delay_ns = engine.random.skewed(200 * kNsPerUs);
  engine.after(delay_ns, [&router, run = std::move(task)] { router.turn(run); });
}

Router::Router(Process& p, unsigned i)
    : process(p),
      engine(p.engine),
      index(i),
      l1_({.memory_bytes = p.options.l1_bytes, .hash_of = [&p](Bytes text) {
             const auto* name = std::find(std::begin(kNameText), std::end(kNameText), text);
             return p.hash_of(static_cast<Key>(name - std::begin(kNameText)));
           }}) {}

std::string Router::name() const {
  return "proxy " + std::to_string(process.number) + "." + std::to_string(index);
}

void Router::start() {
  records_writes_ = process.options.mode == CoherenceMode::publish;
  main_lane_ = lane_for(0, false);
}

void Router::turn(const std::function<void()>& body) {
  now_ns = engine.now_ns();
  body();
  turn_end();
}

void Router::turn_end() {
  while (!resumable_.empty() || !unflushed_.empty()) {
    std::vector<SessionRef> refs;
    refs.swap(resumable_);
    for (const SessionRef ref : refs)
      if (Session* session = find(ref)) {
        session->resumable = session->waiting = false;
        process_input(*session);
      }
    if (announces_) send_announcements();
    std::vector<Connection*> connections;
    connections.swap(unflushed_);
    for (Connection* connection : connections) connection->flush();
  }
  l1_.sweep(now_ns / kNsPerMs);
  if (!patterns_.empty()) walk_patterns(kWalkBucketsPerTurn);
}

Session* Router::find(SessionRef ref) {
  if (ref == kNobody || sessions_[ref]->closing) return nullptr;
  return sessions_[ref].get();
}

Session& Router::accept(unsigned client) {
  Session& session = *sessions_.emplace_back(std::make_unique<Session>());
  session.ref = static_cast<SessionRef>(sessions_.size() - 1);
  session.router = this;
  session.client = client;
  attach(session, *main_lane_);
  return session;
}

void Router::close_session(Session& session) {
  if (session.closing) return;
  session.closing = true;
  session.lane = nullptr;
  if (session.pin != nullptr) close_pin(*session.pin);
  session.pin = nullptr;
  process.observer.on_session_closed(session);
}

void Router::on_read(SessionRef ref, std::vector<ClientRequest> requests) {
  Session* session = find(ref);
  if (session == nullptr) return;
  for (ClientRequest& request : requests) session->input.push_back(request);
  process_input(*session);
}

void Router::process_input(Session& session) {
  while (!session.waiting && !session.closing && !session.input.empty()) {
    ClientRequest& request = session.input.front();
    if (request.number == 0) process.observer.on_start(session, request);
    if (on_request(session, request) == Outcome::later) session.waiting = true;
    else if (!session.closing) session.input.pop_front();
  }
}

Command Router::command_of(const Session& session, const ClientRequest& request) const {
  using Op = ClientRequest::Op;
  Command command;
  command.count = request.count;
  command.px_ms = request.px_ms;
  for (unsigned i = 0; i < request.count; ++i)
    command.keys[i] = key_of(session.database, request.names[i]);
  switch (request.op) {
    case Op::get:
    case Op::strlen:
    case Op::read_twin: command.kind = Command::Kind::get; break;
    case Op::mget: command.kind = Command::Kind::mget; break;
    case Op::set:
    case Op::set_twin: command.kind = Command::Kind::set; break;
    case Op::del: command.kind = Command::Kind::del; break;
    case Op::script: command.kind = Command::Kind::script; break;
    case Op::watch: command.kind = Command::Kind::watch; break;
    case Op::multi: command.kind = Command::Kind::multi; break;
    case Op::exec: command.kind = Command::Kind::exec; break;
    case Op::flush_all: command.kind = Command::Kind::flush_all; break;
    case Op::swap_db: command.kind = Command::Kind::swap_db; break;
    case Op::pattern:
    case Op::select: break;
  }
  return command;
}

uint16_t Router::command_id(const ClientRequest& request) {
  return request.op == ClientRequest::Op::strlen ? 2 : 1;
}

Answer Router::answer_of(const Reply& reply, const Command& command) {
  Answer answer;
  answer.reply = reply;
  answer.keys = command.keys;
  const bool wrote = command.kind == Command::Kind::set || command.kind == Command::Kind::del ||
                     command.kind == Command::Kind::script;
  for (unsigned i = 0; wrote && i < command.count; ++i) {
    answer.wrote[i] = true;
    answer.reply.values[i] = reply.values[0];
  }
  if (wrote) answer.reply.count = command.count;
  return answer;
}

Answer Router::failure() {
  Answer answer;
  answer.reply.kind = Reply::Kind::lost;
  return answer;
}

Session::Outcome Router::on_request(Session& session, ClientRequest& request) {
  return route(session, request);
}

Session::Outcome Router::route(Session& session, const ClientRequest& request) {
  using Op = ClientRequest::Op;
  if (session.pin != nullptr) return pinned(session, request);
  if (is_read(request.op)) return read_through(session, request);
  switch (request.op) {
    case Op::multi:
    case Op::watch: return pinned(session, request);
    case Op::select: return select(session, request);
    case Op::pattern: return pattern(session, request);
    default: return relay(session, request);
  }
}

bool Router::catch_up() {
  if (process.patterns_version != patterns_seen_) adopt_patterns();
  const uint64_t all = process.stamps.load_all();
  if (all != seen_all_) {
    seen_all_ = all;
    for (const auto& lane : lanes_) renew_space(*lane);
  }
  return StampTable::settled(all);
}

bool Router::serves_hits(const Session& session, const Lane& lane) const {
  coherence::SessionView view = session.view;
  view.replies_pending = session.outstanding();
  if (session.last_connection != nullptr && session.last_connection != &lane.connection)
    view.floor_ns = now_ns;
  return coherence::may_serve(proof_of(lane), view, now_ns, process.options.max_staleness_ns);
}

L1Key Router::l1_key(Key key, uint16_t command, uint32_t space) const {
  return {process.hash_of(key), space, command, kNameText[name_of(key)], {}};
}

// What is held is a version, written the way that coherence::looks_missing tells a missing key from
// a value: an aggregate or a simple string.
std::optional<Router::Held> Router::find_valid(Key key, uint16_t command, uint32_t space) {
  L1Hit hit;
  const L1Key wanted = l1_key(key, command, space);
  if (!l1_.find(wanted, now_ns / kNsPerMs, hit)) return std::nullopt;
  if (!coherence::stamp_holds(hit.stamp, process.stamps.load(wanted.hash)) ||
      (!patterns_.empty() && patterns_.kills(wanted.key, hit.filled_ms))) {
    l1_.erase(wanted);
    return std::nullopt;
  }
  Held held{{}, hit.filled_ms};
  Observed& value = held.value;
  value.missing = hit.reply[0] == '*';
  const char* const end = hit.reply.data() + hit.reply.size();
  const char* at = hit.reply.data() + 1;
  at = std::from_chars(at, end, value.version.server).ptr + 1;
  std::from_chars(at, end, value.version.position);
  return held;
}

Session::Outcome Router::read_through(Session& session, const ClientRequest& request) {
  if (!session.lane->proof.tracking) return relay(session, request);
  if (request.op == ClientRequest::Op::mget) return mget(session, request);
  const bool settled = catch_up();
  const Lane& lane = *session.lane;
  const Key key = key_of(session.database, request.names[0]);
  const bool has_waited = std::exchange(session.parked, false);
  if (settled && serves_hits(session, lane)) {
    if (serve(session, request, lane.proof.space)) {
      raise_floor(session, command_of(session, request), command_id(request));
      return Outcome::done;
    }
  } else if (settled && !has_waited && parks(session, lane)) {
    if (find_valid(key, command_id(request), lane.proof.space)) {
      park(session);
      return Outcome::later;
    }
  }
  if (!settled) return relay(session, request);
  return start_read(session, request, key, lane.proof.space);
}

bool Router::serve(Session& session, const ClientRequest& request, uint32_t space) {
  const Command command = command_of(session, request);
  Answer answer;
  const auto held = find_valid(command.keys[0], command_id(request), space);
  if (!held) return false;
  if (via_bus(session.lane->mode))
    session.view.floor_ns = std::max(session.view.floor_ns, held->seen_ns());
  ++hits;
  answer.reply.kind = Reply::Kind::values;
  answer.reply.count = 1;
  answer.reply.values[0] = held->value;
  answer.keys = command.keys;
  answer.hit = true;
  session.reply(request, answer);
  return true;
}

// The session has seen now what was true at the fill: the bus may not have told of everything
// older.
void Router::raise_floor(Session& session, const Command& command, uint16_t id) {
  const Lane& lane = *session.lane;
  if (!via_bus(lane.mode) || !process.options.measures.fill_floor) return;
  for (unsigned i = 0; i < command.count; ++i)
    if (const auto held = find_valid(command.keys[i], id, lane.proof.space))
      session.view.floor_ns = std::max(session.view.floor_ns, held->seen_ns());
}

bool Router::must_wait(const Session& session, const Connection& connection) const {
  return session.outstanding() && session.last_connection != &connection;
}

void Router::went_to(Session& session, const Connection& connection) {
  if (session.last_connection != &connection && session.last_connection != nullptr)
    session.view.floor_ns = now_ns;
  session.last_connection = &connection;
  session.last_sequence = connection.sequence;
}

void Router::mark_writes(Pending& pending, Connection& connection, const ClientRequest& request,
                         const Session& session) {
  using Op = ClientRequest::Op;
  switch (request.op) {
    case Op::script:
      if (!writes_unseen()) {
        pending.fence = true;
        break;
      }
      [[fallthrough]];
    case Op::flush_all:
    case Op::swap_db:
      process.stamps.begin_write_all();
      pending.writes_all = true;
      announce_everything(connection, pending);
      break;
    case Op::set:
    case Op::set_twin:
    case Op::del:
      for (unsigned i = 0; i < request.count; ++i) {
        const Key key = key_of(session.database, request.names[i]);
        process.stamps.begin_write(process.hash_of(key));
        pending.writes.push_back(key);
        announce_key(connection, pending, key);
      }
      break;
    default: break;
  }
}

void Router::end_writes(Pending& pending) {
  for (const Key key : pending.writes) process.stamps.end_write(process.hash_of(key));
  pending.writes.clear();
  if (pending.writes_all) process.stamps.end_write_all();
  announce_late(pending);
  if (pending.writes_all && !announces_) process.bus.tell_flush();
  pending.writes_all = false;
}

Session::Outcome Router::relay(Session& session, const ClientRequest& request) {
  using Op = ClientRequest::Op;
  Lane* lane = session.lane;
  if (request.op == Op::read_twin || request.op == Op::set_twin)
    lane = lane_for(session.database, true);
  if (must_wait(session, lane->connection)) return Outcome::later;
  Pending pending;
  pending.kind = Pending::Kind::relay;
  pending.session = session.ref;
  pending.sent_ns = now_ns;
  mark_writes(pending, lane->connection, request, session);
  pending.slot = session.reserve(request);
  if (pending.fence) session.hold(pending.slot);
  lane->connection.send(command_of(session, request), std::move(pending));
  went_to(session, lane->connection);
  return Outcome::done;
}

void Router::leave(Session& session) {
  if (session.last_connection != nullptr && session.last_connection != &session.lane->connection)
    session.view.floor_ns = now_ns;
  session.last_connection = &kNowhere;
}

Session::Outcome Router::select(Session& session, const ClientRequest& request) {
  if (session.outstanding()) return Outcome::later;
  Answer ok;
  if (request.database == session.database && session.lane->connection.up()) {
    session.reply(request, ok);
    return Outcome::done;
  }
  Lane* lane = lane_for(request.database, false);
  const Session::Slot slot = session.reserve(request);
  leave(session);
  when_ready(*lane, [this, ref = session.ref, slot, lane, database = request.database](bool up) {
    Session* waiting = find(ref);
    if (waiting == nullptr) return;
    if (up) {
      waiting->database = database;
      waiting->view.floor_ns = now_ns;
      attach(*waiting, *lane);
    }
    waiting->last_connection = &waiting->lane->connection;
    waiting->deliver(slot, up ? Answer() : failure());
  });
  return Outcome::done;
}

}  // namespace nearcached::sim
