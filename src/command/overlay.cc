// What Redis's metadata does not say about its commands, kept by hand.
//
// Four questions, a list of names for each answer: how a session treats the command (Route), what
// it does to what we hold (Effect), whether its reply may be kept (Cache), and how its RESP3 reply
// becomes the RESP2 one (Resp2Rule). What is not listed has the common answer: lane; what the key
// specs say; never; and null_bulk, but only for Redis 7.0's own commands, unknown for others.
//
// Cache lists only reads that Redis 7.0.15 was seen to track with OPTIN + CLIENT CACHING YES, of a
// present and of a missing key, and whose reply is a function of that one key's value. Not listed
// on purpose: TTL and its kin and OBJECT (change without a push), RANDOMKEY, SCAN, SRANDMEMBER and
// the like (random), SORT (reads keys it does not track), PFCOUNT (may write), XINFO and XPENDING
// (XREADGROUP changes what they say without a push), DUMP (tied to the server's version).
//
// Resp2Rule was found by running every command over both protocols on a real server, in success,
// with missing keys and in error; the differential test holds the lists to that.
//
// Lists of words rather than a row per command with all its answers: a list reads as one rule and
// shows its exceptions, and they are looked up only while a table is built.
#include "command/overlay.h"

namespace nearcached {
namespace {

constexpr ExtraCommand kExtraCommands[] = {
    {"nearcache", -2},
    {"client|setinfo", -2},  // Redis 7.2; older ones answer that they do not know it
};

template <typename Answer>
struct Names {
  Answer answer;
  Bytes names;  ///< separated by single blanks
};

/// A subcommand is routed as its container unless it is listed itself. The CLIENT subcommands for
/// the lane speak to the whole server, not about the connection.
constexpr Names<Route> kRoutes[] = {
    {Route::lane, "client|help client|pause client|setinfo client|unpause"},
    {Route::blocking, "wait waitaof xread xreadgroup"},
    {Route::subscribe, "psubscribe punsubscribe ssubscribe subscribe sunsubscribe unsubscribe"},
    {Route::monitor, "monitor"},
    {Route::multi, "multi"},
    {Route::exec, "exec"},
    {Route::discard, "discard"},
    {Route::watch, "watch"},
    {Route::unwatch, "unwatch"},
    {Route::select, "select"},
    {Route::auth, "auth"},
    {Route::hello, "hello"},
    {Route::reset, "reset"},
    {Route::quit, "quit"},
    {Route::client, "client"},
    {Route::info, "info"},
    {Route::nearcache, "nearcache"},
    {Route::pinned_state, "asking readonly readwrite script|debug"},
    {Route::replication, "psync replconf sync"},
};

constexpr Names<Effect> kEffects[] = {
    // Flagged `write`, but what they write is code, not data.
    {Effect::none, "function|delete function|flush function|load function|restore"},
    // Command::options finds their keys although the specs say that they do not name all.
    {Effect::keys, "georadius georadiusbymember migrate sort"},
    // Scripts declare keys, and may write others.
    {Effect::unknown, "eval evalsha fcall"},
    {Effect::everything,
     "acl|deluser acl|load acl|setuser cluster|delslots cluster|delslotsrange cluster|failover "
     "cluster|flushslots cluster|replicate cluster|reset cluster|setslot debug failover flushall "
     "flushdb replicaof slaveof swapdb"},
};

constexpr Names<Cache> kCaches[] = {
    {Cache::single,
     "bitcount bitfield_ro bitpos geodist geohash geopos georadius_ro georadiusbymember_ro "
     "geosearch get getbit getrange hexists hget hgetall hkeys hlen hmget hstrlen hvals lindex "
     "llen "
     "lpos lrange scard sismember smembers smismember strlen substr type xlen xrange xrevrange "
     "zcard zcount zlexcount zmscore zrange zrangebylex zrangebyscore zrank zrevrange "
     "zrevrangebylex zrevrangebyscore zrevrank zscore"},
    {Cache::single_only, "exists"},
    {Cache::mget, "mget"},
};

constexpr Names<Resp2Rule> kResp2Rules[] = {
    {Resp2Rule::null_bulk, "client|setinfo"},
    {Resp2Rule::null_array,
     "blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin geopos lmpop xrange xrevrange "
     "zmpop"},
    // A score or value beside its member. Without WITHSCORES, WITHVALUES or a count the reply holds
    // no arrays, and the rule changes nothing.
    {Resp2Rule::flatten_pairs,
     "hrandfield zdiff zinter zpopmax zpopmin zrandmember zrange zrangebyscore zrevrange "
     "zrevrangebyscore zunion"},
    // XREAD: a map of streams becomes an array of pairs, with nulls of either kind inside. The
    // others answer more than once, or with what the connection itself has been through.
    {Resp2Rule::unknown,
     "exec hello monitor psubscribe psync punsubscribe replconf ssubscribe subscribe sunsubscribe "
     "sync unsubscribe xread xreadgroup"},
};

// Pub/sub commands speak of channels, which any node passes on to the others.
constexpr Names<Shards> kShards[] = {
    {Shards::channel, "publish spublish"},
    {Shards::ok,
     "acl|deluser acl|load acl|save acl|setuser bgrewriteaof bgsave config|resetstat "
     "config|rewrite config|set flushall flushdb function|delete function|flush function|load "
     "function|restore latency|reset memory|purge save script|flush script|load slowlog|reset"},
    {Shards::first, "function|kill script|kill"},
    {Shards::sum, "dbsize"},
    {Shards::concat, "keys"},
    {Shards::least, "script|exists"},
    {Shards::pick, "randomkey"},
    {Shards::scan, "scan"},
};

constexpr Names<Split> kSplits[] = {
    {Split::sum, "del exists touch unlink"},
    {Split::mget, "mget"},
    {Split::mset, "mset"},
};

constexpr Names<Command::Options> kOptions[] = {
    {Command::Options::georadius, "georadius"},
    {Command::Options::georadiusbymember, "georadiusbymember"},
    {Command::Options::migrate, "migrate"},
    {Command::Options::pop, "lpop rpop"},
    {Command::Options::sort, "sort sort_ro"},
    {Command::Options::xpending, "xpending"},
    {Command::Options::xread, "xread xreadgroup"},
};

bool lists(Bytes names, Bytes name) {
  while (true) {
    const size_t end = names.find(' ');
    if (names.substr(0, end) == name) return true;
    if (end == Bytes::npos) return false;
    names.remove_prefix(end + 1);
  }
}

template <typename Answer, size_t N>
void answer_by_name(const Names<Answer> (&answers)[N], Bytes name, Answer& answer) {
  for (const Names<Answer>& listed : answers)
    if (lists(listed.names, name)) answer = listed.answer;
}

}  // namespace

std::span<const ExtraCommand> extra_commands() { return kExtraCommands; }

void apply_overlay(Command& command) {
  const Bytes name = command.name;
  answer_by_name(kRoutes, name.substr(0, name.find('|')), command.route);
  answer_by_name(kRoutes, name, command.route);
  answer_by_name(kEffects, name, command.effect);
  answer_by_name(kCaches, name, command.cache);
  command.speaks_of_cluster = name.substr(0, name.find('|')) == "cluster" || name == "asking" ||
                              name == "readonly" || name == "readwrite";
  answer_by_name(kShards, name, command.shards);
  answer_by_name(kSplits, name, command.split);
  answer_by_name(kResp2Rules, name, command.resp2);
  answer_by_name(kOptions, name, command.options);
}

}  // namespace nearcached
