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

/// One parsed request. The views point into the parsed bytes (or, for an inline command, into the
/// parser) and live until the next parse() or reset(), or until those bytes move.
struct Request {
  std::span<const Bytes> args;  ///< args[0] is the command name; never empty on ok
  /// The request's own bytes if it came as a RESP array in the canonical form, else empty: then
  /// write it anew from args. Redis takes any two bytes where CRLF belongs; a shared upstream
  /// connection must not depend on every server doing so.
  Bytes wire;
  /// What the client has sent behind it, as far as that has been read. Not the parser's: who feeds
  /// it says so.
  Bytes behind = {};
};

struct RequestLimits {
  uint32_t args_max = 1024 * 1024;         ///< elements of one request
  uint64_t bulk_bytes_max = 512ull << 20;  ///< one argument (proto-max-bulk-len)
  uint32_t inline_bytes_max = 64 * 1024;  ///< a line whose end has not come (PROTO_INLINE_MAX_SIZE)
};

enum class ParseStatus : uint8_t { ok, need_more, protocol_error };

class RequestParser {
 public:
  explicit RequestParser(const RequestLimits& limits) : limits_(limits) {}

  /// Parses one request from the start of `in`, which must start where the previous request ended.
  /// ok: `out` is set, `consumed` bytes belong to it (including skipped empty requests before it).
  /// need_more: `consumed` bytes (of skipped empty requests) are done with; the next call passes
  /// the bytes behind them again, with more at the end (they may have moved in memory).
  /// protocol_error: error() is the text for `-ERR …`; the connection is to be closed after it.
  /// The memory of an unusually large request goes back at the next call, even with nothing in
  /// `in`.
  ParseStatus parse(Bytes in, Request& out, size_t& consumed);

  /// After need_more: the total bytes from the start of the request that are certainly needed, or
  /// 0 if unknown. A hint for reading big arguments; never to be allocated without limit.
  uint64_t bytes_needed() const { return bytes_needed_; }
  /// E.g. "Protocol error: invalid bulk length". Valid after protocol_error.
  const std::string& error() const { return error_; }
  /// While true, Redis's limits for clients that have not authenticated apply:
  /// at most 10 arguments of at most 16384 bytes ("Protocol error: unauthenticated multibulk
  /// length").
  void set_unauthenticated(bool value) { unauthenticated_ = value; }
  /// Forgets a partial request and gives all memory back; limits and authentication stay.
  void reset();

 private:
  enum class Line : uint8_t { ok, need_more, too_long };

  const char* parse_small_array(Bytes in, size_t& args);
  ParseStatus parse_array(Bytes in);
  ParseStatus parse_inline(Bytes in);
  ParseStatus parse_bulks(Bytes in);
  ParseStatus fail(Bytes text);
  Line header_line(Bytes in, Bytes& line);
  size_t find_terminator(Bytes in, char terminator);
  bool split_inline(Bytes line);
  void begin_item(size_t offset);
  void begin_request();
  void release_large();

  RequestLimits limits_;
  bool unauthenticated_ = false;

  // Where the current request stands; offsets are relative to its first byte.
  bool in_array_ = false;       ///< its `*n` has been read
  bool in_bulk_ = false;        ///< the `$n` of the current argument has been read
  bool hidden_by_nul_ = false;  ///< a NUL in the current line: its end cannot be found any more
  bool canonical_ = true;       ///< CRLF wherever it belongs, so far
  uint64_t args_left_ = 0;
  uint64_t bulk_bytes_ = 0;
  size_t offset_ = 0;   ///< the first byte not understood yet
  size_t scanned_ = 0;  ///< no line end before it: never searched twice
  uint64_t bytes_needed_ = 0;
  std::vector<std::pair<size_t, size_t>> spans_;  ///< (offset, length) of the arguments seen so far

  std::vector<Bytes> args_;  ///< what Request::args shows; longer than it after a smaller request
  std::string inline_text_;
  std::string error_;
};

}  // namespace nearcached
