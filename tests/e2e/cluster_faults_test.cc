// A cluster breaks, is put right, and grows, while clients read and write through two proxies and
// around both. The coherence checker judges every reply: read your writes, no going back,
// staleness, convergence, and that a value belongs to its key (no crossed replies).
//
// What Redis itself loses when a primary fails is found out (judge.cc says how), and only reads
// that missed just that are pardoned. How long it took until every shard took writes through the
// proxy again is printed, and not asserted.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "harness/checker.h"
#include "harness/cluster.h"
#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;

namespace {

constexpr auto kWork = 800ms;  ///< before the fault, and after it

using Node = RedisCluster::Node;

const std::vector<std::string> kImpatient = {"--set", "upstream.timeout=1s", "--set",
                                             "upstream.connect_timeout=500ms"};

/// Two proxies before a cluster, and the checker at work.
class Ordeal {
 public:
  explicit Ordeal(RedisCluster& of, std::vector<std::string> more = {})
      : cluster(of),
        first(cluster.port(cluster.any()), cluster.upstream(kImpatient)),
        second(cluster.port(cluster.any()), cluster.upstream(kImpatient)) {
    const std::string proxies =
        "127.0.0.1:" + std::to_string(first.port()) + ",127.0.0.1:" + std::to_string(second.port());
    std::vector<std::string> options{
        "--endpoints",  proxies,         "--writers-at",    proxies + ",around",
        "--cluster",    cluster.seeds(), "--keys",          "96",
        "--seconds",    "100",           "--hit-ratio-min", "0.02",
        "--timeout-ms", "2000",          "--faults",        "--control"};
    options.insert(options.end(), more.begin(), more.end());
    checker = std::make_unique<Checker>(options);
    Checker::wait_working(first.client(), 3);
    std::this_thread::sleep_for(kWork);
  }

  /// Waits until every shard takes writes through the proxy, and `also`; prints how long that took.
  void await_recovery(const std::string& fault, const std::function<bool()>& also = {}) {
    const auto began = std::chrono::steady_clock::now();
    const auto all_served = [&] {
      try {
        if (also && !also()) return false;
        Client client = first.client();
        for (unsigned slot = 0; slot < kSlots; slot += 512)
          if (client({"SET", cluster.key_in(slot, "recovered"), "1"}) != "OK") return false;
        return true;
      } catch (const std::runtime_error&) {
        return false;
      }
    };
    CHECK(wait_until(all_served, 30s));
    const auto took = std::chrono::steady_clock::now() - began;
    std::cout << "recovered after "
              << std::chrono::duration_cast<std::chrono::milliseconds>(took).count()
              << " ms: " << fault << std::endl;
  }

  /// The fault is over: from here on everything converges, and nothing is lost any more.
  void settle() {
    REQUIRE(cluster.wait_ok());
    checker->tell("settle");
    checker->tell("heal");
  }

  void finish() {
    std::this_thread::sleep_for(kWork);
    checker->tell("end");
    const Checker::Verdict verdict = checker->finish();
    INFO(verdict.output);
    CHECK(verdict.held());
    std::cout << verdict.output.substr(verdict.output.find("errors ")) << std::flush;
    lost_by_redis = std::stoull(
        verdict.output.substr(verdict.output.find("lost_by_redis ") + sizeof "lost_by_redis"));
  }

  RedisCluster& cluster;
  Proxy first, second;
  std::unique_ptr<Checker> checker;
  uint64_t lost_by_redis = 0;
};

/// A primary that has a replica.
Node some_primary(const RedisCluster& cluster) { return cluster.primaries().at(1); }
Node replica_of(const RedisCluster& cluster, Node primary) {
  return cluster.replicas_of(primary).at(0);
}

}  // namespace

// Fails when a slot that has moved keeps its entries: the old owner tells of nothing any more.
// Fails when ASK is not followed behind ASKING. Order over several keys is not promised while they
// are on two shards.
TEST_CASE("1,000 slots move under load, and the promise holds",
          "[cluster][faults][checker][slow]") {
  Ordeal ordeal(shared_cluster(), {"--keys-unordered"});
  RedisCluster& cluster = ordeal.cluster;
  const Node from = cluster.primaries().at(0), to = cluster.primaries().at(1);
  // The checker's keys are in 16 slots: all of those that `from` owns are among the 1,000.
  std::vector<unsigned> slots;
  for (int group = 0; group < 16; ++group)
    if (const unsigned slot = RedisCluster::slot_of("{" + std::to_string(group) + "}");
        cluster.owner_of(slot) == from)
      slots.push_back(slot);
  REQUIRE(slots.size() > 1);
  for (const unsigned slot : cluster.slots_of(from)) {
    if (slots.size() == 1000) break;
    if (std::find(slots.begin(), slots.end(), slot) == slots.end()) slots.push_back(slot);
  }
  cluster.migrate_slots(slots, from, to);
  ordeal.await_recovery("1,000 slots moved");
  ordeal.settle();
  ordeal.finish();
  CHECK(ordeal.lost_by_redis == 0);
}

// Fails when what is held from a node that is gone is served after another has taken over. The
// replica is cut off first, so that it takes over without the last writes: what was acknowledged
// and read, and is lost, must not be read from a cache either.
TEST_CASE("a primary is killed under load, and what its replica does not know is forgotten",
          "[cluster][faults][checker][slow]") {
  Ordeal ordeal(shared_cluster());
  const Node primary = some_primary(ordeal.cluster);
  const Node replica = replica_of(ordeal.cluster, primary);
  ordeal.cluster.cut_off(replica, primary);
  std::this_thread::sleep_for(200ms);
  ordeal.cluster.kill(primary);
  ordeal.cluster.thaw(replica);
  ordeal.await_recovery("a primary killed");
  ordeal.cluster.start(primary);
  ordeal.settle();
  ordeal.finish();
  CHECK(ordeal.lost_by_redis > 0);
}

// Fails when a link that is silent but open counts as proven, or when what the stopped primary
// answers later is taken for news.
TEST_CASE("a primary is stopped under load and comes back, and the promise holds",
          "[cluster][faults][checker][slow]") {
  Ordeal ordeal(shared_cluster());
  const Node primary = some_primary(ordeal.cluster);
  ordeal.cluster.freeze(primary);
  ordeal.await_recovery("a primary stopped");
  ordeal.cluster.thaw(primary);
  ordeal.settle();
  ordeal.finish();
}

// Fails when a primary that the others have given up on, and that still answers, is believed for
// longer than it believes in itself.
TEST_CASE("a primary is parted from the other nodes under load, and the promise holds",
          "[cluster][faults][checker][slow]") {
  RedisCluster::Options options;
  options.may_part = true;
  RedisCluster cluster(options);
  Ordeal ordeal(cluster);
  const Node primary = some_primary(cluster);
  const unsigned slot = cluster.slots_of(primary, 1).at(0);
  cluster.partition(primary);
  // Until its replica has taken over, by the word of the others.
  ordeal.await_recovery("a primary parted", [&] { return cluster.owner_of(slot) != primary; });
  // It knows nothing of that: it has stopped by itself.
  Client parted = cluster.client(primary);
  CHECK(parted("ROLE").find("master") != std::string::npos);
  CHECK(parted({"SET", cluster.key_in(slot), "1"}).rfind("(error) CLUSTERDOWN", 0) == 0);
  cluster.rejoin(primary);
  ordeal.settle();
  ordeal.finish();
}

// Fails when a demoted primary, whose connections stay open, still counts as one.
TEST_CASE("a replica takes over under load, asked, forced and by itself, and the promise holds",
          "[cluster][faults][checker][slow]") {
  const std::string how = GENERATE("", "FORCE", "TAKEOVER");
  Ordeal ordeal(shared_cluster());
  ordeal.cluster.failover(replica_of(ordeal.cluster, some_primary(ordeal.cluster)), how);
  ordeal.await_recovery("CLUSTER FAILOVER " + how);
  ordeal.settle();
  ordeal.finish();
}

// Fails when only the nodes of the first topology are ever asked. A shard of one node: it may be
// given slots of the others' keys.
TEST_CASE("a node is added and given slots under load, and the promise holds",
          "[cluster][faults][checker][slow]") {
  RedisCluster::Options options;
  options.replicas = 0;
  RedisCluster cluster(options);
  Ordeal ordeal(cluster, {"--keys-unordered"});
  const Node added = cluster.add_node();
  for (int group = 0; group < 16; group += 2) {
    const unsigned slot = RedisCluster::slot_of("{" + std::to_string(group) + "}");
    cluster.migrate_slots({slot}, cluster.owner_of(slot), added);
  }
  ordeal.await_recovery("a node added");
  ordeal.settle();
  ordeal.finish();
  CHECK(ordeal.lost_by_redis == 0);
}

// Fails when one that has lost all its links gives up, or serves what it held before. The nodes
// keep an append-only file: history would begin anew otherwise, and nothing could be judged.
TEST_CASE("all nodes are killed and started again under load, and the promise holds",
          "[cluster][faults][checker][slow]") {
  RedisCluster::Options options;
  options.append_only = true;
  RedisCluster cluster(options);
  Ordeal ordeal(cluster);
  for (Node node = 0; node < cluster.size(); ++node) cluster.kill(node);
  for (Node node = 0; node < cluster.size(); ++node) cluster.start(node);
  ordeal.await_recovery("all nodes killed and started");
  ordeal.settle();
  ordeal.finish();
}
