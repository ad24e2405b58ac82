// G1 to G4 of the promise, by the ways in which caches break them: another connection, another
// worker, another proxy, a pipeline, a transaction, a script, a link that was lost.
// tools/coherence-checker does the same under load; here each has its own claim.
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>
#include <vector>

#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;

namespace {

std::string bulk(const std::string& value) {
  return "$" + std::to_string(value.size()) + "\r\n" + value + "\r\n";
}

int number_in(const std::string& bulk_reply) {
  return bulk_reply[1] == '-' ? -1 : std::stoi(bulk_reply.substr(bulk_reply.find('\n') + 1));
}

}  // namespace

TEST_CASE("a write is seen by every connection of both workers once it is answered",
          "[coherence]") {
  Stack stack;
  std::vector<Client> clients = clients_of(stack.proxy, 6);
  for (int i = 0; i < 1500; ++i) {
    const std::string value = std::to_string(i);
    REQUIRE(clients[static_cast<size_t>(i) % 6]({"SET", "k", value}) == "OK");
    for (Client& client : clients) REQUIRE(client("GET k") == value);
  }
  CHECK(stack.proxy.count("l1_hits") > 1000);
}

TEST_CASE("each kind of write is seen at once by the other worker", "[coherence]") {
  struct Write {
    const char* setup;
    const char* read;
    const char* write;
    const char* expected;
  };
  const Write writes[] = {
      {"SET k 1", "GET k", "DEL k", "(nil)"},
      {"SET k 1", "GET k", "UNLINK k", "(nil)"},
      {"SET k 1", "GET k", "INCR k", "2"},
      {"SET k 1", "GET k", "APPEND k 0", "10"},
      {"SET k 1", "GET k", "GETSET k 2", "2"},
      {"SET k 1", "GET k", "GETDEL k", "(nil)"},
      {"SET k 1", "GET k", "MSET a 1 k 2", "2"},
      {"SET k 1", "GET k", "RENAME k j", "(nil)"},
      {"MSET k 1 j 2", "GET k", "RENAME j k", "2"},
      {"MSET k 1 j 2", "GET k", "COPY j k REPLACE", "2"},
      {"SET k 1", "GET k", "MOVE k 5", "(nil)"},
      {"SET k 1", "GET k", "EXPIRE k -1", "(nil)"},
      {"SET k 1", "GET k", "FLUSHDB", "(nil)"},
      {"SET k 1", "GET k", "FLUSHALL", "(nil)"},
      {"SET k 1", "GET k", "SWAPDB 0 7", "(nil)"},
      {"RPUSH k a b", "LRANGE k 0 -1", "RPOPLPUSH k j", "[a]"},
      {"RPUSH k a b", "LRANGE k 0 -1", "BLPOP k 0", "[b]"},
      {"RPUSH j b", "LLEN k", "BLMOVE j k LEFT LEFT 0", "1"},
      {"RPUSH k 2 1", "LRANGE k 0 -1", "SORT k STORE k", "[1 2]"},
      {"SADD k 1 2", "SCARD k", "SINTERSTORE k k nothing", "0"},
      {"ZADD k 1 a", "ZRANGE k 0 -1", "ZUNIONSTORE k 1 nothing", "[]"},
      {"GEOADD j 1 1 a", "ZCARD k", "GEORADIUS j 1 1 9 km STORE k", "1"},
      {"XADD k 1-1 f v", "EXISTS k", "DEL k", "0"},
  };
  Stack stack;
  Client direct = stack.redis.client();
  std::vector<Client> clients = clients_of(stack.proxy, 4);
  for (const Write& w : writes) {
    INFO(w.write);
    clients[0]("FLUSHALL");
    clients[0](w.setup);
    for (int i = 0; i < 2; ++i) {
      for (Client& client : clients) CHECK(client(w.read) != w.expected);
    }
    clients[3](w.write);
    for (Client& client : clients) CHECK(client(w.read) == w.expected);
  }
}

TEST_CASE("what a script or a function changed is seen once it is answered", "[coherence]") {
  Stack stack;
  std::vector<Client> clients = clients_of(stack.proxy, 4);
  clients[0]({"FUNCTION", "LOAD",
              "#!lua name=lib\nredis.register_function('put', function(keys, args) return "
              "redis.call('SET', args[1], args[2]) end)"});
  for (int i = 0; i < 300; ++i) {
    const std::string value = std::to_string(i);
    const std::vector<Args> writes = {
        {"EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", "k", value},
        {"EVAL", "return redis.call('SET', 'k', ARGV[1])", "0", value + "u"},
        {"FCALL", "put", "0", "k", value + "f"},
    };
    for (const Args& write : writes) {
      for (Client& client : clients) client("GET k");
      REQUIRE(clients[static_cast<size_t>(i) % 4](write) == "OK");
      const std::string expected = write[0] == "FCALL" ? value + "f"
                                   : write[2] == "0"   ? value + "u"
                                                       : value;
      for (Client& client : clients) REQUIRE(client("GET k") == expected);
    }
  }
}

TEST_CASE("a pipeline sees its own writes and never goes back, misses and hits mixed",
          "[coherence]") {
  Stack stack;
  stack.redis.client()("SET b hit");
  RawClient client(stack.proxy.port());
  for (int i = 0; i < 3; ++i) client.ask("GET b");
  for (int i = 0; i < 500; ++i) {
    const std::string value = std::to_string(i);
    client.send(encode({"GET", "k"}) + encode({"SET", "k", value}) + encode({"GET", "k"}) +
                encode({"GET", "miss:" + value}) + encode({"GET", "b"}) + encode({"GET", "k"}));
    client.read_reply();
    REQUIRE(client.read_reply() == "+OK\r\n");
    REQUIRE(client.read_reply() == bulk(value));
    REQUIRE(client.read_reply() == "$-1\r\n");
    REQUIRE(client.read_reply() == bulk("hit"));
    REQUIRE(client.read_reply() == bulk(value));
  }
}

TEST_CASE("who has seen a write sees every write before it, from upstream or from L1",
          "[coherence]") {
  // Somebody around the proxy writes b, then a. A pipeline reads a, then b: the new a with the old
  // b would be going back in time. a is always a miss or nearly so, b mostly a hit.
  Stack stack;
  stack.redis.client()("MSET a 0 b 0");
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    RawClient direct(stack.redis.port());
    for (int i = 1; !stop; ++i) {
      const std::string value = std::to_string(i);
      direct.send(encode({"SET", "b", value}) + encode({"SET", "a", value}));
      direct.read_reply();
      direct.read_reply();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  const std::string order = GENERATE(as<std::string>{}, "one by one", "pipelined", "MGET");
  RawClient client(stack.proxy.port());
  int went_back = 0;
  for (int i = 0; i < 4000; ++i) {
    int a = 0, b = 0;
    if (order == "one by one") {
      a = number_in(client.ask("GET a"));
      b = number_in(client.ask("GET b"));
    } else if (order == "pipelined") {
      client.send(encode({"GET", "a"}) + encode({"GET", "b"}));
      a = number_in(client.read_reply());
      b = number_in(client.read_reply());
    } else {
      a = number_in(client.ask("GET a"));
      const std::string both = client.ask("MGET b a");
      b = number_in(both.substr(4));
    }
    if (b < a) ++went_back;
  }
  stop = true;
  writer.join();
  INFO(order);
  CHECK(went_back == 0);
  CHECK(stack.proxy.count("l1_hits") > 0);
}

TEST_CASE("a write by a second proxy or around both is seen soon, and nothing older after it",
          "[coherence]") {
  Stack stack;
  Proxy second(stack.redis.port());
  Client writers[] = {stack.proxy.client(), second.client(), stack.redis.client()};
  std::vector<Client> readers = clients_of(stack.proxy, 3);
  for (Client& reader : clients_of(second, 3)) readers.push_back(std::move(reader));
  for (int i = 0; i < 300; ++i) {
    const std::string value = std::to_string(i);
    writers[i % 3]({"SET", "k", value});
    for (Client& reader : readers) {
      REQUIRE(wait_until([&] { return reader("GET k") == value; }));
      REQUIRE(reader("GET k") == value);
    }
  }
}

TEST_CASE("after the link was lost nothing that was held before is answered", "[coherence]") {
  Stack stack;
  Client direct = stack.redis.client();
  Client client = stack.proxy.client();
  for (int round = 0; round < 10; ++round) {
    const std::string value = std::to_string(round);
    for (int i = 0; i < 50; ++i) client({"GET", "k" + std::to_string(i)});
    direct("MULTI");  // cut and change in one step: no push can tell of it
    direct("CLIENT KILL TYPE normal SKIPME yes");
    for (int i = 0; i < 50; ++i) direct({"SET", "k" + std::to_string(i), value});
    direct("EXEC");
    CHECK(wait_until([&] { return client("GET k0") == value; }));
    for (int i = 0; i < 50; ++i) CHECK(client({"GET", "k" + std::to_string(i)}) == value);
  }
  CHECK(stack.proxy.count("upstream_reconnects") > 0);
}

TEST_CASE("a server that forgets its tracking table is noticed", "[coherence]") {
  Stack stack({}, {"--tracking-table-max-keys", "10"});
  Client direct = stack.redis.client();
  Client client = stack.proxy.client();
  for (int i = 0; i < 200; ++i) client({"GET", "k" + std::to_string(i)});
  for (int i = 0; i < 200; ++i) direct({"SET", "k" + std::to_string(i), "new"});
  for (int i = 0; i < 200; ++i) {
    const std::string key = "k" + std::to_string(i);
    REQUIRE(wait_until([&] { return client({"GET", key}) == "new"; }));
  }
}

TEST_CASE("NEARCACHE FLUSH drops what is held, and INSPECT tells", "[coherence]") {
  Stack stack;
  stack.redis.client()("SET k v");
  Client client = stack.proxy.client();
  REQUIRE(wait_until([&] {
    const uint64_t hits = stack.proxy.count("l1_hits");
    client("GET k");
    return stack.proxy.count("l1_hits") > hits;
  }));
  const std::string held = client("NEARCACHE INSPECT k");
  CHECK(client("NEARCACHE FLUSH") == "[proxies 1 acknowledged 1]");
  CHECK(wait_until([&] { return client("NEARCACHE INSPECT k") != held; }));
  const uint64_t misses = stack.proxy.count("l1_misses");
  CHECK(client("GET k") == "v");
  CHECK(stack.proxy.count("l1_misses") > misses);
  CHECK(client("NEARCACHE HELP").find("INSPECT") != std::string::npos);
  CHECK(client("NEARCACHE STATS").find("l1_hits") != std::string::npos);
  CHECK(client("NEARCACHE NOPE").find("(error) ERR") == 0);
}

TEST_CASE("with L1 off everything goes upstream", "[coherence]") {
  Stack stack({"--set", "l1.enabled=false"});
  stack.redis.client()("SET k v");
  Client client = stack.proxy.client();
  for (int i = 0; i < 20; ++i) CHECK(client("GET k") == "v");
  CHECK(stack.redis.calls("get") == 20);
  CHECK(stack.proxy.count("l1_hits") == 0);
}
