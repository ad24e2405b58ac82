// TOML text into the Loader. toml++ hands out tables sorted by name, so errors are gathered by line
// and the first one is reported: that is the one a person looks for. toml++'s exceptions end here.
#include <toml++/toml.h>

#include <sstream>

#include "config/loader.h"
#include "config/units.h"

namespace nearcached::config {
namespace {

constexpr size_t kBlocksMax = 256;  // they are tried in turn for each key of a fill

Given to_given(const toml::array& array) {
  Given given{Given::Type::list, {}, {}, array.empty() ? "[]" : "[...]"};
  for (const toml::node& item : array) {
    if (!item.is_string()) return {Given::Type::other, {}, {}, given.shown};
    given.items.push_back(**item.as_string());
  }
  return given;
}

Given to_given(const toml::node& node) {
  if (const auto* text = node.as_string()) return {Given::Type::string, **text, {}, {}};
  if (const auto* flag = node.as_boolean()) {
    const std::string text = **flag ? "true" : "false";
    return {Given::Type::boolean, text, {}, text};
  }
  if (const auto* integer = node.as_integer()) {
    const std::string text = std::to_string(**integer);
    return {Given::Type::integer, text, {}, text};
  }
  if (const auto* array = node.as_array()) return to_given(*array);
  if (node.is_table()) return {Given::Type::other, {}, {}, "{...}"};
  std::ostringstream shown;  // a fraction, a date or a time: accepted nowhere
  if (const auto* fraction = node.as_floating_point()) shown << **fraction;
  else if (const auto* date = node.as_date()) shown << **date;
  else if (const auto* time = node.as_time()) shown << **time;
  else if (const auto* date_time = node.as_date_time()) shown << **date_time;
  return {Given::Type::other, {}, {}, shown.str()};
}

// toml++ tells what it took a value for ("Error while parsing decimal integer: …"), and a value
// that is not TOML is mostly 64MiB, 5s or a word that lacks its quotes.
std::string explain_syntax(std::string_view description) {
  constexpr std::string_view kPrefix = "Error while parsing ";
  if (description.starts_with(kPrefix)) description.remove_prefix(kPrefix.size());
  bool is_value = false;
  for (const char* type : {"integer", "floating-point", "value", "boolean", "time", "date"})
    is_value = is_value || description.substr(0, description.find(':')).ends_with(type);
  return "not TOML: " + std::string(description) +
         (is_value ? "; text, sizes and durations stand in quotes" : "");
}

}  // namespace

class TomlReader {
 public:
  TomlReader(Loader& loader, const std::string& name) : loader_(loader), name_(name) {}

  Result<void> read(const std::string& text) {
    try {
      const toml::table root = toml::parse(text, name_);
      for (const auto& [key, node] : root) read_section(key, node);
    } catch (const toml::parse_error& error) {
      fail(error.source(), explain_syntax(error.description()));
    }
    if (!errors_.empty()) return Error{errors_.begin()->second};
    return {};
  }

 private:
  std::string at(const toml::source_region& source) const {
    return name_ + ":" + std::to_string(source.begin.line) + ": ";
  }
  void fail(const toml::source_region& source, const std::string& what) {
    errors_.emplace(source.begin.line, at(source) + what);
  }

  void read_section(const toml::key& key, const toml::node& node) {
    const std::string section(key.str());
    if (section == kRuleSection) return read_blocks(key, node, rule_keys(), loader_.config_.rules);
    if (section == kSubscribeSection)
      return read_blocks(key, node, subscribe_keys(), loader_.config_.subscriptions);
    bool known = false;
    for (const ConfigKey& candidate : config_keys()) known = known || candidate.section == section;
    const toml::table* table = node.as_table();
    if (known && table != nullptr) {
      for (const auto& [name, value] : *table) read_key(section, name, value);
    } else if (known) {
      fail(key.source(), section + ": a section, written [" + section + "]");
    } else if (table != nullptr) {
      fail(key.source(), "[" + section + "]: " + explain_unknown_section(section));
    } else {
      fail(key.source(), section + ": " + explain_unknown_key("", section));
    }
  }

  void read_key(const std::string& section, const toml::key& name, const toml::node& value) {
    const std::string subject = section + "." + std::string(name.str());
    const ConfigKey* key = find_config_key(section, name.str());
    if (key == nullptr)
      return fail(name.source(), subject + ": " + explain_unknown_key(section, name.str()));
    const Result<void> set = loader_.set(*key, at(name.source()) + subject, to_given(value));
    if (!set) errors_.emplace(name.source().begin.line, set.error().detail);
  }

  /// Sections that can be given several times, as [[name]].
  template <typename Block, typename BlockKey>
  void read_blocks(const toml::key& key, const toml::node& node, std::span<const BlockKey> keys,
                   std::vector<Block>& blocks) {
    const std::string name(key.str());
    const toml::array* tables = node.as_array();
    if (tables == nullptr || !tables->is_array_of_tables())
      return fail(key.source(), name + ": written [[" + name + "]], one block for each");
    if (tables->size() > kBlocksMax)
      return fail(key.source(),
                  name + ": at most " + std::to_string(kBlocksMax) + " [[" + name + "]] blocks");
    blocks.clear();
    for (const toml::node& table : *tables)
      blocks.push_back(read_block<Block>(*table.as_table(), keys));
  }

  template <typename Block, typename BlockKey>
  Block read_block(const toml::table& table, std::span<const BlockKey> keys) {
    Block block;
    const std::string section(keys.front().section);
    for (const auto& [name, value] : table) {
      const BlockKey* key = nullptr;
      for (const BlockKey& candidate : keys)
        if (candidate.name == name.str()) key = &candidate;
      const std::string subject = section + "." + std::string(name.str());
      if (key == nullptr) {
        fail(name.source(), subject + ": " + explain_unknown_key(section, name.str()));
        continue;
      }
      const Result<void> assigned = assign(*key, key->field(block), to_given(value));
      if (!assigned) fail(name.source(), subject + " = " + assigned.error().detail);
    }
    if (!table.contains(keys.front().name))
      fail(table.source(), "[[" + section + "]]: " + keys.front().full_name() +
                               " is missing: " + accepted(keys.front()));
    return block;
  }

  Loader& loader_;
  const std::string& name_;
  std::map<toml::source_index, std::string> errors_;  ///< by line; the first of a line stays
};

Result<void> Loader::read_toml(const std::string& text, const std::string& name) {
  return TomlReader(*this, name).read(text);
}

}  // namespace nearcached::config
