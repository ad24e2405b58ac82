// RedisCluster: a real Redis Cluster on loopback, and what an operator does to one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/client.h"
#include "harness/forwarder.h"
#include "harness/process.h"
#include "harness/servers.h"

namespace nearcached::e2e {

constexpr unsigned kSlots = 16'384;

/// One line of CLUSTER NODES.
struct ClusterNodeView {
  std::string id;
  uint16_t port = 0;
  std::string flags;
  std::string primary_id;                             ///< "-": it is no replica
  std::vector<std::pair<unsigned, unsigned>> ranges;  ///< slots, both ends included
  std::vector<unsigned> open;                         ///< slots that migrate or are imported
  bool has(const std::string& flag) const;
  unsigned slots() const;
};

/// Nodes are named by the order of their start: first the primaries, then the replicas, of which
/// the n-th begins with primary n % primaries. Roles change, names do not: ask owner_of() and
/// replicas_of().
///
/// Thread: the main one alone (see Process).
class RedisCluster {
 public:
  using Node = size_t;
  struct Options {
    unsigned primaries = 3;
    unsigned replicas = 3;  ///< in all
    unsigned node_timeout_ms = 1000;
    bool may_part = false;           ///< partition() may be called
    bool append_only = false;        ///< what was acknowledged survives that all nodes are killed
    std::vector<std::string> redis;  ///< more options of each redis-server
  };

  RedisCluster() : RedisCluster(Options{}) {}
  /// Returns when every node says that the cluster is ok and each replica has its copy. One shard
  /// that is down does not stop the others (cluster-require-full-coverage no).
  explicit RedisCluster(Options options);

  size_t size() const { return nodes_.size(); }
  uint16_t port(Node node) const { return nodes_.at(node)->port; }
  std::string address(Node node) const { return "127.0.0.1:" + std::to_string(port(node)); }
  const std::string& id(Node node) const { return nodes_.at(node)->id; }
  Client client(Node node) const { return Client(port(node)); }
  /// "127.0.0.1:p1,127.0.0.1:p2,…": every node.
  std::string seeds() const;
  std::string url() const { return "redis+cluster://" + seeds(); }
  /// Options for a Proxy in front of it, behind `more`.
  std::vector<std::string> upstream(std::vector<std::string> more = {}) const;

  // Who owns what, as a node that lives says.
  static unsigned slot_of(const std::string& key);
  Node owner_of(unsigned slot) const;
  Node owner_of(const std::string& key) const { return owner_of(slot_of(key)); }
  std::vector<Node> primaries() const;  ///< that own slots
  std::vector<Node> replicas_of(Node primary) const;
  /// The first `count` slots that a node owns.
  std::vector<unsigned> slots_of(Node node, size_t count = kSlots) const;
  /// `prefix` with a number behind it, such that the node owns the key; another `n`, another key.
  std::string key_at(Node node, const std::string& prefix = "k", unsigned n = 0) const;
  std::string key_in(unsigned slot, const std::string& prefix = "k", unsigned n = 0) const;

  /// Each of the two answers that the other owns the slot, which holds no keys; until …
  void make_circle(unsigned slot, Node owner, Node other);
  /// … the owner has it again.
  void break_circle(unsigned slot, Node owner, Node other);

  // Slots on the move, as redis-cli --cluster reshard does it.
  void migrate_slots(const std::vector<unsigned>& slots, Node from, Node to);
  /// Its parts, to stop between them: MIGRATING and IMPORTING …
  void open_slot(unsigned slot, Node from, Node to);
  /// … keys, at most `most` of them; returns how many …
  size_t move_keys(unsigned slot, Node from, Node to, size_t most = SIZE_MAX);
  /// … and everybody is told of the new owner.
  void close_slot(unsigned slot, Node from, Node to);

  /// `how`: "", "FORCE" or "TAKEOVER". Returns when every node that lives knows the new primary.
  void failover(Node replica, const std::string& how);
  void kill(Node node);
  /// Starts a killed node again, with what it knew of the cluster. Does not wait for it.
  void start(Node node);
  void freeze(Node node);
  void thaw(Node node);
  /// Stops a replica, and cuts its link: what its primary writes from now on does not wait for it
  /// in a socket's buffer.
  void cut_off(Node replica, Node primary);
  bool alive(Node node) const;
  /// Nothing passes between the node and the others any more, neither on the cluster's bus nor to
  /// its replicas; clients still reach all of them …
  void partition(Node node);
  /// … until here.
  void rejoin(Node node);
  /// A primary without slots, known to all.
  Node add_node();

  /// Until every node that lives agrees on who owns what, knows of no failure, says
  /// cluster_state:ok and each replica has its copy. `all_slots`: and all slots are owned.
  bool wait_ok(bool all_slots = true);
  /// As new but for roles and slots: all nodes live, no slot is open, no data, no scripts.
  bool restore();

  /// By one node's word.
  std::vector<ClusterNodeView> view_of(Node node) const;
  /// The first that lives.
  Node any() const;

 private:
  struct Server {
    TempDir dir;
    uint16_t port = 0, bus_port = 0;
    std::string source;              ///< may_part: the address of its own connections
    std::unique_ptr<Forwarder> bus;  ///< … and its bus port, as the others know it
    std::string id;
    Process process;
    bool frozen = false;
    std::optional<Client> link;
  };

  /// A connection that is kept: resharding asks thousands of times.
  Client& link(Node node) const;
  void launch(Server& server);
  /// Again on other ports if others took them meanwhile.
  void wait_launched(Server& server);
  void wire();
  void meet(Node a, Node b);
  void replicate(Node replica, Node primary);
  void close_slot(unsigned slot, Node from, Node to, const std::vector<Node>& others);
  Node node_of(uint16_t port) const;
  /// What settles the owners of all slots, as a text to compare.
  std::string ownership(Node node) const;
  bool settled(Node node, bool all_slots) const;

  Options options_;
  std::vector<std::unique_ptr<Server>> nodes_;
};

/// The shared cluster and a proxy before it.
struct ClusterStack {
  explicit ClusterStack(std::vector<std::string> proxy_options = {});
  RedisCluster& cluster;
  Proxy proxy;
};

/// The cluster that tests share, because a cluster takes seconds to start: restored, or a new one
/// if that fails. It ends with the program.
RedisCluster& shared_cluster();

}  // namespace nearcached::e2e
