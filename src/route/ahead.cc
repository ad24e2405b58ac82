// Reading ahead: what stands behind a miss in a pipeline.
//
// A hit may not be served while an earlier request of its session is unanswered (G2). Asking the
// upstream for what is held, because one key before it was not, would make one miss in a pipeline
// cost as much as all of it. The hit can wait instead: its reply cannot leave before the earlier
// ones anyway, and then it is served if it is still valid. But what stands behind it would wait
// too; so this is done only if all of that are reads that may be hits themselves, and those among
// them that are not held are asked for now. All of it is put down in the session's Lookahead, as it
// will be sent, so that going on is a look at each stamp and not the whole request again.
//
// Why that is in order: what was found was true from when it was found until the look at its stamp,
// so it may stand at any place in between; what was asked stands at its place in the lane's stream,
// later requests at later places. Once one request has been answered by anything else (asked again,
// or held since), its answer may be newer than those places: what was asked for the rest is then
// void (go_astray). What was found is so by itself, once its stamp, its space or the patterns have
// changed or its time is over.
//
// What is read ahead in vain is asked for twice. It is paid for from a credit that only what was
// used refills, so that it stops where it does not pay.
#include <algorithm>

#include "route/flight.h"
#include "route/router.h"

namespace nearcached {
namespace {

constexpr size_t kRequestsAhead = 128;
// What is found fits a Buffer's first block, though some take more bytes in RESP2 than where they
// are held.
constexpr size_t kFoundBytes = Buffer::kPooledBytes / 2;
constexpr size_t kRepliesAheadBytes = 64 * 1024;  // with what is asked
constexpr size_t kFreeLookaheadsMax = 64;

}  // namespace

void Router::credit_ahead(int64_t by) {
  ahead_credit_ = std::min(ahead_credit_ + by, kAheadCreditMax);
}

// What the session asks for is held. May it wait for its earlier replies?
bool Router::waits_for_hit(Session& session, Lane& lane, const Request& request) {
  if (session.lookahead != nullptr) return true;  // it has been asked already
  if (cluster_ || request.wire.empty() || session.last_connection != &lane) return false;
  if (!coherence::may_serve(proof_of(lane), {session.floor_ns, false}, now_ns_, max_staleness_ns_))
    return false;
  const Bytes in(request.wire.data(), request.wire.size() + request.behind.size());
  if (look_ahead(session, in) && read_ahead(session, lane)) return true;
  forget_lookahead(session);
  return false;
}

// Looks at the next requests, of which `in` begins with the first. False: some are something else.
bool Router::look_ahead(Session& session, Bytes in) {
  ahead_.clear();
  if (free_lookaheads_.empty()) free_lookaheads_.push_back(std::make_unique<Lookahead>());
  Lookahead& ahead = *(session.lookahead = free_lookaheads_.back().release());
  free_lookaheads_.pop_back();
  if (++lookaheads_ == 0) ++lookaheads_;
  ahead.serial = lookaheads_;
  ahead.space = session.lane->proof.space;
  ahead.patterns_seen = patterns_seen_;
  while (ahead.requests.size() < kRequestsAhead && in.size() >= RequestShape::kHashedBytes) {
    const size_t count = read_run(session, in);
    if (count == 0) {
      const KnownShape& known = shapes_[RequestShape::hash(in, shapes_.size())];
      if (!known.shape.begins(in)) return false;
      break;  // it has not come in full
    }
    for (size_t i = 0; i < count; ++i) {
      const auto& [known, lane, wire, key, hint] = run_[i];
      if (known->rule == Resp2Rule::unknown && session.resp == 2) return false;
      Lookahead::Next& next = ahead.requests.emplace_back();
      next.hash = key.hash;
      next.wire_bytes = static_cast<uint32_t>(wire.size());
      next.command = key.command;
      L1Hit hit;
      if (!find_valid(key, hit, hint)) {
        admission_.prefetch(key.hash);
        ahead_.push_back(
            {wire, key.key, std::string(key.variant), known, key.hash, ahead.requests.size() - 1});
      } else if (ahead.replies.size() + hit.reply.size() <= kFoundBytes) {
        next.stamp = hit.stamp;
        next.expires_ms = hit.expires_ms;
        next.reply_at = static_cast<uint32_t>(ahead.replies.size());
        write_hit(ahead.replies, session, hit, known->rule);
        next.reply_bytes = static_cast<uint32_t>(ahead.replies.size()) - next.reply_at;
      }
      in.remove_prefix(wire.size());
    }
  }
  return !ahead.requests.empty();
}

// Asks for all of `ahead_`, or for nothing.
bool Router::read_ahead(Session& session, Lane& lane) {
  size_t wire_bytes = 0;
  for (const Ahead& ahead : ahead_) wire_bytes += ahead.wire.size() * 2 + 128;
  if (static_cast<int64_t>(ahead_.size()) > ahead_credit_ ||
      !lane.connection->has_room(wire_bytes) ||
      stats_.flights.get() + ahead_.size() > process_.config.limits.flights)
    return false;
  const bool convert = session.resp == 2 && lane.connection->resp() == 3;
  uint64_t before = session.last_sequence;
  for (const Ahead& ahead : ahead_) {
    const L1Key key = ahead.l1_key(lane);
    const uint64_t stamp = process_.stamps.load(ahead.hash);
    const bool fills = may_fill(key, stamp);
    Flight* flight = fills ? flight_behind(session, key, stamp, before) : nullptr;
    if (flight == nullptr) {
      const Resp2Rule rule = ahead.known->rule;
      flight = &start_flight(lane, key, stamp, rule, ahead.wire, fills && admits(ahead.hash));
      stats_.reads_ahead.add();
    }
    --ahead_credit_;
    before = flight->sequence;
    flight->waiters.push_back({session.ref, static_cast<uint32_t>(ahead.request), convert, nullptr,
                               session.lookahead->serial});
    Lookahead::Next& next = session.lookahead->requests[ahead.request];
    next.asked = true;
    next.flight = flight;
    next.sequence = flight->sequence;
  }
  return true;
}

namespace {

Lookahead::Next* waiting_for(Session* session, const FlightWaiter& waiter) {
  if (session == nullptr || session->lookahead == nullptr ||
      session->lookahead->serial != waiter.ahead)
    return nullptr;
  return &session->lookahead->requests[waiter.slot];
}

}  // namespace

// A piece of a reply that was asked for ahead. Replies come one after the other: its pieces are one
// run of bytes.
void Router::on_read_ahead(const FlightWaiter& waiter, Bytes bytes, bool last) {
  Session* const session = find(waiter.session);
  Lookahead::Next* const next = waiting_for(session, waiter);
  if (next == nullptr || !next->asked) return;
  Buffer& replies = session->lookahead->replies;
  if (replies.size() + bytes.size() > kRepliesAheadBytes) return next->drop();
  if (next->reply_bytes == 0) next->reply_at = static_cast<uint32_t>(replies.size());
  replies.append(bytes);
  next->reply_bytes += static_cast<uint32_t>(bytes.size());
  if (last) next->flight = nullptr;
}

void Router::lose_read_ahead(const FlightWaiter& waiter) {
  if (Lookahead::Next* const next = waiting_for(find(waiter.session), waiter)) next->drop();
}

bool Router::is_current(Session& session) {
  const Lookahead& ahead = *session.lookahead;
  if (ahead.space == session.lane->proof.space && ahead.patterns_seen == patterns_seen_)
    return true;
  forget_lookahead(session);
  return false;
}

// Serves the next requests of a session that goes on from what is known of them, until one is not:
// that one takes the usual way. The caller has looked at what holds for all of them.
size_t Router::serve_known_ahead(Session& session, uint64_t& hits) {
  if (!is_current(session)) return 0;
  Lookahead& ahead = *session.lookahead;
  size_t bytes = 0, served = 0, asked = 0;
  for (; ahead.at + served < ahead.requests.size() && !session.wants_flush(); ++served) {
    const Lookahead::Next& next = ahead.requests[ahead.at + served];
    if (next.reply_bytes == 0 || next.flight != nullptr) break;
    if (next.asked) {
      ++asked;
    } else {
      if (next.expires_ms <= now_ns_ / kNsPerMs ||
          !coherence::stamp_holds(next.stamp, process_.stamps.load(next.hash)))
        break;
      if (hits_until_audit_ == 1) break;  // which wants the key
      if (hits_until_audit_ != 0) --hits_until_audit_;
    }
    session.direct_out().append(ahead.replies.readable().substr(next.reply_at, next.reply_bytes));
    session.last_command = next.command;
    bytes += next.wire_bytes;
  }
  hits += served - asked;
  count_read_ahead(asked);
  go_on(session, served);
  return bytes;
}

// The session's next request, if it has been asked for: what has come of its reply, and the rest
// when it comes.
bool Router::take_read_ahead(Session& session) {
  if (!is_current(session) || !session.lookahead->is_asked()) return false;
  Lookahead& ahead = *session.lookahead;
  const Lookahead::Next next = ahead.requests[ahead.at];
  const uint32_t slot = session.reserve();
  session.last_sequence = std::max(session.last_sequence, next.sequence);
  session.last_command = next.command;
  if (next.flight != nullptr)
    for (FlightWaiter& waiter : next.flight->waiters)
      if (waiter.ahead == ahead.serial && waiter.slot == ahead.at) {
        waiter.ahead = 0;
        waiter.slot = slot;
        break;
      }
  session.deliver(slot, ahead.replies.readable().substr(next.reply_at, next.reply_bytes),
                  next.flight == nullptr);
  count_read_ahead(1);
  if (session.lookahead != nullptr) go_on(session, 1);
  return true;
}

void Router::count_read_ahead(size_t requests) {
  stats_.l1_misses.add(requests);
  stats_.commands_processed.add(requests);
  credit_ahead(2 * static_cast<int64_t>(requests));
}

void Router::go_on(Session& session, size_t requests) {
  Lookahead& ahead = *session.lookahead;
  ahead.at += requests;
  if (ahead.at == ahead.requests.size()) forget_lookahead(session);
}

// They were not answered from what was known of them.
void Router::go_astray(Session& session, size_t requests) {
  if (requests == 0) return;
  for (Lookahead::Next& next : session.lookahead->requests)
    if (next.asked) next.drop();
  go_on(session, requests);
}

void Router::forget_lookahead(Session& session) {
  std::unique_ptr<Lookahead> ahead(std::exchange(session.lookahead, nullptr));
  if (free_lookaheads_.size() == kFreeLookaheadsMax) return;
  ahead->requests.clear();
  ahead->at = 0;
  ahead->replies.clear();
  free_lookaheads_.push_back(std::move(ahead));
}

}  // namespace nearcached
