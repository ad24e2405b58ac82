// A fixed header and counted items, read with one cursor that never goes past the end. Rejected:
// RESP or JSON, which would carry keys with any byte in them only behind an encoding of their own.
#include "nearcached/coherence/bus_message.h"

namespace nearcached::coherence {
namespace {

constexpr Bytes kMagic = "NCB1";

template <typename Integer>
void put(std::string& out, Integer value) {
  for (size_t i = 0; i < sizeof value; ++i) out += static_cast<char>(value >> (8 * i));
}

template <typename Integer>
bool take(Bytes& in, Integer& value) {
  if (in.size() < sizeof value) return false;
  value = 0;
  for (size_t i = 0; i < sizeof value; ++i)
    value = static_cast<Integer>(
        value | static_cast<Integer>(static_cast<Integer>(static_cast<uint8_t>(in[i])) << (8 * i)));
  in.remove_prefix(sizeof value);
  return true;
}

}  // namespace

void encode(const BusMessage& message, std::string& out) {
  out.append(kMagic);
  put(out, static_cast<uint8_t>(message.kind));
  put(out, static_cast<uint8_t>(message.cause));
  put(out, message.proxy);
  put(out, message.number);
  put(out, static_cast<uint32_t>(message.items.size()));
  for (const Bytes item : message.items) {
    put(out, static_cast<uint32_t>(item.size()));
    out.append(item);
  }
}

bool decode(Bytes bytes, BusMessage& message) {
  if (!bytes.starts_with(kMagic)) return false;
  bytes.remove_prefix(kMagic.size());
  uint8_t kind = 0, cause = 0;
  uint32_t count = 0;
  if (!take(bytes, kind) || !take(bytes, cause) || !take(bytes, message.proxy) ||
      !take(bytes, message.number) || !take(bytes, count))
    return false;
  if (kind > static_cast<uint8_t>(BusMessage::Kind::proof) || cause >= kCauses) return false;
  if (count > bytes.size() / sizeof(uint32_t)) return false;  // each item has a size at least
  message.kind = static_cast<BusMessage::Kind>(kind);
  message.cause = static_cast<Cause>(cause);
  message.items.clear();
  message.items.reserve(count);
  for (; count > 0; --count) {
    uint32_t size = 0;
    if (!take(bytes, size) || size > bytes.size()) return false;
    message.items.push_back(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
  return bytes.empty();
}

}  // namespace nearcached::coherence
