// The policies on traces made here: lru against the plainest possible LRU, to the last miss; gdsf
// against its definition; the others against what they are for.
#include <catch2/catch.hpp>
#include <cmath>
#include <list>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "nearcached/base/hash.h"
#include "nearcached/l1/table.h"

using namespace nearcached;

namespace {

constexpr uint64_t kSeed = 3;

struct Request {
  uint32_t id;
  uint32_t size;
};
using Trace = std::vector<Request>;

uint32_t size_of(uint32_t id) { return 20 + id * 2654435761u % 1500; }

/// Popularity falls with the rank; every tenth request is of something never seen again.
Trace skewed(unsigned requests, unsigned objects) {
  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> uniform(0, 1);
  Trace trace;
  for (unsigned i = 0; i < requests; ++i) {
    const auto rank = static_cast<uint32_t>(std::pow(objects, uniform(random)));
    const uint32_t id = i % 10 == 0 ? 1'000'000 + i : rank;
    trace.push_back({id, size_of(id)});
  }
  return trace;
}

Trace loop(unsigned rounds, unsigned objects) {
  Trace trace;
  for (unsigned i = 0; i < rounds * objects; ++i) trace.push_back({i % objects, 100});
  return trace;
}

struct Limit {
  uint64_t objects = 0;
  uint64_t bytes = 0;
  uint64_t of(uint32_t size) const { return objects != 0 ? 1 : size; }
  uint64_t all() const { return objects != 0 ? objects : bytes; }
};

uint64_t misses(L1Policy policy, const Trace& trace, Limit limit) {
  L1Table table({.memory_bytes = limit.objects != 0 ? uint64_t{1} << 50 : limit.bytes,
                 .entries_max = limit.objects,
                 .policy = policy,
                 .charge_overhead = false,
                 .hash_of = [](Bytes key) { return hash_key(key, kSeed); }});
  const std::string value(2000, 'v');
  uint64_t missed = 0;
  for (const Request& request : trace) {
    const std::string name = std::to_string(request.id);
    const L1Key key{hash_key(name, kSeed), 1, 1, name, {}};
    L1Hit hit;
    if (table.find(key, 1, hit)) continue;
    ++missed;
    table.put(key, {Bytes(value).substr(0, request.size), 0, 1, 1'000'000, false, false}, 1);
  }
  table.check_invariants();
  return missed;
}

uint64_t lru_misses(const Trace& trace, Limit limit) {
  std::list<Request> order;
  std::map<uint32_t, std::list<Request>::iterator> places;
  uint64_t used = 0, missed = 0;
  for (const Request& request : trace) {
    const auto it = places.find(request.id);
    if (it != places.end()) {
      order.splice(order.begin(), order, it->second);
      continue;
    }
    ++missed;
    for (; used + limit.of(request.size) > limit.all(); order.pop_back()) {
      used -= limit.of(order.back().size);
      places.erase(order.back().id);
    }
    order.push_front(request);
    places[request.id] = order.begin();
    used += limit.of(request.size);
  }
  return missed;
}

uint64_t gdsf_misses(const Trace& trace, Limit limit) {
  struct Held {
    double rank;
    double uses;
  };
  std::map<uint32_t, Held> held;
  std::set<std::pair<double, uint32_t>> order;
  double inflation = 0;
  uint64_t used = 0, missed = 0;
  for (const Request& request : trace) {
    const auto cost = static_cast<double>(limit.of(request.size));
    const auto it = held.find(request.id);
    if (it != held.end()) {
      order.erase({it->second.rank, request.id});
      it->second.rank = inflation + ++it->second.uses / cost;
      order.insert({it->second.rank, request.id});
      continue;
    }
    ++missed;
    while (used + limit.of(request.size) > limit.all()) {
      const auto [rank, id] = *order.begin();
      order.erase(order.begin());
      held.erase(id);
      used -= limit.of(size_of(id));
      inflation = rank;
    }
    held[request.id] = {inflation + 1 / cost, 1};
    order.insert({inflation + 1 / cost, request.id});
    used += limit.of(request.size);
  }
  return missed;
}

}  // namespace

TEST_CASE("lru misses exactly as often as an LRU does", "[l1]") {
  const Trace trace = skewed(60'000, 5'000);
  for (const uint64_t objects : {20, 200, 1000})
    CHECK(misses(L1Policy::lru, trace, {.objects = objects}) ==
          lru_misses(trace, {.objects = objects}));
  for (const uint64_t bytes : {20'000, 200'000, 900'000})
    CHECK(misses(L1Policy::lru, trace, {.bytes = bytes}) == lru_misses(trace, {.bytes = bytes}));
}

TEST_CASE("gdsf misses as often as its definition says", "[l1]") {
  const Trace trace = skewed(60'000, 5'000);
  for (const uint64_t bytes : {20'000, 200'000, 900'000}) {
    const auto expected = static_cast<double>(gdsf_misses(trace, {.bytes = bytes}));
    // Only what is of equal rank may leave in another order.
    CHECK(static_cast<double>(misses(L1Policy::gdsf, trace, {.bytes = bytes})) ==
          Approx(expected).epsilon(0.002));
  }
}

TEST_CASE("by bytes auto misses least of all policies, by objects less than lru", "[l1]") {
  const Trace trace = skewed(60'000, 5'000);
  for (const uint64_t bytes : {30'000, 300'000}) {
    const uint64_t least = misses(L1Policy::automatic, trace, {.bytes = bytes});
    for (const L1Policy other :
         {L1Policy::lru, L1Policy::lfu, L1Policy::random, L1Policy::s3fifo, L1Policy::gdsf})
      CHECK(least <= misses(other, trace, {.bytes = bytes}));
  }
  for (const uint64_t objects : {50, 500})
    CHECK(misses(L1Policy::automatic, trace, {.objects = objects}) * 20 <
          misses(L1Policy::lru, trace, {.objects = objects}) * 19);
}

TEST_CASE("a loop over more than the budget misses no oftener with auto than with lru", "[l1]") {
  const Trace trace = loop(10, 2'000);
  const uint64_t all = trace.size();
  REQUIRE(misses(L1Policy::lru, trace, {.objects = 500}) == all);
  CHECK(misses(L1Policy::automatic, trace, {.objects = 500}) <= all);
}

TEST_CASE("lfu lets go in time of what was popular long ago", "[l1]") {
  Trace trace;
  for (unsigned i = 0; i < 100'000; ++i) trace.push_back({i % 100, 100});
  const uint64_t before = misses(L1Policy::lfu, trace, {.objects = 100});
  REQUIRE(before == 100);
  for (unsigned i = 0; i < 400'000; ++i) trace.push_back({1'000 + i % 150, 100});
  // Without ageing the 100 of the past would stay for ever and leave nothing for the 150.
  CHECK(misses(L1Policy::lfu, trace, {.objects = 160}) < 100'000);
}

TEST_CASE("random evicts the old and the young alike", "[l1]") {
  // A loop of twice the cache: LRU never hits, an even lot keeps some.
  const Trace trace = loop(50, 1'000);
  const uint64_t missed = misses(L1Policy::random, trace, {.objects = 500});
  CHECK(missed < trace.size() * 85 / 100);
  CHECK(missed > trace.size() * 65 / 100);
}
