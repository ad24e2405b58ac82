// The index: from a key to the place of its items, without owning them.
//
// Linear hashing over 64-byte lines: ten slots of two 8-bit tags and a 32-bit place, and a link.
// The line is chosen by the key's hash alone, so everything that is kept of one key is one walk
// (erase of a key, INSPECT); the second tag is of space, command and arguments, so a lookup among
// many variants compares only its own. The table grows and shrinks by a line at a time (step()).
//
// A line's link leads to another line, or, when five are full, to a fan: sixteen links chosen by
// four bits of the variant's hash, each a chain that may fan out again. So a hash of 100,000 fields
// is three fans deep, not a chain of 10,000 lines.
//
// Invariants: in a line every slot in use comes before every free one; in a chain only the last
// line has free slots (but the first of a bucket may, if it links to a fan); no line but that is
// empty, and no fan is; only the first of a bucket and fans link to fans.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "l1/line_table.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace nearcached::l1 {

/// Where to look: `mix` of the key alone, `sub` of all else as well.
struct Address {
  uint64_t mix;
  uint64_t sub;
  bool operator==(const Address&) const = default;
};

class Index {
 public:
  using Place = uint32_t;  ///< never 0
  /// The address of the item at a place, when lines are split.
  using AddressOf = std::function<Address(Place)>;

  Index(uint64_t lines_max, uint64_t grain_bytes, AddressOf address_of);

  /// The place for which `matches(place)` holds, or 0. Called for few others: the tags go first.
  template <typename Matches>
  Place find(const Address& address, Matches&& matches) const {
    if (buckets_.size() == 0) return 0;
    const uint8_t key_tag = key_tag_of(address), sub_tag = sub_tag_of(address);
    const Line* line = &buckets_[buckets_.locate(address.mix)];
    for (unsigned level = 0;;) {
      for (unsigned bits = candidates(*line, key_tag, sub_tag); bits != 0; bits &= bits - 1) {
        const Place place = line->place[__builtin_ctz(bits)];
        if (place != 0 && matches(place)) return place;
      }
      uint32_t link = line->link;
      while ((link & kFan) != 0) link = fan(link).child[nibble(address, level++)];
      if (link == 0) return 0;
      line = &overflow(link);
    }
  }
  /// Visits the places that may hold items of this key: few others. `visit` must not change the
  /// index.
  template <typename Visit>
  void for_each_of_key(uint64_t mix, Visit&& visit) const {
    if (buckets_.size() == 0) return;
    const uint8_t tag = key_tag_of({mix, 0});
    walk(buckets_[buckets_.locate(mix)], [&](const Line& line, unsigned slot) {
      if (line.key_tag[slot] == tag) visit(line.place[slot]);
    });
  }
  template <typename Visit>
  void for_each(uint64_t bucket, Visit&& visit) const {
    walk(buckets_[bucket], [&](const Line& line, unsigned slot) { visit(line.place[slot]); });
  }
  void prefetch_bucket(uint64_t mix) const {
    if (buckets_.size() != 0) __builtin_prefetch(&buckets_[buckets_.locate(mix)]);
  }
  /// The place that a find() is likely to compare first, or 0. Does not look behind fans.
  Place guess(const Address& address) const {
    if (buckets_.size() == 0) return 0;
    const Line* line = &buckets_[buckets_.locate(address.mix)];
    while (true) {
      const unsigned bits = candidates(*line, key_tag_of(address), sub_tag_of(address));
      if (bits != 0) return line->place[__builtin_ctz(bits)];
      if (line->link == 0 || (line->link & kFan) != 0) return 0;
      line = &overflow(line->link);
    }
  }

  /// `place` must not be there yet.
  void insert(const Address& address, Place place);
  /// `place` must be there.
  void remove(const Address& address, Place place);
  /// The item at `from` now lies at `to`.
  void move(const Address& address, Place from, Place to);
  /// Splits or merges one bucket if the load asks for it. Once per insert is enough.
  void step();
  void clear();

  uint64_t items() const { return items_; }
  /// Counts the places that have gone. As long as it stays the same, what was at a place still is.
  uint64_t departures() const { return departures_; }
  uint64_t bytes() const { return buckets_.bytes() + overflow_.bytes(); }
  uint64_t bucket_count() const { return buckets_.size(); }
  /// False: no more lines, the item cannot be inserted.
  bool has_room() const {
    return buckets_.size() + 1 < buckets_.capacity() &&
           overflow_.size() + kFanLines < overflow_.capacity();
  }
  /// Aborts if an item is where find() would not look, or an invariant above does not hold.
  void check_invariants() const;

 private:
  static constexpr unsigned kSlots = 10;
  static constexpr uint32_t kFan = 1u << 31;
  static constexpr unsigned kLevels = 8;     ///< of fans; beyond, a plain chain
  static constexpr unsigned kFanLines = 32;  ///< at most, made by one insert
  struct alignas(64) Line {
    std::array<uint8_t, kSlots> key_tag;
    std::array<uint8_t, kSlots> sub_tag;
    std::array<Place, kSlots> place;
    uint32_t link;  ///< number of an overflow line, + kFan if it is a fan; 0: none
    unsigned used() const {
      return static_cast<unsigned>(std::find(place.begin(), place.end(), 0u) - place.begin());
    }
  };
  struct alignas(64) Fan {
    std::array<uint32_t, 16> child;
  };
  static_assert(sizeof(Line) == 64 && sizeof(Fan) == 64);
  struct Entry {
    Address address;
    Place place;
  };
  struct Slot {
    Line* line;
    unsigned number;
  };

  static uint8_t key_tag_of(const Address& a) { return static_cast<uint8_t>(a.mix >> 56); }
  static uint8_t sub_tag_of(const Address& a) { return static_cast<uint8_t>(a.sub >> 56); }
  static unsigned nibble(const Address& a, unsigned level) { return a.sub >> (4 * level) & 15; }
  static unsigned candidates(const Line& line, uint8_t key_tag, uint8_t sub_tag) {
#ifdef __SSE2__
    const auto tags = [](const uint8_t* at, uint8_t tag) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
      return _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(static_cast<char>(tag))));
    };
    const char* at = reinterpret_cast<const char*>(&line);
    const auto* bytes = reinterpret_cast<const uint8_t*>(at);
    return static_cast<unsigned>(tags(bytes, key_tag) & tags(bytes + kSlots, sub_tag)) &
           ((1u << kSlots) - 1);
#else
    unsigned bits = 0;
    for (unsigned i = 0; i < kSlots; ++i)
      bits |= static_cast<unsigned>(line.key_tag[i] == key_tag && line.sub_tag[i] == sub_tag) << i;
    return bits;
#endif
  }
  Line& overflow(uint32_t link) const { return overflow_[link & ~kFan]; }
  Fan& fan(uint32_t link) const { return reinterpret_cast<Fan&>(overflow_[link & ~kFan]); }

  template <typename Visit>
  void walk(const Line& first, Visit&& visit) const {
    const Line* line = &first;
    while (true) {
      for (unsigned slot = 0; slot < kSlots && line->place[slot] != 0; ++slot) visit(*line, slot);
      if ((line->link & kFan) != 0) {
        walk_fan(fan(line->link), visit);
        return;
      }
      if (line->link == 0) return;
      line = &overflow(line->link);
    }
  }
  template <typename Visit>
  void walk_fan(const Fan& node, Visit& visit) const {
    for (const uint32_t child : node.child) {
      if ((child & kFan) != 0) walk_fan(fan(child), visit);
      else if (child != 0) walk(overflow(child), visit);
    }
  }

  Slot slot_of(const Address& address, Place place) const;
  static void set(Line& line, unsigned slot, const Address& address, Place place);
  uint32_t new_line();
  void free_line(uint32_t link);
  void fan_out(uint32_t& link, unsigned level);
  void unlink_empty(const Address& address, Line& head);
  void take_chain(uint64_t bucket, std::vector<Entry>& entries);
  void take_link(uint32_t link, std::vector<Entry>& entries);
  void check_link(uint32_t link, uint64_t bucket, unsigned level, uint64_t path,
                  uint64_t& seen) const;
  void split();
  void merge();

  LineTable<Line> buckets_;
  LineTable<Line> overflow_;
  uint32_t free_lines_ = 0;  ///< a list through their links
  uint32_t used_lines_ = 0;  ///< of the overflow, fans included
  uint64_t items_ = 0;
  uint64_t departures_ = 0;
  AddressOf address_of_;
  std::vector<Entry> scratch_;
};

}  // namespace nearcached::l1
