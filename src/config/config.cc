// Gathering, checking and printing the whole. A key's own value is checked where it is assigned
// (codec.cc); here is only what takes two keys. Checks run once, at the end: halfway, a file and an
// option that fit each other would contradict the defaults.
#include "nearcached/config/config.h"

#include <algorithm>
#include <array>

#include "config/keys.h"
#include "config/loader.h"
#include "config/units.h"
#include "nearcached/base/check.h"

namespace nearcached {
namespace config {
namespace {

// lower × factor ≤ upper. Both keys have the same kind.
struct Ordering {
  std::string_view section;
  std::string_view lower;
  std::string_view upper;
  uint64_t factor;
};

constexpr std::array kOrderings{
    Ordering{"upstream", "reconnect_min", "reconnect_max", 1},
    Ordering{"upstream", "topology_refresh_min", "topology_refresh", 1},
    Ordering{"coherence", "heartbeat", "max_staleness", 2},
    Ordering{"limits", "bulk", "request", 1},
    Ordering{"limits", "client_output_pause", "client_output", 1},
};

uint64_t number_of(const ConfigKey& key, Config& config) {
  const Field field = key.field(config);
  if (auto* const* narrow = std::get_if<uint32_t*>(&field)) return **narrow;
  return *std::get<uint64_t*>(field);
}

void append_header(std::string& out, std::string_view open, std::string_view section,
                   std::string_view close) {
  out.append(out.empty() ? "" : "\n").append(open).append(section).append(close).append("\n");
}

void append_key(std::string& out, const Key& key, const std::string& value) {
  if (value.empty()) return;
  out.append("# ").append(key.doc).append("\n");
  out.append(key.name).append(" = ").append(value).append("\n");
}

}  // namespace

template <typename BlockKey, typename Block>
void append_blocks(std::string& out, std::span<const BlockKey> keys, std::vector<Block>& blocks) {
  for (Block& block : blocks) {
    append_header(out, "[[", keys.front().section, "]]");
    for (const BlockKey& key : keys) append_key(out, key, format(key, key.field(block)));
  }
}

const ConfigKey* find_config_key(std::string_view section, std::string_view name) {
  for (const ConfigKey& key : config_keys())
    if (key.section == section && key.name == name) return &key;
  return nullptr;
}

Result<void> Loader::set(const ConfigKey& key, const std::string& subject, const Given& given) {
  const Result<void> assigned = assign(key, key.field(config_), given);
  if (!assigned) return Error{subject + " = " + assigned.error().detail};
  subjects_[&key] = subject;
  return {};
}

Result<void> Loader::check_orderings() {
  for (const Ordering& ordering : kOrderings) {
    const ConfigKey* lower = find_config_key(ordering.section, ordering.lower);
    const ConfigKey* upper = find_config_key(ordering.section, ordering.upper);
    NC_CHECK(lower != nullptr && upper != nullptr);
    if (number_of(*lower, config_) <= number_of(*upper, config_) / ordering.factor) continue;
    const auto show = [&](const ConfigKey& key) { return format(key, key.field(config_)); };
    const auto name = [&](const ConfigKey& key) {
      return key.full_name() + " (" + show(key) + ")";
    };
    const std::string half = ordering.factor == 2 ? "half of " : "";
    const std::string twice = ordering.factor == 2 ? "twice " : "";
    // The defaults fit each other, so at least one of the two was set: that one is blamed.
    if (const auto at = subjects_.find(lower); at != subjects_.end())
      return Error{at->second + " = " + show(*lower) + ": at most " + half + name(*upper)};
    return Error{subjects_.at(upper) + " = " + show(*upper) + ": at least " + twice + name(*lower)};
  }
  return {};
}

// What the bus listens to itself would be taken for its own messages.
Result<void> Loader::check_subscriptions() {
  const std::string& own = config_.coherence.channel;
  for (const EventSubscription& event : config_.subscriptions)
    for (const std::string& reserved :
         {own + ":", own + ".to.", std::string("__redis__:"), std::string("__keyspace@")})
      if (event.channel.starts_with(reserved))
        return Error{"[[subscribe]]: subscribe.channel = \"" + event.channel +
                     "\": channels that begin with \"" + reserved + "\" are the bus's own"};
  return {};
}

// Nobody tells when such an entry becomes stale: only its own time ends it, so that has to be said.
Result<void> Loader::check_rules() {
  for (const Rule& rule : config_.rules)
    if (rule.replica_fill && (!rule.replica_reads || !rule.cache || !rule.ttl_ms))
      return Error{
          "[[rule]] of \"" + rule.keys +
          "\": rule.replica_fill = true: needs rule.replica_reads = true, rule.ttl, and no "
          "rule.cache = false"};
  return check_rule_memory();
}

// Its policy decides among the entries of one memory; what is left must be a cache as well.
Result<void> Loader::check_rule_memory() {
  static constexpr uint64_t kLeftMin = 1 << 20;
  uint64_t left = config_.l1.memory_bytes;
  for (const Rule& rule : config_.rules) {
    const std::string subject = "[[rule]] of \"" + rule.keys + "\": ";
    if (rule.policy && !rule.memory_bytes)
      return Error{subject + "rule.policy: needs rule.memory, the entries it decides about"};
    if (!rule.memory_bytes) continue;
    if (!rule.cache)
      return Error{subject + "rule.memory: not with rule.cache = false, which keeps nothing"};
    if (left < kLeftMin + *rule.memory_bytes)
      return Error{subject + "rule.memory = " + quote(format_size(*rule.memory_bytes)) +
                   ": leaves less than 1MiB of l1.memory = " +
                   quote(format_size(config_.l1.memory_bytes)) + " to all other keys"};
    left -= *rule.memory_bytes;
  }
  return {};
}

Result<void> Loader::check_upstream() {
  const auto& upstream = config_.upstream;
  const auto blame = [&](std::string_view section, std::string_view name) {
    const ConfigKey* key = find_config_key(section, name);
    NC_CHECK(key != nullptr);
    return subjects_.at(key) + " = " + format(*key, key->field(config_)) + ": ";
  };
  // These modes rest on the order between the bus and the data, which one server gives.
  const CoherenceMode mode = config_.coherence.mode;
  const bool over_bus = mode == CoherenceMode::redirect || mode == CoherenceMode::publish ||
                        mode == CoherenceMode::keyspace;
  if (over_bus && upstream.parsed.kind == UpstreamKind::cluster)
    return Error{blame("coherence", "mode") +
                 "not with redis+cluster://, whose bus and data are at different nodes; accepted: "
                 "\"auto\", \"resp3\", \"ttl\" or \"off\""};
  if (!upstream.sentinel_user.empty() && upstream.sentinel_password.empty())
    return Error{blame("upstream", "sentinel_user") + "needs upstream.sentinel_password"};
  return {};
}

Result<Config> Loader::finish() {
  // A smaller --max-staleness alone must be a working configuration.
  auto& coherence = config_.coherence;
  if (!subjects_.contains(find_config_key("coherence", "heartbeat")))
    coherence.heartbeat_ms = std::clamp<uint64_t>(coherence.max_staleness_ms / 5, 1, 100);
  if (const Result<void> ordered = check_orderings(); !ordered) return ordered.error();
  if (const Result<void> checked = check_subscriptions(); !checked) return checked.error();
  if (const Result<void> checked = check_rules(); !checked) return checked.error();
  if (const Result<void> checked = check_upstream(); !checked) return checked.error();
  return std::move(config_);
}

}  // namespace config

Result<Config> parse_config(const std::string& text, const std::string& name) {
  config::Loader loader;
  if (const Result<void> read = loader.read_toml(text, name); !read) return read.error();
  return loader.finish();
}

std::string print_config(const Config& original) {
  Config config = original;  // the accessors of the table give out mutable fields
  std::string out;
  std::string_view section;
  for (const config::ConfigKey& key : config::config_keys()) {
    if (key.section != section) config::append_header(out, "[", key.section, "]");
    section = key.section;
    config::append_key(out, key, config::format(key, key.field(config)));
  }
  config::append_blocks(out, config::rule_keys(), config.rules);
  config::append_blocks(out, config::subscribe_keys(), config.subscriptions);
  return out;
}

}  // namespace nearcached
