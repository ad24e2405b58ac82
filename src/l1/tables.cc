// Tables side by side rather than partitions of one: a table already is a budget, an order and an
// index, and one that is given up as a whole is given up in O(1). What it costs is matching the
// globs on every look-up, but only where there are such rules, and only up to the last of them.
// Rejected: one index over several logs, which finds an item without knowing its rule; then every
// count, hand and limit of the store exists once for each rule, and a rule's items can only be
// dropped by a walk.
#include "nearcached/l1/tables.h"

#include <algorithm>

#include "nearcached/base/check.h"
#include "nearcached/base/glob.h"

namespace nearcached {
namespace {

L1Options part_of(const L1Options& whole, uint64_t memory_bytes) {
  L1Options part = whole;
  part.memory_bytes = memory_bytes;
  if (whole.entries_max != 0 && memory_bytes != whole.memory_bytes) {
    const double share =
        static_cast<double>(memory_bytes) / static_cast<double>(whole.memory_bytes);
    part.entries_max = std::max<uint64_t>(
        1, static_cast<uint64_t>(share * static_cast<double>(whole.entries_max)));
  }
  return part;
}

}  // namespace

L1Tables::L1Tables(const L1Options& options, const std::vector<L1Rule>& rules) {
  uint64_t main_bytes = options.memory_bytes;
  for (const L1Rule& rule : rules) {
    if (options.memory_bytes == 0 || rule.memory_bytes == 0) continue;
    NC_CHECK(rule.memory_bytes < main_bytes);
    main_bytes -= rule.memory_bytes;
  }
  main_ = std::make_unique<L1Table>(part_of(options, main_bytes));
  if (main_bytes == options.memory_bytes) return;
  size_t last = 0;
  for (size_t i = 0; i < rules.size(); ++i) {
    rules_.push_back({rules[i].keys, main_.get()});
    if (rules[i].memory_bytes == 0) continue;
    L1Options own = part_of(options, rules[i].memory_bytes);
    own.policy = rules[i].policy;
    own_.push_back({i, std::make_unique<L1Table>(std::move(own))});
    rules_.back().table = own_.back().table.get();
    last = i;
  }
  rules_.resize(last + 1);
}

L1Table& L1Tables::match(Bytes key) const {
  for (const Rule& rule : rules_)
    if (glob_match(rule.keys, key)) return *rule.table;
  return *main_;
}

void L1Tables::sweep(uint64_t now_ms) {
  main_->sweep(now_ms);
  for (const Own& own : own_) own.table->sweep(now_ms);
}

bool L1Tables::erase_if(Walk& walk, uint64_t buckets,
                        const std::function<bool(Bytes key, uint64_t filled_ms)>& dead) {
  L1Table& table = walk.table == 0 ? *main_ : *own_[walk.table - 1].table;
  if (!table.erase_if(walk.in_table, buckets, dead)) return false;
  if (walk.table == own_.size()) return true;
  walk = {walk.table + 1, {}};
  return false;
}

uint64_t L1Tables::clear_rule(Bytes keys) {
  const auto rule = std::find_if(rules_.begin(), rules_.end(),
                                 [keys](const Rule& candidate) { return candidate.keys == keys; });
  if (rule == rules_.end() || rule->table == main_.get()) return 0;
  const uint64_t items = rule->table->stats().items;
  rule->table->clear();
  return items;
}

L1Stats L1Tables::stats() const {
  L1Stats sum = main_->stats();
  for (const Own& own : own_) {
    const L1Stats& its = own.table->stats();
    sum.items += its.items;
    sum.used_bytes += its.used_bytes;
    sum.budget_bytes += its.budget_bytes;
    sum.evictions += its.evictions;
    sum.expired += its.expired;
    sum.reclaimed += its.reclaimed;
    sum.rejected_too_big += its.rejected_too_big;
  }
  return sum;
}

}  // namespace nearcached
