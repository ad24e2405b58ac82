// Chained hashing on 16-bit numbers. A worker has a handful of spaces (one per lane and epoch)
// times the commands that are cached, so this is one line of memory; but nothing breaks if there
// are thousands.
#include "l1/contexts.h"

#include "nearcached/base/check.h"

namespace nearcached::l1 {

uint16_t Contexts::search(uint32_t space, uint16_t command) const {
  if (heads_.empty()) return kNone;
  uint16_t number = heads_[hash(space, command) & (heads_.size() - 1)];
  while (number != kNone && !entries_[number].is(space, command)) number = entries_[number].next;
  if (number != kNone) last_ = number;
  return number;
}

void Contexts::grow() {
  const size_t size = heads_.empty() ? 16 : heads_.size() * 2;
  heads_.assign(size, kNone);
  entries_.reserve(size);
  for (size_t i = 0; i < entries_.size(); ++i) {
    uint16_t& first = head(entries_[i].space, entries_[i].command);
    entries_[i].next = first;
    first = static_cast<uint16_t>(i);
  }
}

uint16_t Contexts::acquire(uint32_t space, uint16_t command) {
  uint16_t number = find(space, command);
  if (number != kNone) {
    ++entries_[number].items;
    return number;
  }
  if (free_ != kNone) {
    number = free_;
    free_ = entries_[number].next;
  } else {
    if (entries_.size() == kNone) return kNone;
    if (entries_.size() == heads_.size()) grow();
    number = static_cast<uint16_t>(entries_.size());
    entries_.emplace_back();
  }
  uint16_t& first = head(space, command);
  entries_[number] = {space, 1, command, first};
  first = number;
  return number;
}

void Contexts::release(uint16_t number) {
  Entry& entry = entries_[number];
  NC_CHECK(entry.items > 0);
  if (--entry.items != 0) return;
  uint16_t* link = &head(entry.space, entry.command);
  while (*link != number) link = &entries_[*link].next;
  *link = entry.next;
  entry.next = free_;
  free_ = number;
}

}  // namespace nearcached::l1
