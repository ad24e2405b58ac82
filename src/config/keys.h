// The table of keys: each key of the configuration is written once, here. Reading TOML, --set, the
// options of the command line, --print-config, validation, error texts and --help all follow from
// it.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "nearcached/base/result.h"
#include "nearcached/config/config.h"

namespace nearcached::config {

enum class Kind : uint8_t {
  boolean,
  count,
  threads,  ///< a count, or "auto" for 0
  size,
  milliseconds,
  seconds,
  mode,
  policy,
  payload,
  presence,
  read_from,
  channel,   ///< of pub/sub
  name,      ///< a word of letters, digits and "._:-"
  fraction,  ///< "1/N", or "0" for never; stored as N or 0
  level,
  user,
  secret,  ///< never shown
  file,
  glob,
  url,
  addresses,
  commands,
};

/// Where a key's value lives in the Config (or Rule) it was asked of.
using Field = std::variant<bool*, uint32_t*, uint64_t*, std::optional<uint64_t>*, std::string*,
                           CoherenceMode*, LogLevel*, Config::Upstream*, std::vector<Address>*,
                           std::vector<std::string>*, EventPayload*, PresentAs*, ReadFrom*,
                           L1Policy*, std::optional<L1Policy>*>;

struct Key {
  std::string_view section;
  std::string_view name;
  Kind kind;
  uint64_t min;  ///< of numbers, in bytes for sizes, in ms or s for durations
  uint64_t max;
  std::string_view doc;  ///< one line

  std::string full_name() const { return std::string(section).append(".").append(name); }
};

struct ConfigKey : Key {
  Field (*field)(Config&);
};
struct RuleKey : Key {
  Field (*field)(Rule&);
};

struct SubscribeKey : Key {
  Field (*field)(EventSubscription&);
};

std::span<const ConfigKey> config_keys();
/// Of the blocks that can be given several times; the first key of each must be there.
std::span<const RuleKey> rule_keys();
std::span<const SubscribeKey> subscribe_keys();
inline constexpr std::string_view kRuleSection = "rule";
inline constexpr std::string_view kSubscribeSection = "subscribe";

/// A value as it was given, before its key decides what it means.
struct Given {
  enum class Type : uint8_t { boolean, integer, string, list, other, command_line };
  Type type;
  std::string text;  ///< of a scalar
  std::vector<std::string>
      items;          ///< of a list of strings; on the command line the text split at ','
  std::string shown;  ///< for errors; a scalar's may be left empty
};

/// Stores `given` in `field`. The error is "VALUE: what is accepted", passwords left out.
Result<void> assign(const Key& key, const Field& field, const Given& given);

/// The value as TOML that assign() accepts; empty if it is not set (rules only).
std::string format(const Key& key, const Field& field);

/// What a key accepts: "a size such as 64MiB or 1048576 (1MiB to 1TiB)".
std::string accepted(const Key& key);

}  // namespace nearcached::config
