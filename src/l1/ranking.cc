// Four policies as four ranks:
//   lru     the time of the last access, counted in accesses: exact
//   gdsf    inflation + accesses / size (Cherkasova 1998)
//   lfu     inflation + accesses: gdsf for which all items are of one size. The inflation is what
//   ages:
//           an item that was popular once is overtaken by the rank of those that leave.
//   random  none: the heap is an array of all items, one is drawn
// Positive doubles compare as the integers with the same bits do, so that all of them are integers.
// Rejected: a list for lru (8 bytes per item instead of 32, but a second structure for one policy
// that is here to be compared with).
#include "l1/ranking.h"

#include <bit>

#include "nearcached/base/check.h"

namespace nearcached::l1 {
namespace {

constexpr size_t kChildren = 4;  // half as many levels as two, and they share a cache line
constexpr double kGdsfScale = 1e6;

}  // namespace

uint64_t Ranking::value_of(Item item, uint64_t cost) const {
  const double uses = item.use().accesses() + 1;
  switch (policy_) {
    case L1Policy::lru: return clock_;
    case L1Policy::lfu: return std::bit_cast<uint64_t>(inflation_ + uses);
    case L1Policy::gdsf:
      return std::bit_cast<uint64_t>(inflation_ + uses * kGdsfScale / static_cast<double>(cost));
    default: return 0;
  }
}

Ranking::Rank Ranking::renew(Item item, uint64_t cost) {
  ++clock_;
  const Rank rank = {value_of(item, cost), static_cast<uint32_t>(clock_)};
  std::memcpy(item.rank(), &rank, sizeof(rank));
  return rank;
}

void Ranking::put(size_t position, Entry entry) {
  heap_[position] = entry;
  const auto number = static_cast<uint32_t>(position);
  std::memcpy(log_.item(entry.place).rank() + kPositionAt, &number, sizeof(number));
}

void Ranking::sift_up(size_t position, Entry entry) {
  while (position > 0) {
    const size_t parent = (position - 1) / kChildren;
    if (!entry.rank.below(heap_[parent].rank)) break;
    put(position, heap_[parent]);
    position = parent;
  }
  put(position, entry);
}

void Ranking::sift_down(size_t position, Entry entry) {
  while (true) {
    const size_t first = position * kChildren + 1;
    if (first >= heap_.size()) break;
    const size_t end = std::min(first + kChildren, heap_.size());
    size_t least = first;
    for (size_t child = first + 1; child < end; ++child)
      if (heap_[child].rank.below(heap_[least].rank)) least = child;
    if (!heap_[least].rank.below(entry.rank)) break;
    put(position, heap_[least]);
    position = least;
  }
  put(position, entry);
}

void Ranking::insert(Log::Place place, uint64_t cost) {
  const Rank rank = renew(log_.item(place), cost);
  if (heap_.size() == heap_.capacity()) heap_.reserve(heap_.size() + heap_.size() / 8 + 64);
  heap_.push_back({});
  sift_up(heap_.size() - 1, {rank, place});
}

void Ranking::hit(Item item, uint64_t cost) { renew(item, cost); }

void Ranking::remove(Log::Place place) {
  const size_t position = load_position(log_.item(place));
  const Entry last = heap_.back();
  heap_.pop_back();
  if (position == heap_.size()) return;
  if (last.rank.below(heap_[position].rank)) sift_up(position, last);
  else sift_down(position, last);
}

void Ranking::move(Log::Place to) { heap_[load_position(log_.item(to))].place = to; }

Log::Place Ranking::victim() {
  if (heap_.empty()) return 0;
  if (policy_ == L1Policy::random) {
    random_ ^= random_ << 13, random_ ^= random_ >> 7, random_ ^= random_ << 17;
    return heap_[random_ % heap_.size()].place;
  }
  while (true) {
    Entry top = heap_.front();
    const Rank rank = load_rank(log_.item(top.place));
    if (rank == top.rank) break;
    top.rank = rank;
    sift_down(0, top);
  }
  if (policy_ != L1Policy::lru)
    inflation_ = std::bit_cast<double>(uint64_t{heap_.front().rank.value});
  return heap_.front().place;
}

void Ranking::clear() {
  heap_ = {};
  clock_ = 0;
  inflation_ = 0;
}

void Ranking::check_invariants() const {
  for (size_t i = 0; i < heap_.size(); ++i) {
    NC_CHECK(i == 0 || !heap_[i].rank.below(heap_[(i - 1) / kChildren].rank));
    const Item item = log_.item(heap_[i].place);
    NC_CHECK(!item.dead());
    NC_CHECK(load_position(item) == i);
    NC_CHECK(!load_rank(item).below(heap_[i].rank));
  }
}

}  // namespace nearcached::l1
