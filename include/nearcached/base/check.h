// CHECK: an invariant of our own. It stays on in release builds and never guards a peer's input.
#pragma once
#include <cstdio>
#include <cstdlib>

#define NC_CHECK(condition)                                                              \
  do {                                                                                   \
    if (!(condition)) [[unlikely]] {                                                     \
      std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (0)
