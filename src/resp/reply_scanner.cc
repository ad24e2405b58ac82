// A lane forwards whole replies without looking into them: all it needs is where each one ends. So
// nothing is built and nothing is copied; one counter of outstanding elements stands for any depth
// of nesting: a scalar takes one off, an aggregate of n takes one off and adds n, an attribute adds
// its 2n and takes none, because the element it belongs to still follows.
//
// Whole headers in the buffer are read in one go; only a header cut by the end of the buffer goes
// through the byte-wise states. Framing is checked where it is free (types, numbers, the CRLF
// behind a payload): losing step with the server must end the connection, never shift replies by
// one. Numbers have one spelling, without leading zeros: the converter may compare headers as
// bytes.
//
// Rejected: a tree of the reply, as hiredis builds (an allocation per element); a stack of counters
// (a limit on depth that Redis does not have).
#include "nearcached/resp/reply_scanner.h"

#include <algorithm>

#include "resp/lines.h"

namespace nearcached {
namespace {

constexpr uint64_t kCountMax = 1ull << 32;         // of one aggregate: Redis could not hold more
constexpr uint64_t kElementsLeftMax = 1ull << 40;  // of all open ones: far from overflow
constexpr uint8_t kDigitsMax = 18;                 // always fits in 63 bits

enum class Kind : uint8_t { none, line, bulk, aggregate };

constexpr Kind kind_of(char type) {
  switch (type) {
    case '+':
    case '-':
    case ':':
    case '_':
    case ',':
    case '#':
    case '(': return Kind::line;
    case '$':
    case '=':
    case '!': return Kind::bulk;
    case '*':
    case '%':
    case '~':
    case '>':
    case '|': return Kind::aggregate;
    default: return Kind::none;
  }
}

}  // namespace

ReplyScanner::Step ReplyScanner::scan(Bytes in) {
  const char* p = in.data();
  const char* const end = p + in.size();
  while (p != end) {
    p = where_ == Where::type ? element(p, end) : resume(p, end);
    if (p == nullptr) return {Status::bad, 0};
    if (elements_left_ == 0) return {Status::done, static_cast<size_t>(p - in.data())};
  }
  return {Status::need_more, in.size()};
}

void ReplyScanner::reset() { *this = ReplyScanner(bulk_bytes_max_); }

// The steps below take bytes from `p` on and return where they stopped, or nullptr if bad.

// Starts an element, and finishes it if it is a bulk string that is all there.
const char* ReplyScanner::element(const char* p, const char* end) {
  if (elements_left_ == 0) elements_left_ = 1;
  type_ = *p++;
  number_ = 0;
  digits_ = 0;
  seen_cr_ = negative_ = false;
  const Kind kind = kind_of(type_);
  if (kind == Kind::none) return nullptr;
  if (kind == Kind::line) {
    where_ = Where::line;
    return line(p, end);
  }
  uint64_t n;
  const char* const behind = resp::read_length(p, end, n);
  if (behind == nullptr) {
    where_ = Where::header;
    return p;
  }
  if (!header_done(static_cast<int64_t>(n))) return nullptr;
  if (kind == Kind::bulk && static_cast<uint64_t>(end - behind) >= n + 2) {
    const char* const payload_end = behind + n;
    element_done();
    return payload_end[0] == '\r' && payload_end[1] == '\n' ? payload_end + 2 : nullptr;
  }
  return behind;
}

// Continues an element in whatever place the last chunk's end, or element(), left it.
const char* ReplyScanner::resume(const char* p, const char* end) {
  switch (where_) {
    case Where::line: return line(p, end);
    case Where::header: return header(p, end);
    case Where::payload: {
      const uint64_t n = std::min(payload_left_, static_cast<uint64_t>(end - p));
      payload_left_ -= n;
      if (payload_left_ == 0) where_ = Where::payload_cr;
      return p + n;
    }
    case Where::payload_cr: where_ = Where::payload_lf; return *p == '\r' ? p + 1 : nullptr;
    case Where::payload_lf: element_done(); return *p == '\n' ? p + 1 : nullptr;
    case Where::type: break;
  }
  return element(p, end);
}

const char* ReplyScanner::line(const char* p, const char* end) {
  const char* behind = resp::find_line_end(p, end, seen_cr_);
  number_ += static_cast<uint64_t>((behind != nullptr ? behind : end) - p);
  if (number_ > bulk_bytes_max_ + 2) return nullptr;
  if (behind == nullptr) return end;
  element_done();
  return behind;
}

const char* ReplyScanner::header(const char* p, const char* end) {
  for (; p != end; ++p) {
    if (seen_cr_) {
      if (*p != '\n' || digits_ == 0 || (negative_ && number_ == 0)) return nullptr;
      const int64_t n = static_cast<int64_t>(number_);
      return header_done(negative_ ? -n : n) ? p + 1 : nullptr;
    }
    const unsigned digit = static_cast<unsigned char>(*p) - unsigned{'0'};
    const bool leading_zero = digits_ == 1 && number_ == 0;
    if (digit <= 9 && digits_ < kDigitsMax && !leading_zero) {
      number_ = number_ * 10 + digit;
      ++digits_;
    } else if (*p == '\r') {
      seen_cr_ = true;
    } else if (*p == '-' && digits_ == 0 && !negative_) {
      negative_ = true;
    } else {
      return nullptr;
    }
  }
  return p;
}

// False if no reply of Redis has such a header.
bool ReplyScanner::header_done(int64_t n) {
  if (n < 0) {
    if (n != -1 || (type_ != '$' && type_ != '*')) return false;
    element_done();
    return true;
  }
  const uint64_t count = static_cast<uint64_t>(n);
  if (kind_of(type_) == Kind::bulk) {
    too_long_ = count > bulk_bytes_max_;
    if (too_long_) return false;
    payload_left_ = count;
    where_ = Where::payload;
    return true;
  }
  if (count > kCountMax) return false;
  elements_left_ += type_ == '%' || type_ == '|' ? 2 * count : count;
  if (elements_left_ > kElementsLeftMax) return false;
  if (type_ == '|') where_ = Where::type;
  else element_done();
  return true;
}

void ReplyScanner::element_done() {
  --elements_left_;
  where_ = Where::type;
}

}  // namespace nearcached
