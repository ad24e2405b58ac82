// The compact form in which generated.inc keeps the commands, and what turns rows into Commands.
#pragma once
#include "nearcached/command/table.h"

namespace nearcached {

enum CommandFlag : uint16_t {
  kWrite = 1,
  kReadonly = 2,
  kAdmin = 4,
  kNoscript = 8,
  kMovableKeys = 16,
  kNoAuth = 32,
  kBlocking = 64,
  kContainer = 128,
};

enum KeyFlag : uint8_t { kKeyWrite = 1, kNotKey = 2, kIncomplete = 4 };

struct SpecRow {
  Command::KeySpec::Begin begin;
  Command::KeySpec::Find find;
  const char* keyword;
  int8_t index;
  int8_t how[3];  ///< range: last, step, limit; keynum: where the number is, first key, step
  uint8_t flags;
};

constexpr size_t kSpecsMax = 3;

struct CommandRow {
  const char* name;
  int8_t arity;
  uint16_t flags;
  uint8_t specs[kSpecsMax];  ///< numbers of the specs, counted from 1; 0 = none
};

/// Sets the flag's own field of `command`; `blocking` becomes its route.
void apply_flags(Command& command, uint16_t flags);

/// Derives `write` and `effect` from the flags and key specs. For every command, before the
/// overlay.
void derive_effect(Command& command);

}  // namespace nearcached
