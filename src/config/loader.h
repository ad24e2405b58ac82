// Loader: gathers a Config from its sources and remembers where each value came from, so that a
// contradiction between two keys can be blamed on a line or an option.
//
// Use: any number of read_toml() and set(), later ones win; then finish() once.
#pragma once
#include <map>
#include <string>
#include <string_view>

#include "config/keys.h"

namespace nearcached::config {

class Loader {
 public:
  /// `name` stands for the file in errors. Of several errors the one in the first line is reported.
  Result<void> read_toml(const std::string& text, const std::string& name);

  /// `subject` names place and key in errors: "nearcached.toml:12: l1.memory", "--set l1.memory".
  Result<void> set(const ConfigKey& key, const std::string& subject, const Given& given);

  /// Derives what follows from other keys and checks the keys against each other.
  Result<Config> finish();

 private:
  friend class TomlReader;
  Result<void> check_orderings();
  Result<void> check_subscriptions();
  Result<void> check_rules();
  Result<void> check_rule_memory();
  Result<void> check_upstream();

  Config config_;
  std::map<const Key*, std::string> subjects_;  ///< of the keys that were set
};

/// Null if there is none.
const ConfigKey* find_config_key(std::string_view section, std::string_view name);

/// "unknown key; did you mean l1.memory?" `section` may be kRuleSection, empty or unknown.
std::string explain_unknown_key(std::string_view section, std::string_view name);
std::string explain_unknown_section(std::string_view section);

/// The word of `words` that `text` was probably meant to be; empty if none is near.
std::string nearest_word(std::string_view text, const std::vector<std::string>& words);

}  // namespace nearcached::config
