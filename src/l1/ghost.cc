// S3-FIFO's ghost as a set-associative table of 16-bit fingerprints: 2 bytes per remembered item
// and one cache line per question. Each line is a FIFO of its own, which is close enough to one
// long queue; a false memory (32 in 65,536 per question) lets one item into the main queue early.
//
// It grows by a line per eviction: a large block at once would have to be paid by thousands of
// evictions in one put (15 ms at 5M items). A fingerprint does not tell to which half of a split
// line it belongs, so both get it; the wrong copy matches nobody and ages out.
// Rejected: an exact queue with its own hash table, ten times the memory for no measurable hit.
#include "l1/ghost.h"

#include <algorithm>
#include <cstring>

namespace nearcached::l1 {

void Ghost::step(uint64_t live_items) {
  const uint64_t wanted = std::max<uint64_t>(1, live_items / kWays);
  const uint64_t size = lines_.size();
  if (size < wanted) {
    lines_.resize(size + 1);
    if (size > 0) lines_[size] = lines_[lines_.split_source(size)];
  } else if (size > 2 * wanted) {
    lines_[size - 1] = Line{};
    lines_.resize(size - 1);
  }
}

void Ghost::remember(uint64_t mix) {
  if (lines_.size() == 0) return;
  Line& line = lines_[lines_.locate(mix)];
  std::memmove(&line.prints[1], &line.prints[0], sizeof(line.prints) - sizeof(line.prints[0]));
  line.prints[0] = print_of(mix);
}

bool Ghost::take(uint64_t mix) {
  if (lines_.size() == 0) return false;
  Line& line = lines_[lines_.locate(mix)];
  uint16_t* const end = line.prints + kWays;
  uint16_t* const found = std::find(line.prints, end, print_of(mix));
  if (found == end) return false;
  std::copy(found + 1, end, found);
  end[-1] = 0;
  return true;
}

}  // namespace nearcached::l1
