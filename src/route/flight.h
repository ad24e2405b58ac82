// Flight: one read that is under way to fill L1, and everybody who waits for it.
//
// On the wire it is `CLIENT CACHING YES`, the read itself, `PTTL key`: three replies in order. The
// read's reply goes to all who wait as it arrives; PTTL's decides whether it is kept. A flight can
// be joined until the first piece of its value is here, and is freed after PTTL's reply, whatever
// became of the link. One that does not fill is the read alone, and is freed after its reply.
#pragma once
#include <string>
#include <vector>

#include "nearcached/coherence/rules.h"
#include "nearcached/l1/table.h"
#include "route/router.h"

namespace nearcached {

struct Flight final : ReplyHandler {
  explicit Flight(Router& r) : router(r) {}
  void on_reply(Connection& connection, Bytes reply, Bytes failure) override;  // PTTL's
  L1Key l1_key() const { return {hash, start.space, command, key, variant}; }

  Router& router;
  Flight* next = nullptr;  ///< in its bucket, or in the free list
  Lane* lane = nullptr;
  uint64_t hash = 0;
  uint64_t bucket = 0;
  uint16_t command = 0;
  std::string key, variant;
  coherence::FillStart start;
  uint64_t sequence = 0;  ///< the read's place on the connection
  Resp2Rule rule = Resp2Rule::null_bulk;
  bool linked = false;  ///< can be found, so can be joined
  bool fills = true;
  bool whole = false;  ///< `reply` is the whole reply
  Buffer reply;
  std::vector<FlightWaiter> waiters;
};

}  // namespace nearcached
