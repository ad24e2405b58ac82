// A cluster of three shards looks like one Redis: connections with a state of their own.
#include <catch2/catch.hpp>
#include <string>
#include <thread>
#include <vector>

#include "harness/cluster.h"
#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

std::string message(const std::string& kind, const std::string& channel, const std::string& text) {
  return encode({kind, channel, text});
}

/// Waits until somebody is subscribed at that node, then publishes there.
void publish_at(const RedisCluster& cluster, RedisCluster::Node node, const Args& request) {
  const std::string counter = request[0] == "SPUBLISH" ? "SHARDNUMSUB" : "NUMSUB";
  Client direct = cluster.client(node);
  REQUIRE(wait_until([&] {
    return direct({"PUBSUB", counter, request[1]}) != "[" + request[1] + " 0]";
  }));
  direct(request);
}

}  // namespace

// Fails when a message is passed on once for each shard, or when the subscription is only known to
// one node and PUBLISH is not passed on by the cluster.
TEST_CASE("a subscriber gets each message once, whoever publishes it, and where",
          "[cluster][pubsub]") {
  ClusterStack stack;
  RawClient subscriber(stack.proxy.port()), pattern(stack.proxy.port());
  Client publisher = stack.proxy.client();
  REQUIRE(subscriber.ask("SUBSCRIBE c") == "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
  REQUIRE(pattern.ask("PSUBSCRIBE c*") == "*3\r\n$10\r\npsubscribe\r\n$2\r\nc*\r\n:1\r\n");
  publisher("PUBLISH c through");
  CHECK(subscriber.read_reply() == message("message", "c", "through"));
  CHECK(pattern.read_reply() == encode({"pmessage", "c*", "c", "through"}));
  for (const auto node : stack.cluster.primaries()) {
    const std::string text = "at" + std::to_string(node);
    stack.cluster.client(node)({"PUBLISH", "c", text});
    CHECK(subscriber.read_reply() == message("message", "c", text));
    CHECK(pattern.read_reply() == encode({"pmessage", "c*", "c", text}));
  }
  // Nothing twice: the next reply is the answer.
  CHECK(subscriber.ask("UNSUBSCRIBE c") == "*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n");
  CHECK(subscriber.ask("PING") == "+PONG\r\n");
}

// Fails when the proxy's PUBLISH stays on the node that it is sent to.
TEST_CASE("a direct client at any node hears what is published through the proxy",
          "[cluster][pubsub]") {
  ClusterStack stack;
  Client publisher = stack.proxy.client();
  for (RedisCluster::Node node = 0; node < stack.cluster.size(); ++node) {
    RawClient direct(stack.cluster.port(node));
    direct.ask("SUBSCRIBE d");
    publisher("PUBLISH d hello");
    CHECK(direct.read_reply() == message("message", "d", "hello"));
  }
}

// Fails when shard channels go to any node: SSUBSCRIBE answers MOVED there.
TEST_CASE("a shard channel works on whatever shard it is", "[cluster][pubsub]") {
  ClusterStack stack;
  Client publisher = stack.proxy.client();
  for (const auto node : stack.cluster.primaries()) {
    const std::string channel = stack.cluster.key_at(node, "c");
    RawClient subscriber(stack.proxy.port()), direct(stack.cluster.port(node));
    const std::string subscribed = "*3\r\n$10\r\nssubscribe\r\n$" + std::to_string(channel.size()) +
                                   "\r\n" + channel + "\r\n:1\r\n";
    REQUIRE(subscriber.ask({"SSUBSCRIBE", channel}) == subscribed);
    REQUIRE(direct.ask({"SSUBSCRIBE", channel}) == subscribed);
    CHECK(publisher({"SPUBLISH", channel, "through"}) == "2");
    CHECK(subscriber.read_reply() == message("smessage", channel, "through"));
    CHECK(direct.read_reply() == message("smessage", channel, "through"));
    publish_at(stack.cluster, node, {"SPUBLISH", channel, "direct"});
    CHECK(subscriber.read_reply() == message("smessage", channel, "direct"));
  }
}

// Fails when the waiting connection is to another node than its key's.
TEST_CASE("a blocking pop on any shard is woken by a push through the proxy", "[cluster][pinned]") {
  ClusterStack stack;
  Client pusher = stack.proxy.client();
  for (const auto node : stack.cluster.primaries()) {
    const std::string key = stack.cluster.key_at(node, "q");
    RawClient waiting(stack.proxy.port());
    waiting.send(encode({"BLPOP", key, "0"}));
    Client direct = stack.cluster.client(node);
    REQUIRE(
        wait_until([&] { return info_field(direct("INFO clients"), "blocked_clients") != "0"; }));
    CHECK(pusher({"RPUSH", key, "job"}) == "1");
    CHECK(waiting.read_reply() == encode({key, "job"}));
    // Its private connection is given back: the session goes on as any other, on any shard.
    for (const auto other : stack.cluster.primaries())
      CHECK(waiting.ask({"SET", stack.cluster.key_at(other), "v"}) == "+OK\r\n");
  }
}

// Fails when the private connection is not to the node of the first key; and a transaction must not
// be bound to a node before it has a key.
TEST_CASE("a transaction runs on the shard of its keys", "[cluster][pinned]") {
  ClusterStack stack;
  Client client = stack.proxy.client(), reader = stack.proxy.client();
  for (int round = 0; round < 3; ++round) {
    for (const auto node : stack.cluster.primaries()) {
      const std::string key = stack.cluster.key_at(node), value = std::to_string(round);
      reader({"GET", key});
      CHECK(client("MULTI") == "OK");
      CHECK(client("PING") == "QUEUED");
      CHECK(client({"SET", key, value}) == "QUEUED");
      CHECK(client({"GET", key}) == "QUEUED");
      CHECK(client("EXEC") == "[PONG OK " + value + "]");
      CHECK(reader({"GET", key}) == value);
    }
  }
  CHECK(client("MULTI") == "OK");
  CHECK(client("EXEC") == "[]");
  CHECK(client("MULTI") == "OK");
  CHECK(client("PING") == "QUEUED");
  CHECK(client("EXEC") == "[PONG]");
  CHECK(client("MULTI") == "OK");
  CHECK(client({"SET", stack.cluster.key_at(stack.cluster.primaries()[1]), "x"}) == "QUEUED");
  CHECK(client("DISCARD") == "OK");
  CHECK(reader({"GET", stack.cluster.key_at(stack.cluster.primaries()[1])}) == "2");
}

// Fails when the second key's node is not compared: the client would see MOVED, or, where both
// slots are on one node, an error that only EXEC gives.
TEST_CASE("a key of another slot in a transaction is an error at once, and discards it",
          "[cluster][pinned]") {
  ClusterStack stack;
  const auto primaries = stack.cluster.primaries();
  const std::string here = stack.cluster.key_at(primaries[0]);
  for (const std::string& elsewhere :
       {stack.cluster.key_at(primaries[1]), stack.cluster.key_at(primaries[0], "o", 1)}) {
    INFO(elsewhere);
    Client client = stack.proxy.client();
    CHECK(client("MULTI") == "OK");
    CHECK(client({"SET", here, "x"}) == "QUEUED");
    CHECK(client({"SET", elsewhere, "x"}).rfind("(error) CROSSSLOT", 0) == 0);
    CHECK(client({"SET", here, "y"}) == "QUEUED");
    CHECK(client("EXEC") == "(error) EXECABORT Transaction discarded because of previous errors.");
    CHECK(client({"EXISTS", here, elsewhere}) == "0");
  }
}

// Fails when a watched key is read from memory, or WATCH and EXEC are on different connections.
TEST_CASE("a transaction whose watched key was changed, by anybody, on any shard, does not run",
          "[cluster][pinned]") {
  ClusterStack stack;
  for (const auto node : stack.cluster.primaries()) {
    const std::string key = stack.cluster.key_at(node);
    for (const bool around : {false, true}) {
      INFO((around ? "around" : "through"));
      Client client = stack.proxy.client();
      Client other = around ? stack.cluster.client(node) : stack.proxy.client();
      client({"SET", key, "1"});
      client({"GET", key});
      CHECK(client({"WATCH", key}) == "OK");
      other({"SET", key, "2"});
      CHECK(client({"GET", key}) == "2");
      other({"SET", key, "3"});
      CHECK(client("MULTI") == "OK");
      CHECK(client({"SET", key, "lost"}) == "QUEUED");
      CHECK(client("EXEC") == "(nil)");
      CHECK(client({"GET", key}) == "3");
    }
  }
}

// As above, with luck instead of a script.
TEST_CASE("optimistic increments on all shards at once lose none", "[cluster][pinned]") {
  ClusterStack stack;
  Args keys;
  for (const auto node : stack.cluster.primaries()) keys.push_back(stack.cluster.key_at(node, "n"));
  constexpr int kThreads = 4, kTimes = 25;
  std::vector<std::string> failures(kThreads);
  const auto increment = [&](size_t thread) {
    Client client = stack.proxy.client();
    for (int i = 0; i < kTimes; ++i) {
      for (const std::string& key : keys) {
        for (;;) {
          client({"WATCH", key});
          const std::string now = client({"GET", key});
          client("MULTI");
          client({"SET", key, std::to_string(now == "(nil)" ? 1 : std::stoi(now) + 1)});
          const std::string result = client("EXEC");
          if (result == "[OK]") break;
          if (result != "(nil)") failures[thread] = result;
          if (result != "(nil)") return;
        }
      }
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) threads.emplace_back(increment, i);
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) CHECK(failure.empty());
  Client client = stack.proxy.client();
  for (const std::string& key : keys)
    CHECK(client({"GET", key}) == std::to_string(kThreads * kTimes));
}

// Fails when SELECT is answered as in front of one Redis: the keys would be the same in both.
// Fails when EXEC answers as if it could be sent again as it is: what was queued is gone.
TEST_CASE("a transaction whose slot has moved is discarded as a whole, and EXEC says so",
          "[cluster][pinned]") {
  ClusterStack stack({"--set", "upstream.topology_refresh=1h"});
  RedisCluster& cluster = stack.cluster;
  Client client = stack.proxy.client();
  const bool queues_more = GENERATE(false, true);
  const RedisCluster::Node from = cluster.primaries().at(0), to = cluster.primaries().at(1);
  const unsigned slot = cluster.slots_of(from).at(0);
  const std::string one = cluster.key_in(slot, "one"), two = cluster.key_in(slot, "two");
  REQUIRE(client({"SET", two, "before"}) == "OK");
  REQUIRE(client("MULTI") == "OK");
  REQUIRE(client({"SET", one, "1"}) == "QUEUED");
  cluster.migrate_slots({slot}, from, to);
  if (queues_more) CHECK(client({"SET", two, "2"}).rfind("(error) TRYAGAIN", 0) == 0);
  CHECK(client("EXEC").rfind("(error) EXECABORT Transaction discarded", 0) == 0);
  CHECK(client({"EXISTS", one}) == "0");
  CHECK(client({"GET", two}) == "before");
  // Asked again it is where its keys are.
  REQUIRE(client("MULTI") == "OK");
  REQUIRE(client({"SET", one, "1"}) == "QUEUED");
  REQUIRE(client({"SET", two, "2"}) == "QUEUED");
  CHECK(client("EXEC") == "[OK OK]");
  CHECK(client({"MGET", one, two}) == "[1 2]");
}

TEST_CASE("there is one database, as in Redis Cluster", "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  Client direct = stack.cluster.client(stack.cluster.primaries()[0]);
  for (const std::string request : {"SELECT 0", "SELECT 1", "SELECT x", "SWAPDB 0 1", "MOVE k 1"}) {
    INFO(request);
    const std::string expected = direct(request);
    if (expected.rfind("(error) MOVED", 0) != 0) CHECK(client(request) == expected);
  }
  CHECK(client("SELECT 1") == "(error) ERR SELECT is not allowed in cluster mode");
  CHECK(client("SET k v") == "OK");
  CHECK(client("GET k") == "v");
}
