// Values of keys: text in, field out, and back. One switch over Kind in each direction; everything
// a kind needs beyond that is a function here. An interface with a class per kind was the
// alternative: four times the text for the same cases.
#include <algorithm>
#include <array>
#include <limits>

#include "config/address.h"
#include "config/keys.h"
#include "config/units.h"
#include "nearcached/base/check.h"

namespace nearcached::config {
namespace {

using Type = Given::Type;

constexpr std::array<std::string_view, 7> kModes{"auto",     "resp3", "redirect", "publish",
                                                 "keyspace", "ttl",   "off"};
constexpr std::array<std::string_view, 2> kPayloads{"key", "pattern"};
constexpr std::array<std::string_view, 2> kPresences{"redis", "cluster"};
constexpr std::array<std::string_view, 4> kReadFrom{"primary", "prefer_replica", "replica",
                                                    "nearest"};
constexpr std::array<std::string_view, 5> kLevels{"trace", "debug", "info", "warn", "error"};
constexpr std::string_view kAuto = "auto";
constexpr std::string_view kHidden = "***";

template <size_t N>
std::string choices(const std::array<std::string_view, N>& names) {
  std::string out;
  for (size_t i = 0; i < N; ++i)
    out.append(i == 0 ? "" : i + 1 == N ? " or " : ", ").append(quote(names[i]));
  return out;
}

std::string range(const Key& key, std::string (*format_number)(uint64_t)) {
  return format_number(key.min) + " to " + format_number(key.max);
}
std::string format_count(uint64_t number) { return std::to_string(number); }
std::string format_seconds(uint64_t seconds) { return format_duration_ms(seconds * 1000); }

Error rejected(const Key& key, const Given& given) {
  if (key.kind == Kind::secret) return Error{quote(kHidden) + ": " + accepted(key)};
  const std::string& shown = given.shown;
  return Error{(shown.empty() ? quote(given.text) : shown) + ": " + accepted(key)};
}

bool is_text(const Given& given) {
  return given.type == Type::string || given.type == Type::command_line;
}

// The number a scalar stands for under this key, before its range is looked at.
std::optional<uint64_t> parse_number(const Key& key, const Given& given) {
  const bool written_as_number = given.type == Type::integer || given.type == Type::command_line;
  if (!written_as_number && given.type != Type::string) return std::nullopt;
  switch (key.kind) {
    case Kind::size: return parse_size(given.text);
    case Kind::milliseconds: return parse_duration_ms(given.text, 1);
    case Kind::seconds: {
      const std::optional<uint64_t> ms = parse_duration_ms(given.text, 1000);
      if (!ms || *ms % 1000 != 0) return std::nullopt;
      return *ms / 1000;
    }
    default: return written_as_number ? parse_integer(given.text) : std::nullopt;
  }
}

void store_number(const Field& field, uint64_t number) {
  if (auto* const* narrow = std::get_if<uint32_t*>(&field)) {
    NC_CHECK(number <= std::numeric_limits<uint32_t>::max());
    **narrow = static_cast<uint32_t>(number);
  } else if (auto* const* wide = std::get_if<uint64_t*>(&field)) {
    **wide = number;
  } else {
    *std::get<std::optional<uint64_t>*>(field) = number;
  }
}

std::optional<uint64_t> load_number(const Field& field) {
  if (auto* const* narrow = std::get_if<uint32_t*>(&field)) return **narrow;
  if (auto* const* wide = std::get_if<uint64_t*>(&field)) return **wide;
  return *std::get<std::optional<uint64_t>*>(field);
}

Result<void> assign_number(const Key& key, const Field& field, const Given& given) {
  if (key.kind == Kind::threads && is_text(given) && given.text == kAuto) {
    store_number(field, 0);
    return {};
  }
  const std::optional<uint64_t> number = parse_number(key, given);
  if (!number || *number < key.min || *number > key.max) return rejected(key, given);
  store_number(field, *number);
  return {};
}

Result<void> assign_boolean(const Key& key, bool& out, const Given& given) {
  const bool written_as_boolean = given.type == Type::boolean || given.type == Type::command_line;
  if (!written_as_boolean || (given.text != "true" && given.text != "false"))
    return rejected(key, given);
  out = given.text == "true";
  return {};
}

template <typename Enum, size_t N>
Result<void> assign_choice(const Key& key, Enum& out, const Given& given,
                           const std::array<std::string_view, N>& names) {
  const auto found = std::find(names.begin(), names.end(), given.text);
  if (!is_text(given) || found == names.end()) return rejected(key, given);
  out = static_cast<Enum>(found - names.begin());
  return {};
}

Result<void> assign_policy(const Key& key, const Field& field, const Given& given) {
  if (auto* const* always = std::get_if<L1Policy*>(&field))
    return assign_choice(key, **always, given, kL1PolicyNames);
  return assign_choice(key, std::get<std::optional<L1Policy>*>(field)->emplace(), given,
                       kL1PolicyNames);
}

Result<void> assign_text(const Key& key, std::string& out, const Given& given) {
  const bool holds_nul = given.text.find('\0') != std::string::npos;
  const bool may_be_empty =
      key.kind == Kind::file || key.kind == Kind::user || key.kind == Kind::secret;
  if (!is_text(given) || holds_nul || (!may_be_empty && given.text.empty()))
    return rejected(key, given);
  out = given.text;
  return {};
}

Result<void> assign_name(const Key& key, std::string& out, const Given& given) {
  static constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-";
  const bool fits = given.text.size() >= key.min && given.text.size() <= key.max &&
                    given.text.find_first_not_of(kAllowed) == std::string::npos;
  if (!is_text(given) || !fits) return rejected(key, given);
  out = given.text;
  return {};
}

// "1/N" is N, "0" is 0.
Result<void> assign_fraction(const Key& key, uint64_t& out, const Given& given) {
  std::string_view text = given.text;
  const bool never = text == "0";
  if (!never && (!is_text(given) || !text.starts_with("1/"))) return rejected(key, given);
  if (!never) text.remove_prefix(2);
  const std::optional<uint64_t> number = parse_integer(std::string(text));
  if (!number || *number > key.max || (!never && *number == 0)) return rejected(key, given);
  out = *number;
  return {};
}

Result<void> assign_url(const Key& key, Config::Upstream& out, const Given& given) {
  if (!is_text(given)) return rejected(key, given);
  Result<UpstreamUrl> url = parse_url(given.text);
  if (!url)
    return Error{quote(redact(given.text)) + ": " + url.error().detail +
                 "; accepted: " + accepted(key)};
  out.url = given.text;
  out.parsed = std::move(url.value());
  return {};
}

bool is_list(const Key& key, const Given& given) {
  const bool type_fits = given.type == Type::list || given.type == Type::command_line;
  return type_fits && given.items.size() >= key.min && given.items.size() <= key.max;
}

Result<void> assign_addresses(const Key& key, std::vector<Address>& out, const Given& given) {
  if (!is_list(key, given)) return rejected(key, given);
  std::vector<Address> addresses;
  for (const std::string& item : given.items) {
    Result<Address> address = parse_address(item);
    if (!address) return Error{quote(item) + ": " + address.error().detail + "; " + accepted(key)};
    if (std::find(addresses.begin(), addresses.end(), address.value()) != addresses.end())
      return Error{quote(item) + ": given twice"};
    addresses.push_back(std::move(address.value()));
  }
  out = std::move(addresses);
  return {};
}

Result<void> assign_commands(const Key& key, std::vector<std::string>& out, const Given& given) {
  static constexpr std::string_view kAllowed = "abcdefghijklmnopqrstuvwxyz0123456789_-.|";
  if (!is_list(key, given)) return rejected(key, given);
  std::vector<std::string> commands;
  for (const std::string& item : given.items) {
    std::string name;
    for (const char c : item) name += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    if (name.empty() || name.find_first_not_of(kAllowed) != std::string::npos)
      return Error{quote(item) + ": " + accepted(key)};
    commands.push_back(std::move(name));
  }
  out = std::move(commands);
  return {};
}

template <typename Items, typename ToText>
std::string format_list(const Items& items, ToText to_text) {
  std::string out = "[";
  for (const auto& item : items)
    out.append(out.size() > 1 ? ", " : "").append(quote(to_text(item)));
  return out += ']';
}

std::string format_policy(const Field& field) {
  auto* const* always = std::get_if<L1Policy*>(&field);
  const std::optional<L1Policy> policy =
      always != nullptr ? **always : *std::get<std::optional<L1Policy>*>(field);
  return policy ? quote(kL1PolicyNames[static_cast<size_t>(*policy)]) : std::string();
}

std::string format_number(const Key& key, uint64_t number) {
  switch (key.kind) {
    case Kind::size: return quote(format_size(number));
    case Kind::milliseconds: return quote(format_duration_ms(number));
    case Kind::seconds: return quote(format_seconds(number));
    case Kind::threads: return number == 0 ? quote(kAuto) : format_count(number);
    default: return format_count(number);
  }
}

}  // namespace

Result<void> assign(const Key& key, const Field& field, const Given& given) {
  switch (key.kind) {
    case Kind::boolean: return assign_boolean(key, *std::get<bool*>(field), given);
    case Kind::count:
    case Kind::threads:
    case Kind::size:
    case Kind::milliseconds:
    case Kind::seconds: return assign_number(key, field, given);
    case Kind::mode: return assign_choice(key, *std::get<CoherenceMode*>(field), given, kModes);
    case Kind::policy: return assign_policy(key, field, given);
    case Kind::payload:
      return assign_choice(key, *std::get<EventPayload*>(field), given, kPayloads);
    case Kind::presence: return assign_choice(key, *std::get<PresentAs*>(field), given, kPresences);
    case Kind::read_from: return assign_choice(key, *std::get<ReadFrom*>(field), given, kReadFrom);
    case Kind::name: return assign_name(key, *std::get<std::string*>(field), given);
    case Kind::fraction: return assign_fraction(key, *std::get<uint64_t*>(field), given);
    case Kind::level: return assign_choice(key, *std::get<LogLevel*>(field), given, kLevels);
    case Kind::user:
    case Kind::secret:
    case Kind::file:
    case Kind::channel:
    case Kind::glob: return assign_text(key, *std::get<std::string*>(field), given);
    case Kind::url: return assign_url(key, *std::get<Config::Upstream*>(field), given);
    case Kind::addresses:
      return assign_addresses(key, *std::get<std::vector<Address>*>(field), given);
    case Kind::commands:
      return assign_commands(key, *std::get<std::vector<std::string>*>(field), given);
  }
  return {};
}

std::string format(const Key& key, const Field& field) {
  switch (key.kind) {
    case Kind::boolean: return *std::get<bool*>(field) ? "true" : "false";
    case Kind::count:
    case Kind::threads:
    case Kind::size:
    case Kind::milliseconds:
    case Kind::seconds: {
      const std::optional<uint64_t> number = load_number(field);
      return number ? format_number(key, *number) : std::string();
    }
    case Kind::mode: return quote(kModes[static_cast<size_t>(*std::get<CoherenceMode*>(field))]);
    case Kind::policy: return format_policy(field);
    case Kind::payload:
      return quote(kPayloads[static_cast<size_t>(*std::get<EventPayload*>(field))]);
    case Kind::presence:
      return quote(kPresences[static_cast<size_t>(*std::get<PresentAs*>(field))]);
    case Kind::read_from: return quote(kReadFrom[static_cast<size_t>(*std::get<ReadFrom*>(field))]);
    case Kind::fraction: {
      const uint64_t every = *std::get<uint64_t*>(field);
      return quote(every == 0 ? "0" : "1/" + std::to_string(every));
    }
    case Kind::level: return quote(kLevels[static_cast<size_t>(*std::get<LogLevel*>(field))]);
    case Kind::secret:
      return quote(std::get<std::string*>(field)->empty() ? std::string_view() : kHidden);
    case Kind::name:
    case Kind::user:
    case Kind::file:
    case Kind::channel:
    case Kind::glob: return quote(*std::get<std::string*>(field));
    case Kind::url: return quote(redact(std::get<Config::Upstream*>(field)->url));
    case Kind::addresses:
      return format_list(*std::get<std::vector<Address>*>(field),
                         [](const Address& address) { return address.to_string(); });
    case Kind::commands:
      return format_list(*std::get<std::vector<std::string>*>(field),
                         [](const std::string& name) { return name; });
  }
  return {};
}

std::string accepted(const Key& key) {
  switch (key.kind) {
    case Kind::boolean: return "true or false";
    case Kind::count: return "an integer (" + range(key, format_count) + ")";
    case Kind::threads: return quote(kAuto) + " or an integer (" + range(key, format_count) + ")";
    case Kind::size: return "a size such as 64MiB or 1048576 (" + range(key, format_size) + ")";
    case Kind::milliseconds:
      return "a duration such as 500ms, 5s, 1m or 1h (" + range(key, format_duration_ms) + ")";
    case Kind::seconds:
      return "a duration in whole seconds such as 30s, 5m or 1h (" + range(key, format_seconds) +
             ")";
    case Kind::mode: return choices(kModes);
    case Kind::policy: return choices(kL1PolicyNames);
    case Kind::payload: return choices(kPayloads);
    case Kind::presence: return choices(kPresences);
    case Kind::read_from: return choices(kReadFrom);
    case Kind::channel: return "the name of a pub/sub channel";
    case Kind::name: return "a word of letters, digits and \"._:-\", at most 64";
    case Kind::fraction: return "\"0\", or \"1/N\" such as \"1/1000\"";
    case Kind::level: return choices(kLevels);
    case Kind::user: return "a user's name, or an empty string for the default user";
    case Kind::secret: return "a password, or an empty string for none";
    case Kind::file: return "a file name, or an empty string for standard error";
    case Kind::glob: return "a Redis glob such as \"user:*\"";
    case Kind::url: return std::string(kUrlForms);
    case Kind::addresses: return "a list of addresses: " + std::string(kAddressForms);
    case Kind::commands: return "a list of command names such as \"shutdown\" or \"config|set\"";
  }
  return {};
}

}  // namespace nearcached::config
