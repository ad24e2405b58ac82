// A busy worker empties and refills thousands of small buffers a second, one at a time: a stack of
// hot blocks serves them without touching the allocator, and keeps the memory in cache. A
// second stack is for replies that overtake one another (a cluster's): thousands wait at a time,
// and a block of 16 KiB for each would be memory that the system hands out and takes back forever.
#include "nearcached/base/buffer.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

namespace nearcached {
namespace {

constexpr size_t kBlocksKept = 32;  // unused, 512 KiB

}  // namespace

struct Buffer::Pool {
  template <size_t kBlocksMax>
  struct Stack {
    Block* blocks[kBlocksMax];
    size_t count = 0;
    size_t unused = 0;  ///< how many nobody has wanted since the last trim()

    Block* take() {
      if (count == 0 || count == kBlocksMax) return nullptr;
      --count;
      unused = std::min(unused, count);
      return blocks[count];
    }
    bool give(Block* block) {
      if (count + 1 >= kBlocksMax) return false;
      blocks[count++] = block;
      return true;
    }
    void trim(size_t kept) {
      if (count == kBlocksMax) return;
      for (; unused > kept; --unused) std::free(blocks[--count]);
      unused = count;
    }
    ~Stack() {
      while (count > 0) std::free(blocks[--count]);
      count = kBlocksMax;  // late releases at thread exit go straight to the allocator
    }
  };
  // Of 50 clients with misses in their pipelines of 64 each has up to three at a time: with 32
  // blocks instead of 256 that took 9 % more CPU.
  Stack<256> pooled;  // 4 MiB a thread at most; at most kBlocksKept that are not used
  Stack<1024> small;  // 256 KiB
};

Buffer::Pool& Buffer::pool() {
  thread_local Pool pool;
  return pool;
}

void Buffer::trim_pool() { pool().pooled.trim(kBlocksKept); }

size_t Buffer::pooled_blocks() { return pool().pooled.count; }

Buffer::Block* Buffer::allocate(size_t bytes) {
  Block* const kept = bytes == kPooledBytes  ? pool().pooled.take()
                      : bytes == kSmallBytes ? pool().small.take()
                                             : nullptr;
  if (kept != nullptr) return kept;
  void* const memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  auto* const block = static_cast<Block*>(memory);
  block->capacity = bytes - sizeof(Block);
  return block;
}

void Buffer::deallocate(Block* block) {
  const size_t bytes = block->capacity + sizeof(Block);
  const bool kept = bytes == kPooledBytes  ? pool().pooled.give(block)
                    : bytes == kSmallBytes ? pool().small.give(block)
                                           : false;
  if (!kept) std::free(block);
}

Buffer& Buffer::operator=(Buffer&& o) noexcept {
  if (this != &o) {
    release();
    block_ = std::exchange(o.block_, nullptr);
  }
  return *this;
}

void Buffer::take(size_t bytes) {
  block_ = allocate(bytes);
  block_->begin = block_->end = 0;
}

void Buffer::grow(size_t n) {
  const size_t used = size();
  if (block_ != nullptr && block_->capacity - used >= n && block_->begin >= block_->capacity / 2) {
    // At least half is drained: amortised O(1).
    std::memmove(block_->bytes(), block_->bytes() + block_->begin, used);
  } else {
    size_t bytes = block_ == nullptr
                       ? kPooledBytes
                       : std::max(kPooledBytes, (block_->capacity + sizeof(Block)) * 2);
    while (bytes - sizeof(Block) - used < n) bytes *= 2;
    Block* const block = allocate(bytes);
    if (used > 0) std::memcpy(block->bytes(), data(), used);
    if (block_ != nullptr) deallocate(block_);
    block_ = block;
  }
  block_->begin = 0;
  block_->end = used;
}

void Buffer::release() {
  if (block_ != nullptr) deallocate(block_);
  block_ = nullptr;
}

}  // namespace nearcached
