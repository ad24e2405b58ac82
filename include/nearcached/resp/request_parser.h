// RequestParser: bytes of a client → one request at a time, as Redis's networking.c reads them.
//
// Accepts RESP arrays of bulk strings and inline commands (sdssplitargs quoting), silently skips
// `*0`, `*-1`, and empty inline lines, and words protocol errors exactly as Redis 7.0 does.
// Pure: no I/O, no clock. The parser is resumable: on need_more it remembers where it stopped, so a
// request that arrives in many reads costs O(bytes), never O(bytes × reads).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nearcached/base/bytes.h"

namespace nearcached {

/// One parsed request. The views point into the parsed bytes (or, for an inline command with
/// quoting, into the parser) and live until the next parse() or until those bytes move.
struct Request {
  std::span<const Bytes> args;  ///< args[0] is the command name; never empty on ok
  Bytes wire;                   ///< the request's own bytes if it came as a RESP array, else empty
};

struct RequestLimits {
  uint32_t args_max = 1024 * 1024;          ///< elements of one request
  uint64_t bulk_bytes_max = 512ull << 20;   ///< one argument (proto-max-bulk-len)
  uint32_t inline_bytes_max = 64 * 1024;    ///< PROTO_INLINE_MAX_SIZE: an inline line or a header line
};

enum class ParseStatus : uint8_t { ok, need_more, protocol_error };

class RequestParser {
 public:
  explicit RequestParser(const RequestLimits& limits) : limits_(limits) {}

  /// Parses one request from the start of `in`. `in` must start where the previous request ended;
  /// after need_more the next call must pass the same bytes again with more behind them (they may
  /// have moved in memory).
  /// ok: `out` is set, `consumed` bytes belong to it (including skipped empty requests before it).
  /// need_more: `consumed` bytes (of skipped empty requests) may be dropped; the rest must be kept.
  /// protocol_error: error() is the text for `-ERR …`; the connection is to be closed after it.
  ParseStatus parse(Bytes in, Request& out, size_t& consumed);

  /// After need_more: the total bytes from the start of the request that are certainly needed, or
  /// 0 if unknown. A hint for reading big arguments; never to be allocated without limit.
  uint64_t bytes_needed() const { return bytes_needed_; }
  /// E.g. "Protocol error: invalid bulk length". Valid after protocol_error.
  const std::string& error() const { return error_; }
  /// While true, Redis's limits for clients that have not authenticated apply:
  /// at most 10 arguments of at most 16384 bytes ("Protocol error: unauthenticated multibulk length").
  void set_unauthenticated(bool value) { unauthenticated_ = value; }
  void reset();

 private:
  friend struct RequestParserState;
  ParseStatus parse_array(Bytes in, size_t start, Request& out, size_t& consumed);
  ParseStatus parse_inline(Bytes in, size_t start, Request& out, size_t& consumed);
  ParseStatus fail(std::string text);

  RequestLimits limits_;
  bool unauthenticated_ = false;
  // Resume state, relative to the start of the current request.
  uint64_t args_left_ = 0;
  bool in_array_ = false;
  size_t offset_ = 0;
  uint64_t bytes_needed_ = 0;
  std::vector<std::pair<size_t, size_t>> spans_;  ///< (offset, length) of the arguments seen so far
  std::vector<Bytes> args_;
  std::string inline_text_;
  std::string error_;
};

}  // namespace nearcached
