// Discovery by itself: on a loop of its own, before clusters and sentinels that are real servers.
// Everything is awaited, nothing is timed: what a test waits for must become true, and what must
// not happen is looked at after something that comes later.
#include "discovery/discovery.h"

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <set>
#include <thread>

#include "harness/servers.h"
#include "nearcached/topology/slots.h"

using namespace nearcached;
using e2e::Client;
using e2e::free_port;
using e2e::Process;
using e2e::RedisServer;
using e2e::TempDir;
using e2e::wait_until;

namespace {

Config config_of(const std::string& url, const std::string& more = "") {
  auto config =
      parse_config("[upstream]\nurl = \"" + url +
                       "\"\nconnect_timeout = \"400ms\"\ntopology_refresh_min = \"10ms\"\n" +
                       (more.empty() ? "topology_refresh = \"300ms\"\n" : more),
                   "test");
  INFO((config ? "" : config.error().detail));
  REQUIRE(config);
  return config.value();
}

/// Never by itself within a test.
const std::string kSeldom = "topology_refresh = \"1h\"\n";

/// Discovery on a thread of its own.
class Running final : private Discovery::Owner {
 public:
  explicit Running(Config config)
      : config_(std::move(config)),
        store_(config_),
        mailbox_(loop_),
        discovery_(loop_, mailbox_, config_, store_, *this),
        thread_([this] {
          discovery_.start();
          loop_.run();
        }) {}
  ~Running() override {
    mailbox_.post([this] {
      discovery_.close();
      mailbox_.close();
      loop_.close();
    });
    thread_.join();
  }

  Discovery& operator*() { return discovery_; }
  Discovery* operator->() { return &discovery_; }
  std::shared_ptr<const Topology> topology() const { return store_.get(); }
  uint64_t version() const { return store_.version(); }
  uint64_t changes() const { return changes_.load(); }

  bool covers(unsigned slots = kSlots) const {
    return wait_until([&] { return topology()->slots_covered() == slots; });
  }
  bool owns(uint16_t slot, uint16_t port) const {
    return wait_until([&] { return owner_port(slot) == port; });
  }
  uint16_t owner_port(uint16_t slot) const {
    const auto now = topology();
    const NodeIndex owner = now->owner(slot);
    return owner == kNoNode ? uint16_t{0} : now->nodes()[owner].address.port;
  }
  /// Whole questions, asked and answered from now on.
  bool answers(uint64_t count) {
    for (; count > 0; --count) {
      const uint64_t before = discovery_.refreshes();
      discovery_.refresh("test");
      if (!wait_until([&] { return discovery_.refreshes() > before; })) return false;
    }
    return true;
  }
  bool fails_with(const std::string& reason) {
    return wait_until([&] { return discovery_.last_error().find(reason) != std::string::npos; });
  }

 private:
  void on_topology() override { changes_.fetch_add(1); }

  const Config config_;
  TopologyStore store_;
  Loop loop_;
  Mailbox mailbox_;
  std::atomic<uint64_t> changes_{0};
  Discovery discovery_;
  std::thread thread_;
};

std::string host(uint16_t port) { return "127.0.0.1:" + std::to_string(port); }

std::vector<std::string> cluster_options(std::vector<std::string> more) {
  // A replica is listed once its offset is not 0: after the first ping of its primary.
  more.insert(more.end(), {"--repl-ping-replica-period", "1", "--cluster-enabled", "yes",
                           "--cluster-node-timeout", "700", "--cluster-replica-validity-factor",
                           "0", "--repl-diskless-sync-delay", "0"});
  return more;
}

std::string ask(const RedisServer& server, std::string_view line) { return server.client()(line); }

/// Three primaries, and a replica of the first.
struct Cluster {
  explicit Cluster(const std::vector<std::string>& options = {}) {
    for (int i = 0; i < 4; ++i)
      nodes.push_back(std::make_unique<RedisServer>(cluster_options(options)));
    const char* const slots[] = {"0 5460", "5461 10922", "10923 16383"};
    for (size_t i = 0; i < 3; ++i) {
      REQUIRE(ask(*nodes[i], std::string("CLUSTER ADDSLOTSRANGE ") + slots[i]) == "OK");
      REQUIRE(ask(*nodes[i], "CLUSTER SET-CONFIG-EPOCH " + std::to_string(i + 1)) == "OK");
    }
    for (size_t i = 0; i < nodes.size(); ++i)  // every pair: gossip takes seconds
      for (size_t j = i + 1; j < nodes.size(); ++j) meet(*nodes[i], *nodes[j]);
    REQUIRE(wait_until([&] { return all_say("cluster_known_nodes:4"); }));
    const std::string primary = ask(*nodes[0], "CLUSTER MYID");
    REQUIRE(wait_until([&] { return ask(*nodes[3], "CLUSTER REPLICATE " + primary) == "OK"; }));
    REQUIRE(wait_until([&] { return all_say("cluster_state:ok") && all_list(port(3)); }));
  }
  static void meet(const RedisServer& one, const RedisServer& other) {
    const std::string bus = ask(other, "CONFIG GET cluster-port");
    REQUIRE(ask(one, "CLUSTER MEET 127.0.0.1 " + std::to_string(other.port()) + " " +
                         bus.substr(bus.find(' ') + 1, 5)) == "OK");
  }
  bool all_say(const std::string& text) const {
    for (const auto& node : nodes)
      if (ask(*node, "CLUSTER INFO").find(text) == std::string::npos) return false;
    return true;
  }
  bool all_list(uint16_t replica) const {
    for (const auto& node : nodes)
      if (ask(*node, "CLUSTER SLOTS").find(std::to_string(replica)) == std::string::npos)
        return false;
    return true;
  }
  uint16_t port(size_t index) const { return nodes[index]->port(); }
  std::string url(size_t index = 0) const { return "redis+cluster://" + host(port(index)); }

  std::vector<std::unique_ptr<RedisServer>> nodes;
};

std::set<std::string> addresses(const Topology& topology) {
  std::set<std::string> found;
  for (const TopologyNode& node : topology.nodes())
    if (!node.gone) found.insert(node.address.to_string());
  return found;
}

}  // namespace

TEST_CASE("a key's slot is what Redis says it is", "[discovery]") {
  const RedisServer server(cluster_options({}));
  Client client = server.client();
  std::mt19937 random(std::random_device{}());
  static constexpr std::string_view kBytes("{}{}{}ab\0\xff\r\n ", 12);
  for (int i = 0; i < 1'000; ++i) {
    std::string key(random() % 24, '\0');
    for (char& c : key) c = kBytes[random() % kBytes.size()];
    CHECK(client({"CLUSTER", "KEYSLOT", key}) == std::to_string(slot_of(key)));
  }
}

TEST_CASE("one seed is enough to know a cluster", "[discovery]") {
  const Cluster cluster;
  // The seed that does not answer comes first; the other one is the replica.
  Running discovery(
      config_of("redis+cluster://" + host(free_port()) + "," + host(cluster.port(3))));
  REQUIRE(discovery.covers());
  const auto topology = discovery.topology();
  for (const auto& [slot, index] : std::vector<std::pair<uint16_t, size_t>>{
           {0, 0}, {5460, 0}, {5461, 1}, {10922, 1}, {10923, 2}, {16383, 2}}) {
    CHECK(discovery.owner_port(slot) == cluster.port(index));
    CHECK(topology->nodes()[topology->owner(slot)].id ==
          ask(*cluster.nodes[index], "CLUSTER MYID"));
  }
  const NodeIndex replica = topology->find({"127.0.0.1", cluster.port(3), {}});
  CHECK(topology->replicas_of(topology->owner(0)) == std::vector<NodeIndex>{replica});
  CHECK(addresses(*topology).size() == 4);
  CHECK(wait_until([&] { return discovery->last_error().empty(); }));
  CHECK(discovery->refreshed_ms() > 0);
}

TEST_CASE("what has not changed is no new snapshot", "[discovery]") {
  const Cluster cluster;
  Running discovery(config_of(cluster.url()));
  REQUIRE(discovery.covers());
  const uint64_t version = discovery.version();
  const uint64_t asked = discovery->refreshes();
  CHECK(wait_until([&] { return discovery->refreshes() > asked + 3; }));  // by the timer
  CHECK(discovery.answers(3));
  CHECK(discovery.version() == version);
  CHECK(discovery.changes() == 1);
}

TEST_CASE("many who ask at once are one question", "[discovery]") {
  const Cluster cluster;
  Running discovery(config_of(cluster.url(), "topology_refresh = \"1h\"\n"));
  REQUIRE(discovery.covers());
  REQUIRE(wait_until([&] { return discovery->refreshes() == 1; }));
  const auto asked = [&] { return cluster.nodes[0]->calls("cluster|slots"); };
  const uint64_t before = asked();
  cluster.nodes[0]->freeze();
  for (int i = 0; i < 10'000; ++i) discovery->refresh("test");
  cluster.nodes[0]->thaw();
  REQUIRE(discovery.answers(1));
  // The one that was under way, one for all who came meanwhile, and the last.
  CHECK(asked() - before <= 3);
}

TEST_CASE("MOVED counts at once, and the cluster has the last word", "[discovery]") {
  const Cluster cluster;
  Running discovery(config_of(cluster.url(), kSeldom));
  REQUIRE(discovery.covers());
  const uint64_t version = discovery.version();
  discovery->moved(7, {"127.0.0.1", cluster.port(1), {}});
  CHECK(discovery.version() > version);
  CHECK(discovery.owns(7, cluster.port(0)));
  CHECK(wait_until([&] { return discovery.changes() == 3; }));
}

TEST_CASE("MOVED without a host is a reason to ask", "[discovery]") {
  const Cluster cluster;
  Running discovery(config_of(cluster.url(), kSeldom));
  REQUIRE(discovery.covers());
  REQUIRE(wait_until([&] { return discovery->refreshes() == 1; }));
  const uint64_t version = discovery.version();
  discovery->moved(7, {"", cluster.port(1), {}});
  CHECK(wait_until([&] { return discovery->refreshes() == 2; }));
  CHECK(discovery.version() == version);
}

TEST_CASE("slots that are given to another node are found there", "[discovery]") {
  const Cluster cluster;
  Running discovery(config_of(cluster.url()));
  REQUIRE(discovery.covers());
  const std::string to = ask(*cluster.nodes[2], "CLUSTER MYID");
  for (const size_t index : {2, 0})
    REQUIRE(ask(*cluster.nodes[index], "CLUSTER SETSLOT 100 NODE " + to) == "OK");
  CHECK(discovery.owns(100, cluster.port(2)));
  CHECK(discovery.owner_port(101) == cluster.port(0));
  CHECK(discovery.topology()->moved_ms(100) > discovery.topology()->moved_ms(101));
}

TEST_CASE("when a primary dies its replica is found, and the other way round", "[discovery]") {
  const Cluster cluster;
  Running discovery(config_of(cluster.url()));
  REQUIRE(discovery.covers());
  cluster.nodes[0]->kill();
  CHECK(discovery.owns(0, cluster.port(3)));
  CHECK(discovery.owns(5460, cluster.port(3)));
  CHECK(discovery.owner_port(5461) == cluster.port(1));
  cluster.nodes[0]->start();
  CHECK(wait_until([&] {
    const auto topology = discovery.topology();
    return topology->replicas_of(topology->owner(0)).size() == 1;
  }));
}

TEST_CASE("a node that hangs costs one timeout", "[discovery]") {
  const Cluster cluster;
  cluster.nodes[1]->freeze();
  Running discovery(
      config_of("redis+cluster://" + host(cluster.port(1)) + "," + host(cluster.port(2))));
  CHECK(discovery.covers());
  CHECK(discovery->failures() == 0);
  cluster.nodes[1]->thaw();
}

TEST_CASE("a node that was reset is not believed while others know better", "[discovery]") {
  const RedisServer reset(cluster_options({}));
  auto cluster = std::make_unique<Cluster>();
  Running discovery(
      config_of("redis+cluster://" + host(reset.port()) + "," + host(cluster->port(1))));
  REQUIRE(discovery.covers());
  const uint64_t version = discovery.version();
  for (const auto& node : cluster->nodes) node->freeze();
  CHECK(discovery.fails_with(host(reset.port()) + " knows of no slot that is served; "));
  CHECK(discovery.version() == version);
  for (const auto& node : cluster->nodes) node->thaw();
}

TEST_CASE("a cluster without slots is empty once all say so", "[discovery]") {
  const RedisServer node(cluster_options({}));
  Running discovery(config_of("redis+cluster://" + host(node.port())));
  CHECK(discovery.fails_with("knows of no slot that is served"));
  CHECK(discovery->failures() == 0);
  REQUIRE(ask(node, "CLUSTER ADDSLOTSRANGE 0 99") == "OK");
  CHECK(discovery.covers(100));
  REQUIRE(ask(node, "CLUSTER FLUSHSLOTS") == "OK");
  CHECK(discovery.covers(0));
}

TEST_CASE("a node that is behind is believed only when it is alone", "[discovery]") {
  const RedisServer behind(cluster_options({}));  // in its own cluster, whose epoch is lower
  REQUIRE(ask(behind, "CLUSTER ADDSLOTSRANGE 0 16383") == "OK");
  const Cluster cluster;
  Running discovery(
      config_of("redis+cluster://" + host(cluster.port(0)) + "," + host(behind.port()), kSeldom));
  REQUIRE(discovery.covers());
  discovery->moved(7, {"127.0.0.1", behind.port(), {}});  // so that it is asked first
  CHECK(discovery.owns(7, cluster.port(0)));
  CHECK(discovery.owner_port(8) == cluster.port(0));
  CHECK(discovery->last_error().empty());

  for (const auto& node : cluster.nodes) node->kill();
  discovery->refresh("test");
  CHECK(discovery.owns(8, behind.port()));
  CHECK(addresses(*discovery.topology()) == std::set<std::string>{host(behind.port())});
}

TEST_CASE("a cluster that has failed is used as far as it goes, and asked again", "[discovery]") {
  const Cluster cluster;
  Running discovery(config_of(cluster.url(), kSeldom));
  REQUIRE(discovery.covers());
  cluster.nodes[1]->kill();  // has no replica
  REQUIRE(wait_until([&] {
    return ask(*cluster.nodes[2], "CLUSTER INFO").find("cluster_state:fail") != std::string::npos;
  }));
  discovery->refresh("test");
  CHECK(discovery.fails_with(" says that the cluster has failed"));
  CHECK(discovery->failures() == 0);
  CHECK(discovery.topology()->slots_covered() == kSlots);  // as Redis itself lists them
  cluster.nodes[1]->start();
  CHECK(wait_until([&] { return discovery->last_error().empty(); }));
}

TEST_CASE("a cluster that asks for a password is given it", "[discovery]") {
  const Cluster cluster({"--user", "near", "on", ">hunter2", "~*", "+@all"});
  for (const auto& node : cluster.nodes)
    REQUIRE(ask(*node, "CONFIG SET requirepass hunter1 masterauth hunter1") == "OK");
  Running by_user(config_of("redis+cluster://near:hunter2@" + host(cluster.port(0))));
  Running by_password(config_of("redis+cluster://:hunter1@" + host(cluster.port(0))));
  Running wrong(config_of("redis+cluster://near:hunter1@" + host(cluster.port(0))));
  Running none(config_of(cluster.url()));
  CHECK(by_user.covers());
  CHECK(by_password.covers());
  CHECK(wrong.fails_with("WRONGPASS"));
  CHECK(none.fails_with("NOAUTH"));
  CHECK(wrong.topology()->slots_covered() == 0);
}

TEST_CASE("a Redis that is no cluster is said to be none", "[discovery]") {
  const RedisServer redis;
  Running discovery(config_of("redis+cluster://" + host(redis.port())));
  CHECK(discovery.fails_with(host(redis.port()) +
                             ": ERR This instance has cluster support disabled"));
  CHECK(wait_until([&] { return discovery->failures() > 2; }));
  CHECK(discovery->refreshes() == 0);
}

TEST_CASE("of one Redis there is nothing to find out", "[discovery]") {
  const RedisServer redis;
  Running discovery(config_of("redis://" + host(redis.port())));
  discovery->refresh("test");
  discovery->moved(7, {"127.0.0.1", 1, {}});
  CHECK(redis.client()("PING") == "PONG");
  CHECK(discovery.version() == 1);
  CHECK(discovery->refreshes() + discovery->failures() == 0);
}

// ---- Sentinel

namespace {

class Sentinel {
 public:
  explicit Sentinel(uint16_t primary, const std::string& more = "") : port_(free_port()) {
    // Long enough to fail over by command only, unless a test says otherwise.
    e2e::write_file(dir_.path() + "/sentinel.conf",
                    "port " + std::to_string(port_) + "\nbind 127.0.0.1\nsentinel monitor svc " +
                        "127.0.0.1 " + std::to_string(primary) +
                        " 1\nsentinel failover-timeout svc 1000\n" +
                        "sentinel down-after-milliseconds svc 60000\n" + more);
    process_.start({"redis-server", dir_.path() + "/sentinel.conf", "--sentinel"},
                   dir_.path() + "/log");
    REQUIRE(wait_until([&] {
      try {
        return Client(port_)("PING").find("PING") == std::string::npos;
      } catch (const std::runtime_error&) {
        return false;
      }
    }));
  }
  uint16_t port() const { return port_; }
  Client client() const { return Client(port_); }
  void freeze() const { process_.signal(SIGSTOP); }
  void thaw() const { process_.signal(SIGCONT); }
  void fail_over() const {
    REQUIRE(wait_until([&] { return client()("SENTINEL FAILOVER svc") == "OK"; }));
  }

 private:
  TempDir dir_;
  uint16_t port_;
  Process process_;
};

/// A primary and its replica.
struct Pair {
  RedisServer primary{{"--repl-diskless-sync-delay", "0"}};
  RedisServer replica{{"--replicaof", "127.0.0.1 " + std::to_string(primary.port())}};
  Pair() {
    REQUIRE(wait_until([&] {
      return ask(replica, "INFO replication").find("master_link_status:up") != std::string::npos;
    }));
  }
};

/// Whether somebody listens to its +switch-master.
bool is_listened_to(const Sentinel& sentinel) {
  return wait_until(
      [&] { return sentinel.client()("CLIENT LIST").find(" sub=1 ") != std::string::npos; });
}

std::string sentinel_url(const std::vector<uint16_t>& ports, const std::string& service = "svc") {
  std::string url = "redis+sentinel://";
  for (const uint16_t port : ports) url += (url.back() == '/' ? "" : ",") + host(port);
  return url + "/" + service;
}

}  // namespace

TEST_CASE("the first sentinel that answers names the primary", "[discovery]") {
  const Pair pair;
  const Sentinel sentinel(pair.primary.port());
  Running discovery(config_of(sentinel_url({free_port(), sentinel.port()})));
  CHECK(discovery.owns(0, pair.primary.port()));
  CHECK_FALSE(discovery.topology()->cluster());
  CHECK(discovery.topology()->slots_covered() == kSlots);
  CHECK(wait_until([&] { return discovery->last_error().empty(); }));
  const uint64_t version = discovery.version();
  CHECK(discovery.answers(3));
  CHECK(discovery.version() == version);
}

TEST_CASE("+switch-master is followed without asking", "[discovery]") {
  const Pair pair;
  const Sentinel sentinel(pair.primary.port());
  Running discovery(config_of(sentinel_url({sentinel.port()}), kSeldom));
  REQUIRE(discovery.owns(0, pair.primary.port()));
  REQUIRE(is_listened_to(sentinel));
  sentinel.fail_over();
  CHECK(discovery.owns(0, pair.replica.port()));
  CHECK(discovery.topology()->nodes().size() == 1);
  CHECK(wait_until([&] { return discovery.changes() == 2; }));
}

TEST_CASE("a primary that dies is replaced by what the sentinels make of it", "[discovery]") {
  Pair pair;
  const Sentinel sentinel(pair.primary.port(), "sentinel down-after-milliseconds svc 200\n");
  Running discovery(config_of(sentinel_url({sentinel.port()}), kSeldom));
  REQUIRE(discovery.owns(0, pair.primary.port()));
  REQUIRE(wait_until([&] {
    return sentinel.client()("SENTINEL REPLICAS svc").find("slave") != std::string::npos;
  }));
  pair.primary.kill();
  discovery->refresh("test");
  CHECK(discovery.owns(0, pair.replica.port()));
  CHECK(wait_until([&] { return discovery->last_error().empty(); }));
}

TEST_CASE("who is named but is no primary is not taken", "[discovery]") {
  const Pair pair;
  const Sentinel sentinel(pair.primary.port());
  const RedisServer other;
  REQUIRE(ask(pair.primary, "REPLICAOF 127.0.0.1 " + std::to_string(other.port())) == "OK");
  Running discovery(config_of(sentinel_url({sentinel.port()})));
  CHECK(
      discovery.fails_with(host(pair.primary.port()) + ", named as the primary: it is a replica"));
  CHECK(discovery.topology()->slots_covered() == 0);
  CHECK(discovery.changes() == 0);
  REQUIRE(ask(pair.primary, "REPLICAOF NO ONE") == "OK");
  CHECK(discovery.owns(0, pair.primary.port()));
}

TEST_CASE("a failover that a hung sentinel does not tell of is found by asking", "[discovery]") {
  const Pair pair;
  const Sentinel first(pair.primary.port()), second(pair.primary.port());
  Running discovery(config_of(sentinel_url({first.port(), second.port()})));
  REQUIRE(discovery.owns(0, pair.primary.port()));
  REQUIRE(is_listened_to(first));
  first.freeze();
  second.fail_over();
  CHECK(discovery.owns(0, pair.replica.port()));
  CHECK(is_listened_to(second));
  first.thaw();
}

TEST_CASE("a service that no sentinel knows is said to be unknown", "[discovery]") {
  const RedisServer redis;
  const Sentinel sentinel(redis.port());
  Running discovery(config_of(sentinel_url({sentinel.port(), free_port()}, "other")));
  CHECK(
      discovery.fails_with(host(sentinel.port()) + ": no service is known by the name \"other\""));
  CHECK(discovery.topology()->slots_covered() == 0);
}

TEST_CASE("sentinels have a password of their own", "[discovery]") {
  const RedisServer redis({"--requirepass", "hunter1"});
  const Sentinel sentinel(redis.port(), "sentinel auth-pass svc hunter1\nrequirepass hunter2\n");
  const std::string url = "redis+sentinel://:hunter1@" + host(sentinel.port()) + "/svc";
  const std::string seldom = "topology_refresh = \"300ms\"\n";
  Running right(config_of(url, seldom + "sentinel_password = \"hunter2\"\n"));
  Running wrong(config_of(url, seldom + "sentinel_password = \"hunter1\"\n"));
  Running none(
      config_of(sentinel_url({sentinel.port()}), seldom + "sentinel_password = \"hunter2\"\n"));
  CHECK(right.owns(0, redis.port()));
  CHECK(wrong.fails_with("WRONGPASS"));
  CHECK(none.fails_with(host(redis.port()) + ", named as the primary: NOAUTH"));
}
