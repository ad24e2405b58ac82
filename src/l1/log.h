// The memory of the items: fixed segments, filled from front to back, strung into queues.
//
// A queue is its own order: new items are written at its tail, leave at its head, and carry no
// links. An item dropped elsewhere becomes a hole; merge() closes holes without changing the order.
// An item is named by a 32-bit Place, its offset in units of 2^shift bytes (1 up to 4 GiB).
#pragma once
#include <array>
#include <cstdint>

#include "l1/item.h"
#include "l1/region.h"

namespace nearcached::l1 {

class Log {
 public:
  using Place = uint32_t;  ///< never 0
  static constexpr uint32_t kNone = ~uint32_t{0};
  static constexpr unsigned kQueues = 64;

  struct Segment {
    uint32_t prev = kNone;  ///< towards the head of its queue
    uint32_t next = kNone;  ///< towards the tail; in the list of free segments too
    uint32_t begin = 0;     ///< what lies before has left
    uint32_t end = 0;       ///< what lies behind has not been written
    uint32_t live_bytes = 0;
    uint32_t live_items = 0;
    uint64_t expires_ms = 0;  ///< no item in it expires before
    double base = 0;          ///< the policy's, of its first item
    double last_base = 0;     ///< and of its last
    uint32_t queue = kNone;   ///< kNone: free
  };

  /// Up to `bytes_max` of memory in segments of `segment_bytes`, a power of two.
  Log(uint64_t bytes_max, uint32_t segment_bytes, unsigned rank);

  Item item(Place place) const { return {region_.base() + offset_of(place), rank_}; }
  Place place_of(const Item& item) const {
    return place_at(static_cast<uint64_t>(item.at() - region_.base()));
  }
  uint32_t number_of(Place place) const {
    return static_cast<uint32_t>(offset_of(place) / segment_bytes_);
  }
  unsigned queue_of(Place place) const { return segments_[number_of(place)].queue; }
  const Segment& segment(uint32_t number) const { return segments_[number]; }
  uint32_t segment_count() const { return segments_made_; }
  uint32_t segment_bytes() const { return segment_bytes_; }
  bool has_unused() const { return free_ != kNone || segments_made_ < segments_max_; }

  /// Room for `bytes` at the tail of a queue, as place; 0 if its last segment has none.
  Place reserve(unsigned queue, uint32_t bytes) const;
  /// Gives the queue a new last segment; requires has_unused().
  void open(unsigned queue);
  /// What was reserved has been written. `base` is the policy's, and never falls in one queue.
  void commit(Place place, uint32_t bytes, uint64_t expires_ms, double base);
  /// The oldest item of a queue, or 0. Segments that have been emptied are given up.
  Place head(unsigned queue);
  /// The base of the oldest item, taken to rise evenly within its segment; the queue must not be
  /// empty.
  double head_base(unsigned queue) const {
    const Segment& s = segments_[queues_[queue].head];
    return s.base + (s.last_base - s.base) * s.begin / s.end;
  }
  uint32_t head_segment(unsigned queue) const { return queues_[queue].head; }
  bool empty(unsigned queue) const { return queues_[queue].head == kNone; }
  uint64_t occupied() const { return occupied_; }  ///< bits of queues that are not empty
  /// Makes a hole of an item. Its memory stays until its segment is merged, or given up, which
  /// happens here if it was the last one there.
  void kill(Place place, uint32_t bytes);

  /// Visits the live items of a segment, oldest first; they may be killed meanwhile.
  template <typename Visit>
  void for_each(uint32_t number, Visit&& visit) {
    const uint64_t start = uint64_t{number} * segment_bytes_;
    for (uint32_t at = segments_[number].begin; at < segments_[number].end;) {
      Item it(region_.base() + start + at, rank_);
      const uint32_t bytes = step_of(it.bytes());
      if (!it.dead()) visit(place_at(start + at), it);
      at += bytes;
    }
  }
  /// Moves the items of `to` to its front, and those of `from` behind them while they fit; in a
  /// queue `from` must be the next. `moved(old, new)` is called for each after it has moved. True
  /// if `from` has been emptied and given up.
  template <typename Moved>
  bool merge(uint32_t to, uint32_t from, Moved&& moved) {
    slide(to, moved);
    Segment& target = segments_[to];
    Segment& source = segments_[from];
    const uint64_t start = uint64_t{from} * segment_bytes_;
    const uint64_t target_start = uint64_t{to} * segment_bytes_;
    while (source.begin < source.end) {
      Item it(region_.base() + start + source.begin, rank_);
      const uint32_t bytes = it.bytes(), step = step_of(bytes);
      if (!it.dead()) {
        if (target.end + step > segment_bytes_) break;
        std::memcpy(region_.base() + target_start + target.end, it.at(), bytes);
        const Place old_place = place_at(start + source.begin);
        const Place new_place = place_at(target_start + target.end);
        target.end += step;
        target.live_bytes += step, ++target.live_items;
        source.live_bytes -= step, --source.live_items;
        moved(old_place, new_place);
      }
      source.begin += step;
    }
    target.expires_ms = std::min(target.expires_ms, source.expires_ms);
    target.last_base = source.begin < source.end ? source.base : source.last_base;
    if (source.begin < source.end) return false;
    give_up(from);
    return true;
  }
  void set_expires(uint32_t number, uint64_t expires_ms) {
    segments_[number].expires_ms = expires_ms;
  }

  /// Segments in use and their descriptions: what counts against the budget.
  uint64_t bytes() const { return segment_memory() + segments_made_ * sizeof(Segment); }
  uint64_t live_bytes() const { return live_bytes_; }
  uint64_t segment_memory() const { return uint64_t{used_} * segment_bytes_; }
  void clear();
  /// Aborts if a count, a link or an item's size is wrong. Returns the number of live items.
  uint64_t check_invariants();

 private:
  static constexpr uint64_t kStart = 64;  ///< so that no item's place is 0
  struct Queue {
    uint32_t head = kNone, tail = kNone;
  };

  uint64_t offset_of(Place place) const { return (uint64_t{place} << shift_) - kStart; }
  Place place_at(uint64_t offset) const { return static_cast<Place>((offset + kStart) >> shift_); }
  uint32_t step_of(uint32_t bytes) const {
    return (bytes + (1u << shift_) - 1) & ~((1u << shift_) - 1);
  }
  void give_up(uint32_t number);

  template <typename Moved>
  void slide(uint32_t number, Moved& moved) {
    Segment& s = segments_[number];
    if (s.live_bytes == s.end) return;
    const uint64_t start = uint64_t{number} * segment_bytes_;
    uint32_t to = 0;
    const uint32_t begin = s.begin, end = s.end;
    for (uint32_t at = begin; at < end;) {
      Item it(region_.base() + start + at, rank_);
      const uint32_t bytes = it.bytes(), step = step_of(bytes);
      if (!it.dead()) {
        if (at != to) {
          std::memmove(region_.base() + start + to, it.at(), bytes);
          moved(place_at(start + at), place_at(start + to));
        }
        to += step;
      }
      at += step;
    }
    s.begin = 0;
    s.end = to;
  }

  Region region_;
  const uint32_t segment_bytes_;
  const unsigned rank_;
  unsigned shift_ = 0;
  uint64_t segments_max_;
  Region descriptions_;
  Segment* const segments_;  ///< in there
  uint32_t segments_made_ = 0;
  std::array<Queue, kQueues> queues_;
  uint64_t occupied_ = 0;
  uint64_t live_bytes_ = 0;
  uint32_t free_ = kNone;
  uint32_t free_count_ = 0;
  uint32_t used_ = 0;
};

}  // namespace nearcached::l1
