// What a request is beyond its command's name: the answers that depend on its arguments.
//
// Every function here may err only on the safe side: "may block" costs a private connection,
// "may write" costs a miss, "unknown" costs a detour over RESP2.
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
  switch (command.options) {
    case Command::Options::plain:
    case Command::Options::migrate:
    case Command::Options::xread: return command.effect;
    case Command::Options::sort:
    case Command::Options::georadius:
    case Command::Options::georadiusbymember: break;
  }
  std::vector<KeyRef> keys;
  if (!extract_keys(command, args, keys)) return command.effect;
  for (const KeyRef& key : keys)
    if (key.write) return command.effect;
  return Effect::none;
}

Resp2Rule resp2_rule_of(const Command& command, std::span<const Bytes>) { return command.resp2; }

Cache cache_of(const Command& command, std::span<const Bytes> args) {
  if (command.cache == Cache::never || args.size() < 2 || !command.arity_ok(args.size()))
    return Cache::never;
  if (command.cache == Cache::single_only && args.size() != 2) return Cache::never;
  return command.cache;
}

}  // namespace nearcached
