// Rules with memory of their own: what they shut out, what they share, and what a rule without
// memory does to the same keys.
#include "nearcached/l1/tables.h"

#include <catch2/catch.hpp>
#include <string>

#include "nearcached/base/hash.h"

using namespace nearcached;

namespace {

constexpr uint64_t kSeed = 7;
constexpr uint64_t kMemory = 1 << 20;
constexpr uint64_t kOwn = 256 << 10;

L1Options whole(uint64_t entries_max = 0) {
  return {.memory_bytes = kMemory, .entries_max = entries_max, .hash_of = [](Bytes key) {
            return hash_key(key, kSeed);
          }};
}

std::string name(const std::string& prefix, int number) { return prefix + std::to_string(number); }

L1Key key_of(const std::string& key) { return {hash_key(key, kSeed), 1, 1, key, {}}; }

bool put(L1Tables& tables, const std::string& key) {
  static const std::string reply(100, 'v');
  return tables.put(key_of(key), {reply, 0, 0, 1'000'000, false, false}, 0);
}

bool holds(const L1Tables& tables, const std::string& key) {
  L1Hit hit;
  return tables.peek(key_of(key), 0, hit);
}

int held(const L1Tables& tables, const std::string& prefix, int count) {
  int all = 0;
  for (int i = 0; i < count; ++i) all += holds(tables, name(prefix, i)) ? 1 : 0;
  return all;
}

}  // namespace

TEST_CASE("nothing else pushes out what a rule keeps in memory of its own", "[l1][rules]") {
  constexpr int kItems = 500;
  const bool own = GENERATE(true, false);
  L1Tables tables(whole(), {{"own:*", own ? kOwn : 0, L1Policy::lru}});
  for (int i = 0; i < kItems; ++i) put(tables, name("own:", i));
  for (int i = 0; i < 50'000; ++i) put(tables, name("scan:", i));
  // Without memory of their own all of them are gone.
  CHECK(held(tables, "own:", kItems) == (own ? kItems : 0));
  CHECK(tables.stats().evictions > 40'000);
  CHECK(tables.stats().used_bytes <= kMemory);
}

TEST_CASE("a rule with memory of its own pushes out nobody else's", "[l1][rules]") {
  constexpr int kItems = 2'000;
  const bool own = GENERATE(true, false);
  L1Tables tables(whole(), {{"own:*", own ? kOwn : 0, L1Policy::automatic}});
  for (int i = 0; i < kItems; ++i) put(tables, name("other:", i));
  for (int i = 0; i < 50'000; ++i) put(tables, name("own:", i));
  CHECK(held(tables, "other:", kItems) == (own ? kItems : 0));
}

TEST_CASE("the first rule that matches decides in whose memory a key is", "[l1][rules]") {
  L1Tables tables(whole(), {{"own:open:*", 0, {}},
                            {"own:*", kOwn, L1Policy::lru},
                            {"own:late:*", kOwn, L1Policy::lru},
                            {"*", 0, {}}});
  REQUIRE(tables.own().size() == 2);
  CHECK(tables.own()[0].rule == 1);
  for (const char* key : {"own:open:1", "own:1", "own:late:1", "else"}) REQUIRE(put(tables, key));
  CHECK(tables.own()[0].table->stats().items == 2);
  CHECK(tables.own()[1].table->stats().items == 0);
  CHECK(tables.stats().items == 4);
  for (const char* key : {"own:open:1", "own:1", "own:late:1", "else"}) {
    CHECK(holds(tables, key));
    int listed = 0;
    tables.inspect(key, [&](const L1Entry&) { ++listed; });
    CHECK(listed == 1);
    CHECK(tables.erase(key_of(key)));
    CHECK_FALSE(holds(tables, key));
  }
}

TEST_CASE("memory and entries of all tables together are what was given", "[l1][rules]") {
  constexpr uint64_t kEntries = 400;
  L1Tables tables(whole(kEntries), {{"own:*", kOwn, L1Policy::lru}});
  CHECK(tables.stats().budget_bytes == kMemory);
  CHECK(tables.own()[0].table->stats().budget_bytes == kOwn);
  for (int i = 0; i < 1'000; ++i) put(tables, name("own:", i)), put(tables, name("other:", i));
  CHECK(tables.own()[0].table->stats().items == kEntries / 4);
  CHECK(tables.stats().items == kEntries);
}

TEST_CASE("each rule's policy is its own", "[l1][rules]") {
  constexpr int kItems = 100;
  L1Tables tables(whole(kItems * 4), {{"lru:*", kOwn, L1Policy::lru}});
  for (int i = 0; i < kItems; ++i) put(tables, name("lru:", i));
  L1Hit hit;
  for (int i = 0; i < kItems; i += 2) REQUIRE(tables.find(key_of(name("lru:", i)), 0, hit));
  for (int i = 0; i < kItems / 2; ++i) put(tables, name("lru:new:", i));
  for (int i = 0; i < kItems; ++i) CHECK(holds(tables, name("lru:", i)) == (i % 2 == 0));
}

TEST_CASE("a walk and a sweep come to every table", "[l1][rules]") {
  L1Tables tables(whole(), {{"a:*", kOwn, {}}, {"b:*", kOwn, {}}});
  for (int i = 0; i < 300; ++i)
    for (const char* prefix : {"a:", "b:", "c:"}) REQUIRE(put(tables, name(prefix, i)));
  L1Tables::Walk walk;
  uint64_t looked_at = 0;
  while (!tables.erase_if(walk, 5, [&](Bytes key, uint64_t) {
    ++looked_at;
    return key.ends_with("7");
  })) {
  }
  CHECK(looked_at == 900);
  CHECK(tables.stats().items == 810);
  for (uint64_t now_ms = 999'000; now_ms < 1'002'000; ++now_ms) tables.sweep(now_ms);
  CHECK(tables.stats().items == 0);
  CHECK(tables.stats().expired == 810);
}

TEST_CASE("a rule's own memory is dropped by its glob alone, as a whole", "[l1][rules]") {
  L1Tables tables(whole(), {{"open:*", 0, {}}, {"own:*", kOwn, {}}});
  for (int i = 0; i < 300; ++i)
    for (const char* prefix : {"open:", "own:", "else:"}) REQUIRE(put(tables, name(prefix, i)));
  CHECK(tables.clear_rule("open:*") == 0);
  CHECK(tables.clear_rule("own:1*") == 0);
  CHECK(tables.clear_rule("own:*") == 300);
  CHECK(tables.clear_rule("own:*") == 0);
  CHECK(held(tables, "own:", 300) == 0);
  CHECK(held(tables, "open:", 300) == 300);
  CHECK(held(tables, "else:", 300) == 300);
}

TEST_CASE("with the cache off rules have no memory either", "[l1][rules]") {
  L1Options off = whole();
  off.memory_bytes = 0;
  L1Tables tables(off, {{"own:*", kOwn, {}}});
  CHECK(tables.own().empty());
  CHECK_FALSE(put(tables, "own:1"));
  CHECK(tables.stats().budget_bytes == 0);
}
