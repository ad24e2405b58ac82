// The messages proxies send each other over Redis pub/sub: what was written, what is to be dropped,
// that somebody is alive. Binary safe, and the same on every machine.
//
//   "NCB1" | kind u8 | cause u8 | proxy u64 | number u64 | count u32 | count × (size u32, bytes)
//
// Integers are little-endian. Whoever may PUBLISH on the channel can send anything, so every length
// is checked before it is believed, and a message that is not exactly this is no message.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nearcached/base/bytes.h"

namespace nearcached::coherence {

/// Why something is dropped: the causes of INFO's invalidations_*.
enum class Cause : uint8_t { write, push, bus, pattern, scheduled, event, expiry, epoch };
inline constexpr size_t kCauses = 8;

struct BusMessage {
  enum class Kind : uint8_t {
    wrote,             ///< items: keys that were written; number: its sequence
    wrote_everything,  ///< a write whose keys nobody knows; number: its sequence
    heartbeat,         ///< number: all messages up to this sequence have been executed
    invalidate,        ///< items: keys to drop; number: the request, to be acknowledged
    pattern,           ///< items[0]: a glob; likewise
    flush,             ///< drop everything; likewise
    schedules,         ///< the stored schedules have changed
    acknowledge,       ///< to one proxy: its request `number` has been carried out
    proof,             ///< to oneself: everything published before number `number` has been seen
  };
  Kind kind = Kind::heartbeat;
  Cause cause = Cause::bus;
  uint64_t proxy = 0;   ///< who sends; random, drawn at its start
  uint64_t number = 0;  ///< by kind
  std::vector<Bytes> items;
};

/// Longer ones are not sent: Redis gives up a subscriber that falls 32 MB behind.
inline constexpr size_t kMessageBytesMax = 1 << 20;

/// Appends to `out`.
void encode(const BusMessage& message, std::string& out);
/// False: not a message. The items are views into `bytes`.
[[nodiscard]] bool decode(Bytes bytes, BusMessage& message);

}  // namespace nearcached::coherence
