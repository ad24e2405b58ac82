// What Redis's metadata does not say about its commands, kept by hand.
//
// Four questions, a list of names for each answer: how a session treats the command (Route), what
// it does to what we hold (Effect), whether its reply may be kept (Cache), and how its RESP3 reply
// becomes the RESP2 one (Resp2Rule). What is not listed has the common answer: lane, what the key
// specs say, never; and null_bulk, but only for Redis 7.0's own commands (ask over RESP2
// otherwise).
//
// Cache lists only reads that Redis 7.0.15 was seen to track with OPTIN + CLIENT CACHING YES and
// whose reply is a function of the one key's value. Not listed on purpose: TTL and its kin and
// OBJECT (change without a push), RANDOMKEY, SCAN, SRANDMEMBER and the like (random), SORT (reads
// keys it does not track), PFCOUNT (writes), XINFO and XPENDING (XREADGROUP changes them without a
// push). Resp2Rule was found by comparing both forms of each command's replies on the real server;
// the differential test holds it to that.
#include "command/overlay.h"

#include <algorithm>

namespace nearcached {
namespace {

constexpr ExtraCommand kExtraCommands[] = {
    {"nearcache", -2},
    {"client|setinfo", -2},  // Redis 7.2; older ones answer that they do not know it
};

template <typename Answer>
struct Names {
  Answer answer;
  std::span<const Bytes> names;
};

constexpr Bytes kBlockingCommands[] = {"wait", "xread", "xreadgroup"};
constexpr Bytes kSubscribeCommands[] = {"psubscribe", "punsubscribe", "ssubscribe",
                                        "subscribe",  "sunsubscribe", "unsubscribe"};
constexpr Bytes kMonitorCommands[] = {"monitor"};
constexpr Bytes kMultiCommands[] = {"multi"};
constexpr Bytes kExecCommands[] = {"exec"};
constexpr Bytes kDiscardCommands[] = {"discard"};
constexpr Bytes kWatchCommands[] = {"watch"};
constexpr Bytes kUnwatchCommands[] = {"unwatch"};
constexpr Bytes kSelectCommands[] = {"select"};
constexpr Bytes kAuthCommands[] = {"auth"};
constexpr Bytes kHelloCommands[] = {"hello"};
constexpr Bytes kResetCommands[] = {"reset"};
constexpr Bytes kQuitCommands[] = {"quit"};
constexpr Bytes kClientCommands[] = {"client"};
constexpr Bytes kInfoCommands[] = {"info"};
constexpr Bytes kNearcacheCommands[] = {"nearcache"};
constexpr Bytes kPinnedStateCommands[] = {"asking", "readonly", "readwrite", "script|debug"};
constexpr Bytes kReplicationCommands[] = {"psync", "replconf", "sync"};
/// CLIENT subcommands that speak to the whole server, not about the connection.
constexpr Bytes kLaneCommands[] = {"client|help", "client|pause", "client|setinfo",
                                   "client|unpause"};

constexpr Names<Route> kRoutes[] = {
    {Route::lane, kLaneCommands},
    {Route::blocking, kBlockingCommands},
    {Route::subscribe, kSubscribeCommands},
    {Route::monitor, kMonitorCommands},
    {Route::multi, kMultiCommands},
    {Route::exec, kExecCommands},
    {Route::discard, kDiscardCommands},
    {Route::watch, kWatchCommands},
    {Route::unwatch, kUnwatchCommands},
    {Route::select, kSelectCommands},
    {Route::auth, kAuthCommands},
    {Route::hello, kHelloCommands},
    {Route::reset, kResetCommands},
    {Route::quit, kQuitCommands},
    {Route::client, kClientCommands},
    {Route::info, kInfoCommands},
    {Route::nearcache, kNearcacheCommands},
    {Route::pinned_state, kPinnedStateCommands},
    {Route::replication, kReplicationCommands},
};

/// Flagged `write`, but what they write is code, not data.
constexpr Bytes kHarmlessCommands[] = {"function|delete", "function|flush", "function|load",
                                       "function|restore"};
/// Their keys follow from Command::options although the specs say that they do not.
constexpr Bytes kOptionKeysCommands[] = {"georadius", "georadiusbymember", "migrate", "sort"};
/// Scripts declare keys, and may write others; PFCOUNT, though read-only, may rewrite its keys.
constexpr Bytes kScriptCommands[] = {"eval", "evalsha", "fcall"};
constexpr Bytes kSweepingCommands[] = {"acl|deluser",
                                       "acl|load",
                                       "acl|setuser",
                                       "cluster|delslots",
                                       "cluster|delslotsrange",
                                       "cluster|failover",
                                       "cluster|flushslots",
                                       "cluster|replicate",
                                       "cluster|reset",
                                       "cluster|setslot",
                                       "debug",
                                       "failover",
                                       "flushall",
                                       "flushdb",
                                       "replicaof",
                                       "slaveof",
                                       "swapdb"};

constexpr Names<Effect> kEffects[] = {
    {Effect::none, kHarmlessCommands},
    {Effect::keys, kOptionKeysCommands},
    {Effect::unknown, kScriptCommands},
    {Effect::everything, kSweepingCommands},
};

constexpr Bytes kSingleKeyReads[] = {"bitcount",
                                     "bitfield_ro",
                                     "bitpos",
                                     "geodist",
                                     "geohash",
                                     "geopos",
                                     "georadius_ro",
                                     "georadiusbymember_ro",
                                     "geosearch",
                                     "get",
                                     "getbit",
                                     "getrange",
                                     "hexists",
                                     "hget",
                                     "hgetall",
                                     "hkeys",
                                     "hlen",
                                     "hmget",
                                     "hstrlen",
                                     "hvals",
                                     "lindex",
                                     "llen",
                                     "lpos",
                                     "lrange",
                                     "scard",
                                     "sismember",
                                     "smembers",
                                     "smismember",
                                     "strlen",
                                     "substr",
                                     "type",
                                     "xlen",
                                     "xrange",
                                     "xrevrange",
                                     "zcard",
                                     "zcount",
                                     "zlexcount",
                                     "zmscore",
                                     "zrange",
                                     "zrangebylex",
                                     "zrangebyscore",
                                     "zrank",
                                     "zrevrange",
                                     "zrevrangebylex",
                                     "zrevrangebyscore",
                                     "zrevrank",
                                     "zscore"};
constexpr Bytes kSingleOnlyReads[] = {"exists"};
constexpr Bytes kMgetReads[] = {"mget"};

constexpr Names<Cache> kCaches[] = {
    {Cache::single, kSingleKeyReads},
    {Cache::single_only, kSingleOnlyReads},
    {Cache::mget, kMgetReads},
};

/// A null of theirs is a null array in RESP2.
constexpr Bytes kNullArrayCommands[] = {"blmove", "blmpop",    "blpop",    "brpop",  "brpoplpush",
                                        "bzmpop", "bzpopmax",  "bzpopmin", "geopos", "lmpop",
                                        "xrange", "xrevrange", "zmpop"};
/// Score or value beside its member: pairs in RESP3, flat in RESP2. Without WITHSCORES, WITHVALUES
/// or a count there are no pairs to flatten.
constexpr Bytes kPairedCommands[] = {
    "hrandfield", "zdiff",         "zinter",    "zpopmax",          "zpopmin", "zrandmember",
    "zrange",     "zrangebyscore", "zrevrange", "zrevrangebyscore", "zunion"};
/// A map of streams becomes an array of pairs, nulls inside are of either kind; or the reply is not
/// one reply, or speaks of the connection itself.
constexpr Bytes kOnlyAsAskedCommands[] = {"exec",      "hello",        "monitor",  "psubscribe",
                                          "psync",     "punsubscribe", "replconf", "ssubscribe",
                                          "subscribe", "sunsubscribe", "sync",     "unsubscribe",
                                          "xread",     "xreadgroup"};

constexpr Names<Resp2Rule> kResp2Rules[] = {
    {Resp2Rule::null_array, kNullArrayCommands},
    {Resp2Rule::flatten_pairs, kPairedCommands},
    {Resp2Rule::unknown, kOnlyAsAskedCommands},
};

constexpr struct {
  Bytes name;
  Command::Options options;
} kOptions[] = {
    {"georadius", Command::Options::georadius},
    {"georadiusbymember", Command::Options::georadiusbymember},
    {"migrate", Command::Options::migrate},
    {"sort", Command::Options::sort},
    {"sort_ro", Command::Options::sort},
    {"lpop", Command::Options::pop},
    {"rpop", Command::Options::pop},
    {"xpending", Command::Options::xpending},
    {"xread", Command::Options::xread},
    {"xreadgroup", Command::Options::xread},
};

template <typename Answer, size_t N>
void answer_by_name(const Names<Answer> (&lists)[N], Bytes name, Answer& answer) {
  for (const Names<Answer>& list : lists)
    if (std::find(list.names.begin(), list.names.end(), name) != list.names.end())
      answer = list.answer;
}

}  // namespace

std::span<const ExtraCommand> extra_commands() { return kExtraCommands; }

void apply_overlay(Command& command) {
  const Bytes name = command.name;
  // A subcommand is routed as its container unless it is listed itself.
  answer_by_name(kRoutes, name.substr(0, name.find('|')), command.route);
  answer_by_name(kRoutes, name, command.route);
  answer_by_name(kEffects, name, command.effect);
  answer_by_name(kCaches, name, command.cache);
  for (const auto& listed : kOptions)
    if (listed.name == name) command.options = listed.options;
  answer_by_name(kResp2Rules, name, command.resp2);
}

}  // namespace nearcached
