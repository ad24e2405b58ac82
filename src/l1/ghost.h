// The ghost: fingerprints of items that were pushed out unread a short while ago. Who comes back
// while still remembered was evicted too early, and enters the main queue at once.
#pragma once
#include <cstdint>

namespace nearcached::l1 {

class Ghost {
 public:
  Ghost() = default;
  ~Ghost() { clear(); }
  Ghost(const Ghost&) = delete;
  Ghost& operator=(const Ghost&) = delete;

  /// Sizes the ghost to remember about as many items as are live. A change of size forgets.
  void fit(uint64_t live_items);
  /// Does nothing before the first fit().
  void remember(uint64_t mix);
  /// True if it was remembered; forgets it.
  bool take(uint64_t mix);
  void clear();
  uint64_t bytes() const;

 private:
  static constexpr uint64_t kWays = 32;
  struct Line {
    uint16_t prints[kWays];  ///< newest first; 0 = empty
  };
  static_assert(sizeof(Line) == 64);

  Line& line(uint64_t mix) const { return lines_[((mix >> 32) * count_) >> 32]; }
  static uint16_t print(uint64_t mix) { return static_cast<uint16_t>(mix % 0xFFFF + 1); }

  Line* lines_ = nullptr;
  uint64_t count_ = 0;
};

}  // namespace nearcached::l1
