// Which arguments of a request are keys.
//
// Redis describes most commands by key specs: where to begin (an index, or behind a keyword) and
// how to go on (a range, or a number of keys). Three kinds it leaves to code, and so do we: SORT
// and GEORADIUS, whose STORE may stand anywhere among the options, and MIGRATE, whose KEYS takes
// the rest.
//
// Invariant: every index handed out is smaller than the number of arguments, whatever the client
// sent; a number of keys is believed only after comparing it with the arguments that are there.
// What is malformed gives false, never a guess: the caller then takes the worst.
// Rejected: one extractor per command (twemproxy's way), which modules' commands could not use.
#include <charconv>

#include "command/options.h"
#include "nearcached/command/table.h"

namespace nearcached {
namespace {

using KeySpec = Command::KeySpec;

/// A decimal number as Redis reads one: digits only, no sign but '-', no leading zeros.
bool parse_number(Bytes text, int64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  return text.size() == 1 || (text[0] != '0' && text.substr(0, 2) != "-0");
}

/// Where the spec's keys begin: an argument's index, -1 if the keyword is absent.
int64_t begin_of(const KeySpec& spec, std::span<const Bytes> args) {
  if (spec.begin == KeySpec::Begin::index) return spec.index;
  const auto count = static_cast<int64_t>(args.size());
  const bool forward = spec.index >= 0;
  const int64_t step = forward ? 1 : -1;
  for (int64_t i = forward ? spec.index : count + spec.index; i > 0 && i < count; i += step)
    if (equals_upper(args[static_cast<size_t>(i)], spec.keyword)) return i + 1;
  return -1;
}

struct KeyRange {
  int64_t first = 0, last = -1, step = 1;
};

bool range_of(const KeySpec& spec, int64_t first, std::span<const Bytes> args, KeyRange& out) {
  const auto count = static_cast<int64_t>(args.size());
  int64_t last = first + spec.last;
  if (spec.last < 0)
    last = spec.limit > 1 ? first + (count - first) / spec.limit + spec.last : count + spec.last;
  out = {first, last, spec.step};
  return first < count && last < count && last >= first;
}

bool keynum_of(const KeySpec& spec, int64_t begin, std::span<const Bytes> args, KeyRange& out) {
  const auto count = static_cast<int64_t>(args.size());
  const int64_t at = begin + spec.keynum_index;
  int64_t keys = 0;
  if (at < 0 || at >= count || !parse_number(args[static_cast<size_t>(at)], keys)) return false;
  const int64_t first = begin + spec.first_key;
  if (keys < 0 || keys > count || first < 0) return false;
  out = {first, first + (keys - 1) * spec.keynum_step, spec.keynum_step};
  return out.last < count;
}

bool extract_by_spec(const KeySpec& spec, std::span<const Bytes> args, std::vector<KeyRef>& out) {
  if (spec.not_key) return true;
  if (spec.begin == KeySpec::Begin::unknown || spec.find == KeySpec::Find::unknown) return false;
  const int64_t begin = begin_of(spec, args);
  if (begin < 0) return spec.begin == KeySpec::Begin::keyword && !spec.incomplete;
  KeyRange range;
  const bool known = spec.find == KeySpec::Find::range ? range_of(spec, begin, args, range)
                                                       : keynum_of(spec, begin, args, range);
  if (!known || range.step < 1) return false;
  for (int64_t i = range.first; i <= range.last; i += range.step)
    out.push_back({static_cast<uint32_t>(i), spec.write});
  return !spec.incomplete;
}

constexpr Option kSortOptions[] = {{"BY", 1},  {"GET", 1},  {"LIMIT", 2}, {"STORE", 1},
                                   {"ASC", 0}, {"DESC", 0}, {"ALPHA", 0}};
constexpr Option kGeoradiusOptions[] = {{"STORE", 1},    {"STOREDIST", 1}, {"COUNT", 1},
                                        {"WITHDIST", 0}, {"WITHHASH", 0},  {"WITHCOORD", 0},
                                        {"ANY", 0},      {"ASC", 0},       {"DESC", 0}};

/// The source at 1 is read and the key behind each STORE or STOREDIST written. (The server obeys
/// the last one only; naming more as written is safe, naming fewer is not.)
bool extract_source_and_store(std::span<const Bytes> args, size_t from,
                              std::span<const Option> options, std::vector<KeyRef>& out) {
  if (args.size() < 2) return false;
  out.push_back({1, false});
  for_each_option(args, from, options, [&](const Option& option, size_t at) {
    if (option.upper.starts_with("STORE") && at + 1 < args.size())
      out.push_back({static_cast<uint32_t>(at + 1), true});
    return true;
  });
  return true;
}

/// MIGRATE host port key|"" destination-db timeout [options] [KEYS key …]: an empty key at 3 means
/// that KEYS, which takes all the rest, names them.
bool extract_migrate(std::span<const Bytes> args, std::vector<KeyRef>& out) {
  static constexpr Option kOptions[] = {
      {"COPY", 0}, {"REPLACE", 0}, {"AUTH", 1}, {"AUTH2", 2}, {"KEYS", 0}};
  if (args.size() < 4) return false;
  if (!args[3].empty()) {
    out.push_back({3, true});
    return true;
  }
  bool found = false;
  for_each_option(args, 6, kOptions, [&](const Option& option, size_t at) {
    if (option.upper != "KEYS") return true;
    for (size_t i = at + 1; i < args.size(); ++i) out.push_back({static_cast<uint32_t>(i), true});
    found = true;
    return false;
  });
  return found;
}

}  // namespace

bool extract_keys(const Command& command, std::span<const Bytes> args, std::vector<KeyRef>& out) {
  switch (command.options) {
    case Command::Options::sort:
      if (command.write) return extract_source_and_store(args, 2, kSortOptions, out);
      if (args.size() > 1) out.push_back({1, false});  // to SORT_RO, STORE is a syntax error
      return args.size() > 1;
    case Command::Options::georadius:
      return extract_source_and_store(args, 6, kGeoradiusOptions, out);
    case Command::Options::georadiusbymember:
      return extract_source_and_store(args, 5, kGeoradiusOptions, out);
    case Command::Options::migrate: return extract_migrate(args, out);
    case Command::Options::plain:
    case Command::Options::pop:
    case Command::Options::xpending:
    case Command::Options::xread: break;
  }
  bool complete = true;
  for (const KeySpec& spec : command.key_specs)
    complete = extract_by_spec(spec, args, out) && complete;
  return complete;
}

}  // namespace nearcached
