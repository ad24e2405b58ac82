// The policies on traces made here: lru and gdsf against their plainest possible form, to the last
// miss; s3fifo against its definition; the others against what they are for.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <list>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
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

// Of equal ranks the one that was used longest ago leaves.
uint64_t gdsf_misses(const Trace& trace, Limit limit) {
  struct Held {
    double rank;
    double uses;
    uint64_t time;
  };
  std::map<uint32_t, Held> held;
  std::set<std::tuple<double, uint64_t, uint32_t>> order;
  double inflation = 0;
  uint64_t used = 0, missed = 0, time = 0;
  for (const Request& request : trace) {
    const double scale = 1e6 / static_cast<double>(limit.of(request.size));
    const auto it = held.find(request.id);
    ++time;
    if (it != held.end()) {
      order.erase({it->second.rank, it->second.time, request.id});
      const double uses = it->second.uses + 1;
      it->second = {inflation + uses * scale, uses, time};
      order.insert({it->second.rank, time, request.id});
      continue;
    }
    ++missed;
    while (used + limit.of(request.size) > limit.all()) {
      const auto [rank, last, id] = *order.begin();
      order.erase(order.begin());
      held.erase(id);
      used -= limit.of(size_of(id));
      inflation = rank;
    }
    held[request.id] = {inflation + scale, 1, time};
    order.insert({inflation + scale, time, request.id});
    used += limit.of(request.size);
  }
  return missed;
}

/// S3-FIFO by the book: FIFOs of a tenth and of the rest, a ghost of nine tenths.
class S3Fifo {
 public:
  explicit S3Fifo(Limit limit) : limit_(limit), trial_max_(limit.all() / 10) {}

  uint64_t misses(const Trace& trace) {
    uint64_t missed = 0;
    for (const Request& request : trace) missed += get(request) ? 0 : 1;
    return missed;
  }

 private:
  struct Held {
    uint32_t uses;
    bool main;
  };
  using Fifo = std::list<Request>;

  bool get(const Request& request) {
    const auto it = held_.find(request.id);
    if (it != held_.end()) return ++it->second.uses, true;
    const auto known = std::find_if(ghost_.begin(), ghost_.end(),
                                    [&](const Request& r) { return r.id == request.id; });
    const bool main = known != ghost_.end();
    if (main) {
      ghost_cost_ -= limit_.of(known->size);
      ghost_.erase(known);
    }
    const uint64_t cost = limit_.of(request.size);
    if (cost > trial_max_ || (!main && cost == trial_max_)) return false;
    while (cost_[0] + cost_[1] + cost > limit_.all()) evict();
    held_[request.id] = {0, main};
    push(request, main);
    return false;
  }
  void push(const Request& request, bool main) {
    fifo_[main].push_back(request);
    cost_[main] += limit_.of(request.size);
  }
  Request pop(bool main) {
    const Request oldest = fifo_[main].front();
    fifo_[main].pop_front();
    cost_[main] -= limit_.of(oldest.size);
    return oldest;
  }
  void evict() {
    const bool main = cost_[1] > limit_.all() - trial_max_ || fifo_[0].empty();
    while (!fifo_[main].empty()) {
      const Request oldest = pop(main);
      Held& its = held_[oldest.id];
      if (its.uses < (main ? 1u : 2u)) {
        held_.erase(oldest.id);
        if (!main) remember(oldest);
        return;
      }
      its = {main ? std::min(its.uses, 3u) - 1 : 0, true};
      push(oldest, true);
    }
  }
  void remember(const Request& request) {
    ghost_.push_back(request);
    ghost_cost_ += limit_.of(request.size);
    for (; ghost_cost_ > limit_.all() * 9 / 10; ghost_.pop_front())
      ghost_cost_ -= limit_.of(ghost_.front().size);
  }

  const Limit limit_;
  const uint64_t trial_max_;
  std::map<uint32_t, Held> held_;
  std::array<Fifo, 2> fifo_;  ///< trial, main
  std::array<uint64_t, 2> cost_ = {0, 0};
  Fifo ghost_;
  uint64_t ghost_cost_ = 0;
};

}  // namespace

TEST_CASE("lru misses exactly as often as an LRU does", "[l1]") {
  const Trace trace = skewed(60'000, 5'000);
  for (const uint64_t objects : {20, 200, 1000})
    CHECK(misses(L1Policy::lru, trace, {.objects = objects}) ==
          lru_misses(trace, {.objects = objects}));
  for (const uint64_t bytes : {20'000, 200'000, 900'000})
    CHECK(misses(L1Policy::lru, trace, {.bytes = bytes}) == lru_misses(trace, {.bytes = bytes}));
}

TEST_CASE("gdsf misses exactly as often as its definition says", "[l1]") {
  const Trace trace = skewed(60'000, 5'000);
  for (const uint64_t bytes : {20'000, 200'000, 900'000})
    CHECK(misses(L1Policy::gdsf, trace, {.bytes = bytes}) == gdsf_misses(trace, {.bytes = bytes}));
  for (const uint64_t objects : {20, 200, 1000})
    CHECK(misses(L1Policy::gdsf, trace, {.objects = objects}) ==
          gdsf_misses(trace, {.objects = objects}));
}

TEST_CASE("s3fifo misses as often as its definition says, also when sizes change", "[l1]") {
  // Every 10,000 requests what is new is ten times as large, or as small again: a ghost of so many
  // items instead of so many bytes is too long or too short after each turn.
  Trace trace = skewed(60'000, 5'000);
  for (size_t i = 0; i < trace.size(); ++i)
    if (i / 10'000 % 2 == 1) trace[i].id += 5'000, trace[i].size = trace[i].size / 10 + 1;
  const auto compare = [&](Limit limit) {
    const auto expected = static_cast<double>(S3Fifo(limit).misses(trace));
    const auto missed = static_cast<double>(misses(L1Policy::s3fifo, trace, limit));
    CHECK(std::abs(missed - expected) < 0.002 * static_cast<double>(trace.size()));
  };
  for (const uint64_t bytes : {60'000, 200'000, 900'000}) compare({.bytes = bytes});
  for (const uint64_t objects : {50, 200, 1000}) compare({.objects = objects});
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
