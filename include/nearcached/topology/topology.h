// Topology: who owns what, as of one moment. An immutable snapshot, shared by all workers.
//
// A node keeps its index in every later snapshot, also when it has left (`gone`), so an index is
// enough to name a node for the life of the process. One Redis, or the primary of a Sentinel
// service, is node 0, owning every slot; when Sentinel names another primary, node 0 has another
// address.
// Pure: time is an argument. Thread: immutable once made.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nearcached/base/result.h"
#include "nearcached/config/config.h"
#include "nearcached/topology/slots.h"

namespace nearcached {

using NodeIndex = uint16_t;
constexpr NodeIndex kNoNode = UINT16_MAX;

struct TopologyNode {
  Address address;
  std::string id;               ///< the cluster's own name for it; may be empty
  NodeIndex primary = kNoNode;  ///< of a replica: whose; of a primary: kNoNode
  bool gone = false;            ///< in no later answer of the cluster
  bool operator==(const TopologyNode&) const = default;
};

/// One row of CLUSTER SLOTS.
struct SlotRange {
  uint16_t first = 0, last = 0;
  struct Node {
    Address address;
    std::string id;
  };
  std::vector<Node> nodes;  ///< the primary, then its replicas
};

class Topology {
 public:
  /// One Redis. An address that is empty is not known yet (Sentinel): no slot has an owner.
  static std::shared_ptr<const Topology> single(const Address& address);
  /// A cluster of which only the seeds are known: no slot has an owner.
  static std::shared_ptr<const Topology> unknown(const std::vector<Address>& seeds);

  /// What comes after `before` when the cluster has answered `ranges` at `now_ms` (monotonic).
  /// Every slot whose owner differs from before has `moved_ms` = now_ms. An address that stands for
  /// a primary and a replica is the primary's. Error: ranges that overlap or have no nodes, or more
  /// than `nodes_max` nodes ever seen. A node is known by its address, or by its id at a new one.
  static Result<std::shared_ptr<const Topology>> from_ranges(const Topology& before,
                                                             const std::vector<SlotRange>& ranges,
                                                             uint64_t now_ms, size_t nodes_max);

  /// A node has said `MOVED slot address`. Null if that is what was known already. A node that was
  /// a replica until now is a primary from now on. Error: no cluster, or too many nodes.
  static Result<std::shared_ptr<const Topology>> with_moved(const Topology& before, uint16_t slot,
                                                            const Address& address, uint64_t now_ms,
                                                            size_t nodes_max);
  /// A node that owns nothing yet. Null if it was known already.
  static Result<std::shared_ptr<const Topology>> with_node(const Topology& before,
                                                           const Address& address,
                                                           size_t nodes_max);
  /// Node 0 has another address (Sentinel).
  static std::shared_ptr<const Topology> with_address(const Topology& before,
                                                      const Address& address, uint64_t now_ms);

  bool cluster() const { return cluster_; }
  /// Grows with every snapshot.
  uint64_t version() const { return version_; }
  const std::vector<TopologyNode>& nodes() const { return nodes_; }
  NodeIndex owner(uint16_t slot) const { return owner_[slot]; }
  /// When its owner was last found to have changed (monotonic ms); 0: never.
  uint64_t moved_ms(uint16_t slot) const { return moved_ms_[slot]; }
  /// The latest moved_ms of all slots.
  uint64_t last_moved_ms() const { return last_moved_ms_; }
  /// The node at this address; kNoNode if there is none.
  NodeIndex find(const Address& address) const;
  /// Replicas of a primary that are not gone.
  std::vector<NodeIndex> replicas_of(NodeIndex primary) const;
  /// Primaries that own a slot, by index.
  std::vector<NodeIndex> primaries() const;
  unsigned slots_covered() const;
  /// Nodes, roles and owners are those of `other`; version and moved_ms may differ.
  bool says_the_same(const Topology& other) const;

 private:
  Topology() = default;
  static std::shared_ptr<Topology> after(const Topology& before);

  bool cluster_ = false;
  uint64_t version_ = 1;
  std::vector<TopologyNode> nodes_;
  std::array<NodeIndex, kSlots> owner_{};
  std::array<uint64_t, kSlots> moved_ms_{};
  uint64_t last_moved_ms_ = 0;
};

/// Whether a node may announce itself under this host: a name or an address in printable
/// characters.
bool is_announced_host(Bytes host);

/// What a node says when it is not the right one, or not now.
struct Redirect {
  enum class Kind : uint8_t {
    none,       ///< an error like any other
    moved,      ///< `address` owns `slot`
    ask,        ///< `address` may have the key: once, behind ASKING
    try_again,  ///< TRYAGAIN: some keys have moved, some not yet
    down,       ///< CLUSTERDOWN
    loading,    ///< LOADING, MASTERDOWN
    readonly,   ///< READONLY: a replica was asked to write
  } kind = Kind::none;
  uint16_t slot = 0;
  Address address;  ///< host empty: the node that was asked, with `address.port`
};

/// Reads one error reply ("-MOVED 3999 127.0.0.1:6381\r\n"). Malformed ones are Kind::none. An
/// empty host, and "?", are handed on as an empty host.
Redirect parse_redirect(Bytes error_reply);

}  // namespace nearcached
