// Numbers and one word before the payload, which is last because it may hold any byte.
#include "nearcached/coherence/schedule.h"

#include <charconv>

namespace nearcached::coherence {
namespace {

bool take_number(Bytes& text, uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data() + text.size() || *end != ' ') return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()) + 1);
  return true;
}

}  // namespace

std::string Schedule::to_text() const {
  std::string text = "1 ";
  for (const uint64_t number : {static_cast<uint64_t>(kind), due_ms, every_ms,
                                static_cast<uint64_t>(upstream), uint64_t{database}, base_ms})
    text.append(std::to_string(number)).append(" ");
  return text.append(what);
}

bool Schedule::parse(Bytes text) {
  uint64_t version = 0, kind_number = 0, upstream_number = 0, database_number = 0;
  if (!take_number(text, version) || version != 1) return false;
  if (!take_number(text, kind_number) || !take_number(text, due_ms) ||
      !take_number(text, every_ms) || !take_number(text, upstream_number) ||
      !take_number(text, database_number) || !take_number(text, base_ms))
    return false;
  if (kind_number > 1 || upstream_number > 1 || database_number > UINT32_MAX) return false;
  kind = static_cast<Kind>(kind_number);
  upstream = upstream_number == 1;
  database = static_cast<uint32_t>(database_number);
  what.assign(text);
  return true;
}

uint64_t Schedule::next_ms(uint64_t now_ms) const {
  if (every_ms == 0) return 0;
  const uint64_t from = base_ms != 0 ? base_ms : due_ms;
  if (from > now_ms) return from;
  return from + ((now_ms - from) / every_ms + 1) * every_ms;
}

}  // namespace nearcached::coherence
