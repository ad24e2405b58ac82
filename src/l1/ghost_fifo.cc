// Memories lie in a table of fingerprints, as in ghost.h, each with the number of the epoch in
// which it came: a 128th of what the FIFO holds. How much is left of every epoch is counted, so
// that the end of the FIFO is known to an epoch without a list: what is older counts as forgotten
// wherever it lies. Lines are kept so short that it seldom leaves them earlier.
//
// Rejected: as many memories as would cost that much if all were like those that left lately, in
// 16 bits each like ghost.h: on cloudphysics, where the mean size changes eightfold from hour to
// hour, the miss ratio is 0.005 to 0.011 off the definition's.
#include "l1/ghost_fifo.h"

#include <algorithm>
#include <array>

namespace nearcached::l1 {
namespace {

constexpr uint64_t kItemsPerLine = 9;  // of 16: more than that in one line is rare

}  // namespace

void GhostFifo::forget_oldest() {
  Epoch& oldest = epochs_[(newest_ + 1 - held_) % kEpochs];
  cost_ -= oldest.cost;
  items_ -= oldest.items;
  oldest = {};
  --held_;
}

void GhostFifo::step() {
  const uint64_t size = lines_.size();
  const uint64_t wanted = std::clamp<uint64_t>(items_ / kItemsPerLine, 1, lines_.capacity());
  if (size < wanted) {
    lines_.resize(size + 1);
    // A fingerprint does not tell to which half of a split line it belongs: both get it.
    if (size > 0) lines_[size] = lines_[LineTable<Line>::split_source(size)];
  } else if (size > 2 * wanted) {
    merge(lines_[LineTable<Line>::split_source(size - 1)], lines_[size - 1]);
    lines_.resize(size - 1);
  }
}

// The newest of both.
void GhostFifo::merge(Line& to, const Line& from) const {
  std::array<uint32_t, size_t{2} * kWays> both{};
  auto end = std::copy_if(to.prints, to.prints + kWays, both.begin(),
                          [this](uint32_t word) { return holds(word); });
  end = std::copy_if(from.prints, from.prints + kWays, end,
                     [this](uint32_t word) { return holds(word); });
  std::sort(both.begin(), end, [this](uint32_t a, uint32_t b) { return age(a) < age(b); });
  std::copy_n(both.begin(), kWays, to.prints);
}

void GhostFifo::remember(uint64_t hash, uint64_t cost, uint64_t cost_max) {
  if (epochs_[newest_].cost >= cost_max / kEpochsHeld && epochs_[newest_].items > 0) {
    if (held_ == kEpochs) forget_oldest();
    newest_ = (newest_ + 1) % kEpochs;
    ++held_;
  }
  epochs_[newest_].cost += cost;
  ++epochs_[newest_].items;
  cost_ += cost;
  ++items_;
  while (cost_ > cost_max && held_ > 1) forget_oldest();
  if (lines_.size() == 0) return;
  Line& line = lines_[lines_.locate(hash)];
  std::copy_backward(line.prints, line.prints + kWays - 1, line.prints + kWays);
  line.prints[0] = print_of(hash) | newest_;
}

bool GhostFifo::take(uint64_t hash, uint64_t cost) {
  if (lines_.size() == 0) return false;
  Line& line = lines_[lines_.locate(hash)];
  uint32_t* const end = line.prints + kWays;
  const uint32_t print = print_of(hash);
  uint32_t* const found = std::find_if(line.prints, end, [&](uint32_t word) {
    return (word & ~(kEpochs - 1)) == print && holds(word);
  });
  if (found == end) return false;
  Epoch& epoch = epochs_[*found % kEpochs];
  const uint64_t its = std::min(cost, epoch.cost);
  epoch.cost -= its, cost_ -= its;
  if (epoch.items > 0) --epoch.items, --items_;
  std::copy(found + 1, end, found);
  end[-1] = 0;
  return true;
}

void GhostFifo::clear() {
  lines_.clear();
  epochs_ = {};
  newest_ = 0;
  held_ = 1;
  cost_ = items_ = 0;
}

}  // namespace nearcached::l1
