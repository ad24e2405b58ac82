// ReplyScanner: finds where one top-level reply of a server ends, incrementally, without copying.
//
// Knows every type of RESP2 and RESP3 (including attributes `|`, streamed never: Redis sends none).
// One counter of outstanding elements is all the state that nesting needs, so depth costs nothing
// and cannot overflow a stack. Pure.
#pragma once
#include <cstdint>

#include "nearcached/base/bytes.h"

namespace nearcached {

class ReplyScanner {
 public:
  enum class Status : uint8_t {
    need_more,  ///< all of `in` belongs to the current reply, which goes on
    done,  ///< the current reply ends after `consumed` bytes; the scanner is ready for the next
    bad,   ///< not RESP, or a length beyond the limits: the connection is to be dropped
  };
  struct Step {
    Status status;
    size_t consumed;
  };

  /// `bulk_bytes_max`: a longer declared bulk is bad.
  explicit ReplyScanner(uint64_t bulk_bytes_max = 1ull << 30) : bulk_bytes_max_(bulk_bytes_max) {}

  /// Advances over `in`, which continues where the last call stopped.
  Step scan(Bytes in);
  /// True between replies: nothing of the next reply has been seen.
  bool at_start() const { return elements_left_ == 0; }
  void reset();
  /// After bad: a declared bulk was longer than bulk_bytes_max. Until reset().
  bool too_long() const { return too_long_; }

 private:
  enum class Where : uint8_t { type, line, header, payload, payload_cr, payload_lf };

  const char* element(const char* p, const char* end);
  const char* resume(const char* p, const char* end);
  const char* line(const char* p, const char* end);
  const char* header(const char* p, const char* end);
  bool header_done(int64_t n);
  void element_done();

  uint64_t bulk_bytes_max_;
  bool too_long_ = false;
  uint64_t elements_left_ = 0;  ///< elements still to come, the current one included
  uint64_t payload_left_ = 0;   ///< bytes of the current payload still to come
  uint64_t number_ = 0;         ///< of the current header; in a line: its bytes so far
  Where where_ = Where::type;
  char type_ = 0;
  bool seen_cr_ = false;  ///< the last byte seen of the line or header is CR
  bool negative_ = false;
  uint8_t digits_ = 0;
};

}  // namespace nearcached
