// What a hit in the L1 table costs, one at a time and in batches with prefetch, and what an item
// costs in memory. Random order over all items, so that the caches help as little as they would in
// the worst case; the budget is large enough that nothing is evicted, except in the last figure.
//
// Times are CPU time of this thread, so that a busy machine distorts them less. The first, a random
// read of memory as large as the table, is what to compare the others with.
//
//   l1-bench [items] [reply bytes]
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "nearcached/base/hash.h"
#include "nearcached/l1/table.h"

using namespace nearcached;

namespace {

constexpr uint64_t kSeed = 42;
constexpr uint64_t kExpiresMs = 1'000'000;
constexpr size_t kBatch = 16;
constexpr uint64_t kLookups = 4'000'000;

struct KeyText {
  std::array<char, 16> text{'k', 'e', 'y', ':'};

  explicit KeyText(uint64_t number) {
    for (size_t i = text.size(); i > 4; number /= 10) {
      text[--i] = static_cast<char>('0' + number % 10);
    }
  }
  L1Key l1() const {
    const Bytes key(text.data(), text.size());
    return {hash_key(key, kSeed), 1, 1, key, {}};
  }
};

uint64_t next_random(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

uint64_t resident_bytes() {
  unsigned long total = 0, resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr || std::fscanf(file, "%lu %lu", &total, &resident) != 2) std::abort();
  std::fclose(file);
  return resident * uint64_t{4096};
}

uint64_t cpu_ns() {
  timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return static_cast<uint64_t>(ts.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(ts.tv_nsec);
}

double ns_since(uint64_t start, uint64_t count) {
  return static_cast<double>(cpu_ns() - start) / static_cast<double>(count);
}

/// The requests of the run, made beforehand: only the table is measured, with hashing.
std::vector<KeyText> make_requests(uint64_t items) {
  std::vector<KeyText> keys;
  keys.reserve(1 << 20);
  uint64_t state = 0x9E3779B97F4A7C15u;
  for (size_t i = 0; i < size_t{1} << 20; ++i) keys.emplace_back(next_random(state) % items);
  return keys;
}

double ns_per_random_read(uint64_t bytes) {
  std::vector<uint64_t> memory(bytes / sizeof(uint64_t), 1);
  uint64_t state = 88172645463325252u, at = 0;
  const uint64_t start = cpu_ns();
  // Each address depends on what was read before: no two reads overlap.
  for (uint64_t i = 0; i < 1'000'000; ++i) {
    state += memory[at];
    at = next_random(state) % memory.size();
  }
  const double ns = ns_since(start, 1'000'000);
  if (state == 0) std::abort();  // keeps the reads from being optimised away
  return ns;
}

double ns_per_hit_single(L1Table& table, const std::vector<KeyText>& requests, char* out) {
  const uint64_t start = cpu_ns();
  for (uint64_t i = 0; i < kLookups; ++i) {
    L1Hit hit;
    if (!table.find(requests[i % requests.size()].l1(), 0, hit)) std::abort();
    std::memcpy(out, hit.reply.data(), hit.reply.size());
  }
  return ns_since(start, kLookups);
}

double ns_per_hit_batched(L1Table& table, const std::vector<KeyText>& requests, char* out) {
  const uint64_t start = cpu_ns();
  for (uint64_t i = 0; i < kLookups; i += kBatch) {
    std::array<L1Key, kBatch> keys;
    for (size_t b = 0; b < kBatch; ++b) {
      keys[b] = requests[(i + b) % requests.size()].l1();
      table.prefetch(keys[b]);
    }
    std::array<L1Hint, kBatch> hints;
    for (size_t b = 0; b < kBatch; ++b) hints[b] = table.prefetch_item(keys[b]);
    for (size_t b = 0; b < kBatch; ++b) {
      L1Hit hit;
      if (!table.find(keys[b], 0, hit, hints[b])) std::abort();
      std::memcpy(out, hit.reply.data(), hit.reply.size());
    }
  }
  return ns_since(start, kLookups);
}

double ns_per_miss(L1Table& table, uint64_t items) {
  const uint64_t start = cpu_ns();
  L1Hit hit;
  for (uint64_t i = 0; i < 1'000'000; ++i) {
    if (table.find(KeyText(items + i).l1(), 0, hit)) std::abort();
  }
  return ns_since(start, 1'000'000);
}

L1Options with(uint64_t memory_bytes) {
  return {.memory_bytes = memory_bytes, .hash_of = [](Bytes key) { return hash_key(key, kSeed); }};
}

void put(L1Table& table, uint64_t number, Bytes reply) {
  const KeyText key(number);
  if (!table.put(key.l1(), {reply, 0, 0, kExpiresMs, true, false}, 0)) std::abort();
}

double ns_per_put(L1Table& table, uint64_t count, Bytes reply) {
  const uint64_t start = cpu_ns();
  for (uint64_t i = 0; i < count; ++i) put(table, i, reply);
  return ns_since(start, count);
}

/// The longest of `count` puts: growth and eviction must not stop the worker.
double us_worst_put(uint64_t count, Bytes reply) {
  L1Table table(with(count * (reply.size() + 100) / 2));
  uint64_t worst = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t before = cpu_ns();
    put(table, i, reply);
    worst = std::max(worst, cpu_ns() - before);
  }
  return static_cast<double>(worst) / 1e3;
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t items = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1'000'000;
  const std::string reply(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 64, 'x');
  std::vector<char> out(reply.size() + 1);
  // First, before the allocator has anything to give back to the system.
  const double worst_put_us = us_worst_put(items, reply);
  const std::vector<KeyText> requests = make_requests(items);

  L1Table table(with(items * (reply.size() + 100)));
  const uint64_t resident_before = resident_bytes();
  const double put_growing_ns = ns_per_put(table, items, reply);
  const uint64_t resident = resident_bytes() - resident_before;
  const L1Stats& stats = table.stats();
  const double payload = static_cast<double>(reply.size() + 16);
  const double item_bytes = static_cast<double>(stats.used_bytes) / static_cast<double>(items);
  std::printf("items %llu, key 16 B, reply %zu B\n", static_cast<unsigned long long>(items),
              reply.size());
  std::printf("overhead per item    %6.1f B\n", item_bytes - payload);
  std::printf("resident / counted   %6.3f\n",
              static_cast<double>(resident) / static_cast<double>(stats.used_bytes));
  std::printf("worst put            %6.0f us\n", worst_put_us);
  std::printf("one random read      %6.0f ns\n", ns_per_random_read(stats.used_bytes));
  std::printf("put, growing         %6.0f ns\n", put_growing_ns);
  std::printf("hit, one at a time   %6.0f ns\n", ns_per_hit_single(table, requests, out.data()));
  std::printf("hit, batches of %zu   %6.0f ns\n", kBatch,
              ns_per_hit_batched(table, requests, out.data()));
  std::printf("miss                 %6.0f ns, of which most makes the key's text\n",
              ns_per_miss(table, items));

  L1Table evicting(with(stats.used_bytes / 2));
  std::printf("put, half evicting   %6.0f ns\n", ns_per_put(evicting, items, reply));
  return 0;
}
