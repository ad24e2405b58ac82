// nearcached-replay: the miss ratio of the L1 table on a recorded trace.
//
// It drives the table itself, with values of the recorded sizes, not a model of it. A trace is a
// stream of little-endian records {u64 id, u32 size}. Without --charge-overhead the limit counts
// objects, or the bytes of values alone, as simulators of caches do, so the ratios can be compared
// with theirs; with it, a limit in bytes is a budget of memory in which keys, headers, index and
// holes count as well.
//
//   zstdcat web12.qi.zst | nearcached-replay --policy auto --bytes 1000000 -
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "nearcached/base/hash.h"
#include "nearcached/l1/table.h"

namespace {

using namespace nearcached;

constexpr size_t kRecordBytes = 12;
constexpr uint64_t kSeed = 1;
constexpr uint64_t kNowMs = 1;
constexpr uint64_t kExpiresMs = 1u << 30;
constexpr uint64_t kUnlimited = uint64_t{1} << 50;

struct Options {
  std::string policy = "auto";
  uint64_t objects = 0;
  uint64_t bytes = 0;
  bool charge_overhead = false;
  std::string file;
};

struct Counts {
  uint64_t requests = 0, misses = 0;
  uint64_t bytes = 0, missed_bytes = 0;
};

struct FileCloser {
  void operator()(std::FILE* file) const {
    if (file != stdin) std::fclose(file);
  }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

L1Options table_options(const Options& options) {
  const auto at = std::find(kL1PolicyNames.begin(), kL1PolicyNames.end(), options.policy);
  return {.memory_bytes = options.bytes != 0 ? options.bytes : kUnlimited,
          .entries_max = options.objects,
          .policy = static_cast<L1Policy>(at - kL1PolicyNames.begin()),
          .charge_overhead = options.charge_overhead,
          .hash_of = [](Bytes key) { return hash_key(key, kSeed); }};
}

std::array<char, 16> key_of(uint64_t id) {
  std::array<char, 16> key;
  for (char& digit : key) {
    digit = "0123456789abcdef"[id >> 60];
    id <<= 4;
  }
  return key;
}

/// A value whose bytes are worthless but whose size is right.
Bytes value_of(uint32_t size) {
  static std::vector<char> zeros;
  if (zeros.size() < size) zeros.resize(size);
  return {zeros.data(), size};
}

void request(L1Table& table, uint64_t id, uint32_t size, Counts& counts) {
  const std::array<char, 16> text = key_of(id);
  const Bytes name(text.data(), text.size());
  const L1Key key{hash_key(name, kSeed), 1, 1, name, {}};
  ++counts.requests;
  counts.bytes += size;
  L1Hit hit;
  if (table.find(key, kNowMs, hit)) return;
  ++counts.misses;
  counts.missed_bytes += size;
  table.put(key, {value_of(size), 0, kNowMs, kExpiresMs, false, false}, kNowMs);
}

/// False if the stream ends within a record.
bool replay(std::FILE* file, L1Table& table, Counts& counts) {
  std::array<char, kRecordBytes * 4096> buffer;
  while (true) {
    const size_t got = std::fread(buffer.data(), 1, buffer.size(), file);
    for (size_t at = 0; at + kRecordBytes <= got; at += kRecordBytes) {
      uint64_t id;
      uint32_t size;
      std::memcpy(&id, &buffer[at], sizeof(id));
      std::memcpy(&size, &buffer[at + sizeof(id)], sizeof(size));
      request(table, id, size, counts);
    }
    if (got < buffer.size()) return got % kRecordBytes == 0 && std::ferror(file) == 0;
  }
}

double ratio(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("The miss ratio of nearcached's L1 table on a recorded trace.");
  app.add_option("--policy", options.policy, "who leaves")
      ->check(
          CLI::IsMember(std::vector<std::string>(kL1PolicyNames.begin(), kL1PolicyNames.end())));
  auto* objects = app.add_option("--objects", options.objects, "limit in objects")
                      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32));
  auto* bytes = app.add_option("--bytes", options.bytes, "limit in bytes")
                    ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 40))
                    ->excludes(objects);
  app.add_flag("--charge-overhead", options.charge_overhead,
               "the limit is of memory: keys, headers and index count")
      ->needs(bytes);
  app.add_option("file", options.file, "records {u64 id, u32 size}; - is standard input")
      ->required();
  CLI11_PARSE(app, argc, argv);
  if (options.objects == 0 && options.bytes == 0) {
    std::fputs("nearcached-replay: --objects or --bytes is needed\n", stderr);
    return 2;
  }
  const File file(options.file == "-" ? stdin : std::fopen(options.file.c_str(), "rb"));
  if (file == nullptr) {
    std::fprintf(stderr, "nearcached-replay: cannot open %s\n", options.file.c_str());
    return 1;
  }
  L1Table table(table_options(options));
  Counts counts;
  if (!replay(file.get(), table, counts)) {
    std::fprintf(stderr, "nearcached-replay: %s ends within a record\n", options.file.c_str());
    return 1;
  }
  std::printf("requests=%" PRIu64 " misses=%" PRIu64 " miss_ratio=%.6f bytes_miss_ratio=%.6f\n",
              counts.requests, counts.misses, ratio(counts.misses, counts.requests),
              ratio(counts.missed_bytes, counts.bytes));
  return 0;
}
