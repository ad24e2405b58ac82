// Resp2Converter: a RESP3 reply → the bytes that Redis itself would have sent to a RESP2 client.
//
// Bulk strings, integers, simple strings, errors and arrays are the same in both; maps, sets,
// doubles, booleans, big numbers and verbatim strings have one RESP2 form each. Two things depend
// on the command: how `_` is written and whether pairs nest. The rule says which (command/table.h
// holds one per command). Incremental: chunks may be split anywhere. Pure.
#pragma once
#include <cstdint>
#include <string>

#include "nearcached/base/buffer.h"
#include "nearcached/base/bytes.h"

namespace nearcached {

enum class Resp2Rule : uint8_t {
  null_bulk,      ///< `_` is `$-1`
  null_array,     ///< `_` is `*-1`
  flatten_pairs,  ///< a top-level `*n` whose first element is a `*2` becomes one flat `*2n`
                  ///< (ZRANGE … WITHSCORES): a stream cannot look ahead, so the first decides for
                  ///< all. Any other reply stays as it is; `_` is `$-1`
  unknown,        ///< does not follow from the bytes: ask the server over RESP2 instead
};

class Resp2Converter {
 public:
  /// Starts a new reply. `rule` must not be unknown.
  void begin(Resp2Rule rule);
  /// Converts `chunk`, the next bytes of the reply (delimited by a ReplyScanner, so well-formed),
  /// and appends the RESP2 form to `out`.
  void feed(Bytes chunk, Buffer& out);
  /// Both for `reply`, one whole RESP3 reply.
  static void append_converted(Bytes reply, Resp2Rule rule, Buffer& out);

  /// True if `reply`, one whole RESP3 reply, is byte for byte its own RESP2 form under every rule.
  static bool same_in_resp2(Bytes reply);
  /// True if that is so, or if it is a map or a set of which that is so but for its header.
  static bool is_plain(Bytes reply);
  /// Appends the RESP2 form of a reply for which is_plain() holds.
  static void append_plain(Bytes reply, Buffer& out);

 private:
  enum class Pairs : uint8_t {
    none,   ///< nothing to flatten (any more)
    top,    ///< the reply's own header is still to come
    first,  ///< it was `*n`, held back until the first element tells pairs from the rest
    flat,   ///< every element is a pair
  };

  bool passes_through() const { return pairs_ == Pairs::none && dropped_left_ == 0; }
  const char* payload(const char* p, const char* end, Buffer& out);
  const char* collect_line(const char* p, const char* end, Buffer& out);
  void convert(Bytes line, Buffer& out);
  void convert_scalar(Bytes line, Buffer& out);
  void drop(char type, int64_t n);
  bool flatten(char type, int64_t n, Buffer& out);

  Resp2Rule rule_ = Resp2Rule::null_bulk;
  Pairs pairs_ = Pairs::none;
  uint64_t top_elements_ = 0;  ///< of the header that is held back
  uint64_t child_left_ = 0;    ///< elements to come of the current pair, nested ones included
  uint64_t dropped_left_ = 0;  ///< elements to come of an attribute
  // What is to be done with the next bytes, in this order; then a line follows.
  uint64_t skip_left_ = 0;      ///< drop
  uint64_t sanitize_left_ = 0;  ///< copy, CR and LF as spaces (a blob error becomes one line)
  uint64_t copy_left_ = 0;      ///< copy
  std::string line_;            ///< a line that is not complete yet
};

}  // namespace nearcached
