#include <catch2/catch.hpp>
#include <limits>

#include "request.h"

using namespace nearcached;

namespace {

/// "a=W b=R": the keys of a request and whether each may be written.
std::string keys_of(const RequestLine& request, const Command& command) {
  std::vector<KeyRef> keys;
  if (!extract_keys(command, request.args(), keys)) return "unknown";
  std::string out;
  for (const KeyRef& key : keys)
    out +=
        (out.empty() ? "" : " ") + std::string(request.args()[key.arg]) + (key.write ? "=W" : "=R");
  return out;
}

std::string keys_of(const std::string& line) {
  const RequestLine request(line);
  return keys_of(request, request.command());
}

}  // namespace

TEST_CASE("keys are those that COMMAND GETKEYSANDFLAGS of Redis 7.0.15 names", "[command]") {
  // Taken from the server; RO is R, anything else W.
  static const struct {
    const char* request;
    const char* keys;
  } kCases[] = {
      {"GET k", "k=R"},
      {"SET k v NX GET", "k=W"},
      {"MGET a b c", "a=R b=R c=R"},
      {"MSET a 1 b 2", "a=W b=W"},
      {"MSETNX a 1", "a=W"},
      {"DEL a b c", "a=W b=W c=W"},
      {"EXISTS a b", "a=R b=R"},
      {"TOUCH a b", "a=R b=R"},
      {"RENAME a b", "a=W b=W"},
      {"COPY a b REPLACE", "a=R b=W"},
      {"MOVE k 1", "k=W"},
      {"SMOVE a b member", "a=W b=W"},
      {"LMOVE a b LEFT RIGHT", "a=W b=W"},
      {"RPOPLPUSH a b", "a=W b=W"},
      {"BLMOVE a b LEFT RIGHT 0", "a=W b=W"},
      {"BLPOP a b 0", "a=W b=W"},
      {"BZPOPMIN a b c 0", "a=W b=W c=W"},
      {"LMPOP 2 a b LEFT COUNT 10", "a=W b=W"},
      {"BLMPOP 0 2 a b LEFT", "a=W b=W"},
      {"ZMPOP 1 a MIN", "a=W"},
      {"BZMPOP 0 2 a b MAX", "a=W b=W"},
      {"SINTERCARD 2 a b LIMIT 1", "a=R b=R"},
      {"SINTERSTORE d a b", "d=W a=R b=R"},
      {"SDIFFSTORE d a b", "d=W a=R b=R"},
      {"ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d=W a=R b=R"},
      {"ZDIFFSTORE d 2 a b", "d=W a=R b=R"},
      {"ZINTER 2 a b WITHSCORES", "a=R b=R"},
      {"ZUNION 3 a b c", "a=R b=R c=R"},
      {"ZRANGESTORE d s 0 -1", "d=W s=R"},
      {"GEOSEARCHSTORE d s FROMMEMBER m BYRADIUS 1 km", "d=W s=R"},
      {"GEORADIUS s 1 2 3 km", "s=R"},
      {"GEORADIUS s 1 2 3 km STORE d", "s=R d=W"},
      {"GEORADIUS s 1 2 3 km WITHDIST COUNT 3 STOREDIST d", "s=R d=W"},
      {"GEORADIUSBYMEMBER s m 3 km STORE d", "s=R d=W"},
      {"GEORADIUSBYMEMBER s store 3 km ASC STOREDIST d", "s=R d=W"},
      {"GEORADIUSBYMEMBER_RO s m 3 km", "s=R"},
      {"BITOP AND d a b", "d=W a=R b=R"},
      {"BITFIELD_RO k GET u8 0", "k=R"},
      {"PFMERGE d a b", "d=W a=R b=R"},
      {"PFCOUNT a b", "a=W b=W"},
      {"SORT s", "s=R"},
      {"SORT s BY w_* GET # LIMIT 0 1 DESC", "s=R"},
      {"SORT s BY store STORE d", "s=R d=W"},
      {"SORT s LIMIT 0 1 GET store ALPHA STORE d", "s=R d=W"},
      {"SORT_RO s BY w_* GET #", "s=R"},
      {"EVAL script 2 a b arg", "a=W b=W"},
      {"EVAL script 0 arg", ""},
      {"EVALSHA sha 1 a", "a=W"},
      {"EVAL_RO script 1 a", "a=R"},
      {"FCALL f 2 a b c", "a=W b=W"},
      {"FCALL_RO f 1 a", "a=R"},
      {"MIGRATE h 1 k 0 10", "k=W"},
      {R"(MIGRATE h 1 "" 0 10 KEYS a b)", "a=W b=W"},
      {R"(MIGRATE h 1 "" 0 10 COPY REPLACE AUTH2 keys pw KEYS a b)", "a=W b=W"},
      {R"(MIGRATE h 1 "" 0 10 AUTH keys KEYS a)", "a=W"},
      {"MIGRATE h 1 k 0 10 COPY", "k=W"},
      {"XADD s * f v", "s=W"},
      {"XREAD COUNT 1 STREAMS a b 0 0", "a=R b=R"},
      {"XREAD BLOCK 0 STREAMS a 0", "a=R"},
      {"XGROUP CREATE s g 0", "s=W"},
      {"XINFO STREAM s", "s=R"},
      {"XACK s g 1-1", "s=W"},
      {"XAUTOCLAIM s g c 0 0", "s=W"},
      {"OBJECT ENCODING k", "k=R"},
      {"MEMORY USAGE k", "k=R"},
      {"LCS a b LEN", "a=R b=R"},
      {"GETEX k PERSIST", "k=W"},
      {"GETDEL k", "k=W"},
      {"HSET h f v", "h=W"},
      {"HGETALL h", "h=R"},
      {"ZADD z 1 m", "z=W"},
      {"LPOS l e", "l=R"},
      {"DUMP k", "k=R"},
      {"RESTORE k 0 x", "k=W"},
      {"EXPIRE k 1", "k=W"},
      {"PTTL k", "k=R"},
      {"WATCH a b", "a=R b=R"},
      {"SETRANGE k 0 x", "k=W"},
      {"APPEND k x", "k=W"},
      {"SPOP k 1", "k=W"},
      {"UNLINK a b", "a=W b=W"},
      {"XSETID s 1-1", "s=W"},
      {"PFDEBUG ENCODING k", "k=W"},
  };
  for (const auto& known : kCases) {
    INFO(known.request);
    CHECK(keys_of(known.request) == known.keys);
  }
}

TEST_CASE("where Redis contradicts itself the key counts as written", "[command]") {
  // COMMAND GETKEYSANDFLAGS says RO for both; the commands are flagged write.
  CHECK(keys_of("BITFIELD k GET u8 0") == "k=W");
  CHECK(keys_of("XREADGROUP GROUP g c COUNT 1 STREAMS a b > >") == "a=W b=W");
}

TEST_CASE("a channel is not a key", "[command]") {
  CHECK(keys_of("SPUBLISH channel message") == "");
  CHECK(keys_of("SSUBSCRIBE a b") == "");
}

TEST_CASE("every STORE of a command that obeys the last one counts as written", "[command]") {
  CHECK(keys_of("SORT s STORE a STORE b") == "s=R a=W b=W");
  CHECK(keys_of("GEORADIUS s 1 2 3 km STORE a STOREDIST b") == "s=R a=W b=W");
  CHECK(keys_of("SORT s UNHEARDOF STORE a") == "s=R a=W");
}

TEST_CASE("a STORE without its key, or in an operand's place, names no key", "[command]") {
  CHECK(keys_of("SORT s STORE") == "s=R");
  CHECK(keys_of("SORT s BY STORE ALPHA") == "s=R");
  CHECK(keys_of("GEORADIUSBYMEMBER STORE STORE 3 km") == "STORE=R");
}

TEST_CASE("a malformed number of keys names none and says so", "[command]") {
  for (const char* number :
       {"x", "-1", "3", "+1", "01", "-0", "1.0", "\"\"", "99999999999999999999",
        "9223372036854775807", "-9223372036854775808", "2147483648"}) {
    INFO(number);
    CHECK(keys_of("ZUNION " + std::string(number) + " a b") == "unknown");
    CHECK(keys_of("EVAL script " + std::string(number) + " a b") == "unknown");
  }
  CHECK(keys_of("ZUNION 2 a b") == "a=R b=R");
  CHECK(keys_of("ZUNION 0 a b") == "");
}

TEST_CASE("keys that are not there are not guessed", "[command]") {
  CHECK(keys_of("GET") == "unknown");
  CHECK(keys_of("RENAME a") == "unknown");
  CHECK(keys_of("MIGRATE h 1 \"\" 0 10 COPY") == "unknown");
  CHECK(keys_of("BLPOP 0") == "unknown");
}

TEST_CASE("no argument vector makes any command's keys overrun", "[command]") {
  const std::string words[] = {"1", "2", "0", "-1", "1000000", "STORE", "STREAMS", "KEYS", "\"\""};
  for (const Command& command : CommandTable::builtin()->commands()) {
    for (const std::string& word : words) {
      std::string line = command.name;
      for (size_t args = 1; args <= 7; ++args, line += " " + word) {
        const RequestLine request(line);
        // In exact-size storage, so that AddressSanitizer sees a read behind it.
        const std::vector<Bytes> exact(request.args().begin(), request.args().end());
        std::vector<KeyRef> keys;
        (void)extract_keys(command, exact, keys);
        for (const KeyRef& key : keys) REQUIRE(key.arg < exact.size());
        (void)effect_of(command, exact);
        (void)may_block(command, exact);
        (void)cache_of(command, exact);
        (void)resp2_rule_of(command, exact);
      }
    }
  }
}

TEST_CASE("no key spec, however wrong, makes its keys overrun", "[command]") {
  using Spec = Command::KeySpec;
  const int32_t numbers[] = {std::numeric_limits<int32_t>::min(), -2, -1, 0, 1, 2, 5,
                             std::numeric_limits<int32_t>::max()};
  const RequestLine request("X 2 KEYS a 1 b");
  std::vector<KeyRef> keys;
  for (const Spec::Begin begin : {Spec::Begin::index, Spec::Begin::keyword})
    for (const Spec::Find find : {Spec::Find::range, Spec::Find::keynum})
      for (const int32_t index : numbers)
        for (const int32_t a : numbers)
          for (const int32_t b : numbers)
            for (const int32_t c : numbers) {
              Spec spec;
              spec.begin = begin;
              spec.find = find;
              spec.keyword = "KEYS";
              spec.index = index;
              spec.last = spec.keynum_index = a;
              spec.step = spec.first_key = b;
              spec.limit = spec.keynum_step = c;
              Command command;
              command.key_specs.push_back(spec);
              keys.clear();
              (void)extract_keys(command, request.args(), keys);
              for (const KeyRef& key : keys) REQUIRE(key.arg < request.args().size());
            }
}

TEST_CASE("a keyword is looked for forwards, or backwards from the end", "[command]") {
  Command command;
  Command::KeySpec spec;
  spec.begin = Command::KeySpec::Begin::keyword;
  spec.find = Command::KeySpec::Find::range;
  spec.keyword = "KEYS";
  spec.index = 1;
  spec.last = -1;
  command.key_specs.push_back(spec);
  const RequestLine request("X keys a KEYS b");
  CHECK(keys_of(request, command) == "a=R KEYS=R b=R");
  command.key_specs[0].index = -1;
  CHECK(keys_of(request, command) == "b=R");
  const RequestLine without("X a b");
  CHECK(keys_of(without, command) == "");
  command.key_specs[0].incomplete = true;
  CHECK(keys_of(request, command) == "unknown");
  CHECK(keys_of(without, command) == "unknown");
}
