// Resp2Converter: a RESP3 reply → the bytes that Redis itself would have sent to a RESP2 client.
//
// Bulk strings, integers, simple strings, errors and arrays are the same in both; maps, sets,
// doubles, booleans, big numbers and verbatim strings have one RESP2 form each. Two things depend on
// the command: how `_` is written and whether pairs nest. The rule says which (command/table.h holds
// one per command). Incremental: chunks may be split anywhere. Pure.
#pragma once
#include <cstdint>

#include "nearcached/base/buffer.h"
#include "nearcached/base/bytes.h"

namespace nearcached {

enum class Resp2Rule : uint8_t {
  null_bulk,      ///< `_` is `$-1`
  null_array,     ///< `_` is `*-1`
  flatten_pairs,  ///< `*n` of `*2` pairs at depth 1 becomes one flat `*2n` (ZRANGE … WITHSCORES);
                  ///< a top-level array whose elements are not all arrays of two stays as it is;
                  ///< `_` is `$-1`
  unknown,        ///< does not follow from the bytes: ask the server over RESP2 instead
};

class Resp2Converter {
 public:
  /// Starts a new reply. `rule` must not be unknown.
  void begin(Resp2Rule rule);
  /// Converts `chunk`, the next bytes of the reply (delimited by a ReplyScanner, so well-formed),
  /// and appends the RESP2 form to `out`.
  void feed(Bytes chunk, Buffer& out);

  /// True if `reply`, one whole RESP3 reply, is byte for byte its own RESP2 form under every rule.
  static bool same_in_resp2(Bytes reply);

 private:
  void header(char type, Bytes line, Buffer& out);

  Resp2Rule rule_ = Resp2Rule::null_bulk;
  uint32_t depth_ = 0;
  uint64_t payload_left_ = 0;   ///< bytes of a bulk (with CRLF) to copy through
  uint64_t payload_skip_ = 0;   ///< bytes of a verbatim string's "txt:" to drop
  uint64_t top_elements_ = 0;
  bool dropping_attribute_ = false;
  uint64_t attribute_left_ = 0;
  uint32_t line_size_ = 0;      ///< a header line that is not complete yet
  char line_[64];
  char type_ = 0;
  bool copying_line_ = false;   ///< inside a simple string, error or integer: copied as it comes
};

}  // namespace nearcached
