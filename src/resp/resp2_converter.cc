// The lane to Redis speaks RESP3; an old client must see the bytes that Redis would have sent it.
// Most of a reply is the same in both, so the work is to find, at the speed of a copy, the few
// headers that differ: feed() walks over elements that stay and appends them as one run; only a
// line that changes, or one cut by the end of a chunk, is looked at on its own.
//
// No structure is kept beyond counters of outstanding elements: one while an attribute is dropped,
// one to find the borders of pairs. Invariant: whatever well-formed reply goes in, exactly one
// well-formed RESP2 reply comes out, even when a reply breaks the promise of its rule.
//
// Rejected: asking Redis over RESP2 for every such client (a second connection per client identity,
// and no sharing of cached replies); converting a parsed tree (allocations per element).
#include "nearcached/resp/resp2_converter.h"

#include <algorithm>
#include <charconv>

#include "nearcached/resp/writer.h"
#include "resp/lines.h"

namespace nearcached {
namespace {

constexpr uint64_t kFormatBytes = 4;  // "txt:" in front of a verbatim string

// Reads the number of the header at `p`. Returns the byte behind its line, or nullptr if the line
// is cut by `end`.
const char* read_header(const char* p, const char* end, int64_t& n) {
  uint64_t length;
  if (const char* behind = resp::read_length(p + 1, end, length)) [[likely]] {
    n = static_cast<int64_t>(length);
    return behind;
  }
  bool seen_cr = false;  // a null (-1), an unusually long number, or cut
  const char* behind = resp::find_line_end(p + 1, end, seen_cr);
  if (behind != nullptr) std::from_chars(p + 1, behind - 2, n);
  return behind;
}

// Steps over elements that are the same in RESP2: returns the first byte of what is not, or of a
// line cut by `end`. Leaves in `copy_left` what is missing of a payload that reaches `end`.
const char* skip_same(const char* p, const char* end, uint64_t& copy_left) {
  while (p != end) {
    const char* behind = nullptr;
    int64_t n = 0;
    bool seen_cr = false;
    switch (*p) {
      case '$':
        behind = read_header(p, end, n);
        if (behind != nullptr && n >= 0) {
          const uint64_t bytes = static_cast<uint64_t>(n) + 2;
          const uint64_t here = std::min(bytes, static_cast<uint64_t>(end - behind));
          copy_left = bytes - here;
          behind += here;
        }
        break;
      case '*': behind = read_header(p, end, n); break;
      case ':':
      case '+':
      case '-': behind = resp::find_line_end(p + 1, end, seen_cr); break;
      default: break;
    }
    if (behind == nullptr) return p;
    p = behind;
  }
  return p;
}

void write_bulk_header(Buffer& out, uint64_t bytes) {
  char* const begin = out.reserve(24);
  *begin = '$';
  char* p = std::to_chars(begin + 1, begin + 22, bytes).ptr;
  *p++ = '\r';
  *p++ = '\n';
  out.commit(static_cast<size_t>(p - begin));
}

bool has_number(char type) { return Bytes("$=!*%~>|").find(type) != Bytes::npos; }
bool is_bulk(char type) { return type == '$' || type == '=' || type == '!'; }

uint64_t children(char type, int64_t n) {
  if (n <= 0 || !has_number(type) || is_bulk(type)) return 0;
  return static_cast<uint64_t>(n) * (type == '%' || type == '|' ? 2 : 1);
}

}  // namespace

void Resp2Converter::begin(Resp2Rule rule) {
  rule_ = rule;
  pairs_ = rule == Resp2Rule::flatten_pairs ? Pairs::top : Pairs::none;
  top_elements_ = child_left_ = dropped_left_ = 0;
  skip_left_ = sanitize_left_ = copy_left_ = 0;
  line_.clear();
}

void Resp2Converter::feed(Bytes chunk, Buffer& out) {
  const char* p = chunk.data();
  const char* const end = p + chunk.size();
  while (p != end) {
    if (skip_left_ + sanitize_left_ + copy_left_ > 0) {
      p = payload(p, end, out);
    } else if (passes_through() && line_.empty()) {
      const char* const same_end = skip_same(p, end, copy_left_);
      if (same_end != p) out.append(Bytes(p, static_cast<size_t>(same_end - p)));
      p = same_end;
      if (p != end) p = collect_line(p, end, out);
    } else {
      p = collect_line(p, end, out);
    }
  }
}

void Resp2Converter::append_converted(Bytes reply, Resp2Rule rule, Buffer& out) {
  Resp2Converter converter;
  converter.begin(rule);
  converter.feed(reply, out);
}

bool Resp2Converter::same_in_resp2(Bytes reply) {
  const char* const begin = reply.data();
  const char* const end = begin + reply.size();
  if (!reply.empty() && *begin == '*') {
    int64_t n;
    const char* const first = read_header(begin, end, n);
    // What begins with a pair would be flattened under flatten_pairs.
    if (first != nullptr && Bytes(first, static_cast<size_t>(end - first)).starts_with("*2\r\n"))
      return false;
  }
  uint64_t copy_left = 0;
  return skip_same(begin, end, copy_left) == end;
}

bool Resp2Converter::is_plain(Bytes reply) {
  if (reply.empty() || (reply[0] != '%' && reply[0] != '~')) return same_in_resp2(reply);
  int64_t n;
  const char* const end = reply.data() + reply.size();
  const char* const body = read_header(reply.data(), end, n);
  uint64_t copy_left = 0;
  return body != nullptr && n >= 0 && skip_same(body, end, copy_left) == end;
}

void Resp2Converter::append_plain(Bytes reply, Buffer& out) {
  if (reply[0] != '%' && reply[0] != '~') return out.append(reply);
  int64_t n;
  const char* const end = reply.data() + reply.size();
  const char* const body = read_header(reply.data(), end, n);
  resp::write_array(out, static_cast<uint64_t>(n) * (reply[0] == '%' ? 2 : 1));
  out.append(Bytes(body, static_cast<size_t>(end - body)));
}

// Takes the bytes of a payload from `p`; returns the byte behind them.
const char* Resp2Converter::payload(const char* p, const char* end, Buffer& out) {
  uint64_t& left = skip_left_ > 0 ? skip_left_ : sanitize_left_ > 0 ? sanitize_left_ : copy_left_;
  const size_t n = static_cast<size_t>(std::min(left, static_cast<uint64_t>(end - p)));
  if (&left == &copy_left_) {
    out.append(Bytes(p, n));
  } else if (&left == &sanitize_left_) {
    char* const to = out.reserve(n);
    std::transform(p, p + n, to, [](char c) { return c == '\r' || c == '\n' ? ' ' : c; });
    out.commit(n);
  }
  left -= n;
  return p + n;
}

// Takes the line at `p`, or its rest, and converts it once it is complete.
const char* Resp2Converter::collect_line(const char* p, const char* end, Buffer& out) {
  bool seen_cr = !line_.empty() && line_.back() == '\r';
  const char* const behind = resp::find_line_end(p, end, seen_cr);
  const Bytes part(p, static_cast<size_t>((behind != nullptr ? behind : end) - p));
  if (behind != nullptr && line_.empty()) {
    convert(part, out);
    return behind;
  }
  line_ += part;
  if (behind == nullptr) return end;
  convert(line_, out);
  line_.clear();
  return behind;
}

// `line` is whole, its CRLF included.
void Resp2Converter::convert(Bytes line, Buffer& out) {
  const char type = line[0];
  int64_t n = 0;
  if (has_number(type)) read_header(line.data(), line.data() + line.size(), n);
  if (dropped_left_ > 0) return drop(type, n);
  if (type == '|') {
    dropped_left_ = children(type, n);
    return;
  }
  if (pairs_ != Pairs::none && flatten(type, n, out)) return;
  const uint64_t bytes = static_cast<uint64_t>(std::max<int64_t>(n, 0));
  switch (type) {
    case '%': return resp::write_map(out, bytes, 2);
    case '~':
    case '>': return resp::write_array(out, bytes);
    case '=':
      skip_left_ = std::min(bytes, kFormatBytes);
      copy_left_ = bytes - skip_left_ + 2;
      return write_bulk_header(out, bytes - skip_left_);
    case '!':
      out.append('-');
      sanitize_left_ = bytes;
      copy_left_ = 2;
      return;
    case '$':
      if (n >= 0) copy_left_ = bytes + 2;
      return out.append(line);
    default: return convert_scalar(line, out);
  }
}

void Resp2Converter::convert_scalar(Bytes line, Buffer& out) {
  const Bytes text = line.substr(1, line.size() - 3);
  switch (line[0]) {
    case '_':
      return out.append(rule_ == Resp2Rule::null_array ? Bytes("*-1\r\n") : Bytes("$-1\r\n"));
    case '#': return out.append(text == "t" ? Bytes(":1\r\n") : Bytes(":0\r\n"));
    case ',':
    case '(': return resp::write_bulk(out, text);
    default: return out.append(line);
  }
}

// One element inside an attribute: nothing of it is written.
void Resp2Converter::drop(char type, int64_t n) {
  dropped_left_ += children(type, n);
  if (type != '|') --dropped_left_;
  if (is_bulk(type) && n >= 0) skip_left_ = static_cast<uint64_t>(n) + 2;
}

// Looks at a header while pairs may have to be flattened. True: there is nothing more to write.
bool Resp2Converter::flatten(char type, int64_t n, Buffer& out) {
  const bool is_pair = type == '*' && n == 2;
  switch (pairs_) {
    case Pairs::top:
      if (type != '*' || n <= 0) {
        pairs_ = Pairs::none;
        return false;
      }
      top_elements_ = static_cast<uint64_t>(n);
      pairs_ = Pairs::first;
      return true;
    case Pairs::first:
      resp::write_array(out, is_pair ? 2 * top_elements_ : top_elements_);
      pairs_ = is_pair ? Pairs::flat : Pairs::none;
      child_left_ = 2;
      return is_pair;
    case Pairs::flat:
      if (child_left_ > 0) {
        child_left_ += children(type, n) - 1;
        return false;
      }
      child_left_ = is_pair ? 2 : children(type, n);
      // Two elements were announced for each child: a lone one is filled up, or the client would
      // lose step with its replies.
      if (!is_pair) resp::write_null(out, 2);
      return is_pair;
    case Pairs::none: break;
  }
  return false;
}

}  // namespace nearcached
