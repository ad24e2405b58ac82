// The stamp table: one process-wide array of atomics that makes every write through this process
// visible to every worker's L1 without a message, a lock or a wait.
//
// A stamp is a version and a count of writes in flight, for all keys whose hash falls on its slot.
//   begin_write   version + 1, in flight + 1    before the write is sent
//   end_write     in flight − 1                 when its reply is here, before the client's ack
//   invalidate    version + 1                   a push: somebody else wrote
// An item was filled under a stamp with nothing in flight, and is served only while the stamp is
// still exactly that. So an item read before a write ends is dead from the moment the write began,
// nothing can be filled while a write may still take effect, and a collision only costs a miss.
// A separate word of the same form stands for all keys at once (FLUSHALL, SWAPDB, NEARCACHE FLUSH).
//
// Thread: any. Cost of load(): one cache line, 13 ns at 1M slots (design.md).
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace nearcached {

class StampTable {
 public:
  static constexpr uint64_t kInFlight = 1;  ///< low 24 bits: writes in flight
  static constexpr uint64_t kInFlightMask = (1u << 24) - 1;
  static constexpr uint64_t kVersion = 1u << 24;  ///< high 40 bits: version

  /// `slots` is rounded up to a power of two, at least 1024.
  explicit StampTable(uint64_t slots);

  uint64_t load(uint64_t hash) const { return slot(hash).load(std::memory_order_seq_cst); }
  void prefetch(uint64_t hash) const { __builtin_prefetch(&table_[index(hash)]); }
  void begin_write(uint64_t hash);
  /// Each call ends one begin_write of this hash: more ends than begins abort.
  void end_write(uint64_t hash);
  void invalidate(uint64_t hash);

  uint64_t load_all() const { return all_.load(std::memory_order_seq_cst); }
  void begin_write_all();
  void end_write_all();
  void invalidate_all();

  /// True if nothing was in flight when this stamp was read.
  static bool settled(uint64_t stamp) { return (stamp & kInFlightMask) == 0; }
  uint64_t slots() const { return mask_ + 1; }

 private:
  struct Free {
    void operator()(uint64_t* block) const { std::free(block); }
  };
  uint64_t index(uint64_t hash) const { return (hash >> 16) & mask_; }
  std::atomic_ref<uint64_t> slot(uint64_t hash) const {
    return std::atomic_ref<uint64_t>(table_[index(hash)]);
  }

  std::unique_ptr<uint64_t[], Free> table_;
  uint64_t mask_;
  alignas(64) std::atomic<uint64_t> all_{0};
};

}  // namespace nearcached
