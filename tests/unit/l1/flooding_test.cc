// Keys that somebody has chosen: who does not know the seed cannot make a bucket long, and where
// the worst has happened all the same the index is only slow.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "l1/index.h"
#include "l1/store.h"
#include "nearcached/base/hash.h"
#include "nearcached/l1/table.h"

using namespace nearcached;
using l1::Address;
using l1::Index;
using l1::Store;

namespace {

constexpr uint64_t kOurSeed = 0x0123456789ABCDEF;

/// An index of keys alone: a key's place is its number + 1.
class Keys {
 public:
  explicit Keys(uint64_t seed)
      : seed_(seed),
        index_(1 << 22, 4096, [this](Index::Place place) { return address_of(keys_[place - 1]); }) {
  }

  void add(std::string key) {
    keys_.push_back(std::move(key));
    index_.insert(address_of(keys_.back()), static_cast<Index::Place>(keys_.size()));
    index_.step();
  }
  uint64_t longest_bucket() const {
    uint64_t longest = 0;
    for (uint64_t bucket = 0; bucket < index_.bucket_count(); ++bucket) {
      uint64_t items = 0;
      index_.for_each(bucket, [&](Index::Place) { ++items; });
      longest = std::max(longest, items);
    }
    return longest;
  }
  /// Of all keys: how many others are compared before the one that is looked for, at most.
  uint64_t most_compared() const {
    uint64_t most = 0;
    for (Index::Place place = 1; place <= keys_.size(); ++place) {
      uint64_t compared = 0;
      REQUIRE(index_.find(address_of(keys_[place - 1]), [&](Index::Place candidate) {
        ++compared;
        return candidate == place;
      }) == place);
      most = std::max(most, compared - 1);
    }
    return most;
  }

 private:
  Address address_of(const std::string& key) const {
    return Store::address_of({hash_key(key, seed_), 1, 1, key, {}}, 0);
  }

  const uint64_t seed_;
  std::vector<std::string> keys_;
  Index index_;
};

/// Keys whose place is the same for whoever hashes with `seed` into fewer than 4096 buckets.
std::vector<std::string> aimed_at(uint64_t seed, size_t count) {
  std::vector<std::string> keys;
  for (uint64_t i = 0; keys.size() < count; ++i) {
    std::string key = "aimed:" + std::to_string(i);
    if (Store::mix_of(hash_key(key, seed)) % 4096 == 0) keys.push_back(std::move(key));
  }
  return keys;
}

}  // namespace

TEST_CASE("keys that share a bucket under another seed are spread under ours", "[l1][flooding]") {
  constexpr uint64_t kTheirSeed = 1;
  Keys ours(kOurSeed), theirs(kTheirSeed);
  for (const std::string& key : aimed_at(kTheirSeed, 1'000)) ours.add(key), theirs.add(key);
  CHECK(theirs.longest_bucket() == 1'000);
  CHECK(ours.longest_bucket() <= 40);
  CHECK(ours.most_compared() <= 2);
}

TEST_CASE("of a million structured keys no bucket is long", "[l1][flooding]") {
  Keys keys(kOurSeed);
  for (uint64_t i = 0; i < 250'000; ++i) {
    keys.add("user:" + std::to_string(i));
    // Numbers that differ in high bits only; long keys that differ in one byte near their end; and
    // texts that a hash by sums or by shifts could not tell apart.
    std::string number(8, '\0');
    const uint64_t shifted = i << 40;
    std::memcpy(number.data(), &shifted, sizeof(shifted));
    keys.add(std::move(number));
    keys.add(std::string(300, 'k') + std::to_string(i) + std::string(40, 'k'));
    std::string pairs;
    for (unsigned bit = 0; bit < 18; ++bit) pairs += (i >> bit & 1) != 0 ? "Aa" : "BB";
    keys.add(std::move(pairs));
  }
  CHECK(keys.longest_bucket() <= 64);
  CHECK(keys.most_compared() <= 3);
}

TEST_CASE("with every key in one bucket the table is right, and no larger than it must be",
          "[l1][flooding]") {
  constexpr uint64_t kItems = 10'000;
  L1Table table({.memory_bytes = 16 << 20, .hash_of = [](Bytes) { return uint64_t{1}; }});
  const auto key_of = [](const std::string& name) { return L1Key{1, 1, 1, name, {}}; };
  for (uint64_t i = 0; i < kItems; ++i) {
    const std::string name = std::to_string(i);
    REQUIRE(table.put(key_of(name), {name, 0, 1, 1'000'000, false, false}, 1));
  }
  table.check_invariants();
  CHECK(table.stats().items == kItems);
  CHECK(table.stats().used_bytes < kItems * 64);
  for (uint64_t i = 0; i < kItems; i += 100) {
    const std::string name = std::to_string(i);
    L1Hit hit;
    REQUIRE(table.find(key_of(name), 1, hit));
    REQUIRE(hit.reply == name);
    REQUIRE(table.erase(key_of(name)));
    REQUIRE_FALSE(table.find(key_of(name), 1, hit));
  }
  table.check_invariants();
}
