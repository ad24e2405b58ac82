// S3-FIFO's ghost as a set-associative table of 16-bit fingerprints: 2 bytes per remembered item
// and one cache line per question. Each line is a FIFO of its own, which is close enough to one
// long queue; a false memory (32 in 65,535 per question) lets one item into the main queue early.
// An exact queue with its own hash table costs ten times the memory for no measurable hit.
#include "l1/ghost.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "l1/heap.h"
#include "nearcached/base/check.h"

namespace nearcached::l1 {

void Ghost::fit(uint64_t live_items) {
  // Evictions come one by one around a full table, so the size settles; between half and twice
  // the live items the difference is not worth forgetting everything.
  const uint64_t held = count_ * kWays;
  if (count_ != 0 && live_items <= held * 2 && (live_items >= held / 4 || count_ == 1)) return;
  clear();
  count_ = std::min<uint64_t>(std::max<uint64_t>(1, live_items / kWays), UINT32_MAX);
  // calloc: a large block comes as untouched zero pages, without a pause to clear it.
  lines_ = static_cast<Line*>(std::calloc(count_, sizeof(Line)));
  NC_CHECK(lines_ != nullptr);
}

void Ghost::remember(uint64_t mix) {
  if (count_ == 0) return;
  Line& to = line(mix);
  std::memmove(&to.prints[1], &to.prints[0], sizeof(to.prints) - sizeof(to.prints[0]));
  to.prints[0] = print(mix);
}

bool Ghost::take(uint64_t mix) {
  if (count_ == 0) return false;
  Line& from = line(mix);
  uint16_t* const end = from.prints + kWays;
  uint16_t* const found = std::find(from.prints, end, print(mix));
  if (found == end) return false;
  std::copy(found + 1, end, found);
  end[-1] = 0;
  return true;
}

void Ghost::clear() {
  heap_free(lines_);
  lines_ = nullptr;
  count_ = 0;
}

uint64_t Ghost::bytes() const { return count_ == 0 ? 0 : heap_cost(lines_, count_ * sizeof(Line)); }

}  // namespace nearcached::l1
