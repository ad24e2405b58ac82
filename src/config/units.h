// Sizes and durations as people write them ("64MiB", "500ms"), and TOML's quoting of text.
// What a format_ function prints, the parse_ function of the same name reads back to the same
// value.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nearcached::config {

/// Decimal digits only, no sign, no overflow.
std::optional<uint64_t> parse_integer(std::string_view text);

/// Redis's units (b, k = 1000, kb = 1024, m, mb, g, gb) and KiB, MiB, GiB, TiB, in any case;
/// no unit: bytes.
std::optional<uint64_t> parse_size(std::string_view text);
std::string format_size(uint64_t bytes);

/// "500ms", "5s", "1m" or "1h" in milliseconds; no unit: `bare_unit_ms` each (1 or 1000).
std::optional<uint64_t> parse_duration_ms(std::string_view text, uint64_t bare_unit_ms);
std::string format_duration_ms(uint64_t ms);

/// `text` as a basic TOML string, quotes included. Also makes any text fit for a one-line error.
std::string quote(std::string_view text);

}  // namespace nearcached::config
