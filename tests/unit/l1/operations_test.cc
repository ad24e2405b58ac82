// The fuzzer's operations (tests/fuzz/l1_operations.h) on fixed random inputs, with every policy.
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "fuzz/l1_operations.h"

using namespace nearcached;

TEST_CASE("no sequence of operations breaks an invariant or brings a wrong hit", "[l1]") {
  const unsigned policy = GENERATE(range(0u, static_cast<unsigned>(kL1PolicyNames.size())));
  const unsigned budget = GENERATE(range(0u, 4u));
  uint64_t hits = 0, evictions = 0, expired = 0, reclaimed = 0;
  for (unsigned seed = 0; seed < 12; ++seed) {
    std::mt19937 random(seed);
    std::vector<uint8_t> bytes(12'000);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    bytes[0] = static_cast<uint8_t>(budget);
    bytes[1] = static_cast<uint8_t>(policy);
    if (seed % 3 != 0) bytes[2] = 1;  // by memory alone, overhead charged
    test::L1Operations operations(bytes.data(), bytes.size());
    operations.run();
    hits += operations.hits();
    evictions += operations.stats().evictions;
    expired += operations.stats().expired;
    reclaimed += operations.stats().reclaimed;
  }
  CHECK(hits > 200);
  if (budget < 2) CHECK(evictions > 50);
  CHECK(expired > 100);
  CHECK(reclaimed > 10);
}
