// Buffer: a growable run of bytes that is filled at the back and drained at the front.
//
// Memory: blocks of kPooledBytes come from and go back to a small per-thread pool, larger ones to
// the allocator; an empty Buffer owns nothing (an idle connection costs no buffer). Growth is by
// doubling from what has really arrived: a length that a peer merely declares never allocates.
// Thread: a Buffer stays on the thread that created it.
// Views returned by data()/readable() are valid until the next non-const call.
#pragma once
#include <cstddef>

#include "nearcached/base/bytes.h"

namespace nearcached {

class Buffer {
 public:
  static constexpr size_t kPooledBytes = 16 * 1024;

  Buffer() = default;
  Buffer(Buffer&& o) noexcept
      : block_(o.block_), capacity_(o.capacity_), begin_(o.begin_), end_(o.end_) {
    o.block_ = nullptr;
    o.capacity_ = o.begin_ = o.end_ = 0;
  }
  Buffer& operator=(Buffer&& o) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(); }

  bool empty() const { return begin_ == end_; }
  size_t size() const { return end_ - begin_; }
  size_t capacity() const { return capacity_; }
  const char* data() const { return block_ + begin_; }
  char* data() { return block_ + begin_; }
  Bytes readable() const { return {block_ + begin_, end_ - begin_}; }

  void append(Bytes bytes) {
    if (bytes.empty()) return;  // a null view must not reach memcpy
    std::memcpy(reserve(bytes.size()), bytes.data(), bytes.size());
    end_ += bytes.size();
  }
  void append(char c) {
    *reserve(1) = c;
    ++end_;
  }
  /// At least `n` writable bytes at the back; commit(m ≤ n) makes the first m readable.
  char* reserve(size_t n) {
    if (capacity_ - end_ < n || block_ == nullptr) [[unlikely]]
      grow(n);
    return block_ + end_;
  }
  void commit(size_t n) { end_ += n; }
  /// Drops `n` bytes at the front; an emptied buffer gives its memory back.
  void consume(size_t n) {
    begin_ += n;
    if (begin_ == end_) release();
  }
  void clear() { release(); }

 private:
  void grow(size_t n);
  void release();

  char* block_ = nullptr;
  size_t capacity_ = 0;
  size_t begin_ = 0;
  size_t end_ = 0;
};

}  // namespace nearcached
