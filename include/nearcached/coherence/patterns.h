// Invalidation by pattern: right from the moment a pattern is accepted, worked off later.
//
// An accepted pattern says: whatever matches and was stored up to then is dead. It is asked at
// every hit until the worker has walked through its table once and dropped what the pattern killed;
// then it is forgotten. One worker's view; the process keeps the list the workers copy from
// (route/router.h).
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nearcached/base/bytes.h"

namespace nearcached::coherence {

struct Pattern {
  uint64_t id = 0;           ///< increasing in the order of acceptance
  uint64_t accepted_ms = 0;  ///< monotonic
  std::string glob;
};

class PatternSet {
 public:
  bool empty() const { return patterns_.empty(); }
  size_t size() const { return patterns_.size(); }
  /// Is an item of this key, stored at `filled_ms`, dead by one of the patterns?
  bool kills(Bytes key, uint64_t filled_ms) const;
  /// Takes over those newer than what it has seen. True if there were any.
  bool catch_up(const std::vector<std::shared_ptr<const Pattern>>& all);
  /// Forgets those up to `id`: the table has been walked through since they were accepted.
  void retire(uint64_t id);
  uint64_t newest() const { return newest_; }

 private:
  std::vector<std::shared_ptr<const Pattern>> patterns_;
  uint64_t newest_ = 0;
};

}  // namespace nearcached::coherence
