// A busy worker empties and refills thousands of small buffers a second, one at a time: a stack of
// a few hot blocks serves them without touching the allocator, and keeps the memory in cache.
#include "nearcached/base/buffer.h"

#include <cstdlib>
#include <new>
#include <utility>

namespace nearcached {

struct Buffer::Pool {
  static constexpr size_t kBlocksMax = 32;  // 512 KiB a thread
  Block* blocks[kBlocksMax];
  size_t count = 0;
  ~Pool() {
    while (count > 0) std::free(blocks[--count]);
    count = kBlocksMax;  // late releases at thread exit go straight to the allocator
  }
};

Buffer::Pool& Buffer::pool() {
  thread_local Pool pool;
  return pool;
}

Buffer::Block* Buffer::allocate(size_t bytes) {
  Pool& kept = pool();
  if (bytes == kPooledBytes && kept.count > 0 && kept.count < Pool::kBlocksMax)
    return kept.blocks[--kept.count];
  void* const memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  auto* const block = static_cast<Block*>(memory);
  block->capacity = bytes - sizeof(Block);
  return block;
}

void Buffer::deallocate(Block* block) {
  Pool& kept = pool();
  if (block->capacity + sizeof(Block) == kPooledBytes && kept.count + 1 < Pool::kBlocksMax)
    kept.blocks[kept.count++] = block;
  else std::free(block);
}

Buffer& Buffer::operator=(Buffer&& o) noexcept {
  if (this != &o) {
    release();
    block_ = std::exchange(o.block_, nullptr);
  }
  return *this;
}

void Buffer::grow(size_t n) {
  const size_t used = size();
  if (block_ != nullptr && block_->capacity - used >= n && block_->begin >= block_->capacity / 2) {
    // At least half is drained: amortised O(1).
    std::memmove(block_->bytes(), block_->bytes() + block_->begin, used);
  } else {
    size_t bytes = block_ == nullptr ? kPooledBytes : (block_->capacity + sizeof(Block)) * 2;
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
