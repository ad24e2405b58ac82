// Slots are numbered consecutively, so a slot's place is its number less the first one's; wrapping
// of the 32-bit number is harmless because fewer than 2^31 can be outstanding.
#include "client/reply_queue.h"

#include "nearcached/base/check.h"

namespace nearcached {

ReplyQueue::Slot ReplyQueue::reserve(bool mute) {
  slots_.push_back(Entry{}).mute = mute;
  return first_ + static_cast<Slot>(slots_.size() - 1);
}

bool ReplyQueue::is_open(Slot slot) const {
  const Slot place = slot - first_;
  return place < slots_.size() && !slots_[place].complete;
}

void ReplyQueue::deliver(Slot slot, Bytes bytes, bool last) {
  const Slot place = slot - first_;
  NC_CHECK(place < slots_.size() && !slots_[place].complete);
  Entry& entry = slots_[place];
  if (!entry.mute) {
    if (place == 0 && !entry.held) {
      out_.append(bytes);
    } else {
      entry.bytes.append(bytes);
      waiting_bytes_ += bytes.size();
    }
  }
  if (last) {
    entry.complete = true;
    if (place == 0) advance();
  }
}

void ReplyQueue::out_of_band(Bytes bytes, const Slot* before) {
  const size_t place = before != nullptr ? *before - first_ : slots_.size();
  NC_CHECK(place <= slots_.size());
  if (place == 0) return out_.append(bytes);
  slots_[place - 1].bytes.append(bytes);  // leaves with that slot, behind its reply
  waiting_bytes_ += bytes.size();
}

void ReplyQueue::hold(Slot slot) {
  const Slot place = slot - first_;
  NC_CHECK(place < slots_.size());
  slots_[place].held = true;
}

void ReplyQueue::release(Slot slot) {
  const Slot place = slot - first_;
  NC_CHECK(place < slots_.size());
  slots_[place].held = false;
  if (place == 0) advance();
}

void ReplyQueue::advance() {
  while (!slots_.empty() && !slots_.front().held) {
    Entry& front = slots_.front();
    if (!front.bytes.empty()) {
      waiting_bytes_ -= front.bytes.size();
      if (out_.empty()) out_ = std::move(front.bytes);
      else out_.append(front.bytes.readable());
      front.bytes = Buffer();
    }
    if (!front.complete) return;  // its further bytes go straight to out_
    slots_.pop_front();
    ++first_;
  }
}

}  // namespace nearcached
