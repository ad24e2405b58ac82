// MGET: as atomic through us as in Redis.
//
// All keys in L1: answered at once, which is one moment of the lane's stream. Otherwise only the
// missing keys are asked for, and when their reply is here the others are looked up again, at that
// same place of the stream: L1 then holds exactly what the server held when it answered (every
// invalidation from before it has been applied). If one of them has gone meanwhile, the whole MGET
// is asked. A partly served MGET keeps its session's later requests back, because they would be
// answered at an earlier place than a second asking. Values are shared with GET.
#include <algorithm>
#include <charconv>

#include "nearcached/base/hash.h"
#include "nearcached/resp/writer.h"
#include "route/gather.h"
#include "route/router.h"

namespace nearcached {
namespace {

// Beyond this many keys the PTTLs cost more than the hits save.
constexpr size_t kKeysMax = 1024;
constexpr size_t kStride = 8;
constexpr size_t kFreeMgetsMax = 64;
constexpr size_t kFreeMgetBytes = 64 * 1024;  // of one that is kept for the next

}  // namespace

// Keys and values lie in two strings: a flight that has landed is used again, and allocates only if
// it is the largest so far.
struct MgetFlight final : ReplyHandler {
  struct Key final : ReplyHandler {
    MgetFlight* owner = nullptr;
    size_t name_at = 0, name_bytes = 0;    ///< in `names`
    size_t value_at = 0, value_bytes = 0;  ///< the element as it came, in `reply`; 0: none
    uint64_t hash = 0;
    bool asked = false;
    bool fillable = false;
    coherence::FillStart start;
    void on_reply(Connection&, Bytes pttl, Bytes) override { owner->on_pttl(*this, pttl); }
  };

  explicit MgetFlight(Router& r) : router(r) {}
  void on_reply(Connection& connection, Bytes value, Bytes failure) override {
    if (!failure.empty()) router.finish_mget(*this, failure);
    else if (!value.starts_with("-") || !router.mget_redirected(*this, value))
      router.on_mget_reply(connection, *this, value);
    done();
  }
  void on_pttl(Key& key, Bytes pttl) {
    if (key.value_bytes > 0) {
      const Bytes value = value_of(key);
      // A nil that is not a missing key is a key of another type: GET would answer an error.
      const bool gone = pttl == ":-2\r\n";
      const bool nil = value[0] != '$' || value == "$-1\r\n";
      if ((nil && !gone) ||
          !router.keep(l1_key(key, key.start.space), key.start, *lane, value, pttl))
        router.stats_.l1_fills_discarded.add();
    }
    done();
  }
  void done() {
    if (--replies_left == 0) router.release_mget(*this);
  }
  Bytes name_of(const Key& key) const { return Bytes(names).substr(key.name_at, key.name_bytes); }
  Bytes value_of(const Key& key) const {
    return Bytes(reply).substr(key.value_at, key.value_bytes);
  }
  L1Key l1_key(const Key& key, uint32_t space) const {
    return {key.hash, space, router.get_command_->id, name_of(key), {}};
  }

  Router& router;
  Lane* lane = nullptr;
  std::vector<Key> keys;
  std::string names, reply;
  SessionRef session;
  uint32_t slot = 0;
  bool convert = false;
  bool partial = false;
  size_t asked = 0;
  size_t fills = 0;
  size_t replies_left = 0;
};

Session::Outcome Router::mget(Session& session, const Request& request, const Command& command) {
  const auto names = request.args.subspan(1);
  Lane& lane = *session.lane;
  bool serving = serves_hits(session, lane);  // the proof before what it vouches for
  if (names.size() > kKeysMax || !catch_up()) return relay(session, request, &command);
  if (must_wait(session, lane)) return Outcome::later;
  hashes_.resize(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    hashes_[i] = hash_key(names[i], process_.hash_seed);
    process_.stamps.prefetch(hashes_[i]);
  }
  if (serves_stale_ && mget_stale(session, names)) return Outcome::done;
  if (!lane.proof.tracking) return relay(session, request, &command);
  const size_t leading = serving ? serve_mget(session, names) : 0;
  if (leading == names.size()) return Outcome::done;
  // Where the news are not in order with the data, L1 and the reply are no one moment: all or none.
  serving = serving && lane.mode == CoherenceMode::resp3;
  const auto give_back = [this](MgetFlight* unused) { release_mget(*unused); };
  std::unique_ptr<MgetFlight, decltype(give_back)> flight(new_mget(lane, names.size()), give_back);
  for (size_t i = 0; i < names.size(); ++i) {
    MgetFlight::Key& key = flight->keys[i];
    key.hash = hashes_[i];
    const uint64_t stamp = process_.stamps.load(key.hash);
    L1Hit hit;
    const L1Key l1_key{key.hash, lane.proof.space, get_command_->id, names[i], {}};
    if (serving && (i < leading || find_valid(l1_key, hit))) continue;
    key.asked = true;
    key.fillable = coherence::may_fill(stamp) && admits(key.hash);
    flight->fills += key.fillable ? 1 : 0;
    key.start = {stamp, lane.proof.space, now_ns_};
    ++flight->asked;
  }
  const bool partial = flight->asked > 0 && flight->asked < names.size();
  stats_.l1_hits.add(names.size() - flight->asked);
  stats_.l1_misses.add(flight->asked);
  if (flight->fills == 0 && !partial) return relay(session, request, &command);
  const size_t room = request.wire.size() * 2 + names.size() * 32 + 128;
  if (!lane.connection->has_room(room)) return relay(session, request, &command);

  flight->session = session.ref;
  flight->slot = session.reserve();
  flight->convert = session.resp == 2 && lane.connection->resp() == 3;
  flight->partial = partial;
  flight->replies_left = 1 + flight->fills;
  for (size_t i = 0; i < names.size(); ++i) {
    MgetFlight::Key& key = flight->keys[i];
    key.owner = flight.get();
    key.name_at = flight->names.size();
    key.name_bytes = names[i].size();
    flight->names.append(names[i]);
  }
  Pending caching, value;
  caching.sent_ns = value.sent_ns = now_ns_;
  value.kind = Pending::Kind::whole;
  value.read_only = true;
  value.handler = flight.get();
  mget_parts_.assign({"MGET"});
  for (const MgetFlight::Key& key : flight->keys)
    if (key.asked) mget_parts_.push_back(flight->name_of(key));
  wire_.clear();
  resp::write_request(wire_, mget_parts_);
  if (tracked(lane.mode) && flight->fills > 0)
    lane.connection->send("*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n",
                          std::move(caching));
  lane.connection->send(wire_.readable(), std::move(value));
  went_to(session, lane);
  if (flight->partial) session.last_connection = &kNowhere;
  for (MgetFlight::Key& key : flight->keys) {
    if (!key.fillable) continue;
    Pending pttl;
    pttl.sent_ns = now_ns_;
    pttl.kind = Pending::Kind::whole;
    pttl.handler = &key;
    lane.connection->send({"PTTL", flight->name_of(key)}, std::move(pttl));
  }
  stats_.upstream_requests.add();
  (void)flight.release();  // gives itself back with its last reply
  return Outcome::done;
}

MgetFlight* Router::new_mget(Lane& lane, size_t keys) {
  if (free_mgets_.empty()) free_mgets_.push_back(new MgetFlight(*this));
  MgetFlight* const flight = free_mgets_.back();
  free_mgets_.pop_back();
  flight->lane = &lane;
  flight->keys.assign(keys, {});
  flight->asked = flight->fills = 0;
  return flight;
}

void Router::release_mget(MgetFlight& flight) {
  flight.names.clear();
  flight.reply.clear();
  const size_t bytes = flight.names.capacity() + flight.reply.capacity() +
                       flight.keys.capacity() * sizeof(MgetFlight::Key);
  if (bytes <= kFreeMgetBytes && free_mgets_.size() < kFreeMgetsMax) free_mgets_.push_back(&flight);
  else delete &flight;
}

void Router::delete_free_mgets() {
  for (MgetFlight* flight : free_mgets_) delete flight;
}

// Answers if all of it, hashed into hashes_, is in L1. Returns how many of the first keys are.
size_t Router::serve_mget(Session& session, std::span<const Bytes> names) {
  Lane& lane = *session.lane;
  // The bus must be past the newest, so that none of the others is older than it.
  const uint64_t proof_ns = via_bus(lane.mode) ? proof_of(lane).link_ns : UINT64_MAX;
  // Written where it is sent from, if nothing is in the way there, and taken back if a key is
  // missing.
  const bool direct = !session.muted() && !session.outstanding();
  converted_.clear();
  Buffer& out = direct ? session.direct_out() : converted_;
  const size_t before = out.size();
  resp::write_array(out, names.size());
  // Two steps ahead of the look-up: a line of the index, then the item it names.
  struct Wanted {
    L1Key key;
    L1Hint hint;
  };
  std::array<Wanted, 2 * kStride> ahead;
  ahead.fill({{0, lane.proof.space, get_command_->id, {}, {}}, {}});
  L1Hit hit;
  for (size_t step = 0; step < names.size() + 2 * kStride; ++step) {
    if (step >= 2 * kStride) {
      const auto& [key, hint] = ahead[step % (2 * kStride)];
      if (!find_valid(key, hit, hint) || seen_ns(hit) > proof_ns) {
        out.truncate(before);
        return step - 2 * kStride;
      }
      write_hit(out, session, hit, Resp2Rule::null_bulk);
      if (is_audit_due()) {
        wire_.clear();
        resp::write_request(wire_, {"GET", key.key});
        begin_audit(lane, wire_.readable(), key, hit);
      }
    }
    if (step < names.size()) {
      L1Key& key = ahead[step % (2 * kStride)].key;
      key.hash = hashes_[step];
      key.key = names[step];
      l1_.prefetch(key);
    }
    if (step >= kStride && step < names.size() + kStride) {
      Wanted& wanted = ahead[(step - kStride) % (2 * kStride)];
      wanted.hint = l1_.prefetch_item(wanted.key);
    }
  }
  stats_.l1_hits.add(names.size());
  if (!direct && !session.muted()) session.reply(converted_.readable());
  return names.size();
}

// All of it from what may be served stale, or nothing.
bool Router::mget_stale(Session& session, std::span<const Bytes> names) {
  if (session.outstanding()) return false;
  converted_.clear();
  resp::write_array(converted_, names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    L1Hit hit;
    const uint32_t space = stale_space(*session.lane, names[i]);
    if (space == 0 || !find_valid({hashes_[i], space, get_command_->id, names[i], {}}, hit))
      return false;
    append_hit(converted_, hit);
  }
  stats_.stale_served.add(names.size());
  if (!session.muted()) write_hit(session, {.reply = converted_.readable()}, Resp2Rule::null_bulk);
  return true;
}

void Router::on_mget_reply(Connection& connection, MgetFlight& flight, Bytes reply) {
  mget_parts_.clear();
  const bool array = split_array(reply, flight.asked, mget_parts_);
  if (array) {
    size_t at = 0;
    flight.reply.assign(reply);
    for (MgetFlight::Key& key : flight.keys)
      if (key.asked) {
        const Bytes element = mget_parts_[at++];
        key.value_at = static_cast<size_t>(element.data() - reply.data());
        key.value_bytes = element.size();
        // As in on_flight_reply: what is held must not be served after this.
        if (flight.lane->mode != CoherenceMode::resp3)
          l1_.erase(flight.l1_key(key, key.start.space));
      }
  }
  Session* session = find(flight.session);
  if (session == nullptr) return;
  came_back(*session, *flight.lane);
  if (via_bus(flight.lane->mode)) session->floor_ns = now_ns_;
  converted_.clear();
  if (!array) {
    converted_.append(reply);
  } else {
    resp::write_array(converted_, flight.keys.size());
    for (const MgetFlight::Key& key : flight.keys) {
      L1Hit hit;
      if (key.asked) {
        converted_.append(flight.value_of(key));
      } else if (catch_up() && find_valid(flight.l1_key(key, flight.lane->proof.space), hit)) {
        append_hit(converted_, hit);
      } else {
        auto [again, wire] = whole_mget(flight);
        connection.send(wire, std::move(again));
        session->last_sequence = connection.sequence();
        return;
      }
    }
  }
  if (flight.convert) {
    Buffer resp3 = std::move(converted_);
    Resp2Converter::append_converted(resp3.readable(), Resp2Rule::null_bulk, converted_);
  }
  session->deliver(flight.slot, converted_.readable(), true);
}

// As a whole, and as a plain request: what it was to bring into L1 is given up.
std::pair<Pending, std::string> Router::whole_mget(const MgetFlight& flight) {
  std::vector<Bytes> args{"MGET"};
  for (const MgetFlight::Key& key : flight.keys) args.push_back(flight.name_of(key));
  wire_.clear();
  resp::write_request(wire_, args);
  Pending pending;
  pending.kind = Pending::Kind::relay;
  pending.convert = flight.convert;
  pending.read_only = true;
  pending.session = flight.session;
  pending.slot = flight.slot;
  pending.sent_ns = now_ns_;
  if (cluster_) pending.hash_slot = slot_of(flight.name_of(flight.keys[0]));
  return {std::move(pending), std::string(wire_.readable())};
}

bool Router::mget_redirected(MgetFlight& flight, Bytes& error) {
  if (!may_be_redirected(error)) return false;
  auto [pending, wire] = whole_mget(flight);
  return redirect(*flight.lane, pending, error, wire);
}

void Router::finish_mget(MgetFlight& flight, Bytes failure) {
  Session* session = find(flight.session);
  if (session == nullptr) return;
  if (process_.config.upstream.parsed.kind != UpstreamKind::single && !shutting_down_ &&
      flight.lane->connection->refusal().empty()) {
    auto [pending, wire] = whole_mget(flight);
    pending.first_ns = pending.sent_ns;
    return try_later(*flight.lane, std::move(pending), std::move(wire), failure);
  }
  came_back(*session, *flight.lane);
  session->deliver(flight.slot, failure, true);
}

}  // namespace nearcached
