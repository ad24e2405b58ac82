// serve_stale: while the upstream is unreachable, a rule may let what is held be served on, for a
// bounded time after the last proof of the link. A lost link ends the space of its lane as always;
// the space is only remembered, and asked by no one else. Its items still end with their own time,
// with a write through this process, and with NEARCACHE INVALIDATE, PATTERN and FLUSH.
#include "nearcached/base/clock.h"
#include "route/router.h"

namespace nearcached {

// The lane's link is gone, or the bus that fed it: what it held until now may be served stale.
void Router::remember_space(Lane& lane) {
  if (!serves_stale_ || !lane.proof.tracking) return;
  uint64_t proof_ns = lane.proof.master_ns;
  if (via_bus(lane.mode)) proof_ns = std::min(proof_ns, process_.bus->last_proof_ns());
  // The bus and the link go one after the other: what is empty by then replaces nothing.
  if (proof_ns == 0 || lane.space_fills == 0) return;
  lane.stale_space = lane.proof.space;
  lane.stale_proof_ns = proof_ns;
}

void Router::forget_stale_spaces() {
  for (const auto& lane : lanes_) lane->stale_space = 0;
}

// The space to ask for this key; 0: the upstream is there, or the rules do not allow it any more.
uint32_t Router::stale_space(const Lane& lane, Bytes key) const {
  if (!serves_stale_) return 0;
  const bool up = lane.connection->up() && lane.proof.tracking;
  const uint64_t proof_ns = up ? proof_of(lane).master_ns : lane.stale_proof_ns;
  if (up && (proof_ns == 0 || proof_ns + max_staleness_ns_ > now_ns_)) return 0;
  const Rule* const rule = rule_for(key);
  const uint64_t limit_ms = rule == nullptr ? 0 : rule->serve_stale_ms.value_or(0);
  if (now_ns_ >= proof_ns + limit_ms * kNsPerMs) return 0;
  return up ? lane.proof.space : lane.stale_space;
}

bool Router::serve_stale(Session& session, L1Key key, Resp2Rule rule) {
  if (session.outstanding()) return false;
  key.space = stale_space(*session.lane, key.key);
  L1Hit hit;
  if (key.space == 0 || !find_valid(key, hit)) return false;
  stats_.stale_served.add();
  if (!session.muted()) write_hit(session, hit, rule);
  return true;
}

}  // namespace nearcached
