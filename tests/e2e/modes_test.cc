// The ways of learning of others' writes: which one is taken where, that no client notices the
// choice, and that each holds what it promises when writes come from elsewhere and links fail.
#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "harness/forwarder.h"
#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;
using Way = Forwarder::Way;

namespace {

bool is_error(const std::string& reply) { return reply.rfind("(error)", 0) == 0; }

bool comes_to(const Proxy& proxy, const std::string& mode) {
  return wait_until([&] { return proxy.info("coherence_mode") == mode; });
}

std::vector<std::string> in_mode(const std::string& mode, std::vector<std::string> more = {}) {
  more.insert(more.end(), {"--set", "coherence.mode=" + mode});
  return more;
}

/// What the server needs so that this mode can be had.
std::vector<std::string> server_for(const std::string& mode) {
  if (mode != "keyspace") return {};
  return {"--notify-keyspace-events", "KA"};
}

std::vector<std::string> without(std::initializer_list<std::string> commands) {
  std::vector<std::string> options;
  for (const std::string& command : commands)
    options.insert(options.end(), {"--rename-command", command, ""});
  return options;
}

std::string url_of(const std::string& user, const RedisServer& redis) {
  return "redis://" + user + ":p@127.0.0.1:" + std::to_string(redis.port());
}

/// Commands of every kind, from the proxy's first moment on: none may say that a mode was tried.
void nobody_sees_an_error(const Proxy& proxy) {
  std::vector<Client> clients = clients_of(proxy, 4);
  for (int i = 0; i < 40; ++i) {
    const std::string key = "k" + std::to_string(i % 4);
    for (Client& client : clients) {
      CHECK(client({"SET", key, std::to_string(i)}) == "OK");
      CHECK_FALSE(is_error(client({"GET", key})));
      CHECK_FALSE(is_error(client({"MGET", key, "other"})));
      CHECK(client("MULTI") == "OK");
      CHECK(client({"INCR", key}) == "QUEUED");
      CHECK_FALSE(is_error(client("EXEC")));
      CHECK_FALSE(is_error(client({"EVAL", "return redis.call('GET', KEYS[1])", "1", key})));
      CHECK_FALSE(is_error(client("HGETALL h")));
    }
  }
}

/// Two proxies in one mode, ready, and clients on both workers of each.
struct Pair {
  explicit Pair(const std::string& mode, std::vector<std::string> options = {})
      : redis(server_for(mode)),
        first(redis.port(), in_mode(mode, options)),
        second(redis.port(), in_mode(mode, options)),
        direct(redis.client()) {
    REQUIRE(comes_to(first, mode));
    REQUIRE(comes_to(second, mode));
    writer = clients_of(first, 4);
    readers = clients_of(second, 4);
  }
  void fill(const std::string& read) {
    for (Client& reader : readers) REQUIRE(becomes_hit(second, reader, read));
  }
  /// All readers get it, and nothing else after it.
  void seen_by_readers(const std::string& read, const std::string& expected) {
    INFO(read);
    for (Client& reader : readers) {
      REQUIRE(wait_until([&] { return reader(read) == expected; }));
      for (int i = 0; i < 10; ++i) REQUIRE(reader(read) == expected);
    }
  }

  RedisServer redis;
  Proxy first, second;
  Client direct;
  std::vector<Client> writer, readers;
};

const std::vector<std::string> kAllModes = {"resp3", "redirect", "publish", "keyspace"};

}  // namespace

TEST_CASE("auto takes pushes in band where the server has them", "[modes]") {
  Stack stack;
  CHECK(comes_to(stack.proxy, "resp3"));
  CHECK(stack.proxy.log().find("coherence mode resp3") != std::string::npos);
}

TEST_CASE("where CLIENT is renamed away auto ends in publish, and no client sees an error",
          "[modes]") {
  Stack stack({}, without({"CLIENT"}));
  nobody_sees_an_error(stack.proxy);
  REQUIRE(comes_to(stack.proxy, "publish"));
  nobody_sees_an_error(stack.proxy);
  Client client = stack.proxy.client();
  CHECK(becomes_hit(stack.proxy, client, "GET k0"));
  const std::string log = stack.proxy.log();
  CHECK(log.find("coherence mode publish") != std::string::npos);
  CHECK(log.find("refuses CLIENT TRACKING") != std::string::npos);
}

TEST_CASE("with a user who may not use CLIENT auto ends in publish, and no client sees an error",
          "[modes]") {
  RedisServer redis;
  redis.client()("ACL SETUSER limited on >p ~* &* +@all -client");
  Proxy proxy(redis.port(), {"--upstream", url_of("limited", redis)});
  nobody_sees_an_error(proxy);
  REQUIRE(comes_to(proxy, "publish"));
  nobody_sees_an_error(proxy);
  Client client = proxy.client();
  CHECK(becomes_hit(proxy, client, "GET k0"));
}

TEST_CASE("where HELLO is renamed away auto ends in redirect, and no client sees an error",
          "[modes]") {
  Stack stack({}, without({"HELLO"}));
  nobody_sees_an_error(stack.proxy);
  REQUIRE(comes_to(stack.proxy, "redirect"));
  nobody_sees_an_error(stack.proxy);
  Client client = stack.proxy.client();
  CHECK(becomes_hit(stack.proxy, client, "GET k0"));
  stack.redis.client()("SET k0 around");
  CHECK(wait_until([&] { return client("GET k0") == "around"; }));
}

TEST_CASE("where the bus is forbidden too auto ends in ttl, and the log says what that means",
          "[modes]") {
  const std::string forbidden = GENERATE(as<std::string>{}, "PUBLISH", "SUBSCRIBE", "PSUBSCRIBE");
  INFO(forbidden);
  Stack stack({"--set", "l1.ttl=300ms"}, without({"CLIENT", forbidden}));
  nobody_sees_an_error(stack.proxy);
  REQUIRE(comes_to(stack.proxy, "ttl"));
  CHECK(stack.proxy.info("bus") == "refused");
  nobody_sees_an_error(stack.proxy);
  CHECK(stack.proxy.log().find("NOT SEEN until l1.ttl") != std::string::npos);
  std::vector<Client> clients = clients_of(stack.proxy, 4);
  for (int i = 0; i < 200; ++i) {  // writes through the process are seen at once all the same
    const std::string value = std::to_string(i);
    REQUIRE(clients[static_cast<size_t>(i) % 4]({"SET", "own", value}) == "OK");
    for (Client& client : clients) REQUIRE(client("GET own") == value);
  }
  stack.redis.client()("SET own around");
  CHECK(wait_until([&] { return clients[0]("GET own") == "around"; }));
}

TEST_CASE("a user without the rights for the bus's channels ends in ttl", "[modes]") {
  RedisServer redis;
  redis.client()("ACL SETUSER limited on >p ~* resetchannels &else:* +@all -client");
  Proxy proxy(redis.port(), {"--upstream", url_of("limited", redis)});
  CHECK(comes_to(proxy, "ttl"));
  nobody_sees_an_error(proxy);
}

TEST_CASE("a mode that was asked for and cannot be had passes everything through", "[modes]") {
  const std::string mode = GENERATE(as<std::string>{}, "resp3", "redirect");
  INFO(mode);
  Stack stack(in_mode(mode), without({"CLIENT"}));
  nobody_sees_an_error(stack.proxy);
  CHECK(wait_until([&] { return stack.proxy.log().find("passed through") != std::string::npos; }));
  CHECK(stack.proxy.info("coherence_mode") == "off");
  CHECK(stack.proxy.count("l1_hits") == 0);
}

TEST_CASE("keyspace events are used while they are on, and missed by nobody when they go",
          "[modes]") {
  Stack stack({}, without({"CLIENT"}));
  Client direct = stack.redis.client();
  Client client = stack.proxy.client();
  REQUIRE(comes_to(stack.proxy, "publish"));
  const std::string incomplete = GENERATE(as<std::string>{}, "", "EA", "Kg$lshzxe");
  for (int round = 0; round < 2; ++round) {
    direct("CONFIG SET notify-keyspace-events KA");
    REQUIRE(comes_to(stack.proxy, "keyspace"));
    direct("SET k old");
    REQUIRE(becomes_hit(stack.proxy, client, "GET k"));
    direct("SET k new");
    CHECK(wait_until([&] { return client("GET k") == "new"; }));
    direct({"CONFIG", "SET", "notify-keyspace-events", incomplete});
    CHECK(comes_to(stack.proxy, "publish"));
  }
}

TEST_CASE("the mode is chosen again when the server is another after its restart", "[modes]") {
  Stack stack({"--set", "upstream.reconnect_max=50ms"});
  REQUIRE(comes_to(stack.proxy, "resp3"));
  const std::vector<std::pair<std::string, std::vector<std::string>>> lives = {
      {"redirect", without({"HELLO"})},          {"publish", without({"CLIENT"})},
      {"ttl", without({"CLIENT", "PUBLISH"})},   {"resp3", {}},
      {"publish", without({"HELLO", "CLIENT"})}, {"resp3", {}},
  };
  for (const auto& [mode, options] : lives) {
    INFO(mode);
    stack.redis.kill();
    stack.redis.start(options);
    REQUIRE(comes_to(stack.proxy, mode));
    Client client = stack.proxy.client();
    CHECK(becomes_hit(stack.proxy, client, "GET k"));
  }
}

TEST_CASE("the mode is chosen again when a user's rights have changed by the next connection",
          "[modes]") {
  RedisServer redis;
  Client direct = redis.client();
  direct("ACL SETUSER limited on >p ~* &* +@all");
  Proxy proxy(redis.port(), {"--upstream", url_of("limited", redis)});
  REQUIRE(comes_to(proxy, "resp3"));
  direct("ACL SETUSER limited -client");
  direct("CLIENT KILL USER limited");
  CHECK(comes_to(proxy, "publish"));
  direct("ACL SETUSER limited +client");
  direct("CLIENT KILL USER limited");
  CHECK(comes_to(proxy, "resp3"));
}

TEST_CASE("a write through one proxy is soon seen through the other, in every mode", "[modes]") {
  struct Write {
    std::vector<Args> setup;
    std::string read;
    std::vector<Args> write;
    std::string expected;
  };
  const Args eval{"EVAL", "return redis.call('SET', KEYS[1], 'new')", "1", "k3"};
  const Args undeclared{"EVAL", "return redis.call('SET', 'k4', 'new')", "0"};
  const std::vector<Write> writes = {
      {{{"SET", "k1", "old"}}, "GET k1", {{"SET", "k1", "new"}}, "new"},
      {{{"SET", "k2", "old"}}, "GET k2", {{"MULTI"}, {"SET", "k2", "new"}, {"EXEC"}}, "new"},
      {{{"SET", "k3", "old"}}, "GET k3", {eval}, "new"},
      {{{"SET", "k4", "old"}}, "GET k4", {undeclared}, "new"},
      {{{"RPUSH", "l1", "a", "b"}}, "LRANGE l1 0 -1", {{"BLPOP", "l1", "0"}}, "[b]"},
      {{{"RPUSH", "l2", "a"}}, "LRANGE l2 0 -1", {{"LPUSH", "l2", "b"}}, "[b a]"},
      {{{"SET", "k5", "old"}}, "GET k5", {{"RENAME", "k5", "j5"}}, "(nil)"},
      {{{"SET", "k6", "old"}, {"SET", "j6", "new"}},
       "GET k6",
       {{"COPY", "j6", "k6", "REPLACE"}},
       "new"},
      {{{"SET", "k7", "old"}}, "GET k7", {{"MOVE", "k7", "5"}}, "(nil)"},
      {{{"SET", "k8", "old"}}, "GET k8", {{"FLUSHDB"}}, "(nil)"},
      {{{"SET", "k9", "old"}}, "GET k9", {{"FLUSHALL"}}, "(nil)"},
      {{{"SET", "k10", "old"}}, "GET k10", {{"MULTI"}, {"FLUSHALL"}, {"EXEC"}}, "(nil)"},
      {{{"SET", "k11", "old"}}, "GET k11", {{"SWAPDB", "0", "9"}}, "(nil)"},
  };
  const std::string mode = GENERATE(from_range(kAllModes));
  INFO(mode);
  Pair pair(mode);
  size_t turn = 0;
  for (const Write& w : writes) {
    Client& writer = pair.writer[turn++ % pair.writer.size()];
    for (const Args& args : w.setup) REQUIRE_FALSE(is_error(writer(args)));
    const std::string before = writer(w.read);
    pair.seen_by_readers(w.read, before);
    pair.fill(w.read);
    for (const Args& args : w.write) REQUIRE_FALSE(is_error(writer(args)));
    pair.seen_by_readers(w.read, w.expected);
  }
}

TEST_CASE("who waits in BLPOP at one proxy is served by the other, and both see what is left",
          "[modes]") {
  const std::string mode = GENERATE(from_range(kAllModes));
  INFO(mode);
  Pair pair(mode);
  pair.fill("LLEN q");
  RawClient waiting(pair.second.port());
  waiting.send(encode({"BLPOP", "q", "0"}));
  REQUIRE(wait_until(
      [&] { return info_field(pair.direct("INFO clients"), "blocked_clients") == "1"; }));
  CHECK(pair.writer[0]("RPUSH q a b") == "2");
  CHECK(waiting.read_reply() == "*2\r\n$1\r\nq\r\n$1\r\na\r\n");
  pair.seen_by_readers("LLEN q", "1");
}

TEST_CASE("a write in another database is seen there", "[modes]") {
  const std::string mode = GENERATE(from_range(kAllModes));
  INFO(mode);
  Pair pair(mode);
  for (Client& client : pair.writer) REQUIRE(client("SELECT 3") == "OK");
  for (Client& client : pair.readers) REQUIRE(client("SELECT 3") == "OK");
  pair.writer[0]("SET k old");
  pair.seen_by_readers("GET k", "old");
  pair.fill("GET k");
  pair.writer[1]("SET k new");
  pair.seen_by_readers("GET k", "new");
  CHECK(pair.second.client()("GET k") == "(nil)");
}

TEST_CASE("a write around both proxies is seen where the server tells of it", "[modes]") {
  const std::string mode = GENERATE(as<std::string>{}, "resp3", "redirect", "keyspace");
  INFO(mode);
  Pair pair(mode);
  for (int i = 0; i < 20; ++i) {
    pair.fill("GET k");
    const std::string value = std::to_string(i);
    pair.direct({"SET", "k", value});
    pair.seen_by_readers("GET k", value);
  }
  if (mode == "keyspace") return;  // no event tells of FLUSHALL
  pair.fill("GET k");
  pair.direct("FLUSHALL");
  pair.seen_by_readers("GET k", "(nil)");
}

TEST_CASE("what another proxy wrote is dropped by its name, and nothing else is",
          "[modes][mechanism]") {
  Pair pair("publish");
  pair.writer[0]("MSET a old b kept");
  pair.seen_by_readers("GET a", "old");
  REQUIRE(wait_until([&] { return pair.second.info("bus_peers") == "1"; }));
  pair.fill("GET a");
  pair.fill("GET b");
  const auto holds_b = [&] {
    const std::string lines = pair.readers[0]("NEARCACHE INSPECT b");
    return lines.find("worker=0") != std::string::npos &&
           lines.find("worker=1") != std::string::npos && lines.find("dead") == std::string::npos;
  };
  REQUIRE(holds_b());
  const std::string gaps = pair.second.info("bus_gaps");
  pair.writer[1]("SET a new");
  pair.seen_by_readers("GET a", "new");
  CHECK(holds_b());
  CHECK(pair.second.info("bus_gaps") == gaps);
}

TEST_CASE("a proxy whose announcements go nowhere is noticed, and all is dropped",
          "[modes][mechanism]") {
  // The writer's user may not PUBLISH, so what it writes is told by the process's own link, which
  // hangs: the write is acknowledged, nobody hears of it, and no connection closes.
  RedisServer redis;
  Client direct = redis.client();
  direct("ACL SETUSER mute on >p ~* &* +@all -publish");
  Forwarder wire(redis.port());
  Proxy writing(wire.port(), in_mode("publish", {"--set", "upstream.timeout=1m"}));
  Proxy reading(redis.port(), in_mode("publish"));
  REQUIRE(comes_to(writing, "publish"));
  REQUIRE(comes_to(reading, "publish"));
  Client writer = writing.client();
  REQUIRE(writer("AUTH mute p") == "OK");
  REQUIRE(writer("SET k old") == "OK");
  REQUIRE(wait_until([&] { return reading.info("bus_peers") == "1"; }));
  std::vector<Client> readers = clients_of(reading, 4);
  for (Client& reader : readers) {
    REQUIRE(wait_until([&] { return reader("GET k") == "old"; }));
    REQUIRE(becomes_hit(reading, reader, "GET k"));
  }
  const uint64_t gaps = reading.count("bus_gaps");
  wire.hold(wire.carrier_of("$7\r\nPUBLISH\r\n$30\r\nnearcached.to."), Way::to_server);
  for (Client& reader : readers) REQUIRE(reader("GET k") == "old");
  REQUIRE(writer("SET k new") == "OK");
  for (Client& reader : readers) {
    REQUIRE(wait_until([&] { return reader("GET k") == "new"; }));
    CHECK(reader("GET k") == "new");
  }
  CHECK(reading.count("bus_gaps") > gaps);
  CHECK(reading.info("epoch_reasons").find("fell silent") != std::string::npos);
}

// Fails when Bus::tick() sends heartbeats only while the bus is up.
TEST_CASE("a proxy that hears nothing is still heard", "[modes][mechanism]") {
  // Once its subscription is closed it waits for a minute before it tries again.
  Stack stack(in_mode(
      "publish", {"--set", "upstream.reconnect_min=1m", "--set", "upstream.reconnect_max=1m"}));
  REQUIRE(comes_to(stack.proxy, "publish"));
  Client direct = stack.redis.client();
  REQUIRE(direct("CLIENT KILL TYPE pubsub") == "1");
  REQUIRE(wait_until([&] { return stack.proxy.info("bus") == "down"; }));
  RawClient other(stack.redis.port());
  REQUIRE(other.ask("SUBSCRIBE nearcached:0").rfind("*3", 0) == 0);
  for (int heartbeats = 0; heartbeats < 3; ++heartbeats)
    REQUIRE(other.read_reply().find("nearcached:0") != std::string::npos);
}

TEST_CASE("who has read a write is never served what it replaced, however late the bus",
          "[modes][mechanism]") {
  // Somebody around the proxy writes a, then b. The reader fetches b from upstream while the
  // invalidation of a is still on its way: it must not be told the old a after the new b.
  const std::string mode = GENERATE(as<std::string>{}, "redirect", "keyspace");
  INFO(mode);
  RedisServer redis(server_for(mode));
  Client direct = redis.client();
  Forwarder wire(redis.port());
  Proxy proxy(wire.port(), in_mode(mode, {"--max-staleness", "1m", "--set", "upstream.timeout=1m",
                                          "--threads", "1"}));
  REQUIRE(comes_to(proxy, mode));
  Client reader = proxy.client();
  direct("SET a old");
  REQUIRE(wait_until([&] { return reader("GET a") == "old"; }));
  REQUIRE(becomes_hit(proxy, reader, "GET a"));
  const Forwarder::Link lane = wire.carrier_of(encode({"GET", "a"}));
  wire.hold(wire.carrier_of("__redis__:invalidate"), Way::to_client);
  direct("SET a new");
  direct("SET b new");
  REQUIRE(reader("GET b") == "new");
  // The lane proves itself meanwhile, twice, so that only the bus can say that it is behind.
  const auto roles = [&] { return wire.count(lane, Way::to_server, encode({"ROLE"})); };
  const size_t before = roles();
  REQUIRE(wait_until([&] { return roles() >= before + 2; }));
  CHECK(reader("GET a") == "new");
}

TEST_CASE("a session that waits for the bus is served from L1 when it has caught up", "[modes]") {
  const std::string mode = GENERATE(as<std::string>{}, "redirect", "publish", "keyspace");
  INFO(mode);
  Stack stack(in_mode(mode), server_for(mode));
  REQUIRE(comes_to(stack.proxy, mode));
  Client client = stack.proxy.client();
  REQUIRE(becomes_hit(stack.proxy, client, "GET held"));
  int n = 0;
  CHECK(wait_until([&] {
    const uint64_t hits = stack.proxy.count("l1_hits"), parked = stack.proxy.count("hits_parked");
    client({"GET", "miss:" + std::to_string(++n)});
    client("GET held");
    return stack.proxy.count("hits_parked") > parked && stack.proxy.count("l1_hits") > hits;
  }));
}

TEST_CASE("who has seen a write sees every write before it, over any kind of bus", "[modes]") {
  // As over resp3 (coherence_test.cc), with what arrives over the bus 3 ms late.
  const std::string mode = GENERATE(as<std::string>{}, "redirect", "keyspace");
  INFO(mode);
  RedisServer redis(server_for(mode));
  Forwarder wire(redis.port());
  Proxy proxy(wire.port(), in_mode(mode));
  REQUIRE(comes_to(proxy, mode));
  wire.delay(wire.carrier_of("__redis__:invalidate"), Way::to_client, 3ms);
  redis.client()("MSET a 0 b 0");
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    Client direct = redis.client();
    for (int i = 1; !stop; ++i) {
      direct({"SET", "b", std::to_string(i)});
      direct({"SET", "a", std::to_string(i)});
      std::this_thread::sleep_for(20ms);
    }
  });
  Client client = proxy.client();
  int went_back = 0;
  for (int i = 0; i < 2000; ++i) {
    const int a = std::stoi(client("GET a"));
    const int b = std::stoi(client("GET b"));
    if (b < a) ++went_back;
  }
  stop = true;
  writer.join();
  CHECK(went_back == 0);
  CHECK(proxy.count("l1_hits") > 0);
}

TEST_CASE("when the subscriber is killed nothing from before is answered afterwards", "[modes]") {
  const std::string mode = GENERATE(as<std::string>{}, "redirect", "publish", "keyspace");
  INFO(mode);
  Pair pair(mode);
  for (int round = 0; round < 5; ++round) {
    const std::string value = std::to_string(round);
    pair.fill("GET k");
    pair.direct("MULTI");  // cut and change in one step: nothing can tell of it
    pair.direct("CLIENT KILL TYPE pubsub");
    pair.direct({"SET", "k", value});
    pair.direct("EXEC");
    pair.seen_by_readers("GET k", value);
  }
  REQUIRE(comes_to(pair.second, mode));
  pair.fill("GET k");
  pair.writer[0]("SET k last");  // the new subscriber hears of what follows
  pair.seen_by_readers("GET k", "last");
  CHECK(pair.second.info("epoch_reasons").find("bus") != std::string::npos);
}

TEST_CASE("when the data connections are killed nothing from before is answered afterwards",
          "[modes]") {
  const std::string mode = GENERATE(from_range(kAllModes));
  INFO(mode);
  Pair pair(mode);
  for (int round = 0; round < 5; ++round) {
    const std::string value = std::to_string(round);
    pair.fill("GET k");
    pair.direct("MULTI");
    pair.direct("CLIENT KILL TYPE normal SKIPME yes");
    pair.direct({"SET", "k", value});
    pair.direct("EXEC");
    pair.seen_by_readers("GET k", value);
  }
  REQUIRE(comes_to(pair.second, mode));
  pair.fill("GET k");
  CHECK(wait_until([&] { return pair.writer[0]("SET k last") == "OK"; }));
  pair.seen_by_readers("GET k", "last");
}

TEST_CASE("an invalidation link that hangs silently ends the hits", "[modes]") {
  const std::string mode = GENERATE(as<std::string>{}, "redirect", "publish", "keyspace");
  INFO(mode);
  RedisServer redis(server_for(mode));
  Forwarder wire(redis.port());
  Proxy proxy(wire.port(),
              in_mode(mode, {"--max-staleness", "300ms", "--set", "upstream.timeout=1m"}));
  REQUIRE(comes_to(proxy, mode));
  Client direct = redis.client();
  std::vector<Client> clients = clients_of(proxy, 4);
  direct("SET k old");
  for (Client& client : clients) REQUIRE(becomes_hit(proxy, client, "GET k"));
  wire.hold(wire.carrier_of("__redis__:invalidate"), Way::to_client);
  direct("SET k new");
  for (Client& client : clients) CHECK(wait_until([&] { return client("GET k") == "new"; }));
}

TEST_CASE("what is no message of ours on the bus is counted and does no harm", "[modes]") {
  Pair pair("publish");
  Client& direct = pair.direct;
  pair.fill("GET k");
  const std::string garbage[] = {"", "NCB1", "hello", std::string(100'000, 'N'),
                                 std::string("NCB1\x00\x00", 6) + std::string(16, '\xFF') +
                                     std::string("\xFF\xFF\xFF\xFF", 4)};
  for (const std::string& message : garbage) direct({"PUBLISH", "nearcached:0", message});
  CHECK(wait_until([&] { return pair.second.count("bus_bad_messages") == std::size(garbage); }));
  pair.writer[0]("SET k new");
  pair.seen_by_readers("GET k", "new");
  CHECK(pair.second.info("bus") == "up");
}

TEST_CASE("a proxy that has gone is forgotten, and what it might have said is not", "[modes]") {
  RedisServer redis;
  Proxy staying(redis.port(), in_mode("publish"));
  auto leaving = std::make_unique<Proxy>(redis.port(), in_mode("publish"));
  REQUIRE(comes_to(*leaving, "publish"));
  REQUIRE(wait_until([&] { return staying.info("bus_peers") == "1"; }));
  leaving.reset();
  CHECK(wait_until([&] { return staying.info("bus_peers") == "0"; }));
  Client client = staying.client();
  CHECK(becomes_hit(staying, client, "GET k"));
}

TEST_CASE("in redirect invalidations reach everybody while the server is flushed again and again",
          "[modes]") {
  RedisServer redis;
  const std::vector<std::string> options = {"--set", "coherence.mode=redirect"};
  Proxy one(redis.port(), options), other(redis.port(), options);
  for (Proxy* proxy : {&one, &other}) REQUIRE(comes_to(*proxy, "redirect"));
  Client direct = redis.client(), asking = one.client();
  for (int i = 0; i < 100; ++i) {
    direct("FLUSHALL");
    const std::string answer = asking("NEARCACHE INVALIDATE k");
    INFO("after flush " << i << ": " << answer);
    REQUIRE(answer.find("error") == std::string::npos);
  }
  // A flush is a new subscriber for each proxy: who was away in that moment is not counted.
  CHECK(
      wait_until([&] { return asking("NEARCACHE INVALIDATE k") == "[proxies 2 acknowledged 2]"; }));
  Client reader = other.client();
  direct("SET k 1");
  CHECK(becomes_hit(other, reader, "GET k"));
  direct("FLUSHALL");
  CHECK(wait_until([&] { return reader("GET k") == "(nil)"; }));
}
