// How a lane learns of the writes of others: the strongest way that the server really has.
//
//   resp3     proven by the connection itself while it introduces itself (upstream/connection.h)
//   redirect  CLIENT TRACKING … REDIRECT to the bus's subscriber, proven by a key that is tracked,
//             written, and whose invalidation comes in over the bus
//   publish   the bus alone; keyspace: with the server's keyspace events
//   ttl       not even that
//
// In redirect, publish and keyspace the news come on another connection than the data, and there is
// no order between the two. A session that has read something new from the upstream must not be
// served what the bus has not yet declared stale. So every upstream reply raises the session's
// floor, and its next hit waits until the bus has proven to be past it: one round trip, during
// which the session is parked. Serving it from the upstream instead would raise the floor again and
// again.
#include <charconv>

#include "nearcached/base/clock.h"
#include "nearcached/base/log.h"
#include "nearcached/coherence/mutations.h"
#include "route/router.h"

namespace nearcached {
namespace {

constexpr uint64_t kParkedMaxNs = 50 * kNsPerMs;

const char* name_of(CoherenceMode mode) {
  switch (mode) {
    case CoherenceMode::automatic: return "auto";
    case CoherenceMode::resp3: return "resp3";
    case CoherenceMode::redirect: return "redirect";
    case CoherenceMode::publish: return "publish";
    case CoherenceMode::keyspace: return "keyspace";
    case CoherenceMode::ttl: return "ttl";
    case CoherenceMode::off: return "off";
  }
  return "";
}

// Pushes can come inside a reply before 6.2.7 / 7.0.0 (redis-facts.md): no tracking there.
bool pushes_in_order(const std::string& version) {
  int part[3] = {0, 0, 0};
  const char* at = version.data();
  const char* end = at + version.size();
  for (int& number : part) {
    at = std::from_chars(at, end, number).ptr;
    if (at < end) ++at;
  }
  return part[0] >= 7 || (part[0] == 6 && (part[1] > 2 || (part[1] == 2 && part[2] >= 7)));
}

bool is_blind(CoherenceMode mode) {
  return mode == CoherenceMode::publish || mode == CoherenceMode::ttl;
}

}  // namespace

const char* mode_name(CoherenceMode mode) { return name_of(mode); }

bool tracked(CoherenceMode mode) {
  return mode == CoherenceMode::resp3 || mode == CoherenceMode::redirect;
}

coherence::LaneProof Router::proof_of(const Lane& lane) const {
  if (!via_bus(lane.mode)) return lane.proof;
  return coherence::over_bus(lane.proof, process_.bus->proof_ns());
}

// The link is up: pushes in band if they have proven themselves, else what choose_mode finds.
void Router::begin_coherence(Lane& lane) {
  const Connection& connection = *lane.connection;
  lane.serial = next_serial_++;
  lane.no_redirect.clear();
  if (lane.resp != 3) return set_mode(lane, CoherenceMode::off, "a RESP2 twin");
  const bool in_order = pushes_in_order(connection.server_version());
  if (connection.tracking() && in_order)
    return set_mode(lane, CoherenceMode::resp3, "the server pushes invalidations in band");
  const CoherenceMode wish = process_.config.coherence.mode;
  lane.no_resp3 = !connection.options().tracking
                      ? "coherence.mode is " + std::string(mode_name(wish))
                  : !connection.tracking() ? connection.tracking_refusal()
                                           : "the server's pushes are unreliable before 6.2.7";
  choose_mode(lane);
}

void Router::set_blind(Lane& lane, bool blind) {
  if (blind == std::exchange(lane.blind, blind)) return;
  if (blind) process_.blind_lanes.fetch_add(1);
  else process_.blind_lanes.fetch_sub(1);
}

// A blind lane that is down stays blind: what is asked now may be executed when it, or another one,
// holds something again.
void Router::change_mode(Lane& lane, CoherenceMode mode) {
  if (mode != CoherenceMode::off) set_blind(lane, is_blind(mode));
  lane.mode = mode;
  lane.proof.tracking = mode != CoherenceMode::off;
}

// Can nobody tell which keys a script has written?
bool Router::writes_unseen() const {
  const CoherenceMode wish = process_.config.coherence.mode;
  // Not yet known, or not at the moment.
  const bool may_be_blind =
      wish == CoherenceMode::ttl ||
      (cluster_ && wish == CoherenceMode::automatic && main_lane_->mode == CoherenceMode::off);
  return process_.blind_lanes.load() > 0 || may_be_blind ||
         (records_writes_ && main_lane_->mode != CoherenceMode::keyspace);
}

void Router::set_mode(Lane& lane, CoherenceMode mode, Bytes why) {
  const CoherenceMode before = lane.mode;
  change_mode(lane, mode);
  if (before != mode && !mutation::no_epoch) renew_space(lane);
  if (via_bus(mode)) process_.bus->set_needed();
  if (&lane == main_lane_) {
    const CoherenceMode wish = process_.config.coherence.mode;
    announces_ = wish == CoherenceMode::publish || wish == CoherenceMode::keyspace ||
                 (wish == CoherenceMode::automatic && mode != CoherenceMode::resp3 &&
                  mode != CoherenceMode::redirect && mode != CoherenceMode::ttl);
    if (cluster_) announces_ = false;
    records_writes_ = announces_;
    if (announces_) process_.bus->set_announcing();
    else forget_announcements();
    if (before != mode)
      for (const auto& other : lanes_)
        if (other.get() != main_lane_ && other->connection->up() && other->resp == 3 &&
            other->mode != CoherenceMode::resp3)
          choose_mode(*other);
  }
  if (lane.proof.tracking) heartbeat(lane);
  if (&lane != main_lane_ || index_ != 0) return;
  process_.mode.store(mode);
  const std::string said = std::string(name_of(mode)) + ": " + std::string(why);
  if (said == mode_said_) return;
  mode_said_ = said;
  const bool weak = mode == CoherenceMode::ttl || mode == CoherenceMode::publish;
  log::message(weak ? LogLevel::warn : LogLevel::info, "coherence mode {}", said);
}

// In resp3 the lane has proven itself; everything else is decided here, and again whenever the bus
// comes or goes.
void Router::choose_mode(Lane& lane) {
  const CoherenceMode wish = process_.config.coherence.mode;
  const bool automatic = wish == CoherenceMode::automatic;
  if (!process_.config.l1.enabled) return set_mode(lane, CoherenceMode::off, "L1 is off");
  if (lane.replica || lane.renews_role) return set_mode(lane, CoherenceMode::off, "a replica");
  if (wish == CoherenceMode::off)
    return set_mode(lane, CoherenceMode::off, "coherence.mode says so");
  if (wish == CoherenceMode::resp3)
    return set_mode(lane, CoherenceMode::off, lane.no_resp3 + "; everything is passed through");
  if (wish == CoherenceMode::ttl)
    return set_mode(lane, CoherenceMode::ttl,
                    "the writes of others are not seen until l1.ttl, as coherence.mode says");
  // In a cluster the bus is at one node and the data at others: it proves nothing of them.
  if (cluster_)
    return set_mode(lane, CoherenceMode::ttl,
                    lane.no_resp3 + "; THE WRITES OF OTHERS ARE NOT SEEN until l1.ttl");
  const Bus::State bus = process_.bus->state();
  if (bus == Bus::State::down)
    return set_mode(lane, CoherenceMode::off, "the bus is not connected yet");
  if (bus == Bus::State::refused) {
    const std::string why = "the bus is refused: " + process_.bus->down_reason();
    if (!automatic || is_weaker_than_main(lane, CoherenceMode::ttl))
      return set_mode(lane, CoherenceMode::off, why);
    return set_mode(
        lane, CoherenceMode::ttl,
        lane.no_resp3 + "; " + why + "; THE WRITES OF OTHERS ARE NOT SEEN until l1.ttl");
  }
  const bool may_redirect = automatic || wish == CoherenceMode::redirect;
  if (may_redirect && process_.bus->subscriber_id() == 0)
    lane.no_redirect =
        "the proxy's user may not ask CLIENT ID or subscribe to __redis__:invalidate";
  if (may_redirect && lane.no_redirect.empty()) return try_redirect(lane);
  if (wish == CoherenceMode::redirect)
    return set_mode(lane, CoherenceMode::off, lane.no_redirect + "; everything is passed through");
  if (is_weaker_than_main(lane, CoherenceMode::publish))
    return set_mode(lane, CoherenceMode::off, "this user may do less than the proxy's own");
  if (wish != CoherenceMode::publish) process_.bus->want_keyspace();
  std::string why = lane.no_resp3;
  if (!lane.no_redirect.empty()) why += "; " + lane.no_redirect;
  if (process_.bus->keyspace() && wish != CoherenceMode::publish)
    return set_mode(lane, CoherenceMode::keyspace, why);
  set_mode(lane, CoherenceMode::publish,
           why + "; writers that go around the proxies are not seen until l1.ttl");
}

// Proxies whose own user is told by the server announce nothing: another user's lane cannot count
// on announcements then, and holds nothing.
bool Router::is_weaker_than_main(const Lane& lane, CoherenceMode mode) const {
  const CoherenceMode main = main_lane_->mode;
  if (&lane == main_lane_ || process_.config.coherence.mode != CoherenceMode::automatic)
    return false;
  if (mode == CoherenceMode::ttl) return main != CoherenceMode::ttl;
  return main != CoherenceMode::publish && main != CoherenceMode::keyspace;
}

Lane* Router::find_lane(uint64_t serial) {
  for (const auto& lane : lanes_)
    if (lane->serial == serial) return lane.get();
  return nullptr;
}

// Asks the server to send the lane's invalidations to the bus, and believes it when one has come.
void Router::try_redirect(Lane& lane) {
  set_mode(lane, CoherenceMode::off, "trying redirect");
  const uint64_t serial = lane.serial = next_serial_++;
  const uint64_t subscriber = process_.bus->subscriber_id();
  Connection& connection = *lane.connection;
  const auto ask = [&](std::initializer_list<Bytes> args, ReplyTask::Callback callback) {
    connection.send(args, ReplyTask::pending(std::move(callback), now_ns_));
  };
  const auto ignore = [](Bytes, Bytes) {};
  ask({"CLIENT", "TRACKING", "OFF"}, ignore);
  ask({"CLIENT", "TRACKING", "ON", "REDIRECT", std::to_string(subscriber), "OPTIN"},
      [this, serial, subscriber](Bytes reply, Bytes failure) {
        Lane* tried = find_lane(serial);
        if (tried == nullptr || !failure.empty()) return;
        if (!reply.starts_with("-")) return prove_redirect(*tried, subscriber);
        // An error names the subscriber if it went meanwhile: on_bus_state tries again.
        if (process_.bus->subscriber_id() != subscriber) return;
        tried->no_redirect = "the server refuses CLIENT TRACKING: " +
                             std::string(reply.substr(1, reply.find('\r') - 1));
        choose_mode(*tried);
      });
}

void Router::prove_redirect(Lane& lane, uint64_t subscriber) {
  const uint64_t serial = lane.serial;
  const std::string probe = probe_prefix(process_.bus->proxy_id()) + std::to_string(index_) + ":" +
                            std::to_string(serial);
  Connection& connection = *lane.connection;
  const auto ask = [&](std::initializer_list<Bytes> args, ReplyTask::Callback callback) {
    connection.send(args, ReplyTask::pending(std::move(callback), now_ns_));
  };
  const auto ignore = [](Bytes, Bytes) {};
  const auto readable = std::make_shared<bool>(true);
  ask({"CLIENT", "CACHING", "YES"}, ignore);
  ask({"EXISTS", probe}, [readable](Bytes reply, Bytes) { *readable = !reply.starts_with("-"); });
  ask({"SET", probe, "1", "PX", "1000"},
      [this, serial, subscriber, probe, readable](Bytes reply, Bytes failure) {
        Lane* tried = find_lane(serial);
        if (tried == nullptr || !failure.empty()) return;
        // Not allowed to read or write the probe: the server's word has to do.
        if (reply.starts_with("-") || !*readable)
          return set_mode(*tried, CoherenceMode::redirect, tried->no_resp3);
        process_.bus->confirm(probe, [this, serial, subscriber](bool saw) {
          process_.post(index_, [this, serial, subscriber, saw] {
            Lane* proven = find_lane(serial);
            if (proven == nullptr || process_.bus->subscriber_id() != subscriber) return;
            if (saw) return set_mode(*proven, CoherenceMode::redirect, proven->no_resp3);
            proven->no_redirect = "no invalidation came over __redis__:invalidate";
            choose_mode(*proven);
          });
        });
      });
  ask({"DEL", probe}, ignore);
}

void Router::on_bus_state() {
  now_ns();
  catch_up();
  for (const auto& lane : lanes_) {
    if (!lane->connection->up() || lane->resp != 3 || lane->mode == CoherenceMode::resp3) continue;
    lane->no_redirect.clear();
    if (via_bus(lane->mode)) renew_space(*lane);  // what came in before this task ran
    choose_mode(*lane);
  }
  on_bus_proof();
}

// ---- Sessions that wait for the bus

bool Router::parks(Session& session, const Lane& lane) {
  if (!via_bus(lane.mode) || session.outstanding() || process_.bus->proof_ns() == 0) return false;
  if (session.last_connection != nullptr && session.last_connection != &lane) return false;
  const coherence::LaneProof proof = proof_of(lane);
  return proof.link_ns < session.floor_ns &&
         coherence::may_serve({proof.space, proof.tracking, proof.master_ns, UINT64_MAX},
                              {session.floor_ns, false}, now_ns_, max_staleness_ns_);
}

void Router::park(Session& session) {
  session.parked = true;
  parked_.push_back({session.ref, now_ns_});
  // One request a round trip: on_bus_proof asks again for those for whom this one was too early.
  if (!waits_for_proof_.exchange(true)) process_.bus->request_proof();
  stats_.hits_parked.add();
}

void Router::on_bus_proof() {
  const uint64_t proof_ns = process_.bus->proof_ns();
  std::erase_if(parked_, [&](const Parked& parked) {
    Session* session = find(parked.session);
    if (session == nullptr) return true;
    if (proof_ns != 0 && proof_ns < session->floor_ns && now_ns_ < parked.since_ns + kParkedMaxNs)
      return false;
    session->wake();
    return true;
  });
  waits_for_proof_.store(!parked_.empty());
  if (!parked_.empty()) process_.bus->request_proof();
}

}  // namespace nearcached
