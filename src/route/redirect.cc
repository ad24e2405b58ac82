// What becomes of a request that a node of a cluster did not answer: MOVED and ASK lead elsewhere,
// TRYAGAIN, CLUSTERDOWN, LOADING and READONLY mean later, and so does a lost link, if the request
// was not written or changes nothing. The client waits meanwhile, for upstream.timeout at most; it
// never hears of nodes.
//
// The request's bytes come from the connection that sent it (Connection::request). Its marks (a
// write stays in flight) and its place among the client's replies stay as they are; what the same
// session asks afterwards waits until everything it has under way is answered, because it could
// overtake what was sent again. A read that fills L1 gives up the fill: whoever waits for it is
// sent on as if it had asked alone.
#include <algorithm>
#include <set>

#include "nearcached/base/clock.h"
#include "route/flight.h"
#include "route/gather.h"
#include "route/router.h"

namespace nearcached {

void Router::answer(const Pending& pending, Bytes bytes, bool last) {
  if (pending.part) return pending.gather->on_part(pending.slot, bytes, last);
  Session* session = find(pending.session);
  if (session == nullptr) return;
  session->deliver(pending.slot, bytes, last);
  if (pending.fence && last && !session->closing()) session->release(pending.slot);
}

// One request for each of those who wait for the flight's reply; the flight goes on without them.
std::vector<Pending> Router::scatter(Flight& flight, const Pending& value) {
  unlink_flight(flight);
  std::vector<Pending> all;
  for (const FlightWaiter& waiter : flight.waiters) {
    if (waiter.ahead != 0) {
      lose_read_ahead(waiter);
      continue;
    }
    Pending pending;
    pending.kind = Pending::Kind::relay;
    pending.session = waiter.session;
    pending.slot = waiter.slot;
    pending.part = waiter.gather != nullptr;
    if (pending.part) pending.gather = waiter.gather;
    pending.convert = waiter.convert;
    pending.rule = flight.rule;
    pending.read_only = true;
    pending.redirects = value.redirects;
    pending.hash_slot = value.hash_slot;
    pending.sent_ns = value.sent_ns;
    pending.first_ns = value.first_ns;
    all.push_back(std::move(pending));
  }
  flight.waiters.clear();
  flight.reply.clear();
  if (!flight.fills) release_flight(flight);
  return all;
}

// With Sentinel there is but one node, which can be the wrong one for a moment.
bool Router::may_be_redirected(Bytes error) const {
  if (cluster_) return true;
  if (process_.config.upstream.parsed.kind != UpstreamKind::sentinel) return false;
  const Redirect::Kind kind = parse_redirect(error).kind;
  return kind == Redirect::Kind::readonly || kind == Redirect::Kind::loading;
}

// False: `error` is to be handed on (and may have been replaced by what a client can understand).
bool Router::redirected(Lane& lane, Pending& pending, Bytes& error) {
  if (pending.kind == Pending::Kind::ignore || pending.kind == Pending::Kind::whole) return false;
  return redirect(lane, pending, error, lane.connection->request());
}

bool Router::redirect(Lane& lane, Pending& pending, Bytes& error, const std::string& wire) {
  const Redirect redirect = parse_redirect(error);
  if (redirect.kind == Redirect::Kind::none) return false;
  // This node's part, no other's: it can only be asked for later.
  const bool of_node = pending.part && pending.hash_slot == kNoSlot;
  if (of_node && (!pending.read_only || redirect.kind != Redirect::Kind::loading)) return false;
  if (pending.first_ns == 0) pending.first_ns = pending.sent_ns;
  lane.idle_since_ns = now_ns_;  // it is needed until the end of this
  // What is only to be tried again later ends with its time (run_retries).
  const bool elsewhere =
      redirect.kind == Redirect::Kind::moved || redirect.kind == Redirect::Kind::ask;
  if (elsewhere && ++pending.redirects > process_.config.upstream.redirects_max) {
    process_.discovery->refresh("redirected in circles");
    error = "-ERR the cluster redirects in circles (upstream.redirects_max)\r\n";
    return false;
  }
  const std::string why(error);
  std::vector<Pending> requests;
  if (pending.kind == Pending::Kind::stream) {
    requests = scatter(*static_cast<Flight*>(pending.flight), pending);
  } else {
    requests.push_back(std::move(pending));
  }
  const NodeIndex node = follow(redirect, *lane.connection);
  const bool ask = redirect.kind == Redirect::Kind::ask;
  for (Pending& request : requests) {
    Lane* const to = node == kNoNode ? nullptr : lane_for(lane.identity, 0, lane.resp, node);
    const Session* const session = find(request.session);
    const bool behind = session != nullptr && session->retries > 0;
    if (to == nullptr || behind) try_later(lane, std::move(request), wire, why);
    else resend(*to, std::move(request), wire, ask);
  }
  return true;
}

// Where it leads; kNoNode: nowhere, or not yet.
NodeIndex Router::follow(const Redirect& redirect, const Connection& from) {
  const bool ask = redirect.kind == Redirect::Kind::ask;
  if (redirect.kind != Redirect::Kind::moved && !ask) {
    if (redirect.kind != Redirect::Kind::try_again)
      process_.discovery->refresh("a node cannot answer now");
    return kNoNode;
  }
  (ask ? stats_.redirects_ask : stats_.redirects_moved).add();
  Address address = redirect.address;
  if (address.host.empty() && !ask) {  // the host is not known to the node: CLUSTER SLOTS may say
    process_.discovery->refresh("MOVED without a host");
    return kNoNode;
  }
  if (address.host.empty()) address.host = from.options().address.host;
  if (ask) process_.topology.learn(address);
  else process_.discovery->moved(redirect.slot, address);
  if (topology_->version() != process_.topology.version()) adopt_topology();
  return topology_->find(address);
}

// A private connection at the wrong node. A command that waits for data, or that was to decide on
// the node, goes on at the right one; whatever else has its state here, and the client is told to
// ask again.
bool Router::pin_redirected(Pin& pin, Session& session, Pending& pending, Bytes& error) {
  const Redirect redirect = parse_redirect(error);
  if (redirect.kind == Redirect::Kind::none || !cluster_) return false;
  const bool ask = redirect.kind == Redirect::Kind::ask;
  const NodeIndex node = follow(redirect, *pin.connection);
  const auto event = static_cast<PinEvent>(pending.event);
  const bool alone = pin.connection->pending() == 0 && !pin.subscribed() && !pin.sticky;
  const bool blocked = event == PinEvent::unblock && pin.blocking == 1 && !pin.watch;
  const bool may_go = alone && (blocked || event == PinEvent::bind);
  Lane* const lane = node == kNoNode || !may_go ? nullptr : lane_for(session.identity, 0, 3, node);
  if (lane == nullptr || ++pending.redirects > process_.config.upstream.redirects_max) {
    error = event == PinEvent::exec
                ? "-EXECABORT Transaction discarded because of: its slot is not at this node any "
                  "more, ask again\r\n"
                : "-TRYAGAIN the slot is not at this node any more: ask again\r\n";
    return false;
  }
  const std::string wire = pin.connection->request();
  if (!move_pin(session, *lane, ask)) {
    // Its transaction is gone: what follows must not be executed command by command.
    give_up(pending, kNoPin);
    session.close_when_done();
    return true;
  }
  Pin& moved = *session.pin;
  if (ask && !moved.multi) send_ignored(*moved.connection, kAsking);
  pending.sent_ns = now_ns_;
  moved.connection->send(wire, std::move(pending));
  went_to(session, moved);
  return true;
}

// Takes what is known of the session's private connection to a new one, at the lane's node. What
// was queued there before its first key is queued again. False: no connection to spare.
bool Router::move_pin(Session& session, Lane& lane, bool asking) {
  Pin before;
  Pin& old = *session.pin;
  before.multi = old.multi;
  before.watch = old.watch;
  before.poisoned = old.poisoned;
  before.changing = old.changing;
  before.blocking = old.blocking;
  before.slot = old.slot;
  before.unbound = std::move(old.unbound);
  before.unbound_bytes = old.unbound_bytes;
  before.writes = std::move(old.writes);
  before.written_keys = std::move(old.written_keys);
  before.writes_unknown = old.writes_unknown;
  before.writes_everything = old.writes_everything;
  before.wait = old.wait;
  before.queued = old.queued;
  before.bound = old.bound;
  before.reusable = old.reusable;
  close_pin(old);
  attach(session, lane);
  if (!acquire_pin(session)) return false;
  Pin& pin = *session.pin;
  pin.multi = before.multi;
  pin.watch = before.watch;
  pin.poisoned = before.poisoned;
  pin.changing = before.changing;
  pin.blocking = before.blocking;
  pin.slot = before.slot;
  pin.unbound = std::move(before.unbound);
  pin.unbound_bytes = before.unbound_bytes;
  pin.writes = std::move(before.writes);
  pin.written_keys = std::move(before.written_keys);
  pin.writes_unknown = before.writes_unknown;
  pin.writes_everything = before.writes_everything;
  pin.wait = before.wait;
  pin.queued = before.queued;
  pin.bound = before.bound;
  pin.reusable = pin.reusable && before.reusable;
  session.gives_up_on_eof = pin.blocking > 0;
  pin.asking = asking;
  if (pin.multi && asking) send_ignored(*pin.connection, kAsking);  // holds until EXEC
  if (pin.multi) send_ignored(*pin.connection, "*1\r\n$5\r\nMULTI\r\n");
  for (const std::string& wire : pin.unbound) send_ignored(*pin.connection, wire);
  return true;
}

void Router::send_ignored(Connection& connection, Bytes wire) {
  Pending ignored;
  ignored.sent_ns = now_ns_;
  connection.send(wire, std::move(ignored));
}

void Router::resend(Lane& lane, Pending pending, Bytes wire, bool asking) {
  if (Session* session = find(pending.session)) session->last_connection = &kNowhere;
  if (is_cut_off(lane) || !lane.connection->has_room(wire.size()))
    return give_up(pending, unreachable(lane.node));
  pending.sent_ns = now_ns_;
  pending.begun = false;
  if (asking) send_ignored(*lane.connection, kAsking);
  lane.connection->send(wire, std::move(pending));
  lane.idle_since_ns = now_ns_;
}

void Router::give_up(Pending& pending, Bytes error) {
  end_writes(pending);
  stats_.upstream_errors.add();
  answer(pending, error, true);
}

void Router::try_later(const Lane& from, Pending pending, std::string wire, Bytes error) {
  Session* const session = find(pending.session);
  if (session != nullptr) session->last_connection = &kNowhere;
  if (retries_bytes_ + wire.size() > process_.config.limits.upstream_queue_bytes) {
    stats_.limit_upstream_queue_hit.add();
    return give_up(pending, error);
  }
  const uint64_t pause_ns = process_.config.upstream.retry_ms * kNsPerMs;
  stats_.retries.add();
  if (session != nullptr) ++session->retries;
  retries_bytes_ += wire.size();
  retries_.push_back({now_ns_ + pause_ns, std::move(pending), std::move(wire), from.identity,
                      from.database, from.resp, std::string(error)});
  if (retries_.size() > 1) return;
  if (retry_timer_ == nullptr)
    retry_timer_ = std::make_unique<Timer>(loop_, [this] { run_retries(); });
  retry_timer_->start(process_.config.upstream.retry_ms, 0);
}

// Requests of one session go in its order, whatever way they came here: behind one that cannot be
// sent yet, its others wait as well.
void Router::run_retries() {
  now_ns();
  if (topology_->version() != process_.topology.version()) adopt_topology();
  std::vector<Retry> due;
  due.swap(retries_);
  retries_bytes_ = 0;
  const auto place = [](const Pending& pending) {
    return pending.part ? pending.gather->slot() : pending.slot;
  };
  std::stable_sort(due.begin(), due.end(), [&](const Retry& one, const Retry& other) {
    const uint32_t session = one.pending.session.index, others = other.pending.session.index;
    if (session != others) return session < others;
    return static_cast<int32_t>(place(one.pending) - place(other.pending)) < 0;
  });
  const uint64_t patience_ns = process_.config.upstream.timeout_ms * kNsPerMs;
  std::set<uint32_t> kept;  // sessions, by their place
  for (Retry& retry : due) {
    const uint16_t slot = retry.pending.hash_slot;
    Gather* const gather =
        retry.pending.part && slot == kNoSlot ? retry.pending.gather : nullptr;  // of a node's
    const NodeIndex node = gather != nullptr ? gather->successor(retry.pending.slot, *topology_)
                           : slot == kNoSlot ? main_lane_->node
                                             : topology_->owner(slot);
    const bool late = now_ns_ > retry.pending.first_ns + patience_ns;
    Session* const session = find(retry.pending.session);
    const bool early = retry.due_ns > now_ns_ ||
                       (session != nullptr && kept.contains(retry.pending.session.index));
    // Cursors are the node's own: who takes over begins anew (scan()).
    const bool lost_scan = !early && node == kNoNode && gather != nullptr && gather->is_scan();
    Lane* const lane = late || early || node == kNoNode
                           ? nullptr
                           : lane_for(retry.identity, retry.database, retry.resp, node);
    if (lane == nullptr && !late && !lost_scan) {
      if (!early) retry.due_ns = now_ns_ + process_.config.upstream.retry_ms * kNsPerMs;
      if (session != nullptr) kept.insert(retry.pending.session.index);
      retries_bytes_ += retry.wire.size();
      retries_.push_back(std::move(retry));
      continue;
    }
    if (session != nullptr) --session->retries;
    if (late) give_up(retry.pending, retry.error);
    else if (lost_scan) gather->skip_page(retry.pending.slot);
    else resend(*lane, std::move(retry.pending), retry.wire, false);
  }
  if (!retries_.empty()) retry_timer_->start(process_.config.upstream.retry_ms, 0);
}

// The link was lost first. A write that was sent may have been executed: that is for the client to
// find out.
bool Router::retry_lost(Lane& lane, Pending& pending, Bytes reason, bool sent) {
  if (process_.config.upstream.parsed.kind == UpstreamKind::single || shutting_down_) return false;
  if (pending.kind != Pending::Kind::relay && pending.kind != Pending::Kind::stream) return false;
  if (pending.part && pending.hash_slot == kNoSlot && !pending.read_only) return false;
  if (pending.begun && !pending.part) return false;
  if ((sent && !pending.read_only) || reason == kReplyTooLong) return false;
  if (!lane.connection->refusal().empty()) return false;
  if (pending.first_ns == 0) pending.first_ns = pending.sent_ns;
  if (now_ns_ > pending.first_ns + process_.config.upstream.timeout_ms * kNsPerMs) return false;
  const std::string wire = lane.connection->request();
  const std::string error = "-ERR upstream unreachable (" + std::string(reason) + ")\r\n";
  if (pending.kind == Pending::Kind::relay) {
    if (pending.part) pending.gather->restart(pending.slot);
    try_later(lane, std::move(pending), wire, error);
    return true;
  }
  for (Pending& request : scatter(*static_cast<Flight*>(pending.flight), pending))
    try_later(lane, std::move(request), wire, error);
  return true;
}

}  // namespace nearcached
