// The table itself: built once from the generated rows and the overlay, then only read.
//
// find() runs once per request, so it does not allocate, lower-case or compare twice: the name is
// hashed eight bytes at a time with the case bit set, and one bucket leads to one comparison. A
// subcommand's bucket is found from its container's hash and its own word, so "client|id" is never
// put together. The buckets stay at most a quarter full.
// Invariant: commands_[i].id == i; ids below the built-in count mean the same in every table.
// Rejected: a perfect hash generated at build time, which could not take in the upstream's modules.
#include "nearcached/command/table.h"

#include <bit>

#include "command/command_reply.h"
#include "command/overlay.h"
#include "command/rows.h"
#include "nearcached/base/check.h"

namespace nearcached {
namespace {

using KeySpec = Command::KeySpec;

struct BeginRow {
  KeySpec::Begin begin;
  const char* keyword;
  int8_t index;
};

constexpr BeginRow at(int8_t index) { return {KeySpec::Begin::index, "", index}; }
constexpr BeginRow behind(const char* keyword, int8_t from) {
  return {KeySpec::Begin::keyword, keyword, from};
}
constexpr SpecRow range(BeginRow from, int8_t last, int8_t step, int8_t limit, uint8_t flags) {
  return {from.begin, KeySpec::Find::range, from.keyword, from.index, {last, step, limit}, flags};
}
constexpr SpecRow keynum(BeginRow from, int8_t index, int8_t first, int8_t step, uint8_t flags) {
  return {from.begin, KeySpec::Find::keynum, from.keyword, from.index, {index, first, step}, flags};
}
constexpr SpecRow unknown_keys(uint8_t flags) {
  return {KeySpec::Begin::unknown, KeySpec::Find::unknown, "", 0, {}, flags};
}

#include "command/generated.inc"

KeySpec make_spec(const SpecRow& row) {
  KeySpec spec;
  spec.begin = row.begin;
  spec.find = row.find;
  spec.keyword = row.keyword;
  spec.index = row.index;
  spec.write = (row.flags & kKeyWrite) != 0;
  spec.not_key = (row.flags & kNotKey) != 0;
  spec.incomplete = (row.flags & kIncomplete) != 0;
  if (row.find == KeySpec::Find::range) {
    spec.last = row.how[0];
    spec.step = row.how[1];
    spec.limit = row.how[2];
  } else {
    spec.keynum_index = row.how[0];
    spec.first_key = row.how[1];
    spec.keynum_step = row.how[2];
  }
  return spec;
}

Command make_command(const CommandRow& row) {
  Command command;
  command.name = row.name;
  command.arity = row.arity;
  apply_flags(command, row.flags);
  for (const uint8_t number : row.specs)
    if (number != 0) command.key_specs.push_back(make_spec(kSpecRows[number - 1]));
  derive_effect(command);
  command.resp2 = Resp2Rule::null_bulk;
  apply_overlay(command);
  return command;
}

constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15ull;

template <typename Word>
uint64_t load(const char* from) {
  Word word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

uint64_t mix(uint64_t hash, uint64_t word) {
  constexpr uint64_t kCaseBits = 0x2020202020202020ull;
  return std::rotl((hash ^ (word | kCaseBits)) * kMultiplier, 29);
}

/// The same for every case of the letters. What else the case bit folds together ('[' and '{') only
/// shares a bucket.
uint64_t hash_word(Bytes word) {
  const char* p = word.data();
  size_t n = word.size();
  uint64_t hash = n;
  for (; n > 8; n -= 8, p += 8) hash = mix(hash, load<uint64_t>(p));
  if (n == 8) return mix(hash, load<uint64_t>(p));
  if (n >= 4) return mix(hash, load<uint32_t>(p) | load<uint32_t>(p + n - 4) << 32);
  uint64_t tail = 0;
  for (size_t i = 0; i < n; ++i) tail = tail << 8 | static_cast<unsigned char>(p[i]);
  return mix(hash, tail);
}

uint64_t hash_name(Bytes name, const Bytes* subcommand) {
  const uint64_t hash = hash_word(name);
  return (subcommand != nullptr ? mix(hash, hash_word(*subcommand)) : hash) * kMultiplier >> 32;
}

}  // namespace

void apply_flags(Command& command, uint16_t flags) {
  command.write = (flags & kWrite) != 0;
  command.readonly = (flags & kReadonly) != 0;
  command.admin = (flags & kAdmin) != 0;
  command.noscript = (flags & kNoscript) != 0;
  command.movable_keys = (flags & kMovableKeys) != 0;
  command.no_auth = (flags & kNoAuth) != 0;
  command.has_subcommands = (flags & kContainer) != 0;
  if ((flags & kBlocking) != 0) command.route = Route::blocking;
}

void derive_effect(Command& command) {
  bool complete = !command.key_specs.empty(), writable = false;
  for (const KeySpec& spec : command.key_specs) {
    writable = writable || spec.write;
    complete = complete && !spec.incomplete && spec.begin != KeySpec::Begin::unknown &&
               spec.find != KeySpec::Find::unknown;
  }
  // Flags and specs contradict each other: XREADGROUP is flagged `write` and its keys are RO; EVAL
  // and PFCOUNT are not flagged so and their keys are RW. The worse of the two holds.
  if (command.write && !writable)
    for (KeySpec& spec : command.key_specs) spec.write = !spec.not_key;
  command.write = command.write || writable;
  if (command.write) command.effect = complete ? Effect::keys : Effect::unknown;
}

std::shared_ptr<const CommandTable> CommandTable::builtin() {
  static const std::shared_ptr<const CommandTable> table = [] {
    auto made = std::shared_ptr<CommandTable>(new CommandTable);
    for (const CommandRow& row : kCommandRows) made->add(make_command(row));
    for (const ExtraCommand& extra : extra_commands()) {
      Command command;
      command.name = extra.name;
      command.arity = extra.arity;
      apply_overlay(command);
      made->add(std::move(command));
    }
    made->index();
    return made;
  }();
  return table;
}

Result<std::shared_ptr<const CommandTable>> CommandTable::extended(Bytes reply) {
  Result<std::vector<Command>> parsed = parse_command_reply(reply);
  if (!parsed) return parsed.error();
  const std::shared_ptr<const CommandTable> base = builtin();
  auto made = std::shared_ptr<CommandTable>(new CommandTable);
  made->commands_ = base->commands_;
  for (Command& command : parsed.value()) {
    if (base->find_name(command.name) != nullptr) continue;
    if (made->commands_.size() >= UINT16_MAX) return Error{"COMMAND lists too many commands"};
    made->add(std::move(command));
  }
  made->index();
  return std::shared_ptr<const CommandTable>(std::move(made));
}

void CommandTable::add(Command command) {
  NC_CHECK(commands_.size() < UINT16_MAX);
  command.id = static_cast<uint16_t>(commands_.size());
  commands_.push_back(std::move(command));
}

void CommandTable::index() {
  buckets_.assign(std::bit_ceil(commands_.size() * 4), 0);
  mask_ = buckets_.size() - 1;
  for (const Command& command : commands_) {
    const Bytes name = command.name;
    const size_t bar = name.find('|');
    const Bytes subcommand = bar == Bytes::npos ? Bytes() : name.substr(bar + 1);
    uint64_t bucket =
        hash_name(name.substr(0, bar), bar == Bytes::npos ? nullptr : &subcommand) & mask_;
    while (buckets_[bucket] != 0) bucket = (bucket + 1) & mask_;
    buckets_[bucket] = static_cast<uint16_t>(command.id + 1);
  }
}

const Command* CommandTable::lookup(Bytes name, const Bytes* subcommand) const {
  const size_t size = name.size() + (subcommand != nullptr ? 1 + subcommand->size() : 0);
  for (uint64_t i = hash_name(name, subcommand) & mask_; buckets_[i] != 0; i = (i + 1) & mask_) {
    const Command& command = commands_[buckets_[i] - 1u];
    const Bytes stored = command.name;
    if (stored.size() != size || !equals_lower(name, stored.substr(0, name.size()))) continue;
    if (subcommand == nullptr) {
      if (stored.find('|') == Bytes::npos) return &command;
    } else if (stored[name.size()] == '|' &&
               equals_lower(*subcommand, stored.substr(name.size() + 1))) {
      return &command;
    }
  }
  return nullptr;
}

const Command* CommandTable::find(std::span<const Bytes> args) const {
  if (args.empty()) return nullptr;
  const Command* command = lookup(args[0], nullptr);
  if (command == nullptr || !command->has_subcommands || args.size() < 2) return command;
  const Command* subcommand = lookup(args[0], &args[1]);
  return subcommand != nullptr ? subcommand : command;
}

const Command* CommandTable::find_name(Bytes lower_name) const {
  const size_t bar = lower_name.find('|');
  if (bar == Bytes::npos) return lookup(lower_name, nullptr);
  const Bytes subcommand = lower_name.substr(bar + 1);
  return lookup(lower_name.substr(0, bar), &subcommand);
}

}  // namespace nearcached
