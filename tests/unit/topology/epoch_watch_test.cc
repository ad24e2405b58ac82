#include "nearcached/topology/epoch_watch.h"

#include <catch2/catch.hpp>

using nearcached::EpochWatch;
using Verdict = EpochWatch::Verdict;

TEST_CASE("an epoch is settled when the topology was asked for after it was heard of",
          "[topology]") {
  EpochWatch watch;
  CHECK(watch.hear(7, 100, 90) == Verdict::unknown);
  CHECK(watch.hear(7, 110, 100) == Verdict::waiting);  // perhaps asked before
  CHECK(watch.hear(7, 120, 101) == Verdict::settled);
  CHECK(watch.hear(7, 130, 101) == Verdict::settled);
}

// Fails when the time of the answer counts: this one comes after the epoch was heard of.
TEST_CASE("an answer to what was asked before an epoch was heard of does not settle it",
          "[topology]") {
  EpochWatch watch;
  CHECK(watch.hear(7, 100, 0) == Verdict::unknown);
  CHECK(watch.hear(7, 150, 99) == Verdict::waiting);
  CHECK(watch.hear(7, 200, 160) == Verdict::settled);
}

TEST_CASE("each new epoch is looked into anew", "[topology]") {
  EpochWatch watch;
  CHECK(watch.hear(7, 100, 0) == Verdict::unknown);
  CHECK(watch.hear(8, 110, 105) == Verdict::unknown);  // that question was about 7
  CHECK(watch.hear(8, 120, 111) == Verdict::settled);
  CHECK(watch.hear(9, 130, 111) == Verdict::unknown);
}
