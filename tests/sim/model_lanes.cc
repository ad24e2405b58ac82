// Links, proofs, invalidations, fences. See model_proxy.h for what stands for what.
#include <algorithm>

#include "nearcached/coherence/mutations.h"
#include "sim/model_proxy.h"

namespace nearcached::sim {
namespace {

constexpr uint64_t kSettleNs = 200 * kNsPerMs;
constexpr uint64_t kWalkBucketsPerTick = 2;  // see kWalkBucketsPerTurn

Command plain(Command::Kind kind) {
  Command command;
  command.kind = kind;
  return command;
}

}  // namespace

void Connection::connect() {
  if (state == State::closing) return;
  state = State::connecting;
  connect_started_ns = router.engine.now_ns();
  link = router.process.redis.connect(*this);
  if (link == nullptr) {
    const uint64_t delay_ns = router.engine.random.skewed(kNsPerMs);
    router.engine.after(delay_ns, [this, attempt = connect_started_ns] {
      if (state != State::connecting || connect_started_ns != attempt) return;
      router.turn([this] { lose("refused"); });
    });
    return;
  }
  Command introduction = plain(Command::Kind::introduce);
  introduction.tracking =
      lane != nullptr && !lane->twin && router.process.options.mode == CoherenceMode::resp3;
  link->send(introduction);
}

void Connection::send(const Command& command, Pending entry) {
  if (out.empty()) router.flush_later(*this);
  out.push_back(command);
  ++sequence;
  pending.push_back(std::move(entry));
}

void Connection::flush() {
  if (state != State::up) return;
  for (const Command& command : out) link->send(command);
  out.clear();
}

void Connection::on_readable(Link& from) {
  router.turn([&] {
    progress_ns = router.now_ns;
    Reply reply;
    while (&from == link && link->take(reply)) take_reply(reply);
  });
}

void Connection::take_reply(const Reply& reply) {
  if (state == State::connecting) {
    state = State::up;
    backoff_ns = 0;
    router.on_up(*this);
    router.flush_later(*this);
    return;
  }
  if (reply.kind == Reply::Kind::push_keys || reply.kind == Reply::Kind::push_all) {
    if (lane != nullptr) router.on_push(*lane, reply);
    return;
  }
  Pending done = std::move(pending.front());
  pending.pop_front();
  router.on_reply(*this, done, reply);
}

void Connection::on_closed(Link& from) {
  if (&from != link) return;
  router.turn([&] { lose("closed by the server"); });
}

void Connection::tick() {
  const uint64_t now_ns = router.now_ns;
  const ProxyOptions& options = router.process.options;
  if (state == State::connecting && now_ns > connect_started_ns + options.connect_timeout_ns)
    return lose("connecting timed out");
  if (state == State::up) {
    if (!pending.empty() &&
        now_ns > std::max(pending.front().sent_ns, progress_ns) + options.timeout_ns)
      lose("timed out");
    return;
  }
  while (!pending.empty() && now_ns > pending.front().sent_ns + options.connect_timeout_ns) {
    Pending late = std::move(pending.front());
    pending.pop_front();
    out.erase(out.begin());
    router.on_lost(*this, late, false);
  }
}

void Connection::fail(bool unwritten_too) {
  while (pending.size() > (unwritten_too ? 0 : out.size())) {
    Pending lost = std::move(pending.front());
    pending.pop_front();
    router.on_lost(*this, lost, true);
  }
}

void Connection::lose(const char* reason) {
  if (state == State::closing || state == State::waiting) return;
  router.engine.trace(router.name(), ": loses ", lane != nullptr ? "lane" : "pin", " link ",
                      link != nullptr ? std::to_string(link->id()) : "-", ": ", reason);
  state = State::waiting;
  if (link != nullptr) link->close();
  link = nullptr;
  const bool once = pin != nullptr;
  fail(once);
  if (state == State::closing) return;
  if (once) out.clear();
  router.on_down(*this);
  if (!once && state == State::waiting) schedule_reconnect();
}

void Connection::schedule_reconnect() {
  const ProxyOptions& options = router.process.options;
  backoff_ns = backoff_ns == 0 ? options.reconnect_min_ns
                               : std::min(backoff_ns * 2, options.reconnect_max_ns);
  const uint64_t delay_ns = backoff_ns / 2 + router.engine.random.below(backoff_ns / 2 + kNsPerMs);
  router.engine.after(delay_ns, [this] { router.turn([this] { connect(); }); });
}

void Connection::close() {
  if (state == State::closing) return;
  state = State::closing;
  out.clear();
  fail(true);
  if (link != nullptr) link->close();
  link = nullptr;
}

Lane* Router::lane_for(unsigned database, bool twin) {
  for (const auto& lane : lanes_)
    if (lane->database == database && lane->twin == twin) return lane.get();
  Lane& lane = *lanes_.emplace_back(std::make_unique<Lane>(*this));
  lane.database = database;
  lane.twin = twin;
  lane.connection.connect();
  return &lane;
}

void Router::when_ready(Lane& lane, std::function<void(bool up)> callback) {
  if (lane.connection.up()) return callback(true);
  lane.waiting.push_back(std::move(callback));
}

void Router::on_up(Connection& connection) {
  if (connection.lane == nullptr) return;
  Lane& lane = *connection.lane;
  if (!mutation::no_epoch || lane.proof.space == 0) renew_space(lane);
  lane.proof.master_ns = 0;
  lane.was_master = false;
  lane.heartbeat_pending = false;
  engine.trace(name(), ": lane of db ", uint64_t{lane.database}, lane.twin ? " (twin)" : "",
               " is up over link ", uint64_t{connection.link->id()});
  if (flush_again_ns_ != 0) flush_again_ns_ = now_ns + kSettleNs;
  begin_coherence(lane);
  const auto waiting = std::move(lane.waiting);
  lane.waiting.clear();
  for (const auto& callback : waiting) callback(true);
}

void Router::on_down(Connection& connection) {
  if (connection.pin != nullptr) {
    Pin& pin = *connection.pin;
    Session* session = find(pin.session);
    const bool lost_state = pin.has_state();
    close_pin(pin);
    if (session != nullptr && lost_state) close_session(*session);
    return;
  }
  Lane& lane = *connection.lane;
  if (!mutation::no_epoch && lane.serial != 0) renew_space(lane);
  change_mode(lane, CoherenceMode::off);
  lane.serial = 0;
  lane.heartbeat_pending = false;
  const auto waiting = std::move(lane.waiting);
  lane.waiting.clear();
  for (const auto& callback : waiting) callback(false);
}

void Router::heartbeat(Lane& lane) {
  if (lane.heartbeat_pending || !lane.connection.up()) return;
  lane.heartbeat_pending = true;
  Pending pending;
  pending.kind = Pending::Kind::heartbeat;
  pending.sent_ns = now_ns;
  lane.connection.send(plain(Command::Kind::role), std::move(pending));
}

void Router::tick() {
  for (const auto& lane : lanes_) lane->connection.tick();
  for (const auto& pin : pins_) pin->connection.tick();
  for (const auto& lane : lanes_) {
    const bool asks = lane->proof.tracking || (process.options.measures.same_server && !lane->twin);
    if (!asks || now_ns < lane->next_heartbeat_ns) continue;
    lane->next_heartbeat_ns = now_ns + process.options.heartbeat_ns;
    heartbeat(*lane);
  }
  if (flush_again_ns_ != 0 && now_ns > flush_again_ns_ && main_lane_->connection.up()) {
    flush_again_ns_ = 0;
    process.stamps.invalidate_all();
    if (announces_) process.bus.tell_flush();
  }
  if (!parked_.empty()) on_bus_proof();
  if (process.patterns_version != patterns_seen_) adopt_patterns();
  if (!patterns_.empty()) walk_patterns(kWalkBucketsPerTick);
}

void Router::on_push(Lane& lane, const Reply& push) { invalidate(lane, push); }

void Router::invalidate(Lane& lane, const Reply& push) {
  if (mutation::no_push) return;
  if (push.kind == Reply::Kind::push_all) return renew_space(lane);
  const Key key = push.name;
  engine.trace(name(), ": is told that ", text_of(key), " has changed");
  process.stamps.invalidate(process.hash_of(key));
  l1_.erase(l1_key(key, 1, lane.proof.space));
}

void Router::on_reply(Connection& connection, Pending& pending, const Reply& reply) {
  end_writes(pending);
  if (Lane* lane = connection.lane)
    lane->proof.link_ns = std::max(lane->proof.link_ns, pending.sent_ns);
  switch (pending.kind) {
    case Pending::Kind::ignore: return;
    case Pending::Kind::flight_value: return on_flight_reply(*pending.flight, reply);
    case Pending::Kind::flight_pttl: return finish_flight(*pending.flight, reply);
    case Pending::Kind::mget_value: return on_mget_reply(connection, pending.mget, reply);
    case Pending::Kind::mget_pttl: return on_mget_pttl(*pending.mget, pending.element, reply);
    case Pending::Kind::ask: return pending.answered(&reply);
    case Pending::Kind::heartbeat: {
      Lane& lane = *connection.lane;
      lane.heartbeat_pending = false;
      if (reply.kind == Reply::Kind::master) {
        lane.proof.master_ns = pending.sent_ns;
        lane.was_master = true;
        return;
      }
      lane.proof.master_ns = 0;
      renew_space(lane);
      if (lane.was_master && process.options.measures.leave_demoted) connection.lose("demoted");
      return;
    }
    case Pending::Kind::relay: break;
  }
  Session* session = find(pending.session);
  const bool is_late = connection.lane != nullptr && via_bus(connection.lane->mode);
  if (session != nullptr && is_late) session->view.floor_ns = now_ns;
  if (connection.pin != nullptr) return on_pin_reply(*connection.pin, pending, reply);
  if (session == nullptr) return;
  const Command command = command_of(*session, session->request_of(pending.slot));
  session->deliver(pending.slot, answer_of(reply, command));
  if (pending.fence) await_fence(pending.session, pending.slot);
}

void Router::on_lost(Connection& connection, Pending& pending, bool sent) {
  if (sent && (pending.writes_all || !pending.writes.empty())) write_was_lost(pending.writes_all);
  end_writes(pending);
  switch (pending.kind) {
    case Pending::Kind::ignore:
    case Pending::Kind::mget_pttl: return;
    case Pending::Kind::flight_pttl: return unlink_flight(*pending.flight);
    case Pending::Kind::mget_value: return finish_mget(*pending.mget, failure());
    case Pending::Kind::ask: return pending.answered(nullptr);
    case Pending::Kind::heartbeat: connection.lane->heartbeat_pending = false; return;
    case Pending::Kind::flight_value: {
      Reply lost;
      lost.kind = Reply::Kind::lost;
      return on_flight_reply(*pending.flight, lost);
    }
    case Pending::Kind::relay: break;
  }
  Session* session = find(pending.session);
  if (session == nullptr) return;
  session->deliver(pending.slot, failure());
  if (pending.fence && !session->closing) session->release(pending.slot);
}

void Router::await_fence(SessionRef ref, Session::Slot slot) {
  if (mutation::no_fence) {
    if (Session* waiting = find(ref)) waiting->release(slot);
    return;
  }
  fence_waiting_.push_back({ref, slot});
  if (!fence_running_) start_fence_round();
}

void Router::start_fence_round() {
  fence_running_ = true;
  fence_round_.swap(fence_waiting_);
  const auto left = std::make_shared<size_t>(process.routers.size());
  const std::function<void()> finished = [this, left] {
    if (--*left == 0) process.post(*this, [this] { end_fence_round(); });
  };
  for (const auto& router : process.routers)
    process.post(*router, [worker = router.get(), finished] { worker->fence_lanes(finished); });
}

void Router::fence_lanes(const std::function<void()>& finished) {
  const auto left = std::make_shared<size_t>(1);
  const std::function<void()> one = [left, finished] {
    if (--*left == 0) finished();
  };
  bool by_bus = false;
  for (const auto& lane : lanes_) {
    by_bus = by_bus || via_bus(lane->mode);
    if (lane->mode != CoherenceMode::resp3) continue;
    ++*left;
    Pending ping;
    ping.kind = Pending::Kind::ask;
    ping.sent_ns = now_ns;
    ping.answered = [one](const Reply*) { one(); };
    lane->connection.send(plain(Command::Kind::ping), std::move(ping));
  }
  if (by_bus) {
    ++*left;
    process.bus.confirm(0, [this, one](bool) { process.post(*this, one); });
  }
  one();
}

void Router::end_fence_round() {
  for (const Fenced& fenced : fence_round_)
    if (Session* session = find(fenced.session)) session->release(fenced.slot);
  fence_round_.clear();
  fence_running_ = false;
  if (!fence_waiting_.empty()) start_fence_round();
}

}  // namespace nearcached::sim
