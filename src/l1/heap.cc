// The budget counts what the allocator hands out. jemalloc tells its size class beforehand
// (nallocx, a few ns, no memory touched); glibc only knows it from the block, and keeps a word of
// its own in front of it. A size class table of our own would have to follow the allocator's
// version, so none is kept.
#include "l1/heap.h"

#include <cstdlib>
#include <cstring>

#include "nearcached/base/check.h"

#ifdef NEARCACHED_JEMALLOC
#include <jemalloc/jemalloc.h>
#else
#include <malloc.h>
#endif

namespace nearcached::l1 {

#ifdef NEARCACHED_JEMALLOC

uint64_t heap_cost_expected(size_t bytes) { return nallocx(bytes, 0); }
// Asking with the size spares the look-up of the block's metadata. Every aligned block here is a
// multiple of 64 that is a size class by itself, so the alignment does not change the class.
uint64_t heap_cost(const void*, size_t bytes) { return nallocx(bytes, 0); }

#else

uint64_t heap_cost_expected(size_t bytes) { return ((bytes + sizeof(size_t) + 15) & ~size_t{15}); }
uint64_t heap_cost(const void* block, size_t) {
  return malloc_usable_size(const_cast<void*>(block)) + sizeof(size_t);
}

#endif

void* heap_alloc(size_t bytes) {
  void* block = std::malloc(bytes);
  NC_CHECK(block != nullptr);
  return block;
}

void* heap_alloc_lines(size_t bytes) {
  void* block = std::aligned_alloc(64, bytes);
  NC_CHECK(block != nullptr);
  std::memset(block, 0, bytes);
  return block;
}

void heap_free(void* block) { std::free(block); }

}  // namespace nearcached::l1
