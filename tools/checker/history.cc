#include "history.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>

namespace checker {
namespace {

constexpr size_t kRetiredMax = 10'000;

}  // namespace

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

std::vector<KeyHistory::Write>::const_iterator KeyHistory::behind(uint64_t number) const {
  return std::upper_bound(writes_.begin(), writes_.end(), number,
                          [](uint64_t n, const Write& w) { return n < w.number; });
}

void KeyHistory::begin(uint64_t number, size_t place, bool erases) {
  const std::lock_guard lock(mutex_);
  writes_.push_back({number, place, erases, 0, 0});
}

void KeyHistory::executed(uint64_t number) {
  const std::lock_guard lock(mutex_);
  const auto next = behind(number);
  Write& write = writes_[static_cast<size_t>(next - writes_.begin()) - 1];
  if (write.executed_ns == 0) write.executed_ns = now_ns();
}

size_t KeyHistory::lose(uint64_t after, uint64_t before) {
  const std::lock_guard lock(mutex_);
  size_t lost = 0;
  for (Write& write : writes_) {
    if (write.number <= after || write.number >= before) continue;
    if (write.executed_ns == 0 || write.lost_ns != 0) continue;
    write.lost_ns = now_ns();
    ++lost;
  }
  return lost;
}

void KeyHistory::unknown(uint64_t number) {
  const std::lock_guard lock(mutex_);
  unknown_ = number;
}

size_t KeyHistory::settle(uint64_t number) {
  {
    const std::lock_guard lock(mutex_);
    doubtful_ = doubtful_ || (number != 0 && number == unknown_);
  }
  return lose(number, UINT64_MAX);
}

bool KeyHistory::doubtful() const {
  const std::lock_guard lock(mutex_);
  return doubtful_;
}

uint64_t KeyHistory::standing(uint64_t number) const {
  const std::lock_guard lock(mutex_);
  for (auto w = behind(number); w != writes_.begin();)
    if ((--w)->lost_ns == 0) return w->number;
  return 0;
}

size_t KeyHistory::place_of(uint64_t number) const {
  const std::lock_guard lock(mutex_);
  const auto next = behind(number);
  if (next == writes_.begin() || std::prev(next)->number != number) return nowhere;
  return std::prev(next)->place;
}

KeyHistory::Nil KeyHistory::nil(uint64_t at_least) const {
  const std::lock_guard lock(mutex_);
  Nil found;
  for (const Write& write : writes_) {
    if (!write.erases) continue;
    found.last = write.number;
    if (found.first < at_least) found.first = write.number;
  }
  return found;
}

uint64_t KeyHistory::last_up_to(uint64_t number, const std::vector<bool>& ordered,
                                bool certain) const {
  const std::lock_guard lock(mutex_);
  for (auto w = behind(number); w != writes_.begin();) {
    --w;
    if (w->lost_ns != 0) continue;
    if (ordered[w->place] && (w->executed_ns != 0 || !certain)) return w->number;
  }
  return 0;
}

uint64_t KeyHistory::last() const {
  const std::lock_guard lock(mutex_);
  return writes_.empty() ? 0 : writes_.back().number;
}

uint64_t KeyHistory::last_executed() const {
  const std::lock_guard lock(mutex_);
  for (auto w = writes_.rbegin(); w != writes_.rend(); ++w)
    if (w->executed_ns != 0 && w->lost_ns == 0) return w->number;
  return 0;
}

std::array<KeyHistory::Replaced, 2> KeyHistory::replaced(uint64_t number) const {
  const std::lock_guard lock(mutex_);
  std::array<Replaced, 2> found{};
  const auto next = behind(number);
  if (next != writes_.begin() && std::prev(next)->lost_ns != 0)
    found[0] = {std::prev(next)->place, std::prev(next)->lost_ns};
  for (auto w = next; w != writes_.end(); ++w) {
    if (w->lost_ns != 0) continue;
    Replaced& one = found[w->erases ? 1 : 0];
    if (one.ns == 0 && w->executed_ns != 0) one = {w->place, w->executed_ns};
    if (!w->erases) break;  // a later one by the same writer was executed later
  }
  return found;
}

KeySpace::KeySpace(size_t slots, size_t writers, size_t endpoints, const std::string& prefix,
                   Grouping grouping)
    : prefix_(prefix),
      grouping_(grouping),
      writers_(writers),
      endpoints_(endpoints),
      keys_(slots + kRetiredMax),
      current_(slots) {
  for (size_t slot = 0; slot < slots; ++slot) add(slot, "");
}

void KeySpace::add(size_t slot, const std::string& suffix) {
  const size_t index = size_.load();
  if (index == keys_.size()) throw std::runtime_error("too many writes of unknown fate");
  auto key = std::make_unique<Key>();
  key->name = prefix_;
  if (grouping_.groups > 0) {
    key->group = slot / writers_ % grouping_.groups;
    key->name += "{" + std::to_string(key->group) + "}:";
  }
  if (grouping_.by_key) key->group = slot;
  key->name += std::to_string(slot) + suffix;
  key->slot = slot;
  key->writer = slot % writers_;
  key->acknowledged = std::vector<std::atomic<uint64_t>>(endpoints_);
  keys_[index] = std::move(key);
  size_.store(index + 1, std::memory_order_release);
  current_[slot].store(index, std::memory_order_release);
}

void KeySpace::retire(size_t index) {
  const std::lock_guard lock(mutex_);
  // Unlike the first key's name it must not occur in an earlier run against the same Redis.
  add(keys_[index]->slot, ":" + std::to_string(now_ns()));
}

}  // namespace checker
