// Each rule is written once, here, and the data path only asks. The mutation switches stand where
// the mechanism stands, so that switching one off removes exactly that mechanism and nothing else.
#include "nearcached/coherence/rules.h"

#include <algorithm>

#include "nearcached/coherence/mutations.h"
#include "nearcached/coherence/stamp_table.h"

namespace nearcached {
namespace coherence {

LaneProof over_bus(LaneProof lane, uint64_t bus_ns) {
  lane.link_ns = mutation::no_bus_proof ? UINT64_MAX : bus_ns;
  if (mutation::no_bus_proof) return lane;
  lane.master_ns = std::min(lane.master_ns, bus_ns);
  return lane;
}

bool may_serve(const LaneProof& lane, const SessionView& session, uint64_t now_ns,
               uint64_t max_staleness_ns) {
  if (!lane.tracking) return false;
  if (!mutation::no_watermark && lane.master_ns + max_staleness_ns <= now_ns) return false;
  if (mutation::no_order_rule) return true;
  return !session.replies_pending && lane.link_ns >= session.floor_ns;
}

bool stamp_holds(uint64_t item_stamp, uint64_t stamp_now) {
  if (mutation::no_stamp_check) return true;
  if (mutation::no_in_flight)
    return item_stamp / StampTable::kVersion == stamp_now / StampTable::kVersion;
  return item_stamp == stamp_now;
}

bool may_join(const FillStart& flight, uint64_t stamp_now, uint32_t space_now, uint64_t void_ns) {
  if (mutation::no_join_rule) return true;
  return flight.stamp == stamp_now && flight.space == space_now && flight.sent_ns > void_ns;
}

bool may_fill(uint64_t stamp_now) {
  return mutation::no_in_flight || mutation::no_stamp_check || StampTable::settled(stamp_now);
}

Verdict judge_fill(const FillStart& start, uint64_t stamp_now, uint32_t space_now, int64_t pttl,
                   bool looks_missing, const FillTtls& ttls) {
  if (!stamp_holds(start.stamp, stamp_now) || start.space != space_now || pttl < -2) return {};
  const bool gone = pttl == -2;
  if (gone && !looks_missing && !mutation::no_ttl_clamp) return {};
  uint64_t life_ms = gone ? ttls.negative_ttl_ms : ttls.ttl_ms;
  if (pttl >= 0 && !mutation::no_ttl_clamp)
    life_ms = std::min(life_ms, static_cast<uint64_t>(pttl));
  if (life_ms == 0) return {};
  return {true, gone, start.sent_ns / 1'000'000 + life_ms};
}

bool looks_missing(Bytes reply) {
  size_t at = 0;
  while (at < reply.size()) {
    const size_t end = reply.find("\r\n", at);
    if (end == Bytes::npos) return false;
    const Bytes line = reply.substr(at, end - at);
    at = end + 2;
    if (line == "$0") {
      at += 2;  // the empty string's own CRLF
      continue;
    }
    const bool aggregate = line[0] == '*' || line[0] == '%' || line[0] == '~';
    if (aggregate || line == "_" || line == "$-1" || line == ":0" || line == ":-1" ||
        line == "+none" || line == "#f")
      continue;
    return false;
  }
  return true;
}

}  // namespace coherence

namespace mutation {

bool enable([[maybe_unused]] Bytes name) {
#ifdef NEARCACHED_MUTATIONS
  struct Row {
    Bytes name;
    bool* value;
  };
  const Row rows[] = {{"no_stamp_check", &no_stamp_check},
                      {"no_in_flight", &no_in_flight},
                      {"no_join_rule", &no_join_rule},
                      {"no_order_rule", &no_order_rule},
                      {"no_ttl_clamp", &no_ttl_clamp},
                      {"no_watermark", &no_watermark},
                      {"no_push", &no_push},
                      {"no_epoch", &no_epoch},
                      {"no_fence", &no_fence},
                      {"no_gap", &no_gap},
                      {"no_bus_proof", &no_bus_proof},
                      {"no_announce", &no_announce},
                      {"no_pattern", &no_pattern}};
  for (const Row& row : rows)
    if (row.name == name) return *row.value = true;
#endif
  return false;
}

}  // namespace mutation
}  // namespace nearcached
