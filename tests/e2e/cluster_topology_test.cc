// Who owns what changes, is missing, or is contradictory: what clients are told then, and what
// NEARCACHE TOPOLOGY says.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "harness/cluster.h"
#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;

namespace {

using Node = RedisCluster::Node;

const std::vector<std::string> kImpatient = {"--set", "upstream.timeout=1s", "--set",
                                             "upstream.connect_timeout=500ms"};

/// NEARCACHE TOPOLOGY: the first line, and one for each node.
struct Report {
  explicit Report(Client& client) {
    std::istringstream in(client("NEARCACHE TOPOLOGY"));
    for (std::string line; std::getline(in, line);) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) lines.push_back(line);
    }
    REQUIRE(!lines.empty());
  }

  /// The value of `name` in a line, without the quotes that it may have.
  static std::string field(const std::string& line, const std::string& name) {
    const std::string padded = " " + line;
    size_t at = padded.find(" " + name + "=");
    if (at == std::string::npos) throw std::runtime_error("no " + name + " in: " + line);
    at += name.size() + 2;
    if (padded[at] == '"') return padded.substr(at + 1, padded.find('"', at + 1) - at - 1);
    return padded.substr(at, padded.find(' ', at) - at);
  }
  std::string head(const std::string& name) const { return field(lines[0], name); }
  std::string node(const std::string& address, const std::string& name) const {
    for (const std::string& line : lines)
      if (line.rfind("node=" + address + " ", 0) == 0) return field(line, name);
    throw std::runtime_error("no node " + address + " in NEARCACHE TOPOLOGY");
  }

  std::vector<std::string> lines;
};

/// All nodes of one shard: its primary and replicas.
std::vector<Node> shard_of(const RedisCluster& cluster, Node primary) {
  std::vector<Node> nodes = cluster.replicas_of(primary);
  nodes.push_back(primary);
  return nodes;
}

bool is_error(const std::string& reply) { return reply.rfind("(error)", 0) == 0; }

}  // namespace

// Fails when the snapshot is not what the cluster said.
TEST_CASE("NEARCACHE TOPOLOGY tells of each node its role, slots and breaker",
          "[cluster][topology]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  for (const Node node : stack.cluster.primaries()) client({"GET", stack.cluster.key_at(node)});
  const Report report(client);
  CHECK(report.head("kind") == "cluster");
  CHECK(report.head("slots_covered") == "16384");
  CHECK(std::stoull(report.head("refreshes")) > 0);
  CHECK(std::stoull(report.head("refresh_age_ms")) < 60'000);
  CHECK(report.head("error").empty());
  CHECK(report.lines.size() == 1 + stack.cluster.size());
  const auto primaries = stack.cluster.primaries();
  for (Node node = 0; node < stack.cluster.size(); ++node) {
    INFO(node);
    const std::string address = stack.cluster.address(node);
    const bool primary = std::find(primaries.begin(), primaries.end(), node) != primaries.end();
    CHECK(report.node(address, "role") == (primary ? "primary" : "replica"));
    CHECK(report.node(address, "slots") ==
          std::to_string(primary ? stack.cluster.slots_of(node).size() : 0));
    CHECK(report.node(address, "breaker") == "closed");
    CHECK(report.node(address, "last_error").empty());
    CHECK(std::stoul(report.node(address, "links")) >= (primary ? 1 : 0));
    if (primary) CHECK(std::stoul(report.node(address, "latency_us")) > 0);
  }
}

// Fails when Connection::renew() counts a failure, as lose() does for a link that was not up yet.
TEST_CASE("a seed that turns out to be a replica is no failure", "[cluster][topology]") {
  RedisCluster cluster;
  const std::string seed =
      cluster.address(cluster.replicas_of(cluster.primaries().front()).front());
  for (int i = 0; i < 20; ++i) {
    Proxy proxy(cluster.port(0), {"--upstream", "redis+cluster://" + seed});
    Client client = proxy.client();
    client("GET key");
    const Report report(client);
    CHECK(report.node(seed, "breaker") == "closed");
    CHECK(report.node(seed, "last_error").empty());
  }
}

// Fails when MOVED only redirects the one request, and the snapshot stays as it was.
TEST_CASE("after a failover the new primary is in NEARCACHE TOPOLOGY without a manual step",
          "[cluster][topology]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  const Node primary = stack.cluster.primaries()[0];
  const Node replica = stack.cluster.replicas_of(primary).at(0);
  const std::string key = stack.cluster.key_at(primary);
  client({"SET", key, "old"});
  REQUIRE(stack.cluster.client(primary)("WAIT 1 5000") != "0");
  stack.cluster.failover(replica, "");
  REQUIRE(wait_until([&] { return client({"GET", key}) == "old"; }));
  CHECK(wait_until([&] {
    return Report(client).node(stack.cluster.address(replica), "role") == "primary" &&
           Report(client).node(stack.cluster.address(primary), "role") == "replica";
  }));
  // What is written at the new primary is seen: its pushes are listened to.
  REQUIRE(becomes_hit(stack.proxy, client, "GET " + key));
  stack.cluster.client(replica)({"SET", key, "new"});
  CHECK(seen_in_time(client, "GET " + key, "new"));
}

// Fails when an entry outlives that its slot changes owner. Redis pushes nothing for a key that did
// not exist (cluster_facts_test.cc), so only the slot's epoch can drop it.
TEST_CASE("a key that is held as missing is seen when it is made at its slot's new owner",
          "[cluster][topology][coherence]") {
  ClusterStack stack({"--set", "l1.negative_ttl=1h", "--set", "l1.ttl=1h"});
  RedisCluster& cluster = stack.cluster;
  const Node from = cluster.primaries()[0], to = cluster.primaries()[1];
  std::vector<Client> readers = clients_of(stack.proxy, 6);
  for (unsigned round = 0; round < 5; ++round) {
    const unsigned slot = cluster.slots_of(from, 1)[0];
    const std::string key = cluster.key_in(slot, "none"), read = "GET " + key;
    for (Client& reader : readers) REQUIRE(becomes_hit(stack.proxy, reader, read));
    cluster.migrate_slots({slot}, from, to);
    cluster.client(to)({"SET", key, "made"});
    for (Client& reader : readers) {
      CHECK(seen_in_time(reader, read, "made"));
      CHECK(reader(read) == "made");
    }
  }
}

// Fails when redirections are followed without a limit: the request never ends, or two nodes are
// kept busy for ever. Both are real: each has been told that the other owns the slot.
TEST_CASE("nodes that answer MOVED in circles cost the request an error, and others nothing",
          "[cluster][topology]") {
  ClusterStack stack(kImpatient);
  RedisCluster& cluster = stack.cluster;
  const auto primaries = cluster.primaries();
  const unsigned slot = cluster.slots_of(primaries[0], 1)[0];
  const std::string key = cluster.key_in(slot);
  cluster.make_circle(slot, primaries[0], primaries[1]);
  Client client = stack.proxy.client(), other = stack.proxy.client();
  const uint64_t before = std::stoull(
      info_field(cluster.client(primaries[0])("INFO stats"), "total_commands_processed"));
  for (int i = 0; i < 3; ++i) {
    for (const Args& request :
         {Args{"GET", key}, Args{"SET", key, "v"}, Args{"MGET", "a", key, "b"}}) {
      const std::string reply = client(request);
      INFO(reply);
      CHECK(is_error(reply));
      CHECK(reply.find("MOVED ") != 8);  // a client that knows of no cluster cannot use that
    }
    for (const Node node : primaries)
      CHECK(other({"SET", cluster.key_at(node, "k", 1), "v"}) == "OK");
  }
  const uint64_t after = std::stoull(
      info_field(cluster.client(primaries[0])("INFO stats"), "total_commands_processed"));
  CHECK(after - before < 2'000);
  cluster.break_circle(slot, primaries[0], primaries[1]);
  CHECK(wait_until([&] { return client({"SET", key, "v"}) == "OK"; }));
}

// Fails when one shard's failure is told to all, and when what is held of other shards is not
// served.
TEST_CASE("while one shard is down its keys answer an error that says so, and all others work",
          "[cluster][topology]") {
  ClusterStack stack(kImpatient);
  RedisCluster& cluster = stack.cluster;
  const auto primaries = cluster.primaries();
  const Node dead = primaries[1];
  Client client = stack.proxy.client();
  Args here{"MGET"}, all{"MGET"};
  for (const Node node : primaries) {
    for (unsigned n = 0; n < 5; ++n) {
      const std::string key = cluster.key_at(node, "k", n);
      REQUIRE(client({"SET", key, "v"}) == "OK");
      REQUIRE(becomes_hit(stack.proxy, client, "GET " + key));
      all.push_back(key);
      if (node != dead) here.push_back(key);
    }
  }
  const std::string lost = cluster.key_at(dead, "k", 0);
  for (const Node node : shard_of(cluster, dead)) cluster.kill(node);
  REQUIRE(wait_until([&] { return is_error(client({"SET", lost, "v"})); }));
  const std::string reply = client({"SET", lost, "v"});
  INFO(reply);
  CHECK(reply.find("MOVED") == std::string::npos);
  CHECK(wait_until([&] { return is_error(client({"GET", lost})); }));  // no longer proven
  CHECK(is_error(client(all)));
  CHECK(is_error(client("DBSIZE")));
  CHECK(client(here) == "[v v v v v v v v v v]");
  for (const Node node : primaries) {
    if (node == dead) continue;
    const std::string key = cluster.key_at(node, "k", 1);
    CHECK(client({"SET", key, "new"}) == "OK");
    CHECK(client({"GET", key}) == "new");
    CHECK(becomes_hit(stack.proxy, client, "GET " + key));
  }
  // DEL of keys of both is an error, not a smaller number. What can be deleted is, unless it was
  // known before that something cannot.
  const std::string alive = cluster.key_at(primaries[0], "k", 2);
  CHECK(is_error(client({"DEL", alive, lost})));
  const std::string left = client({"GET", alive});
  CHECK((left == "v" || left == "(nil)"));
}

// Fails when a slot without an owner is sent anywhere, or waited for without an end.
TEST_CASE("keys of a slot that nobody serves answer CLUSTERDOWN, and all others work",
          "[cluster][topology]") {
  ClusterStack stack(kImpatient);
  RedisCluster& cluster = stack.cluster;
  const Node owner = cluster.primaries()[0];
  const unsigned slot = cluster.slots_of(owner, 1)[0];
  const std::string key = cluster.key_in(slot), number = std::to_string(slot);
  Client client = stack.proxy.client();
  for (Node node = 0; node < cluster.size(); ++node)
    REQUIRE(cluster.client(node)({"CLUSTER", "DELSLOTS", number}) == "OK");
  CHECK(wait_until([&] { return client({"GET", key}).rfind("(error) CLUSTERDOWN", 0) == 0; }));
  CHECK(client({"SET", key, "v"}).rfind("(error) CLUSTERDOWN", 0) == 0);
  CHECK(client({"SET", cluster.key_in(slot + 1), "v"}) == "OK");
  CHECK(wait_until([&] { return Report(client).head("slots_covered") == "16383"; }));
  REQUIRE(cluster.client(owner)({"CLUSTER", "ADDSLOTS", number}) == "OK");
  CHECK(wait_until([&] { return client({"SET", key, "v"}) == "OK"; }));
}

// Fails when one that has no node left gives up for good.
TEST_CASE("while all nodes are down every key answers an error, and they are found again",
          "[cluster][topology]") {
  ClusterStack stack(kImpatient);
  RedisCluster& cluster = stack.cluster;
  Client client = stack.proxy.client();
  const auto primaries = cluster.primaries();
  Args keys;
  for (const Node node : primaries) keys.push_back(cluster.key_at(node));
  for (const std::string& key : keys) REQUIRE(client({"SET", key, "v"}) == "OK");
  for (Node node = 0; node < cluster.size(); ++node) cluster.kill(node);
  for (const std::string& key : keys) {
    CHECK(wait_until([&] { return is_error(client({"GET", key})); }));
    CHECK(is_error(client({"SET", key, "v"})));
  }
  CHECK(client("SELECT 0") == "OK");  // no node has to be asked
  for (Node node = 0; node < cluster.size(); ++node) cluster.start(node);
  for (const std::string& key : keys)
    CHECK(wait_until([&] { return client({"SET", key, "again"}) == "OK"; }));
  for (const std::string& key : keys) CHECK(client({"GET", key}) == "again");
}

// Fails when each request to a dead node tries to connect again, and waits for that.
TEST_CASE("a node that is down is named at once, and used again when it is back",
          "[cluster][topology]") {
  // No replica takes over, so that the breaker alone decides.
  RedisCluster::Options options;
  options.replicas = 0;
  RedisCluster cluster(options);
  Proxy proxy(cluster.port(0), cluster.upstream(kImpatient));
  Client client = proxy.client();
  const Node node = cluster.primaries()[1];
  const std::string key = cluster.key_at(node), address = cluster.address(node);
  REQUIRE(client({"SET", key, "v"}) == "OK");
  const std::string seen_before = Report(client).node(address, "breaker");
  CHECK(seen_before == "closed");
  cluster.kill(node);
  CHECK(wait_until([&] {
    client({"SET", key, "v"});
    return Report(client).node(address, "breaker") == "open";
  }));
  // Open: the answer needs no attempt. Probes go on, so it may be half-open for a moment.
  const auto names_it = [&] {
    const std::string reply = client({"SET", key, "v"});
    return is_error(reply) && reply.find(address) != std::string::npos;
  };
  CHECK(wait_until(names_it));
  CHECK(!Report(client).node(address, "last_error").empty());
  for (const Node other : cluster.primaries()) {
    if (other == node) continue;
    CHECK(client({"SET", cluster.key_at(other), "v"}) == "OK");
    CHECK(Report(client).node(cluster.address(other), "breaker") == "closed");
  }
  cluster.start(node);
  CHECK(wait_until([&] { return client({"SET", key, "back"}) == "OK"; }));
  CHECK(client({"GET", key}) == "back");
  CHECK(wait_until([&] { return Report(client).node(address, "breaker") == "closed"; }));
}

// Fails when a node that has left is still asked, or still counted.
TEST_CASE("a node that leaves the cluster is gone from NEARCACHE TOPOLOGY's owners",
          "[cluster][topology]") {
  RedisCluster::Options options;
  options.replicas = 0;
  RedisCluster cluster(options);
  const Node added = cluster.add_node(), owner = cluster.primaries()[0];
  const unsigned slot = cluster.slots_of(owner, 1)[0];
  const std::string key = cluster.key_in(slot);
  Proxy proxy(cluster.port(0), cluster.upstream());
  Client client = proxy.client();
  const auto role = [&] { return Report(client).node(cluster.address(added), "role"); };
  cluster.migrate_slots({slot}, owner, added);
  REQUIRE(wait_until([&] { return client({"SET", key, "there"}) == "OK"; }));
  CHECK(wait_until([&] { return role() == "primary"; }));
  cluster.migrate_slots({slot}, added, owner);
  for (Node node = 0; node < added; ++node)
    REQUIRE(cluster.client(node)({"CLUSTER", "FORGET", cluster.id(added)}) == "OK");
  cluster.kill(added);
  CHECK(wait_until([&] { return client({"GET", key}) == "there"; }));
  client("NEARCACHE TOPOLOGY REFRESH");
  CHECK(wait_until([&] { return role() == "gone"; }));
  CHECK(client({"SET", key, "back"}) == "OK");
}

// A proxy that presents itself as a cluster: it owns every slot.

// Fails when the answers of the cluster behind are handed on: a client would go around the proxy.
// Fails when MOVED ends the walk, or when the nodes that were done by then are not walked again:
// the slot's keys may have gone to one of them.
TEST_CASE("a pattern is deleted at whatever node a slot has moved to", "[cluster][topology]") {
  ClusterStack stack({"--set", "upstream.topology_refresh=1h"});
  RedisCluster& cluster = stack.cluster;
  Client client = stack.proxy.client();
  const RedisCluster::Node from = cluster.primaries().at(0), to = cluster.primaries().at(1);
  const std::vector<unsigned> slots = cluster.slots_of(from, 3);
  for (const unsigned slot : slots)
    for (unsigned n = 0; n < 20; ++n)
      REQUIRE(client({"SET", cluster.key_in(slot, "gone:", n), "1"}) == "OK");
  REQUIRE(client({"SET", cluster.key_in(slots[0], "stays"), "1"}) == "OK");
  cluster.migrate_slots(slots, from, to);
  REQUIRE(client("NEARCACHE PATTERN gone:* UPSTREAM").find("job") != std::string::npos);
  std::string jobs;
  CHECK(wait_until([&] {
    jobs = client("NEARCACHE JOBS");
    return jobs.find("state=running") == std::string::npos;
  }));
  INFO(jobs);
  CHECK(jobs.find("state=done") != std::string::npos);
  CHECK(jobs.find("matched=60 deleted=60") != std::string::npos);
  CHECK(client("DBSIZE") == "1");
  for (const RedisCluster::Node node : cluster.primaries()) {
    const std::string stats = cluster.client(node)("INFO commandstats");
    INFO(stats);
    const std::string field = "cmdstat_scan:calls=";
    const size_t at = stats.find(field);
    REQUIRE(at != std::string::npos);
    CHECK(std::stoul(stats.substr(at + field.size())) >= 2);
  }
}

// Fails when the key is deleted over the bus, which is at one node.
TEST_CASE("a key of any shard is deleted when its schedule says so", "[cluster][topology]") {
  ClusterStack stack;
  RedisCluster& cluster = stack.cluster;
  Client client = stack.proxy.client();
  for (const RedisCluster::Node node : cluster.primaries()) {
    const std::string key = cluster.key_at(node, "due");
    REQUIRE(client({"SET", key, "1"}) == "OK");
    std::string id;
    REQUIRE(wait_until([&] {
      id = client({"NEARCACHE", "SCHEDULE", "INVALIDATE", key, "AFTER", "20", "UPSTREAM"});
      return id.rfind("(error)", 0) == std::string::npos;  // else the bus is not up yet
    }));
    CHECK(wait_until([&] { return cluster.client(node)({"EXISTS", key}) == "0"; }));
    // Once, and then it is over.
    CHECK(wait_until([&] { return client("NEARCACHE SCHEDULES").empty(); }));
    CHECK(client({"EXISTS", key}) == "0");
  }
  const std::string often = cluster.key_at(cluster.primaries().at(2), "often");
  REQUIRE(client({"NEARCACHE", "SCHEDULE", "INVALIDATE", often, "AFTER", "1", "EVERY", "20",
                  "UPSTREAM"})
              .rfind("(error)", 0) == std::string::npos);
  for (int i = 0; i < 3; ++i) {
    REQUIRE(client({"SET", often, "1"}) == "OK");
    CHECK(wait_until([&] { return client({"EXISTS", often}) == "0"; }));
  }
}

TEST_CASE("a proxy presented as a cluster says that it owns every slot", "[cluster][presented]") {
  ClusterStack stack({"--set", "server.present_as=cluster"});
  Client client = stack.proxy.client();
  const std::string id = client("CLUSTER MYID"), port = std::to_string(stack.proxy.port());
  CHECK(id.size() == 40);
  CHECK(client("CLUSTER SLOTS").rfind("[[0 16383 [127.0.0.1 " + port + " " + id, 0) == 0);
  CHECK(client("CLUSTER SHARDS").find("[slots [0 16383] nodes [[id " + id) != std::string::npos);
  const std::string nodes = client("CLUSTER NODES");
  CHECK(nodes.rfind(id + " 127.0.0.1:" + port + "@", 0) == 0);
  CHECK(nodes.find(" myself,master - ") != std::string::npos);
  CHECK(nodes.find(" connected 0-16383\n") != std::string::npos);
  CHECK(std::count(nodes.begin(), nodes.end(), '\n') == 1);
  const std::string info = client("CLUSTER INFO");
  CHECK(info_field(info, "cluster_state") == "ok");
  CHECK(info_field(info, "cluster_slots_assigned") == "16384");
  CHECK(info_field(info, "cluster_known_nodes") == "1");
  CHECK(info_field(client("INFO cluster"), "cluster_enabled") == "1");
  for (const std::string key : {"foo", "{user}1", "{}x", ""})
    CHECK(client({"CLUSTER", "KEYSLOT", key}) == std::to_string(RedisCluster::slot_of(key)));
  CHECK(client("SET k v") == "OK");
  CHECK(client("GET k") == "v");
}

// Fails when a proxy tells a client of the cluster behind it without having been asked to.
TEST_CASE("a proxy before a cluster looks like a single Redis unless told otherwise",
          "[cluster][presented]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  for (const std::string request :
       {"CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER NODES", "CLUSTER INFO", "CLUSTER MYID"})
    CHECK(client(request) == "(error) ERR This instance has cluster support disabled");
  CHECK(info_field(client("INFO cluster"), "cluster_enabled") == "0");
}
