// The coherence checker, run as an operator would: writers through the proxy, through a second one
// and around both, all at once.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

struct Verdict {
  int status;
  std::string output;
};

Verdict run_checker(const std::vector<std::string>& options) {
  const char* checker = std::getenv("NEARCACHED_CHECKER");
  REQUIRE(checker != nullptr);
  TempDir dir;
  std::vector<std::string> argv{checker};
  argv.insert(argv.end(), options.begin(), options.end());
  Process process;
  process.start(argv, dir.path() + "/log");
  const std::optional<int> status = process.wait_exit(std::chrono::seconds(60));
  return {status.value_or(-1), read_file(dir.path() + "/log")};
}

std::string address(uint16_t port) { return "127.0.0.1:" + std::to_string(port); }

}  // namespace

TEST_CASE("under load, with writers through two proxies and around both, the promise holds",
          "[coherence][checker]") {
  Stack stack;
  Proxy second(stack.redis.port());
  const std::string first_at = address(stack.proxy.port());
  const std::string second_at = address(second.port());
  const Verdict verdict = run_checker(
      {"--endpoints", first_at + "," + second_at, "--writers-at",
       first_at + "," + second_at + "," + address(stack.redis.port()), "--seconds", "5"});
  INFO(verdict.output);
  CHECK(verdict.status == 0);
  CHECK(verdict.output.find("violations 0\n") != std::string::npos);
}

TEST_CASE("under load with few keys, each written often, the promise holds",
          "[coherence][checker]") {
  Stack stack;
  const std::string proxy_at = address(stack.proxy.port());
  const Verdict verdict =
      run_checker({"--endpoints", proxy_at, "--writers-at",
                   proxy_at + "," + proxy_at + "," + address(stack.redis.port()), "--keys", "3",
                   "--seconds", "3", "--writes-per-second", "1500", "--hit-ratio-min", "0.05"});
  INFO(verdict.output);
  CHECK(verdict.status == 0);
  CHECK(verdict.output.find("violations 0\n") != std::string::npos);
}

TEST_CASE("the checker fails a run that had no hits", "[checker]") {
  Stack stack({"--set", "l1.enabled=false"});
  const Verdict verdict =
      run_checker({"--endpoints", address(stack.proxy.port()), "--seconds", "1"});
  INFO(verdict.output);
  CHECK(verdict.status == 1);
  CHECK(verdict.output.find("too few hits") != std::string::npos);
}
