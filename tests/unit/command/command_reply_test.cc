#include <catch2/catch.hpp>
#include <limits>
#include <memory>

#include "request.h"

using namespace nearcached;

namespace {

using Extended = Result<std::shared_ptr<const CommandTable>>;

std::string bulk(const std::string& text) {
  return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

std::string integer(int n) { return ":" + std::to_string(n) + "\r\n"; }

/// A set of simple strings, written as words.
std::string flags(const std::string& words) {
  std::istringstream in(words);
  std::string out;
  int count = 0;
  for (std::string word; in >> word; ++count) out += "+" + word + "\r\n";
  return "~" + std::to_string(count) + "\r\n" + out;
}

std::string range_spec(const std::string& marks, int index, int last) {
  return "%3\r\n" + bulk("flags") + flags(marks) + bulk("begin_search") + "%2\r\n" + bulk("type") +
         bulk("index") + bulk("spec") + "%1\r\n" + bulk("index") + integer(index) +
         bulk("find_keys") + "%2\r\n" + bulk("type") + bulk("range") + bulk("spec") + "%3\r\n" +
         bulk("lastkey") + integer(last) + bulk("keystep") + integer(1) + bulk("limit") +
         integer(0);
}

std::string keynum_behind_keyword_spec() {
  return "%4\r\n" + bulk("notes") + bulk("anything") + bulk("flags") + flags("RW update") +
         bulk("begin_search") + "%2\r\n" + bulk("type") + bulk("keyword") + bulk("spec") +
         "%2\r\n" + bulk("keyword") + bulk("numkeys") + bulk("startfrom") + integer(1) +
         bulk("find_keys") + "%2\r\n" + bulk("type") + bulk("keynum") + bulk("spec") + "%3\r\n" +
         bulk("keynumidx") + integer(0) + bulk("firstkey") + integer(1) + bulk("keystep") +
         integer(1);
}

/// One element as Redis 7.0 sends it; `specs` and `subcommands` are whole RESP values.
std::string element(const std::string& name, int arity, const std::string& marks,
                    const std::string& specs = "~0\r\n",
                    const std::string& subcommands = "*0\r\n") {
  return "*10\r\n" + bulk(name) + integer(arity) + flags(marks) + integer(0) + integer(0) +
         integer(0) + flags("@slow") + "~0\r\n" + specs + subcommands;
}

std::string module_reply() {
  return "*6\r\n" + element("get", 2, "readonly fast", "~1\r\n" + range_spec("RO access", 1, 0)) +
         element("JSON.SET", -4, "write denyoom module",
                 "~1\r\n" + range_spec("RW access update", 1, 0)) +
         element("json.get", -2, "readonly module",
                 "~1\r\n" + range_spec("RW access update", 1, 0)) +
         element("mod.pop", -2, "write blocking module", "~1\r\n" + keynum_behind_keyword_spec()) +
         element("mod.run", -1, "write module") +
         element("client", -2, "", "~0\r\n",
                 "*2\r\n" + element("client|id", 2, "noscript") +
                     element("client|no-touch", 3, "noscript"));
}

/// Parses an exact-size heap copy, so that AddressSanitizer sees a read behind it.
Extended extended(const std::string& reply) {
  const std::unique_ptr<char[]> copy(new char[reply.size()]);
  std::copy(reply.begin(), reply.end(), copy.get());
  return CommandTable::extended(Bytes(copy.get(), reply.size()));
}

const Command* named(const Extended& table, const std::string& name) {
  return table.value()->find_name(name);
}

}  // namespace

TEST_CASE("a module's commands are added with their keys, built-in ones stay as they are",
          "[command]") {
  const Extended table = extended(module_reply());
  REQUIRE(table.ok());
  const auto base = CommandTable::builtin();
  for (const Command& command : base->commands()) {
    REQUIRE(named(table, command.name) != nullptr);
    CHECK(named(table, command.name)->id == command.id);
  }
  CHECK(table.value()->commands().size() == base->commands().size() + 5);
  CHECK(named(table, "get")->cache == Cache::single);

  const Command* set = named(table, "json.set");
  REQUIRE(set != nullptr);
  CHECK(set->arity == -4);
  CHECK(set->write);
  CHECK(set->route == Route::lane);
  CHECK(set->effect == Effect::keys);
  CHECK(set->cache == Cache::never);
  CHECK(set->resp2 == Resp2Rule::unknown);
  const RequestLine request("Json.Set doc $ 1");
  CHECK(table.value()->find(request.args()) == set);
  std::vector<KeyRef> keys;
  CHECK(extract_keys(*set, request.args(), keys));
  REQUIRE(keys.size() == 1);
  CHECK(keys[0].arg == 1);
  CHECK(keys[0].write);
}

TEST_CASE("a module's read-only command writes nothing although it declares its key RW",
          "[command]") {
  const Extended table = extended(module_reply());
  const Command* get = named(table, "json.get");
  REQUIRE(get != nullptr);
  CHECK(get->effect == Effect::none);
  CHECK_FALSE(get->key_specs.at(0).write);
}

TEST_CASE("a module's keys behind a keyword and a number are found", "[command]") {
  const Extended table = extended(module_reply());
  const Command* pop = named(table, "mod.pop");
  REQUIRE(pop != nullptr);
  CHECK(pop->route == Route::blocking);
  const RequestLine request("MOD.POP x NumKeys 2 a b 5");
  CHECK(may_block(*pop, request.args()));
  std::vector<KeyRef> keys;
  CHECK(extract_keys(*pop, request.args(), keys));
  REQUIRE(keys.size() == 2);
  CHECK(keys[1].arg == 5);
}

TEST_CASE("a module's write that names no keys may change any", "[command]") {
  const Extended table = extended(module_reply());
  CHECK(named(table, "mod.run")->effect == Effect::unknown);
  const Extended movable =
      extended("*1\r\n" + element("mod.own", -2, "write module movablekeys",
                                  "~1\r\n" + range_spec("RW access update", 1, 0)));
  REQUIRE(movable.ok());
  CHECK(named(movable, "mod.own")->effect == Effect::unknown);
}

TEST_CASE("a newer server's subcommand is routed as its container", "[command]") {
  const Extended table = extended(module_reply());
  const RequestLine request("CLIENT NO-TOUCH ON");
  const Command* command = table.value()->find(request.args());
  REQUIRE(command != nullptr);
  CHECK(command->name == "client|no-touch");
  CHECK(command->route == Route::client);
}

TEST_CASE("a server before 7.0, without key specs or in RESP2, is understood", "[command]") {
  const Extended table =
      extended("*2\r\n*6\r\n" + bulk("old.mset") + integer(-3) + "*1\r\n+write\r\n" + integer(1) +
               integer(-1) + integer(2) + "*7\r\n" + bulk("old.copy") + integer(3) +
               flags("write") + integer(1) + integer(2) + integer(1) + flags("@slow"));
  REQUIRE(table.ok());
  std::vector<KeyRef> keys;
  CHECK(named(table, "old.mset")->effect == Effect::keys);
  CHECK(extract_keys(*named(table, "old.mset"), RequestLine("OLD.MSET a 1 b 2").args(), keys));
  CHECK(keys.size() == 2);
  keys.clear();
  CHECK(extract_keys(*named(table, "old.copy"), RequestLine("OLD.COPY a b").args(), keys));
  CHECK(keys.size() == 2);
}

TEST_CASE("an empty COMMAND reply leaves the built-in commands", "[command]") {
  const Extended table = extended("*0\r\n");
  REQUIRE(table.ok());
  CHECK(table.value()->commands().size() == CommandTable::builtin()->commands().size());
}

TEST_CASE("a COMMAND reply cut short anywhere is refused", "[command]") {
  const std::string reply = module_reply();
  for (size_t size = 0; size < reply.size(); ++size) {
    INFO(size);
    REQUIRE_FALSE(extended(reply.substr(0, size)).ok());
  }
  CHECK_FALSE(extended(reply + "+OK\r\n").ok());
}

TEST_CASE("a COMMAND reply with any byte changed neither crashes nor moves a built-in id",
          "[command]") {
  const std::string reply = module_reply();
  const uint16_t get = CommandTable::builtin()->find_name("get")->id;
  for (size_t i = 0; i < reply.size(); ++i)
    for (const char c : {'\0', '\r', '\n', '*', '%', '$', '-', '0', '9', 'x'}) {
      std::string changed = reply;
      changed[i] = c;
      const Extended table = extended(changed);
      if (table.ok()) REQUIRE(table.value()->find_name("get")->id == get);
    }
}

TEST_CASE("a COMMAND reply with lying lengths or endless nesting is refused", "[command]") {
  const std::string fields = bulk("x") + integer(1) + flags("") + integer(0) + integer(0) +
                             integer(0) + flags("") + flags("") + "~0\r\n*0\r\n";
  std::string deep = "*1\r\n*11\r\n" + fields;
  for (int i = 0; i < 100; ++i) deep += "*1\r\n";
  deep += integer(1);
  CHECK(extended("*1\r\n*11\r\n" + fields + "*1\r\n" + integer(1)).ok());
  for (const std::string& reply :
       {std::string("*1000000000\r\n"), std::string("*9223372036854775807\r\n"),
        std::string("*-5\r\n"), std::string("%4611686018427387904\r\n"), std::string("*x\r\n"),
        "*1\r\n" + element("x", std::numeric_limits<int32_t>::min(), ""),
        std::string("-ERR no\r\n"), std::string("+OK\r\n"), std::string("*1\r\n*1\r\n$1\r\nx\r\n"),
        std::string("*1\r\n*6\r\n$1000000\r\nx\r\n"), std::string("*1\r\n*6\r\n$-1\r\n"),
        "*1\r\n" + element("", 1, ""), "*1\r\n" + element(std::string(500, 'x'), 1, ""), deep}) {
    INFO(reply.substr(0, 60));
    CHECK_FALSE(extended(reply).ok());
  }
}

TEST_CASE("a COMMAND reply with more commands than ids is refused", "[command]") {
  std::string reply = "*70000\r\n";
  for (int i = 0; i < 70000; ++i) reply += element("m" + std::to_string(i), 1, "");
  CHECK_FALSE(extended(reply).ok());
}
