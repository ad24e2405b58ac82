#include "nearcached/coherence/stamp_table.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

using namespace nearcached;

namespace {

/// A hash on the slot of this number.
uint64_t hash_of(uint64_t number) { return number << 16 | (number & 0xFFFF); }

}  // namespace

TEST_CASE("the slots are a power of two, at least 1024", "[stamps]") {
  CHECK(StampTable(0).slots() == 1024);
  CHECK(StampTable(1024).slots() == 1024);
  CHECK(StampTable(1025).slots() == 2048);
  CHECK(StampTable(1 << 20).slots() == 1 << 20);
}

TEST_CASE("a write changes the stamp before it is sent and settles at its reply", "[stamps]") {
  StampTable table(1024);
  const uint64_t before = table.load(hash_of(5));
  CHECK(StampTable::settled(before));
  table.begin_write(hash_of(5));
  const uint64_t during = table.load(hash_of(5));
  CHECK_FALSE(StampTable::settled(during));
  table.end_write(hash_of(5));
  const uint64_t after = table.load(hash_of(5));
  CHECK(StampTable::settled(after));
  CHECK(after != before);
  CHECK(after == during - StampTable::kInFlight);
}

TEST_CASE("a slot settles only when the last of several writes has ended", "[stamps]") {
  StampTable table(1024);
  for (int i = 0; i < 3; ++i) table.begin_write(7);
  for (int i = 0; i < 3; ++i) {
    CHECK_FALSE(StampTable::settled(table.load(7)));
    table.end_write(7);
  }
  CHECK(table.load(7) == 3 * StampTable::kVersion);
}

TEST_CASE("an invalidation changes the stamp and leaves what is in flight", "[stamps]") {
  StampTable table(1024);
  table.invalidate(9);
  CHECK(table.load(9) == StampTable::kVersion);
  table.begin_write(9);
  table.invalidate(9);
  CHECK(table.load(9) == 3 * StampTable::kVersion + StampTable::kInFlight);
}

TEST_CASE("other slots and the word for all keys are not touched", "[stamps]") {
  StampTable table(1024);
  table.begin_write(hash_of(1));
  table.invalidate(hash_of(3));
  CHECK(table.load(hash_of(0)) == 0);
  CHECK(table.load(hash_of(2)) == 0);
  CHECK(table.load_all() == 0);
  table.begin_write_all();
  CHECK_FALSE(StampTable::settled(table.load_all()));
  table.end_write_all();
  table.invalidate_all();
  CHECK(table.load_all() == 2 * StampTable::kVersion);
  CHECK(table.load(hash_of(0)) == 0);
}

TEST_CASE("no thread's write is lost, and none is seen half", "[stamps]") {
  StampTable table(1024);
  constexpr uint64_t kThreads = 4, kWrites = 20'000, kSlots = 3;
  std::atomic<bool> stop{false};
  std::atomic<bool> went_back{false};
  std::thread reader([&] {
    uint64_t last = 0;
    while (!stop.load()) {
      const uint64_t version = table.load(hash_of(0)) / StampTable::kVersion;
      if (version < last) went_back = true;
      last = version;
    }
  });
  std::vector<std::thread> writers;
  for (uint64_t t = 0; t < kThreads; ++t) {
    writers.emplace_back([&table] {
      for (uint64_t i = 0; i < kWrites; ++i) {
        table.begin_write(hash_of(i % kSlots));
        table.begin_write_all();
        table.invalidate(hash_of(i % kSlots));
        table.end_write_all();
        table.end_write(hash_of(i % kSlots));
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  stop = true;
  reader.join();
  CHECK_FALSE(went_back.load());
  uint64_t versions = 0;
  for (uint64_t s = 0; s < kSlots; ++s) {
    const uint64_t stamp = table.load(hash_of(s));
    CHECK(StampTable::settled(stamp));
    versions += stamp / StampTable::kVersion;
  }
  CHECK(versions == 2 * kThreads * kWrites);
  CHECK(table.load_all() == kThreads * kWrites * StampTable::kVersion);
}

TEST_CASE("what a writer published before its write ended is seen with the new stamp", "[stamps]") {
  // G1 in small: whoever sees the acknowledgement also sees that the old stamp is over.
  StampTable table(1024);
  std::atomic<uint64_t> acknowledged{0};
  constexpr uint64_t kWrites = 20'000;
  std::thread writer([&] {
    for (uint64_t i = 1; i <= kWrites; ++i) {
      table.begin_write(1);
      table.end_write(1);
      acknowledged.store(i, std::memory_order_release);
    }
  });
  bool stale = false;
  uint64_t seen = 0;
  while (seen < kWrites) {
    seen = acknowledged.load(std::memory_order_acquire);
    if (table.load(1) / StampTable::kVersion < seen) stale = true;
  }
  writer.join();
  CHECK_FALSE(stale);
}
