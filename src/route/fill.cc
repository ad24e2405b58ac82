// Fills. One flight per key and shape: whoever asks meanwhile waits for the same reply, if the
// rules let it (coherence::may_join, and its own order: a flight that was sent before the session's
// last outstanding request would answer with something older than that request's reply).
#include <algorithm>
#include <charconv>

#include "nearcached/base/clock.h"
#include "route/flight.h"
#include "route/gather.h"
#include "route/router.h"

namespace nearcached {
namespace {

uint64_t bucket_hash(const L1Key& key) {
  return key.hash ^ (std::hash<Bytes>{}(key.variant) * 31) ^ key.command;
}

}  // namespace

Flight* Router::find_flight(const L1Key& key) {
  const uint64_t bucket = bucket_hash(key);
  for (Flight* f = flight_buckets_[bucket & (flight_buckets_.size() - 1)]; f != nullptr;
       f = f->next)
    if (f->bucket == bucket && f->lane->proof.space == key.space && f->command == key.command &&
        f->key == key.key && f->variant == key.variant)
      return f;
  return nullptr;
}

void Router::unlink_flight(Flight& flight) {
  if (!flight.linked) return;
  flight.linked = false;
  Flight** at = &flight_buckets_[flight.bucket & (flight_buckets_.size() - 1)];
  while (*at != &flight) at = &(*at)->next;
  *at = flight.next;
}

// May a read that is sent now be kept?
bool Router::may_fill(const L1Key& key, uint64_t stamp) const {
  if (!coherence::may_fill(stamp)) return false;
  const Rule* const rule = rule_for(key.key);
  return rule == nullptr || rule->cache;
}

Session::Outcome Router::start_read(Session& session, const Request& request,
                                    const Command& command, const L1Key& key, Resp2Rule rule) {
  Lane& lane = *session.lane;
  const uint64_t stamp = process_.stamps.load(key.hash);
  if (!may_fill(key, stamp)) return relay(session, request, &command);
  if (must_wait(session, lane)) return Outcome::later;
  stats_.l1_misses.add();
  if (stats_.l1_misses.get() % 64 == 0) credit_ahead(1);
  const FlightWaiter waiter{session.ref, 0, session.resp == 2 && lane.connection->resp() == 3};
  if (join_flight(session, lane, key, stamp, waiter)) return Outcome::done;
  if (!admits(key.hash)) return relay(session, request, &command);
  const Bytes wire = wire_of(request);
  if (stats_.flights.get() >= process_.config.limits.flights) {
    stats_.limit_flights_hit.add();
    return relay(session, request, &command);
  }
  if (!lane.connection->has_room(wire.size() + key.key.size() + 128) || is_cut_off(lane))
    return relay(session, request, &command);
  Flight& flight = start_flight(lane, key, stamp, rule, wire);
  flight.waiters.push_back(waiter);
  flight.waiters.back().slot = session.reserve();
  went_to(session, lane);
  session.last_sequence = flight.sequence;
  return Outcome::done;
}

// A flight that this session may join, whose last request was the one of this sequence, at its
// lane.
Flight* Router::flight_behind(const Session& session, const L1Key& key, uint64_t stamp,
                              uint64_t sequence) {
  Flight* const flight = find_flight(key);
  if (flight == nullptr) return nullptr;
  const bool in_order = flight->start.sent_ns >= session.floor_ns && flight->sequence >= sequence;
  // What it asked for may have been answered then, and that be on its way since.
  const bool young = flight->start.sent_ns + max_staleness_ns_ > now_ns_;
  if (in_order && young && coherence::may_join(flight->start, stamp, key.space, fills_void_ns_)) {
    stats_.flights_joined.add();
    return flight;
  }
  unlink_flight(*flight);  // from before a write: it still answers those who wait for it
  return nullptr;
}

bool Router::join_flight(Session& session, Lane& lane, const L1Key& key, uint64_t stamp,
                         FlightWaiter waiter) {
  // Of a session that has requests under way at other nodes it is not known which was the last one
  // here.
  const bool last_was_here = session.last_connection == &lane;
  const bool here = session.outstanding() ? last_was_here : follows(session, lane);
  const uint64_t sequence = !here ? UINT64_MAX : session.outstanding() ? session.last_sequence : 0;
  Flight* const flight = flight_behind(session, key, stamp, sequence);
  if (flight == nullptr) return false;
  if (waiter.gather == nullptr) waiter.slot = session.reserve();
  flight->waiters.push_back(waiter);
  went_to(session, lane);
  session.last_sequence = flight->sequence;
  return true;
}

Flight& Router::start_flight(Lane& lane, const L1Key& key, uint64_t stamp, Resp2Rule rule,
                             Bytes wire, bool fills) {
  Flight* flight;
  if (free_flights_.empty()) {
    flight = new Flight(*this);
  } else {
    flight = free_flights_.back();
    free_flights_.pop_back();
  }
  stats_.flights.add();
  flight->lane = &lane;
  flight->rule = rule;
  flight->fills = flight->whole = fills;
  Pending caching, value, pttl;
  caching.sent_ns = value.sent_ns = pttl.sent_ns = now_ns_;
  value.kind = Pending::Kind::stream;
  value.read_only = true;
  value.flight = flight;
  if (cluster_) value.hash_slot = slot_of(key.key);
  stats_.upstream_requests.add();
  if (!fills) {
    lane.connection->send(wire, std::move(value));
    flight->sequence = lane.connection->sequence();
    return *flight;
  }
  flight->hash = key.hash;
  flight->bucket = bucket_hash(key);
  flight->command = key.command;
  flight->key.assign(key.key);
  flight->variant.assign(key.variant);
  flight->start = {stamp, key.space, now_ns_};
  flight->linked = true;
  Flight*& bucket = flight_buckets_[flight->bucket & (flight_buckets_.size() - 1)];
  flight->next = bucket;
  bucket = flight;

  pttl.kind = Pending::Kind::whole;
  pttl.handler = flight;
  if (tracked(lane.mode))
    lane.connection->send("*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n",
                          std::move(caching));
  lane.connection->send(wire, std::move(value));
  flight->sequence = lane.connection->sequence();
  lane.connection->send({"PTTL", flight->key}, std::move(pttl));
  return *flight;
}

void Router::on_flight_reply(Connection&, Pending& pending, Bytes bytes, bool last) {
  Flight& flight = *static_cast<Flight*>(pending.flight);
  Lane& lane = *flight.lane;
  if (flight.whole) {
    flight.whole =
        flight.reply.size() + bytes.size() <= process_.config.limits.upstream_reply_bytes &&
        flight.reply.size() + bytes.size() <=
            std::max(process_.config.l1.value_bytes_max, rule_value_max_) + 64;
    if (flight.whole) flight.reply.append(bytes);
    else flight.reply.clear();
  }
  unlink_flight(flight);  // from the first piece on: who joined now would miss it
  // In band its invalidation has come already. Elsewhere it may be on its way still: what is held
  // must not be served after this.
  if (via_bus(lane.mode) || lane.mode == CoherenceMode::ttl) l1_.erase(flight.l1_key());
  bool converted = false;
  for (const FlightWaiter& waiter : flight.waiters) {
    if (waiter.gather != nullptr) {
      waiter.gather->on_part(waiter.slot, bytes, last);
      continue;
    }
    Session* session = find(waiter.session);
    if (waiter.convert && !converted) {
      converted = true;
      converted_.clear();
      if (!lane.converting) lane.converter.begin(flight.rule);
      lane.converting = !last;
      lane.converter.feed(bytes, converted_);
    }
    if (session != nullptr && last && via_bus(lane.mode)) session->floor_ns = now_ns_;
    const Bytes reply = waiter.convert ? converted_.readable() : bytes;
    if (waiter.ahead != 0) on_read_ahead(waiter, reply, last);
    else if (session != nullptr) session->deliver(waiter.slot, reply, last);
  }
  if (!last) return;
  lane.converting = false;
  flight.waiters.clear();
  if (!flight.fills) release_flight(flight);
}

void Flight::on_reply(Connection&, Bytes reply_to_pttl, Bytes) {
  router.finish_flight(*this, reply_to_pttl);
}

void Router::finish_flight(Flight& flight, Bytes pttl) {
  const bool error =
      flight.reply.empty() || flight.reply.data()[0] == '-' || flight.reply.data()[0] == '!';
  if (!flight.whole) {
    stats_.limit_l1_value_hit.add();
  } else if (error ||
             !keep(flight.l1_key(), flight.start, *flight.lane, flight.reply.readable(), pttl)) {
    stats_.l1_fills_discarded.add();
  }
  release_flight(flight);
}

void Router::release_flight(Flight& flight) {
  unlink_flight(flight);
  flight.reply.clear();
  flight.waiters.clear();
  stats_.flights.subtract();
  const bool small = flight.key.capacity() + flight.variant.capacity() <= 1024;
  if (small && free_flights_.size() < kFreeFlightsMax) free_flights_.push_back(&flight);
  else delete &flight;
}

// Stores what a read brought, if the rules allow it. `pttl_reply` is PTTL's, or empty if it was
// lost.
bool Router::keep(const L1Key& key, const coherence::FillStart& start, Lane& lane, Bytes reply,
                  Bytes pttl_reply) {
  if (pttl_reply.size() < 4 || pttl_reply[0] != ':') return false;
  int64_t pttl = 0;
  std::from_chars(pttl_reply.data() + 1, pttl_reply.data() + pttl_reply.size(), pttl);
  const Config::L1& defaults = process_.config.l1;
  coherence::FillTtls ttls{defaults.ttl_ms, defaults.negative_ttl_ms};
  uint64_t bytes_max = defaults.value_bytes_max;
  if (const Rule* rule = rule_for(key.key)) {
    if (!rule->cache) return false;
    ttls.ttl_ms = rule->ttl_ms.value_or(ttls.ttl_ms);
    ttls.negative_ttl_ms = rule->negative_ttl_ms.value_or(ttls.negative_ttl_ms);
    bytes_max = rule->value_bytes_max.value_or(bytes_max);
  }
  if (reply.size() > bytes_max + 64) {  // 64: the header of the reply is not the value
    stats_.limit_l1_value_hit.add();
    return false;
  }
  if (!catch_up() || start.sent_ns <= fills_void_ns_) return false;
  if (cluster_) {
    const uint16_t slot = slot_of(key.key);
    const NodeIndex primary = lane.replica ? topology_->nodes()[lane.node].primary : lane.node;
    if (topology_->owner(slot) != primary || start.sent_ns / kNsPerMs <= topology_->moved_ms(slot))
      return false;
    // While its slot is on its way to another node, a key that comes to be there is told of by
    // nobody (README).
    ttls.negative_ttl_ms =
        std::min(ttls.negative_ttl_ms, process_.config.coherence.max_staleness_ms);
  }
  const coherence::Verdict verdict =
      coherence::judge_fill(start, process_.stamps.load(key.hash), lane.proof.space, pttl,
                            coherence::looks_missing(reply), ttls);
  if (!verdict.store) return false;
  L1Fill fill{reply,
              start.stamp,
              now_ns_ / kNsPerMs,
              verdict.expires_ms,
              Resp2Converter::is_plain(reply),
              verdict.negative};
  fill.bare = reply.size() < kUncopiedBytes && resp::read_bulk(reply, fill.reply);
  if (!l1_.put(key, fill, now_ns_ / kNsPerMs)) return false;
  stats_.l1_fills.add();
  ++lane.space_fills;
  return true;
}

}  // namespace nearcached
