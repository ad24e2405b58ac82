// A walk through the upstream that deletes what matches a pattern (NEARCACHE PATTERN … UPSTREAM):
// SCAN and UNLINK over the lane of whoever asked, one step after the other, so that no other
// request waits longer than for one step. A lost link only delays it: SCAN's cursor survives. Over
// a cluster it goes node by node, and over all of them once more if slots have moved meanwhile.
// Thread: its worker's.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nearcached/topology/topology.h"
#include "upstream/connection.h"

namespace nearcached {

struct PatternJob {
  enum class State : uint8_t { running, done, failed };
  uint64_t id = 0;
  std::string glob;
  std::shared_ptr<const Identity> identity;
  uint32_t database = 0;
  std::string cursor = "0";
  std::vector<NodeIndex> nodes;  ///< still to be walked, the present one last
  uint64_t round_ms = 0;         ///< when the first of them was begun with
  uint32_t rounds = 0;           ///< so far
  State state = State::running;
  uint64_t scanned = 0;  ///< SCAN steps' keys that matched
  uint64_t deleted = 0;
  uint32_t failures = 0;  ///< in a row
  uint64_t retry_ns = 0;  ///< waits for the link until then; 0: a step is under way
  std::string error;
  std::function<void(bool ok)> done;

  std::string to_line() const;
};

/// `bytes` in double quotes, with \xNN for what cannot be printed, as redis-cli shows it.
std::string quoted(Bytes bytes);

}  // namespace nearcached
