// Reading ahead: hits behind a miss of one pipeline.
//
// A hit may not be served while an earlier request of its session is unanswered (G2). Asking the
// upstream for what is held, because one key before it was not, would make one miss in a pipeline
// cost as much as all of it. The hit can wait instead: its reply cannot leave before the earlier
// ones anyway, and then it is served if it is still valid. But what stands behind it would wait
// too; so this is done only if all of that are reads that may be hits themselves, and those among
// them that are not held are asked for now, each by a flight that nobody waits for yet. When the
// session goes on, they have been kept and are hits, or are still under way and are joined: by then
// they follow in the stream whatever the session has seen.
//
// What was found is kept as it will be sent (Lookahead), so that going on is a look at each stamp
// and not the whole request again. It is an answer only while the session stands still: as void as
// the item itself once its stamp, its space or the patterns have changed or its time is over.
//
// What is read ahead and then not kept (too large, or an error) has to be asked for twice. It is
// paid for from a credit that only what was kept refills, so that it stops where it does not pay.
#include <algorithm>

#include "route/flight.h"
#include "route/router.h"

namespace nearcached {
namespace {

constexpr size_t kRequestsAhead = 128;
// So that they fit a Buffer's first block, which is what a session that waits may own, though some
// take more bytes in RESP2 than where they are held.
constexpr size_t kRepliesAheadBytes = Buffer::kPooledBytes / 2;
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
  if (look_ahead(session, in) && read_ahead(lane)) return true;
  forget_lookahead(session);
  return false;
}

// Looks at the next requests, of which `in` begins with the first. False: some are something else.
bool Router::look_ahead(Session& session, Bytes in) {
  ahead_.clear();
  if (free_lookaheads_.empty()) free_lookaheads_.push_back(std::make_unique<Lookahead>());
  Lookahead& ahead = *(session.lookahead = free_lookaheads_.back().release());
  free_lookaheads_.pop_back();
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
      const auto& [known, lane, wire, key] = run_[i];
      if (known->rule == Resp2Rule::unknown && session.resp == 2) return false;
      Lookahead::Found found{.hash = key.hash,
                             .wire_bytes = static_cast<uint32_t>(wire.size()),
                             .command = key.command};
      L1Hit hit;
      if (!find_valid(key, hit)) {
        if (find_flight(key) == nullptr)
          ahead_.push_back({wire, key.key, std::string(key.variant), known, key.hash});
      } else if (ahead.replies.size() + hit.reply.size() <= kRepliesAheadBytes) {
        found.stamp = hit.stamp;
        found.expires_ms = hit.expires_ms;
        found.reply_at = static_cast<uint32_t>(ahead.replies.size());
        write_hit(ahead.replies, session, hit, known->rule);
        found.reply_bytes = static_cast<uint32_t>(ahead.replies.size()) - found.reply_at;
      }
      ahead.requests.push_back(found);
      in.remove_prefix(wire.size());
    }
  }
  return !ahead.requests.empty();
}

// Asks for all of `ahead_`, or for nothing.
bool Router::read_ahead(Lane& lane) {
  size_t wire_bytes = 0;
  for (const Ahead& ahead : ahead_) {
    if (!may_fill(ahead.l1_key(lane), process_.stamps.load(ahead.hash))) return false;
    wire_bytes += ahead.wire.size() * 2 + 128;
  }
  if (static_cast<int64_t>(ahead_.size()) > ahead_credit_ ||
      !lane.connection->has_room(wire_bytes) ||
      stats_.flights.get() + ahead_.size() > process_.config.limits.flights)
    return false;
  for (const Ahead& ahead : ahead_) {
    const L1Key key = ahead.l1_key(lane);
    if (find_flight(key) != nullptr) continue;  // the same key again
    --ahead_credit_;
    start_flight(lane, key, process_.stamps.load(ahead.hash), ahead.known->rule, ahead.wire).ahead =
        true;
    stats_.reads_ahead.add();
    stats_.l1_misses.add();
  }
  return true;
}

// Serves the next requests of a session that goes on as they were found, until one no longer holds:
// that one, and what was not held, takes the usual way. The caller has looked at the rest.
size_t Router::serve_found(Session& session, uint64_t& hits) {
  Lookahead& ahead = *session.lookahead;
  if (ahead.space != session.lane->proof.space || ahead.patterns_seen != patterns_seen_) {
    forget_lookahead(session);
    return 0;
  }
  size_t bytes = 0, served = 0;
  for (; ahead.at + served < ahead.requests.size() && !session.wants_flush(); ++served) {
    const Lookahead::Found& found = ahead.requests[ahead.at + served];
    if (found.reply_bytes == 0 || found.expires_ms <= now_ns_ / kNsPerMs ||
        !coherence::stamp_holds(found.stamp, process_.stamps.load(found.hash)))
      break;
    if (hits_until_audit_ == 1) break;  // which wants the key
    if (hits_until_audit_ != 0) --hits_until_audit_;
    session.direct_out().append(ahead.replies.readable().substr(found.reply_at, found.reply_bytes));
    session.last_command = found.command;
    bytes += found.wire_bytes;
  }
  hits += served;
  went_on(session, served);
  return bytes;
}

void Router::went_on(Session& session, size_t requests) {
  Lookahead& ahead = *session.lookahead;
  ahead.at += requests;
  if (ahead.at == ahead.requests.size()) forget_lookahead(session);
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
