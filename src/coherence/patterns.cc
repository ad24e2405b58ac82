// A vector, walked at every hit while it is not empty: it is empty nearly always, and its length is
// limited. "Stored up to" includes the millisecond of acceptance: dropping too much costs a miss.
#include "nearcached/coherence/patterns.h"

#include "nearcached/base/glob.h"
#include "nearcached/coherence/mutations.h"

namespace nearcached::coherence {

bool PatternSet::kills(Bytes key, uint64_t filled_ms) const {
  if (mutation::no_pattern) return false;
  for (const auto& pattern : patterns_)
    if (filled_ms <= pattern->accepted_ms && glob_match(pattern->glob, key)) return true;
  return false;
}

bool PatternSet::catch_up(const std::vector<std::shared_ptr<const Pattern>>& all) {
  bool any = false;
  for (const auto& pattern : all) {
    if (pattern->id <= newest_) continue;
    patterns_.push_back(pattern);
    newest_ = pattern->id;
    any = true;
  }
  return any;
}

void PatternSet::retire(uint64_t id) {
  std::erase_if(patterns_, [id](const auto& pattern) { return pattern->id <= id; });
}

}  // namespace nearcached::coherence
