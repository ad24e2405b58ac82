// One table look-up per byte: a slot is computed for every key of every request to a cluster, and
// keys are short. Eight tables at once (slicing) would pay off only for keys of hundreds of bytes,
// and cost 4 KiB of the first-level cache.
#include "nearcached/topology/slots.h"

#include <array>

namespace nearcached {
namespace {

constexpr uint16_t kPolynomial = 0x1021;  // XMODEM: initial value 0, not reflected

constexpr std::array<uint16_t, 256> make_table() {
  std::array<uint16_t, 256> table{};
  for (unsigned byte = 0; byte < table.size(); ++byte) {
    unsigned crc = byte << 8;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x8000) != 0 ? crc << 1 ^ kPolynomial : crc << 1;
    table[byte] = static_cast<uint16_t>(crc);
  }
  return table;
}

constexpr std::array<uint16_t, 256> kTable = make_table();

// What of the key is hashed. Only the first '{' counts: behind an empty tag no other is looked for.
Bytes hashed_part(Bytes key) {
  const size_t open = key.find('{');
  if (open == Bytes::npos) return key;
  const size_t close = key.find('}', open + 1);
  if (close == Bytes::npos || close == open + 1) return key;
  return key.substr(open + 1, close - open - 1);
}

}  // namespace

uint16_t slot_of(Bytes key) {
  unsigned crc = 0;
  for (const char c : hashed_part(key))
    crc = (crc << 8 & 0xffff) ^ kTable[(crc >> 8 ^ static_cast<unsigned char>(c)) & 0xff];
  return static_cast<uint16_t>(crc % kSlots);
}

}  // namespace nearcached
