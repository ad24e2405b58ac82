// tools/coherence-report in short: real processes, real faults, two of the many.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "harness/servers.h"

using namespace nearcached::e2e;

TEST_CASE("while links reorder, and are reset, nothing that is promised is broken",
          "[coherence][checker]") {
  const char* report = std::getenv("NEARCACHED_REPORT");
  const char* build = std::getenv("NEARCACHED_BUILD");
  REQUIRE(report != nullptr);
  REQUIRE(build != nullptr);
  TempDir dir;
  Process process;
  process.start(
      {report, "--build", build, "--modes", "resp3", "--faults", "jitter,reset", "--seconds", "3"},
      dir.path() + "/log");
  const std::optional<int> status = process.wait_exit(std::chrono::seconds(100));
  INFO(read_file(dir.path() + "/log"));
  CHECK(status.value_or(-1) == 0);
}
