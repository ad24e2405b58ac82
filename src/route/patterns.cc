// NEARCACHE PATTERN, one worker's part: a pattern counts from the moment it is accepted, because
// every hit is compared with those that are new (coherence/patterns.h); meanwhile the table is
// walked in small steps, and when it has been walked through, the patterns are forgotten. Fills
// that were under way when a pattern came are neither kept nor joined: what they bring may be from
// before it. What a rule keeps in memory of its own goes at once if the pattern is its glob.
#include "nearcached/base/clock.h"
#include "route/router.h"

namespace nearcached {

void Router::adopt_patterns() {
  patterns_seen_ = process_.patterns_version.load();
  const auto all = process_.patterns();
  const uint64_t known = patterns_.newest();
  if (!patterns_.catch_up(all)) return;
  for (const auto& pattern : all)
    if (pattern->id > known) stats_.pattern_items_dropped.add(l1_.clear_rule(pattern->glob));
  fills_void_ns_ = now_ns();
  pattern_walk_ = {};
}

void Router::walk_patterns(uint64_t buckets) {
  const bool done = l1_.erase_if(pattern_walk_, buckets, [this](Bytes key, uint64_t filled_ms) {
    const bool dead = patterns_.kills(key, filled_ms);
    if (dead) stats_.pattern_items_dropped.add();
    return dead;
  });
  if (!done) return;
  process_.pattern_walked(index_, patterns_.newest());
  patterns_.retire(patterns_.newest());
}

}  // namespace nearcached
