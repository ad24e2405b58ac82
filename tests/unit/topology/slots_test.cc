// Which slot a key has. The expected ones were answered by redis-server 7.0.15 (CLUSTER KEYSLOT).
#include "nearcached/topology/slots.h"

#include <catch2/catch.hpp>
#include <string>

using namespace nearcached;

TEST_CASE("a key's slot is the one that Redis says", "[topology]") {
  CHECK(slot_of("") == 0);
  CHECK(slot_of("a") == 15495);
  CHECK(slot_of("foo") == 12182);
  CHECK(slot_of("bar") == 5061);
  CHECK(slot_of("123456789") == 12739);
  CHECK(slot_of("\xff\xfe") == 3374);
}

TEST_CASE("keys with the same hash tag have the same slot", "[topology]") {
  CHECK(slot_of("{user1000}.following") == 3443);
  CHECK(slot_of("{user1000}.followers") == 3443);
  CHECK(slot_of("}{a}") == slot_of("a"));
  CHECK(slot_of("{a}b}") == slot_of("a"));
  CHECK(slot_of(Bytes("{\0}", 3)) == slot_of(Bytes("\0", 1)));
}

TEST_CASE("the tag ends at the first } behind the first {", "[topology]") {
  CHECK(slot_of("foo{{bar}}zap") == slot_of("{bar"));
  CHECK(slot_of("foo{{bar}}zap") == 4015);
  CHECK(slot_of("foo{bar}{zap}") == slot_of("bar"));
  CHECK(slot_of("{{}}x") == slot_of("{"));
  CHECK(slot_of("{{}}x") == 4092);
}

TEST_CASE("without a tag, or with an empty one, the whole key counts", "[topology]") {
  CHECK(slot_of("foo{}{bar}") == 8363);
  CHECK(slot_of("{}") == 15257);
  CHECK(slot_of("{}x") == 10595);
  CHECK(slot_of("{a") == 10276);
  CHECK(slot_of("a}") == 5921);
  CHECK(slot_of("x{") == 3596);
}
