// RingQueue: a FIFO in one growable ring. Unlike std::deque it owns nothing while it has never been
// used, never allocates in steady state, and gives a large ring back when it runs empty.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace nearcached {

template <typename T>
class RingQueue {
 public:
  bool empty() const { return count_ == 0; }
  size_t size() const { return count_; }
  /// The i-th from the front. References live until the next push.
  T& operator[](size_t i) { return ring_[(head_ + i) & mask()]; }
  const T& operator[](size_t i) const { return ring_[(head_ + i) & mask()]; }
  T& front() { return ring_[head_]; }
  T& back() { return (*this)[count_ - 1]; }

  T& push_back(T value) {
    if (count_ == capacity_) grow();
    T& place = ring_[(head_ + count_++) & mask()];
    place = std::move(value);
    return place;
  }
  void pop_front() {
    ring_[head_] = T();
    head_ = static_cast<uint32_t>((head_ + 1) & mask());
    if (--count_ == 0 && capacity_ > kKept) *this = RingQueue();
  }
  void pop_back() {
    back() = T();
    --count_;
  }

 private:
  static constexpr uint32_t kFirst = 8;
  static constexpr uint32_t kKept = 256;
  size_t mask() const { return capacity_ - 1; }
  void grow() {
    const uint32_t capacity = capacity_ == 0 ? kFirst : capacity_ * 2;
    auto ring = std::make_unique<T[]>(capacity);
    for (size_t i = 0; i < count_; ++i) ring[i] = std::move((*this)[i]);
    ring_ = std::move(ring);
    capacity_ = capacity;
    head_ = 0;
  }

  std::unique_ptr<T[]> ring_;
  uint32_t capacity_ = 0;
  uint32_t head_ = 0;
  uint32_t count_ = 0;
};

}  // namespace nearcached
