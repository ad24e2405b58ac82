// ReplyQueue: one client's replies, in the order of its requests, whatever order they arrive in.
//
// A request that cannot be answered at once takes a slot. Bytes for the slot at the front go
// straight into out(); bytes for a later slot, or for a held one, wait in the slot. A client with
// nothing outstanding owns no slot and no buffer: slots are kept by the thread, for whoever needs
// some next. Pure; one thread.
#pragma once
#include <cstdint>
#include <memory>

#include "nearcached/base/buffer.h"
#include "nearcached/base/bytes.h"
#include "nearcached/base/ring_queue.h"

namespace nearcached {

class ReplyQueue {
 public:
  using Slot = uint32_t;

  ReplyQueue() = default;
  ReplyQueue(const ReplyQueue&) = delete;
  ReplyQueue& operator=(const ReplyQueue&) = delete;
  ~ReplyQueue();

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

  bool empty() const { return waiting_ == nullptr; }
  size_t outstanding() const { return waiting_ != nullptr ? waiting_->slots.size() : 0; }
  /// Bytes waiting to be written or for their turn.
  size_t bytes() const { return out_.size() + (waiting_ != nullptr ? waiting_->bytes : 0); }

 private:
  struct Entry {
    Buffer bytes;
    bool complete = false;
    bool held = false;
    bool mute = false;
  };
  struct Waiting {
    RingQueue<Entry> slots;  ///< never empty while a client has it
    size_t bytes = 0;
  };
  struct Pool;
  static Pool& pool();
  Entry& entry(Slot slot);
  void advance();

  std::unique_ptr<Waiting> waiting_;
  Buffer out_;
  Slot first_ = 0;
};

}  // namespace nearcached
