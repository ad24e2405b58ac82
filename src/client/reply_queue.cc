// Slots are numbered consecutively, so a slot's place is its number less the first one's; wrapping
// of the 32-bit number is harmless because fewer than 2^31 can be outstanding.
#include "client/reply_queue.h"

#include <vector>

#include "nearcached/base/check.h"

namespace nearcached {

// As many clients as are served in one turn come and go with each: they need no allocator for it.
struct ReplyQueue::Pool {
  static constexpr size_t kMax = 256;
  std::vector<std::unique_ptr<Waiting>> free;
};
ReplyQueue::Pool& ReplyQueue::pool() {
  thread_local Pool pool;
  return pool;
}

ReplyQueue::~ReplyQueue() = default;

ReplyQueue::Slot ReplyQueue::reserve(bool mute) {
  if (waiting_ == nullptr) {
    std::vector<std::unique_ptr<Waiting>>& free = pool().free;
    if (free.empty()) {
      waiting_ = std::make_unique<Waiting>();
    } else {
      waiting_ = std::move(free.back());
      free.pop_back();
    }
  }
  waiting_->slots.push_back(Entry{}).mute = mute;
  return first_ + static_cast<Slot>(waiting_->slots.size() - 1);
}

bool ReplyQueue::is_open(Slot slot) const {
  const Slot place = slot - first_;
  return place < outstanding() && !waiting_->slots[place].complete;
}

ReplyQueue::Entry& ReplyQueue::entry(Slot slot) {
  const Slot place = slot - first_;
  NC_CHECK(place < outstanding());
  return waiting_->slots[place];
}

void ReplyQueue::deliver(Slot slot, Bytes bytes, bool last) {
  Entry& place = entry(slot);
  NC_CHECK(!place.complete);
  if (!place.mute) {
    if (slot == first_ && !place.held) {
      out_.append(bytes);
    } else {
      place.bytes.append_little(bytes);
      waiting_->bytes += bytes.size();
    }
  }
  if (last) {
    place.complete = true;
    if (slot == first_) advance();
  }
}

void ReplyQueue::out_of_band(Bytes bytes, const Slot* before) {
  const size_t place = before != nullptr ? *before - first_ : outstanding();
  NC_CHECK(place <= outstanding());
  if (place == 0) return out_.append(bytes);
  waiting_->slots[place - 1].bytes.append(bytes);  // leaves with that slot, behind its reply
  waiting_->bytes += bytes.size();
}

void ReplyQueue::hold(Slot slot) { entry(slot).held = true; }

void ReplyQueue::release(Slot slot) {
  entry(slot).held = false;
  if (slot == first_) advance();
}

void ReplyQueue::advance() {
  RingQueue<Entry>& slots = waiting_->slots;
  while (!slots.empty() && !slots.front().held) {
    Entry& front = slots.front();
    if (!front.bytes.empty()) {
      waiting_->bytes -= front.bytes.size();
      if (out_.empty() && front.bytes.capacity() > Buffer::kSmallBytes)
        out_ = std::move(front.bytes);
      else out_.append(front.bytes.readable());
      front.bytes = Buffer();
    }
    if (!front.complete) return;  // its further bytes go straight to out_
    slots.pop_front();
    ++first_;
  }
  if (!slots.empty()) return;
  if (pool().free.size() < Pool::kMax) pool().free.push_back(std::move(waiting_));
  waiting_.reset();
}

}  // namespace nearcached
