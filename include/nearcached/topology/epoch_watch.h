// EpochWatch: whether the topology we go by is as new as what a node of the cluster says of it.
//
// Who takes over slots does so under a new epoch. So a node's word that it is still a primary
// counts only if its epoch is one that has been looked into: the topology was asked for after the
// epoch was heard of, and answered. What was asked before that may have been answered, however
// late, by a node that had not heard of it either. Pure: time is an argument (monotonic ms).
#pragma once
#include <cstdint>

namespace nearcached {

class EpochWatch {
 public:
  enum class Verdict : uint8_t {
    settled,  ///< the node's word counts
    unknown,  ///< heard of for the first time: the topology is to be asked for
    waiting,  ///< it is being looked into
  };

  /// A node has said `epoch`, at `now_ms`; the last answer about the topology is to a question of
  /// `asked_ms`.
  Verdict hear(uint64_t epoch, uint64_t now_ms, uint64_t asked_ms) {
    if (epoch == known_) return Verdict::settled;
    const bool is_new = heard_ != epoch;
    if (is_new) heard_ms_ = now_ms;
    heard_ = epoch;
    // In the same millisecond nobody knows which was first.
    if (asked_ms <= heard_ms_) return is_new ? Verdict::unknown : Verdict::waiting;
    known_ = epoch;
    return Verdict::settled;
  }

 private:
  uint64_t known_ = 0;  ///< 0: none yet
  uint64_t heard_ = 0, heard_ms_ = 0;
};

}  // namespace nearcached
