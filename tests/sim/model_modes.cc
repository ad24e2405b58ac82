// How a lane learns of the writes of others, and who waits for the bus (src/route/modes.cc,
// announce.cc). See model_proxy.h for what stands for what.
#include "nearcached/coherence/mutations.h"
#include "sim/model_proxy.h"

namespace nearcached::sim {
namespace {

constexpr uint64_t kParkedMaxNs = 50 * kNsPerMs;
constexpr uint64_t kSettleNs = 200 * kNsPerMs;

}  // namespace

bool via_bus(CoherenceMode mode) {
  return mode == CoherenceMode::redirect || mode == CoherenceMode::publish;
}

bool tracked(CoherenceMode mode) {
  return mode == CoherenceMode::resp3 || mode == CoherenceMode::redirect;
}

coherence::LaneProof Router::proof_of(const Lane& lane) const {
  if (!via_bus(lane.mode)) return lane.proof;
  return coherence::over_bus(lane.proof, process.bus.proof_ns());
}

void Router::begin_coherence(Lane& lane) {
  lane.serial = next_serial_++;
  lane.no_redirect = false;
  if (lane.twin) return set_mode(lane, CoherenceMode::off);
  if (process.options.mode == CoherenceMode::resp3) return set_mode(lane, CoherenceMode::resp3);
  choose_mode(lane);
}

void Router::change_mode(Lane& lane, CoherenceMode mode) {
  if (lane.mode == CoherenceMode::publish) --process.blind_lanes;
  if (mode == CoherenceMode::publish) ++process.blind_lanes;
  lane.mode = mode;
  lane.proof.tracking = mode != CoherenceMode::off;
}

void Router::set_mode(Lane& lane, CoherenceMode mode) {
  const CoherenceMode before = lane.mode;
  change_mode(lane, mode);
  if (before != mode && !mutation::no_epoch) renew_space(lane);
  if (via_bus(mode)) process.bus.set_needed();
  if (&lane == main_lane_) {
    announces_ = process.options.mode == CoherenceMode::publish;
    records_writes_ = announces_;
    if (announces_) process.bus.set_announcing();
    if (before != mode && process.options.mode != CoherenceMode::resp3)
      for (const auto& other : lanes_)
        if (other.get() != main_lane_ && other->connection.up() && !other->twin)
          choose_mode(*other);
  }
  if (lane.proof.tracking) heartbeat(lane);
}

void Router::choose_mode(Lane& lane) {
  if (!process.bus.up()) return set_mode(lane, CoherenceMode::off);
  if (process.options.measures.same_server &&
      process.bus.server() != lane.connection.link->server().id()) {
    process.bus.look_again();
    return set_mode(lane, CoherenceMode::off);
  }
  if (process.options.mode == CoherenceMode::publish) return set_mode(lane, CoherenceMode::publish);
  if (lane.no_redirect) return set_mode(lane, CoherenceMode::off);
  try_redirect(lane);
}

Lane* Router::find_lane(uint64_t serial) {
  for (const auto& lane : lanes_)
    if (lane->serial == serial) return lane.get();
  return nullptr;
}

void Router::try_redirect(Lane& lane) {
  set_mode(lane, CoherenceMode::off);
  const uint64_t serial = lane.serial = next_serial_++;
  const uint32_t subscriber = process.bus.subscriber_id();
  Command command;
  command.kind = Command::Kind::redirect;
  command.subscriber = subscriber;
  Pending pending;
  pending.kind = Pending::Kind::ask;
  pending.sent_ns = now_ns;
  pending.answered = [this, serial, subscriber](const Reply* reply) {
    Lane* tried = find_lane(serial);
    if (tried == nullptr || reply == nullptr) return;
    if (reply->kind != Reply::Kind::error) return prove_redirect(*tried, subscriber);
    if (process.bus.subscriber_id() != subscriber) return;
    tried->no_redirect = true;
    choose_mode(*tried);
  };
  lane.connection.send(command, std::move(pending));
}

void Router::prove_redirect(Lane& lane, uint32_t subscriber) {
  const uint64_t serial = lane.serial;
  Command command;
  command.kind = Command::Kind::probe;
  command.note.number = serial << 8 | index;
  Pending pending;
  pending.kind = Pending::Kind::ask;
  pending.sent_ns = now_ns;
  pending.answered = [this, serial, subscriber, probe = command.note.number](const Reply* reply) {
    if (find_lane(serial) == nullptr || reply == nullptr) return;
    process.bus.confirm(probe, [this, serial, subscriber](bool saw) {
      process.post(*this, [this, serial, subscriber, saw] {
        Lane* proven = find_lane(serial);
        if (proven == nullptr || process.bus.subscriber_id() != subscriber) return;
        if (saw) return set_mode(*proven, CoherenceMode::redirect);
        proven->no_redirect = true;
        choose_mode(*proven);
      });
    });
  };
  lane.connection.send(command, std::move(pending));
}

void Router::on_bus_state() {
  for (const auto& lane : lanes_) {
    if (!lane->connection.up() || lane->twin || lane->mode == CoherenceMode::resp3) continue;
    lane->no_redirect = false;
    if (via_bus(lane->mode)) renew_space(*lane);
    choose_mode(*lane);
  }
  on_bus_proof();
}

bool Router::parks(const Session& session, const Lane& lane) const {
  if (!via_bus(lane.mode) || session.outstanding() || process.bus.proof_ns() == 0) return false;
  if (session.last_connection != nullptr && session.last_connection != &lane.connection)
    return false;
  const coherence::LaneProof proof = proof_of(lane);
  return proof.link_ns < session.view.floor_ns &&
         coherence::may_serve({proof.space, proof.tracking, proof.master_ns, UINT64_MAX},
                              session.view, now_ns, process.options.max_staleness_ns);
}

void Router::park(Session& session) {
  session.parked = true;
  parked_.push_back({session.ref, now_ns});
  if (!std::exchange(waits_for_proof_, true)) process.bus.request_proof();
}

void Router::on_bus_proof() {
  const uint64_t proof_ns = process.bus.proof_ns();
  std::erase_if(parked_, [&](const Parked& parked) {
    Session* session = find(parked.session);
    if (session == nullptr) return true;
    if (proof_ns != 0 && proof_ns < session->view.floor_ns &&
        now_ns < parked.since_ns + kParkedMaxNs)
      return false;
    session->wake();
    return true;
  });
  waits_for_proof_ = !parked_.empty();
  if (!parked_.empty()) process.bus.request_proof();
}

void Router::announce_key(const Connection& connection, Pending& pending, Key key) {
  if (!records_writes_) return;
  uint8_t& names = connection.lane != nullptr ? connection.lane->announced : pending.announced;
  names |= static_cast<uint8_t>(1u << name_of(key));
}

void Router::announce_everything(const Connection& connection, Pending& pending) {
  if (!records_writes_) return;
  if (connection.lane != nullptr) connection.lane->announced_everything = true;
  else pending.announced_everything = true;
}

// What a private connection wrote goes over the main lane once its reply is here.
void Router::announce_late(const Pending& pending) {
  main_lane_->announced |= pending.announced;
  if (pending.announced_everything) main_lane_->announced_everything = true;
}

void Router::send_announcements() {
  for (const auto& lane : lanes_)
    if (lane->announced_everything || lane->announced != 0) send_announcement(*lane);
}

void Router::send_announcement(Lane& lane) {
  Command command;
  command.kind = Command::Kind::publish;
  command.note.kind = lane.announced_everything ? Note::Kind::wrote_everything : Note::Kind::wrote;
  command.note.proxy = process.bus.proxy_id();
  command.note.number = process.bus.announcements().begin(now_ns);
  command.note.names = lane.announced;
  lane.announced = 0;
  lane.announced_everything = false;
  if (mutation::no_announce) return process.bus.announcements().end(command.note.number);
  Pending pending;
  pending.kind = Pending::Kind::ask;
  pending.sent_ns = now_ns;
  pending.answered = [this, number = command.note.number](const Reply*) {
    process.bus.announcements().end(number);
  };
  lane.connection.send(command, std::move(pending));
}

void Router::write_was_lost(bool everything) {
  if (everything || writes_unseen()) flush_again_ns_ = now_ns + kSettleNs;
}

}  // namespace nearcached::sim
