// The one place where everybody finds the present snapshot.
#include <catch2/catch.hpp>
#include <thread>

#include "discovery/discovery.h"

using namespace nearcached;

namespace {

Config config_of(const std::string& url, uint32_t nodes = 16) {
  auto config = parse_config(
      "[upstream]\nurl = \"" + url + "\"\n[limits]\nnodes = " + std::to_string(nodes), "test");
  REQUIRE(config);
  return config.value();
}

Address at(uint16_t port) { return {"127.0.0.1", port, {}}; }

const std::vector<SlotRange> kTwo{{0, 8191, {{at(1), "a"}, {at(2), "b"}}},
                                  {8192, 16383, {{at(3), "c"}}}};

}  // namespace

TEST_CASE("what is known at first follows from the URL", "[discovery]") {
  const TopologyStore single(config_of("redis://127.0.0.1:1"));
  CHECK_FALSE(single.get()->cluster());
  CHECK(single.get()->nodes()[0].address == at(1));
  CHECK(single.get()->slots_covered() == kSlots);
  const TopologyStore cluster(config_of("redis+cluster://127.0.0.1:1,127.0.0.1:2"));
  CHECK(cluster.get()->cluster());
  CHECK(cluster.get()->nodes().size() == 2);
  CHECK(cluster.get()->slots_covered() == 0);
  const TopologyStore sentinel(config_of("redis+sentinel://127.0.0.1:1/s"));
  CHECK_FALSE(sentinel.get()->cluster());
  CHECK(sentinel.get()->slots_covered() == 0);
  CHECK(sentinel.get()->find(at(1)) == kNoNode);
}

TEST_CASE("an answer makes a new snapshot only if it says something new", "[discovery]") {
  TopologyStore store(config_of("redis+cluster://127.0.0.1:1"));
  const auto replace = [&](const std::vector<SlotRange>& ranges) {
    const auto replaced = store.replace(ranges, 5);
    REQUIRE(replaced);
    return replaced.value();
  };
  CHECK(replace(kTwo));
  const uint64_t version = store.version();
  CHECK(version == store.get()->version());
  CHECK_FALSE(replace(kTwo));
  CHECK(store.version() == version);
  CHECK(replace({kTwo[0]}));
  CHECK(store.version() > version);
}

TEST_CASE("an answer that is refused leaves what was known", "[discovery]") {
  TopologyStore store(config_of("redis+cluster://127.0.0.1:1", 3));
  REQUIRE(store.replace(kTwo, 5));
  const auto known = store.get();
  CHECK_FALSE(store.replace({{0, 5, {}}}, 6));
  CHECK_FALSE(store.replace({{0, 5, {{at(9), ""}}}}, 6));
  CHECK_FALSE(store.move_slot(5, at(9), 6));
  CHECK(store.get() == known);
  CHECK(store.version() == known->version());
}

TEST_CASE("MOVED is in the store at once, and news only once", "[discovery]") {
  TopologyStore store(config_of("redis+cluster://127.0.0.1:1"));
  REQUIRE(store.replace(kTwo, 5));
  CHECK(store.move_slot(5, at(3), 6));
  CHECK(store.get()->owner(5) == store.get()->find(at(3)));
  const uint64_t version = store.version();
  CHECK_FALSE(store.move_slot(5, at(3), 7));
  CHECK(store.version() == version);
}

TEST_CASE("another primary's address is news only if it is another", "[discovery]") {
  TopologyStore store(config_of("redis+sentinel://127.0.0.1:1/s"));
  CHECK(store.set_address(at(7), 5));
  CHECK(store.get()->slots_covered() == kSlots);
  CHECK_FALSE(store.set_address(at(7), 6));
  CHECK(store.set_address(at(8), 7));
  CHECK(store.get()->nodes().size() == 1);
  CHECK(store.get()->moved_ms(0) == 7);
}

TEST_CASE("changes of many threads are all in the last snapshot", "[discovery]") {
  TopologyStore store(config_of("redis+cluster://127.0.0.1:1"));
  REQUIRE(store.replace(kTwo, 5));
  const uint64_t version = store.version();
  std::vector<std::thread> threads;
  for (uint16_t first = 0; first < 4; ++first)
    threads.emplace_back([&store, first] {
      for (uint16_t slot = first; slot < 200; slot = static_cast<uint16_t>(slot + 4))
        store.move_slot(slot, at(3), 6);
    });
  for (std::thread& thread : threads) thread.join();
  const auto topology = store.get();
  CHECK(topology->version() == version + 200);
  for (uint16_t slot = 0; slot < 200; ++slot) CHECK(topology->owner(slot) == topology->find(at(3)));
}
