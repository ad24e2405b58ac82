// A table of cache lines that grows and shrinks by one line, addressed by linear hashing: line n is
// split out of line split_source(n), and all other lines stay where they are. What a split does
// with the content is the caller's business. Memory comes in pages of 64 lines, so that neither
// growth nor the budget it takes ever comes as one large step.
#pragma once
#include <bit>
#include <cstdint>
#include <vector>

#include "l1/heap.h"

namespace nearcached::l1 {

template <typename Line>
class LineTable {
 public:
  static constexpr uint64_t kPageLines = 64;
  static_assert(sizeof(Line) == 64);

  LineTable() = default;
  ~LineTable() { resize(0); }
  LineTable(const LineTable&) = delete;
  LineTable& operator=(const LineTable&) = delete;

  uint64_t size() const { return size_; }
  Line& operator[](uint64_t number) const {
    return pages_[number / kPageLines][number % kPageLines];
  }
  /// The line of this hash; size() must not be 0.
  uint64_t locate(uint64_t mix) const {
    const uint64_t number = mix & mask_;
    return number < size_ ? number : number & (mask_ >> 1);
  }
  static uint64_t split_source(uint64_t number) { return number - std::bit_floor(number); }

  /// New lines on a new page are zero; a line given up must have been zeroed by the caller.
  void resize(uint64_t size) {
    const uint64_t pages = (size + kPageLines - 1) / kPageLines;
    // By an eighth: doubling would take the room of a thousand items in one put at 5M items.
    if (pages > pages_.capacity()) pages_.reserve(pages + pages / 8);
    while (pages_.size() < pages) {
      pages_.push_back(static_cast<Line*>(heap_alloc_lines(kPageBytes)));
      page_bytes_ += heap_cost(pages_.back(), kPageBytes);
    }
    while (pages_.size() > pages) {
      page_bytes_ -= heap_cost(pages_.back(), kPageBytes);
      heap_free(pages_.back());
      pages_.pop_back();
    }
    if (pages == 0) pages_ = std::vector<Line*>();
    size_ = size;
    mask_ = size == 0 ? 0 : std::bit_ceil(size) - 1;
  }
  /// As the allocator counts.
  uint64_t bytes() const {
    if (pages_.capacity() == 0) return 0;
    return page_bytes_ + heap_cost(pages_.data(), pages_.capacity() * sizeof(Line*));
  }

 private:
  static constexpr size_t kPageBytes = kPageLines * sizeof(Line);

  std::vector<Line*> pages_;
  uint64_t size_ = 0;
  uint64_t mask_ = 0;  ///< bit_ceil(size_) − 1
  uint64_t page_bytes_ = 0;
};

}  // namespace nearcached::l1
