// A busy worker empties and refills thousands of small buffers a second, one at a time: a stack of
// a few hot blocks serves them without touching the allocator, and keeps the memory in cache.
#include "nearcached/base/buffer.h"

#include <cstdlib>
#include <new>
#include <utility>

namespace nearcached {
namespace {

struct BlockPool {
  static constexpr size_t kBlocksMax = 64;  // 1 MiB a thread
  char* blocks[kBlocksMax];
  size_t count = 0;
  ~BlockPool() {
    while (count > 0) std::free(blocks[--count]);
    count = kBlocksMax;  // late releases at thread exit go straight to the allocator
  }
};
thread_local BlockPool pool;

char* allocate(size_t bytes) {
  if (bytes == Buffer::kPooledBytes && pool.count > 0 && pool.count < BlockPool::kBlocksMax)
    return pool.blocks[--pool.count];
  void* block = std::malloc(bytes);
  if (block == nullptr) throw std::bad_alloc();
  return static_cast<char*>(block);
}

void deallocate(char* block, size_t bytes) {
  if (bytes == Buffer::kPooledBytes && pool.count + 1 < BlockPool::kBlocksMax)
    pool.blocks[pool.count++] = block;
  else std::free(block);
}

}  // namespace

Buffer& Buffer::operator=(Buffer&& o) noexcept {
  if (this != &o) {
    release();
    block_ = std::exchange(o.block_, nullptr);
    capacity_ = std::exchange(o.capacity_, 0);
    begin_ = std::exchange(o.begin_, 0);
    end_ = std::exchange(o.end_, 0);
  }
  return *this;
}

void Buffer::grow(size_t n) {
  const size_t used = end_ - begin_;
  if (block_ != nullptr && capacity_ - used >= n && begin_ >= capacity_ / 2) {
    std::memmove(block_, block_ + begin_, used);  // at least half is drained: amortised O(1)
  } else {
    size_t capacity = capacity_ == 0 ? kPooledBytes : capacity_ * 2;
    while (capacity - used < n) capacity *= 2;
    char* block = allocate(capacity);
    if (used > 0) std::memcpy(block, block_ + begin_, used);
    if (block_ != nullptr) deallocate(block_, capacity_);
    block_ = block;
    capacity_ = capacity;
  }
  begin_ = 0;
  end_ = used;
}

void Buffer::release() {
  if (block_ != nullptr) deallocate(block_, capacity_);
  block_ = nullptr;
  capacity_ = begin_ = end_ = 0;
}

}  // namespace nearcached
