// The claims of the simulator. How many schedules: NEARCACHED_SIM_SCHEDULES (default 10,000; fewer
// under a sanitizer, tests/sim/meson.build). NEARCACHED_MUTATION switches a mechanism off, as in
// the program: then the first claim must fall.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "sim/schedule.h"

using namespace nearcached;
using namespace nearcached::sim;

namespace {

uint64_t schedules() {
  const char* text = std::getenv("NEARCACHED_SIM_SCHEDULES");
  return text == nullptr ? 10'000 : std::strtoull(text, nullptr, 10);
}

std::string tail_of(const std::vector<std::string>& trace) {
  std::string text;
  for (size_t i = trace.size() - std::min<size_t>(trace.size(), 30); i < trace.size(); ++i)
    text += "\n" + trace[i];
  return text;
}

/// Runs all schedules of a mode; ends at the first that breaks a promise, with its trace.
Counts run_all(ScheduleOptions options) {
  Counts total;
  for (uint64_t seed = 1; seed <= schedules(); ++seed) {
    const Outcome outcome = run_schedule(options, seed);
    total += outcome.counts;
    if (!outcome.violation) continue;
    options.tracing = true;
    const Outcome again = run_schedule(options, seed);
    FAIL("seed " << seed << " violates " << outcome.violation->guarantee << ": "
                 << outcome.violation->what << tail_of(again.trace));
  }
  return total;
}

}  // namespace

TEST_CASE("no schedule breaks a promise over resp3", "[sim]") {
  const Counts total = run_all({});
  // A cache that never answers keeps every promise.
  CHECK(total.hits > total.reads / 5);
  CHECK(total.joined > total.reads / 1000);
}

TEST_CASE("no schedule breaks a promise over redirect", "[sim]") {
  ScheduleOptions options;
  options.mode = CoherenceMode::redirect;
  const Counts total = run_all(options);
  CHECK(total.hits > total.reads / 8);
}

TEST_CASE("no schedule breaks a promise over publish", "[sim]") {
  ScheduleOptions options;
  options.mode = CoherenceMode::publish;
  // Lane and bus may reach different servers when the address moves; in redirect the probe shows
  // it, in publish nothing does (README.md).
  options.address_moves = false;
  const Counts total = run_all(options);
  CHECK(total.hits > total.reads / 8);
}

// One schedule in hundreds of thousands, too few for the claims above. When a change of the model
// draws others and the second check fails, another is found by `coherence-sim --mode publish
// --schedules 1000000 --turn deaf_heartbeats`.
TEST_CASE("who hears nothing is heard itself, and a schedule fails if not", "[sim]") {
  constexpr uint64_t kSeed = 235'262;
  ScheduleOptions options;
  options.mode = CoherenceMode::publish;
  options.address_moves = false;
  CHECK_FALSE(run_schedule(options, kSeed).violation);
  options.measures.deaf_heartbeats = false;
  CHECK(run_schedule(options, kSeed).violation);
}

TEST_CASE("a schedule replays event by event", "[sim]") {
  ScheduleOptions options;
  options.tracing = true;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Outcome first = run_schedule(options, seed);
    REQUIRE_FALSE(first.trace.empty());
    REQUIRE(run_schedule(options, seed).trace == first.trace);
  }
}
