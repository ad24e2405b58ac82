// L1 as a worker has it: a table for most keys, and one for each rule that has memory of its own.
//
// What a rule has set aside nobody else can push out of it, and it pushes out nobody else; each
// table has its own policy. Which one a key belongs to follows from the key alone, so every
// question reaches the right one, and none has to be asked twice. Without such rules this is the
// one table and a comparison. Not thread-safe; what the calls do is said in l1/table.h.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "nearcached/l1/table.h"

namespace nearcached {

/// One rule; the first whose `keys` matches a key decides.
struct L1Rule {
  std::string keys;           ///< a glob
  uint64_t memory_bytes = 0;  ///< 0: its keys are kept with all others
  L1Policy policy = L1Policy::automatic;
};

class L1Tables {
 public:
  /// `options` are those of all together: the rules' memory is part of theirs, and must be less;
  /// each table has the same share of the entries as of the memory.
  L1Tables(const L1Options& options, const std::vector<L1Rule>& rules);

  bool find(const L1Key& key, uint64_t now_ms, L1Hit& hit, L1Hint hint = {}) {
    return of(key.key).find(key, now_ms, hit, hint);
  }
  bool peek(const L1Key& key, uint64_t now_ms, L1Hit& hit) const {
    return of(key.key).peek(key, now_ms, hit);
  }
  void prefetch(const L1Key& key) const { of(key.key).prefetch(key); }
  L1Hint prefetch_item(const L1Key& key) const { return of(key.key).prefetch_item(key); }
  bool put(const L1Key& key, const L1Fill& fill, uint64_t now_ms) {
    return of(key.key).put(key, fill, now_ms);
  }
  bool erase(const L1Key& key) { return of(key.key).erase(key); }
  void inspect(Bytes key, const std::function<void(const L1Entry&)>& visit) const {
    of(key).inspect(key, visit);
  }

  void sweep(uint64_t now_ms);
  struct Walk {
    size_t table = 0;
    L1Table::Walk in_table;
  };
  bool erase_if(Walk& walk, uint64_t buckets,
                const std::function<bool(Bytes key, uint64_t filled_ms)>& dead);
  /// Drops all that the rule with exactly this glob keeps in memory of its own, in O(1). Returns
  /// how many items that were; 0 if there is no such rule.
  uint64_t clear_rule(Bytes keys);

  /// Of all tables together.
  L1Stats stats() const;
  /// Rules with memory of their own, in their order, by their number among all rules.
  struct Own {
    size_t rule;
    std::unique_ptr<L1Table> table;
  };
  const std::vector<Own>& own() const { return own_; }

 private:
  L1Table& of(Bytes key) const { return rules_.empty() ? *main_ : match(key); }
  L1Table& match(Bytes key) const;

  struct Rule {
    std::string keys;
    L1Table* table;
  };
  std::unique_ptr<L1Table> main_;
  std::vector<Own> own_;
  std::vector<Rule> rules_;  ///< up to the last with memory of its own
};

}  // namespace nearcached
