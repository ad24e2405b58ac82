// A table of cache lines that grows and shrinks by one line, addressed by linear hashing: line n is
// split out of line split_source(n), and all other lines stay where they are. What a split does
// with the content is the caller's business. The lines lie in one reserved range of addresses, so
// that finding one reads no directory.
#pragma once
#include <bit>
#include <cstdint>

#include "l1/region.h"

namespace nearcached::l1 {

template <typename Line>
class LineTable {
 public:
  static_assert(sizeof(Line) == 64);

  /// Never more than `lines_max` lines; they are counted in steps of `grain_bytes`.
  LineTable(uint64_t lines_max, uint64_t grain_bytes)
      : region_(lines_max * sizeof(Line)), grain_(grain_bytes) {}

  uint64_t size() const { return size_; }
  uint64_t capacity() const { return region_.bytes() / sizeof(Line); }
  Line& operator[](uint64_t number) const {
    return reinterpret_cast<Line*>(region_.base())[number];
  }
  /// The line of this hash; size() must not be 0.
  uint64_t locate(uint64_t mix) const {
    const uint64_t number = mix & mask_;
    return number < size_ ? number : number & (mask_ >> 1);
  }
  static uint64_t split_source(uint64_t number) { return number - std::bit_floor(number); }

  /// New lines are zero.
  void resize(uint64_t size) {
    for (uint64_t line = size; line < size_; ++line) (*this)[line] = Line{};
    if (size < size_) region_.release(size * sizeof(Line), size_ * sizeof(Line));
    size_ = size;
    mask_ = size == 0 ? 0 : std::bit_ceil(size) - 1;
  }
  /// Gives all lines back at once.
  void clear() {
    region_.release(0, region_.bytes());
    size_ = mask_ = 0;
  }
  /// What counts against the budget.
  uint64_t bytes() const { return (size_ * sizeof(Line) + grain_ - 1) & ~(grain_ - 1); }

 private:
  Region region_;
  uint64_t grain_;
  uint64_t size_ = 0;
  uint64_t mask_ = 0;  ///< bit_ceil(size_) − 1
};

}  // namespace nearcached::l1
