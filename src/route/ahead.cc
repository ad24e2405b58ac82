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
// What is read ahead and then not kept (too large, or an error) has to be asked for twice. It is
// paid for from a credit that only what was kept refills, so that it stops where it does not pay.
#include <algorithm>

#include "route/flight.h"
#include "route/router.h"

namespace nearcached {
namespace {

constexpr size_t kRequestsAhead = 128;

}  // namespace

void Router::credit_ahead(int64_t by) {
  ahead_credit_ = std::min(ahead_credit_ + by, kAheadCreditMax);
}

/// What the session asks for is held. May it wait for its earlier replies?
bool Router::waits_for_hit(const Session& session, Lane& lane, Bytes behind) {
  if (cluster_ || session.last_connection != &lane) return false;
  if (!coherence::may_serve(proof_of(lane), {session.floor_ns, false}, now_ns_, max_staleness_ns_))
    return false;
  ahead_.clear();
  for (size_t n = 0; n < kRequestsAhead && behind.size() >= RequestShape::kHashedBytes;) {
    const size_t count = read_run(lane, behind);
    if (count == 0) {
      const KnownShape& known = shapes_[RequestShape::hash(behind, shapes_.size())];
      if (!known.shape.begins(behind)) return false;
      break;  // it has not come in full
    }
    for (size_t i = 0; i < count; ++i) {
      const auto& [known, wire, key] = run_[i];
      if (known->rule == Resp2Rule::unknown && session.resp == 2) return false;
      if (!is_held(key) && find_flight(key) == nullptr)
        ahead_.push_back({wire, key.key, std::string(key.variant), known, key.hash});
      behind.remove_prefix(wire.size());
    }
    n += count;
  }
  return read_ahead(lane);
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

}  // namespace nearcached
