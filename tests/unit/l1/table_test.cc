// The table against a plain map, on a virtual clock, with budgets so small that eviction never
// stops. check_invariants() recounts every byte and every link after each operation.
#include "nearcached/l1/table.h"

#include <catch2/catch.hpp>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <tuple>

#include "nearcached/base/hash.h"

using namespace nearcached;

namespace {

constexpr uint64_t kSeed = 0x5EED;
constexpr uint64_t kForever = uint64_t{1} << 30;

struct TestKey {
  std::string key;
  std::string variant = {};
  uint32_t space = 1;
  uint16_t command = 7;

  auto operator<=>(const TestKey&) const = default;
  L1Key l1() const { return {hash_key(key, kSeed), space, command, key, variant}; }
};

std::string numbered(Bytes prefix, uint64_t number) {
  std::string name(prefix);
  name += std::to_string(number);
  return name;
}

using IsDead = std::function<bool(uint64_t hash, uint32_t space, uint64_t stamp)>;

L1Options of(uint64_t memory_bytes, uint64_t entries_max = 0, IsDead is_dead = {}) {
  return {.memory_bytes = memory_bytes,
          .entries_max = entries_max,
          .hash_of = [](Bytes key) { return hash_key(key, kSeed); },
          .is_dead = std::move(is_dead)};
}

L1Fill fill_of(Bytes reply, uint64_t filled_ms = 0, uint64_t expires_ms = kForever,
               uint64_t stamp = 0) {
  return {reply, stamp, filled_ms, expires_ms, false, false};
}

bool holds(L1Table& table, const TestKey& key, uint64_t now_ms = 0) {
  L1Hit hit;
  return table.find(key.l1(), now_ms, hit);
}

struct Modelled {
  std::string reply;
  uint64_t stamp;
  uint64_t filled_ms;
  uint64_t expires_ms;
  bool plain;
  bool negative;
  bool bare;
};

/// Random operations on both the table and a map that forgets nothing.
class Model {
 public:
  Model(L1Table& table, bool may_evict, unsigned seed)
      : table_(table), may_evict_(may_evict), random_(seed) {}

  void step() {
    const unsigned what = pick(100);
    const TestKey key = pick_key();
    if (what < 45) {
      put(key);
    } else if (what < 85) {
      find(key);
    } else if (what < 92) {
      erase(key);
    } else if (what < 95) {
      table_.sweep(now_ms_);
    } else if (what < 98) {
      now_ms_ += pick(20);
    } else if (what == 98 && pick(50) == 0) {
      table_.clear();
      map_.clear();
    } else {
      inspect(key);
    }
    table_.check_invariants();
    REQUIRE(table_.stats().used_bytes <= table_.stats().budget_bytes);
  }
  /// Whether an item with this stamp counts as dead.
  static bool dead(uint64_t stamp) { return stamp % 7 == 0; }

 private:
  unsigned pick(unsigned bound) { return static_cast<unsigned>(random_() % bound); }
  TestKey pick_key() {
    const unsigned a = pick(20), b = pick(20);  // the product is skewed: hot and cold keys
    TestKey key{numbered("key", a * b)};
    if (pick(2) == 0) key.variant = std::string(1 + pick(3), static_cast<char>(pick(3)));
    key.space = pick(2);
    key.command = static_cast<uint16_t>(pick(2));
    return key;
  }

  void put(const TestKey& key) {
    const unsigned size = pick(10) == 0 ? pick(4000) : pick(60);
    Modelled m{std::string(size, static_cast<char>('a' + pick(26))),
               random_(),
               now_ms_,
               now_ms_ + pick(200),
               pick(2) == 0,
               pick(2) == 0,
               pick(2) == 0};
    const bool stored = table_.put(
        key.l1(), {m.reply, m.stamp, m.filled_ms, m.expires_ms, m.plain, m.negative, m.bare},
        now_ms_);
    if (m.expires_ms == now_ms_) REQUIRE_FALSE(stored);
    if (!may_evict_ && m.expires_ms > now_ms_) REQUIRE(stored);
    map_.erase(key);
    if (stored) map_.emplace(key, std::move(m));
  }

  void find(const TestKey& key) {
    L1Hit hit;
    const bool found = table_.find(key.l1(), now_ms_, hit);
    const auto it = map_.find(key);
    const bool live = it != map_.end() && now_ms_ < it->second.expires_ms;
    if (found) {
      REQUIRE(live);
      REQUIRE(hit.reply == it->second.reply);
      REQUIRE(hit.stamp == it->second.stamp);
      REQUIRE(hit.filled_ms == it->second.filled_ms);
      REQUIRE(hit.expires_ms == it->second.expires_ms);
      REQUIRE(hit.plain == it->second.plain);
      REQUIRE(hit.bare == it->second.bare);
      REQUIRE(hit.negative == it->second.negative);
      return;
    }
    if (!may_evict_) REQUIRE((!live || dead(it->second.stamp)));
    map_.erase(key);
  }

  void erase(const TestKey& key) {
    const bool erased = table_.erase(key.l1());
    if (erased) REQUIRE(map_.count(key) == 1);
    map_.erase(key);
    REQUIRE_FALSE(holds(table_, key, now_ms_));
  }

  void inspect(const TestKey& key) {
    std::set<std::tuple<uint32_t, uint16_t, std::string>> seen;
    table_.inspect(key.key, [&](const L1Entry& entry) {
      const TestKey full{std::string(entry.key), std::string(entry.variant), entry.space,
                         entry.command};
      REQUIRE(entry.key == key.key);
      REQUIRE(seen.insert({full.space, full.command, full.variant}).second);
      const auto it = map_.find(full);
      REQUIRE(it != map_.end());
      REQUIRE(entry.reply_bytes == it->second.reply.size());
      REQUIRE(entry.bytes > entry.reply_bytes + entry.key.size() + entry.variant.size());
    });
  }

  L1Table& table_;
  const bool may_evict_;
  std::mt19937_64 random_;
  std::map<TestKey, Modelled> map_;
  uint64_t now_ms_ = 1000;
};

}  // namespace

TEST_CASE("with room for everything the table answers as a map does", "[l1]") {
  L1Table table(
      of(8 << 20, 0, [](uint64_t, uint32_t, uint64_t stamp) { return Model::dead(stamp); }));
  Model model(table, false, 1);
  for (int i = 0; i < 20'000; ++i) model.step();
  CHECK(table.stats().evictions == 0);
  CHECK(table.stats().expired > 0);
  CHECK(table.stats().reclaimed > 0);
}

TEST_CASE("under constant eviction a hit is never wrong and the budget never exceeded", "[l1]") {
  const uint64_t budget = GENERATE(as<uint64_t>{}, 6'000, 9'000, 20'000, 70'000);
  L1Table table(
      of(budget, 0, [](uint64_t, uint32_t, uint64_t stamp) { return Model::dead(stamp); }));
  Model model(table, true, static_cast<unsigned>(budget));
  for (int i = 0; i < 30'000; ++i) model.step();
  CHECK(table.stats().evictions > 50);
}

TEST_CASE("the number of entries is limited too", "[l1]") {
  L1Table table(of(8 << 20, 50));
  Model model(table, true, 3);
  uint64_t most = 0;
  for (int i = 0; i < 20'000; ++i) {
    model.step();
    most = std::max(most, table.stats().items);
  }
  CHECK(most == 50);
  CHECK(table.stats().evictions > 0);
}

TEST_CASE("every live item that left early is counted as an eviction, and only those", "[l1]") {
  L1Table table(of(30'000));
  const std::string reply(100, 'x');
  uint64_t stored = 0;
  for (int i = 0; i < 1000; ++i) {
    stored += table.put(TestKey{std::to_string(i)}.l1(), fill_of(reply), 0) ? 1 : 0;
  }
  CHECK(stored == 1000);
  CHECK(table.stats().items + table.stats().evictions == stored);
  CHECK(table.stats().expired == 0);
  CHECK(table.stats().reclaimed == 0);
}

TEST_CASE("an item is gone at its millisecond, not one before and not one after", "[l1]") {
  L1Table table(of(1 << 20));
  const TestKey key{"k"};
  REQUIRE(table.put(key.l1(), fill_of("v", 1000, 1500), 1000));
  CHECK(holds(table, key, 1000));
  CHECK(holds(table, key, 1499));
  CHECK_FALSE(holds(table, key, 1500));
  CHECK(table.stats().items == 0);
  CHECK(table.stats().expired == 1);
}

TEST_CASE("a reply already past its time is not stored, and the older one is gone", "[l1]") {
  L1Table table(of(1 << 20));
  const TestKey key{"k"};
  REQUIRE(table.put(key.l1(), fill_of("old", 0, 5000), 0));
  CHECK_FALSE(table.put(key.l1(), fill_of("late", 100, 200), 200));
  CHECK_FALSE(holds(table, key, 200));
}

TEST_CASE("space, command, key and variant each tell items apart", "[l1]") {
  L1Options options = of(1 << 20);
  options.hash_of = [](Bytes) { return uint64_t{42}; };
  L1Table table(options);
  const std::vector<TestKey> keys = {{"k", "", 1, 1},  {"k", "", 2, 1},  {"k", "", 1, 2},
                                     {"kv", "", 1, 1}, {"k", "v", 1, 1}, {"", "kv", 1, 1}};
  for (size_t i = 0; i < keys.size(); ++i) {
    // One hash for all, so that only the comparison can tell.
    L1Key key = keys[i].l1();
    key.hash = 42;
    REQUIRE(table.put(key, fill_of(std::to_string(i)), 0));
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    L1Key key = keys[i].l1();
    key.hash = 42;
    L1Hit hit;
    REQUIRE(table.find(key, 0, hit));
    CHECK(hit.reply == std::to_string(i));
  }
}

TEST_CASE("a hundred thousand variants of one key are found, listed and expired", "[l1]") {
  L1Table table(of(64 << 20));
  TestKey key{"hash"};
  constexpr uint64_t kVariants = 100'000;
  for (uint64_t i = 0; i < kVariants; ++i) {
    key.variant = numbered("f", i);
    REQUIRE(table.put(key.l1(), fill_of(key.variant, 0, 1000), 0));
  }
  table.check_invariants();
  for (uint64_t i = 0; i < kVariants; ++i) {
    key.variant = numbered("f", i);
    table.prefetch(key.l1());
    table.prefetch_item(key.l1());
    L1Hit hit;
    REQUIRE(table.find(key.l1(), 999, hit));
    REQUIRE(hit.reply == key.variant);
  }
  int listed = 0;
  table.inspect("hash", [&](const L1Entry&) { ++listed; });
  CHECK(listed == kVariants);
  key.variant = "f5";
  CHECK_FALSE(holds(table, key, 1000));
  CHECK(table.stats().items == kVariants - 1);
}

TEST_CASE("a hint finds its own key, and misleads about no other", "[l1]") {
  L1Table table(of(1 << 20));
  const TestKey key{"key"}, other{"yek"}, absent{"eky"}, elsewhere{"key", "", 2};
  for (const TestKey* each : {&key, &other, &elsewhere})
    REQUIRE(table.put(each->l1(), fill_of(each->key + std::to_string(each->space)), 0));
  const L1Hint hint = table.prefetch_item(key.l1());
  REQUIRE(hint.place != 0);
  L1Hit hit;
  REQUIRE(table.find(key.l1(), 0, hit, hint));
  CHECK(hit.reply == "key1");
  REQUIRE(table.find(other.l1(), 0, hit, hint));
  CHECK(hit.reply == "yek1");
  REQUIRE(table.find(elsewhere.l1(), 0, hit, hint));
  CHECK(hit.reply == "key2");
  CHECK_FALSE(table.find(absent.l1(), 0, hit, hint));
  CHECK_FALSE(table.find(TestKey{"key", "v"}.l1(), 0, hit, hint));
}

TEST_CASE("a hint does not bring back what has left or been replaced", "[l1]") {
  L1Table table(of(1 << 20));
  const TestKey key{"key"};
  REQUIRE(table.put(TestKey{"other"}.l1(), fill_of("stays"), 0));
  REQUIRE(table.put(key.l1(), fill_of("old", 0, 1000), 0));
  const L1Hint hint = table.prefetch_item(key.l1());
  L1Hit hit;
  SECTION("replaced") {
    REQUIRE(table.put(key.l1(), fill_of("new"), 0));
    REQUIRE(table.find(key.l1(), 0, hit, hint));
    CHECK(hit.reply == "new");
    return;
  }
  SECTION("erased") { REQUIRE(table.erase(key.l1())); }
  SECTION("erased as a key") { REQUIRE(table.erase_key(key.l1().hash, "key") == 1); }
  SECTION("cleared") { table.clear(); }
  SECTION("expired, and read before") { REQUIRE_FALSE(table.find(key.l1(), 1000, hit, hint)); }
  CHECK_FALSE(table.find(key.l1(), 0, hit, hint));
}

TEST_CASE("with a hint or without, the same is found whatever moves or leaves", "[l1]") {
  L1Table table(of(32'768));
  std::vector<std::pair<TestKey, L1Hint>> hints;
  for (uint64_t i = 0; i < 20'000; ++i) {
    const TestKey key{numbered("k", i % 900)};
    table.put(key.l1(), fill_of(key.key + std::string(i % 90, 'x')), 0);
    hints.emplace_back(key, table.prefetch_item(key.l1()));
    const auto& [old, hint] = hints[i * 7919 % hints.size()];
    L1Hit with, without;
    REQUIRE(table.find(old.l1(), 0, with, hint) == table.find(old.l1(), 0, without));
    REQUIRE(with.reply == without.reply);
  }
  CHECK(table.stats().evictions > 0);
  table.check_invariants();
}

TEST_CASE("hashes that share their low or high bits are spread all the same", "[l1]") {
  const unsigned shift = GENERATE(0u, 20u, 32u, 48u);
  L1Options options = of(32 << 20);
  options.hash_of = [shift](Bytes key) { return uint64_t{std::stoull(std::string(key))} << shift; };
  L1Table table(options);
  for (uint64_t i = 0; i < 50'000; ++i) {
    const std::string name = std::to_string(i);
    REQUIRE(table.put(L1Key{i << shift, 1, 1, name, ""}, fill_of(name), 0));
  }
  table.check_invariants();
  L1Hit hit;
  for (uint64_t i = 0; i < 50'000 && (i << shift >> shift) == i; ++i) {
    const std::string name = std::to_string(i);
    REQUIRE(table.find(L1Key{i << shift, 1, 1, name, ""}, 0, hit));
    REQUIRE(hit.reply == name);
  }
}

TEST_CASE("a thousand keys with one and the same hash still work", "[l1]") {
  L1Options options = of(1 << 20);
  options.hash_of = [](Bytes) { return uint64_t{1}; };
  L1Table table(options);
  for (int i = 0; i < 1000; ++i) {
    const std::string name = std::to_string(i);
    REQUIRE(table.put(L1Key{1, 1, 1, name, ""}, fill_of(name), 0));
  }
  table.check_invariants();
  L1Hit hit;
  for (int i = 0; i < 1000; ++i) {
    const std::string name = std::to_string(i);
    REQUIRE(table.find(L1Key{1, 1, 1, name, ""}, 0, hit));
    REQUIRE(hit.reply == name);
    REQUIRE(table.erase(L1Key{1, 1, 1, name, ""}));
    table.sweep(static_cast<uint64_t>(i));
    table.check_invariants();
  }
}

TEST_CASE("a dead item leaves before anything live, and is not an eviction", "[l1]") {
  bool stale = false;
  L1Table table(
      of(40'000, 0, [&](uint64_t, uint32_t space, uint64_t) { return stale && space == 1; }));
  int i = 0;
  while (table.stats().evictions == 0) {
    REQUIRE(table.put(TestKey{std::to_string(i++), "", 1}.l1(), fill_of("old"), 0));
  }
  const uint64_t dead = table.stats().items;
  const uint64_t evictions = table.stats().evictions;
  stale = true;
  for (uint64_t n = 0; n < dead / 2; ++n) {
    REQUIRE(table.put(TestKey{std::to_string(n), "", 2}.l1(), fill_of("new"), 0));
  }
  table.check_invariants();
  CHECK(table.stats().evictions == evictions);
  CHECK(table.stats().reclaimed > 0);
  for (uint64_t n = 0; n < dead / 2; ++n) REQUIRE(holds(table, {std::to_string(n), "", 2}));
}

TEST_CASE("sweeping gives back what is expired or dead, and the index with it", "[l1]") {
  bool stale = false;
  L1Table table(
      of(16 << 20, 0, [&](uint64_t, uint32_t, uint64_t stamp) { return stale && stamp == 1; }));
  for (int i = 0; i < 10'000; ++i) {
    const bool dies = i % 2 == 0;
    const uint64_t expires_ms = dies ? kForever : 1000;
    const L1Fill fill = fill_of("v", 0, expires_ms, dies ? 1 : 0);
    REQUIRE(table.put(TestKey{std::to_string(i)}.l1(), fill, 0));
  }
  REQUIRE(table.put(TestKey{"live"}.l1(), fill_of("v"), 0));
  const uint64_t full = table.stats().used_bytes;
  uint64_t now_ms = 1;
  for (; now_ms < 1000; ++now_ms) table.sweep(now_ms);
  CHECK(table.stats().items == 10'001);
  stale = true;
  for (; now_ms < 6000; ++now_ms) table.sweep(now_ms);
  table.check_invariants();
  CHECK(table.stats().items == 1);
  CHECK(table.stats().expired == 5000);
  CHECK(table.stats().reclaimed == 5000);
  CHECK(holds(table, {"live"}, now_ms));
  CHECK(table.stats().used_bytes * 20 < full);
}

TEST_CASE("a walk drops what it is asked to and leaves the rest", "[l1]") {
  L1Table table(of(16 << 20));
  for (uint64_t i = 0; i < 10'000; ++i)
    REQUIRE(
        table.put(TestKey{numbered(i % 3 == 0 ? "drop" : "keep", i)}.l1(), fill_of("v", i % 7), 7));
  const uint64_t full = table.stats().items;
  L1Table::Walk walk;
  std::set<std::string> seen;
  while (!table.erase_if(walk, 10, [&](Bytes key, uint64_t filled_ms) {
    const uint64_t number = std::stoull(std::string(key.substr(4)));
    CHECK(filled_ms == number % 7);
    CHECK(seen.emplace(key).second);
    return key.starts_with("drop");
  })) {
    table.check_invariants();
  }
  CHECK(seen.size() == full);
  CHECK(table.stats().items == full - 3334);
  for (uint64_t i = 0; i < 10'000; ++i) {
    CHECK(holds(table, TestKey{numbered("keep", i)}, 8) == (i % 3 != 0));
    CHECK_FALSE(holds(table, TestKey{numbered("drop", i)}, 8));
  }
}

TEST_CASE("a walk through an empty table is over at once", "[l1]") {
  L1Table table(of(1 << 20));
  L1Table::Walk walk;
  CHECK(table.erase_if(walk, 1, [](Bytes, uint64_t) { return true; }));
  table.put(TestKey{"k"}.l1(), fill_of("v"), 0);
  table.clear();
  CHECK(table.erase_if(walk, 1, [](Bytes, uint64_t) { return true; }));
}

TEST_CASE("a walk misses nothing while the index grows and shrinks under it", "[l1]") {
  // Whatever was there when the walk began and matches must be gone at its end, however many items
  // came and went, and buckets were split and merged, between its steps.
  const std::string what = GENERATE(as<std::string>{}, "grows", "shrinks", "both");
  int steps = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    L1Table table(of(64 << 20));
    uint64_t next = 0;
    std::set<uint64_t> present;
    const auto add = [&](uint64_t count) {
      for (; count > 0; --count, ++next) {
        REQUIRE(table.put(TestKey{numbered("k", next)}.l1(), fill_of("v", 0, kForever), 1));
        present.insert(next);
      }
    };
    const auto take = [&](uint64_t count) {
      for (; count > 0 && !present.empty(); --count) {
        auto at = present.lower_bound(random() % next);
        if (at == present.end()) at = present.begin();
        table.erase(TestKey{numbered("k", *at)}.l1());
        present.erase(at);
      }
    };
    uint64_t now_ms = 1;
    add(8'000);
    const uint64_t began = next;
    L1Table::Walk walk;
    const auto dead = [&](Bytes key, uint64_t) {
      const uint64_t number = std::stoull(std::string(key.substr(1)));
      if (number >= began || number % 2 != 0) return false;
      present.erase(number);
      return true;
    };
    for (; !table.erase_if(walk, 1 + random() % 200, dead); ++steps) {
      const bool grow = what == "grows" || (what == "both" && random() % 2 == 0);
      if (grow) add(random() % 600);
      else take(random() % 200);
      for (int i = 0; i < 200; ++i) table.sweep(++now_ms);  // gives the index back
    }
    table.check_invariants();
    for (uint64_t i = 0; i < began; i += 2)
      REQUIRE_FALSE(holds(table, TestKey{numbered("k", i)}, now_ms));
    for (const uint64_t number : present)
      REQUIRE(holds(table, TestKey{numbered("k", number)}, now_ms));
    CHECK(table.stats().items == present.size());
  }
  CHECK(steps > 100);
}

TEST_CASE("a hot set survives a scan of ten times the budget", "[l1]") {
  L1Table table(of(1 << 20));
  const std::string reply(100, 'x');
  constexpr uint64_t kHot = 500;
  const auto hot = [](uint64_t i) { return TestKey{numbered("hot", i)}; };
  const auto touch = [&] {
    int hits = 0;
    for (uint64_t i = 0; i < kHot; ++i) {
      if (holds(table, hot(i))) {
        ++hits;
      } else {
        table.put(hot(i).l1(), fill_of(reply), 0);
      }
    }
    return hits;
  };
  for (int round = 0; round < 4; ++round) touch();
  for (int i = 0; i < 60'000; ++i) {
    table.put(TestKey{numbered("scan", i)}.l1(), fill_of(reply), 0);
  }
  CHECK(table.stats().evictions > 50'000);
  CHECK(touch() == kHot);
}

TEST_CASE("what comes back soon after it was pushed out enters the main queue", "[l1]") {
  L1Table table(of(1 << 20));
  const std::string reply(100, 'x');
  int i = 0;
  const auto scan = [&](int count) {
    for (int end = i + count; i < end; ++i) {
      table.put(TestKey{numbered("scan", i)}.l1(), fill_of(reply), 0);
    }
  };
  // Something in the main queue first: else the small one may hold everything.
  for (int n = 0; n < 4000; ++n) {
    const TestKey key{numbered("main", n)};
    table.put(key.l1(), fill_of(reply), 0);
    holds(table, key), holds(table, key);
  }
  scan(6000);
  const TestKey back{"back"};
  table.put(back.l1(), fill_of(reply), 0);
  scan(4000);
  REQUIRE_FALSE(holds(table, back));
  table.put(back.l1(), fill_of(reply), 0);
  scan(4000);
  CHECK(holds(table, back));
}

TEST_CASE("a replaced item keeps its standing", "[l1]") {
  L1Table table(of(1 << 20));
  const TestKey key{"k"};
  table.put(key.l1(), fill_of("first"), 0);
  for (int i = 0; i < 9; ++i) holds(table, key);
  table.put(key.l1(), fill_of("second"), 0);
  uint32_t accesses = 0;
  table.inspect("k", [&](const L1Entry& entry) { accesses = entry.accesses; });
  CHECK(accesses == 9);
  for (int i = 0; i < 5000; ++i) holds(table, key);
  table.inspect("k", [&](const L1Entry& entry) { accesses = entry.accesses; });
  CHECK(accesses == 1023);
  CHECK(table.stats().items == 1);
}

TEST_CASE("a reply larger than an eighth of the budget is refused and evicts nobody", "[l1]") {
  L1Table table(of(1 << 20));
  const TestKey key{"k"};
  REQUIRE(table.put(TestKey{"other"}.l1(), fill_of("v"), 0));
  REQUIRE(table.put(key.l1(), fill_of("v"), 0));
  CHECK_FALSE(table.put(key.l1(), fill_of(std::string((1 << 17) + 1, 'x')), 0));
  CHECK_FALSE(holds(table, key));
  CHECK(holds(table, {"other"}));
  CHECK(table.stats().rejected_too_big == 1);
  CHECK(table.put(key.l1(), fill_of(std::string(100'000, 'x')), 0));
  table.check_invariants();
}

TEST_CASE("a budget of nothing stores nothing and uses nothing", "[l1]") {
  const uint64_t budget = GENERATE(as<uint64_t>{}, 0, 500, 1500);
  L1Table table(of(budget));
  const TestKey key{"k"};
  CHECK_FALSE(table.put(key.l1(), fill_of("v"), 0));
  CHECK_FALSE(holds(table, key));
  CHECK_FALSE(table.erase(key.l1()));
  table.prefetch(key.l1());
  table.prefetch_item(key.l1());
  table.sweep(1);
  table.inspect("k", [](const L1Entry&) { FAIL("nothing can be there"); });
  table.check_invariants();
  CHECK(table.stats().used_bytes == 0);
}

TEST_CASE("an empty table costs nothing before the first item and after clear", "[l1]") {
  L1Table table(of(1 << 30));
  CHECK(table.stats().used_bytes == 0);
  for (int i = 0; i < 1000; ++i) table.put(TestKey{std::to_string(i)}.l1(), fill_of("v"), 0);
  CHECK(table.stats().used_bytes > 64'000);
  table.clear();
  table.check_invariants();
  CHECK(table.stats().used_bytes == 0);
  CHECK(table.stats().items == 0);
}

TEST_CASE("keys, variants and replies are binary, and may be empty", "[l1]") {
  L1Table table(of(1 << 20));
  const TestKey binary{std::string("\0\xff\r\n", 4), std::string("\0\0", 2)};
  const TestKey empty{""};
  REQUIRE(table.put(binary.l1(), fill_of(Bytes("\0x\0", 3)), 0));
  REQUIRE(table.put(empty.l1(), fill_of(""), 0));
  L1Hit hit;
  REQUIRE(table.find(binary.l1(), 0, hit));
  CHECK(hit.reply == Bytes("\0x\0", 3));
  REQUIRE(table.find(empty.l1(), 0, hit));
  CHECK(hit.reply.empty());
}
