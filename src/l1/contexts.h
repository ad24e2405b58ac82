// Spaces and commands by a short number: an item names its (space, command) with two bytes instead
// of six. A number is free again when the last item that names it has gone.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nearcached::l1 {

class Contexts {
 public:
  static constexpr uint16_t kNone = 0xFFFF;

  /// The number of this pair, or kNone if no item has it.
  uint16_t find(uint32_t space, uint16_t command) const {
    if (last_ != kNone && entries_[last_].is(space, command)) return last_;
    return search(space, command);
  }
  /// As find(), but takes a new number if need be, and counts one more item. kNone: all are in use,
  /// which takes 65,535 pairs of live items.
  uint16_t acquire(uint32_t space, uint16_t command);
  /// One item less.
  void release(uint16_t number);

  /// Is `number`, which an item has, that of this pair?
  bool is(uint16_t number, uint32_t space, uint16_t command) const {
    return entries_[number].is(space, command);
  }
  uint32_t space(uint16_t number) const { return entries_[number].space; }
  uint16_t command(uint16_t number) const { return entries_[number].command; }
  uint64_t items(uint16_t number) const { return entries_[number].items; }
  size_t size() const { return entries_.size(); }  ///< numbers that have been given out
  uint64_t bytes() const {
    return entries_.capacity() * sizeof(Entry) + heads_.capacity() * sizeof(uint16_t);
  }
  void clear() { *this = Contexts(); }

 private:
  struct Entry {
    uint32_t space;
    uint32_t items;  ///< 0: free
    uint16_t command;
    uint16_t next;  ///< in its hash chain, or in the list of free entries
    bool is(uint32_t other_space, uint16_t other_command) const {
      return items != 0 && space == other_space && command == other_command;
    }
  };
  uint16_t search(uint32_t space, uint16_t command) const;
  uint16_t& head(uint32_t space, uint16_t command) {
    return heads_[hash(space, command) & (heads_.size() - 1)];
  }
  static uint32_t hash(uint32_t space, uint16_t command) {
    const uint64_t mixed = (uint64_t{space} << 16 | command) * 0x9E3779B97F4A7C15u;
    return static_cast<uint32_t>(mixed >> 32);
  }
  void grow();

  std::vector<Entry> entries_;
  std::vector<uint16_t> heads_;
  uint16_t free_ = kNone;
  mutable uint16_t last_ = kNone;  ///< the one found last: most lookups ask for it again
};

}  // namespace nearcached::l1
