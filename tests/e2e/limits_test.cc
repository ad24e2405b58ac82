// Limits: each holds, says so where somebody is told, and counts.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <thread>

#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;

TEST_CASE("L1 stays within its budget and what it evicts is fetched again", "[limits]") {
  Stack stack({"--l1-memory", "1mb"});
  Client client = stack.proxy.client();
  Client direct = stack.redis.client();
  for (int i = 0; i < 5000; ++i) {
    direct({"SET", "k" + std::to_string(i), std::to_string(i) + std::string(1000, 'x')});
  }
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 5000; ++i) {
      REQUIRE(client({"GET", "k" + std::to_string(i)}) ==
              std::to_string(i) + std::string(1000, 'x'));
    }
  }
  CHECK(stack.proxy.count("l1_evictions") > 0);
  CHECK(stack.proxy.count("l1_items") > 0);
  CHECK(stack.proxy.count("l1_budget_bytes") == 1 << 20);
  CHECK(stack.proxy.count("l1_used_bytes") <= 1 << 20);
}

TEST_CASE("a pipeline that is held back is answered in full, wherever its bytes are cut",
          "[limits]") {
  Stack stack({"--set", "limits.client_inflight=2", "--set", "l1.enabled=false"});
  stack.redis.client()("SET key value");
  std::string pipeline, expected;
  for (int i = 0; i < 400; ++i) {
    const std::string text = std::to_string(i);
    pipeline += "*2\r\n$4\r\nECHO\r\n$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
    expected += "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
  }
  for (const size_t step : {7, 61, 250, 1023}) {
    RawClient client(stack.proxy.port());
    for (size_t at = 0; at < pipeline.size(); at += step) client.send(pipeline.substr(at, step));
    std::string got;
    for (int i = 0; i < 400; ++i) got += client.read_reply();
    CHECK(got == expected);
  }
  CHECK(stack.proxy.count("limit_client_inflight_hit") > 0);
}

TEST_CASE("a rule keeps keys out of L1, or only the long ones", "[limits]") {
  TempDir dir;
  write_file(dir.path() + "/n.toml",
             "[[rule]]\nkeys = \"live:*\"\ncache = false\n"
             "[[rule]]\nkeys = \"small:*\"\nvalue_max = \"10\"\n");
  Stack stack({"-c", dir.path() + "/n.toml"});
  Client direct = stack.redis.client();
  const std::string longer(200, 'x');  // the limit allows for a reply's header
  direct({"MSET", "live:1", "v", "small:1", longer, "other:1", "v"});
  Client client = stack.proxy.client();
  direct("CONFIG RESETSTAT");
  for (int i = 0; i < 10; ++i) {
    CHECK(client("GET live:1") == "v");
    CHECK(client("GET small:1") == longer);
  }
  CHECK(stack.redis.calls("get") == 20);
  CHECK(wait_until([&] {
    const uint64_t hits = stack.proxy.count("l1_hits");
    client("GET other:1");
    return stack.proxy.count("l1_hits") > hits;
  }));
}

// Reads `items` of the rule's keys once, then 20 times as many others, then asks for them again.
// Returns how many of them the upstream was asked for the second time.
uint64_t asked_again_after_a_scan(const std::string& rule) {
  constexpr int kItems = 500, kOthers = 20 * kItems;
  TempDir dir;
  write_file(dir.path() + "/n.toml", "[l1]\nmemory = \"2MiB\"\nscan_resistance = false\n" + rule);
  Stack stack({"-c", dir.path() + "/n.toml", "--threads", "1"});
  Client direct = stack.redis.client(), client = stack.proxy.client();
  const std::string value(1000, 'x');
  for (int i = 0; i < kItems; ++i) direct({"SET", "own:" + std::to_string(i), value});
  for (int i = 0; i < kOthers; ++i) direct({"SET", "scan:" + std::to_string(i), value});
  REQUIRE(becomes_hit(stack.proxy, client, "GET own:0"));
  const auto read = [&](const std::string& prefix, int count) {
    for (int i = 0; i < count; ++i)
      REQUIRE(client({"GET", prefix + std::to_string(i)}).size() == value.size());
  };
  read("own:", kItems);
  read("scan:", kOthers);
  const uint64_t before = stack.redis.calls("get");
  read("own:", kItems);
  const uint64_t again = stack.redis.calls("get") - before;
  if (rule.find("memory") != std::string::npos) {
    CHECK(stack.proxy.info("l1_rule1").starts_with("items=500,"));
    CHECK(client("NEARCACHE INSPECT own:0").find("memory_of=own:*") != std::string::npos);
    // Its glob as a pattern: the rule's part goes, and nothing else does.
    const uint64_t items = stack.proxy.count("l1_items");
    client("NEARCACHE PATTERN own:*");
    CHECK(wait_until([&] { return stack.proxy.count("pattern_items_dropped") == kItems; }));
    CHECK(stack.proxy.count("l1_items") == items - kItems);
  }
  return again;
}

// Fails when of() knows only one table.
TEST_CASE("what a rule keeps in memory of its own outlives a scan, and no other rule's does",
          "[limits]") {
  const std::string keys = "[[rule]]\nkeys = \"own:*\"\n";
  CHECK(asked_again_after_a_scan(keys + "memory = \"1MiB\"\npolicy = \"lru\"\n") == 0);
  CHECK(asked_again_after_a_scan(keys) > 400);
}

TEST_CASE("an entry lives no longer than l1.ttl", "[limits]") {
  Stack stack({"--set", "l1.ttl=100ms"});
  stack.redis.client()("SET k v");
  Client client = stack.proxy.client();
  CHECK(wait_until([&] {
    client("GET k");
    return stack.redis.calls("get") >= 5;
  }));
}

TEST_CASE("a subscriber that never reads is closed at the output limit, and its memory given back",
          "[limits][memory]") {
  constexpr uint64_t kMiB = 1 << 20;
  Stack stack({"--set", "limits.client_output=8mb", "--set", "limits.client_output_pause=1mb"});
  Client publisher = stack.redis.client();
  const uint64_t before = stack.proxy.process().resident_bytes();
  RawClient deaf(stack.proxy.port());
  deaf.ask("SUBSCRIBE c");
  const std::string message(100'000, 'x');
  CHECK(wait_until([&] {
    REQUIRE(stack.proxy.process().resident_bytes() < before + 64 * kMiB);
    return publisher({"PUBLISH", "c", message}) == "0";
  }));
  CHECK(wait_until([&] { return stack.proxy.count("clients") <= 1; }));
  CHECK(stack.proxy.count("limit_client_output_hit") == 1);
  CHECK(wait_until([&] { return stack.proxy.process().resident_bytes() < before + 16 * kMiB; }));
}

// Fails when a run of hits goes on until kEagerFlushBytes whatever the limit says.
TEST_CASE("a client that does not read is owed no more hits than client_output_pause and one",
          "[limits]") {
  constexpr uint64_t kPause = 16 * 1024, kValue = 1000;
  Stack stack({"--threads", "1", "--set", "limits.client_output_pause=16kb"});
  stack.redis.client()({"SET", "k", std::string(kValue, 'x')});
  Client other = stack.proxy.client();
  REQUIRE(becomes_hit(stack.proxy, other, "GET k"));
  RawClient greedy(stack.proxy.port());
  std::string requests;
  for (int i = 0; i < 5000; ++i) requests += encode({"GET", "k"});
  while (greedy.send_some(requests) == requests.size()) {
  }
  uint64_t most = 0;
  CHECK(wait_until([&] {
    const std::string clients = other("CLIENT LIST");
    for (size_t at = 0; (at = clients.find(" omem=", at)) != std::string::npos; ++at)
      most = std::max<uint64_t>(most, std::stoull(clients.substr(at + 6)));
    return stack.proxy.count("limit_client_output_pause_hit") > 0 && most > kPause;
  }));
  CHECK(most <= kPause + kValue + 100);
}

TEST_CASE("a client that is idle for limits.client_idle is closed", "[limits]") {
  Stack stack({"--set", "limits.client_idle=1s"});
  RawClient idle(stack.proxy.port());
  RawClient subscriber(stack.proxy.port());
  REQUIRE(idle.ask("PING") == "+PONG\r\n");
  subscriber.ask("SUBSCRIBE c");  // waits for others; Redis does not count it as idle
  CHECK(idle.read_to_end().empty());
  CHECK(stack.redis.client()("PUBLISH c x") == "1");
  CHECK(stack.proxy.count("client_idle_closed") == 1);
}

TEST_CASE("a request over limits.request or limits.request_args is refused, others go on",
          "[limits]") {
  Stack stack({"--set", "limits.request=1mb", "--set", "limits.bulk=1mb", "--set",
               "limits.request_args=1000"});
  Client other = stack.proxy.client();
  SECTION("too many arguments") {
    RawClient client(stack.proxy.port());
    client.send("*1001\r\n");
    CHECK(client.read_to_end().find("-ERR") == 0);
  }
  SECTION("too long an argument") {
    RawClient client(stack.proxy.port());
    client.send("*2\r\n$3\r\nGET\r\n$2000000\r\n");
    CHECK(client.read_to_end() == "-ERR Protocol error: invalid bulk length\r\n");
  }
  SECTION("too long a request") {
    RawClient client(stack.proxy.port());
    std::string request = "*900\r\n";
    for (int i = 0; i < 899; ++i) request += "$2000\r\n" + std::string(2000, 'x') + "\r\n";
    CHECK_THROWS([&] {
      client.send(request);
      client.read_to_end();
      throw std::runtime_error("closed");
    }());
    CHECK(wait_until([&] { return stack.proxy.count("limit_request_hit") == 1; }));
  }
  CHECK(other("SET k v") == "OK");
}

TEST_CASE("a transaction of more keys than are remembered still invalidates them all",
          "[limits][coherence]") {
  Stack stack({"--set", "limits.transaction_keys=10"});
  Client writer = stack.proxy.client();
  std::vector<Client> readers;
  for (int i = 0; i < 4; ++i) readers.push_back(stack.proxy.client());
  for (int round = 0; round < 20; ++round) {
    const std::string value = std::to_string(round);
    for (Client& reader : readers) {
      for (int i = 0; i < 50; ++i) reader({"GET", "k" + std::to_string(i)});
    }
    writer("MULTI");
    for (int i = 0; i < 50; ++i) writer({"SET", "k" + std::to_string(i), value});
    writer("EXEC");
    for (Client& reader : readers) {
      for (int i = 0; i < 50; ++i) REQUIRE(reader({"GET", "k" + std::to_string(i)}) == value);
    }
  }
  CHECK(stack.proxy.count("limit_transaction_keys_hit") >= 20);
}

// Fails when Stream::flush_with() forgets what the socket did not take, or lets it go before what
// was to be written earlier.
TEST_CASE("big hits reach a client that reads slowly whole and in order", "[limits]") {
  Stack stack({"--threads", "1", "--set", "l1.value_max=4MiB", "--l1-memory", "64MiB"});
  Client direct = stack.redis.client(), client = stack.proxy.client();
  std::string big;
  for (int i = 0; big.size() < 3'000'000; ++i) big += std::to_string(i) + ' ';
  direct({"SET", "big", big});
  direct("SET small value");
  for (const char* read : {"GET big", "GET small"}) REQUIRE(becomes_hit(stack.proxy, client, read));
  const uint64_t hits = stack.proxy.count("l1_hits");
  RawClient slow(stack.proxy.port());
  // In one piece and one after the other: the big one is the last of what was read, or is not.
  const std::string asked =
      encode({"GET", "small"}) + encode({"GET", "big"}) + encode({"GET", "small"});
  for (int i = 0; i < 6; ++i) {
    slow.send(i % 2 == 0 ? asked : encode({"GET", "small"}) + encode({"GET", "big"}));
    std::this_thread::sleep_for(20ms);
  }
  const std::string big_reply = "$" + std::to_string(big.size()) + "\r\n" + big + "\r\n";
  for (int i = 0; i < 6; ++i) {
    CHECK(slow.read_reply() == "$5\r\nvalue\r\n");
    CHECK((slow.read_reply() == big_reply));
    if (i % 2 == 0) CHECK(slow.read_reply() == "$5\r\nvalue\r\n");
  }
  CHECK(stack.proxy.count("l1_hits") == hits + 15);
}
