// What was written: for each key its writes in the order in which Redis has them.
//
// Places: the n-th endpoint is place n; Redis itself, written to around the caches, is the place
// behind the last endpoint.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace checker {

int64_t now_ns();

/// One key's writes. Its writer adds to them, all readers look.
class KeyHistory {
 public:
  /// Numbers grow. `erases`: afterwards the key does not exist.
  void begin(uint64_t number, size_t place, bool erases = false);
  /// Redis has executed it: it was acknowledged, or somebody has read it.
  void executed(uint64_t number);
  /// Redis has failed over: the executed writes behind `after` and before `before` are lost, and
  /// nobody can be said to have missed them. Returns how many that are.
  size_t lose(uint64_t after, uint64_t before);
  /// Whether it was executed will only be known if somebody reads it. At most one write of a key:
  /// the key is retired then.
  void unknown(uint64_t number);
  /// Redis has failed over and holds `number` now. Returns how many writes it has lost.
  size_t settle(uint64_t number);
  /// What the write of unknown fate has replaced is not known either, so writes before it may be
  /// lost: nobody can be said to have missed anything.
  bool doubtful() const;

  /// The place that the write was made at; `nowhere` for 0, the state before all writes, and for a
  /// number that was never written.
  size_t place_of(uint64_t number) const;
  static constexpr size_t nowhere = SIZE_MAX;
  /// A reader is told that the key does not exist. That is the state behind any erasure, or 0,
  /// before all writes: the first of them that is `at_least` that, and the last one begun.
  struct Nil {
    uint64_t first = 0;
    uint64_t last = 0;
  };
  Nil nil(uint64_t at_least) const;
  /// The last write numbered `number` or less that is not lost; 0 if there is none.
  uint64_t standing(uint64_t number) const;
  /// The same whose place is ordered.
  /// `certain`: only among those known to have been executed.
  uint64_t last_up_to(uint64_t number, const std::vector<bool>& ordered, bool certain) const;
  uint64_t last() const;
  uint64_t last_executed() const;

  /// Since when writes behind `number` are known: the first of the key's own writer, and the first
  /// erasure. A lost write counts as replaced when its loss was found.
  struct Replaced {
    size_t place = nowhere;
    int64_t ns = 0;
  };
  std::array<Replaced, 2> replaced(uint64_t number) const;

 private:
  struct Write {
    uint64_t number;
    size_t place;
    bool erases;
    int64_t executed_ns;  ///< since when that is known; 0: it is not
    int64_t lost_ns = 0;  ///< since when it is known to be lost; 0: it is not
  };
  std::vector<Write>::const_iterator behind(uint64_t number) const;
  mutable std::mutex mutex_;
  std::vector<Write> writes_;
  uint64_t unknown_ = 0;
  bool doubtful_ = false;
};

struct Key {
  std::string name;
  size_t slot = 0;
  size_t writer = 0;
  size_t group = 0;  ///< within it the order of a writer's writes is kept for all its keys
  KeyHistory history;
  /// Per endpoint: the highest number acknowledged through it.
  std::vector<std::atomic<uint64_t>> acknowledged;
};

/// The order that is promised over several keys.
struct Grouping {
  size_t groups = 0;    ///< as many, each in one slot of a cluster; 0: all keys are one
  bool by_key = false;  ///< nothing over several keys is promised
};

/// The keys. A key with a write whose fate is unknown is never written again: it may be executed at
/// any later time, and could undo what was written in between. Another key takes its slot, and the
/// old one is still read.
class KeySpace {
 public:
  KeySpace(size_t slots, size_t writers, size_t endpoints, const std::string& prefix,
           Grouping grouping);
  Key& operator[](size_t index) { return *keys_[index]; }
  const Key& operator[](size_t index) const { return *keys_[index]; }
  size_t slots() const { return current_.size(); }
  /// All keys, those no longer written included.
  size_t size() const { return size_.load(std::memory_order_acquire); }
  /// The index of the key that is written now.
  size_t current(size_t slot) const { return current_[slot].load(std::memory_order_acquire); }
  /// Thread: the key's writer. Throws when there have been too many.
  void retire(size_t index);

 private:
  /// `suffix`: behind the slot's number in its name.
  void add(size_t slot, const std::string& suffix);

  const std::string prefix_;
  const Grouping grouping_;
  const size_t writers_;
  const size_t endpoints_;
  std::vector<std::unique_ptr<Key>> keys_;  ///< of fixed size: readers do not lock
  std::vector<std::atomic<size_t>> current_;
  std::atomic<size_t> size_{0};
  std::mutex mutex_;
};

}  // namespace checker
