// Iterative matching with one backtrack point (the last star): a later star makes an earlier one's
// choices irrelevant, so O(pattern × text) is enough and no input can make it exponential.
#include "nearcached/base/glob.h"

namespace nearcached {
namespace {

// Matches one byte against the class that starts at pattern[p] == '['; sets `next` past it.
bool match_class(Bytes pattern, size_t p, unsigned char c, size_t& next) {
  ++p;
  const bool negated = p < pattern.size() && pattern[p] == '^';
  if (negated) ++p;
  bool found = false;
  while (true) {
    if (p >= pattern.size()) break;  // an unclosed class ends with the pattern, as in Redis
    if (pattern[p] == '\\' && p + 1 < pattern.size()) {
      ++p;
      if (static_cast<unsigned char>(pattern[p]) == c) found = true;
    } else if (pattern[p] == ']') {
      break;
    } else if (p + 2 < pattern.size() && pattern[p + 1] == '-') {
      auto low = static_cast<unsigned char>(pattern[p]);
      auto high = static_cast<unsigned char>(pattern[p + 2]);
      if (low > high) {
        const auto t = low;
        low = high;
        high = t;
      }
      p += 2;
      if (c >= low && c <= high) found = true;
    } else if (static_cast<unsigned char>(pattern[p]) == c) {
      found = true;
    }
    ++p;
  }
  next = p < pattern.size() ? p + 1 : p;
  return found != negated;
}

}  // namespace

bool glob_match(Bytes pattern, Bytes text) {
  size_t p = 0, t = 0;
  size_t star = Bytes::npos, star_text = 0;
  while (t < text.size()) {
    bool matched = false;
    size_t next = p + 1;
    if (p < pattern.size()) {
      const char c = pattern[p];
      if (c == '*') {
        star = ++p;
        star_text = t;
        if (p == pattern.size()) return true;
        continue;
      }
      if (c == '?') {
        matched = true;
      } else if (c == '[') {
        matched = match_class(pattern, p, static_cast<unsigned char>(text[t]), next);
      } else {
        const size_t q = c == '\\' && p + 1 < pattern.size() ? p + 1 : p;
        matched = pattern[q] == text[t];
        next = q + 1;
      }
    }
    if (matched) {
      p = next;
      ++t;
    } else if (star != Bytes::npos) {
      p = star;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace nearcached
