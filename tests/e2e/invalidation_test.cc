// What users drop on purpose: by key, by pattern, all of it, later, again and again, and because an
// application says so over pub/sub. The proxies run in mode ttl, in which nothing else tells them
// that somebody wrote around them: what is new after a command is new because of it.
#include <signal.h>

#include <catch2/catch.hpp>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "harness/forwarder.h"
#include "harness/monitor.h"
#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;
using Way = Forwarder::Way;

namespace {

const std::vector<std::string> kBlind = {"--set", "coherence.mode=ttl", "--max-staleness", "1m"};

std::vector<std::string> blind(std::vector<std::string> more) {
  more.insert(more.end(), kBlind.begin(), kBlind.end());
  return more;
}

/// A proxy with clients on both its workers.
struct Seat {
  Seat(const RedisServer& redis, const std::vector<std::string>& options)
      : proxy(redis.port(), blind(options)) {
    REQUIRE(wait_until(
        [&] { return proxy.info("bus") == "up" && proxy.info("coherence_mode") == "ttl"; }));
    clients = clients_of(proxy, 4);
  }
  /// What all clients get; "different" if it is not the same.
  std::string get(const std::string& key) {
    const std::string value = clients[0]({"GET", key});
    for (Client& client : clients)
      if (client({"GET", key}) != value) return "different";
    return value;
  }

  Proxy proxy;
  std::vector<Client> clients;
};

/// Several proxies of one server.
struct Fleet {
  explicit Fleet(size_t size, std::vector<std::string> options = {}) : options_(options) {
    start(size);
  }
  void start(size_t size) {
    for (size_t i = 0; i < size; ++i) seats.push_back(std::make_unique<Seat>(redis, options_));
  }
  Seat& operator[](size_t i) { return *seats[i]; }
  /// Every worker of every proxy holds "old" of a key that is "new".
  void make_stale(const std::string& key) {
    direct({"SET", key, "old"});
    for (const auto& seat : seats) {
      for (Client& client : seat->clients) {
        REQUIRE(wait_until([&] {
          const uint64_t hits = seat->proxy.count("l1_hits");
          REQUIRE(client({"GET", key}) == "old");
          return seat->proxy.count("l1_hits") > hits;
        }));
      }
    }
    direct({"SET", key, "new"});
    for (const auto& seat : seats) REQUIRE(seat->get(key) == "old");
  }
  uint64_t sum(const std::string& field) const {
    uint64_t total = 0;
    for (const auto& seat : seats) total += seat->proxy.count(field);
    return total;
  }
  uint64_t server_ms() {
    const std::string time = direct("TIME");  // [seconds microseconds]
    const size_t space = time.find(' ');
    return std::stoull(time.substr(1, space - 1)) * 1000 +
           std::stoull(time.substr(space + 1)) / 1000;
  }

  RedisServer redis;
  Client direct = redis.client();
  std::vector<std::unique_ptr<Seat>> seats;

 private:
  std::vector<std::string> options_;
};

/// Listens on the bus and counts how often a due schedule was made known.
class FiredOnBus {
 public:
  explicit FiredOnBus(Fleet& fleet) : direct_(fleet.redis.client()), bus_(fleet.redis.port()) {
    bus_.ask("SUBSCRIBE nearcached:0");
  }
  size_t count(const std::string& what) {
    const std::string mark = "mark-" + std::to_string(++marks_);
    direct_({"PUBLISH", "nearcached:0", mark});
    while (true) {
      const std::string message = bus_.read_reply();
      if (message.find(mark) != std::string::npos) return count_;
      const size_t head = message.find("NCB1");  // then the kind and the cause
      constexpr char kScheduled = 4;
      if (head != std::string::npos && message[head + 5] == kScheduled &&
          message.find(what, head) != std::string::npos)
        ++count_;
    }
  }

 private:
  Client direct_;
  RawClient bus_;
  size_t count_ = 0;
  int marks_ = 0;
};

bool is_error(const std::string& reply) { return reply.rfind("(error)", 0) == 0; }

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("INVALIDATE drops the keys from every worker of every proxy before it answers",
          "[invalidation]") {
  Fleet fleet(3);
  const std::vector<std::string> keys = {
      "k", std::string("a\0b", 3), "c\r\nd\r\n$1\r\n", std::string(1, '\xFF'), " ", "LOCAL"};
  for (const std::string& key : keys) {
    INFO(key);
    fleet.make_stale(key);
    CHECK(fleet[1].clients[2]({"NEARCACHE", "INVALIDATE", key}) == "[proxies 3 acknowledged 3]");
    for (size_t i = 0; i < 3; ++i) CHECK(fleet[i].get(key) == "new");
  }
}

TEST_CASE("INVALIDATE takes many keys and leaves the others", "[invalidation]") {
  Fleet fleet(2);
  for (const char* key : {"a", "b", "c", "kept"}) fleet.make_stale(key);
  CHECK(fleet[0].clients[0]("NEARCACHE INVALIDATE a b c none") == "[proxies 2 acknowledged 2]");
  for (const char* key : {"a", "b", "c"})
    for (size_t i = 0; i < 2; ++i) CHECK(fleet[i].get(key) == "new");
  for (size_t i = 0; i < 2; ++i) CHECK(fleet[i].get("kept") == "old");
}

TEST_CASE("LOCAL touches this proxy alone, in every command", "[invalidation]") {
  const std::string command =
      GENERATE(as<std::string>{}, "INVALIDATE k LOCAL", "PATTERN k* LOCAL", "FLUSH LOCAL");
  INFO(command);
  Fleet fleet(2);
  fleet.make_stale("k");
  CHECK(fleet[0].clients[0]("NEARCACHE " + command) == "[proxies 1 acknowledged 1]");
  CHECK(fleet[0].get("k") == "new");
  CHECK(fleet[1].get("k") == "old");
}

TEST_CASE("FLUSH drops everything everywhere", "[invalidation]") {
  Fleet fleet(3);
  for (const char* key : {"a", "b"}) fleet.make_stale(key);
  CHECK(fleet[2].clients[1]("NEARCACHE FLUSH") == "[proxies 3 acknowledged 3]");
  for (const char* key : {"a", "b"})
    for (size_t i = 0; i < 3; ++i) CHECK(fleet[i].get(key) == "new");
  CHECK(fleet.direct("DBSIZE") == "2");
}

TEST_CASE("UPSTREAM deletes the keys first, and says how many there were", "[invalidation]") {
  Fleet fleet(3);
  fleet.make_stale("a");
  fleet.make_stale("b");
  CHECK(fleet[0].clients[0]("NEARCACHE INVALIDATE a b none UPSTREAM") ==
        "[proxies 3 acknowledged 3 deleted 2]");
  CHECK(fleet.direct("EXISTS a b") == "0");
  for (const char* key : {"a", "b"})
    for (size_t i = 0; i < 3; ++i) CHECK(fleet[i].get(key) == "(nil)");
  fleet.make_stale("c");
  CHECK(fleet[0].clients[0]("NEARCACHE INVALIDATE c LOCAL UPSTREAM") ==
        "[proxies 1 acknowledged 1 deleted 1]");
  CHECK(fleet[0].get("c") == "(nil)");
  CHECK(fleet[1].get("c") == "old");
}

TEST_CASE("a proxy that has stopped is told of, and does what it was told when it goes on",
          "[invalidation]") {
  Fleet fleet(3, {"--set", "coherence.ack_timeout=300ms"});
  fleet.make_stale("k");
  fleet[2].proxy.process().signal(SIGSTOP);
  const std::string answer = fleet[0].clients[0]("NEARCACHE INVALIDATE k");
  fleet[2].proxy.process().signal(SIGCONT);
  CHECK(answer == "[proxies 3 acknowledged 2]");
  for (size_t i = 0; i < 2; ++i) CHECK(fleet[i].get("k") == "new");
  CHECK(wait_until([&] { return fleet[2].get("k") == "new"; }));
}

TEST_CASE("without a bus a command is done here, and says that it was not elsewhere",
          "[invalidation]") {
  const std::string command = GENERATE(as<std::string>{}, "INVALIDATE k", "PATTERN k*", "FLUSH");
  INFO(command);
  RedisServer redis({"--rename-command", "PUBLISH", ""});
  Proxy proxy(redis.port(), kBlind);
  Client direct = redis.client();
  std::vector<Client> clients = clients_of(proxy, 4);
  REQUIRE(wait_until([&] { return proxy.info("coherence_mode") == "ttl"; }));
  direct("SET k old");
  for (Client& client : clients) {
    REQUIRE(becomes_hit(proxy, client, "GET k"));
    REQUIRE(client("GET k") == "old");
  }
  direct("SET k new");
  const std::string answer = clients[0]("NEARCACHE " + command);
  CHECK(contains(answer, "(error) ERR dropped here"));
  for (Client& client : clients) CHECK(client("GET k") == "new");
}

TEST_CASE("a user drops what it could read, delete or administer, and nothing more",
          "[invalidation]") {
  Fleet fleet(1);
  fleet.direct("ACL SETUSER reader on >p ~own:* +@read -scan +@connection -client|kill");
  fleet.make_stale("own:1");
  fleet.make_stale("other:1");
  Client reader = fleet[0].proxy.client();
  REQUIRE(reader("AUTH reader p") == "OK");
  for (const std::string command :
       {"INVALIDATE other:1", "INVALIDATE own:1 other:1", "INVALIDATE own:1 UPSTREAM",
        "INVALIDATE other:1 LOCAL", "PATTERN *", "PATTERN own:* LOCAL", "PATTERN own:* UPSTREAM",
        "FLUSH", "FLUSH LOCAL", "SCHEDULES", "UNSCHEDULE 1", "JOBS",
        "SCHEDULE INVALIDATE other:1 AFTER 1", "SCHEDULE PATTERN own:* AFTER 1",
        "SCHEDULE INVALIDATE own:1 AFTER 1 UPSTREAM"}) {
    INFO(command);
    CHECK(contains(reader("NEARCACHE " + command), "NOPERM"));
  }
  CHECK(fleet.direct("EXISTS own:1") == "1");
  CHECK(fleet[0].get("other:1") == "old");
  fleet.make_stale("own:2");
  CHECK(reader("NEARCACHE INVALIDATE own:2") == "[proxies 1 acknowledged 1]");
  CHECK(fleet[0].get("own:2") == "new");
}

TEST_CASE("what is not a command of NEARCACHE changes nothing and is explained", "[invalidation]") {
  Fleet fleet(1);
  fleet.make_stale("k");
  for (const std::string command :
       {"INVALIDATE", "PATTERN", "PATTERN k extra", "PATTERN k LOCAL UPSTREAM extra", "FLUSH all",
        "FLUSH UPSTREAM", "SCHEDULE INVALIDATE k AFTER", "SCHEDULE INVALIDATE k AFTER x",
        "SCHEDULE INVALIDATE k AFTER -1", "SCHEDULE INVALIDATE k SOON 1", "SCHEDULE KEY k AFTER 1",
        "SCHEDULE INVALIDATE k AFTER 1 EVERY 0", "SCHEDULE INVALIDATE k AFTER 1 EVERY",
        "SCHEDULE INVALIDATE k AT 99999999999999999999", "UNSCHEDULE", "SCHEDULES all"}) {
    INFO(command);
    CHECK(is_error(fleet[0].clients[0]("NEARCACHE " + command)));
  }
  CHECK(fleet[0].get("k") == "old");
  CHECK(fleet[0].clients[0]("NEARCACHE SCHEDULES") == "");
  CHECK(fleet[0].clients[0]("NEARCACHE UNSCHEDULE none") == "0");
}

TEST_CASE("a pattern counts at once in every proxy, by the rules of a Redis glob",
          "[invalidation][mechanism]") {
  Fleet fleet(3);
  for (const char* key : {"user:1", "user:22", "user:a", "order:1"}) fleet.make_stale(key);
  CHECK(fleet[0].clients[0]("NEARCACHE PATTERN user:[0-9]*") == "[proxies 3 acknowledged 3]");
  for (size_t i = 0; i < 3; ++i) {
    CHECK(fleet[i].get("user:1") == "new");
    CHECK(fleet[i].get("user:22") == "new");
    CHECK(fleet[i].get("user:a") == "old");
    CHECK(fleet[i].get("order:1") == "old");
  }
}

TEST_CASE("of 20,000 matching items in both workers none is answered after the pattern",
          "[invalidation]") {
  constexpr int kItems = 20'000;
  // Every first read is to be kept.
  Fleet fleet(1, {"--set", "l1.scan_resistance=false"});
  const auto set_all = [&](const std::string& value) {
    RawClient direct(fleet.redis.port());
    std::string pipeline;
    for (int i = 0; i < kItems; ++i)
      pipeline += encode({"SET", "item:" + std::to_string(i), value});
    direct.send(pipeline);
    for (int i = 0; i < kItems; ++i) direct.read_reply();
  };
  const auto read_all = [&](RawClient& client, const std::string& expected) {
    int others = 0;
    for (int i = 0; i < kItems; i += 200) {
      std::string pipeline;
      for (int j = i; j < i + 200; ++j) pipeline += encode({"GET", "item:" + std::to_string(j)});
      client.send(pipeline);
      for (int j = 0; j < 200; ++j) others += client.read_reply() != expected;
    }
    return others;
  };
  const std::string kOld = "$3\r\nold\r\n", kNew = "$3\r\nnew\r\n";
  std::vector<RawClient> clients;
  for (int i = 0; i < 4; ++i) clients.emplace_back(fleet[0].proxy.port());
  set_all("old");
  for (RawClient& client : clients) REQUIRE(read_all(client, kOld) == 0);
  REQUIRE(wait_until([&] { return fleet[0].proxy.count("l1_items") >= 2 * kItems; }));
  set_all("new");
  for (RawClient& client : clients) REQUIRE(read_all(client, kOld) == 0);
  SECTION("while they are read") {
    CHECK(fleet[0].clients[0]("NEARCACHE PATTERN item:*") == "[proxies 1 acknowledged 1]");
    for (RawClient& client : clients) CHECK(read_all(client, kNew) == 0);
  }
  SECTION("while nobody reads: they are worked off, every one") {
    CHECK(fleet[0].clients[0]("NEARCACHE PATTERN item:*") == "[proxies 1 acknowledged 1]");
    CHECK(wait_until([&] { return fleet[0].proxy.count("pattern_items_dropped") == 2 * kItems; }));
    CHECK(wait_until([&] { return fleet[0].proxy.count("l1_items") < 100; }));
    for (RawClient& client : clients) CHECK(read_all(client, kNew) == 0);
  }
}

TEST_CASE("a read that was under way when its pattern was accepted is not kept", "[invalidation]") {
  RedisServer redis;
  Forwarder wire(redis.port());
  Proxy proxy(wire.port(), blind({"--set", "upstream.timeout=1m", "--threads", "1"}));
  REQUIRE(wait_until(
      [&] { return proxy.info("bus") == "up" && proxy.info("coherence_mode") == "ttl"; }));
  Client direct = redis.client();
  const bool mget = GENERATE(false, true);
  const Args read = mget ? Args{"MGET", "user:1"} : Args{"GET", "user:1"};
  const std::string head = mget ? "*1\r\n" : "";
  direct("SET user:1 old");
  RawClient reader(proxy.port());
  reader.ask("GET seat");
  const Forwarder::Link lane = wire.carrier_of(encode({"GET", "seat"}));
  wire.hold(lane, Way::to_client);
  reader.send(encode(read));
  REQUIRE(wait_until([&] { return wire.count(lane, Way::to_client, "$3\r\nold\r\n") == 1; }));
  direct("SET user:1 new");
  // Its lane is held, so the word is given to another proxy.
  Proxy other(redis.port(), kBlind);
  REQUIRE(wait_until([&] { return other.info("bus") == "up"; }));
  CHECK(other.client()("NEARCACHE PATTERN user:*") == "[proxies 2 acknowledged 2]");
  wire.release(lane, Way::to_client);
  CHECK(reader.read_reply() == head + "$3\r\nold\r\n");
  CHECK(reader.ask("GET user:1") == "$3\r\nnew\r\n");
}

TEST_CASE("more patterns than the limit are right all the same, and counted", "[invalidation]") {
  Fleet fleet(1, {"--set", "limits.patterns=1"});
  constexpr int kPatterns = 50;
  for (int i = 0; i < kPatterns; ++i) fleet.make_stale("k" + std::to_string(i));
  RawClient client(fleet[0].proxy.port());
  std::string pipeline;
  for (int i = 0; i < kPatterns; ++i)
    pipeline += encode({"NEARCACHE", "PATTERN", "k" + std::to_string(i)});
  client.send(pipeline);
  for (int i = 0; i < kPatterns; ++i)
    CHECK(client.read_reply() == "*4\r\n$7\r\nproxies\r\n:1\r\n$12\r\nacknowledged\r\n:1\r\n");
  for (int i = 0; i < kPatterns; ++i) CHECK(fleet[0].get("k" + std::to_string(i)) == "new");
  CHECK(fleet[0].proxy.count("limit_patterns_hit") > 0);
  CHECK(fleet[0].proxy.count("invalidations_pattern") == kPatterns);
  // Worked off, it gives its place to the next.
  CHECK(wait_until([&] {
    const uint64_t before = fleet[0].proxy.count("limit_patterns_hit");
    fleet[0].clients[0]("NEARCACHE PATTERN none");
    return fleet[0].proxy.count("limit_patterns_hit") == before;
  }));
}

TEST_CASE("PATTERN UPSTREAM deletes what matches in the background, and JOBS tells how far",
          "[invalidation]") {
  Fleet fleet(2);
  RawClient direct(fleet.redis.port());
  constexpr int kItems = 5'000;
  std::string pipeline;
  for (int i = 0; i < kItems; ++i) pipeline += encode({"SET", "item:" + std::to_string(i), "v"});
  direct.send(pipeline);
  for (int i = 0; i < kItems; ++i) direct.read_reply();
  fleet.direct("SET kept v");
  fleet.make_stale("item:stale");
  CHECK(fleet[0].clients[0]("NEARCACHE PATTERN item:* UPSTREAM") ==
        "[proxies 2 acknowledged 2 job 1]");
  std::string line;
  CHECK(wait_until([&] {
    line = fleet[0].clients[1]("NEARCACHE JOBS");
    return contains(line, "state=done");
  }));
  INFO(line);
  CHECK(contains(line, "id=1 "));
  CHECK(contains(line, " db=0 "));
  CHECK(contains(line, " deleted=5001 "));
  CHECK(contains(line, " pattern=\"item:*\""));
  CHECK(fleet.direct("KEYS *") == "[kept]");
  for (size_t i = 0; i < 2; ++i) CHECK(fleet[i].get("item:stale") == "(nil)");
  CHECK(fleet[1].clients[0]("NEARCACHE JOBS") == "");
}

TEST_CASE("PATTERN UPSTREAM keeps to the database and the rights of who asked", "[invalidation]") {
  Fleet fleet(1);
  Client in_three = fleet.redis.client();
  in_three("SELECT 3");
  for (Client* client : {&fleet.direct, &in_three}) (*client)("MSET item:1 v item:2 v");
  Client client = fleet[0].proxy.client();
  REQUIRE(client("SELECT 3") == "OK");
  CHECK(contains(client("NEARCACHE PATTERN item:* UPSTREAM"), "job 1"));
  CHECK(wait_until([&] { return in_three("DBSIZE") == "0"; }));
  CHECK(fleet.direct("DBSIZE") == "2");

  fleet.direct("ACL SETUSER looker on >p ~* +@read +@connection");
  Client looker = fleet[0].proxy.client();
  REQUIRE(looker("AUTH looker p") == "OK");
  CHECK(contains(looker("NEARCACHE PATTERN item:* UPSTREAM"), "job 2"));
  CHECK(wait_until([&] {
    const std::string jobs = fleet[0].clients[0]("NEARCACHE JOBS");
    return contains(jobs, "id=2 state=failed") && contains(jobs, "NOPERM");
  }));
  CHECK(fleet.direct("DBSIZE") == "2");
}

TEST_CASE("a walk through the upstream goes on when its link was lost", "[invalidation]") {
  Fleet fleet(1);
  RawClient direct(fleet.redis.port());
  constexpr int kItems = 50'000;
  std::string pipeline;
  for (int i = 0; i < kItems; ++i) pipeline += encode({"SET", "item:" + std::to_string(i), "v"});
  direct.send(pipeline);
  for (int i = 0; i < kItems; ++i) direct.read_reply();
  REQUIRE(contains(fleet[0].clients[0]("NEARCACHE PATTERN item:* UPSTREAM"), "job 1"));
  for (int i = 0; i < 5; ++i) fleet.direct("CLIENT KILL TYPE normal SKIPME yes");
  CHECK(wait_until([&] { return fleet.direct("DBSIZE") == "0"; }));
  CHECK(wait_until(
      [&] { return contains(fleet[0].proxy.client()("NEARCACHE JOBS"), "state=done"); }));
}

TEST_CASE("what is scheduled fires when it is due, once for all proxies", "[invalidation]") {
  Fleet fleet(3);
  FiredOnBus bus(fleet);
  const bool at = GENERATE(false, true);
  const bool pattern = GENERATE(false, true);
  fleet.make_stale("due:1");
  const std::string when =
      at ? "AT " + std::to_string(fleet.server_ms() + 200) : std::string("AFTER 200");
  const std::string what = pattern ? "PATTERN due:*" : "INVALIDATE due:1";
  INFO(what << ' ' << when);
  const std::string id = fleet[0].clients[0]("NEARCACHE SCHEDULE " + what + ' ' + when);
  REQUIRE_FALSE(is_error(id));
  for (size_t i = 0; i < 3; ++i) CHECK(wait_until([&] { return fleet[i].get("due:1") == "new"; }));
  CHECK(wait_until([&] { return fleet[1].clients[0]("NEARCACHE SCHEDULES") == ""; }));
  CHECK(wait_until([&] { return fleet.sum("schedules_fired") == 1; }));
  CHECK(bus.count("due:") == 1);
  CHECK(fleet.sum("invalidations_scheduled") == 3);
  CHECK(wait_until([&] { return fleet.sum("schedules") == 0; }));
}

TEST_CASE("a due time that has passed fires at once", "[invalidation]") {
  Fleet fleet(1);
  fleet.make_stale("k");
  REQUIRE_FALSE(is_error(fleet[0].clients[0]("NEARCACHE SCHEDULE INVALIDATE k AT 1")));
  CHECK(wait_until([&] { return fleet[0].get("k") == "new"; }));
}

TEST_CASE("EVERY fires again and again, once each time, until it is taken back", "[invalidation]") {
  Fleet fleet(3);
  FiredOnBus bus(fleet);
  Monitor monitor(fleet.redis);
  const std::string id =
      fleet[0].clients[0]("NEARCACHE SCHEDULE INVALIDATE often AFTER 50 EVERY 50");
  REQUIRE_FALSE(is_error(id));
  CHECK(wait_until([&] { return fleet.sum("schedules_fired") >= 10; }));
  const std::string line = fleet[1].clients[0]("NEARCACHE SCHEDULES");
  CHECK(contains(line, "id=" + id + " kind=invalidate at="));
  CHECK(contains(line, " every=50 upstream=0 db=0 state=waiting what=\"often\""));
  CHECK(fleet[2].clients[0]("NEARCACHE UNSCHEDULE " + id) == "1");
  CHECK(fleet[2].clients[0]("NEARCACHE UNSCHEDULE " + id) == "0");
  CHECK(fleet[1].clients[0]("NEARCACHE SCHEDULES") == "");
  const size_t fired = bus.count("often");
  CHECK(wait_until([&] { return fleet.sum("schedules_fired") == fired; }));
  CHECK(wait_until([&] { return fleet.sum("invalidations_scheduled") == 3 * fired; }));
  // Each firing moved the record to another due time: none was fired for twice.
  std::set<std::string> records;
  size_t moves = 0;
  for (const std::string& command : monitor.take())
    if (contains(command, "\"HSET\" \"__nearcached:schedules\"")) {
      ++moves;
      records.insert(command);
    }
  CHECK(moves == fired + 1);
  CHECK(records.size() == moves);
}

TEST_CASE("a schedule with UPSTREAM deletes in the database it was made in", "[invalidation]") {
  Fleet fleet(3);
  Client in_three = fleet.redis.client();
  in_three("SELECT 3");
  for (Client* client : {&fleet.direct, &in_three}) (*client)("MSET gone:1 v gone:2 v kept v");
  Client client = fleet[0].proxy.client();
  REQUIRE(client("SELECT 3") == "OK");
  SECTION("a key") {
    REQUIRE_FALSE(is_error(client("NEARCACHE SCHEDULE INVALIDATE gone:1 AFTER 50 UPSTREAM")));
    CHECK(wait_until([&] { return in_three("EXISTS gone:1") == "0"; }));
    CHECK(in_three("DBSIZE") == "2");
  }
  SECTION("a pattern") {
    REQUIRE_FALSE(is_error(client("NEARCACHE SCHEDULE PATTERN gone:* AFTER 50 UPSTREAM")));
    CHECK(wait_until([&] { return in_three("EXISTS gone:1 gone:2") == "0"; }));
    CHECK(in_three("DBSIZE") == "1");
  }
  CHECK(wait_until([&] { return client("NEARCACHE SCHEDULES") == ""; }));
  CHECK(fleet.direct("EXISTS gone:1 gone:2 kept") == "3");
  CHECK(wait_until([&] { return fleet.sum("schedules_fired") == 1; }));
}

TEST_CASE("schedules outlive every proxy and fire once, due before or after the restart",
          "[invalidation]") {
  Fleet fleet(3);
  FiredOnBus bus(fleet);
  const bool meanwhile = GENERATE(false, true);
  INFO(meanwhile);
  const uint64_t due_ms = fleet.server_ms() + (meanwhile ? 300 : 4'000);
  const std::string id =
      fleet[0].clients[0]("NEARCACHE SCHEDULE INVALIDATE k AT " + std::to_string(due_ms));
  REQUIRE_FALSE(is_error(id));
  fleet.seats.clear();
  if (meanwhile) REQUIRE(wait_until([&] { return fleet.server_ms() > due_ms; }));
  fleet.start(3);
  CHECK(wait_until([&] { return fleet.sum("schedules_fired") == 1; }));
  CHECK(fleet[0].clients[0]("NEARCACHE SCHEDULES") == "");
  CHECK(bus.count("k") == 1);
}

TEST_CASE("a record among the schedules that is none is left alone", "[invalidation]") {
  Fleet fleet(2);
  fleet.direct("HSET __nearcached:schedules strange garbage");
  fleet.make_stale("k");
  REQUIRE_FALSE(is_error(fleet[0].clients[0]("NEARCACHE SCHEDULE INVALIDATE k AFTER 50")));
  CHECK(wait_until([&] { return fleet[1].get("k") == "new"; }));
  CHECK(fleet.direct("HGETALL __nearcached:schedules") == "[strange garbage]");
}

TEST_CASE("what applications publish drops the key or the pattern it names", "[invalidation]") {
  TempDir dir;
  write_file(dir.path() + "/n.toml",
             "[[subscribe]]\nchannel = \"products-changed\"\n"
             "[[subscribe]]\nchannel = \"sections changed\"\npayload = \"pattern\"\n");
  Fleet fleet(3, {"-c", dir.path() + "/n.toml"});
  const std::string binary("p\0\r\n", 4);
  for (const std::string& key :
       {std::string("p:1"), binary, std::string("s:1"), std::string("s:2"), std::string("kept")})
    fleet.make_stale(key);
  CHECK(fleet.direct("PUBLISH products-changed p:1") == "3");
  CHECK(fleet.direct({"PUBLISH", "products-changed", binary}) == "3");
  CHECK(fleet.direct({"PUBLISH", "sections changed", "s:*"}) == "3");
  CHECK(fleet.direct("PUBLISH other kept") == "0");
  for (size_t i = 0; i < 3; ++i) {
    for (const std::string& key :
         {std::string("p:1"), binary, std::string("s:1"), std::string("s:2")})
      CHECK(wait_until([&] { return fleet[i].get(key) == "new"; }));
    CHECK(fleet[i].get("kept") == "old");
    CHECK(fleet[i].proxy.count("invalidations_event") == 3);
  }
}

TEST_CASE("each invalidation is counted once, by its cause", "[invalidation]") {
  TempDir dir;
  write_file(dir.path() + "/n.toml", "[[subscribe]]\nchannel = \"changed\"\n");
  RedisServer redis;
  Proxy proxy(redis.port(), {"-c", dir.path() + "/n.toml", "--threads", "1"});
  REQUIRE(wait_until([&] { return proxy.info("bus") == "up"; }));
  REQUIRE(wait_until([&] { return proxy.info("coherence_mode") == "resp3"; }));
  Client direct = redis.client(), client = proxy.client();
  const std::vector<std::string> causes = {"write",     "push",  "bus",    "pattern",
                                           "scheduled", "event", "expiry", "epoch"};
  const auto counts = [&] {
    std::vector<uint64_t> all;
    for (const std::string& cause : causes) all.push_back(proxy.count("invalidations_" + cause));
    return all;
  };
  const auto moves = [&](const std::string& cause, uint64_t by, const auto& act) {
    INFO(cause << " by " << by);
    std::vector<uint64_t> expected = counts();
    for (size_t i = 0; i < causes.size(); ++i)
      if (causes[i] == cause) expected[i] += by;
    act();
    CHECK(wait_until([&] { return counts() == expected; }));
  };
  moves("write", 1, [&] { client("SET w 1"); });
  moves("write", 3, [&] { client("MSET a 1 b 2 c 3"); });
  moves("write", 0, [&] { client("GET p"); });
  moves("push", 1, [&] { direct("SET p 1"); });
  moves("push", 0, [&] { direct("SET p 2"); });  // the server has told once
  moves("bus", 2, [&] { client("NEARCACHE INVALIDATE a b"); });
  moves("bus", 1, [&] { client("NEARCACHE INVALIDATE a LOCAL"); });
  moves("bus", 1, [&] { client("NEARCACHE FLUSH"); });
  moves("bus", 1, [&] { client("NEARCACHE FLUSH LOCAL"); });
  moves("pattern", 1, [&] { client("NEARCACHE PATTERN x*"); });
  moves("pattern", 1, [&] { client("NEARCACHE PATTERN x* LOCAL"); });
  moves("scheduled", 1, [&] { client("NEARCACHE SCHEDULE INVALIDATE a AFTER 1"); });
  moves("event", 1, [&] { direct("PUBLISH changed a"); });
  const uint64_t epochs = proxy.count("invalidations_epoch");
  direct("CLIENT KILL TYPE normal SKIPME yes");
  CHECK(wait_until([&] { return proxy.count("invalidations_epoch") > epochs; }));
  CHECK(wait_until([&] { return contains(proxy.info("epoch_reasons"), "upstream link lost"); }));
}

TEST_CASE("an item whose time is over is counted as expired", "[invalidation]") {
  Stack stack({"--set", "l1.ttl=50ms", "--threads", "1"});
  Client client = stack.proxy.client();
  REQUIRE(wait_until([&] { return stack.proxy.info("coherence_mode") == "resp3"; }));
  stack.redis.client()("SET k v");
  client("GET k");
  CHECK(wait_until([&] { return stack.proxy.count("invalidations_expiry") == 1; }));
}
