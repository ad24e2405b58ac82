// The wire: however a request is written and split, whatever protocol was agreed, and whatever
// garbage arrives, the client sees what it would see from Redis.
#include <catch2/catch.hpp>
#include <chrono>
#include <numeric>

#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;

namespace {

std::string bulk(const std::string& value) {
  return "$" + std::to_string(value.size()) + "\r\n" + value + "\r\n";
}

std::string every_byte() {
  std::string all(256, '\0');
  std::iota(all.begin(), all.end(), '\0');
  return all;
}

/// All that a server answers to these bytes until it closes.
std::string answer_and_close(uint16_t port, const std::string& bytes) {
  RawClient client(port);
  client.send(bytes);
  return client.read_to_end();
}

}  // namespace

TEST_CASE("a pipeline of any depth is answered in order", "[protocol]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  std::string requests;
  std::string expected;
  for (int i = 0; i < 20'000; ++i) {
    const std::string value = std::to_string(i);
    switch (i % 4) {
      case 0:
        requests += encode({"SET", "k", value});
        expected += "+OK\r\n";
        break;
      case 1:
        requests += encode({"GET", "k"});
        expected += bulk(std::to_string(i - 1));
        break;
      case 2:
        requests += encode({"ECHO", value});
        expected += bulk(value);
        break;
      default: requests += encode({"GET", "never:" + value}); expected += "$-1\r\n";
    }
  }
  client.send(requests);
  std::string replies;
  for (int i = 0; i < 20'000; ++i) replies += client.read_reply();
  CHECK((replies == expected));  // in parentheses: too long to print
}

TEST_CASE("requests written byte by byte are understood", "[protocol]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  const std::string requests = encode({"SET", "key", "va\r\nlue"}) + encode({"GET", "key"}) +
                               "PING inline\r\n" + encode({"MGET", "key", "none"}) +
                               encode({"GET", "key"});
  for (const char c : requests) client.send(std::string_view(&c, 1));
  CHECK(client.read_reply() == "+OK\r\n");
  CHECK(client.read_reply() == bulk("va\r\nlue"));
  CHECK(client.read_reply() == bulk("inline"));
  CHECK(client.read_reply() == "*2\r\n" + bulk("va\r\nlue") + "$-1\r\n");
  CHECK(client.read_reply() == bulk("va\r\nlue"));
}

TEST_CASE("keys and values may hold every byte", "[protocol]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  const std::string all = every_byte();
  CHECK(client.ask(Args{"SET", all, all}) == "+OK\r\n");
  for (int i = 0; i < 3; ++i) CHECK(client.ask(Args{"GET", all}) == bulk(all));
  CHECK(client.ask(Args{"SET", "", "empty"}) == "+OK\r\n");
  for (int i = 0; i < 3; ++i) CHECK(client.ask(Args{"GET", ""}) == bulk("empty"));
}

TEST_CASE("inline commands and empty lines are taken as Redis takes them", "[protocol]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  client.send("\r\n\r\n  SET   k   \"a \\x41\\n b\"  \r\nGET k\nget 'k'\r\n*0\r\n\r\nPING\r\n");
  CHECK(client.read_reply() == "+OK\r\n");
  CHECK(client.read_reply() == bulk("a A\n b"));
  CHECK(client.read_reply() == bulk("a A\n b"));
  CHECK(client.read_reply() == "+PONG\r\n");
}

TEST_CASE("empty commands and negative counts get no reply and do no harm", "[protocol]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  client.send("*0\r\n*-1\r\n*-5\r\n\r\n" + encode({"PING"}));
  CHECK(client.read_reply() == "+PONG\r\n");
}

TEST_CASE("garbage gets Redis's own protocol error, then the end", "[protocol]") {
  Stack stack;
  const std::string garbage =
      GENERATE(as<std::string>{}, "*x\r\n", "*1\r\n+PING\r\n", "*1\r\n$-1\r\n", "*1\r\n$x\r\n",
               "*1\r\n$600000000\r\n", "*1\r\n$99999999999999999999\r\n", "*99999999999\r\n",
               "*1\r\nPING\r\n", "GET \"unbalanced\r\n", "GET 'un\"balanced\r\n",
               "*1 \r\n$4\r\nPING\r\n", "*2\r\n$3\r\nGET\r\n:1\r\n");
  INFO(garbage);
  const std::string expected = answer_and_close(stack.redis.port(), garbage);
  REQUIRE(expected.find("-ERR Protocol error") == 0);
  CHECK(answer_and_close(stack.proxy.port(), garbage) == expected);
}

TEST_CASE("a line without an end gets Redis's own protocol error, then the end", "[protocol]") {
  Stack stack;
  const std::string start = GENERATE(as<std::string>{}, "", "*", "*1\r\n$");
  const std::string garbage = start + std::string(64 * 1024 + 1, '1');
  const std::string expected = answer_and_close(stack.redis.port(), garbage);
  REQUIRE(expected.find("-ERR Protocol error") == 0);
  CHECK(answer_and_close(stack.proxy.port(), garbage) == expected);
}

TEST_CASE("what was asked before the garbage is still answered", "[protocol]") {
  Stack stack;
  const std::string requests =
      encode({"SET", "k", "v"}) + encode({"GET", "k"}) + encode({"GET", "k"}) + "*x\r\n";
  const std::string expected = answer_and_close(stack.redis.port(), requests);
  CHECK(answer_and_close(stack.proxy.port(), requests) == expected);
}

TEST_CASE("a promise of two billion arguments costs no memory and hurts nobody",
          "[protocol][memory]") {
  Stack stack;
  Client other = stack.proxy.client();
  const uint64_t before = stack.proxy.process().resident_bytes();
  std::vector<RawClient> liars;
  for (int i = 0; i < 20; ++i) {
    liars.emplace_back(stack.proxy.port());
    liars.back().send("*2000000000\r\n$3\r\nSET\r\n");
  }
  CHECK(other("SET k v") == "OK");
  CHECK(other("GET k") == "v");
  CHECK(stack.proxy.process().resident_bytes() < before + (16u << 20));
}

TEST_CASE("an unknown command is an error, not a disconnect", "[protocol]") {
  Stack stack;
  RawClient direct(stack.redis.port());
  RawClient client(stack.proxy.port());
  for (const Args& request : {Args{"NOSUCH"}, Args{"NOSUCH", "a", "b"}, Args{"GETT", "k"},
                              Args{every_byte()}, Args{"X", std::string(300, 'y')}, Args{""}}) {
    CHECK(client.ask(request) == direct.ask(request));
  }
  CHECK(client.ask("PING") == "+PONG\r\n");
}

TEST_CASE("what the proxy refuses says why and keeps the connection", "[protocol]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  for (const char* request :
       {"SHUTDOWN", "SHUTDOWN NOSAVE", "DEBUG SLEEP 0", "REPLICAOF no one", "SLAVEOF no one",
        "FAILOVER", "SYNC", "PSYNC ? -1", "REPLCONF ACK 0"}) {
    INFO(request);
    CHECK(client.ask(request).find("-ERR ") == 0);
    CHECK(client.ask("PING") == "+PONG\r\n");
  }
  CHECK(stack.redis.client()("PING") == "PONG");
}

TEST_CASE("a refused command can be allowed in the configuration", "[protocol]") {
  Stack stack({"--set", "security.allow=debug"});
  CHECK(stack.proxy.client()("DEBUG SLEEP 0") == "OK");
}

TEST_CASE("HELLO switches the protocol, with AUTH and SETNAME", "[protocol]") {
  Stack stack;
  stack.redis.client()("ACL SETUSER alice on >pw ~* &* +@all");
  RawClient client(stack.proxy.port());
  CHECK(client.ask("GET none") == "$-1\r\n");
  CHECK(client.ask("HELLO 3 AUTH alice wrong").find("-WRONGPASS") == 0);
  CHECK(client.ask("GET none") == "$-1\r\n");
  const std::string hello = client.ask("HELLO 3 AUTH alice pw SETNAME me");
  CHECK(hello.find("%7\r\n") == 0);
  CHECK(hello.find("$5\r\nproto\r\n:3\r\n") != std::string::npos);
  CHECK(client.ask("GET none") == "_\r\n");
  CHECK(client.ask("GET none") == "_\r\n");
  CHECK(client.ask("ACL WHOAMI") == bulk("alice"));
  CHECK(client.ask("CLIENT GETNAME") == bulk("me"));
  CHECK(client.ask("HSET h f v") == ":1\r\n");
  for (int i = 0; i < 3; ++i) CHECK(client.ask("HGETALL h") == "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
  CHECK(client.ask("HELLO 2").find("*14\r\n") == 0);
  for (int i = 0; i < 3; ++i) CHECK(client.ask("HGETALL h") == "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
  CHECK(client.ask("GET none") == "$-1\r\n");
}

TEST_CASE("RESET brings back RESP2, database 0, no name and the default user", "[protocol]") {
  Stack stack;
  stack.redis.client()("SET k zero");
  stack.redis.client()("ACL SETUSER alice on >pw ~* &* +@all");
  RawClient client(stack.proxy.port());
  client.ask("HELLO 3 AUTH alice pw SETNAME me");
  client.ask("SELECT 5");
  CHECK(client.ask("GET k") == "_\r\n");
  client.ask("MULTI");
  CHECK(client.ask("RESET") == "+RESET\r\n");
  CHECK(client.ask("GET k") == bulk("zero"));
  CHECK(client.ask("GET none") == "$-1\r\n");
  CHECK(client.ask("CLIENT GETNAME") == "$-1\r\n");
  CHECK(client.ask("ACL WHOAMI") == bulk("default"));
}

TEST_CASE("QUIT answers what came before, says OK and closes", "[protocol]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  client.send(encode({"SET", "k", "v"}) + encode({"GET", "k"}) + encode({"QUIT"}) +
              encode({"SET", "k", "after"}));
  CHECK(client.read_to_end() == "+OK\r\n" + bulk("v") + "+OK\r\n");
  CHECK(stack.redis.client()("GET k") == "v");
}

TEST_CASE("a client that has sent its last request still gets every reply", "[protocol]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  std::string requests, expected;
  for (int i = 0; i < 1000; ++i) {
    requests += encode({"SET", "k" + std::to_string(i), std::to_string(i)}) +
                encode({"GET", "k" + std::to_string(i)});
    expected += "+OK\r\n" + bulk(std::to_string(i));
  }
  client.send(requests);
  client.half_close();
  CHECK((client.read_to_end() == expected));
}

TEST_CASE("CLIENT speaks about the client's own connection to the proxy", "[protocol]") {
  Stack stack;
  Client a = stack.proxy.client();
  Client b = stack.proxy.client();
  const std::string id = a("CLIENT ID");
  CHECK(id != b("CLIENT ID"));
  CHECK(a("CLIENT SETNAME first") == "OK");
  CHECK(a("CLIENT GETNAME") == "first");
  CHECK(b("CLIENT GETNAME") == "(nil)");
  CHECK(a("CLIENT INFO").find("id=" + id + " ") == 0);
  CHECK(a("CLIENT INFO").find("laddr=127.0.0.1:" + std::to_string(stack.proxy.port())) !=
        std::string::npos);
  const std::string list = b("CLIENT LIST");
  CHECK(list.find("name=first") != std::string::npos);
  CHECK(b({"CLIENT", "KILL", "ID", id}) == "1");
  CHECK(wait_until([&] { return b("CLIENT LIST").find("name=first") == std::string::npos; }));
  CHECK_THROWS(a("PING"));
}

TEST_CASE("a value of 512 MB passes both ways", "[protocol][slow]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  client.set_deadline(120s);
  std::string value(512u << 20, 'x');
  for (size_t i = 0; i < value.size(); i += 4099) value[i] = static_cast<char>('a' + i % 26);
  REQUIRE(client.ask(Args{"SET", "big", value}) == "+OK\r\n");
  CHECK(client.ask("STRLEN big") == ":536870912\r\n");
  CHECK((client.ask("GET big") == bulk(value)));
  CHECK(client.ask("PING") == "+PONG\r\n");
}

TEST_CASE("INFO is the server's own with a section about the proxy", "[protocol]") {
  Stack stack;
  Client client = stack.proxy.client();
  const std::string all = client("INFO");
  CHECK(all.find("# Server\r\n") != std::string::npos);
  CHECK(all.find("# Keyspace\r\n") != std::string::npos);
  CHECK(all.find("# Nearcached\r\n") != std::string::npos);
  CHECK(client("INFO memory").find("Nearcached") == std::string::npos);
  const std::string ours = client("INFO nearcached");
  for (const char* field : {"version",
                            "uptime_s",
                            "workers",
                            "clients",
                            "l1_hits",
                            "l1_misses",
                            "l1_hit_ratio",
                            "l1_items",
                            "l1_used_bytes",
                            "l1_budget_bytes",
                            "l1_fills",
                            "l1_fills_discarded",
                            "l1_evictions",
                            "l1_expired",
                            "invalidations_push",
                            "invalidations_total",
                            "epoch_reasons",
                            "bus",
                            "flights_joined",
                            "coherence_mode",
                            "coherence_link_ms",
                            "upstream_connections",
                            "upstream_reconnects",
                            "pinned_sessions"}) {
    INFO(field);
    CHECK_NOTHROW(info_field(ours, field));
  }
  CHECK(info_field(ours, "workers") == "2");
  CHECK(info_field(ours, "coherence_mode") == "resp3");
}
