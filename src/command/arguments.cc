// What a request is beyond its command's name: the answers that depend on its arguments.
//
// Every function here may err only on the safe side: "may block" costs a private connection,
// "may write" costs a miss, "unknown" costs a detour over RESP2.
#include <algorithm>

#include "command/options.h"
#include "nearcached/command/table.h"

namespace nearcached {
namespace {

/// XREAD and XREADGROUP block only with BLOCK, which stands before STREAMS.
bool has_block_option(std::span<const Bytes> args) {
  static constexpr Option kOptions[] = {
      {"BLOCK", 1}, {"COUNT", 1}, {"GROUP", 2}, {"NOACK", 0}, {"STREAMS", 0}};
  bool blocks = false;
  for_each_option(args, 1, kOptions, [&](const Option& option, size_t) {
    blocks = blocks || option.upper == "BLOCK";
    return option.upper != "STREAMS";
  });
  return blocks;
}

}  // namespace

bool may_block(const Command& command, std::span<const Bytes> args) {
  if (command.route != Route::blocking) return false;
  return command.options != Command::Options::xread || has_block_option(args);
}

Effect effect_of(const Command& command, std::span<const Bytes> args) {
  if (command.options != Command::Options::sort && command.options != Command::Options::georadius &&
      command.options != Command::Options::georadiusbymember)
    return command.effect;
  std::vector<KeyRef> keys;
  if (!extract_keys(command, args, keys)) return command.effect;
  const bool writes = std::any_of(keys.begin(), keys.end(), [](KeyRef key) { return key.write; });
  return writes ? command.effect : Effect::none;
}

Resp2Rule resp2_rule_of(const Command& command, std::span<const Bytes> args) {
  if (command.options == Command::Options::pop && args.size() > 2) return Resp2Rule::null_array;
  // XPENDING key group of an empty group: two null bulks and a null array, all `_` in RESP3.
  if (command.options == Command::Options::xpending && args.size() <= 3) return Resp2Rule::unknown;
  return command.resp2;
}

Cache cache_of(const Command& command, std::span<const Bytes> args) {
  if (command.cache == Cache::never || args.size() < 2 || !command.arity_ok(args.size()))
    return Cache::never;
  if (command.cache == Cache::single_only && args.size() != 2) return Cache::never;
  return command.cache;
}

}  // namespace nearcached
