// The hand-kept knowledge about commands: what Redis's own metadata does not say.
#pragma once
#include <span>

#include "nearcached/command/table.h"

namespace nearcached {

/// A command that the table holds although Redis 7.0 does not report it.
struct ExtraCommand {
  const char* name;
  int32_t arity;
};
std::span<const ExtraCommand> extra_commands();

/// Sets route, effect, cache and resp2 of the command by its name; leaves what it does not know.
void apply_overlay(Command& command);

}  // namespace nearcached
