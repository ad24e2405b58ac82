// The coherence checker, run as an operator would: writers through the proxy, through a second one
// and around both, all at once.
#include <catch2/catch.hpp>

#include "harness/checker.h"
#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

Checker::Verdict run_checker(const std::vector<std::string>& options) {
  return Checker(options).finish();
}

std::string address(uint16_t port) { return "127.0.0.1:" + std::to_string(port); }

}  // namespace

TEST_CASE("under load, with writers through two proxies and around both, the promise holds",
          "[coherence][checker]") {
  Stack stack;
  Proxy second(stack.redis.port());
  const std::string first_at = address(stack.proxy.port());
  const std::string second_at = address(second.port());
  const Checker::Verdict verdict = run_checker(
      {"--endpoints", first_at + "," + second_at, "--writers-at",
       first_at + "," + second_at + "," + address(stack.redis.port()), "--seconds", "5"});
  INFO(verdict.output);
  CHECK(verdict.held());
}

TEST_CASE("under load with few keys, each written often, the promise holds",
          "[coherence][checker]") {
  Stack stack;
  const std::string proxy_at = address(stack.proxy.port());
  const Checker::Verdict verdict =
      run_checker({"--endpoints", proxy_at, "--writers-at",
                   proxy_at + "," + proxy_at + "," + address(stack.redis.port()), "--keys", "3",
                   "--seconds", "3", "--writes-per-second", "1500", "--hit-ratio-min", "0.05"});
  INFO(verdict.output);
  CHECK(verdict.held());
}

TEST_CASE("the checker fails a run that had no hits", "[checker]") {
  Stack stack({"--set", "l1.enabled=false"});
  const Checker::Verdict verdict =
      run_checker({"--endpoints", address(stack.proxy.port()), "--seconds", "1"});
  INFO(verdict.output);
  CHECK(verdict.status == 1);
  CHECK(verdict.output.find("too few hits") != std::string::npos);
}
