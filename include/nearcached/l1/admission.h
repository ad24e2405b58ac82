// Admission: is what a miss brings worth keeping?
//
// Keeping costs the upstream more than the read itself: it must remember who has read the key
// (CLIENT CACHING YES) and say how long the key lives (PTTL). For keys that come back this is paid
// once; for a scan it is paid for every key and never earned. So as long as enough of what is kept
// is asked for again, everything is let in at its first miss. When it is not, a key has to have
// missed before, not long ago: 16-bit fingerprints of the last misses, one cache line a question,
// tell. When enough of them come back, the first miss is enough again.
// Not thread-safe: one per worker.
#pragma once
#include <cstdint>
#include <memory>

namespace nearcached {

class Admission {
 public:
  /// `memory_bytes` are taken when it first becomes strict; they remember half as many misses.
  /// 0: everything is let in.
  explicit Admission(uint64_t memory_bytes);
  ~Admission();
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  /// A miss that could be kept. `hash`: hash_key(key).
  bool admits(uint64_t hash);
  /// Brings what admits() will look at on its way to the cache.
  void prefetch(uint64_t hash) const;
  /// Something that was let in has been asked for again for the first time.
  void on_return() { returned_ += strict_ ? 0 : 1; }
  /// Is the first miss of a key not enough at present?
  bool strict() const { return strict_; }
  uint64_t memory_bytes() const;

  /// Judged anew after as many misses.
  static constexpr uint64_t kWindow = 4096;
  /// Of a window's misses, those whose keys must come back: fewer, and it becomes strict; more, and
  /// it is open again.
  static constexpr uint64_t kReturnsMin = kWindow / 16;
  static constexpr uint64_t kReturnsOpen = kWindow / 8;

 private:
  struct Line;
  Line& line_of(uint64_t hash) const;
  bool remember(uint64_t hash);
  void judge();

  const uint64_t lines_;  ///< a power of two; 0: never strict
  std::unique_ptr<Line[]> table_;
  bool strict_ = false;
  uint64_t misses_ = 0;    ///< in this window
  uint64_t returned_ = 0;  ///< in this window
};

}  // namespace nearcached
