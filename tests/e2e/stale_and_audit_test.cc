// Two ways to trade or to check staleness: serve_stale, which answers from L1 for a bounded time
// while the upstream is unreachable, and the online audit, which reads hits again and compares.
#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;

namespace {

bool is_error(const std::string& reply) { return reply.rfind("(error)", 0) == 0; }

/// A proxy that may serve keys under s: for a minute, under brief: for a moment after the upstream
/// is gone, and no others; clients on both workers.
struct StaleScene {
  explicit StaleScene(const std::string& mode = "resp3") {
    write_file(dir.path() + "/n.toml",
               "[[rule]]\nkeys = \"s:*\"\nserve_stale = \"1m\"\n"
               "[[rule]]\nkeys = \"brief:*\"\nserve_stale = \"800ms\"\n");
    proxy = std::make_unique<Proxy>(
        redis.port(), std::vector<std::string>{
                          "-c", dir.path() + "/n.toml", "--set", "coherence.mode=" + mode, "--set",
                          "upstream.reconnect_max=50ms", "--set", "upstream.connect_timeout=60ms"});
    REQUIRE(wait_until([&] { return proxy->info("coherence_mode") == mode; }));
    clients = clients_of(*proxy, 4);
  }
  void hold(const std::string& key) {
    for (Client& client : clients) {
      REQUIRE(becomes_hit(*proxy, client, "GET " + key));
      REQUIRE(client("GET " + key) == "v");
    }
  }
  /// All clients know that the upstream is gone.
  void lose_upstream() {
    redis.kill();
    for (Client& client : clients) {
      REQUIRE(wait_until([&] { return is_error(client("GET none")); }));
    }
  }

  TempDir dir;
  RedisServer redis;
  Client direct = redis.client();
  std::unique_ptr<Proxy> proxy;
  std::vector<Client> clients;
};

}  // namespace

TEST_CASE("with the upstream gone what a rule allows is served on, and nothing else", "[stale]") {
  const std::string mode = GENERATE(as<std::string>{}, "resp3", "redirect", "publish", "ttl");
  INFO(mode);
  StaleScene scene(mode);
  scene.direct("MSET s:1 v s:2 v plain v");
  for (const char* key : {"s:1", "s:2", "plain"}) scene.hold(key);
  scene.lose_upstream();
  const uint64_t before = scene.proxy->count("stale_served");
  for (Client& client : scene.clients) {
    CHECK(client("GET s:1") == "v");
    CHECK(client("MGET s:1 s:2") == "[v v]");
    CHECK(is_error(client("GET plain")));
    CHECK(is_error(client("MGET s:1 plain")));
    CHECK(is_error(client("GET s:never-read")));
    CHECK(is_error(client("MGET s:1 s:never-read")));
    CHECK(is_error(client("SET other v")));
  }
  CHECK(scene.proxy->count("stale_served") == before + 3 * scene.clients.size());
}

TEST_CASE("what is served stale ends with its bound", "[stale]") {
  StaleScene scene;
  scene.direct("MSET brief:1 v s:1 v");
  for (const char* key : {"brief:1", "s:1"}) scene.hold(key);
  scene.lose_upstream();
  for (Client& client : scene.clients) {
    CHECK(wait_until([&] { return is_error(client("GET brief:1")); }));
    CHECK(is_error(client("MGET s:1 brief:1")));
    CHECK(client("GET s:1") == "v");
  }
}

TEST_CASE("what is served stale ends with its key's own time", "[stale]") {
  StaleScene scene;
  scene.direct("SET s:mortal v PX 1500");
  scene.direct("SET s:1 v");
  scene.hold("s:1");
  scene.hold("s:mortal");
  scene.lose_upstream();
  for (Client& client : scene.clients) {
    CHECK(wait_until([&] { return is_error(client("GET s:mortal")); }));
    CHECK(client("GET s:1") == "v");
  }
}

TEST_CASE("what users drop on purpose is not served stale", "[stale]") {
  StaleScene scene;
  scene.direct("MSET s:a v s:b v s:c v s:p1 v s:p2 v s:written v");
  const std::vector<std::string> keys = {"s:a", "s:b", "s:c", "s:p1", "s:p2", "s:written"};
  for (const std::string& key : keys) scene.hold(key);
  scene.lose_upstream();
  const auto gone = [&](const std::string& key) {
    for (Client& client : scene.clients)
      if (!is_error(client("GET " + key))) return false;
    return true;
  };
  const auto served = [&](const std::string& key) {
    for (Client& client : scene.clients)
      if (client("GET " + key) != "v") return false;
    return true;
  };
  for (const std::string& key : keys) CHECK(served(key));
  scene.clients[0]("NEARCACHE INVALIDATE s:a");
  CHECK(gone("s:a"));
  scene.clients[1]("NEARCACHE INVALIDATE s:b LOCAL");
  CHECK(gone("s:b"));
  scene.clients[2]("NEARCACHE PATTERN s:p*");
  CHECK(gone("s:p1"));
  CHECK(gone("s:p2"));
  CHECK(is_error(scene.clients[3]("SET s:written new")));
  CHECK(served("s:c"));
  const std::string flush = GENERATE(as<std::string>{}, "FLUSH", "FLUSH LOCAL");
  scene.clients[0]("NEARCACHE " + flush);
  CHECK(gone("s:c"));
}

TEST_CASE("what was served stale ends when the upstream is back", "[stale]") {
  StaleScene scene;
  scene.direct("SET s:1 v");
  for (int round = 0; round < 3; ++round) {
    scene.hold("s:1");
    scene.lose_upstream();
    for (Client& client : scene.clients) CHECK(client("GET s:1") == "v");
    scene.redis.start();  // empty
    for (Client& client : scene.clients) {
      CHECK(wait_until([&] { return client("GET s:1") == "(nil)"; }));
      for (int i = 0; i < 20; ++i) CHECK(client("GET s:1") == "(nil)");
    }
    scene.redis.client()("SET s:1 v");
    for (Client& client : scene.clients)
      CHECK(wait_until([&] { return client("GET s:1") == "v"; }));
  }
}

TEST_CASE("an upstream that hangs is unreachable too, and what it said meanwhile is believed",
          "[stale]") {
  StaleScene scene;
  scene.direct("SET s:1 v");
  scene.hold("s:1");
  scene.redis.freeze();
  const bool served = wait_until([&] {
    const bool all = scene.clients[0]("GET s:1") == "v" && scene.clients[1]("GET s:1") == "v";
    return !all || scene.proxy->count("stale_served") > 0;
  });
  const uint64_t stale = scene.proxy->count("stale_served");
  scene.redis.thaw();
  CHECK(served);
  CHECK(stale > 0);
  scene.redis.client()("SET s:1 new");
  for (Client& client : scene.clients) {
    CHECK(wait_until([&] { return client("GET s:1") == "new"; }));
    for (int i = 0; i < 20; ++i) CHECK(client("GET s:1") == "new");
  }
}

TEST_CASE("without serve_stale nothing is served when the upstream is gone", "[stale]") {
  Stack stack;
  stack.redis.client()("SET k v");
  std::vector<Client> clients = clients_of(stack.proxy, 4);
  for (Client& client : clients) REQUIRE(becomes_hit(stack.proxy, client, "GET k"));
  stack.redis.kill();
  for (Client& client : clients) CHECK(wait_until([&] { return is_error(client("GET k")); }));
  CHECK(stack.proxy.count("stale_served") == 0);
}

TEST_CASE("under load from through and around, every hit audited, none is stale", "[audit]") {
  const std::string mode = GENERATE(as<std::string>{}, "resp3", "redirect", "publish", "keyspace");
  INFO(mode);
  RedisServer redis({"--notify-keyspace-events", mode == "keyspace" ? "KA" : ""});
  const std::vector<std::string> options = {"--set", "coherence.mode=" + mode, "--set",
                                            "coherence.audit=1/1"};
  Proxy first(redis.port(), options), second(redis.port(), options);
  for (Proxy* proxy : {&first, &second})
    REQUIRE(wait_until([&] { return proxy->info("coherence_mode") == mode; }));
  // Around the proxies only where somebody tells of it.
  const std::vector<uint16_t> doors = {first.port(), second.port(),
                                       mode == "publish" ? first.port() : redis.port()};
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (size_t door = 0; door < doors.size(); ++door) {
    writers.emplace_back([&, door] {
      Client client(doors[door]);
      for (int i = 0; !stop; ++i) {
        const std::string n = std::to_string(i % 7), value = std::to_string(i);
        switch (i % 9) {
          case 0: client({"SET", "k" + n, value}); break;
          case 1: client({"DEL", "k" + n}); break;
          case 2: client({"SADD", "set", value, "m" + n}); break;
          case 3: client({"SREM", "set", std::to_string(i - 20)}); break;
          case 4: client({"HSET", "hash", "f" + std::to_string(i % 100), value}); break;
          case 5: client({"HDEL", "hash", "f" + n}); break;
          case 6: client({"ZADD", "zset", value, "m" + n}); break;
          case 7:
            client({"EVAL", "redis.call('SET', KEYS[1], ARGV[1]); return 1", "1", "k" + n, value});
            break;
          default: client({"RPUSH", "list", value}), client({"LTRIM", "list", "-5", "-1"}); break;
        }
        std::this_thread::sleep_for(5ms);
      }
    });
  }
  const char* reads[] = {"GET k1",       "GET k2",           "MGET k1 k2 k3 k4", "SMEMBERS set",
                         "HGETALL hash", "HKEYS hash",       "HVALS hash",       "LRANGE list 0 -1",
                         "SCARD set",    "ZRANGE zset 0 -1", "HGET hash f1",     "EXISTS k5"};
  std::vector<std::thread> readers;
  for (const Proxy* proxy : {&first, &second}) {
    for (int i = 0; i < 2; ++i)
      readers.emplace_back([&, proxy] {
        Client client = proxy->client();
        while (!stop)
          for (const char* read : reads) client(read);
      });
  }
  const bool enough = wait_until([&] {
    return first.count("audit_checked") > 1'000 && second.count("audit_checked") > 1'000;
  });
  stop = true;
  for (std::thread& thread : writers) thread.join();
  for (std::thread& thread : readers) thread.join();
  INFO(first.count("audit_checked") << " and " << second.count("audit_checked") << " audited");
  CHECK(enough);
  for (Proxy* proxy : {&first, &second}) {
    CHECK(proxy->count("audit_stale") == 0);
    CHECK(proxy->count("audit_stale_ms_max") == 0);
  }
}

TEST_CASE("a set or hash whose order Redis changed is not taken for stale", "[audit]") {
  // A table that has grown is moved over bit by bit, by reads too: the order changes without a
  // write, and so without a word to anybody.
  Stack stack({"--set", "coherence.audit=1/1", "--threads", "1"}, {"--activerehashing", "no"});
  Client direct = stack.redis.client(), client = stack.proxy.client();
  for (int i = 0; i < 1025; ++i) {
    direct({"SADD", "set", "m" + std::to_string(i)});
    direct({"HSET", "hash", "f" + std::to_string(i), "v"});
  }
  const char* const reads[] = {"SMEMBERS set", "HGETALL hash", "HKEYS hash", "HVALS hash"};
  for (const char* read : reads) REQUIRE(becomes_hit(stack.proxy, client, read));
  const std::string set = client("SMEMBERS set"), hash = client("HGETALL hash");
  for (int i = 0; i < 200; ++i) {
    direct("SISMEMBER set m1");
    direct("HGET hash f1");
  }
  REQUIRE(direct("SMEMBERS set") != set);
  REQUIRE(direct("HGETALL hash") != hash);
  const uint64_t checked = stack.proxy.count("audit_checked");
  for (const char* read : reads) client(read);
  CHECK(wait_until([&] { return stack.proxy.count("audit_checked") >= checked + 4; }));
  CHECK(stack.proxy.count("audit_stale") == 0);
}

TEST_CASE("a stale hit is found, counted and logged with what it was", "[audit]") {
  Stack stack({"--set", "coherence.mode=ttl", "--set", "coherence.audit=1/1", "--max-staleness",
               "1m", "--threads", "1"});
  REQUIRE(wait_until([&] { return stack.proxy.info("coherence_mode") == "ttl"; }));
  Client direct = stack.redis.client(), client = stack.proxy.client();
  direct("SET k old");
  direct("SADD set a b");
  direct("HSET hash f old");
  for (const char* read : {"GET k", "SMEMBERS set", "HGETALL hash"})
    REQUIRE(becomes_hit(stack.proxy, client, read));
  CHECK(stack.proxy.count("audit_stale") == 0);
  direct("SET k new");
  REQUIRE(client("GET k") == "old");
  CHECK(wait_until([&] { return stack.proxy.count("audit_stale") == 1; }));
  direct("SADD set c");
  client("SMEMBERS set");
  CHECK(wait_until([&] { return stack.proxy.count("audit_stale") == 2; }));
  direct("HSET hash f new");
  client("HGETALL hash");
  CHECK(wait_until([&] { return stack.proxy.count("audit_stale") == 3; }));
  CHECK(stack.proxy.count("audit_stale_ms_max") > 0);
  const std::string log = stack.proxy.log();
  CHECK(log.find("audit: a stale hit of \"k\"") != std::string::npos);
  CHECK(log.find("filled by get over the ttl lane of db 0") != std::string::npos);
}

TEST_CASE("one in N hits is audited, and none without being asked", "[audit]") {
  const std::string audit = GENERATE(as<std::string>{}, "0", "1/10");
  Stack stack({"--set", "coherence.audit=" + audit, "--threads", "1", "--max-staleness", "1m"});
  Client client = stack.proxy.client();
  REQUIRE(becomes_hit(stack.proxy, client, "GET k"));
  const uint64_t hits = stack.proxy.count("l1_hits");
  for (int i = 0; i < 500; ++i) client("GET k");
  const uint64_t served = stack.proxy.count("l1_hits") - hits;
  const uint64_t expected = audit == "0" ? 0 : served / 10;
  CHECK(wait_until([&] {
    const uint64_t checked = stack.proxy.count("audit_checked");
    return checked >= expected && checked <= expected + (audit == "0" ? 0 : 1);
  }));
}
