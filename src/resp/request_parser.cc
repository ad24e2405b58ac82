// Every byte of every client passes here, and must mean what it means to Redis: the rules (and the
// wording of errors) are those of processMultibulkBuffer() and processInlineBuffer() of Redis 7.0,
// strchr()'s blindness behind a NUL and the unchecked bytes in place of CRLF included.
//
// Two paths. parse_small_array() takes the common case, a whole canonical request in the buffer, in
// one pass that writes the arguments where the caller reads them. Whatever it does not like –
// split, large, odd or wrong – is read again from the start by the thorough, resumable path; a
// second reading happens at most once a request, because a request that was begun there is finished
// there.
//
// Invariants: a declared count or length is only ever counted down, memory grows with bytes that
// have arrived; no byte is searched twice for a line's end, so any splitting costs O(bytes).
//
// Rejected: storing views instead of offsets while a request is incomplete (the caller's buffer
// moves, and rebasing them on every read is quadratic).
#include "nearcached/resp/request_parser.h"

#include <cstring>
#include <utility>

#include "resp/lines.h"

namespace nearcached {
namespace {

constexpr size_t kSmallArgs = 1024;        // of a request that the fast path takes
constexpr size_t kKeptInlineBytes = 1024;  // kept from one inline command to the next
// Redis's limits for clients that have not authenticated (networking.c).
constexpr int64_t kUnauthenticatedArgs = 10;
constexpr int64_t kUnauthenticatedBulkBytes = 16384;

// isspace() in the C locale, which is what Redis runs sdssplitargs() in.
bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

char unescaped(char c) {
  switch (c) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'b': return '\b';
    case 'a': return '\a';
    default: return c;
  }
}

// Appends what is inside the double quotes that opened before `i`. Returns the index behind the
// closing quote, or npos if there is none.
size_t append_double_quoted(Bytes line, size_t i, std::string& out) {
  while (i < line.size()) {
    const Bytes rest = line.substr(i);
    if (rest[0] == '"') return i + 1;
    if (rest[0] != '\\' || rest.size() == 1) {
      out += rest[0];
      i += 1;
    } else if (rest.size() >= 4 && rest[1] == 'x' && hex_digit(rest[2]) >= 0 &&
               hex_digit(rest[3]) >= 0) {
      out += static_cast<char>(hex_digit(rest[2]) * 16 + hex_digit(rest[3]));
      i += 4;
    } else {
      out += unescaped(rest[1]);
      i += 2;
    }
  }
  return Bytes::npos;
}

size_t append_single_quoted(Bytes line, size_t i, std::string& out) {
  while (i < line.size()) {
    if (line[i] == '\'') return i + 1;
    if (line[i] == '\\' && i + 1 < line.size() && line[i + 1] == '\'') ++i;
    out += line[i++];
  }
  return Bytes::npos;
}

// Appends the argument that starts at `i`. Returns the index behind it, or npos if its quotes are
// unbalanced. A quote may open in the middle of an argument, but only close at its end.
size_t append_inline_arg(Bytes line, size_t i, std::string& out) {
  while (i < line.size()) {
    const char c = line[i];
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t') return i;
    if (c == '"' || c == '\'') {
      i = c == '"' ? append_double_quoted(line, i + 1, out)
                   : append_single_quoted(line, i + 1, out);
      return i == Bytes::npos || (i < line.size() && !is_space(line[i])) ? Bytes::npos : i;
    }
    out += c;
    ++i;
  }
  return i;
}

}  // namespace

ParseStatus RequestParser::parse(Bytes in, Request& out, size_t& consumed) {
  release_large();
  if (offset_ == 0 && scanned_ == 0) {
    size_t args;
    if (const char* end = parse_small_array(in, args)) [[likely]] {
      consumed = static_cast<size_t>(end - in.data());
      out.args = {args_.data(), args};
      out.wire = in.substr(0, consumed);
      return ParseStatus::ok;
    }
  }
  consumed = 0;
  while (consumed < in.size()) {
    const Bytes rest = in.substr(consumed);
    const ParseStatus status = rest[0] == '*' ? parse_array(rest) : parse_inline(rest);
    if (status != ParseStatus::ok) return status;
    const size_t size = std::exchange(offset_, 0);
    const bool is_wire = in_array_ && canonical_;
    consumed += size;
    begin_request();
    if (args_.empty()) continue;  // `*0`, `*-1` or an empty line
    out.args = args_;
    out.wire = is_wire ? rest.substr(0, size) : Bytes();
    return ParseStatus::ok;
  }
  return ParseStatus::need_more;
}

void RequestParser::reset() {
  begin_request();
  spans_ = {};
  args_ = {};
  inline_text_ = {};
  error_ = {};
}

// The fast path: nullptr for whatever is not a whole, canonical, small request. Touches no state
// but args_.
const char* RequestParser::parse_small_array(Bytes in, size_t& args) {
  const char* p = in.data();
  const char* const end = p + in.size();
  uint64_t count;
  if (in.empty() || *p != '*' || (p = resp::read_length(p + 1, end, count)) == nullptr)
    return nullptr;
  if (count - 1 >= kSmallArgs || count > limits_.args_max || unauthenticated_) return nullptr;
  if (args_.size() < count) args_.resize(count);
  for (Bytes* arg = args_.data(); arg != args_.data() + count; ++arg) {
    uint64_t length;
    if (p == end || *p != '$' || (p = resp::read_length(p + 1, end, length)) == nullptr)
      return nullptr;
    if (length > limits_.bulk_bytes_max || static_cast<uint64_t>(end - p) < length + 2)
      return nullptr;
    *arg = Bytes(p, length);
    p += length;
    if (std::memcmp(p, "\r\n", 2) != 0) return nullptr;
    p += 2;
  }
  args = count;
  return p;
}

// ok: the request ends at offset_; args_ is empty if there is nothing to execute.
ParseStatus RequestParser::parse_array(Bytes in) {
  if (!in_array_) {
    Bytes line;
    switch (header_line(in, line)) {
      case Line::need_more: return ParseStatus::need_more;
      case Line::too_long: return fail("Protocol error: too big mbulk count string");
      case Line::ok: break;
    }
    int64_t count;
    if (!resp::parse_integer(line.substr(1), count) || count > int64_t{limits_.args_max})
      return fail("Protocol error: invalid multibulk length");
    if (count > kUnauthenticatedArgs && unauthenticated_)
      return fail("Protocol error: unauthenticated multibulk length");
    in_array_ = true;
    args_left_ = count > 0 ? static_cast<uint64_t>(count) : 0;
    spans_.clear();
  }
  if (const ParseStatus status = parse_bulks(in); status != ParseStatus::ok) return status;
  args_.clear();
  args_.reserve(spans_.size());
  for (const auto& [offset, length] : spans_) args_.push_back(in.substr(offset, length));
  if (spans_.capacity() > kSmallArgs) spans_ = {};
  return ParseStatus::ok;
}

ParseStatus RequestParser::parse_bulks(Bytes in) {
  while (args_left_ > 0) {
    if (!in_bulk_) {
      const size_t start = offset_;
      Bytes line;
      switch (header_line(in, line)) {
        case Line::need_more: return ParseStatus::need_more;
        case Line::too_long: return fail("Protocol error: too big bulk count string");
        case Line::ok: break;
      }
      if (in[start] != '$') {
        std::string text = "Protocol error: expected '$', got '?'";
        // An error is one line: Redis turns what would break it into a space.
        text[text.size() - 2] = in[start] == '\r' || in[start] == '\n' ? ' ' : in[start];
        return fail(text);
      }
      int64_t length;
      if (!resp::parse_integer(line.substr(1), length) || length < 0 ||
          static_cast<uint64_t>(length) > limits_.bulk_bytes_max)
        return fail("Protocol error: invalid bulk length");
      if (length > kUnauthenticatedBulkBytes && unauthenticated_)
        return fail("Protocol error: unauthenticated bulk length");
      in_bulk_ = true;
      bulk_bytes_ = static_cast<uint64_t>(length);
    }
    if (in.size() - offset_ < bulk_bytes_ + 2) {
      bytes_needed_ = offset_ + bulk_bytes_ + 2;
      return ParseStatus::need_more;
    }
    spans_.emplace_back(offset_, bulk_bytes_);
    const size_t payload_end = offset_ + bulk_bytes_;
    canonical_ = canonical_ && in.substr(payload_end, 2) == "\r\n";
    begin_item(payload_end + 2);
    --args_left_;
  }
  return ParseStatus::ok;
}

ParseStatus RequestParser::parse_inline(Bytes in) {
  const size_t newline = find_terminator(in, '\n');
  if (newline == Bytes::npos) {
    if (in.size() > limits_.inline_bytes_max) return fail("Protocol error: too big inline request");
    return ParseStatus::need_more;
  }
  const size_t line_bytes = newline > 0 && in[newline - 1] == '\r' ? newline - 1 : newline;
  if (!split_inline(in.substr(0, line_bytes)))
    return fail("Protocol error: unbalanced quotes in request");
  offset_ = newline + 1;
  return ParseStatus::ok;
}

// sdssplitargs(): fills args_ with views of inline_text_; false if quotes are unbalanced.
bool RequestParser::split_inline(Bytes line) {
  args_.clear();
  inline_text_.clear();
  inline_text_.reserve(line.size());  // unquoting only shrinks: the views below stay valid
  size_t i = 0;
  for (;;) {
    while (i < line.size() && is_space(line[i])) ++i;
    if (i == line.size()) return true;
    const size_t begin = inline_text_.size();
    i = append_inline_arg(line, i, inline_text_);
    if (i == Bytes::npos) return false;
    args_.push_back(Bytes(inline_text_).substr(begin));
  }
}

// The header line at offset_, without its end, and steps behind it. Redis looks for the CR only and
// skips whatever byte follows.
RequestParser::Line RequestParser::header_line(Bytes in, Bytes& line) {
  const size_t cr = find_terminator(in, '\r');
  if (cr == Bytes::npos)
    return in.size() - offset_ > limits_.inline_bytes_max ? Line::too_long : Line::need_more;
  if (cr + 1 == in.size()) return Line::need_more;
  line = in.substr(offset_, cr - offset_);
  canonical_ = canonical_ && in[cr + 1] == '\n';
  begin_item(cr + 2);
  return Line::ok;
}

// Continues the search for the current line's end where the last call stopped.
size_t RequestParser::find_terminator(Bytes in, char terminator) {
  if (hidden_by_nul_ || scanned_ == in.size()) return Bytes::npos;
  const Bytes fresh = in.substr(scanned_);
  const size_t found = fresh.find(terminator);
  const Bytes before = fresh.substr(0, found);
  hidden_by_nul_ = before.find('\0') != Bytes::npos;
  scanned_ += before.size();
  return hidden_by_nul_ || found == Bytes::npos ? Bytes::npos : scanned_;
}

ParseStatus RequestParser::fail(Bytes text) {
  begin_request();
  error_ = text;
  return ParseStatus::protocol_error;
}

void RequestParser::begin_item(size_t offset) {
  offset_ = scanned_ = offset;
  hidden_by_nul_ = in_bulk_ = false;
  bytes_needed_ = 0;
}

void RequestParser::begin_request() {
  begin_item(0);
  in_array_ = false;
  canonical_ = true;
  args_left_ = 0;
}

// One client's giant request must not pin memory for the rest of its connection's life.
void RequestParser::release_large() {
  if (args_.capacity() > kSmallArgs) [[unlikely]]
    args_ = {};
  if (inline_text_.capacity() > kKeptInlineBytes) [[unlikely]]
    inline_text_ = {};
}

}  // namespace nearcached
