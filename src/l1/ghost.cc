// The ghost as a set-associative table of 16-bit words: 2 bytes per remembered item and one
// cache line per question. Each line is a FIFO of its own, which is close enough to one long queue;
// a false memory (32 in 16,384 per question) lets one item into the main queues early.
//
// It grows by a line per eviction: a large block at once would have to be paid by thousands of
// evictions in one put (15 ms at 5M items). A fingerprint does not tell to which half of a split
// line it belongs, so both get it; the wrong copy matches nobody and ages out.
// When it shrinks two lines become one, of the newer half of each.
// Rejected: an exact queue with its own hash table, ten times the memory for no measurable hit;
// shrinking only when half is unused (cloudphysics, 10 % of the bytes: 0.744 instead of 0.732).
#include "l1/ghost.h"

#include <algorithm>
#include <cstring>

namespace nearcached::l1 {
namespace {

// Lines. A ghost that follows every change of the number of items forgets at each: slack is better,
// but of a few lines the double is too much.
constexpr uint64_t kSmall = 16;

}  // namespace

void Ghost::step(uint64_t live_items) {
  const uint64_t wanted =
      std::clamp<uint64_t>((live_items + kWays / 2) / kWays, 1, lines_.capacity());
  const uint64_t size = lines_.size();
  if (size < wanted) {
    lines_.resize(size + 1);
    if (size > 0) lines_[size] = lines_[LineTable<Line>::split_source(size)];
  } else if (size > (wanted < kSmall ? wanted + 1 : wanted + wanted / 8)) {
    if (size > 1) merge(lines_[LineTable<Line>::split_source(size - 1)], lines_[size - 1]);
    lines_.resize(size - 1);
  }
}

// The newer half of both, in turns: which of two lines' memories is older is not known.
void Ghost::merge(Line& to, const Line& from) {
  const Line old = to;
  for (unsigned way = 0; way < kWays; ++way)
    to.prints[way] = (way % 2 == 0 ? old : from).prints[way / 2];
}

void Ghost::remember(uint64_t hash, unsigned used) {
  if (lines_.size() == 0) return;
  Line& line = lines_[lines_.locate(hash)];
  std::memmove(&line.prints[1], &line.prints[0], sizeof(line.prints) - sizeof(line.prints[0]));
  line.prints[0] = static_cast<uint16_t>(print_of(hash) | used);
}

unsigned Ghost::take(uint64_t hash) {
  if (lines_.size() == 0) return 0;
  Line& line = lines_[lines_.locate(hash)];
  uint16_t* const end = line.prints + kWays;
  const unsigned print = print_of(hash);
  uint16_t* const found = std::find_if(
      line.prints, end, [print](uint16_t word) { return word != 0 && (word & ~3u) == print; });
  if (found == end) return 0;
  const unsigned used = *found & 3u;
  std::copy(found + 1, end, found);
  end[-1] = 0;
  return used;
}

}  // namespace nearcached::l1
