// One table of units each for sizes and durations serves both directions: a number is printed in
// the largest unit that divides it, so that printing loses nothing. Fractions ("1.5GiB") are not
// accepted: they would need rounding, and then what is printed would not be what was written.
#include "config/units.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "nearcached/base/bytes.h"

namespace nearcached::config {
namespace {

struct Unit {
  std::string_view upper;    ///< matched without regard to case
  std::string_view printed;  ///< empty: read only
  uint64_t factor;
};

constexpr std::array kSizeUnits{
    Unit{"TIB", "TiB", 1ull << 40},
    Unit{"GIB", "GiB", 1ull << 30},
    Unit{"MIB", "MiB", 1ull << 20},
    Unit{"KIB", "KiB", 1ull << 10},
    Unit{"GB", "", 1ull << 30},
    Unit{"MB", "", 1ull << 20},
    Unit{"KB", "", 1ull << 10},
    Unit{"G", "", 1'000'000'000},
    Unit{"M", "", 1'000'000},
    Unit{"K", "", 1'000},
    Unit{"B", "", 1},
};

constexpr std::array kDurationUnits{
    Unit{"H", "h", 3'600'000},
    Unit{"M", "m", 60'000},
    Unit{"S", "s", 1'000},
    Unit{"MS", "ms", 1},
};

template <size_t N>
std::optional<uint64_t> parse(std::string_view text, const std::array<Unit, N>& units,
                              uint64_t bare_factor) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::optional<uint64_t> number = parse_integer(text.substr(0, digits));
  const std::string_view suffix = text.substr(digits);
  if (!number) return std::nullopt;
  uint64_t factor = suffix.empty() ? bare_factor : 0;
  for (const Unit& unit : units)
    if (equals_upper(suffix, unit.upper)) factor = unit.factor;
  uint64_t product = 0;
  if (factor == 0 || __builtin_mul_overflow(*number, factor, &product)) return std::nullopt;
  return product;
}

}  // namespace

std::optional<uint64_t> parse_integer(std::string_view text) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || error != std::errc() || stop != end) return std::nullopt;
  return number;
}

std::optional<uint64_t> parse_size(std::string_view text) { return parse(text, kSizeUnits, 1); }

std::string format_size(uint64_t bytes) {
  for (const Unit& unit : kSizeUnits)
    if (!unit.printed.empty() && bytes >= unit.factor && bytes % unit.factor == 0)
      return std::to_string(bytes / unit.factor).append(unit.printed);
  return std::to_string(bytes);
}

std::optional<uint64_t> parse_duration_ms(std::string_view text, uint64_t bare_unit_ms) {
  return parse(text, kDurationUnits, bare_unit_ms);
}

std::string format_duration_ms(uint64_t ms) {
  if (ms == 0) return "0s";
  for (const Unit& unit : kDurationUnits)
    if (ms % unit.factor == 0) return std::to_string(ms / unit.factor).append(unit.printed);
  return {};  // not reached: the last unit divides everything
}

std::string quote(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out += '"';
}

}  // namespace nearcached::config
