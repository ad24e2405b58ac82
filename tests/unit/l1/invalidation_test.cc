// Fills against invalidations: the table with the stamps that its caller compares, in random order.
// What is served must be what the last write left, also to a caller that stores without asking
// whether its fill still holds; and what was dropped must not come back by itself.
#include <catch2/catch.hpp>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "nearcached/base/hash.h"
#include "nearcached/coherence/patterns.h"
#include "nearcached/coherence/rules.h"
#include "nearcached/coherence/stamp_table.h"
#include "nearcached/l1/tables.h"

using namespace nearcached;

namespace {

constexpr uint64_t kSeed = 0xF111;

L1Options of(uint64_t memory_bytes, uint64_t* hashed = nullptr) {
  return {.memory_bytes = memory_bytes, .hash_of = [hashed](Bytes key) {
            if (hashed != nullptr) ++*hashed;
            return hash_key(key, kSeed);
          }};
}

std::string numbered(const char* prefix, uint64_t number) {
  return prefix + std::to_string(number);
}

L1Key key_of(const std::string& name, const std::string& variant = {}) {
  return {hash_key(name, kSeed), 1, 1, name, variant};
}

/// One key's value at the server is a number that every write raises.
class Schedule {
 public:
  explicit Schedule(uint64_t memory_bytes, unsigned seed)
      : table_(of(memory_bytes)), random_(seed) {}

  void step() {
    const unsigned key = pick(kKeys), variant = pick(kVariants), what = pick(100);
    if (what < 30) begin_fill(key, variant);
    else if (what < 55) end_fill();
    else if (what < 80) read(key, variant);
    else if (what < 84) write(key);
    else if (what < 90) end_write();
    else if (what < 92) stamps_.invalidate(hash(key)), ++truth_[key];
    else drop(what, key);
    table_.check_invariants();
  }
  uint64_t served() const { return served_; }
  uint64_t stale() const { return stale_; }
  uint64_t late() const { return late_; }

 private:
  static constexpr unsigned kKeys = 40, kVariants = 3;
  struct Fill {
    unsigned key, variant;
    uint64_t stamp, value;
  };

  unsigned pick(unsigned bound) { return static_cast<unsigned>(random_() % bound); }
  static std::string name(unsigned key) { return numbered("k", key); }
  static std::string argument(unsigned variant) {
    return variant == 0 ? "" : std::string(variant, 'v');
  }
  static uint64_t hash(unsigned key) { return hash_key(name(key), kSeed); }
  static std::string reply(const Fill& fill) {
    return std::to_string(fill.value) + std::string(fill.value % 7 * 40, '.');
  }

  void begin_fill(unsigned key, unsigned variant) {
    const uint64_t stamp = stamps_.load(hash(key));
    if (!coherence::may_fill(stamp)) return;
    fills_.push_back({key, variant, stamp, truth_[key]});
  }
  // Whatever has happened since, and without a look at it.
  void end_fill() {
    if (fills_.empty()) return;
    const size_t at = pick(static_cast<unsigned>(fills_.size()));
    const Fill fill = fills_[at];
    fills_.erase(fills_.begin() + static_cast<std::ptrdiff_t>(at));
    const std::string text = reply(fill);
    const std::string key = name(fill.key), variant = argument(fill.variant);
    late_ += fill.stamp != stamps_.load(hash(fill.key));
    if (table_.put(key_of(key, variant), {text, fill.stamp, 0, 1'000'000, false, false}, now_ms_))
      held_[{fill.key, fill.variant}] = fill;
    else held_.erase({fill.key, fill.variant});
  }
  void write(unsigned key) {
    stamps_.begin_write(hash(key));
    ++truth_[key];
    writes_.push_back(key);
  }
  void end_write() {
    if (writes_.empty()) return;
    stamps_.end_write(hash(writes_.back()));
    writes_.pop_back();
  }
  void read(unsigned key, unsigned variant) {
    const std::string text = name(key), argument_text = argument(variant);
    L1Hit hit;
    if (!table_.find(key_of(text, argument_text), now_ms_, hit)) return;
    // It is what was stored last, and has not been dropped since.
    const auto it = held_.find({key, variant});
    REQUIRE(it != held_.end());
    REQUIRE(hit.reply == reply(it->second));
    REQUIRE(hit.stamp == it->second.stamp);
    if (!coherence::stamp_holds(hit.stamp, stamps_.load(hash(key)))) {
      ++stale_;
      return;
    }
    REQUIRE(it->second.value == truth_[key]);
    ++served_;
  }
  void drop(unsigned what, unsigned key) {
    if (what < 94) {
      table_.erase_key(hash(key), name(key));
      forget([key](unsigned held) { return held == key; });
    } else if (what < 96) {
      L1Table::Walk walk;
      const std::string doomed = name(key);
      while (!table_.erase_if(walk, 1 + pick(20),
                              [&](Bytes held, uint64_t) { return held.starts_with(doomed); })) {
      }
      forget([&](unsigned held) { return name(held).starts_with(doomed); });
    } else if (what < 99 || pick(10) != 0) {
      table_.sweep(++now_ms_);
    } else {
      table_.clear();
      held_.clear();
    }
  }
  template <typename Doomed>
  void forget(Doomed&& doomed) {
    std::erase_if(held_, [&](const auto& entry) { return doomed(entry.first.first); });
  }

  L1Table table_;
  StampTable stamps_{1024};
  std::mt19937 random_;
  std::map<unsigned, uint64_t> truth_;
  std::map<std::pair<unsigned, unsigned>, Fill> held_;  ///< evictions are not followed
  std::vector<Fill> fills_;
  std::vector<unsigned> writes_;
  uint64_t now_ms_ = 1;
  uint64_t served_ = 0, stale_ = 0, late_ = 0;
};

}  // namespace

TEST_CASE("no order of fills and invalidations serves what a write has replaced", "[l1]") {
  const uint64_t memory = GENERATE(as<uint64_t>{}, 9'000, 1 << 20);
  uint64_t served = 0, stale = 0, late = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    Schedule schedule(memory, seed);
    for (int i = 0; i < 5'000; ++i) schedule.step();
    served += schedule.served();
    stale += schedule.stale();
    late += schedule.late();
  }
  // Without these it would have proven nothing.
  CHECK(served > 1'000);
  CHECK(stale > 1'000);
  CHECK(late > 1'000);
}

TEST_CASE("a pattern counts for every item before any of them has been looked at", "[l1]") {
  constexpr uint64_t kItems = 10'000;
  L1Table table(of(16 << 20));
  for (uint64_t i = 0; i < kItems; ++i) {
    const std::string name = numbered(i % 2 == 0 ? "user:" : "order:", i);
    REQUIRE(table.put(key_of(name), {"v", 0, 5, 1'000'000, false, false}, 5));
  }
  coherence::PatternSet patterns;
  const auto pattern =
      std::make_shared<const coherence::Pattern>(coherence::Pattern{1, 5, "user:*"});
  REQUIRE(patterns.catch_up({pattern}));
  CHECK(table.stats().items == kItems);
  uint64_t served = 0;
  for (uint64_t i = 0; i < kItems; ++i) {
    const std::string name = numbered(i % 2 == 0 ? "user:" : "order:", i);
    L1Hit hit;
    REQUIRE(table.find(key_of(name), 6, hit));
    served += !patterns.kills(name, hit.filled_ms);
  }
  CHECK(served == kItems / 2);
}

TEST_CASE("dropping everything, or all of a rule's own memory, looks at no item", "[l1]") {
  const uint64_t items = GENERATE(as<uint64_t>{}, 100, 50'000);
  // An item that is looked at is hashed: the table does not keep the hash.
  uint64_t hashed = 0;
  L1Tables tables(of(64 << 20, &hashed), {{"own:*", 32 << 20, {}}});
  for (uint64_t i = 0; i < items; ++i)
    for (const char* prefix : {"own:", "other:"})
      REQUIRE(tables.put(key_of(numbered(prefix, i)), {"v", 0, 1, 1'000'000, false, false}, 1));
  hashed = 0;
  CHECK(tables.clear_rule("own:*") == items);
  CHECK(tables.stats().items == items);
  CHECK(hashed == 0);

  L1Table table(of(64 << 20, &hashed));
  for (uint64_t i = 0; i < items; ++i)
    REQUIRE(table.put(key_of(numbered("k", i)), {"v", 0, 1, 1'000'000, false, false}, 1));
  hashed = 0;
  table.clear();
  CHECK(table.stats().items == 0);
  CHECK(hashed == 0);
  CHECK(table.erase_key(hash_key("k1", kSeed), "k1") == 0);
}
