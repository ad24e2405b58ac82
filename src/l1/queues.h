// Which queue of the log an item belongs to, and which of them gives up its oldest: the policies
// auto and s3fifo. Nothing here touches an item; it only knows what they cost.
//
// auto. What is new stands in one of 32 trial queues until it has been asked for once more, all
// else in one of 32 main queues. The queue's number is the power of two of an item's worth: how
// often it was used, times the average cost over its own. A queue is a FIFO; the rank of its oldest
// is its worth plus the inflation when it was queued, and the lowest rank goes first
// (GDSF's rule, so worth decays as others leave). Whoever was asked for since it was queued is
// queued again instead of leaving. The trial queues leave first while they have a quarter of all
// cost, with an inflation of their own: a large new item's trial is shorter than a small one's, and
// a scan passes through them alone.
//
// s3fifo. One trial queue with a tenth, one main queue.
#pragma once
#include <array>
#include <cstdint>

#include "l1/log.h"
#include "nearcached/l1/table.h"

namespace nearcached::l1 {

class Queues {
 public:
  static constexpr unsigned kClasses = 32;
  static constexpr unsigned kNone = ~0u;

  explicit Queues(L1Policy policy);

  static bool is_trial(unsigned queue) { return queue >= kClasses; }
  /// The queue of a new item, and of one that has been used `frequency` times.
  unsigned trial_queue(uint64_t cost) const { return kClasses + class_of(1, cost); }
  unsigned main_queue(unsigned frequency, uint64_t cost) const { return class_of(frequency, cost); }
  /// The base of an item queued now.
  double base(unsigned queue) const { return inflation_[is_trial(queue)]; }
  /// The queue whose oldest item should leave or move, kNone if all are empty; `cost_max` is what
  /// all items together may cost. Raises the inflation.
  unsigned next(const Log& log, uint64_t cost_max);

  void add(unsigned queue, uint64_t cost) {
    cost_[is_trial(queue)] += cost;
    ++items_;
  }
  void remove(unsigned queue, uint64_t cost) {
    cost_[is_trial(queue)] -= cost;
    --items_;
  }
  uint64_t cost() const { return cost_[0] + cost_[1]; }
  uint64_t trial_cost() const { return cost_[1]; }
  uint64_t items() const { return items_; }
  void clear() { *this = Queues(policy_); }

  /// Whether an item of this cost is more than the queue of the new may ever hold.
  bool refuses(uint64_t cost, uint64_t budget) const {
    return single_ && static_cast<double>(cost) >= trial_share_ * static_cast<double>(budget);
  }

  // What a use is worth.
  unsigned first_frequency() const { return single_ ? 0 : 1; }
  /// Whether an item in trial has earned the main queues; its use is what it keeps there.
  bool promotes(Use& use) const;
  /// Whether an item of the main queues stays for another round.
  bool stays(Use& use) const;

 private:
  unsigned class_of(unsigned frequency, uint64_t cost) const;
  unsigned lowest(const Log& log, uint64_t queues, double& rank) const;

  bool main_is_full(uint64_t cost_max) const;

  L1Policy policy_;
  bool single_;  ///< s3fifo
  double trial_share_;
  std::array<double, 2> inflation_ = {0, 0};  ///< main, trial
  std::array<uint64_t, 2> cost_ = {0, 0};
  uint64_t items_ = 0;
};

}  // namespace nearcached::l1
