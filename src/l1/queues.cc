// Found by simulation on five traces before it was built; src/README.md has the table. What
// mattered: the ghost's memory of how much an item had been used (2 bits), ranks also among the
// new, and a quarter of the cost for them: with a fifth, a loop of large items misses 1.2 % oftener
// than with LRU, with a tenth 2 %. What did not: queues finer than a power of two, a frequency
// above 31, a ghost of twice the size. Rejected: one set of queues where new items only get a lower
// rank (behind S3-FIFO when all costs are equal), a FIFO of the new whatever their size (5 % behind
// GDSF).
#include "l1/queues.h"

#include <algorithm>
#include <cmath>

namespace nearcached::l1 {
namespace {

constexpr double kTrialShare = 0.25;
constexpr double kTrialShareS3 = 0.1;
constexpr unsigned kFrequencyMaxS3 = 3;
constexpr unsigned kPromoteAtS3 = 2;
constexpr uint64_t kMainQueues = (uint64_t{1} << Queues::kClasses) - 1;
constexpr int kClassOfAverage = Queues::kClasses / 2;  // used once and of average cost

}  // namespace

Queues::Queues(L1Policy policy)
    : policy_(policy),
      single_(policy == L1Policy::s3fifo),
      trial_share_(single_ ? kTrialShareS3 : kTrialShare) {}

unsigned Queues::class_of(unsigned frequency, uint64_t cost) const {
  if (single_) return 0;
  const double average = items_ == 0
                             ? static_cast<double>(cost)
                             : static_cast<double>(this->cost()) / static_cast<double>(items_);
  const double worth = frequency * average / static_cast<double>(std::max<uint64_t>(cost, 1));
  return static_cast<unsigned>(
      std::clamp(std::ilogb(worth) + kClassOfAverage, 0, static_cast<int>(kClasses) - 1));
}

unsigned Queues::lowest(const Log& log, uint64_t queues, double& rank) const {
  unsigned lowest = kNone;
  for (; queues != 0; queues &= queues - 1) {
    const auto queue = static_cast<unsigned>(__builtin_ctzll(queues));
    const int power = static_cast<int>(queue % kClasses) - kClassOfAverage;
    const double its = log.head_base(queue) + std::ldexp(1.5, power);  // the middle of the class
    if (lowest != kNone && its >= rank) continue;
    rank = its;
    lowest = queue;
  }
  return lowest;
}

// s3fifo as it is defined: the main queue has what the trial's room leaves.
bool Queues::main_is_full(uint64_t cost_max) const {
  const double trial = trial_share_ * static_cast<double>(single_ ? cost_max : cost());
  return single_ ? cost_[0] > cost_max - static_cast<uint64_t>(trial)
                 : static_cast<double>(cost_[1]) < trial;
}

unsigned Queues::next(const Log& log, uint64_t cost_max) {
  const uint64_t main = log.occupied() & kMainQueues, trial = log.occupied() & ~kMainQueues;
  const bool from_trial = trial != 0 && (main == 0 || !main_is_full(cost_max));
  double rank = 0;
  const unsigned queue = lowest(log, from_trial ? trial : main, rank);
  if (queue != kNone && !single_) inflation_[from_trial] = std::max(inflation_[from_trial], rank);
  return queue;
}

bool Queues::promotes(Use& use) const {
  if (single_) {
    if (use.frequency() < kPromoteAtS3) return false;
    use.set(0, false);
    return true;
  }
  if (!use.hit()) return false;
  use.set(use.frequency(), false);
  return true;
}

bool Queues::stays(Use& use) const {
  if (single_) {
    if (use.frequency() == 0) return false;
    use.set(std::min(use.frequency(), kFrequencyMaxS3) - 1, false);
    return true;
  }
  if (!use.hit()) return false;
  use.set(use.frequency(), false);
  return true;
}

}  // namespace nearcached::l1
