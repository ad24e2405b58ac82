// Replicas: reads that may be stale, and writes that must not be on one node alone.
//
// Reads: only of keys whose rule says replica_reads. What a replica answers may be older than what
// its primary has already told us of, so nothing but its own time ends it in L1: it is kept only if
// the rule says replica_fill, for the rule's ttl, in the space of the replica's lane, where only
// reads that go there find it. (Tracking at the replica would tell of what it executes; how far
// that is behind nobody knows, so there would be no bound either.)
//
// Writes: the reply of a key whose rule says wait_replicas is held until WAIT has counted them.
// WAIT speaks of the last command of its own connection, whatever that was, and blocks it; so it
// goes, behind a PING, over a connection of its own, and answers for all that the node had executed
// by then, whichever connection it came over. Rounds are shared like those of fences (fence.cc).
#include <algorithm>
#include <charconv>

#include "nearcached/base/clock.h"
#include "nearcached/base/hash.h"
#include "route/gather.h"
#include "route/router.h"

namespace nearcached {

// Null: the primary, in the usual way.
Lane* Router::replica_for(const Session& session, uint16_t slot, std::span<const Bytes> args,
                          const Command& command) {
  if (!command.readonly || command.route != Route::lane || keys_.empty()) return nullptr;
  const Rule* const rule = rule_for(args[keys_[0].arg]);
  if (rule == nullptr || !rule->replica_reads) return nullptr;
  const NodeIndex primary = topology_->owner(slot);
  const ReadFrom from = process_.config.upstream.read_from;
  Lane* best = nullptr;
  uint64_t best_us =
      from == ReadFrom::nearest ? process_.nodes[primary].latency_us.load() : UINT64_MAX;
  for (const NodeIndex node : topology_->replicas_of(primary)) {
    if (process_.is_broken(node, now_ns_)) continue;
    Lane* const lane = lane_for(session.identity, 0, 3, node);
    if (lane == nullptr || !lane->replica || lane->renews_role) continue;
    // One that is still connecting is better than none, if only a replica will do.
    const uint64_t us = lane->connection->up()      ? process_.nodes[node].latency_us.load()
                        : from == ReadFrom::replica ? UINT64_MAX - 1
                                                    : UINT64_MAX;
    if (us >= best_us) continue;
    best_us = us;
    best = lane;
  }
  return best;
}

// On the replica's lane. A hit needs no proof: it is as old as the rule allows. What is declared
// stale here (writes through this process, NEARCACHE) ends it all the same.
Session::Outcome Router::read_at_replica(Session& session, const Request& request,
                                         const Command& command) {
  const auto args = request.args;
  const Lane& lane = *session.lane;
  const Cache cache = cache_of(command, args);
  const Resp2Rule shape = resp2_rule_of(command, args);
  if (cache == Cache::never || cache == Cache::mget ||
      (shape == Resp2Rule::unknown && session.resp == 2) || !rule_for(args[1])->replica_fill ||
      !process_.config.l1.enabled || !lane.connection->up() ||
      request.wire.size() > process_.config.l1.value_bytes_max || !catch_up())
    return relay(session, request, &command);
  const L1Key key{hash_key(args[1], process_.hash_seed), lane.proof.space, command.id, args[1],
                  variant_of(args.subspan(1))};
  L1Hit hit;
  if (session.outstanding() || !find_valid(key, hit))
    return start_read(session, request, command, key, shape);
  stats_.l1_hits.add();
  if (!session.muted()) write_hit(session, hit, shape, request.behind.empty());
  return Outcome::done;
}

// The keys in keys_ are those of `args`. The strictest of the written ones' rules counts.
ReplicaWait Router::wait_for(std::span<const Bytes> args) const {
  ReplicaWait wait;
  if (!waits_for_replicas_) return wait;
  for (const KeyRef& key : keys_)
    if (const Rule* const rule = key.write ? rule_for(args[key.arg]) : nullptr)
      if (rule->wait_replicas > 0) wait.raise({rule->wait_replicas, rule->wait_timeout_ms});
  return wait;
}

// Behind mark_writes().
void Router::note_waits(Pending& pending, std::span<const Bytes> args) {
  if (pending.read_only) return;
  const ReplicaWait wait = wait_for(args);
  if (wait.replicas == 0) return;
  if (pending.writes == nullptr) pending.writes = std::make_unique<WriteMarks>();
  pending.writes->wait = wait;
  pending.whole_reply = true;
}

void Router::await_replicas(NodeIndex node, const Pending& pending, Bytes reply, ReplicaWait wait) {
  Waiters& waiters = replica_waiters_[node];
  if (waiters.lane == nullptr) {
    const auto database = static_cast<uint32_t>(default_database());
    waiters.lane = std::make_unique<Lane>();
    waiters.lane->identity = default_identity_;
    waiters.lane->node = node;
    waiters.lane->resp = 2;
    waiters.lane->connection = std::make_unique<Connection>(
        loop_, *this, connection_options(*default_identity_, database, 2, node));
    waiters.lane->connection->owner_data = static_cast<Link*>(waiters.lane.get());
    waiters.lane->connection->connect();
    stats_.upstream_connections.add();
  }
  Waiters::Held held{{}, {}, wait};
  held.answer.session = pending.session;
  held.answer.slot = pending.slot;
  held.answer.part = pending.part;
  if (pending.part) held.answer.gather = pending.gather;
  if (pending.convert) {
    converted_.clear();
    Resp2Converter::append_converted(reply, pending.rule, converted_);
    reply = converted_.readable();
  }
  held.reply.assign(reply);
  waiters.waiting.push_back(std::move(held));
  if (!waiters.running) start_wait_round(node);
}

void Router::start_wait_round(NodeIndex node) {
  Waiters& waiters = replica_waiters_[node];
  waiters.running = true;
  waiters.began_ns = now_ns_;
  waiters.round.swap(waiters.waiting);
  ReplicaWait all;
  for (const Waiters::Held& held : waiters.round) all.raise(held.wait);
  Connection& connection = *waiters.lane->connection;
  Pending ignored;
  ignored.sent_ns = now_ns_;
  connection.send({"PING"}, std::move(ignored));
  Pending wait = ReplyTask::pending(
      [this, node](Bytes reply, Bytes failure) { end_wait_round(node, reply, failure); }, now_ns_);
  wait.no_timeout = true;
  connection.send({"WAIT", std::to_string(all.replicas), std::to_string(all.timeout_ms)},
                  std::move(wait));
  waiters.timeout_ms = all.timeout_ms;
  stats_.replica_waits.add();
}

void Router::end_wait_round(NodeIndex node, Bytes reply, Bytes failure) {
  Waiters& waiters = replica_waiters_[node];
  uint32_t count = 0;
  if (failure.empty() && reply.starts_with(":"))
    std::from_chars(reply.data() + 1, reply.data() + reply.size(), count);
  std::vector<Waiters::Held> round;
  round.swap(waiters.round);
  waiters.running = false;
  for (const Waiters::Held& held : round) {
    if (count >= held.wait.replicas) {
      answer(held.answer, held.reply, true);
      continue;
    }
    stats_.replica_waits_short.add();
    answer(held.answer,
           "-NOREPLICAS written, but only " + std::to_string(count) + " of " +
               std::to_string(held.wait.replicas) +
               " replicas have confirmed it (wait_replicas)\r\n",
           true);
  }
  if (!waiters.waiting.empty() && !shutting_down_) start_wait_round(node);
}

// Replicas feed nothing and have no heartbeat: a PING now and then says how far they are, for
// read_from = "nearest".
void Router::tick_replicas() {
  for (auto& [node, waiters] : replica_waiters_) {
    Connection& connection = *waiters.lane->connection;
    connection.tick(now_ns_);
    // The node itself ends WAIT in time, if it runs.
    const uint64_t patience_ms = waiters.timeout_ms + process_.config.upstream.timeout_ms;
    if (waiters.running && now_ns_ > waiters.began_ns + patience_ms * kNsPerMs)
      connection.lose("no reply to WAIT");
  }
  for (const auto& lane : lanes_) {
    if (!lane->replica || !lane->connection->up() || now_ns_ < lane->next_heartbeat_ns) continue;
    lane->next_heartbeat_ns = now_ns_ + 1'000 * kNsPerMs;
    const uint64_t sent_ns = now_ns();
    lane->connection->send(
        {"PING"}, ReplyTask::pending(
                      [this, node = lane->node, sent_ns](Bytes, Bytes failure) {
                        if (failure.empty())
                          process_.nodes[node].latency_us.store((monotonic_ns() - sent_ns) / 1000);
                      },
                      sent_ns));
  }
}

}  // namespace nearcached
