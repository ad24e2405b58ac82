#include "nearcached/l1/admission.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <catch2/catch.hpp>

using nearcached::Admission;

namespace {

constexpr uint64_t kMemory = 1 << 20;  // remembers half a million misses

uint64_t hash_of(uint64_t number) { return XXH3_64bits(&number, sizeof number); }

// Keys first … first + keys − 1, each missed once; how many were let in.
uint64_t scan(Admission& admission, uint64_t first, uint64_t keys) {
  uint64_t admitted = 0;
  for (uint64_t i = 0; i < keys; ++i) admitted += admission.admits(hash_of(first + i)) ? 1 : 0;
  return admitted;
}

}  // namespace

TEST_CASE("of keys that never come back next to none is let in", "[l1][admission]") {
  Admission admission(kMemory);
  CHECK(scan(admission, 0, 1'000'000) < 1'000'000 / 50);
  CHECK(admission.strict());
  CHECK(admission.memory_bytes() == kMemory);
}

TEST_CASE("a key is let in at its second miss", "[l1][admission]") {
  Admission admission(kMemory);
  (void)scan(admission, 0, 2 * Admission::kWindow);
  REQUIRE(admission.strict());
  CHECK_FALSE(admission.admits(hash_of(1'000'000)));
  CHECK(admission.admits(hash_of(1'000'000)));
}

TEST_CASE("a loop over more keys than a window has opens it again and keeps it open",
          "[l1][admission]") {
  Admission admission(kMemory);
  (void)scan(admission, 0, 100'000);
  REQUIRE(admission.strict());
  CHECK(scan(admission, 0, 100'000) > 95'000);
  CHECK_FALSE(admission.strict());
}

TEST_CASE("while what is kept is asked for again, all is let in", "[l1][admission]") {
  Admission admission(kMemory);
  uint64_t admitted = 0;
  for (uint64_t i = 0; i < 100'000; ++i) {
    admitted += admission.admits(hash_of(i)) ? 1 : 0;
    if (i % 8 == 0) admission.on_return();
  }
  CHECK(admitted == 100'000);
}

TEST_CASE("without memory all is let in", "[l1][admission]") {
  Admission admission(0);
  CHECK(scan(admission, 0, 100'000) == 100'000);
}
