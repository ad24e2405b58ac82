// A key that comes back is a hit on an item that nobody had asked for, if it was let in, or a miss
// whose fingerprint is found, if it was not or is gone. Once there is a table all misses are
// remembered, let in or not: a loop over more keys than a window has is seen to be one.
// A false memory (32 in 65,536 a question) lets a key in early and weighs nothing in a window.
//
// Rejected: letting in one in n (the hot keys of a small cache are then missed n times each), and a
// frequency sketch (it needs ageing, and more than "seen before" is for the eviction to judge).
#include "nearcached/l1/admission.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace nearcached {

struct alignas(64) Admission::Line {
  static constexpr size_t kWays = 32;
  uint16_t prints[kWays];  ///< newest first; 0: empty
};

Admission::Admission(uint64_t memory_bytes)
    : lines_(memory_bytes < sizeof(Line) ? 0 : std::bit_floor(memory_bytes / sizeof(Line))) {}
Admission::~Admission() = default;

Admission::Line& Admission::line_of(uint64_t hash) const { return table_[hash & (lines_ - 1)]; }

uint64_t Admission::memory_bytes() const { return table_ ? lines_ * sizeof(Line) : 0; }

bool Admission::admits(uint64_t hash) {
  if (lines_ == 0) return true;
  if (++misses_ > kWindow) judge();
  if (table_ == nullptr) return true;
  const bool seen = remember(hash);
  if (seen) ++returned_;
  return seen || !strict_;
}

void Admission::prefetch(uint64_t hash) const {
  if (table_ != nullptr) __builtin_prefetch(&line_of(hash), 1);
}

// Was it there? It is from now on.
bool Admission::remember(uint64_t hash) {
  const auto top = static_cast<uint16_t>(hash >> 48);
  const uint16_t print = top != 0 ? top : 1;
  Line& line = line_of(hash);
  uint16_t matches = 0;  // of the prints' width and without a way out: a few vector instructions
  for (const uint16_t other : line.prints) matches |= static_cast<uint16_t>(other == print);
  const bool seen = matches != 0;
  uint16_t* const last = line.prints + Line::kWays - 1;
  uint16_t* const place = seen ? std::find(line.prints, last, print) : last;
  std::memmove(line.prints + 1, line.prints,
               static_cast<size_t>(place - line.prints) * sizeof(uint16_t));
  line.prints[0] = print;
  return seen;
}

void Admission::judge() {
  const uint64_t returned = returned_;
  misses_ = 1;
  returned_ = 0;
  if (returned < kReturnsMin) strict_ = true;
  else if (returned > kReturnsOpen) strict_ = false;
  if (strict_ && table_ == nullptr) table_ = std::make_unique<Line[]>(lines_);
}

}  // namespace nearcached
