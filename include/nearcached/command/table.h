// The command table: what each command of Redis is to a proxy.
//
// Generated from a real server's own COMMAND metadata (tools/generate-commands → src/command/
// generated.inc), overlaid by the hand-kept lists in src/command/overlay.cc (how it is routed,
// whether its reply may be cached, how its reply looks in RESP2), and extended at run time with
// what the upstream's COMMAND reports beyond that (modules, newer versions). Pure; a table is
// immutable once built and may be read from any thread.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nearcached/base/bytes.h"
#include "nearcached/base/result.h"
#include "nearcached/resp/resp2_converter.h"

namespace nearcached {

/// How the session treats a command before it thinks of L1 or a lane.
enum class Route : uint8_t {
  lane,          ///< multiplexed: no connection state
  blocking,      ///< may block the connection: runs on a private one (BLPOP, XREAD BLOCK, WAIT …)
  subscribe,     ///< (P|S)SUBSCRIBE, (P|S)UNSUBSCRIBE
  monitor,       ///< MONITOR: an endless reply
  multi,         ///< MULTI
  exec,          ///< EXEC
  discard,       ///< DISCARD
  watch,         ///< WATCH
  unwatch,       ///< UNWATCH
  select,        ///< SELECT
  auth,          ///< AUTH
  hello,         ///< HELLO
  reset,         ///< RESET
  quit,          ///< QUIT
  client,        ///< CLIENT …: answered about the client's own connection, or pinned
  info,          ///< INFO: the upstream's, and ours behind it
  nearcache,     ///< NEARCACHE …: ours
  pinned_state,  ///< sets connection state we do not model (ASKING, READONLY, READWRITE …): pinned
  replication,   ///< SYNC, PSYNC, REPLCONF: never proxied
};

/// What a write does to what we hold.
enum class Effect : uint8_t {
  none,        ///< not a write
  keys,        ///< changes exactly the keys that extract_keys() names as written
  unknown,     ///< may change keys it does not name (EVAL, FCALL, modules without key specs)
  everything,  ///< FLUSHALL, FLUSHDB, SWAPDB, ACL changes, …: nothing held stays valid
};

/// Which replies may be kept, under the variant "name + arguments behind the key".
enum class Cache : uint8_t {
  never,
  single,       ///< one key at argument 1; the whole reply is a function of that key's value
  single_only,  ///< as single, but only when exactly one key is given (EXISTS)
  mget,         ///< MGET: each element is what GET would return (nil where GET would fail)
};

/// Where a request goes in a cluster when it names no key.
enum class Shards : uint8_t {
  any,      ///< one node, whichever
  channel,  ///< the node of argument 1, a channel (so that a channel's messages keep their order)
  ok,       ///< every primary; the first error, or the first reply
  first,    ///< every primary; the first reply that is no error (SCRIPT KILL)
  sum,      ///< every primary; the sum of the numbers
  concat,   ///< every primary; all elements in one array
  least,    ///< every primary; of each element the least (SCRIPT EXISTS)
  pick,     ///< every primary; one of the replies that are not null (RANDOMKEY)
  scan,     ///< the primary that the cursor names
};

/// How a request whose keys lie in several slots is taken apart; `none`: CROSSSLOT.
enum class Split : uint8_t { none, sum, mget, mset };

struct Command {
  std::string name;    ///< lower case; subcommands as "client|id"
  int32_t arity = 0;   ///< as in COMMAND: negative = at least
  bool write = false;  ///< flag "write", or "may_replicate" for scripts that may write
  bool readonly = false;
  bool admin = false;
  bool noscript = false;
  bool movable_keys = false;
  bool no_auth = false;  ///< may run before authentication
  bool has_subcommands = false;
  bool speaks_of_cluster = false;  ///< CLUSTER …, READONLY, READWRITE, ASKING
  Route route = Route::lane;
  Effect effect = Effect::none;
  Cache cache = Cache::never;
  Shards shards = Shards::any;
  Split split = Split::none;
  Resp2Rule resp2 = Resp2Rule::unknown;
  uint16_t id = 0;  ///< dense, stable within one table; part of a cached variant
  /// Commands whose keys, blocking or RESP2 form depend on arguments in a way of their own.
  enum class Options : uint8_t {
    plain,
    sort,
    georadius,
    georadiusbymember,
    migrate,
    xread,
    pop,  ///< LPOP, RPOP: with a count, null is an array
    xpending,
  };
  Options options = Options::plain;
  struct KeySpec {
    enum class Begin : uint8_t { index, keyword, unknown } begin = Begin::unknown;
    enum class Find : uint8_t { range, keynum, unknown } find = Find::unknown;
    bool write = false;    ///< anything but RO
    bool not_key = false;  ///< a channel or the like
    bool incomplete = false;
    std::string keyword;
    int32_t index = 0;                      ///< begin index, or keyword start-from
    int32_t last = 0, step = 1, limit = 0;  ///< range
    int32_t keynum_index = 0, first_key = 0, keynum_step = 1;  ///< keynum
  };
  std::vector<KeySpec> key_specs;

  bool arity_ok(size_t args) const {
    return arity >= 0 ? args == static_cast<size_t>(arity) : args >= static_cast<size_t>(-arity);
  }
};

struct KeyRef {
  uint32_t arg;  ///< index into the arguments
  bool write;    ///< the key may be changed
};

/// Finds the keys of a request. Appends to `out` (which is not cleared).
/// Returns false if the specs cannot name them all for these arguments (then a write is to be taken
/// as Effect::unknown). Malformed numbers of keys give false, never an overrun.
[[nodiscard]] bool extract_keys(const Command& command, std::span<const Bytes> args,
                                std::vector<KeyRef>& out);

/// True for a request of a `blocking` or maybe-blocking command that can really block with these
/// arguments (XREAD only with BLOCK).
bool may_block(const Command& command, std::span<const Bytes> args);

/// The effect of this very request (SORT without STORE, GEORADIUS without STORE … are reads).
Effect effect_of(const Command& command, std::span<const Bytes> args);

/// How this request's reply is turned into RESP2: mostly command.resp2, but LPOP's null depends on
/// its count, and XPENDING's short form has nulls of both kinds.
Resp2Rule resp2_rule_of(const Command& command, std::span<const Bytes> args);

/// Whether this request's reply may be kept (EXISTS with two keys may not, nor ZRANGE with too few
/// arguments). `cache` of the command narrowed to the arguments.
Cache cache_of(const Command& command, std::span<const Bytes> args);

class CommandTable {
 public:
  /// The built-in table (Redis 7.0's commands and NEARCACHE).
  static std::shared_ptr<const CommandTable> builtin();

  /// The built-in table plus the commands in `reply`, a whole RESP3 reply to COMMAND, that it does
  /// not know. Unknown commands get: route lane (blocking if flagged so), cache never, effect
  /// `keys` when their key positions are known and `unknown` when flagged write without them,
  /// resp2 unknown.
  static Result<std::shared_ptr<const CommandTable>> extended(Bytes reply);

  /// Finds by name (any case) and, for containers such as CLIENT, by the first argument too: the
  /// subcommand if it is known, else the container. nullptr: not in the table.
  const Command* find(std::span<const Bytes> args) const;
  const Command* find_name(Bytes lower_name) const;
  std::span<const Command> commands() const { return commands_; }

 private:
  CommandTable() = default;
  void add(Command command);
  void index();
  const Command* lookup(Bytes name, const Bytes* subcommand) const;

  std::vector<Command> commands_;  ///< by id
  std::vector<uint16_t>
      buckets_;  ///< open addressing on the name in any case; 0 = empty, else id + 1
  uint64_t mask_ = 0;
};

}  // namespace nearcached
