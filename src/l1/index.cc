// A table that doubles at once stops the worker for tens of milliseconds at a few million items,
// and one sized for the whole budget costs memory that an idle proxy never uses. Linear hashing
// does neither: bucket n is split out of bucket n − 2^k when the load asks for it, one per insert.
// The price is that the buckets not split yet carry up to twice the load of the others: hence
// overflow lines, and a mean of seven items for ten slots. The full hash is not kept: a split asks
// for it (the item's key is hashed again), once per item and doubling.
// Rejected: cuckoo hashing (two cache lines for a miss), Redis's two tables (half as much memory
// again while growing), slots with more of the hash (8.5 bytes an item become 10.5).
#include "l1/index.h"

#include "nearcached/base/check.h"

namespace nearcached::l1 {
namespace {

constexpr uint64_t kSplitAbove = 7;  // items per bucket
constexpr uint64_t kMergeBelow = 4;
constexpr uint64_t kBucketsMin = 16;
constexpr unsigned kFanAbove = 4;  // overflow lines in one chain

}  // namespace

Index::Index(uint64_t lines_max, uint64_t grain_bytes, AddressOf address_of)
    : buckets_(lines_max, grain_bytes),
      overflow_(lines_max, grain_bytes),
      address_of_(std::move(address_of)) {}

void Index::set(Line& line, unsigned slot, const Address& address, Place place) {
  line.key_tag[slot] = key_tag_of(address);
  line.sub_tag[slot] = sub_tag_of(address);
  line.place[slot] = place;
}

uint32_t Index::new_line() {
  if (overflow_.size() == 0) overflow_.resize(1);  // line 0 is never used: 0 is no link
  ++used_lines_;
  if (free_lines_ == 0) {
    overflow_.resize(overflow_.size() + 1);
    return static_cast<uint32_t>(overflow_.size() - 1);
  }
  const uint32_t link = free_lines_;
  free_lines_ = overflow(link).link;
  overflow(link) = Line{};
  return link;
}

void Index::free_line(uint32_t link) {
  overflow(link) = Line{};
  overflow(link).link = free_lines_;
  free_lines_ = link & ~kFan;
  if (--used_lines_ != 0) return;
  overflow_.clear();
  free_lines_ = 0;
}

// Turns the chain at `link` into a fan with the same items.
void Index::fan_out(uint32_t& link, unsigned level) {
  std::vector<Entry> entries;
  take_link(link, entries);
  link = new_line() | kFan;
  std::array<uint32_t, 16>& children = fan(link).child;
  for (const Entry& entry : entries) {
    uint32_t* child = &children[nibble(entry.address, level)];
    while (*child != 0 && overflow(*child).place[kSlots - 1] != 0) child = &overflow(*child).link;
    if (*child == 0) *child = new_line();
    set(overflow(*child), overflow(*child).used(), entry.address, entry.place);
  }
}

void Index::insert(const Address& address, Place place) {
  if (buckets_.size() == 0) buckets_.resize(kBucketsMin);
  ++items_;
  Line& home = buckets_[buckets_.locate(address.mix)];
  if (home.place[kSlots - 1] == 0) {
    set(home, home.used(), address, place);
    return;
  }
  uint32_t* head = &home.link;  // of the chain under way
  unsigned level = 0;
  while (true) {
    while ((*head & kFan) != 0) head = &fan(*head).child[nibble(address, level++)];
    uint32_t* link = head;
    unsigned lines = 0;
    while (*link != 0 && overflow(*link).place[kSlots - 1] != 0) {
      link = &overflow(*link).link;
      ++lines;
    }
    if (*link == 0 && lines >= kFanAbove && level < kLevels) {
      fan_out(*head, level);
      continue;
    }
    if (*link == 0) *link = new_line();
    set(overflow(*link), overflow(*link).used(), address, place);
    return;
  }
}

Index::Slot Index::slot_of(const Address& address, Place place) const {
  Line* line = &buckets_[buckets_.locate(address.mix)];
  for (unsigned level = 0;;) {
    const auto at = std::find(line->place.begin(), line->place.end(), place);
    if (at != line->place.end()) return {line, static_cast<unsigned>(at - line->place.begin())};
    uint32_t link = line->link;
    while ((link & kFan) != 0) link = fan(link).child[nibble(address, level++)];
    NC_CHECK(link != 0);
    line = &overflow(link);
  }
}

void Index::move(const Address& address, Place from, Place to) {
  const Slot slot = slot_of(address, from);
  slot.line->place[slot.number] = to;
  ++departures_;
}

void Index::remove(const Address& address, Place place) {
  const Slot slot = slot_of(address, place);
  // The hole is filled from the chain's last line, which ends before a fan.
  Line* last = slot.line;
  while (last->link != 0 && (last->link & kFan) == 0) last = &overflow(last->link);
  const unsigned end = last->used() - 1;
  slot.line->key_tag[slot.number] = last->key_tag[end];
  slot.line->sub_tag[slot.number] = last->sub_tag[end];
  slot.line->place[slot.number] = last->place[end];
  last->place[end] = 0;
  if (end == 0) unlink_empty(address, *last);
  --items_;
  ++departures_;
}

// Takes an empty line out of its chain, and with it the fans that have no other child.
void Index::unlink_empty(const Address& address, Line& empty) {
  std::array<uint32_t*, kLevels + 1> path;  // the links that lead to fans on the way
  unsigned level = 0;
  Line* line = &buckets_[buckets_.locate(address.mix)];
  while (line != &empty) {
    uint32_t* link = &line->link;
    while ((*link & kFan) != 0) {
      path[level] = link;
      link = &fan(*link).child[nibble(address, level++)];
    }
    line = &overflow(*link);
    if (line != &empty) continue;
    const uint32_t freed = *link;
    *link = 0;
    free_line(freed);
    for (bool bare = true; bare && level > 0;) {
      uint32_t* parent = path[--level];
      for (const uint32_t child : fan(*parent).child) bare = bare && child == 0;
      if (!bare) break;
      const uint32_t freed_fan = *parent;
      *parent = 0;
      free_line(freed_fan);
    }
    return;
  }
}

void Index::take_link(uint32_t link, std::vector<Entry>& entries) {
  while (link != 0) {
    if ((link & kFan) != 0) {
      for (const uint32_t child : fan(link).child) take_link(child, entries);
      free_line(link);
      return;
    }
    Line& line = overflow(link);
    for (const Place place : line.place)
      if (place != 0) entries.push_back({address_of_(place), place});
    const uint32_t next = line.link;
    free_line(link);
    link = next;
  }
}

void Index::take_chain(uint64_t bucket, std::vector<Entry>& entries) {
  Line& home = buckets_[bucket];
  for (const Place place : home.place)
    if (place != 0) entries.push_back({address_of_(place), place});
  const uint32_t link = home.link;
  home = Line{};
  take_link(link, entries);
}

void Index::step() {
  if (items_ > buckets_.size() * kSplitAbove) {
    split();
  } else if (items_ < buckets_.size() * kMergeBelow && buckets_.size() > kBucketsMin) {
    merge();
  }
}

void Index::split() {
  const uint64_t fresh = buckets_.size();
  if (!has_room()) return;
  scratch_.clear();
  take_chain(LineTable<Line>::split_source(fresh), scratch_);
  buckets_.resize(fresh + 1);
  items_ -= scratch_.size();
  for (const Entry& entry : scratch_) insert(entry.address, entry.place);
}

void Index::merge() {
  const uint64_t last = buckets_.size() - 1;
  scratch_.clear();
  take_chain(last, scratch_);
  buckets_.resize(last);
  items_ -= scratch_.size();
  for (const Entry& entry : scratch_) insert(entry.address, entry.place);
}

void Index::clear() {
  buckets_.clear();
  overflow_.clear();
  free_lines_ = used_lines_ = 0;
  items_ = 0;
  ++departures_;
}

void Index::check_link(uint32_t link, uint64_t bucket, unsigned level, uint64_t path,
                       uint64_t& seen) const {
  if ((link & kFan) != 0) {
    bool bare = true;
    for (uint64_t i = 0; i < 16; ++i) {
      if (fan(link).child[i] == 0) continue;
      bare = false;
      check_link(fan(link).child[i], bucket, level + 1, path | i << (4 * level), seen);
    }
    NC_CHECK(!bare);
    return;
  }
  for (; link != 0; link = overflow(link).link) {
    NC_CHECK((link & kFan) == 0);
    const Line& line = overflow(link);
    NC_CHECK(line.place[0] != 0);
    NC_CHECK(line.link == 0 || line.place[kSlots - 1] != 0);
    for (unsigned slot = 0; slot < line.used(); ++slot) {
      const Address address = address_of_(line.place[slot]);
      NC_CHECK(buckets_.locate(address.mix) == bucket);
      NC_CHECK((address.sub & ((uint64_t{1} << (4 * level)) - 1)) == path);
      NC_CHECK(line.key_tag[slot] == key_tag_of(address) &&
               line.sub_tag[slot] == sub_tag_of(address));
      ++seen;
    }
  }
}

void Index::check_invariants() const {
  uint64_t seen = 0;
  for (uint64_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    const Line& home = buckets_[bucket];
    for (unsigned slot = 0; slot < kSlots; ++slot) {
      if (slot >= home.used()) {
        NC_CHECK(home.place[slot] == 0);
        continue;
      }
      const Address address = address_of_(home.place[slot]);
      NC_CHECK(buckets_.locate(address.mix) == bucket);
      NC_CHECK(home.key_tag[slot] == key_tag_of(address) &&
               home.sub_tag[slot] == sub_tag_of(address));
      ++seen;
    }
    NC_CHECK(home.link == 0 || (home.link & kFan) != 0 || home.place[kSlots - 1] != 0);
    if (home.link != 0) check_link(home.link, bucket, 0, 0, seen);
  }
  NC_CHECK(seen == items_);
}

}  // namespace nearcached::l1
