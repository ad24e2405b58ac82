// The budget counts what the allocator hands out. jemalloc tells its size class beforehand
// (nallocx, a few ns, no memory touched); glibc only knows it from the block, and keeps a word of
// its own in front of it. A size class table of our own would have to follow the allocator's
// version, so none is kept.
//
// The blocks of a thread have an arena of their own that gives pages back as soon as they are free:
// with the usual decay of ten seconds, memory that has left the budget stays resident (churn of
// values up to 64 KiB in 256 MiB: 349 MiB resident).
#include "l1/heap.h"

#include <cstdlib>
#include <string>

#include "nearcached/base/check.h"

#ifdef NEARCACHED_JEMALLOC
#include <jemalloc/jemalloc.h>
#else
#include <malloc.h>
#endif

namespace nearcached::l1 {

#ifdef NEARCACHED_JEMALLOC

namespace {

int arena_flags() {
  static thread_local const int flags = [] {
    unsigned arena = 0;
    size_t size = sizeof(arena);
    NC_CHECK(mallctl("arenas.create", &arena, &size, nullptr, 0) == 0);
    for (const char* what : {"dirty", "muzzy"}) {
      const std::string name = "arena." + std::to_string(arena) + "." + what + "_decay_ms";
      ssize_t at_once = 0;
      NC_CHECK(mallctl(name.c_str(), nullptr, nullptr, &at_once, sizeof(at_once)) == 0);
    }
    return static_cast<int>(MALLOCX_ARENA(arena)) | MALLOCX_TCACHE_NONE;
  }();
  return flags;
}

}  // namespace

void* heap_alloc(size_t bytes) {
  void* block = mallocx(bytes, arena_flags());
  NC_CHECK(block != nullptr);
  return block;
}

void heap_free(void* block) { dallocx(block, MALLOCX_TCACHE_NONE); }

uint64_t heap_cost_expected(size_t bytes) { return nallocx(bytes, 0); }
// Asking with the size spares the look-up of the block's metadata.
uint64_t heap_cost(const void*, size_t bytes) { return nallocx(bytes, 0); }

#else

uint64_t heap_cost_expected(size_t bytes) { return ((bytes + sizeof(size_t) + 15) & ~size_t{15}); }
uint64_t heap_cost(const void* block, size_t) {
  return malloc_usable_size(const_cast<void*>(block)) + sizeof(size_t);
}

void* heap_alloc(size_t bytes) {
  void* block = std::malloc(bytes);
  NC_CHECK(block != nullptr);
  return block;
}

void heap_free(void* block) { std::free(block); }

#endif

}  // namespace nearcached::l1
