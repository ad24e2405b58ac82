// Replicas: reads that may be stale, and writes that must not be on one node alone.
#include <catch2/catch.hpp>
#include <string>

#include "harness/cluster.h"

using namespace nearcached::e2e;

namespace {

uint64_t gets(const RedisCluster& cluster, RedisCluster::Node node) {
  const std::string stats = cluster.client(node)("INFO commandstats");
  const std::string field = "cmdstat_get:calls=";
  const size_t at = stats.find(field);
  return at == std::string::npos ? 0 : std::stoull(stats.substr(at + field.size()));
}

/// A configuration file: rules cannot be given on the command line.
class RuleFile {
 public:
  explicit RuleFile(const std::string& text) { write_file(path(), text); }
  std::string path() const { return dir_.path() + "/nearcached.toml"; }

 private:
  TempDir dir_;
};

/// Writes to "one:*" wait for the replica that there is, those to "nine:*" for more than there are.
struct WaitsForReplicas {
  explicit WaitsForReplicas(const RedisCluster& cluster)
      : proxy(cluster.port(0), cluster.upstream({"-c", rules.path()})) {}

  const RuleFile rules{
      "[[rule]]\nkeys = \"one:*\"\nwait_replicas = 1\nwait_timeout = \"10s\"\n"
      "[[rule]]\nkeys = \"nine:*\"\nwait_replicas = 9\nwait_timeout = \"50ms\"\n"};
  const Proxy proxy;
};

}  // namespace

// Fails when replica_for() never finds one, when READONLY is not said (the replica answers MOVED,
// and the primary is asked), or when what a replica answered is kept.
TEST_CASE("keys whose rule allows it are read from a replica, and never cached",
          "[cluster][replicas]") {
  RedisCluster& cluster = shared_cluster();
  const RuleFile file(
      "[upstream]\nread_from = \"replica\"\n[[rule]]\nkeys = \"old:*\"\nreplica_reads = true\n");
  Proxy proxy(cluster.port(0), cluster.upstream({"-c", file.path()}));
  Client client = proxy.client();
  const RedisCluster::Node primary = cluster.primaries()[0];
  const RedisCluster::Node replica = cluster.replicas_of(primary).at(0);
  const std::string key = cluster.key_at(primary, "old:");
  REQUIRE(client({"SET", key, "1"}) == "OK");
  REQUIRE(wait_until([&] { return client({"GET", key}) == "1"; }));
  const uint64_t at_primary = gets(cluster, primary), at_replica = gets(cluster, replica);
  for (int i = 0; i < 10; ++i) CHECK(client({"GET", key}) == "1");
  CHECK(gets(cluster, primary) == at_primary);
  CHECK(gets(cluster, replica) == at_replica + 10);
  // Other keys are the primary's, and are kept.
  const std::string other = cluster.key_at(primary, "new:");
  REQUIRE(client({"SET", other, "1"}) == "OK");
  CHECK(becomes_hit(proxy, client, "GET " + other));
}

// Fails when the rule is not looked at, when what a replica answered outlives its time or a write
// through the same process, or when it is served where the primary is asked.
TEST_CASE("what a replica answers is kept for the rule's ttl if the rule says so",
          "[cluster][replicas]") {
  RedisCluster& cluster = shared_cluster();
  const RuleFile file(
      "[upstream]\nread_from = \"replica\"\n[[rule]]\nkeys = \"old:*\"\nreplica_reads = true\n"
      "replica_fill = true\nttl = \"2s\"\n");
  Proxy proxy(cluster.port(0), cluster.upstream({"-c", file.path(), "--threads", "1"}));
  Client client = proxy.client();
  const RedisCluster::Node primary = cluster.primaries().at(0);
  const RedisCluster::Node replica = cluster.replicas_of(primary).at(0);
  Client at_primary = cluster.client(primary), at_replica = cluster.client(replica);
  REQUIRE(at_replica("READONLY") == "OK");
  const std::string key = cluster.key_at(primary, "old:");
  const auto write = [&](Client& by, const std::string& value) {
    REQUIRE(by({"SET", key, value}) == "OK");
    REQUIRE(wait_until([&] { return at_replica({"GET", key}) == value; }));
  };
  write(at_primary, "1");
  REQUIRE(becomes_hit(proxy, client, "GET " + key));
  const uint64_t asked = gets(cluster, replica);
  CHECK(client({"GET", key}) == "1");
  CHECK(gets(cluster, replica) == asked);
  CHECK(client({"STRLEN", key}) == "1");  // another shape of the same key
  // By somebody else: seen when the time is over.
  REQUIRE(at_primary({"SET", key, "two"}) == "OK");
  CHECK(wait_until([&] { return client({"GET", key}) == "two"; }));
  // Through the proxy: at once, as soon as the replica has it.
  write(client, "3");
  CHECK(wait_until([&] { return client({"GET", key}) == "3"; }));
  CHECK(becomes_hit(proxy, client, "GET " + key));
}

// Fails when the reply is not held for WAIT, or WAIT's count is not looked at.
TEST_CASE("a write whose rule waits for replicas is acknowledged when they have it",
          "[cluster][replicas]") {
  RedisCluster& cluster = shared_cluster();
  const WaitsForReplicas waits(cluster);
  const Proxy& proxy = waits.proxy;
  Client client = proxy.client();
  for (const RedisCluster::Node primary : cluster.primaries()) {
    const std::string one = cluster.key_at(primary, "one:");
    for (int i = 0; i < 20; ++i) {
      REQUIRE(client({"SET", one, std::to_string(i)}) == "OK");
      // It is there: the replica is asked behind the acknowledgement, and not before.
      Client replica = cluster.client(cluster.replicas_of(primary).at(0));
      REQUIRE(replica("READONLY") == "OK");
      REQUIRE(replica({"GET", one}) == std::to_string(i));
    }
    const std::string nine = cluster.key_at(primary, "nine:");
    CHECK(client({"SET", nine, "1"}) ==
          "(error) NOREPLICAS written, but only 1 of 9 replicas have confirmed it (wait_replicas)");
    CHECK(client({"GET", nine}) == "1");
  }
  CHECK(client({"MSET", "one:a", "1", "one:b", "2", "c", "3"}) == "OK");
  CHECK(client({"MSET", "nine:a", "1", "c", "4"}).rfind("(error) NOREPLICAS", 0) == 0);
  CHECK(client("MGET nine:a c") == "[1 4]");
  CHECK(proxy.count("replica_waits_short") >= 4);
}

// Fails when only what goes over a lane is held for WAIT, or when what wrote nothing is.
TEST_CASE("transactions, blocking writes and scripts wait for replicas as well",
          "[cluster][replicas]") {
  RedisCluster& cluster = shared_cluster();
  const WaitsForReplicas waits(cluster);
  const Proxy& proxy = waits.proxy;
  Client client = proxy.client();
  Client other = proxy.client();
  const RedisCluster::Node primary = cluster.primaries().at(0);
  Client replica = cluster.client(cluster.replicas_of(primary).at(0));
  REQUIRE(replica("READONLY") == "OK");
  const std::string one = cluster.key_at(primary, "one:"), nine = cluster.key_at(primary, "nine:");
  const std::string free = cluster.key_at(primary, "free:");
  const std::string short_of =
      "(error) NOREPLICAS written, but only 1 of 9 replicas have confirmed it (wait_replicas)";

  for (int i = 0; i < 20; ++i) {
    const std::string value = std::to_string(i);
    REQUIRE(client("MULTI") == "OK");
    REQUIRE(client({"SET", one, value}) == "QUEUED");
    REQUIRE(client({"SET", free, value}) == "QUEUED");
    REQUIRE(client("EXEC") == "[OK OK]");
    REQUIRE(replica({"GET", one}) == value);
  }
  REQUIRE(client("MULTI") == "OK");
  REQUIRE(client({"RPUSH", nine, "a", "b", "c"}) == "QUEUED");
  CHECK(client("EXEC") == short_of);
  CHECK(client({"LLEN", nine}) == "3");
  REQUIRE(client("MULTI") == "OK");
  REQUIRE(client({"SET", free, "x"}) == "QUEUED");
  CHECK(client("EXEC") == "[OK]");

  CHECK(client({"BLPOP", nine, "0"}) == short_of);
  CHECK(client({"BLMOVE", nine, free + "2", "LEFT", "LEFT", "0"}) == short_of);
  CHECK(client({"BLPOP", nine, "0"}) == short_of);
  CHECK(client({"BLPOP", nine, "0.01"}) == "(nil)");

  REQUIRE(client({"WATCH", nine}) == "OK");
  REQUIRE(other({"SET", nine, "x"}) == short_of);
  REQUIRE(client("MULTI") == "OK");
  REQUIRE(client({"SET", nine, "y"}) == "QUEUED");
  CHECK(client("EXEC") == "(nil)");
  REQUIRE(client({"WATCH", free}) == "OK");
  CHECK(client({"SET", nine, "z"}) == short_of);

  const std::string script = "return redis.call('SET', KEYS[1], 'by script')";
  CHECK(client("UNWATCH") == "OK");
  CHECK(client({"EVAL", script, "1", nine}) == short_of);
  CHECK(client({"EVAL", script, "1", one}) == "OK");
  CHECK(replica({"GET", one}) == "by script");
}

// Fails when the number of replicas is not looked at.
TEST_CASE("shards with fewer replicas than there should be are counted and logged",
          "[cluster][replicas]") {
  RedisCluster& cluster = shared_cluster();
  Proxy enough(cluster.port(0), cluster.upstream({"--set", "upstream.replication_factor=1"}));
  Proxy few(cluster.port(0), cluster.upstream({"--set", "upstream.replication_factor=2"}));
  CHECK(wait_until([&] { return few.info("shards_short_of_replicas") == "3"; }));
  CHECK(few.log().find("fewer than 2 replicas") != std::string::npos);
  CHECK(wait_until([&] { return enough.info("topology_slots_covered") == "16384"; }));
  CHECK(wait_until([&] { return enough.info("shards_short_of_replicas") == "0"; }));
}
