// redis-cli, as a person or a script uses it, with nothing changed but the port.
#include <catch2/catch.hpp>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

/// Standard output of redis-cli, fed with `input`.
std::string redis_cli(const Proxy& proxy, const std::string& options, const std::string& input) {
  TempDir dir;
  write_file(dir.path() + "/in", input);
  Process process;
  process.start({"sh", "-c",
                 "exec redis-cli -p " + std::to_string(proxy.port()) + " " + options + " < " +
                     dir.path() + "/in"},
                dir.path() + "/out");
  REQUIRE(process.wait_exit(std::chrono::seconds(30)).has_value());
  return read_file(dir.path() + "/out");
}

}  // namespace

TEST_CASE("redis-cli works unchanged in both protocols", "[clients]") {
  Stack stack;
  const std::string protocol = GENERATE(as<std::string>{}, "-2", "-3");
  INFO(protocol);
  CHECK(redis_cli(stack.proxy, protocol, "SET k v\nGET k\nGET k\nGET none\nINCR n\n") ==
        "OK\nv\nv\n\n1\n");
  CHECK(redis_cli(stack.proxy, protocol, "MULTI\nINCR n\nGET k\nEXEC\nGET n\n") ==
        "OK\nQUEUED\nQUEUED\n2\nv\n2\n");
  CHECK(redis_cli(stack.proxy, protocol + " --json HGETALL nothing", "").find_first_of("{[") == 0);
  CHECK(redis_cli(stack.proxy, protocol + " -n 3", "SET k three\nGET k\n") == "OK\nthree\n");
  CHECK(redis_cli(stack.proxy, protocol, "GET k\nNOSUCH\n").find("v\nERR unknown command") == 0);
}

TEST_CASE("redis-cli --scan, --bigkeys and --pipe work through the proxy", "[clients]") {
  Stack stack;
  std::string mass;
  for (int i = 0; i < 1000; ++i) mass += encode({"SET", "key:" + std::to_string(i), "x"});
  CHECK(redis_cli(stack.proxy, "--pipe", mass).find("errors: 0, replies: 1000") !=
        std::string::npos);
  std::istringstream scanned(redis_cli(stack.proxy, "--scan", ""));
  CHECK(std::set<std::string>(std::istream_iterator<std::string>(scanned), {}).size() == 1000);
  CHECK(redis_cli(stack.proxy, "--bigkeys", "").find("1000 strings") != std::string::npos);
}
