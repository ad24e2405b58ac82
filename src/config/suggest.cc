// "Did you mean": the nearest known word by Levenshtein distance. For keys both the dotted name and
// the bare name in another section are tried: a key under the wrong section is as common as a typo.
// Vocabularies have some fifty short words, so the plain quadratic distance will do.
#include <algorithm>
#include <numeric>

#include "config/loader.h"

namespace nearcached::config {
namespace {

size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substituted});
    }
  }
  return row.back();
}

// A third of the word may be wrong; more, and the suggestion would be a guess.
bool is_near(size_t wrong, std::string_view text) { return wrong <= 1 + text.size() / 3; }

std::vector<const Key*> keys_of(std::string_view section) {
  std::vector<const Key*> keys;
  if (section == kRuleSection)
    for (const RuleKey& key : rule_keys()) keys.push_back(&key);
  else if (section == kSubscribeSection)
    for (const SubscribeKey& key : subscribe_keys()) keys.push_back(&key);
  else
    for (const ConfigKey& key : config_keys()) keys.push_back(&key);
  return keys;
}

std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const ConfigKey& key : config_keys())
    if (names.empty() || names.back() != key.section) names.emplace_back(key.section);
  names.emplace_back(kRuleSection);
  names.emplace_back(kSubscribeSection);
  return names;
}

std::string join(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out.append(out.empty() ? "" : ", ").append(word);
  return out;
}

}  // namespace

std::string nearest_word(std::string_view text, const std::vector<std::string>& words) {
  const auto nearest = std::min_element(
      words.begin(), words.end(),
      [&](const auto& a, const auto& b) { return distance(text, a) < distance(text, b); });
  return nearest != words.end() && is_near(distance(text, *nearest), text) ? *nearest
                                                                           : std::string();
}

std::string explain_unknown_key(std::string_view section, std::string_view name) {
  const Key* nearest = nullptr;
  size_t nearest_wrong = 0;
  std::vector<std::string> siblings;
  for (const Key* key : keys_of(section)) {
    const bool elsewhere = key->section != section;
    if (!elsewhere) siblings.emplace_back(key->name);
    const size_t wrong = distance(name, key->name) + (elsewhere ? 1 : 0);
    if (nearest != nullptr && wrong >= nearest_wrong) continue;
    nearest = key;
    nearest_wrong = wrong;
  }
  if (is_near(nearest_wrong, name))
    return "unknown key; did you mean " + nearest->full_name() + "?";
  if (siblings.empty()) return "unknown key; the sections are " + join(section_names());
  return "unknown key; [" + std::string(section) + "] has " + join(siblings);
}

std::string explain_unknown_section(std::string_view section) {
  const std::vector<std::string> names = section_names();
  const std::string nearest = nearest_word(section, names);
  if (!nearest.empty()) return "unknown section; did you mean [" + nearest + "]?";
  return "unknown section; the sections are " + join(names);
}

}  // namespace nearcached::config
