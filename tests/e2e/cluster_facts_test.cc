// What Redis Cluster itself does, where the proxy relies on it: if one of these fails, the server
// has changed and the proxy must be looked at again. No proxy here.
#include <catch2/catch.hpp>
#include <string>

#include "harness/cluster.h"
#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

/// Two clients of one slot's two sides while it migrates, with `here` moved and `there` not yet.
struct HalfMoved {
  HalfMoved()
      : from(cluster.primaries()[0]),
        to(cluster.primaries()[1]),
        slot(cluster.slots_of(from, 1)[0]),
        first(cluster.key_in(slot, "a")),
        second(cluster.key_in(slot, "b")),
        source(cluster.client(from)),
        target(cluster.client(to)) {
    source({"SET", first, "1"});
    source({"SET", second, "2"});
    cluster.open_slot(slot, from, to);
    cluster.move_keys(slot, from, to, 1);
    if (source({"EXISTS", first}) != "1") std::swap(first, second);
  }

  RedisCluster& cluster = shared_cluster();
  RedisCluster::Node from, to;
  unsigned slot;
  std::string first, second;  ///< still at the source; moved
  Client source, target;
};

}  // namespace

TEST_CASE("a key that has moved ahead of its slot is asked for behind ASKING", "[cluster][facts]") {
  HalfMoved half;
  const std::string ask = "ASK " + std::to_string(half.slot) + " " + half.cluster.address(half.to);
  const std::string moved =
      "MOVED " + std::to_string(half.slot) + " " + half.cluster.address(half.from);
  CHECK(half.source({"GET", half.first}) != "(nil)");
  CHECK(half.source({"GET", half.second}) == "(error) " + ask);
  CHECK(half.target({"GET", half.second}) == "(error) " + moved);
  CHECK(half.target("ASKING") == "OK");
  CHECK(half.target({"GET", half.second}) != "(nil)");
  CHECK(half.target({"GET", half.second}) == "(error) " + moved);  // ASKING counts once
  CHECK(half.source({"MGET", half.first, half.second}).rfind("(error) TRYAGAIN", 0) == 0);
}

TEST_CASE("ASKING before MULTI counts for the whole transaction", "[cluster][facts]") {
  HalfMoved half;
  half.target("ASKING");
  CHECK(half.target("MULTI") == "OK");
  CHECK(half.target({"SET", half.second, "x"}) == "QUEUED");
  CHECK(half.target({"GET", half.second}) == "QUEUED");
  CHECK(half.target("EXEC") == "[OK x]");
  CHECK(half.target({"GET", half.second}).rfind("(error) MOVED", 0) == 0);
}

TEST_CASE("a redirection inside MULTI discards the transaction", "[cluster][facts]") {
  RedisCluster& cluster = shared_cluster();
  const auto primaries = cluster.primaries();
  Client client = cluster.client(primaries[0]);
  CHECK(client("MULTI") == "OK");
  CHECK(client({"SET", cluster.key_at(primaries[0]), "x"}) == "QUEUED");
  CHECK(client({"SET", cluster.key_at(primaries[1]), "x"}).rfind("(error) MOVED", 0) == 0);
  CHECK(client("EXEC").rfind("(error) EXECABORT", 0) == 0);
  CHECK(client({"EXISTS", cluster.key_at(primaries[0])}) == "0");
}

TEST_CASE("two nodes that each call the other the owner answer MOVED in circles",
          "[cluster][facts]") {
  RedisCluster& cluster = shared_cluster();
  const auto primaries = cluster.primaries();
  const unsigned slot = cluster.slots_of(primaries[0], 1)[0];
  const std::string key = cluster.key_in(slot);
  cluster.make_circle(slot, primaries[0], primaries[1]);
  for (int i = 0; i < 2; ++i) {
    CHECK(cluster.client(primaries[0])({"GET", key}) ==
          "(error) MOVED " + std::to_string(slot) + " " + cluster.address(primaries[1]));
    CHECK(cluster.client(primaries[1])({"GET", key}) ==
          "(error) MOVED " + std::to_string(slot) + " " + cluster.address(primaries[0]));
  }
  cluster.break_circle(slot, primaries[0], primaries[1]);
  CHECK(cluster.wait_ok());
  CHECK(cluster.client(primaries[0])({"GET", key}) == "(nil)");
}

TEST_CASE("a missing key that was tracked is not reported when its slot moves and it is made there",
          "[cluster][facts]") {
  RedisCluster& cluster = shared_cluster();
  const auto primaries = cluster.primaries();
  const unsigned slot = cluster.slots_of(primaries[0], 1)[0];
  const std::string key = cluster.key_in(slot), neighbour = cluster.key_in(slot, "n");
  cluster.client(primaries[0])({"SET", neighbour, "1"});
  RawClient tracking(cluster.port(primaries[0]));
  tracking.ask("HELLO 3");
  tracking.ask("CLIENT TRACKING ON");
  CHECK(tracking.ask({"GET", key}) == "_\r\n");
  CHECK(tracking.ask({"GET", neighbour}) == "$1\r\n1\r\n");
  cluster.migrate_slots({slot}, primaries[0], primaries[1]);
  cluster.client(primaries[1])({"SET", key, "x"});
  // What does come: that the neighbour was deleted here. Then nothing but the answer.
  const std::string push = tracking.read_reply();
  CHECK(push.find(neighbour) != std::string::npos);
  CHECK(push.find(key) == std::string::npos);
  CHECK(tracking.ask("PING") == "+PONG\r\n");
}

TEST_CASE("after a takeover the demoted primary's connections stay open", "[cluster][facts]") {
  RedisCluster& cluster = shared_cluster();
  const auto primary = cluster.primaries()[0];
  const auto replica = cluster.replicas_of(primary).at(0);
  const std::string key = cluster.key_at(primary);
  cluster.client(primary)({"SET", key, "old"});
  REQUIRE(cluster.client(primary)("WAIT 1 5000") != "0");
  RawClient tracking(cluster.port(primary));
  tracking.ask("HELLO 3");
  tracking.ask("CLIENT TRACKING ON");
  CHECK(tracking.ask({"GET", key}) == "$3\r\nold\r\n");
  cluster.failover(replica, "TAKEOVER");
  REQUIRE(cluster.wait_ok());
  cluster.client(replica)({"SET", key, "new"});
  // A full resynchronisation pushes a null when it drops the old data, long after the new primary
  // took its first writes; a partial one pushes nothing.
  const auto ask = [&](const Args& args) {
    tracking.send(encode(args));
    std::string reply = tracking.read_reply();
    while (reply[0] == '>') reply = tracking.read_reply();
    return reply;
  };
  CHECK(ask({"ROLE"}).find("slave") != std::string::npos);
  CHECK(ask({"GET", key}).rfind("-MOVED", 0) == 0);
}
