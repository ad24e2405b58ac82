// One item: a 64-byte header, then key, variant and reply in the same heap block. The header's
// order puts what a lookup compares first, so that a hit on a short key reads two cache lines.
#pragma once
#include <xxhash.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "nearcached/base/bytes.h"
#include "nearcached/base/hash.h"
#include "nearcached/l1/table.h"

namespace nearcached::l1 {

struct Item {
  uint64_t hash;
  uint32_t space;
  uint32_t key_bytes;
  uint32_t variant_bytes;
  uint32_t reply_bytes;
  uint64_t expires_ms;
  uint64_t stamp;
  uint32_t lifetime_ms;  ///< expires_ms − filled_ms
  uint16_t command;
  uint16_t
      bits;     ///< below; from the lowest: plain, negative, in_main, frequency (2), accesses (11)
  Item* newer;  ///< neighbours in its queue
  Item* older;

  static constexpr uint16_t kPlain = 1;
  static constexpr uint16_t kNegative = 2;
  static constexpr uint16_t kInMain = 4;
  static constexpr uint16_t kFrequencyOne = 8;
  static constexpr uint16_t kFrequencyMask = 3 * kFrequencyOne;
  static constexpr uint16_t kAccessesOne = 32;
  static constexpr uint16_t kAccessesMask = 0xFFFF & ~(kAccessesOne - 1);
  /// What an item keeps when a newer reply replaces it: where it stood, not what it said.
  static constexpr uint16_t kHistoryMask = kInMain | kFrequencyMask | kAccessesMask;

  bool in_main() const { return (bits & kInMain) != 0; }
  unsigned frequency() const { return (bits & kFrequencyMask) / kFrequencyOne; }
  unsigned accesses() const { return bits / kAccessesOne; }

  /// Counts an access. Saturated counters are not written: a very hot item stays a clean line.
  void touch() {
    unsigned next = bits;
    if ((next & kFrequencyMask) != kFrequencyMask) next += kFrequencyOne;
    if ((next & kAccessesMask) != kAccessesMask) next += kAccessesOne;
    if (next != bits) bits = static_cast<uint16_t>(next);
  }
  void set_frequency(unsigned frequency) {
    bits = static_cast<uint16_t>((bits & ~kFrequencyMask) | frequency * kFrequencyOne);
  }

  const char* data() const { return reinterpret_cast<const char*>(this + 1); }
  char* data() { return reinterpret_cast<char*>(this + 1); }
  Bytes key() const { return {data(), key_bytes}; }
  Bytes variant() const { return {data() + key_bytes, variant_bytes}; }
  Bytes reply() const { return {data() + key_bytes + variant_bytes, reply_bytes}; }
  uint64_t filled_ms() const { return expires_ms - lifetime_ms; }
  size_t block_bytes() const {
    return sizeof(Item) + size_t{key_bytes} + size_t{variant_bytes} + size_t{reply_bytes};
  }

  bool matches(const L1Key& other) const {
    return hash == other.hash && space == other.space && command == other.command &&
           key() == other.key && variant() == other.variant;
  }
};
static_assert(sizeof(Item) == 64);

/// The index's hash. The variant is hashed under the key's secret hash, so that a client who picks
/// the arguments cannot aim them at one bucket either.
inline uint64_t mix(uint64_t hash, uint32_t space, uint16_t command, Bytes variant) {
  uint64_t x = hash + (uint64_t{space} << 16 | command) * 0x9E3779B97F4A7C15u;
  if (!variant.empty()) x = XXH3_64bits_withSeed(variant.data(), variant.size(), x);
  x = (x ^ x >> 32) * 0xD6E8FEB86659FD93u;
  x = (x ^ x >> 32) * 0xD6E8FEB86659FD93u;
  return x ^ x >> 32;
}
inline uint64_t mix(const L1Key& key) { return mix(key.hash, key.space, key.command, key.variant); }
inline uint64_t mix(const Item& item) {
  return mix(item.hash, item.space, item.command, item.variant());
}

}  // namespace nearcached::l1
