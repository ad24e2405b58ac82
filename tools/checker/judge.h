// The judge: what one connection was told, against what was written.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "history.h"

namespace checker {

/// What readers at one endpoint are promised about what was written at each place.
struct Promise {
  std::vector<int64_t> staleness_ns;  ///< by place
  std::vector<bool> ordered;          ///< by place: no going back
};

/// By whom the write was made that a stale read missed.
enum class Missed : uint8_t { through_a_cache, around };
constexpr size_t kMissedKinds = 2;

struct Results {
  uint64_t reads = 0;
  uint64_t own_write_missed = 0;
  uint64_t went_back = 0;
  uint64_t too_stale = 0;
  uint64_t never_written = 0;  ///< values that nobody wrote to this key
  uint64_t not_converged = 0;
  uint64_t pardoned = 0;     ///< reads that missed only what Redis itself has lost
  uint64_t errors = 0;       ///< replies
  uint64_t lost = 0;         ///< connections, timeouts included
  int64_t converged_ns = 0;  ///< from the end of the fault; 0: there was none; −1: never
  std::array<std::vector<int64_t>, kMissedKinds> stale_ns;  ///< of the reads certainly stale

  void add(const Results& other);
  uint64_t violations() const {
    return own_write_missed + went_back + too_stale + never_written + not_converged;
  }
};

/// Judges the replies of one connection.
class Judge {
 public:
  /// `certain_only`: requests may fail, so an unacknowledged write may be missing although a later
  /// one of the same writer was seen.
  Judge(KeySpace& keys, const Promise& promise, size_t endpoint, std::string endpoint_name,
        bool certain_only, Results& results);

  /// To be called before the read is sent: what it has to see at least.
  void expect(size_t key);
  /// A reply to the oldest reads expected, with one value for each; 0: no such key. Returns the
  /// number of the write that each of them shows, the last one that it can be.
  std::vector<uint64_t> judge(const std::vector<uint64_t>& values);
  /// To be called once, when all losses are known: counts what was wrong.
  void conclude();
  /// Instead of judge: the reply was an error.
  void skip(size_t reads);
  /// The connection is a new one, which has seen nothing yet.
  void new_session();

 private:
  struct Expected {
    size_t key;
    uint64_t own_write;
    int64_t sent_ns;
  };
  /// The write that a value shows. For a missing key several are possible.
  struct Shown {
    uint64_t first;
    uint64_t last;
  };
  /// A read that looks wrong. What it missed may turn out to be lost, so it is judged at the end.
  struct Suspect {
    enum class Kind : uint8_t { own_write_missed, went_back, too_stale } kind;
    size_t key;
    uint64_t shown;
    uint64_t due;  ///< of the same key; for too_stale without meaning
    int64_t sent_ns;
    int64_t at_ns;
  };
  Shown judge_one(const Expected& expected, uint64_t value);
  void suspect(Suspect::Kind kind, const Expected& expected, uint64_t shown, uint64_t due);
  /// True if it is later than promised. Counts how stale the read certainly was.
  bool too_stale(size_t key, int64_t sent_ns, uint64_t number, bool count_late);
  void tell(const char* what, const Suspect& suspect, uint64_t at_least) const;

  KeySpace& keys_;
  const Promise& promise_;
  const size_t endpoint_;
  const std::string endpoint_name_;
  const bool certain_only_;
  Results& results_;
  /// By writer and group: the highest in an earlier reply.
  std::unordered_map<uint64_t, uint64_t> seen_;
  std::unordered_map<size_t, uint64_t> seen_here_;  ///< the same by key
  std::vector<Expected> expected_;
  std::vector<Suspect> suspects_;
};

}  // namespace checker
