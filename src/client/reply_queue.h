// ReplyQueue: one client's replies, in the order of its requests, whatever order they arrive in.
//
// A request that cannot be answered at once takes a slot. Bytes for the slot at the front go
// straight into out(); bytes for a later slot, or for a held one, wait in the slot. A client with
// nothing outstanding owns no slot and no buffer. Pure; one thread.
#pragma once
#include <cstdint>

#include "nearcached/base/buffer.h"
#include "nearcached/base/bytes.h"
#include "nearcached/base/ring_queue.h"

namespace nearcached {

class ReplyQueue {
 public:
  using Slot = uint32_t;

  /// Takes the next place. `mute`: the reply is dropped (CLIENT REPLY OFF).
  Slot reserve(bool mute);
  /// More of that slot's reply; `last` completes it.
  void deliver(Slot slot, Bytes bytes, bool last);
  /// A complete slot is kept back until release() (a write whose fence is not through).
  void hold(Slot slot);
  void release(Slot slot);
  /// Bytes that belong to no request (a pub/sub message): in front of the reply of `before`, which
  /// is outstanding, or, if that is null, behind everything.
  void out_of_band(Bytes bytes, const Slot* before);
  /// Where a reply that can be given at once is written; only when nothing is outstanding.
  Buffer& out() { return out_; }
  /// True while that slot has neither been completed nor dropped.
  bool is_open(Slot slot) const;

  bool empty() const { return slots_.empty(); }
  size_t outstanding() const { return slots_.size(); }
  /// Bytes waiting to be written or for their turn.
  size_t bytes() const { return out_.size() + waiting_bytes_; }

 private:
  struct Entry {
    Buffer bytes;
    bool complete = false;
    bool held = false;
    bool mute = false;
  };
  void advance();

  RingQueue<Entry> slots_;
  Slot first_ = 0;
  size_t waiting_bytes_ = 0;
  Buffer out_;
};

}  // namespace nearcached
