// conf/nearcached.toml is documentation that must stay true: it is compared with the table of keys.
#include <catch2/catch.hpp>

#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "config/keys.h"
#include "config/source_root.h"
#include "nearcached/config/config.h"

using namespace nearcached;

namespace {

std::string shipped_file() {
  std::ifstream file(NEARCACHED_SOURCE_ROOT "/conf/nearcached.toml");
  REQUIRE(file.good());
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// "section.key" → its lines "key = value", whether commented out or not. Examples are indented
// deeper than "# " and so do not count.
std::map<std::string, std::vector<std::string>> settings_of(const std::string& text) {
  static const std::regex kHeader("(?:# )?\\[+([a-z0-9]+)\\]+");
  static const std::regex kSetting("(?:# )?(([a-z0-9_]+) = .+)");
  std::map<std::string, std::vector<std::string>> settings;
  std::string section, line;
  std::smatch match;
  for (std::istringstream lines(text); std::getline(lines, line);) {
    if (std::regex_match(line, match, kHeader)) section = match[1];
    else if (std::regex_match(line, match, kSetting))
      settings[section + "." + match[2].str()].push_back(match[1]);
  }
  return settings;
}

}  // namespace

TEST_CASE("the shipped file is the default configuration", "[config]") {
  const Result<Config> config = parse_config(shipped_file(), "conf/nearcached.toml");
  INFO((config.ok() ? "" : config.error().detail));
  REQUIRE(config.ok());
  CHECK(config.value() == Config{});
}

TEST_CASE("the shipped file has every key once, with its default, and no other", "[config]") {
  auto settings = settings_of(shipped_file());
  for (const config::ConfigKey& key : config::config_keys()) {
    INFO(key.full_name());
    const std::vector<std::string> lines = settings[key.full_name()];
    REQUIRE(lines.size() == 1);
    const Result<Config> config =
        parse_config(std::string(key.section).append(".").append(lines[0]), "conf/nearcached.toml");
    REQUIRE(config.ok());
    CHECK(config.value() == Config{});
    settings.erase(key.full_name());
  }
  for (const config::RuleKey& key : config::rule_keys()) {
    INFO(key.full_name());
    REQUIRE(!settings[key.full_name()].empty());
    for (const std::string& line : settings[key.full_name()]) {
      const bool is_keys = key.name == "keys";
      const std::string needs = key.name == "replica_fill" ? "\nreplica_reads = true\nttl = \"1s\""
                                : key.name == "policy"     ? "\nmemory = \"1MiB\""
                                                           : "";
      CHECK(parse_config("[[rule]]\n" + line + (is_keys ? "" : "\nkeys = \"*\"") + needs, "rule")
                .ok());
    }
    settings.erase(key.full_name());
  }
  for (const config::SubscribeKey& key : config::subscribe_keys()) {
    INFO(key.full_name());
    REQUIRE(settings[key.full_name()].size() == 1);
    const std::string channel = key.name == "channel" ? "" : "\nchannel = \"c\"";
    CHECK(parse_config("[[subscribe]]\n" + settings[key.full_name()][0] + channel, "s").ok());
    settings.erase(key.full_name());
  }
  for (const auto& [name, lines] : settings) FAIL_CHECK("not a key: " << name);
}
