// The rules of coherence as pure functions: when a hit may be served, when a read may join
// another's flight, whether what a flight brought may be kept. No clock, no sockets: time is an
// argument, so that a simulator can run them as they are.
#pragma once
#include <cstdint>

#include "nearcached/base/bytes.h"

namespace nearcached::coherence {

/// What one lane (one tracked connection) has proven. Times are monotonic nanoseconds.
struct LaneProof {
  uint32_t space = 0;      ///< the life of what was filled through it; renewed by every epoch bump
  bool tracking = false;   ///< the server pushes to it
  uint64_t master_ns = 0;  ///< when the last ROLE was sent that said "master"
  uint64_t link_ns = 0;    ///< when the last request was sent that has been answered
};

/// What a session demands beyond that.
struct SessionView {
  uint64_t floor_ns = 0;         ///< it has seen another connection's replies up to this time
  bool replies_pending = false;  ///< earlier requests of its own are not answered yet
};

/// The same where invalidations come over the bus: they are in no order with the lane's replies, so
/// nothing is proven that is later than the bus's own proof (`bus_ns`: when it was sent).
LaneProof over_bus(LaneProof lane, uint64_t bus_ns);

/// May anything be served from L1 to this session over this lane now?
/// Staleness: nothing older than max_staleness_ns can be served, however the link hangs (G3).
/// Floor: a session that read over another connection waits until this one has caught up (G2).
/// Order: behind an unanswered request a hit would be older than that request's reply (G2).
bool may_serve(const LaneProof& lane, const SessionView& session, uint64_t now_ns,
               uint64_t max_staleness_ns);

/// Is an item that was filled under `item_stamp` still what every acknowledged write left?
bool stamp_holds(uint64_t item_stamp, uint64_t stamp_now);

/// What a fill remembers from before its read was sent.
struct FillStart {
  uint64_t stamp = 0;
  uint32_t space = 0;
  uint64_t sent_ns = 0;
};

/// May a read that starts now share the reply of a flight that is under way? Not if a write began
/// or ended since the flight started: the write may be acknowledged while the flight still brings
/// the old value (G1). Nor if it was sent up to `void_ns`, when a pattern was accepted that may be
/// meant for what it brings.
bool may_join(const FillStart& flight, uint64_t stamp_now, uint32_t space_now, uint64_t void_ns);

/// May a read that starts now be the start of a fill at all? Not while a write is under way.
bool may_fill(uint64_t stamp_now);

struct FillTtls {
  uint64_t ttl_ms;
  uint64_t negative_ttl_ms;
};
struct Verdict {
  bool store = false;
  bool negative = false;
  uint64_t expires_ms = 0;  ///< monotonic ms
};

/// May the reply be kept, and until when? `pttl` is PTTL's answer from behind the read on the same
/// connection: ≥ 0 ms left, −1 no expiry, −2 no such key. Expiry counts from the send, so that the
/// item is gone before the key is (G5). `looks_missing`: the reply is what a missing key gives; a
/// value whose key is gone by PTTL has expired in between and is not kept.
Verdict judge_fill(const FillStart& start, uint64_t stamp_now, uint32_t space_now, int64_t pttl,
                   bool looks_missing, const FillTtls& ttls);

/// True for the replies that a missing key gives to the cacheable commands: nulls, zeroes, empty
/// strings and aggregates, "none", and arrays of those. `reply`: one whole RESP3 reply.
bool looks_missing(Bytes reply);

}  // namespace nearcached::coherence
