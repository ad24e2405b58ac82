// The promise of a drop-in proxy, checked command by command: what a client gets through nearcached
// is, byte for byte, what Redis itself would have sent. Two servers with the same state, one asked
// directly; every request twice in a row, so that what comes from L1 is compared as well.
#include <algorithm>
#include <catch2/catch.hpp>

#include "differential_comparison.h"
#include "differential_table.h"
#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

/// Compares a table in both protocols; returns how many replies came from L1.
uint64_t compare_table(const std::string& name) {
  uint64_t hits = 0;
  for (const int protocol : {2, 3}) {
    Stack stack;
    Comparison comparison(protocol, stack.proxy);
    for (const Paragraph& paragraph : read_table(name)) comparison.run(paragraph);
    hits += stack.proxy.count("l1_hits");
  }
  return hits;
}

/// "client|id" for CLIENT ID if the server lists that, else "client".
std::string command_name(const Args& args, const std::vector<std::string>& known) {
  std::string name = args[0];
  if (args.size() > 1) name += "|" + args[1];
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (std::find(known.begin(), known.end(), name) != known.end()) return name;
  return name.substr(0, name.find('|'));
}

}  // namespace

TEST_CASE("string commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("strings.txt") > 0);
}
TEST_CASE("hash commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("hashes.txt") > 0);
}
TEST_CASE("list commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("lists.txt") > 0);
}
TEST_CASE("set commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("sets.txt") > 0);
}
TEST_CASE("sorted-set commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("zsets.txt") > 0);
}
TEST_CASE("geo commands answer what Redis answers, byte for byte", "[differential]") {
  compare_table("geo.txt");
}
TEST_CASE("stream commands answer what Redis answers, byte for byte", "[differential]") {
  compare_table("streams.txt");
}
TEST_CASE("generic commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("generic.txt") > 0);
}
TEST_CASE("scripts and functions answer what Redis answers, byte for byte", "[differential]") {
  compare_table("scripts.txt");
}
TEST_CASE("connection commands answer what Redis answers, byte for byte", "[differential]") {
  compare_table("connection.txt");
}
TEST_CASE("server commands answer what Redis answers, byte for byte", "[differential]") {
  compare_table("server.txt");
}

TEST_CASE("each command without arguments answers what Redis answers", "[differential]") {
  const std::map<std::string, std::string> not_compared = read_not_compared();
  RedisServer plain;
  Stack stack;
  Args names = words(plain.client()("COMMAND LIST"));
  for (std::string& name : names) std::erase_if(name, [](char c) { return c == '[' || c == ']'; });
  for (const std::string& name : names) {
    // These succeed without arguments, and the tables have them.
    Args request{name};
    if (const size_t bar = name.find('|'); bar != std::string::npos) {
      request = {name.substr(0, bar), name.substr(bar + 1)};
    }
    if (not_compared.contains(name)) continue;
    INFO(name);
    const std::string expected = RawClient(plain.port()).ask(request);
    if (expected.find("wrong number of arguments") == std::string::npos) continue;
    CHECK(RawClient(stack.proxy.port()).ask(request) == expected);
  }
}

TEST_CASE("every command of the server is compared, or named with the reason why not",
          "[differential]") {
  RedisServer server;
  Args known = words(server.client()("COMMAND LIST"));
  for (std::string& name : known) std::erase_if(name, [](char c) { return c == '[' || c == ']'; });
  REQUIRE(known.size() > 240);
  std::set<std::string> covered;
  for (const std::string& table : table_names()) {
    for (const Paragraph& paragraph : read_table(table)) {
      for (const Case& c : paragraph) {
        const std::string name = command_name(c.args, known);
        covered.insert(name);
        covered.insert(name.substr(0, name.find('|')));
      }
    }
  }
  for (const auto& [name, reason] : read_not_compared()) {
    INFO(name << " is excepted though a table has it, or the server does not know it");
    CHECK(covered.insert(name).second);
    CHECK(std::find(known.begin(), known.end(), name) != known.end());
  }
  for (const std::string& name : known) {
    INFO(name << " is in no table and not in not_compared.txt");
    CHECK(covered.contains(name));
  }
}
