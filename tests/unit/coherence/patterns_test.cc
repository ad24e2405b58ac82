#include "nearcached/coherence/patterns.h"

#include <catch2/catch.hpp>

using namespace nearcached;
using namespace nearcached::coherence;

namespace {

std::shared_ptr<const Pattern> pattern(uint64_t id, uint64_t accepted_ms, const std::string& glob) {
  return std::make_shared<const Pattern>(Pattern{id, accepted_ms, glob});
}

}  // namespace

TEST_CASE("a pattern kills what it matches and was stored up to its acceptance", "[patterns]") {
  PatternSet set;
  CHECK_FALSE(set.kills("user:1", 0));
  REQUIRE(set.catch_up({pattern(1, 1'000, "user:*")}));
  CHECK(set.kills("user:1", 0));
  CHECK(set.kills("user:1", 1'000));
  CHECK_FALSE(set.kills("user:1", 1'001));
  CHECK_FALSE(set.kills("order:1", 0));
}

TEST_CASE("a pattern is a Redis glob, over any bytes", "[patterns]") {
  PatternSet set;
  REQUIRE(set.catch_up({pattern(1, 1'000, std::string("a\0?[x-z]\\*", 10))}));
  CHECK(set.kills(Bytes("a\0\ny*", 5), 0));
  CHECK_FALSE(set.kills(Bytes("a\0\nw*", 5), 0));
  CHECK_FALSE(set.kills(Bytes("a\0\nyy", 5), 0));
  CHECK_FALSE(set.kills(Bytes("a?\ny*", 5), 0));
}

TEST_CASE("of several patterns each counts to its own time", "[patterns]") {
  PatternSet set;
  REQUIRE(set.catch_up({pattern(1, 1'000, "a*"), pattern(2, 2'000, "*b")}));
  CHECK(set.kills("ab", 2'000));
  CHECK(set.kills("xb", 2'000));
  CHECK_FALSE(set.kills("ax", 1'001));
  CHECK(set.size() == 2);
}

TEST_CASE("each pattern is taken over once, in whatever list it comes again", "[patterns]") {
  PatternSet set;
  const auto a = pattern(1, 1'000, "a*"), b = pattern(2, 2'000, "b*"), c = pattern(5, 3'000, "c*");
  CHECK_FALSE(set.catch_up({}));
  CHECK(set.catch_up({a, b}));
  CHECK_FALSE(set.catch_up({a, b}));
  CHECK_FALSE(set.catch_up({b}));
  CHECK(set.catch_up({b, c}));
  CHECK(set.size() == 3);
  CHECK(set.newest() == 5);
}

TEST_CASE("what the table was walked for is forgotten, what came meanwhile is not", "[patterns]") {
  PatternSet set;
  const auto a = pattern(1, 1'000, "a*"), b = pattern(2, 1'000, "b*"), c = pattern(3, 1'000, "c*");
  REQUIRE(set.catch_up({a, b}));
  const uint64_t walked = set.newest();
  REQUIRE(set.catch_up({a, b, c}));
  set.retire(walked);
  CHECK_FALSE(set.kills("a", 0));
  CHECK_FALSE(set.kills("b", 0));
  CHECK(set.kills("c", 0));
  CHECK_FALSE(set.catch_up({a, b, c}));
  set.retire(set.newest());
  CHECK(set.empty());
  CHECK_FALSE(set.catch_up({a, b, c}));
}
