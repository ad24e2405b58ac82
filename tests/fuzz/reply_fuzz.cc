// Claims: no bytes of a server make the scanner or the converter read out of bounds; how a stream
// is split changes nothing; whatever reply the scanner delimits, its RESP2 form is exactly one
// reply, without a type that RESP2 does not have; a reply said to be its own RESP2 form is.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nearcached/base/check.h"
#include "nearcached/resp/reply_scanner.h"
#include "nearcached/resp/resp2_converter.h"
#include "splits.h"

using namespace nearcached;

namespace {

constexpr uint64_t kBulkBytesMax = 1000;

struct Outcome {
  std::vector<std::string> replies;
  std::string rest;
  bool bad = false;
};

void scan_chunk(ReplyScanner& scanner, Bytes chunk, Outcome& outcome) {
  while (!chunk.empty() && !outcome.bad) {
    const ReplyScanner::Step step = scanner.scan(chunk);
    NC_CHECK(step.consumed <= chunk.size());
    outcome.bad = step.status == ReplyScanner::Status::bad;
    outcome.rest += chunk.substr(0, step.consumed);
    chunk.remove_prefix(step.consumed);
    if (step.status == ReplyScanner::Status::done)
      outcome.replies.push_back(std::exchange(outcome.rest, {}));
    if (step.status == ReplyScanner::Status::need_more) NC_CHECK(chunk.empty());
  }
}

template <typename Use>
void in_splits(Bytes stream, uint8_t seed, Use use) {
  fuzz::Splits splits(seed);
  for (size_t begin = 0; begin < stream.size();) {
    const Bytes chunk = stream.substr(begin, splits.next());
    const auto block = std::make_unique<char[]>(chunk.size());
    std::copy(chunk.begin(), chunk.end(), block.get());
    use(Bytes(block.get(), chunk.size()));
    begin += chunk.size();
  }
}

void check_conversion(const std::string& reply, Resp2Rule rule, uint8_t seed) {
  Resp2Converter converter;
  Buffer whole, split;
  converter.begin(rule);
  converter.feed(reply, whole);
  converter.begin(rule);
  in_splits(reply, seed, [&](Bytes chunk) { converter.feed(chunk, split); });
  NC_CHECK(split.readable() == whole.readable());
  if (Resp2Converter::same_in_resp2(reply)) NC_CHECK(whole.readable() == reply);
  if (Resp2Converter::is_plain(reply)) {
    Buffer plain;
    Resp2Converter::append_plain(reply, plain);
    NC_CHECK(plain.readable() == whole.readable());
  }

  ReplyScanner scanner;
  const ReplyScanner::Step step = scanner.scan(whole.readable());
  NC_CHECK(step.status == ReplyScanner::Status::done && step.consumed == whole.size());
  // What is RESP2 already is not converted any further.
  Buffer again;
  converter.begin(Resp2Rule::null_bulk);
  converter.feed(whole.readable(), again);
  NC_CHECK(again.readable() == whole.readable());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Bytes stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  Outcome whole, split;
  ReplyScanner whole_scanner(kBulkBytesMax), split_scanner(kBulkBytesMax);
  scan_chunk(whole_scanner, stream, whole);
  in_splits(stream, data[0], [&](Bytes chunk) { scan_chunk(split_scanner, chunk, split); });
  NC_CHECK(split.replies == whole.replies);
  NC_CHECK(split.bad == whole.bad);
  if (!whole.bad) NC_CHECK(split.rest == whole.rest);
  for (const std::string& reply : whole.replies)
    for (const Resp2Rule rule :
         {Resp2Rule::null_bulk, Resp2Rule::null_array, Resp2Rule::flatten_pairs})
      check_conversion(reply, rule, data[0]);
  return 0;
}
