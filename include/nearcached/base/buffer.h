// Buffer: a growable run of bytes that is filled at the back and drained at the front.
//
// Memory: blocks of kPooledBytes and kSmallBytes come from and go back to a per-thread pool of at
// most 4.25 MiB, others to the allocator; an empty Buffer owns nothing and is one pointer (an idle
// connection costs no buffer). Growth is by doubling from what has really arrived: a length that a
// peer merely declares never allocates. Thread: a Buffer stays on the thread that created it. Views
// returned by data()/readable() are valid until the next non-const call.
#pragma once
#include <cstddef>

#include "nearcached/base/bytes.h"

namespace nearcached {

class Buffer {
 public:
  static constexpr size_t kPooledBytes = 16 * 1024;  ///< of a first block, its header included
  static constexpr size_t kSmallBytes = 256;         ///< of the first block of append_little()

  /// Gives back the blocks of kPooledBytes that nobody has wanted since the last call, but for half
  /// a MiB. Call it now and then on each thread that has had many Buffers at a time.
  static void trim_pool();
  static size_t pooled_blocks();  ///< in this thread's pool, of kPooledBytes

  Buffer() = default;
  Buffer(Buffer&& o) noexcept : block_(o.block_) { o.block_ = nullptr; }
  Buffer& operator=(Buffer&& o) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(); }

  bool empty() const { return size() == 0; }
  size_t size() const { return block_ != nullptr ? block_->end - block_->begin : 0; }
  size_t capacity() const { return block_ != nullptr ? block_->capacity : 0; }
  const char* data() const { return block_ != nullptr ? block_->bytes() + block_->begin : nullptr; }
  char* data() { return block_ != nullptr ? block_->bytes() + block_->begin : nullptr; }
  Bytes readable() const { return {data(), size()}; }

  void append(Bytes bytes) {
    if (bytes.empty()) return;  // a null view must not reach memcpy
    std::memcpy(reserve(bytes.size()), bytes.data(), bytes.size());
    block_->end += bytes.size();
  }
  void append(char c) {
    *reserve(1) = c;
    ++block_->end;
  }
  /// The same, for one of many buffers of which most will never hold more than this.
  void append_little(Bytes bytes) {
    if (block_ == nullptr && bytes.size() <= kSmallBytes - sizeof(Block)) take(kSmallBytes);
    append(bytes);
  }
  /// At least `n` writable bytes at the back; commit(m ≤ n) makes the first m readable.
  char* reserve(size_t n) {
    if (block_ == nullptr || block_->capacity - block_->end < n) [[unlikely]]
      grow(n);
    return block_->bytes() + block_->end;
  }
  void commit(size_t n) {
    if (n > 0) block_->end += n;
  }
  /// Drops `n` bytes at the front; an emptied buffer gives its memory back.
  void consume(size_t n) {
    if (block_ == nullptr) return;
    block_->begin += n;
    if (block_->begin == block_->end) release();
  }
  /// Drops all but the first `n` bytes, n ≤ size().
  void truncate(size_t n) {
    if (block_ == nullptr) return;
    block_->end = block_->begin + n;
    if (n == 0) release();
  }
  void clear() { release(); }

 private:
  struct Block {
    size_t capacity;  ///< behind this header
    size_t begin, end;
    char* bytes() { return reinterpret_cast<char*>(this + 1); }
    const char* bytes() const { return reinterpret_cast<const char*>(this + 1); }
  };
  struct Pool;
  static Pool& pool();
  static Block* allocate(size_t bytes);
  static void deallocate(Block* block);
  void take(size_t bytes);
  void grow(size_t n);
  void release();

  Block* block_ = nullptr;
};

}  // namespace nearcached
