// Flights and MGET. See model_proxy.h for what stands for what.
#include <algorithm>

#include "sim/model_proxy.h"

namespace nearcached::sim {
namespace {

Command command_with(Command::Kind kind, Key key) {
  Command command;
  command.kind = kind;
  command.count = 1;
  command.keys[0] = key;
  return command;
}

Command caching_yes() {
  Command command;
  command.kind = Command::Kind::caching;
  return command;
}

constexpr uint16_t kGetCommand = 1;

}  // namespace

std::shared_ptr<Flight> Router::find_flight(Key key, uint16_t command, uint32_t space) {
  for (const auto& flight : flights_)
    if (flight->linked && flight->lane->proof.space == space && flight->command == command &&
        flight->key == key)
      return flight;
  return nullptr;
}

void Router::unlink_flight(Flight& flight) {
  flight.linked = false;
  std::erase_if(flights_, [&](const auto& other) { return other.get() == &flight; });
}

Session::Outcome Router::start_read(Session& session, const ClientRequest& request, Key key,
                                    uint32_t space) {
  Lane& lane = *session.lane;
  const uint64_t stamp = process.stamps.load(process.hash_of(key));
  if (!coherence::may_fill(stamp)) return relay(session, request);
  if (must_wait(session, lane.connection)) return Outcome::later;
  ++misses;
  const uint16_t command = command_id(request);
  if (const auto flight = find_flight(key, command, space)) {
    const bool here =
        session.last_connection == nullptr || session.last_connection == &lane.connection;
    const bool in_order = here && flight->start.sent_ns >= session.view.floor_ns &&
                          (!session.outstanding() || flight->sequence > session.last_sequence);
    const bool young = flight->start.sent_ns + process.options.max_staleness_ns > now_ns;
    if (in_order && young && coherence::may_join(flight->start, stamp, space, fills_void_ns_)) {
      flight->waiters.push_back({session.ref, session.reserve(request)});
      session.last_connection = &lane.connection;
      session.last_sequence = flight->sequence;
      ++joined;
      engine.trace(name(), ": request ", request.number, " joins the flight of ", text_of(key));
      return Outcome::done;
    }
    unlink_flight(*flight);
  }
  const auto flight = std::make_shared<Flight>();
  flight->lane = &lane;
  flight->key = key;
  flight->command = command;
  flight->start = {stamp, space, now_ns};
  flights_.push_back(flight);
  flight->waiters.push_back({session.ref, session.reserve(request)});
  Pending caching, value, pttl;
  caching.sent_ns = value.sent_ns = pttl.sent_ns = now_ns;
  value.kind = Pending::Kind::flight_value;
  pttl.kind = Pending::Kind::flight_pttl;
  value.flight = pttl.flight = flight;
  if (tracked(lane.mode)) lane.connection.send(caching_yes(), std::move(caching));
  lane.connection.send(command_with(Command::Kind::get, key), std::move(value));
  went_to(session, lane.connection);
  flight->sequence = session.last_sequence;
  lane.connection.send(command_with(Command::Kind::pttl, key), std::move(pttl));
  return Outcome::done;
}

void Router::on_flight_reply(Flight& flight, const Reply& reply) {
  unlink_flight(flight);
  if (via_bus(flight.lane->mode)) l1_.erase(l1_key(flight.key, flight.command, flight.start.space));
  if (reply.kind == Reply::Kind::values) flight.value = reply.values[0];
  Answer answer = answer_of(reply, command_with(Command::Kind::get, flight.key));
  const auto waiters = std::move(flight.waiters);
  flight.waiters.clear();
  for (const Flight::Waiter& waiter : waiters) {
    if (Session* session = find(waiter.session)) {
      if (via_bus(flight.lane->mode)) session->view.floor_ns = now_ns;
      session->deliver(waiter.slot, answer);
    }
    answer.joined = true;
  }
}

void Router::finish_flight(Flight& flight, const Reply& pttl) {
  if (flight.value)
    keep(flight.key, flight.command, flight.start, *flight.lane, *flight.value, pttl);
  unlink_flight(flight);
}

bool Router::keep(Key key, uint16_t command, const coherence::FillStart& start, const Lane& lane,
                  const Observed& value, const Reply& pttl) {
  if (pttl.kind != Reply::Kind::pttl || !catch_up()) return false;
  if (start.sent_ns <= fills_void_ns_) return false;
  const std::string held = (value.missing ? "*" : "+") + std::to_string(value.version.server) +
                           "." + std::to_string(value.version.position) + "\r\n";
  const coherence::Verdict verdict =
      coherence::judge_fill(start, process.stamps.load(process.hash_of(key)), lane.proof.space,
                            pttl.pttl, coherence::looks_missing(held), process.options.ttls);
  if (!verdict.store) return false;
  engine.trace(name(), ": keeps ", text_of(key), " = ", text_of(value.version));
  const L1Fill fill{held,  start.stamp,     now_ns / kNsPerMs, verdict.expires_ms,
                    false, verdict.negative};
  return l1_.put(l1_key(key, command, start.space), fill, now_ns / kNsPerMs);
}

Session::Outcome Router::mget(Session& session, const ClientRequest& request) {
  Lane& lane = *session.lane;
  if (!catch_up()) return relay(session, request);
  if (must_wait(session, lane.connection)) return Outcome::later;
  if (!lane.proof.tracking) return relay(session, request);
  bool serving = serves_hits(session, lane);
  auto flight = std::make_shared<MgetFlight>();
  Command command = command_of(session, request), asked;
  asked.kind = Command::Kind::mget;
  if (serving && lane.mode != CoherenceMode::resp3) serving = holds_all(lane, command);
  Answer answer;
  answer.keys = command.keys;
  answer.reply.kind = Reply::Kind::values;
  for (unsigned i = 0; i < request.count; ++i) {
    MgetFlight::Element& element = flight->elements.emplace_back();
    element.key = command.keys[i];
    if (serving) {
      if (const auto held = find_valid(element.key, kGetCommand, lane.proof.space)) {
        answer.reply.values[answer.reply.count++] = held->value;
        continue;
      }
    }
    const uint64_t stamp = process.stamps.load(process.hash_of(element.key));
    element.asked = true;
    element.fillable = coherence::may_fill(stamp);
    element.start = {stamp, lane.proof.space, now_ns};
    asked.keys[asked.count++] = element.key;
  }
  if (asked.count == 0) {
    ++hits;
    answer.hit = true;
    session.reply(request, answer);
    return Outcome::done;
  }
  ++misses;
  flight->lane = &lane;
  flight->session = session.ref;
  flight->slot = session.reserve(request);
  Pending caching, value;
  caching.sent_ns = value.sent_ns = now_ns;
  value.kind = Pending::Kind::mget_value;
  value.mget = flight;
  if (tracked(lane.mode)) lane.connection.send(caching_yes(), std::move(caching));
  lane.connection.send(asked, std::move(value));
  went_to(session, lane.connection);
  if (asked.count < request.count) session.last_connection = &kNowhere;
  for (uint8_t i = 0; i < request.count; ++i) {
    if (!flight->elements[i].asked) continue;
    Pending pttl;
    pttl.sent_ns = now_ns;
    pttl.kind = Pending::Kind::mget_pttl;
    pttl.mget = flight;
    pttl.element = i;
    lane.connection.send(command_with(Command::Kind::pttl, flight->elements[i].key),
                         std::move(pttl));
  }
  return Outcome::done;
}

bool Router::holds_all(const Lane& lane, const Command& command) {
  const uint64_t proof_ns = via_bus(lane.mode) ? proof_of(lane).link_ns : UINT64_MAX;
  return std::all_of(command.keys.begin(), command.keys.begin() + command.count, [&](Key key) {
    const auto held = find_valid(key, kGetCommand, lane.proof.space);
    return held && held->seen_ns() <= proof_ns;
  });
}

void Router::on_mget_reply(Connection& connection, const std::shared_ptr<MgetFlight>& flight,
                           const Reply& reply) {
  const bool values = reply.kind == Reply::Kind::values;
  unsigned at = 0;
  for (MgetFlight::Element& element : flight->elements)
    if (values && element.asked) {
      element.value = reply.values[at++];
      if (via_bus(flight->lane->mode) && process.options.measures.mget_erase)
        l1_.erase(l1_key(element.key, kGetCommand, element.start.space));
    }
  Session* session = find(flight->session);
  if (session == nullptr) return;
  if (session->last_connection == &kNowhere) session->last_connection = &flight->lane->connection;
  if (via_bus(flight->lane->mode)) session->view.floor_ns = now_ns;
  Command all;
  all.kind = Command::Kind::mget;
  for (const MgetFlight::Element& element : flight->elements) all.keys[all.count++] = element.key;
  if (!values) return session->deliver(flight->slot, answer_of(reply, all));
  Answer answer;
  answer.keys = all.keys;
  answer.reply.kind = Reply::Kind::values;
  for (const MgetFlight::Element& element : flight->elements) {
    std::optional<Observed> value = element.value;
    if (!element.asked && catch_up()) {
      if (const auto held = find_valid(element.key, kGetCommand, flight->lane->proof.space))
        value = held->value;
    }
    if (!value) {
      Pending again;
      again.kind = Pending::Kind::relay;
      again.session = flight->session;
      again.slot = flight->slot;
      again.sent_ns = now_ns;
      connection.send(all, std::move(again));
      session->last_sequence = connection.sequence;
      return;
    }
    answer.reply.values[answer.reply.count++] = *value;
  }
  session->deliver(flight->slot, answer);
}

void Router::on_mget_pttl(MgetFlight& flight, unsigned at, const Reply& pttl) {
  const MgetFlight::Element& element = flight.elements[at];
  if (element.fillable && element.value)
    keep(element.key, kGetCommand, element.start, *flight.lane, *element.value, pttl);
}

void Router::finish_mget(MgetFlight& flight, const Answer& failed) {
  Session* session = find(flight.session);
  if (session == nullptr) return;
  if (session->last_connection == &kNowhere) session->last_connection = &flight.lane->connection;
  session->deliver(flight.slot, failed);
}

}  // namespace nearcached::sim
