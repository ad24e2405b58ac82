// What L1 holds: each cacheable command is answered from it the second time, and never after a
// write made by anybody.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <vector>

#include "harness/monitor.h"
#include "harness/raw_client.h"
#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

struct CachedRead {
  std::string setup;   ///< makes the value
  std::string read;    ///< is to be cached
  std::string change;  ///< makes the reply another one
};

const CachedRead kCachedReads[] = {
    {"SET s hello", "GET s", "SET s world"},
    {"SET s hello", "STRLEN s", "APPEND s !"},
    {"SET s hello", "GETRANGE s 0 2", "SETRANGE s 0 J"},
    {"SET s hello", "EXISTS s", "DEL s"},
    {"SET s hello", "TYPE s", "DEL s"},
    {"SET s hello", "BITCOUNT s", "APPEND s !"},
    {"SET s hello", "GETBIT s 1", "SETBIT s 1 0"},
    {"HSET h a 1 b 2", "HGET h a", "HSET h a 3"},
    {"HSET h a 1 b 2", "HMGET h a z", "HSET h z 3"},
    {"HSET h a 1", "HGETALL h", "HSET h a 2"},
    {"HSET h a 1 b 2", "HLEN h", "HDEL h a"},
    {"HSET h a 1 b 2", "HEXISTS h a", "HDEL h a"},
    {"HSET h a 1", "HKEYS h", "HSET h b 2"},
    {"HSET h a 1", "HVALS h", "HINCRBY h a 5"},
    {"HSET h a 1", "HSTRLEN h a", "HSET h a 100"},
    {"RPUSH l a b c", "LRANGE l 0 -1", "LPUSH l x"},
    {"RPUSH l a b c", "LLEN l", "LPOP l"},
    {"RPUSH l a b c", "LINDEX l 1", "LSET l 1 B"},
    {"SADD t 1 2 3", "SMEMBERS t", "SADD t 4"},
    {"SADD t 1 2 3", "SISMEMBER t 4", "SADD t 4"},
    {"SADD t 1 2 3", "SMISMEMBER t 1 4", "SADD t 4"},
    {"SADD t 1 2 3", "SCARD t", "SREM t 1"},
    {"ZADD z 1 a 2 b 3 c", "ZRANGE z 0 -1", "ZADD z 0 b"},
    {"ZADD z 1 a 2 b 3 c", "ZRANGE z 0 -1 WITHSCORES", "ZINCRBY z 1 a"},
    {"ZADD z 1 a 2 b 3 c", "ZREVRANGE z 0 -1", "ZREM z b"},
    {"ZADD z 1 a 2 b 3 c", "ZRANGEBYSCORE z 1 2", "ZADD z 9 b"},
    {"ZADD z 1 a 2 b 3 c", "ZREVRANGEBYSCORE z 2 1", "ZADD z 9 b"},
    {"ZADD z 0 a 0 b 0 c", "ZRANGEBYLEX z - +", "ZREM z b"},
    {"ZADD z 0 a 0 b 0 c", "ZREVRANGEBYLEX z + -", "ZREM z b"},
    {"ZADD z 1 a 2 b 3 c", "ZSCORE z b", "ZADD z 9 b"},
    {"ZADD z 1 a 2 b 3 c", "ZMSCORE z b q", "ZADD z 9 q"},
    {"ZADD z 1 a 2 b 3 c", "ZRANK z b", "ZADD z 9 b"},
    {"ZADD z 1 a 2 b 3 c", "ZREVRANK z b", "ZADD z 9 b"},
    {"ZADD z 1 a 2 b 3 c", "ZCARD z", "ZREM z b"},
    {"ZADD z 1 a 2 b 3 c", "ZCOUNT z 1 2", "ZADD z 9 b"},
    {"SET s hello", "MGET s none", "SET none 1"},
};

/// Everything that a reply is made of, at places that depend on `size`.
std::string value_of(size_t size) {
  const std::string pattern = "\r\n$3\r\nab" + std::string(1, '\0') + "\r\n_\r\n$-1\xff";
  std::string value;
  while (value.size() < size) value += pattern.substr(size % pattern.size()) + pattern;
  return value.substr(0, size);
}

}  // namespace

TEST_CASE("each cacheable read is answered from L1, and is new after a write around the proxy",
          "[cache]") {
  Stack stack;
  Client direct = stack.redis.client();
  Client client = stack.proxy.client();
  for (const CachedRead& c : kCachedReads) {
    INFO(c.read);
    direct("FLUSHALL");
    direct(c.setup);
    const std::string before = direct(c.read);
    CHECK(becomes_hit(stack.proxy, client, c.read));
    CHECK(client(c.read) == before);
    direct(c.change);
    const std::string after = direct(c.read);
    REQUIRE(after != before);
    CHECK(wait_until([&] { return client(c.read) == after; }));
  }
}

TEST_CASE("a missing key is answered from L1, until somebody makes it", "[cache]") {
  Stack stack;
  Client direct = stack.redis.client();
  Client client = stack.proxy.client();
  CHECK(becomes_hit(stack.proxy, client, "GET none"));
  CHECK(client("GET none") == "(nil)");
  direct("SET none here");
  CHECK(wait_until([&] { return client("GET none") == "here"; }));
}

TEST_CASE("MGET sends upstream only the keys that L1 does not hold", "[cache]") {
  Stack stack;
  stack.redis.client()("MSET held:1 one held:2 two wanted:1 three wanted:2 four");
  Client client = stack.proxy.client();
  REQUIRE(becomes_hit(stack.proxy, client, "GET held:1"));
  REQUIRE(becomes_hit(stack.proxy, client, "GET held:2"));
  Monitor monitor(stack.redis);
  CHECK(client("MGET held:1 wanted:1 held:2 none wanted:2 held:1") ==
        "[one three two (nil) four one]");
  const std::vector<std::string> asked = monitor.take();
  const auto mentions = [&](const std::string& key) {
    return std::any_of(asked.begin(), asked.end(), [&](const std::string& line) {
      return line.find(key) != std::string::npos;
    });
  };
  CHECK_FALSE(mentions("held:"));
  CHECK(mentions("wanted:1"));
  CHECK(mentions("wanted:2"));
}

// Fails when waits_for_hit() answers false: what is held is then asked for because of a miss before
// it; and when read_ahead() starts nothing: the misses are then asked for one after the other.
TEST_CASE("a pipeline of reads asks once for what is not held, and for nothing else", "[cache]") {
  Stack stack({"--threads", "1"});
  Client direct = stack.redis.client();
  std::string pipeline;
  std::vector<std::string> expected;
  for (int i = 0; i < 60; ++i) {
    const std::string key = (i % 5 == 1 ? "cold:" : "held:") + std::to_string(i);
    direct("SET " + key + " value:" + std::to_string(i));
    pipeline += encode({"GET", key});
    expected.push_back("value:" + std::to_string(i));
  }
  Client client = stack.proxy.client();
  for (int i = 0; i < 60; ++i)
    if (i % 5 != 1) REQUIRE(becomes_hit(stack.proxy, client, "GET held:" + std::to_string(i)));
  const auto counter = [&](const std::string& name) {
    return std::stoi(info_field(client("INFO nearcached"), name));
  };
  const int ahead = counter("reads_ahead");
  Monitor monitor(stack.redis);
  RawClient raw(stack.proxy.port());
  raw.send(pipeline);
  for (const std::string& value : expected)
    CHECK(raw.read_reply() == "$" + std::to_string(value.size()) + "\r\n" + value + "\r\n");
  CHECK(counter("reads_ahead") - ahead == 11);
  const std::vector<std::string> asked = monitor.take();
  const auto gets = [&](const std::string& key) {
    return std::count_if(asked.begin(), asked.end(), [&](const std::string& line) {
      return line.find("\"GET\" \"" + key) != std::string::npos;
    });
  };
  CHECK(gets("held:") == 0);
  CHECK(gets("cold:") == 12);
}

// Fails when waits_for_hit() does not look at what stands behind: each SET then waits for the
// replies before it.
TEST_CASE("a read among writes does not hold up what stands behind it", "[cache]") {
  Stack stack({"--threads", "1"});
  Client client = stack.proxy.client();
  client("SET held value");
  REQUIRE(becomes_hit(stack.proxy, client, "GET held"));
  Monitor monitor(stack.redis);
  RawClient raw(stack.proxy.port());
  std::string pipeline;
  for (int i = 0; i < 10; ++i)
    pipeline += encode({"SET", "other:" + std::to_string(i), "x"}) + encode({"GET", "held"});
  raw.send(pipeline);
  for (int i = 0; i < 10; ++i) {
    CHECK(raw.read_reply() == "+OK\r\n");
    CHECK(raw.read_reply() == "$5\r\nvalue\r\n");
  }
  // All but the last, which nothing follows, went upstream in its place.
  CHECK(monitor.count("\"GET\" \"held\"") == 9);
}

// Fails when what is remembered of a request (its shape, its flight) converts as the first client
// needed it: a RESP3 client's pairs would reach a RESP2 client as pairs.
TEST_CASE("clients of both protocols share what is held, and each gets its own form", "[cache]") {
  Stack stack({"--threads", "1"});
  stack.redis.client()("ZADD z 1 a 2 b");
  const std::string ask = encode({"ZRANGE", "z", "0", "-1", "WITHSCORES"});
  const std::string pairs = "*2\r\n*2\r\n$1\r\na\r\n,1\r\n*2\r\n$1\r\nb\r\n,2\r\n";
  const std::string flat = "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n";
  RawClient newer(stack.proxy.port()), older(stack.proxy.port());
  newer.ask("HELLO 3");
  REQUIRE(older.ask("PING") == "+PONG\r\n");
  // One flight for both.
  stack.redis.freeze();
  newer.send(ask);
  older.send(ask);
  stack.redis.thaw();
  CHECK(newer.read_reply() == pairs);
  CHECK(older.read_reply() == flat);
  // Hits of one shape, learned from either.
  for (int round = 0; round < 3; ++round) {
    newer.send(ask);
    CHECK(newer.read_reply() == pairs);
    older.send(ask);
    CHECK(older.read_reply() == flat);
  }
  CHECK(stack.proxy.count("l1_hits") > 0);
}

// Fails when a short string, of which only the payload is held, gets another header, or none, on
// any of the ways on which a hit is written.
TEST_CASE("a hit is byte for byte what Redis answers, whatever the value's size", "[cache]") {
  constexpr size_t kSizes = 1101, kInPipeline = 50;
  const std::string version = GENERATE(as<std::string>{}, "2", "3");
  Stack stack({"--threads", "1", "--set", "l1.scan_resistance=false"});
  RawClient direct(stack.redis.port()), client(stack.proxy.port());
  for (RawClient* each : {&direct, &client}) each->ask({"HELLO", version});
  std::vector<Args> writes, reads;
  for (size_t size = 0; size < kSizes; ++size) {
    const std::string n = std::to_string(size), value = value_of(size);
    writes.push_back({"SET", "s:" + n, value});
    writes.push_back({"HSET", "h", n, value});
    reads.push_back({"GET", "s:" + n});
    reads.push_back({"HGET", "h", n});
  }
  direct.ask_all(writes);
  const std::vector<std::string> expected = direct.ask_all(reads);
  // Alone.
  for (size_t i = 0; i < reads.size(); ++i) {
    REQUIRE((client.ask(reads[i]) == expected[i]));  // in parentheses: too long to print
    const uint64_t hits = i % 100 == 0 ? stack.proxy.count("l1_hits") : 0;
    REQUIRE((client.ask(reads[i]) == expected[i]));
    if (i % 100 == 0) CHECK(stack.proxy.count("l1_hits") == hits + 1);
  }
  Monitor monitor(stack.redis);
  // In a pipeline.
  CHECK((client.ask_all(reads) == expected));
  CHECK(monitor.count("GET\"") == 0);
  // In a pipeline behind a miss, and in an MGET, of which all is held or all but one.
  const auto own = [](size_t n) { return Args{"GET", "none:" + std::to_string(n)}; };
  for (size_t at = 0; at < reads.size(); at += kInPipeline) {
    const size_t end = std::min(at + kInPipeline, reads.size());
    std::vector<Args> requests{own(at)};
    Args all{"MGET"};
    for (size_t i = at; i < end; ++i) {
      requests.push_back(reads[i]);
      if (reads[i][0] == "GET") all.push_back(reads[i][1]);
    }
    CHECK((client.ask_all(requests) == direct.ask_all(requests)));
    CHECK((client.ask(all) == direct.ask(all)));
    all.insert(all.begin() + 1 + static_cast<int>(at % (all.size() - 1)), own(at + 1)[1]);
    CHECK((client.ask(all) == direct.ask(all)));
  }
}

TEST_CASE("of a string of up to 1,014 bytes L1 holds the value alone", "[cache]") {
  Stack stack;
  Client client = stack.proxy.client();
  const auto [size, held] = GENERATE(table<size_t, std::string>(
      {{0, "0"}, {5, "5"}, {1014, "1014"}, {1015, "1024"}, {2000, "2009"}}));
  CAPTURE(size);
  client({"SET", "k", std::string(size, 'v')});
  REQUIRE(becomes_hit(stack.proxy, client, "GET k"));
  const std::string line = client("NEARCACHE INSPECT k");
  INFO(line);
  CHECK(line.find(" reply_bytes=" + held + " ") != std::string::npos);
}

TEST_CASE("what MGET fetched answers GET, and the other way round", "[cache]") {
  Stack stack;
  stack.redis.client()("MSET a 1 b 2");
  Client client = stack.proxy.client();
  REQUIRE(becomes_hit(stack.proxy, client, "MGET a b"));
  Monitor monitor(stack.redis);
  CHECK(client("GET a") == "1");
  CHECK(client("GET b") == "2");
  CHECK(monitor.count("\"a\"") == 0);
}

TEST_CASE("a read that is not cacheable always asks upstream", "[cache]") {
  Stack stack;
  stack.redis.client()("SET s v EX 1000");
  stack.redis.client()("SADD t 1 2 3");
  Client client = stack.proxy.client();
  Monitor monitor(stack.redis);
  for (const char* read : {"TTL s", "OBJECT ENCODING s", "SRANDMEMBER t", "DUMP s", "SSCAN t 0"}) {
    INFO(read);
    for (int i = 0; i < 3; ++i) client(read);
    CHECK(monitor.count(words(read)[0]) == 3);
  }
}

TEST_CASE("an error is never kept", "[cache]") {
  Stack stack;
  stack.redis.client()("RPUSH l a");
  Client client = stack.proxy.client();
  Monitor monitor(stack.redis);
  for (int i = 0; i < 3; ++i) CHECK(client("GET l").find("WRONGTYPE") != std::string::npos);
  CHECK(monitor.count("\"GET\" \"l\"") == 3);
}

TEST_CASE("a value longer than the limit is passed on and not kept", "[cache]") {
  Stack stack({"--set", "l1.value_max=1kb"});
  const std::string value(5000, 'x');
  stack.redis.client()({"SET", "long", value});
  Client client = stack.proxy.client();
  Monitor monitor(stack.redis);
  for (int i = 0; i < 3; ++i) CHECK(client("GET long") == value);
  CHECK(monitor.count("\"long\"") >= 3);
}

TEST_CASE("a key is never answered after its time, though no push tells of the end", "[cache]") {
  Stack stack;
  Client direct = stack.redis.client();
  direct("DEBUG SET-ACTIVE-EXPIRE 0");  // else the server's own cleaning would push
  Client client = stack.proxy.client();
  const auto now_ms = [] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  };
  const auto first_end = now_ms() + 300;
  std::vector<std::string> keys;
  for (int i = 0; i < 20; ++i) {
    keys.push_back("k" + std::to_string(i));
    direct({"SET", keys.back(), "v", "PXAT", std::to_string(first_end + 20 * i)});
  }
  const uint64_t hits_before = stack.proxy.count("l1_hits");
  size_t late = 0;
  for (bool any_left = true; any_left;) {
    any_left = false;
    for (size_t i = 0; i < keys.size(); ++i) {
      const bool over = now_ms() > first_end + 20 * static_cast<int64_t>(i);
      const bool answered = client({"GET", keys[i]}) != "(nil)";
      if (over && answered) ++late;
      any_left = any_left || !over;
    }
  }
  CHECK(late == 0);
  CHECK(stack.proxy.count("l1_hits") > hits_before);
}

TEST_CASE("the same key in two databases is two entries", "[cache]") {
  Stack stack;
  Client direct = stack.redis.client();
  direct("SET k zero");
  direct("SELECT 3");
  direct("SET k three");
  Client in0 = stack.proxy.client();
  Client in3 = stack.proxy.client();
  CHECK(in3("SELECT 3") == "OK");
  REQUIRE(becomes_hit(stack.proxy, in0, "GET k"));
  REQUIRE(becomes_hit(stack.proxy, in3, "GET k"));
  for (int i = 0; i < 10; ++i) {
    CHECK(in0("GET k") == "zero");
    CHECK(in3("GET k") == "three");
  }
  CHECK(in0("SELECT 3") == "OK");
  CHECK(in0("GET k") == "three");
  CHECK(in0("SET k THREE") == "OK");
  CHECK(in3("GET k") == "THREE");
}

TEST_CASE("1,000 clients that ask for one missing key cause one GET upstream per worker",
          "[cache]") {
  const unsigned workers = GENERATE(1u, 2u);  // a worker's L1 and its flights are its own
  Stack stack({"--threads", std::to_string(workers), "--set", "coherence.max_staleness=5s"});
  Client direct = stack.redis.client();
  direct("SET hot value");
  std::vector<RawClient> clients;
  for (int i = 0; i < 1000; ++i) clients.emplace_back(stack.proxy.port());
  for (RawClient& client : clients) REQUIRE(client.ask("PING") == "+PONG\r\n");
  direct("CONFIG RESETSTAT");
  direct("CLIENT PAUSE 1000 ALL");  // holds the first GET until all have asked
  const std::string request = encode({"GET", "hot"});
  for (RawClient& client : clients) client.send(request);
  for (RawClient& client : clients) REQUIRE(client.read_reply() == "$5\r\nvalue\r\n");
  CHECK(stack.redis.calls("get") == workers);
  CHECK(stack.redis.calls("pttl") == workers);
  CHECK(stack.proxy.count("flights_joined") >= 900);
}

// Fails when start_read() or, among hits, read_ahead() does not ask admits(): the server then
// remembers every key of the scan.
TEST_CASE("a scan of keys read once leaves few of them tracked, unless scan_resistance is off",
          "[cache]") {
  const bool resists = GENERATE(true, false), among_hits = GENERATE(true, false);
  constexpr uint64_t kKeys = 20'000, kBatch = 100;
  Stack stack({"--threads", "1", "--set",
               resists ? "l1.scan_resistance=true" : "l1.scan_resistance=false"});
  Client direct = stack.redis.client();
  direct({"DEBUG", "POPULATE", std::to_string(kKeys), "scan"});
  Client first = stack.proxy.client();
  REQUIRE(becomes_hit(stack.proxy, first, "GET scan:0"));
  RawClient client(stack.proxy.port());
  for (uint64_t i = 0; i < kKeys; i += kBatch) {
    std::string pipeline;
    for (uint64_t j = i; j < i + kBatch; ++j) {
      pipeline += encode({"GET", "scan:" + std::to_string(j)});
      if (among_hits) pipeline += encode({"GET", "scan:0"});
    }
    client.send(pipeline);
    for (uint64_t j = i; j < i + kBatch; ++j) {
      const std::string value = "value:" + std::to_string(j);
      REQUIRE(client.read_reply() == "$" + std::to_string(value.size()) + "\r\n" + value + "\r\n");
      if (among_hits) REQUIRE(client.read_reply() == "$7\r\nvalue:0\r\n");
    }
  }
  CHECK(stack.redis.calls("get") <= kKeys + 1);
  const uint64_t tracked = std::stoull(info_field(direct("INFO stats"), "tracking_total_keys"));
  const uint64_t not_admitted = stack.proxy.count("l1_not_admitted");
  CAPTURE(tracked, not_admitted);
  if (resists) {
    // Nothing is known of the first window of misses (4,096).
    CHECK(not_admitted > kKeys * 3 / 4);
    CHECK(tracked < kKeys / 4);
  } else {
    CHECK(not_admitted == 0);
    CHECK(tracked == kKeys);
  }
}
