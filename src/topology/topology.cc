// Every change is a whole new snapshot: copying one is 160 KB, and topologies change a few times a
// day, or some hundred times while slots are moved. What is read on every request is then a plain
// array without a lock or a reference count. Rejected: ranges in a sorted vector, smaller by far,
// but a search per key, and a reshard makes hundreds of ranges.
//
// Invariants: an owner is an index into nodes_, not gone and not a replica. Nodes are only ever
// appended, so an index keeps its meaning.
#include "nearcached/topology/topology.h"

#include <algorithm>

#include "nearcached/base/check.h"

namespace nearcached {
namespace {

// The node at this address, appended if it is new; kNoNode if there is no room for it.
NodeIndex find_or_add(std::vector<TopologyNode>& nodes, const Address& address, size_t nodes_max) {
  const auto at = std::find_if(nodes.begin(), nodes.end(),
                               [&](const TopologyNode& node) { return node.address == address; });
  if (at != nodes.end()) return static_cast<NodeIndex>(at - nodes.begin());
  if (nodes.size() >= std::min<size_t>(nodes_max, kNoNode)) return kNoNode;
  nodes.push_back({address, {}, kNoNode, false});
  return static_cast<NodeIndex>(nodes.size() - 1);
}

// A node that is known by its id, at an address where nobody was: a pod that was started anew. It
// stays the same node.
NodeIndex find_moved(std::vector<TopologyNode>& nodes, const SlotRange::Node& said) {
  const auto is_there = [&](const TopologyNode& node) { return node.address == said.address; };
  if (said.id.empty() || std::any_of(nodes.begin(), nodes.end(), is_there)) return kNoNode;
  const auto at = std::find_if(nodes.begin(), nodes.end(),
                               [&](const TopologyNode& node) { return node.id == said.id; });
  if (at == nodes.end()) return kNoNode;
  at->address = said.address;
  return static_cast<NodeIndex>(at - nodes.begin());
}

Error too_many(size_t nodes_max) {
  return Error{"more than " + std::to_string(nodes_max) + " nodes were seen (limits.nodes)"};
}

std::string show(const SlotRange& range) {
  return std::to_string(range.first) + "-" + std::to_string(range.last);
}

}  // namespace

std::shared_ptr<Topology> Topology::after(const Topology& before) {
  std::shared_ptr<Topology> next(new Topology(before));
  ++next->version_;
  return next;
}

std::shared_ptr<const Topology> Topology::single(const Address& address) {
  std::shared_ptr<Topology> made(new Topology());
  made->nodes_.push_back({address, {}, kNoNode, false});
  made->owner_.fill(address == Address{} ? kNoNode : 0);
  return made;
}

std::shared_ptr<const Topology> Topology::unknown(const std::vector<Address>& seeds) {
  std::shared_ptr<Topology> made(new Topology());
  made->cluster_ = true;
  for (const Address& seed : seeds) find_or_add(made->nodes_, seed, kNoNode);
  made->owner_.fill(kNoNode);
  return made;
}

Result<std::shared_ptr<const Topology>> Topology::from_ranges(const Topology& before,
                                                              const std::vector<SlotRange>& ranges,
                                                              uint64_t now_ms, size_t nodes_max) {
  const std::shared_ptr<Topology> next = after(before);
  next->owner_.fill(kNoNode);
  for (TopologyNode& node : next->nodes_) node.gone = true;
  const auto place = [&](const SlotRange::Node& said, NodeIndex primary) {
    NodeIndex index = find_moved(next->nodes_, said);
    if (index == kNoNode) index = find_or_add(next->nodes_, said.address, nodes_max);
    if (index == kNoNode) return index;
    TopologyNode& node = next->nodes_[index];
    node.gone = false;
    node.primary = primary;
    if (!said.id.empty()) node.id = said.id;
    return index;
  };

  for (const SlotRange& range : ranges) {
    if (range.first > range.last || range.last >= kSlots)
      return Error{"slots " + show(range) + " do not exist"};
    if (range.nodes.empty()) return Error{"slots " + show(range) + " have no node"};
    const NodeIndex owner = place(range.nodes.front(), kNoNode);
    if (owner == kNoNode) return too_many(nodes_max);
    for (size_t slot = range.first; slot <= range.last; ++slot) {
      if (next->owner_[slot] != kNoNode)
        return Error{"slot " + std::to_string(slot) + " is in two ranges"};
      next->owner_[slot] = owner;
    }
  }
  // Replicas only now: nodes that announce one address for two (a wrong cluster-announce-ip) must
  // not turn a primary into a replica.
  const std::vector<NodeIndex> primaries = next->primaries();
  for (const SlotRange& range : ranges)
    for (size_t i = 1; i < range.nodes.size(); ++i) {
      const NodeIndex known = next->find(range.nodes[i].address);
      if (std::binary_search(primaries.begin(), primaries.end(), known)) continue;
      if (place(range.nodes[i], next->owner_[range.first]) == kNoNode) return too_many(nodes_max);
    }
  for (size_t slot = 0; slot < kSlots; ++slot)
    if (next->owner_[slot] != before.owner_[slot])
      next->moved_ms_[slot] = next->last_moved_ms_ = now_ms;
  return std::shared_ptr<const Topology>(next);
}

Result<std::shared_ptr<const Topology>> Topology::with_moved(const Topology& before, uint16_t slot,
                                                             const Address& address,
                                                             uint64_t now_ms, size_t nodes_max) {
  NC_CHECK(slot < kSlots);
  if (!before.cluster_) return Error{"a slot has moved, but the upstream is not set as a cluster"};
  const NodeIndex known = before.find(address);
  if (known != kNoNode && before.owner_[slot] == known) return std::shared_ptr<const Topology>();
  const std::shared_ptr<Topology> next = after(before);
  const NodeIndex owner = find_or_add(next->nodes_, address, nodes_max);
  if (owner == kNoNode) return too_many(nodes_max);
  next->nodes_[owner].primary = kNoNode;
  next->nodes_[owner].gone = false;
  next->owner_[slot] = owner;
  next->moved_ms_[slot] = next->last_moved_ms_ = now_ms;
  return std::shared_ptr<const Topology>(next);
}

Result<std::shared_ptr<const Topology>> Topology::with_node(const Topology& before,
                                                            const Address& address,
                                                            size_t nodes_max) {
  if (before.find(address) != kNoNode) return std::shared_ptr<const Topology>();
  const std::shared_ptr<Topology> next = after(before);
  if (find_or_add(next->nodes_, address, nodes_max) == kNoNode) return too_many(nodes_max);
  return std::shared_ptr<const Topology>(next);
}

std::shared_ptr<const Topology> Topology::with_address(const Topology& before,
                                                       const Address& address, uint64_t now_ms) {
  NC_CHECK(!before.cluster_);
  const std::shared_ptr<Topology> next = after(before);
  next->nodes_.front().address = address;
  next->owner_.fill(0);
  next->moved_ms_.fill(now_ms);
  next->last_moved_ms_ = now_ms;
  return next;
}

bool Topology::says_the_same(const Topology& other) const {
  return cluster_ == other.cluster_ && nodes_ == other.nodes_ && owner_ == other.owner_;
}

NodeIndex Topology::find(const Address& address) const {
  for (size_t i = 0; i < nodes_.size(); ++i)
    if (nodes_[i].address == address) return static_cast<NodeIndex>(i);
  return kNoNode;
}

std::vector<NodeIndex> Topology::replicas_of(NodeIndex primary) const {
  std::vector<NodeIndex> replicas;
  for (size_t i = 0; i < nodes_.size(); ++i)
    if (primary != kNoNode && nodes_[i].primary == primary && !nodes_[i].gone)
      replicas.push_back(static_cast<NodeIndex>(i));
  return replicas;
}

std::vector<NodeIndex> Topology::primaries() const {
  std::vector<bool> owns(nodes_.size());
  for (const NodeIndex owner : owner_)
    if (owner != kNoNode) owns[owner] = true;
  std::vector<NodeIndex> primaries;
  for (size_t i = 0; i < owns.size(); ++i)
    if (owns[i]) primaries.push_back(static_cast<NodeIndex>(i));
  return primaries;
}

unsigned Topology::slots_covered() const {
  return static_cast<unsigned>(std::count_if(owner_.begin(), owner_.end(),
                                             [](NodeIndex owner) { return owner != kNoNode; }));
}

}  // namespace nearcached
