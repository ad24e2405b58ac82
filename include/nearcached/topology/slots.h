// The hash slots of Redis Cluster.
#pragma once
#include <cstdint>

#include "nearcached/base/bytes.h"

namespace nearcached {

constexpr unsigned kSlots = 16'384;

/// CRC16 (XMODEM) of the key, or of its hash tag if it has one that is not empty: what stands
/// between the first '{' and the first '}' behind it (Redis Cluster specification).
uint16_t slot_of(Bytes key);

}  // namespace nearcached
