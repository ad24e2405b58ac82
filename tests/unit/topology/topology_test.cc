// What follows from what, snapshot by snapshot.
#include "nearcached/topology/topology.h"

#include <catch2/catch.hpp>

using namespace nearcached;

namespace {

using Snapshot = std::shared_ptr<const Topology>;
constexpr size_t kNodesMax = 16;

Address at(uint16_t port) { return {"127.0.0.1", port, {}}; }
SlotRange::Node node(uint16_t port) { return {at(port), "id" + std::to_string(port)}; }

const std::vector<SlotRange> kThree{
    {0, 5460, {node(1), node(11)}},
    {5461, 10922, {node(2), node(12)}},
    {10923, 16383, {node(3), node(13)}},
};

Snapshot after(const Topology& before, const std::vector<SlotRange>& ranges, uint64_t now_ms = 1) {
  const auto next = Topology::from_ranges(before, ranges, now_ms, kNodesMax);
  REQUIRE(next);
  return next.value();
}

Snapshot three() { return after(*Topology::unknown({at(1)}), kThree); }

std::string error_of(const std::vector<SlotRange>& ranges, size_t nodes_max = kNodesMax) {
  const auto next = Topology::from_ranges(*Topology::unknown({}), ranges, 1, nodes_max);
  REQUIRE_FALSE(next);
  return next.error().detail;
}

}  // namespace

TEST_CASE("one Redis is node 0 and owns every slot", "[topology]") {
  const Snapshot one = Topology::single(at(1));
  CHECK_FALSE(one->cluster());
  CHECK(one->version() == 1);
  CHECK(one->slots_covered() == kSlots);
  CHECK(one->owner(0) == 0);
  CHECK(one->owner(kSlots - 1) == 0);
  CHECK(one->moved_ms(0) == 0);
  CHECK(one->last_moved_ms() == 0);
  CHECK(one->primaries() == std::vector<NodeIndex>{0});
  CHECK(one->replicas_of(0).empty());
  CHECK(one->find(at(1)) == 0);
  CHECK(one->find(at(2)) == kNoNode);
}

TEST_CASE("an address that is not known yet owns nothing until it is", "[topology]") {
  const Snapshot none = Topology::single({});
  CHECK(none->nodes().size() == 1);
  CHECK(none->slots_covered() == 0);
  const Snapshot found = Topology::with_address(*none, at(7), 40);
  CHECK(found->slots_covered() == kSlots);
  CHECK(found->nodes()[0].address == at(7));
}

TEST_CASE("another address of node 0 moves every slot", "[topology]") {
  const Snapshot before = Topology::single(at(1));
  const Snapshot next = Topology::with_address(*before, at(2), 40);
  CHECK(next->version() > before->version());
  CHECK(next->find(at(2)) == 0);
  CHECK(next->find(at(1)) == kNoNode);
  CHECK(next->nodes().size() == 1);
  CHECK(next->owner(123) == 0);
  CHECK(next->moved_ms(0) == 40);
  CHECK(next->moved_ms(kSlots - 1) == 40);
  CHECK(next->last_moved_ms() == 40);
  CHECK(before->nodes()[0].address == at(1));
}

TEST_CASE("of seeds nothing but their addresses is known", "[topology]") {
  const Snapshot unknown = Topology::unknown({at(1), at(2), at(1)});
  CHECK(unknown->cluster());
  CHECK(unknown->nodes().size() == 2);
  CHECK(unknown->slots_covered() == 0);
  CHECK(unknown->primaries().empty());
  CHECK(unknown->owner(5) == kNoNode);
}

TEST_CASE("an answer says who owns what and who follows whom", "[topology]") {
  const Snapshot map = three();
  CHECK(map->slots_covered() == kSlots);
  CHECK(map->primaries().size() == 3);
  CHECK(map->owner(0) == map->find(at(1)));
  CHECK(map->owner(5460) == map->find(at(1)));
  CHECK(map->owner(5461) == map->find(at(2)));
  CHECK(map->owner(16383) == map->find(at(3)));
  CHECK(map->replicas_of(map->find(at(2))) == std::vector<NodeIndex>{map->find(at(12))});
  CHECK(map->replicas_of(map->find(at(12))).empty());
  CHECK(map->replicas_of(kNoNode).empty());
  CHECK(map->nodes()[map->find(at(3))].id == "id3");
  CHECK(map->nodes()[map->find(at(13))].primary == map->find(at(3)));
  CHECK(map->moved_ms(9) == 1);
}

TEST_CASE("only the slots whose owner differs have moved", "[topology]") {
  const Snapshot map = three();
  std::vector<SlotRange> ranges = kThree;
  ranges[0].last = 5000;
  ranges[1].first = 5001;
  const Snapshot next = after(*map, ranges, 40);
  CHECK(next->version() > map->version());
  CHECK(next->moved_ms(5000) == 1);
  CHECK(next->moved_ms(5001) == 40);
  CHECK(next->moved_ms(5460) == 40);
  CHECK(next->moved_ms(5461) == 1);
}

TEST_CASE("a slot that nobody serves any more has moved, and again when it is served",
          "[topology]") {
  std::vector<SlotRange> ranges = kThree;
  ranges.pop_back();
  const Snapshot lost = after(*three(), ranges, 40);
  CHECK(lost->slots_covered() == 10923);
  CHECK(lost->owner(10923) == kNoNode);
  CHECK(lost->moved_ms(10923) == 40);
  CHECK(lost->nodes()[lost->find(at(3))].gone);
  const Snapshot found = after(*lost, kThree, 50);
  CHECK(found->moved_ms(10923) == 50);
  CHECK(found->last_moved_ms() == 50);
  CHECK(found->moved_ms(0) == 1);
}

TEST_CASE("a node keeps its index when it leaves and when it comes back", "[topology]") {
  const Snapshot map = three();
  std::vector<SlotRange> ranges = kThree;
  ranges[1].nodes = {node(12), node(14)};
  const Snapshot next = after(*map, ranges, 40);
  CHECK(next->nodes()[map->find(at(2))].address == at(2));
  CHECK(next->nodes()[map->find(at(2))].gone);
  CHECK(next->nodes()[map->find(at(12))].primary == kNoNode);
  CHECK(next->owner(6000) == map->find(at(12)));
  CHECK(next->find(at(14)) == map->nodes().size());
  const Snapshot back = after(*next, kThree, 50);
  CHECK(back->find(at(2)) == map->find(at(2)));
  CHECK_FALSE(back->nodes()[map->find(at(2))].gone);
  CHECK(back->nodes()[map->find(at(12))].primary == map->find(at(2)));
  CHECK(back->nodes()[next->find(at(14))].gone);
  CHECK(back->replicas_of(map->find(at(12))).empty());
}

TEST_CASE("a replica that is gone is no replica", "[topology]") {
  std::vector<SlotRange> ranges = kThree;
  ranges[2].nodes.pop_back();
  const Snapshot map = after(*three(), ranges);
  CHECK(map->replicas_of(map->find(at(3))).empty());
}

TEST_CASE("an address announced for a primary and a replica is the primary's", "[topology]") {
  std::vector<SlotRange> ranges = kThree;
  ranges[0].nodes = {node(1), node(3), node(1)};
  const Snapshot map = after(*Topology::unknown({}), ranges);
  CHECK(map->nodes()[map->find(at(3))].primary == kNoNode);
  CHECK(map->nodes()[map->find(at(1))].primary == kNoNode);
  CHECK(map->replicas_of(map->find(at(1))).empty());
}

TEST_CASE("an id that is left out does not erase the one known", "[topology]") {
  std::vector<SlotRange> ranges = kThree;
  ranges[0].nodes[0].id.clear();
  const Snapshot map = after(*three(), ranges);
  CHECK(map->nodes()[map->find(at(1))].id == "id1");
}

TEST_CASE("an answer that contradicts itself is refused", "[topology]") {
  CHECK(error_of({{0, 10, {node(1)}}, {10, 20, {node(2)}}}) == "slot 10 is in two ranges");
  CHECK(error_of({{0, 10, {}}}) == "slots 0-10 have no node");
  CHECK(error_of({{5, 4, {node(1)}}}) == "slots 5-4 do not exist");
  CHECK(error_of({{16383, 16384, {node(1)}}}) == "slots 16383-16384 do not exist");
}

TEST_CASE("more nodes than the limit are refused, whatever their role", "[topology]") {
  const std::string reason = "more than 2 nodes were seen (limits.nodes)";
  CHECK(error_of({{0, 1, {node(1), node(2), node(3)}}}, 2) == reason);
  CHECK(error_of({{0, 0, {node(1)}}, {1, 1, {node(2)}}, {2, 2, {node(3)}}}, 2) == reason);
  const auto full =
      Topology::from_ranges(*Topology::unknown({at(1)}), {{0, 1, {node(1), node(2)}}}, 1, 2);
  CHECK(full);
  // Those that are gone count: their indices are still in use.
  CHECK_FALSE(Topology::from_ranges(*full.value(), {{0, 1, {node(3)}}}, 1, 2));
}

TEST_CASE("an answer that says what is known says the same", "[topology]") {
  const Snapshot map = three();
  CHECK(after(*map, kThree, 40)->says_the_same(*map));
  std::vector<SlotRange> ranges = kThree;
  ranges[0].nodes.pop_back();
  CHECK_FALSE(after(*map, ranges)->says_the_same(*map));
  ranges = kThree;
  ranges[0].last = 5459;
  CHECK_FALSE(after(*map, ranges)->says_the_same(*map));
  CHECK_FALSE(Topology::single({})->says_the_same(*Topology::unknown({Address{}})));
}

TEST_CASE("a node that comes back at another address is the same node", "[topology]") {
  const Snapshot map = three();
  auto ranges = kThree;
  ranges[1].nodes[0].address = at(92);
  const Snapshot moved = after(*map, ranges, 40);
  CHECK(moved->nodes().size() == map->nodes().size());
  CHECK(moved->find(at(92)) == map->find(at(2)));
  CHECK(moved->find(at(2)) == kNoNode);
  CHECK(moved->owner(6000) == map->owner(6000));
}

TEST_CASE("two nodes that change addresses with each other are told by their addresses",
          "[topology]") {
  const Snapshot map = three();
  auto ranges = kThree;
  std::swap(ranges[0].nodes[0].address, ranges[1].nodes[0].address);
  const Snapshot swapped = after(*map, ranges, 40);
  CHECK(swapped->owner(0) == map->find(at(2)));
  CHECK(swapped->owner(6000) == map->find(at(1)));
  CHECK(swapped->moved_ms(0) == 40);
}

TEST_CASE("a node that ASK names is known before it owns anything", "[topology]") {
  const Snapshot map = three();
  const auto next = Topology::with_node(*map, at(99), kNodesMax);
  REQUIRE(next);
  const NodeIndex added = next.value()->find(at(99));
  CHECK(added != kNoNode);
  CHECK(next.value()->version() > map->version());
  for (const unsigned slot : {0u, 7u, 16383u})
    CHECK(next.value()->owner(static_cast<uint16_t>(slot)) ==
          map->owner(static_cast<uint16_t>(slot)));
  const auto again = Topology::with_node(*next.value(), at(99), kNodesMax);
  REQUIRE(again);
  CHECK(again.value() == nullptr);
  CHECK_FALSE(Topology::with_node(*map, at(98), map->nodes().size()));
}

TEST_CASE("MOVED gives one slot to another node", "[topology]") {
  const Snapshot map = three();
  const auto next = Topology::with_moved(*map, 7, at(2), 40, kNodesMax);
  REQUIRE(next);
  REQUIRE(next.value() != nullptr);
  CHECK(next.value()->version() > map->version());
  CHECK(next.value()->owner(7) == map->find(at(2)));
  CHECK(next.value()->moved_ms(7) == 40);
  CHECK(next.value()->owner(8) == map->find(at(1)));
  CHECK(next.value()->moved_ms(8) == 1);
}

TEST_CASE("MOVED to where the slot is already known to be is no news", "[topology]") {
  const auto next = Topology::with_moved(*three(), 7, at(1), 40, kNodesMax);
  REQUIRE(next);
  CHECK(next.value() == nullptr);
}

TEST_CASE("MOVED to a replica makes it a primary", "[topology]") {
  const Snapshot map = three();
  const auto next = Topology::with_moved(*map, 7, at(11), 40, kNodesMax);
  REQUIRE(next);
  CHECK(next.value()->nodes()[map->find(at(11))].primary == kNoNode);
  CHECK(next.value()->replicas_of(map->find(at(1))).empty());
  CHECK(next.value()->primaries().size() == 4);
}

TEST_CASE("MOVED to a node that was gone, or that nobody knew, makes it known", "[topology]") {
  std::vector<SlotRange> ranges = kThree;
  ranges[1].nodes = {node(12)};
  const Snapshot map = after(*three(), ranges);
  const auto back = Topology::with_moved(*map, 7, at(2), 40, kNodesMax);
  REQUIRE(back);
  CHECK_FALSE(back.value()->nodes()[map->find(at(2))].gone);
  const auto added = Topology::with_moved(*map, 7, at(99), 40, kNodesMax);
  REQUIRE(added);
  CHECK(added.value()->owner(7) == map->nodes().size());
  CHECK_FALSE(Topology::with_moved(*map, 7, at(99), 40, map->nodes().size()));
}

TEST_CASE("slots of one Redis do not move", "[topology]") {
  CHECK_FALSE(Topology::with_moved(*Topology::single(at(1)), 7, at(2), 40, kNodesMax));
}
