// Links: lanes and their proofs, what comes in over them, and what becomes of it.
//
// An invalidation bumps the key's stamp, which every worker sees; a null (FLUSHALL) or a lost link
// gives the lane a new space, which makes everything filled through it unreachable at once. ROLE,
// sent every coherence.heartbeat, proves two things with one reply: that the link was alive when it
// was sent, with all earlier invalidations applied, and that the other end is still the primary.
#include <algorithm>
#include <charconv>

#include "nearcached/base/check.h"
#include "nearcached/base/clock.h"
#include "nearcached/base/hash.h"
#include "nearcached/base/log.h"
#include "nearcached/base/memory.h"
#include "nearcached/coherence/mutations.h"
#include "route/flight.h"
#include "route/gather.h"
#include "route/router.h"

namespace nearcached {
namespace {

constexpr uint64_t kSettleNs = 200 * kNsPerMs;
constexpr uint64_t kWalkBucketsPerTick = 4096;

Lane& lane_of(Connection& connection) {
  return *static_cast<Lane*>(static_cast<Link*>(connection.owner_data));
}
Pin& pin_of(Connection& connection) {
  return *static_cast<Pin*>(static_cast<Link*>(connection.owner_data));
}
bool is_lane(Connection& connection) {
  return static_cast<Link*>(connection.owner_data)->kind == Link::Kind::lane;
}

}  // namespace

Bytes refusal_for_client(Bytes refusal) {
  return refusal.starts_with("-NOAUTH") ? Bytes("-NOAUTH Authentication required.\r\n") : refusal;
}

Connection::Options Router::connection_options(const Identity& identity, uint32_t database,
                                               int resp, NodeIndex node) {
  const Config& config = process_.config;
  Connection::Options options;
  options.address = topology_->nodes()[node].address;
  options.identity = identity;
  options.database = database;
  options.resp = resp;
  options.client_name = "nearcached";
  options.connect_timeout_ms = config.upstream.connect_timeout_ms;
  options.timeout_ms = config.upstream.timeout_ms;
  options.reconnect_min_ms = config.upstream.reconnect_min_ms;
  options.reconnect_max_ms = config.upstream.reconnect_max_ms;
  options.queue_bytes_max = config.limits.upstream_queue_bytes;
  options.reply_bytes_max = config.limits.upstream_reply_bytes;
  if (main_lane_ != nullptr && main_lane_->node == node)
    options.attempt = main_lane_->connection->attempt();
  options.keepalive_s = config.server.tcp_keepalive_s;
  return options;
}

void Router::start() {
  main_lane_ = lane_for(default_identity_, static_cast<uint32_t>(default_database()), 3, 0);
  tick_timer_ = std::make_unique<Timer>(loop_, [this] { tick(); });
  const uint64_t period_ms =
      std::clamp<uint64_t>(process_.config.coherence.heartbeat_ms / 2, 5, 100);
  tick_timer_->start(period_ms, period_ms);
}

bool Router::wants_tracking() const {
  const CoherenceMode wish = process_.config.coherence.mode;
  return process_.config.l1.enabled &&
         (wish == CoherenceMode::automatic || wish == CoherenceMode::resp3);
}

Lane* Router::lane_for(const std::shared_ptr<const Identity>& identity, uint32_t database, int resp,
                       NodeIndex node) {
  const bool common = identity == default_identity_ && resp == 3 && database == default_database();
  const auto taken = [this](Lane& lane) {
    lane.idle_since_ns = now_ns_;
    return &lane;
  };
  if (common && node < node_lanes_.size() && node_lanes_[node] != nullptr)
    return taken(*node_lanes_[node]);
  for (const auto& lane : lanes_)
    if (lane->database == database && lane->resp == resp && lane->node == node &&
        *lane->identity == *identity)
      return taken(*lane);
  const bool node_full =
      process_.nodes[node].links.load() >= process_.config.limits.node_connections;
  if (node_full) stats_.limit_node_connections_hit.add();
  if (node_full || !has_room_for_lane()) {
    stats_.limit_lanes_hit.add();
    return nullptr;
  }
  auto lane = std::make_unique<Lane>();
  lane->identity = identity;
  lane->node = node;
  lane->replica = topology_->nodes()[node].primary != kNoNode;
  lane->database = database;
  lane->resp = resp;
  lane->idle_since_ns = now_ns_;
  Connection::Options options = connection_options(*identity, database, resp, node);
  options.keep_requests = process_.config.upstream.parsed.kind != UpstreamKind::single;
  options.readonly = lane->replica;
  options.tracking = resp == 3 && !lane->replica && wants_tracking();
  // The server is the same for every user, and others may not be allowed to write the probe.
  if (options.tracking && *identity == *default_identity_) options.probe_key = probe_key(node);
  lane->connection = std::make_unique<Connection>(loop_, *this, std::move(options));
  lane->connection->owner_data = static_cast<Link*>(lane.get());
  lane->connection->connect();
  stats_.upstream_connections.add();
  process_.nodes[node].links.fetch_add(1);
  if (common) {
    if (node_lanes_.size() <= node) node_lanes_.resize(node + 1u);
    node_lanes_[node] = lane.get();
  }
  lanes_.push_back(std::move(lane));
  return lanes_.back().get();
}

// Lanes that have never been up do not count: wrong passwords, tried again and again, must not keep
// others out. They are as many as clients that wait for them, at most. A lane nobody uses gives
// way.
bool Router::has_room_for_lane() {
  const auto proven = static_cast<size_t>(
      std::count_if(lanes_.begin(), lanes_.end(), [](const auto& lane) { return lane->proven; }));
  if (lanes_.size() - proven >= process_.config.limits.private_connections) return false;
  const size_t nodes = cluster_ ? std::max<size_t>(1, topology_->primaries().size()) : 1;
  if (proven < process_.config.limits.lanes * nodes) return true;
  for (const auto& lane : lanes_)
    if (lane->proven && is_unused(*lane)) {
      close_lane(*lane);
      return true;
    }
  return false;
}

bool Router::is_unused(const Lane& lane) const {
  return &lane != main_lane_ && lane.sessions == 0 && lane.waiting.empty() &&
         lane.idle_since_ns < now_ns_ &&  // nobody has just taken it, to send something
         lane.connection->pending() <= (lane.heartbeat_pending ? 1u : 0u);
}

void Router::attach(Session& session, Lane& lane) {
  detach(session);
  session.lane = &lane;
  ++lane.sessions;
}

void Router::detach(Session& session) {
  if (session.lane == nullptr) return;
  --session.lane->sessions;
  session.lane->idle_since_ns = now_ns_;
  session.lane = nullptr;
}

void Router::when_ready(Lane& lane, std::function<void(bool up, Bytes refusal)> callback) {
  if (lane.connection->up()) return callback(true, {});
  if (!lane.connection->refusal().empty()) return callback(false, lane.connection->refusal());
  lane.waiting.push_back(std::move(callback));
}

void Router::retire(std::unique_ptr<Connection> connection) {
  Connection* raw = connection.get();
  std::erase(unflushed_, raw);
  stats_.upstream_connections.subtract();
  closing_connections_.push_back(std::move(connection));
  raw->close();
}

void Router::on_closed(Connection& connection) {
  for (auto& closing : closing_connections_)
    if (closing.get() == &connection) {
      std::swap(closing, closing_connections_.back());
      dead_connections_.push_back(std::move(closing_connections_.back()));
      closing_connections_.pop_back();
      break;
    }
  std::erase(unflushed_, &connection);
}

// The lane itself must live until its connection has failed what was pending on it.
void Router::close_lane(Lane& lane) {
  const auto at = std::find_if(lanes_.begin(), lanes_.end(),
                               [&](const auto& other) { return other.get() == &lane; });
  NC_CHECK(at != lanes_.end());
  change_mode(lane, CoherenceMode::off);
  set_blind(lane, false);
  process_.nodes[lane.node].links.fetch_sub(1);
  std::replace(node_lanes_.begin(), node_lanes_.end(), &lane, static_cast<Lane*>(nullptr));
  const std::unique_ptr<Lane> dying = std::move(*at);
  lanes_.erase(at);
  retire(std::move(dying->connection));
}

void Router::on_up(Connection& connection) {
  process_.node_works(static_cast<Link*>(connection.owner_data)->node);
  if (!is_lane(connection)) return;
  Lane& lane = lane_of(connection);
  if (!mutation::no_epoch || lane.proof.space == 0) renew_space(lane);
  lane.proof.master_ns = 0;
  lane.stale_space = 0;
  lane.stale_proof_ns = 0;
  lane.heartbeat_pending = false;
  lane.epochs = {};
  lane.proven = true;
  // It answers again: what the link before had left it to do is done within its next turns.
  if (flush_again_ns_ != 0) flush_again_ns_ = now_ns_ + kSettleNs;
  if (&lane == main_lane_ && index_ == 0) {
    log::info("upstream {} is up, Redis {}", connection.options().address.to_string(),
              connection.server_version().empty() ? "(unknown)" : connection.server_version());
    load_command_table(lane);
  }
  begin_coherence(lane);
  auto waiting = std::move(lane.waiting);
  lane.waiting.clear();
  for (auto& callback : waiting) callback(true, {});
}

void Router::on_down(Connection& connection, Bytes reason, Bytes refusal) {
  // A link that was lost, or a user who was refused, says nothing against the node.
  if (connection.failures() > 0 && refusal.empty())
    process_.node_failed(static_cast<Link*>(connection.owner_data)->node, reason);
  if (process_.config.upstream.parsed.kind != UpstreamKind::single && !shutting_down_)
    process_.discovery->refresh("a link was lost");
  if (!is_lane(connection)) {
    Pin& pin = pin_of(connection);
    Session* session = find(pin.session);
    // State that lived in the server is gone; carrying on would mean something else.
    const bool lost_state = pin.has_state();
    close_pin(pin);
    if (session != nullptr && lost_state) session->close();
    return;
  }
  Lane& lane = lane_of(connection);
  remember_space(lane);
  if (!mutation::no_epoch && lane.serial != 0) drop_space(lane, "upstream link lost");
  change_mode(lane, CoherenceMode::off);
  lane.heartbeat_pending = lane.renews_role = false;
  lane.serial = 0;
  stats_.upstream_reconnects.add();
  if (index_ == 0 && &lane == main_lane_ && !shutting_down_) {
    static log::EverySecond limiter;
    limiter.message(LogLevel::warn, "upstream {}: {}; trying again",
                    connection.options().address.to_string(), reason);
  }
  auto waiting = std::move(lane.waiting);
  lane.waiting.clear();
  for (auto& callback : waiting) callback(false, refusal);
}

void Router::heartbeat(Lane& lane) {
  if (lane.heartbeat_pending || !lane.connection->up()) return;
  lane.heartbeat_pending = true;
  const uint64_t sent_ns = lane.heartbeat_sent_ns = now_ns();
  if (cluster_)
    lane.connection->send({"CLUSTER", "INFO"},
                          ReplyTask::pending(
                              [this, &lane, sent_ns](Bytes reply, Bytes failure) {
                                if (failure.empty()) on_cluster_info(lane, sent_ns, reply);
                              },
                              sent_ns));
  lane.connection->send({"ROLE"}, ReplyTask::pending(
                                      [this, &lane, sent_ns](Bytes reply, Bytes failure) {
                                        lane.heartbeat_pending = false;
                                        if (failure.empty()) on_role(lane, sent_ns, reply);
                                      },
                                      sent_ns));
}

// Nothing closes, nothing answers: somebody else may have its slots by now.
bool Router::is_silent(const Lane& lane) const {
  return lane.heartbeat_pending && lane.connection->up() &&
         now_ns_ > lane.heartbeat_sent_ns + max_staleness_ns_;
}

void Router::on_role(Lane& lane, uint64_t sent_ns, Bytes reply) {
  process_.nodes[lane.node].latency_us.store((now_ns_ - std::min(now_ns_, sent_ns)) / 1000);
  if (process_.nodes[lane.node].failures.load() > 0) process_.node_works(lane.node);
  if (reply.starts_with("*3\r\n$6\r\nmaster\r\n")) {
    lane.proof.link_ns = std::max(lane.proof.link_ns, sent_ns);
    if (!cluster_ || lane.settled_ns == sent_ns) lane.proof.master_ns = sent_ns;
    return;
  }
  lane.proof.master_ns = 0;
  drop_space(lane, "the upstream is no primary");
  if (process_.config.upstream.parsed.kind != UpstreamKind::single)
    process_.discovery->refresh("a primary is one no more");
  static log::EverySecond limiter;
  limiter.message(LogLevel::warn, "no hits as user '{}': ROLE does not say master but {}",
                  lane.identity->user.empty() ? "default" : lane.identity->user,
                  reply.substr(0, 60));
}

// A node of a cluster can be a primary and yet not be asked any more: cut off from the others, or
// with its slots taken over. Its view of the cluster must be sound, and as old as the topology we
// go by at most, or the proof that ROLE gives does not count.
void Router::on_cluster_info(Lane& lane, uint64_t sent_ns, Bytes reply) {
  constexpr Bytes kState = "cluster_state:", kEpoch = "cluster_current_epoch:";
  const size_t state = reply.find(kState), epoch_at = reply.find(kEpoch);
  if (reply.starts_with("-NOPERM")) lane.settled_ns = sent_ns;  // not for this user to ask
  if (state == Bytes::npos || epoch_at == Bytes::npos) return;
  if (!reply.substr(state + kState.size()).starts_with("ok")) {
    process_.discovery->refresh("a node says that the cluster has failed");
    return;
  }
  uint64_t epoch = 0;
  std::from_chars(reply.data() + epoch_at + kEpoch.size(), reply.data() + reply.size(), epoch);
  const EpochWatch::Verdict verdict =
      lane.epochs.hear(epoch, monotonic_ms(), process_.discovery->answered_question_ms());
  if (verdict == EpochWatch::Verdict::unknown) process_.discovery->refresh("a new epoch");
  if (verdict == EpochWatch::Verdict::settled) lane.settled_ns = sent_ns;
}

void Router::renew_space(Lane& lane) {
  lane.proof.space = next_space_++;
  lane.space_fills = 0;
}

void Router::drop_space(Lane& lane, Bytes reason) {
  renew_space(lane);
  stats_.invalidations_epoch.add();
  process_.count_epoch(reason);
}

void Router::renew_spaces() {
  const uint64_t flushes = process_.flushes.load();
  const bool meant = flushes != std::exchange(flushes_seen_, flushes);
  for (const auto& lane : lanes_) {
    if (!meant) remember_space(*lane);
    renew_space(*lane);
  }
  if (meant) forget_stale_spaces();
}

void Router::tick() {
  now_ns();
  if (++ticks_ % 16 == 0) {
    Buffer::trim_pool();
    give_back_freed_memory();
  }
  const Config& config = process_.config;
  for (size_t i = 0; i < lanes_.size(); ++i) lanes_[i]->connection->tick(now_ns_);
  for (size_t i = 0; i < pins_.size(); ++i) pins_[i]->connection->tick(now_ns_);
  // A blocked or subscribed client would wait for ever for a node that hangs while another has
  // taken over.
  for (size_t i = pins_.size(); i-- > 0;) {
    if (i >= pins_.size() || pins_[i]->node >= node_lanes_.size()) continue;
    const Lane* const lane = node_lanes_[pins_[i]->node];
    if (cluster_ && lane != nullptr && is_cut_off(*lane))
      pins_[i]->connection->lose("its node does not answer");
  }
  const uint64_t idle_ns = config.upstream.idle_timeout_ms * kNsPerMs;
  for (size_t i = lanes_.size(); i-- > 0;) {
    Lane& lane = *lanes_[i];
    if (lane.proof.tracking && now_ns_ >= lane.next_heartbeat_ns) {
      lane.next_heartbeat_ns = now_ns_ + config.coherence.heartbeat_ms * kNsPerMs;
      heartbeat(lane);
    }
    renew_role(lane);
    if (cluster_ && is_silent(lane)) process_.discovery->refresh("a node is silent");
    const bool refused = !lane.connection->refusal().empty() && !lane.connection->up();
    if (is_unused(lane) && (refused || now_ns_ > lane.idle_since_ns + idle_ns)) close_lane(lane);
  }
  for (size_t i = pins_.size(); i-- > 0;)
    if (pins_[i]->idle && now_ns_ > pins_[i]->idle_since_ns + idle_ns) close_pin(*pins_[i]);
  if (flush_again_ns_ != 0 && now_ns_ > flush_again_ns_ && main_lane_->connection->up()) {
    flush_again_ns_ = 0;
    process_.on_everything(coherence::Cause::epoch, "a write was lost on its way");
    if (announces_)
      process_.bus->request(coherence::BusMessage::Kind::flush, coherence::Cause::epoch, {},
                            static_cast<uint32_t>(default_database()), [](const Bus::Outcome&) {});
  }
  if (!parked_.empty()) on_bus_proof();
  if (!topology_waiters_.empty()) wake_topology_waiters();
  tick_replicas();
  tick_jobs();
  if (process_.patterns_version.load() != patterns_seen_) adopt_patterns();
  if (!patterns_.empty()) walk_patterns(kWalkBucketsPerTick);
  if (draining_) drain_sessions();
  if (config.limits.client_idle_s > 0 && ticks_ % 16 == 0) {
    for (Place& place : sessions_) {
      Session* session = place.session.get();
      if (session != nullptr && session->pin == nullptr && !session->outstanding() &&
          now_ns_ > session->active_ns + config.limits.client_idle_s * 1'000'000'000) {
        stats_.client_idle_closed.add();
        session->close();
      }
    }
  }
}

void Router::on_push(Connection& connection, Bytes push) {
  if (!is_lane(connection)) {
    Pin& pin = pin_of(connection);
    if (Session* session = find(pin.session)) {
      count_channels(pin, push);
      // Nothing the connection still owes can have been answered before this.
      const Pending* front = connection.front_pending();
      const bool owed = front != nullptr && front->kind == Pending::Kind::relay;
      session->out_of_band(push, owed ? &front->slot : nullptr);
    }
    return;
  }
  invalidate(lane_of(connection), push);
}

// >2 $10 invalidate, then *n of keys, or a null: everything. Delimited, so well-formed as RESP;
// what it says is still looked at with care.
void Router::invalidate(Lane& lane, Bytes push) {
  constexpr Bytes kHead = ">2\r\n$10\r\ninvalidate\r\n";
  if (push.substr(0, kHead.size()) != kHead || mutation::no_push) return;
  push.remove_prefix(kHead.size());
  if (push.empty() || push[0] != '*') return drop_space(lane, "FLUSHALL or FLUSHDB");
  size_t keys = 0;
  size_t at = push.find("\r\n") + 2;
  std::from_chars(push.data() + 1, push.data() + at, keys);
  for (; keys > 0 && at < push.size() && push[at] == '$'; --keys) {
    size_t size = 0;
    const size_t begin = push.find("\r\n", at) + 2;
    std::from_chars(push.data() + at + 1, push.data() + begin, size);
    if (size > push.size() - begin) return drop_space(lane, "a push that is not one");
    const Bytes key = push.substr(begin, size);
    at = begin + size + 2;
    const uint64_t hash = hash_key(key, process_.hash_seed);
    process_.stamps.invalidate(hash);
    l1_.erase({hash, lane.proof.space, get_command_->id, key, {}});
    stats_.invalidations_push.add();
  }
}

void Router::on_reply(Connection& connection, Pending& pending, Bytes bytes, bool last) {
  Link& link = *static_cast<Link*>(connection.owner_data);
  now_ns_ = connection.last_read_ns();
  if (last && bytes.starts_with("-") && may_be_redirected(bytes)) {
    Session* const session = link.kind == Link::Kind::pin ? find(pending.session) : nullptr;
    if (link.kind == Link::Kind::lane
            ? redirected(static_cast<Lane&>(link), pending, bytes)
            : session != nullptr &&
                  pin_redirected(static_cast<Pin&>(link), *session, pending, bytes))
      return;
  }
  ReplicaWait wait;
  if (last && pending.writes != nullptr && !bytes.starts_with("-")) wait = pending.writes->wait;
  if (last) {
    end_writes(pending);
    if (link.kind == Link::Kind::lane) {
      Lane& lane = static_cast<Lane&>(link);
      lane.proof.link_ns = std::max(lane.proof.link_ns, pending.sent_ns);
    }
  }
  switch (pending.kind) {
    case Pending::Kind::ignore: return;
    case Pending::Kind::whole: return pending.handler->on_reply(connection, bytes, {});
    case Pending::Kind::stream: return on_flight_reply(connection, pending, bytes, last);
    case Pending::Kind::relay: break;
  }
  if (wait.replicas > 0 && link.kind == Link::Kind::lane) {
    await_replicas(link.node, pending, bytes, wait);
    if (pending.fence) await_fence(pending.session, pending.slot);
    return;
  }
  if (pending.part) return pending.gather->on_part(pending.slot, bytes, last);
  Session* session = find(pending.session);
  // What it has seen now, the bus may not have told of yet (modes.cc).
  const bool is_late = link.kind == Link::Kind::lane && via_bus(static_cast<Lane&>(link).mode);
  if (session != nullptr && last && is_late) session->floor_ns = now_ns_;
  if (link.kind == Link::Kind::pin)
    return on_pin_reply(static_cast<Pin&>(link), session, pending, bytes, last, wait);
  if (session == nullptr) {
    link.converting = false;
    return;
  }
  if (pending.convert) {
    converted_.clear();
    if (!link.converting) link.converter.begin(pending.rule);
    link.converting = !last;
    link.converter.feed(bytes, converted_);
    session->deliver(pending.slot, converted_.readable(), last);
  } else {
    session->deliver(pending.slot, bytes, last);
  }
  if (pending.fence && last) await_fence(pending.session, pending.slot);
}

void Router::on_lost(Connection& connection, Pending& pending, Bytes reason, bool sent) {
  if (is_lane(connection) && retry_lost(lane_of(connection), pending, reason, sent)) return;
  if (sent && (pending.one_write || pending.writes != nullptr))
    write_was_lost(pending.writes != nullptr && pending.writes->all);
  end_writes(pending);
  Link& link = *static_cast<Link*>(connection.owner_data);
  link.converting = false;
  if (pending.kind == Pending::Kind::ignore) return;
  stats_.upstream_errors.add();
  std::string error = sent ? "-ERR upstream connection lost (" : "-ERR upstream unreachable (";
  error.append(reason).append(
      sent && !pending.read_only ? "); the command may have been executed\r\n" : ")\r\n");
  if (!connection.refusal().empty()) error = refusal_for_client(connection.refusal());
  if (reason == kReplyTooLong) stats_.limit_upstream_reply_hit.add();
  if (reason == kReplyTooLong) error = "-ERR the reply is longer than limits.upstream_reply\r\n";
  if (pending.kind == Pending::Kind::whole) return pending.handler->on_reply(connection, {}, error);
  if (pending.part) return pending.gather->fail(pending.slot, error);
  const auto answer = [&](SessionRef ref, uint32_t slot) {
    Session* session = find(ref);
    if (session == nullptr) return;
    if (pending.begun)
      return session->close();  // a part of the reply is out: it cannot be taken back
    session->deliver(slot, error, true);
  };
  if (pending.kind == Pending::Kind::stream) {
    Flight& flight = *static_cast<Flight*>(pending.flight);
    unlink_flight(flight);
    flight.reply.clear();
    auto waiters = std::move(flight.waiters);
    flight.waiters.clear();
    for (const FlightWaiter& waiter : waiters) {
      if (waiter.gather != nullptr) waiter.gather->fail(waiter.slot, error);
      else if (waiter.ahead != 0) lose_read_ahead(waiter);
      else answer(waiter.session, waiter.slot);
    }
    if (!flight.fills) release_flight(flight);
    return;
  }
  if (link.kind == Link::Kind::pin) {
    if (pending.event == static_cast<uint8_t>(PinEvent::sentinel)) return;
    if (pending.event == static_cast<uint8_t>(PinEvent::unblock))
      --static_cast<Pin&>(link).blocking;
  }
  answer(pending.session, pending.slot);
  if (pending.fence)
    if (Session* session = find(pending.session); session != nullptr && !session->closing())
      session->release(pending.slot);
}

// Modules' commands and those of newer servers: their keys and flags, from the server itself.
void Router::load_command_table(Lane& lane) {
  table_loaded_ns_ = now_ns_;
  lane.connection->send(
      {"COMMAND"},
      ReplyTask::pending(
          [this](Bytes reply, Bytes failure) {
            if (!failure.empty() || reply.empty() || reply[0] != '*') return;
            auto table = CommandTable::extended(reply);
            if (!table.ok()) {
              log::warn("COMMAND: {}; going on with the built-in table", table.error().detail);
              return;
            }
            for (unsigned i = 0; i < process_.routers.size(); ++i) {
              Router* router = process_.routers[i];
              process_.post(i, [router, shared = table.value()] { router->set_table(shared); });
            }
          },
          now_ns_));
}

}  // namespace nearcached
