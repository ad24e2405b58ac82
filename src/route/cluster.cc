// Requests in a cluster: to the client it is one Redis.
//
// Before a request takes its usual way (router.cc), its keys say which node it is for, and the
// session is put on that node's lane (aim); everything behind that, hits, flights, fills, writes,
// is as with one Redis. Requests whose keys are in several slots, or that name none and mean all,
// are taken apart (gather.cc). Connection state is pinned to the node of its first key.
//
// What a node says of the others is in redirect.cc, who they are in discovery/.
#include <algorithm>

#include "nearcached/base/clock.h"
#include "nearcached/base/log.h"
#include "nearcached/resp/writer.h"
#include "route/router.h"

namespace nearcached {
namespace {

constexpr Bytes kNotServed = "-CLUSTERDOWN Hash slot not served\r\n";
constexpr Bytes kElsewhere =
    "-ERR nearcached: this connection's state binds it to another node of the cluster\r\n";
constexpr Bytes kMultiNested = "-ERR MULTI calls can not be nested\r\n";

/// Has its own way, whatever keys it names.
bool is_keyless_route(Route route) {
  switch (route) {
    case Route::auth:
    case Route::hello:
    case Route::reset:
    case Route::quit:
    case Route::select:
    case Route::client:
    case Route::info:
    case Route::nearcache:
    case Route::monitor:
    case Route::replication: return true;
    default: return false;
  }
}

}  // namespace

Bytes kind_name(UpstreamKind kind) {
  switch (kind) {
    case UpstreamKind::cluster: return "cluster";
    case UpstreamKind::sentinel: return "sentinel";
    default: return "single";
  }
}

// ---- Topology

void Router::on_topology() {
  now_ns();
  if (topology_->version() != process_.topology.version()) adopt_topology();
}

void Router::adopt_topology() {
  topology_ = process_.topology.get();
  const std::vector<TopologyNode>& nodes = topology_->nodes();
  const auto has_moved = [&](const Link& link) {
    return nodes[link.node].address != link.connection->options().address;
  };
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = *lanes_[i];
    const bool replica = nodes[lane.node].primary != kNoNode;
    if (replica != lane.replica && cluster_) {
      lane.replica = replica;
      lane.connection->set_role(replica, lane.resp == 3 && !replica && wants_tracking());
      // Feeds nothing from here on. What it has under way the node will still answer, or redirect.
      drop_space(lane, "a node has another role");
      change_mode(lane, CoherenceMode::off);
      lane.serial = 0;
      lane.renews_role = true;
    }
    renew_role(lane);
    if (!has_moved(lane)) continue;
    lane.connection->set_address(nodes[lane.node].address);
    lane.connection->lose("another primary");
  }
  for (auto& [node, waiters] : replica_waiters_) {
    if (!has_moved(*waiters.lane)) continue;
    waiters.lane->connection->set_address(nodes[node].address);
    waiters.lane->connection->lose("another primary");
  }
  for (size_t i = pins_.size(); i-- > 0;)
    if (i < pins_.size() && has_moved(*pins_[i])) pins_[i]->connection->lose("another primary");
  if (cluster_) {
    const std::vector<NodeIndex> primaries = topology_->primaries();
    const bool kept =
        std::find(primaries.begin(), primaries.end(), main_lane_->node) != primaries.end() &&
        !process_.is_broken(main_lane_->node, now_ns_);
    if (!kept && !primaries.empty())
      if (Lane* lane = lane_for(default_identity_, 0, 3, primaries[index_ % primaries.size()])) {
        main_lane_ = lane;
        if (lane->connection->up()) begin_coherence(*lane);
      }
    // What waits for a node that is down, or silent, may have another now.
    for (size_t i = 0; i < lanes_.size(); ++i) {
      Lane& lane = *lanes_[i];
      lane.connection->abandon("the topology has changed");
      const bool owns = std::binary_search(primaries.begin(), primaries.end(), lane.node);
      if (!owns && is_silent(lane)) lane.connection->lose("silent, and its slots are elsewhere");
    }
  }
  wake_topology_waiters();
}

// READONLY and tracking are said when a link is made, so there has to be another one. Of a primary
// that was demoted only when nobody waits for it any more: a write whose link is lost is a write of
// which nobody knows whether it was executed.
void Router::renew_role(Lane& lane) {
  if (!lane.renews_role) return;
  if (lane.replica && lane.connection->up() && lane.connection->pending() > 0) return;
  lane.renews_role = false;
  lane.connection->renew("its node has another role");
}

void Router::wake_topology_waiters() {
  std::vector<SessionRef> waiters;
  waiters.swap(topology_waiters_);
  for (const SessionRef ref : waiters)
    if (Session* session = find(ref)) session->wake();
}

// Nobody knows yet who owns what. Asked again at every tick, given up after connect_timeout; what
// the session asks soon after that is not waited for once more.
Session::Outcome Router::await_topology(Session& session) {
  const uint64_t patience_ns = process_.config.upstream.connect_timeout_ms * kNsPerMs;
  if (now_ns_ > session.waiting_since_ns + 2 * patience_ns) session.waiting_since_ns = now_ns_;
  process_.discovery->refresh("a slot without an owner");
  if (now_ns_ < session.waiting_since_ns + patience_ns) {
    topology_waiters_.push_back(session.ref);
    return Outcome::later;
  }
  const std::string error = process_.discovery->last_error();
  if (topology_->slots_covered() > 0 || error.empty()) session.reply(kNotServed);
  else session.reply("-CLUSTERDOWN no node of the cluster answers (" + error + ")\r\n");
  return Outcome::done;
}

// NEARCACHE TOPOLOGY: a line for the whole, a line for each node.
std::string Router::topology_text() const {
  const auto topology = process_.topology.get();
  const Discovery& discovery = *process_.discovery;
  const UpstreamKind kind = process_.config.upstream.parsed.kind;
  const uint64_t now = monotonic_ns(), refreshed_ms = discovery.refreshed_ms();
  std::string text = "kind=" + std::string(kind_name(kind));
  text += " slots_covered=" + std::to_string(topology->slots_covered()) +
          " version=" + std::to_string(topology->version()) +
          " shards_short_of_replicas=" + std::to_string(process_.shards_short.load()) +
          " refreshes=" + std::to_string(discovery.refreshes()) + " refresh_age_ms=" +
          (refreshed_ms == 0 ? "-1" : std::to_string(now / kNsPerMs - refreshed_ms)) +
          " error=" + quoted(discovery.last_error()) + "\n";
  std::vector<unsigned> slots(topology->nodes().size());
  for (unsigned slot = 0; slot < kSlots; ++slot)
    if (topology->owner(static_cast<uint16_t>(slot)) != kNoNode)
      ++slots[topology->owner(static_cast<uint16_t>(slot))];
  for (NodeIndex i = 0; i < topology->nodes().size(); ++i) {
    const TopologyNode& node = topology->nodes()[i];
    const Process::Node& state = process_.nodes[i];
    const bool open = process_.is_broken(i, now);
    text += "node=" + node.address.to_string() + " role=" +
            (node.gone                                        ? "gone"
             : node.primary != kNoNode                        ? "replica"
             : kind == UpstreamKind::cluster && slots[i] == 0 ? "unknown"
                                                              : "primary") +
            " slots=" + std::to_string(slots[i]) + " links=" + std::to_string(state.links.load()) +
            " latency_us=" + std::to_string(state.latency_us.load()) + " breaker=" +
            (open                        ? "open"
             : state.failures.load() > 0 ? "half-open"
                                         : "closed") +
            " last_error=" + quoted(process_.node_error(i)) + "\n";
  }
  return text;
}

// ---- Aiming

Lane* Router::lane_of_slot(const Session& session, uint16_t slot) {
  const NodeIndex node = topology_->owner(slot);
  if (node == kNoNode) return nullptr;
  if (session.lane->node == node) return session.lane;
  return lane_for(session.identity, 0, 3, node);
}

// Puts the session on the lane of the node that owns the slot. False: it has been answered, or
// waits.
bool Router::aim(Session& session, uint16_t slot, Outcome& outcome) {
  if (topology_->owner(slot) == kNoNode) {
    outcome = await_topology(session);
    return false;
  }
  session.waiting_since_ns = 0;
  Lane* const lane = lane_of_slot(session, slot);
  if (lane == nullptr) {
    session.reply(kNoLane);
    outcome = Outcome::done;
    return false;
  }
  if (lane != session.lane) attach(session, *lane);
  aimed_slot_ = slot;
  return true;
}

// For what any node can answer: the present one, if it does.
Lane* Router::any_lane(const Session& session) {
  const auto answers = [](const Lane* lane) {
    return lane != nullptr && lane->connection->up() && !lane->replica;
  };
  if (answers(session.lane)) return session.lane;
  for (const NodeIndex node : topology_->primaries()) {
    Lane* const lane = lane_for(session.identity, 0, 3, node);
    if (answers(lane)) return lane;
  }
  return session.lane;
}

// The slot of the request's keys, or of its channel; −1: it names none.
int Router::slot_of_request(const Command& command, std::span<const Bytes> args, bool& several) {
  int slot = -1;
  const auto add = [&](Bytes name) {
    const int of = slot_of(name);
    several = several || (slot >= 0 && of != slot);
    slot = of;
  };
  if (!command.arity_ok(args.size())) return -1;
  keys_.clear();
  (void)extract_keys(command, args, keys_);
  for (const KeyRef& key : keys_) add(args[key.arg]);
  if (command.shards == Shards::channel && args.size() > 1) add(args[1]);
  if (command.name == "ssubscribe" || command.name == "sunsubscribe")
    for (const Bytes channel : args.subspan(1)) add(channel);
  return slot;
}

// ---- Routing

Session::Outcome Router::route_in_cluster(Session& session, const Request& request,
                                          const Command& command) {
  aimed_slot_ = -1;
  if ((needs_auth(session) && !command.no_auth) ||
      (session.pin == nullptr && !session.multi_begun && is_refused(&command)))
    return route(session, request, command);
  bool several = false;
  const int slot =
      is_keyless_route(command.route) ? -1 : slot_of_request(command, request.args, several);
  aimed_slot_ = slot;
  if (session.pin != nullptr) maybe_unpin(session);
  if (session.multi_begun) return in_begun_multi(session, request, command, slot, several);
  if (session.pin != nullptr) return pinned_in_cluster(session, request, command, slot, several);
  if (command.route == Route::multi && command.arity_ok(request.args.size()))
    return begin_multi(session, request, command);
  if (several) {
    if (command.split == Split::mget) return gather_values(session, request);
    if (command.split != Split::none) return split(session, request, command);
    session.reply(kCrossSlot);
    return Outcome::done;
  }
  if (slot >= 0) return route_by_slot(session, request, command);
  if (command.name == "swapdb" || command.name == "move") {
    session.reply("-ERR " + std::string(command.name == "move" ? "MOVE" : "SWAPDB") +
                  " is not allowed in cluster mode\r\n");
    return Outcome::done;
  }
  const bool valid = command.arity_ok(request.args.size());
  if (valid && command.shards == Shards::scan) return scan(session, request, command);
  if (valid && command.shards != Shards::any && command.shards != Shards::channel)
    return broadcast(session, request, command);
  // WAIT counts the replicas of the node that it is sent to: that of the session's last write.
  Lane* lane = command.name == "wait" && session.write_node != kNoNode
                   ? lane_for(session.identity, 0, 3, session.write_node)
                   : any_lane(session);
  const bool anywhere = !is_keyless_route(command.route) || !session.lane->connection->up();
  if (lane != nullptr && lane != session.lane && anywhere) attach(session, *lane);
  return route(session, request, command);
}

Session::Outcome Router::route_by_slot(Session& session, const Request& request,
                                       const Command& command) {
  Outcome outcome = Outcome::done;
  if (!aim(session, static_cast<uint16_t>(aimed_slot_), outcome)) return outcome;
  if (command.write) session.write_node = session.lane->node;
  if (process_.config.upstream.read_from != ReadFrom::primary && session.pin == nullptr) {
    const auto slot = static_cast<uint16_t>(aimed_slot_);
    if (Lane* lane = replica_for(session, slot, request.args, command)) {
      attach(session, *lane);
      return read_at_replica(session, request, command);
    }
  }
  return route(session, request, command);
}

// ---- State that lives in one node

// MULTI is answered here; its node is that of the first key.
Session::Outcome Router::begin_multi(Session& session, const Request&, const Command&) {
  session.multi_begun = true;
  session.reply("+OK\r\n");
  return Outcome::done;
}

Session::Outcome Router::in_begun_multi(Session& session, const Request& request,
                                        const Command& command, int slot, bool several) {
  switch (command.route) {
    case Route::multi: session.reply(kMultiNested); return Outcome::done;
    case Route::exec:
    case Route::discard:
      if (!command.arity_ok(request.args.size())) break;
      session.multi_begun = false;
      session.reply(command.route == Route::exec ? "*0\r\n" : "+OK\r\n");
      return Outcome::done;
    case Route::quit:
    case Route::reset: return route(session, request, command);
    default: break;
  }
  if (session.outstanding()) return Outcome::later;
  Outcome outcome = Outcome::done;
  if (slot >= 0) {
    if (!aim(session, static_cast<uint16_t>(slot), outcome)) return outcome;
  } else if (Lane* lane = any_lane(session); lane != session.lane) {
    attach(session, *lane);
  }
  if (!open_multi(session)) return Outcome::done;
  session.pin->slot = several ? -1 : slot;
  return pinned_in_cluster(session, request, command, slot, several);
}

// Says MULTI to a node at last. False: the session has been answered why not.
bool Router::open_multi(Session& session) {
  if (!acquire_pin(session)) {
    session.reply(kNoPin);
    return false;
  }
  session.multi_begun = false;
  session.pin->multi = true;
  send_ignored(*session.pin->connection, "*1\r\n$5\r\nMULTI\r\n");
  went_to(session, *session.pin);
  return true;
}

Session::Outcome Router::pinned_in_cluster(Session& session, const Request& request,
                                           const Command& command, int slot, bool several) {
  Pin& pin = *session.pin;
  const bool restricted = session.resp == 2 && pin.subscribed();
  // Another node would say MOVED where the right one says this.
  const bool may = command.route == Route::subscribe || command.route == Route::quit ||
                   command.route == Route::reset || command.name == "ping" ||
                   !command.arity_ok(request.args.size());
  if (restricted && pin.channels + pin.shard_channels > 0 && !pin.changing && !may) {
    session.reply("-ERR Can't execute '" + command.name +
                  "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in "
                  "this context\r\n");
    return Outcome::done;
  }
  if (restricted || pin.monitor) return route(session, request, command);
  const bool of_all = slot < 0 && command.arity_ok(request.args.size()) &&
                      command.shards != Shards::any && command.shards != Shards::channel;
  if (of_all && pin.multi) {
    pin.poisoned = true;
    session.reply("-ERR nearcached: '" + command.name +
                  "' is about all nodes of the cluster, a transaction is at one\r\n");
    return Outcome::done;
  }
  const bool apart = several && !pin.multi && command.split != Split::none;
  if ((of_all || apart) && is_refused(&command)) return route(session, request, command);
  if (of_all && command.shards == Shards::scan) return scan(session, request, command);
  if (of_all) return broadcast(session, request, command);
  if (apart && command.split == Split::mget) return gather_values(session, request);
  if (apart) return split(session, request, command);
  if (slot < 0) return route(session, request, command);
  const bool here = topology_->owner(static_cast<uint16_t>(slot)) == pin.node;
  if (pin.multi || pin.watch) {
    if (pin.slot < 0 && !several && !here && pin.unbound_bytes <= kUnboundBytesMax) {
      if (session.outstanding()) return Outcome::later;
      Outcome outcome = Outcome::done;
      if (!aim(session, static_cast<uint16_t>(slot), outcome)) return outcome;
      if (!move_pin(session, *session.lane, false)) {
        session.reply(kNoPin);
        session.close_when_done();  // its transaction is gone
        return Outcome::done;
      }
      session.pin->slot = slot;
      return route(session, request, command);
    }
    if (pin.slot < 0 && here && !several) pin.slot = slot;
    if (several || slot != pin.slot) {
      pin.poisoned = pin.poisoned || pin.multi;
      session.reply(kCrossSlot);
      return Outcome::done;
    }
    return route(session, request, command);
  }
  if (here && !several) return route(session, request, command);
  if (session.outstanding()) return Outcome::later;
  // Subscribed, over RESP3: the rest of the session's life is elsewhere.
  if (command.route != Route::lane || several) {
    session.reply(several ? kCrossSlot : kElsewhere);
    return Outcome::done;
  }
  Outcome outcome = Outcome::done;
  if (!aim(session, static_cast<uint16_t>(slot), outcome)) return outcome;
  if (command.cache != Cache::never) return read_through(session, request, command);
  return relay(session, request, &command);
}

// The probe of a connection's introduction needs a key that is this node's.
std::string Router::probe_key(NodeIndex node) const {
  const std::string name = probe_prefix(process_.bus->proxy_id()) + std::to_string(index_);
  if (!cluster_) return name;
  for (unsigned i = 0; i < 16 * kSlots; ++i) {
    const std::string tagged = name + "{" + std::to_string(i) + "}";
    if (topology_->owner(slot_of(tagged)) == node) return tagged;
  }
  return {};
}

}  // namespace nearcached
