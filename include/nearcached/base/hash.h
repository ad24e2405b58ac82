// The one hash of a key: XXH3 with a secret per-process seed, so that nobody outside can aim keys
// at one bucket. The database number is not part of it: tracking pushes carry none.
#pragma once
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "nearcached/base/bytes.h"

namespace nearcached {

inline uint64_t hash_key(Bytes key, uint64_t seed) {
  return XXH3_64bits_withSeed(key.data(), key.size(), seed);
}

}  // namespace nearcached
