// Claims: no input makes the parser read out of bounds; how a stream is split does not change what
// it means; what has a wire form is that form.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nearcached/base/check.h"
#include "nearcached/resp/request_parser.h"
#include "nearcached/resp/writer.h"
#include "splits.h"

using namespace nearcached;

namespace {

struct Outcome {
  std::vector<std::vector<std::string>> requests;
  std::string error;
  size_t consumed = 0;
};

// One parse of everything that can be parsed in `in`; false once the stream is broken.
bool parse_all(RequestParser& parser, Bytes in, Outcome& outcome) {
  const size_t offset = std::exchange(outcome.consumed, 0);
  for (;;) {
    Request request;
    size_t consumed = 0;
    const ParseStatus status = parser.parse(in.substr(outcome.consumed), request, consumed);
    outcome.consumed += consumed;
    if (status == ParseStatus::ok) {
      NC_CHECK(!request.args.empty());
      outcome.requests.emplace_back(request.args.begin(), request.args.end());
      if (request.wire.empty()) continue;
      Buffer written;
      resp::write_request(written, request.args);
      NC_CHECK(written.readable() == request.wire);
      continue;
    }
    outcome.consumed += offset;
    if (status == ParseStatus::need_more) return true;
    outcome.error = parser.error();
    NC_CHECK(!outcome.error.empty());
    return false;
  }
}

// Whether a line is too big depends on how much of it had come when its end was looked for.
bool too_big(const Outcome& outcome) { return outcome.error.find("too big") != std::string::npos; }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Bytes input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const RequestLimits limits{.args_max = 100, .bulk_bytes_max = 1000, .inline_bytes_max = 100};
  RequestParser whole_parser(limits), split_parser(limits);
  whole_parser.set_unauthenticated((data[0] & 1) != 0);
  split_parser.set_unauthenticated((data[0] & 1) != 0);
  Outcome whole, split;
  parse_all(whole_parser, input, whole);

  fuzz::Splits splits(data[0]);
  for (size_t end = 0; end < input.size();) {
    end = std::min(input.size(), end + splits.next());
    const Bytes pending = input.substr(split.consumed, end - split.consumed);
    const auto block = std::make_unique<char[]>(pending.size());  // moves, and ends where it ends
    std::copy(pending.begin(), pending.end(), block.get());
    if (!parse_all(split_parser, Bytes(block.get(), pending.size()), split)) break;
  }
  if (too_big(whole) || too_big(split)) return 0;
  NC_CHECK(split.requests == whole.requests);
  NC_CHECK(split.error == whole.error);
  NC_CHECK(split.consumed == whole.consumed);
  return 0;
}
