#include <catch2/catch.hpp>

#include "request.h"

using namespace nearcached;

namespace {

Effect effect(const std::string& line) {
  const RequestLine request(line);
  return effect_of(request.command(), request.args());
}
bool blocks(const std::string& line) {
  const RequestLine request(line);
  return may_block(request.command(), request.args());
}
Cache cache(const std::string& line) {
  const RequestLine request(line);
  return cache_of(request.command(), request.args());
}
Resp2Rule rule(const std::string& line) {
  const RequestLine request(line);
  return resp2_rule_of(request.command(), request.args());
}

}  // namespace

TEST_CASE("SORT and GEORADIUS write only with STORE", "[command]") {
  CHECK(effect("SORT s BY store") == Effect::none);
  CHECK(effect("sort s store d") == Effect::keys);
  CHECK(effect("SORT_RO s") == Effect::none);
  CHECK(effect("GEORADIUS s 1 2 3 km") == Effect::none);
  CHECK(effect("GEORADIUS s 1 2 3 km STORE d") == Effect::keys);
  CHECK(effect("GEORADIUS s 1 2 3 km STOREDIST d") == Effect::keys);
  CHECK(effect("GEORADIUSBYMEMBER store m 3 km") == Effect::none);
  CHECK(effect("GEORADIUSBYMEMBER s m 3 km STORE d") == Effect::keys);
}

TEST_CASE("a write changes the keys it names", "[command]") {
  for (const char* line :
       {"SET k v", "GETEX k", "GETDEL k", "PFCOUNT k", "XREADGROUP GROUP g c STREAMS s >",
        "XGROUP CREATE s g 0", "MIGRATE h 1 k 0 10", "ZUNIONSTORE d 1 a", "RESTORE k 0 x",
        "LMPOP 1 l LEFT", "BLPOP l 0", "PFDEBUG TODENSE k"}) {
    INFO(line);
    CHECK(effect(line) == Effect::keys);
    CHECK(RequestLine(line).command().write);
  }
}

TEST_CASE("a read has no effect", "[command]") {
  for (const char* line :
       {"GET k", "TOUCH k", "OBJECT ENCODING k", "EVAL_RO s 1 k", "FCALL_RO f 1 k", "PUBLISH c m",
        "SPUBLISH c m", "XREAD STREAMS s 0", "PING", "WATCH k", "FUNCTION LOAD code",
        "CONFIG SET maxmemory 0", "SCRIPT FLUSH"}) {
    INFO(line);
    CHECK(effect(line) == Effect::none);
  }
}

TEST_CASE("a script may write keys that it does not declare", "[command]") {
  for (const char* line : {"EVAL s 1 k", "EVALSHA s 0", "FCALL f 1 k"}) {
    INFO(line);
    CHECK(effect(line) == Effect::unknown);
    CHECK(RequestLine(line).command().write);
  }
}

TEST_CASE("nothing held survives a flush, a swap, another primary or other permissions",
          "[command]") {
  for (const char* line :
       {"FLUSHALL", "FLUSHDB ASYNC", "SWAPDB 0 1", "REPLICAOF h 1", "SLAVEOF h 1", "FAILOVER",
        "DEBUG RELOAD", "ACL SETUSER u", "ACL DELUSER u", "ACL LOAD", "CLUSTER SETSLOT 1 STABLE"}) {
    INFO(line);
    CHECK(effect(line) == Effect::everything);
  }
  CHECK(effect("ACL WHOAMI") == Effect::none);
}

TEST_CASE("XREAD may block only with BLOCK before STREAMS", "[command]") {
  CHECK(blocks("XREAD BLOCK 0 STREAMS s $"));
  CHECK(blocks("XREAD COUNT 1 block 10 STREAMS s $"));
  CHECK_FALSE(blocks("XREAD COUNT 1 STREAMS s 0"));
  CHECK_FALSE(blocks("XREAD STREAMS BLOCK 0"));
  CHECK(blocks("XREADGROUP GROUP g c BLOCK 0 STREAMS s >"));
  CHECK_FALSE(blocks("XREADGROUP GROUP BLOCK c STREAMS s >"));
}

TEST_CASE("a blocking command may always block, another never", "[command]") {
  for (const char* line :
       {"BLPOP l 0", "BRPOP l 0", "BLMOVE a b LEFT LEFT 0", "BRPOPLPUSH a b 0", "BLMPOP 0 1 l LEFT",
        "BZPOPMIN z 0", "BZPOPMAX z 0", "BZMPOP 0 1 z MIN", "WAIT 1 0"}) {
    INFO(line);
    CHECK(blocks(line));
  }
  CHECK_FALSE(blocks("LPOP l"));
  CHECK_FALSE(blocks("SET BLOCK BLOCK"));
}

TEST_CASE("only a whole read of one key may be kept", "[command]") {
  CHECK(cache("GET k") == Cache::single);
  CHECK(cache("ZRANGE z 0 -1") == Cache::single);
  CHECK(cache("ZRANGE z 0") == Cache::never);
  CHECK(cache("GET") == Cache::never);
  CHECK(cache("GET a b") == Cache::never);
  CHECK(cache("EXISTS k") == Cache::single_only);
  CHECK(cache("EXISTS a b") == Cache::never);
  CHECK(cache("MGET a b") == Cache::mget);
  CHECK(cache("MGET") == Cache::never);
  for (const char* line :
       {"SET k v",      "TTL k",          "PTTL k",        "OBJECT ENCODING k", "RANDOMKEY",
        "SCAN 0",       "HSCAN h 0",      "SORT l",        "SORT_RO l",         "SRANDMEMBER s",
        "HRANDFIELD h", "ZRANDMEMBER z",  "EVAL_RO s 1 k", "PFCOUNT k",         "DUMP k",
        "GETEX k",      "XINFO STREAM s", "XPENDING s g",  "SINTER a",          "LCS a b",
        "TOUCH k"}) {
    INFO(line);
    CHECK(cache(line) == Cache::never);
  }
}

TEST_CASE("whatever may be kept reads its first argument only and writes nothing", "[command]") {
  for (const Command& command : CommandTable::builtin()->commands()) {
    if (command.cache == Cache::never) continue;
    INFO(command.name);
    CHECK(command.readonly);
    CHECK(command.effect == Effect::none);
    CHECK(command.route == Route::lane);
    REQUIRE(command.key_specs.size() == 1);
    CHECK(command.key_specs[0].index == 1);
    CHECK(command.key_specs[0].last == (command.cache == Cache::single ? 0 : -1));
  }
}

TEST_CASE("the kind of null depends on the command, and for LPOP on its count", "[command]") {
  CHECK(rule("GET k") == Resp2Rule::null_bulk);
  CHECK(rule("LPOP l") == Resp2Rule::null_bulk);
  CHECK(rule("LPOP l 2") == Resp2Rule::null_array);
  CHECK(rule("RPOP l 2") == Resp2Rule::null_array);
  CHECK(rule("SPOP s 2") == Resp2Rule::null_bulk);
  CHECK(rule("GEOPOS g m") == Resp2Rule::null_array);
  CHECK(rule("BLPOP l 0") == Resp2Rule::null_array);
  CHECK(rule("LMOVE a b LEFT LEFT") == Resp2Rule::null_bulk);
  CHECK(rule("BLMOVE a b LEFT LEFT 0") == Resp2Rule::null_array);
  CHECK(rule("ZRANGE z 0 -1 WITHSCORES") == Resp2Rule::flatten_pairs);
  CHECK(rule("ZMPOP 1 z MIN") == Resp2Rule::null_array);
  CHECK(rule("EVAL s 0") == Resp2Rule::null_bulk);
}

TEST_CASE("what no rule expresses goes to the server over RESP2", "[command]") {
  CHECK(rule("XREAD STREAMS s 0") == Resp2Rule::unknown);
  CHECK(rule("XREADGROUP GROUP g c STREAMS s >") == Resp2Rule::unknown);
  CHECK(rule("XPENDING s g") == Resp2Rule::unknown);
  CHECK(rule("XPENDING s g - + 10") == Resp2Rule::null_bulk);
}

TEST_CASE("of the commands that read or write keys only two have no RESP2 rule", "[command]") {
  std::string without;
  for (const Command& command : CommandTable::builtin()->commands())
    if ((command.readonly || command.write) && command.resp2 == Resp2Rule::unknown)
      without += command.name + " ";
  CHECK(without == "xread xreadgroup ");
}
