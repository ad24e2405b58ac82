#include "nearcached/base/memory.h"

#ifdef NEARCACHED_JEMALLOC
#include <jemalloc/jemalloc.h>

#include <cstdio>
#endif

namespace nearcached {

void give_back_freed_memory() {
#ifdef NEARCACHED_JEMALLOC
  unsigned arena = 0;
  size_t size = sizeof arena;
  if (mallctl("thread.arena", &arena, &size, nullptr, 0) != 0) return;
  mallctl("thread.tcache.flush", nullptr, nullptr, nullptr, 0);
  char name[32];
  std::snprintf(name, sizeof name, "arena.%u.decay", arena);
  mallctl(name, nullptr, nullptr, nullptr, 0);
#endif
}

}  // namespace nearcached
