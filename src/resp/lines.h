// The two things every RESP reader does all day: read the number of a header line, find a line's
// end.
#pragma once
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nearcached/base/bytes.h"

namespace nearcached::resp {

/// Digits that read_length() takes; a longer number is left to the caller's thorough path.
inline constexpr ptrdiff_t kLengthDigitsMax = 8;

/// Reads `digits CR LF` at `p`. Returns the byte behind it, or nullptr if that is not there in full
/// or not in the form that Redis writes (no sign, no leading zero).
inline const char* read_length(const char* p, const char* end, uint64_t& n) {
  if (end - p < 3) return nullptr;
  // Two digits are what most keys' lengths have.
  if (end - p >= 4 && std::memcmp(p + 2, "\r\n", 2) == 0) {
    const unsigned tens = static_cast<unsigned char>(p[0]) - unsigned{'0'};
    const unsigned ones = static_cast<unsigned char>(p[1]) - unsigned{'0'};
    if (tens - 1 > 8 || ones > 9) return nullptr;
    n = tens * 10 + ones;
    return p + 4;
  }
  unsigned digit = static_cast<unsigned char>(*p) - unsigned{'0'};
  if (digit > 9) return nullptr;
  uint64_t value = digit;
  ++p;
  if (*p != '\r') {
    if (digit == 0) return nullptr;
    const char* const limit = end - p > kLengthDigitsMax ? p + kLengthDigitsMax : end;
    do {
      digit = static_cast<unsigned char>(*p) - unsigned{'0'};
      if (digit > 9) return nullptr;
      value = value * 10 + digit;
      if (++p == limit) return nullptr;
    } while (*p != '\r');
  }
  if (end - p < 2 || p[1] != '\n') return nullptr;
  n = value;
  return p + 2;
}

/// Reads all of `text` as an integer, as strictly as Redis's string2ll(): no plus sign, no leading
/// zeros, no "-0", nothing outside 64 bits.
inline bool parse_integer(Bytes text, int64_t& n) {
  if (text == "0") {
    n = 0;
    return true;
  }
  const size_t sign = !text.empty() && text[0] == '-' ? 1 : 0;
  if (text.size() == sign || text[sign] < '1' || text[sign] > '9') return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  return error == std::errc() && end == text.data() + text.size();
}

/// The byte behind the first CR LF, or nullptr. `seen_cr`: the byte before `p` was a CR; updated to
/// the last byte when nothing is found. A lone CR or LF belongs to the line, as hiredis has it.
inline const char* find_line_end(const char* p, const char* end, bool& seen_cr) {
  const char* const start = p;
  while (p != end) {
    const char* lf = static_cast<const char*>(std::memchr(p, '\n', static_cast<size_t>(end - p)));
    if (lf == nullptr) break;
    if (lf == start ? seen_cr : lf[-1] == '\r') return lf + 1;
    p = lf + 1;
  }
  if (start != end) seen_cr = end[-1] == '\r';
  return nullptr;
}

}  // namespace nearcached::resp
