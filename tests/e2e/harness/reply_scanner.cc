// A reply is a tree, but its end needs no tree: count how many elements are still to come. A leaf
// takes one off, an aggregate of n puts n on.
#include "harness/reply_scanner.h"

#include <charconv>
#include <stdexcept>
#include <string>

namespace nearcached::e2e {
namespace {

long long header_number(std::string_view digits) {
  long long value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc{} || end != digits.data() + digits.size() || value < -1) {
    throw std::runtime_error("bad length in a reply: " + std::string(digits));
  }
  return value;
}

}  // namespace

size_t ReplyScanner::length(std::string_view bytes) {
  while (remaining_ > 0) {
    const size_t line_end = bytes.find("\r\n", position_);
    if (line_end == std::string_view::npos) return 0;
    const char type = bytes[position_];
    const std::string_view rest = bytes.substr(position_ + 1, line_end - position_ - 1);
    size_t next = line_end + 2;
    size_t children = 0;
    bool counts = true;
    switch (type) {
      case '+':
      case '-':
      case ':':
      case ',':
      case '#':
      case '_':
      case '(': break;
      case '$':
      case '=':
      case '!': {
        const long long size = header_number(rest);
        if (size >= 0) next += static_cast<size_t>(size) + 2;
        break;
      }
      case '*':
      case '~':
      case '>': {
        const long long count = header_number(rest);
        if (count > 0) children = static_cast<size_t>(count);
        break;
      }
      case '%': children = 2 * static_cast<size_t>(header_number(rest)); break;
      case '|':  // an attribute stands before the element that it describes
        children = 2 * static_cast<size_t>(header_number(rest));
        counts = false;
        break;
      default: throw std::runtime_error("not a reply: " + std::string(bytes.substr(position_, 60)));
    }
    if (next > bytes.size()) return 0;
    position_ = next;
    remaining_ += children;
    if (counts) --remaining_;
  }
  return position_;
}

}  // namespace nearcached::e2e
