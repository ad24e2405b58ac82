// What a write command changes is seen by everybody who holds it: command by command, those of them
// in particular whose keys, or databases, are easily overlooked. Each through the proxy (seen by
// the next read on every connection of both workers) and around it (seen by every read that is sent
// max_staleness after the answer, or earlier).
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

constexpr const char* kLibrary =
    "#!lua name=lib\nredis.register_function('put', function(keys, args) return "
    "redis.call('SET', keys[1], args[1]) end)";

struct Row {
  const char* name;
  std::vector<Args> before;  ///< to begin with; the key that is held is k
  const char* read;
  std::vector<Args> write;  ///< in one pipeline; an argument DUMP:key stands for what DUMP gives
  const char* expected;
  bool around = true;  ///< noticed as well when it is done around the proxy
};

const std::vector<Row> kRows = {
    {"FLUSHDB", {{"SET", "k", "old"}}, "GET k", {{"FLUSHDB"}}, "(nil)"},
    {"SWAPDB", {{"SET", "k", "old"}}, "GET k", {{"SWAPDB", "0", "9"}}, "(nil)", false},
    {"RENAME away", {{"SET", "k", "old"}}, "GET k", {{"RENAME", "k", "j"}}, "(nil)"},
    {"RENAME over", {{"MSET", "k", "old", "j", "new"}}, "GET k", {{"RENAME", "j", "k"}}, "new"},
    {"COPY", {{"MSET", "k", "old", "j", "new"}}, "GET k", {{"COPY", "j", "k", "REPLACE"}}, "new"},
    {"MOVE away", {{"SET", "k", "old"}}, "GET k", {{"MOVE", "k", "9"}}, "(nil)"},
    {"MOVE here",
     {{"SELECT", "9"}, {"SET", "k", "new"}, {"SELECT", "0"}},
     "GET k",
     {{"SELECT", "9"}, {"MOVE", "k", "0"}, {"SELECT", "0"}},
     "new"},
    {"RESTORE",
     {{"MSET", "k", "old", "j", "new"}},
     "GET k",
     {{"RESTORE", "k", "0", "DUMP:j", "REPLACE"}},
     "new"},
    {"SORT STORE",
     {{"RPUSH", "j", "2", "1"}, {"RPUSH", "k", "old"}},
     "LRANGE k 0 -1",
     {{"SORT", "j", "STORE", "k"}},
     "[1 2]"},
    {"GEOSEARCHSTORE",
     {{"GEOADD", "j", "1", "1", "new"}, {"GEOADD", "k", "1", "1", "old"}},
     "ZRANGE k 0 -1",
     {{"GEOSEARCHSTORE", "k", "j", "FROMMEMBER", "new", "BYRADIUS", "1", "km"}},
     "[new]"},
    {"EVAL with declared keys",
     {{"SET", "k", "old"}},
     "GET k",
     {{"EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", "k", "new"}},
     "new"},
    {"EVAL with undeclared keys",
     {{"SET", "k", "old"}},
     "GET k",
     {{"EVAL", "return redis.call('SET', 'k', 'new')", "0"}},
     "new"},
    {"FCALL", {{"SET", "k", "old"}}, "GET k", {{"FCALL", "put", "1", "k", "new"}}, "new"},
    {"a pipelined MULTI",
     {{"SET", "k", "old"}},
     "GET k",
     {{"MULTI"}, {"SET", "k", "between"}, {"SET", "k", "new"}, {"EXEC"}},
     "new"},
};

/// A proxy's connections, on both workers, and one to Redis itself.
struct Audience {
  Audience() {
    for (int i = 0; i < 6; ++i) readers.push_back(stack.proxy.client());
    direct({"FUNCTION", "LOAD", kLibrary});
  }

  /// Reads until every connection is answered from memory.
  void hold(const std::string& read) {
    REQUIRE(wait_until([&] {
      const uint64_t hits = stack.proxy.count("l1_hits");
      for (Client& reader : readers) reader(read);
      return stack.proxy.count("l1_hits") - hits == readers.size();
    }));
  }
  /// One pipeline; the last reply to it.
  std::string send(uint16_t port, const std::vector<Args>& requests) {
    std::string bytes;
    for (Args request : requests) {
      for (std::string& arg : request)
        if (arg.rfind("DUMP:", 0) == 0) arg = direct({"DUMP", arg.substr(5)});
      bytes += encode(request);
    }
    RawClient client(port);
    client.send(bytes);
    std::string last;
    for (size_t i = 0; i < requests.size(); ++i) last = client.read_reply();
    return last;
  }

  Stack stack;
  Client direct = stack.redis.client();
  std::vector<Client> readers;
};

}  // namespace

TEST_CASE("every connection that holds a key reads what a command made of it",
          "[coherence][commands]") {
  const auto row = GENERATE(from_range(kRows));
  INFO(row.name);
  Audience audience;
  const uint16_t proxy = audience.stack.proxy.port(), redis = audience.stack.redis.port();
  for (const bool around : {false, true}) {
    if (around && !row.around) continue;
    INFO((around ? "around the proxy" : "through the proxy"));
    audience.send(redis, {{"FLUSHALL"}});
    audience.send(redis, row.before);
    for (Client& reader : audience.readers)
      REQUIRE(wait_until([&] { return reader(row.read) != row.expected; }));
    audience.hold(row.read);
    REQUIRE(audience.send(around ? redis : proxy, row.write)[0] != '-');
    for (Client& reader : audience.readers) {
      if (around) CHECK(seen_in_time(reader, row.read, row.expected));
      CHECK(reader(row.read) == row.expected);
    }
  }
}

TEST_CASE("the same key in two databases is two keys, whoever writes one of them",
          "[coherence][commands]") {
  Audience audience;
  const auto value = [&](size_t reader) { return audience.readers[reader]("GET k"); };
  for (size_t i = 0; i < audience.readers.size(); i += 2) audience.readers[i]("SELECT 9");
  std::string in_0 = "zero", in_9 = "nine";
  audience.direct("MSET k zero");
  audience.send(audience.stack.redis.port(), {{"SELECT", "9"}, {"SET", "k", "nine"}});
  for (int i = 0; i < 40; ++i) {
    audience.hold("GET k");
    for (size_t r = 0; r < audience.readers.size(); ++r)
      REQUIRE(value(r) == (r % 2 == 0 ? in_9 : in_0));
    const bool around = i % 4 >= 2;
    std::string& changed = i % 2 == 0 ? in_0 : in_9;
    changed = std::to_string(i);
    audience.send(around ? audience.stack.redis.port() : audience.stack.proxy.port(),
                  {{"SELECT", i % 2 == 0 ? "0" : "9"}, {"SET", "k", changed}});
    for (size_t r = 0; r < audience.readers.size(); ++r) {
      const std::string& expected = r % 2 == 0 ? in_9 : in_0;
      if (around) CHECK(seen_in_time(audience.readers[r], "GET k", expected));
      CHECK(value(r) == expected);
    }
  }
}
