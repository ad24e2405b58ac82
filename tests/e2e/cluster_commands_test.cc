// A cluster of three shards looks like one Redis to a client that knows of none: commands with
// keys. What Redis itself answers in a cluster is asked of a node, not written down here.
#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "harness/cluster.h"
#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

Args keys_of(size_t count, const std::string& prefix = "k") {
  Args keys;
  for (size_t i = 0; i < count; ++i) keys.push_back(prefix + std::to_string(i));
  return keys;
}

Args request(const std::string& name, const Args& keys) {
  Args out{name};
  out.insert(out.end(), keys.begin(), keys.end());
  return out;
}

uint64_t keys_held(const RedisCluster& cluster) {
  uint64_t sum = 0;
  for (const auto node : cluster.primaries()) sum += std::stoull(cluster.client(node)("DBSIZE"));
  return sum;
}

std::string line_of(const Args& args) {
  std::string out;
  for (const std::string& arg : args) out += (out.empty() ? "" : " ") + arg;
  return out;
}

}  // namespace

// Fails when slots are computed wrongly, and when MOVED is not followed.
TEST_CASE("a key in each of the 16,384 slots is written and read by a client that knows of none",
          "[cluster][commands]") {
  ClusterStack stack;
  RawClient client(stack.proxy.port());
  constexpr unsigned kAtOnce = 512;
  for (const bool reading : {false, true}) {
    for (unsigned slot = 0; slot < kSlots; slot += kAtOnce) {
      std::vector<Args> requests;
      for (unsigned i = slot; i < slot + kAtOnce; ++i) {
        const std::string key = stack.cluster.key_in(i);
        requests.push_back(reading ? Args{"GET", key} : Args{"SET", key, key});
      }
      const std::vector<std::string> replies = client.ask_all(requests);
      for (unsigned i = 0; i < kAtOnce; ++i) {
        const std::string& key = requests[i][1];
        const std::string value = "$" + std::to_string(key.size()) + "\r\n" + key + "\r\n";
        REQUIRE(replies[i] == (reading ? value : "+OK\r\n"));
      }
    }
  }
  CHECK(keys_held(stack.cluster) == kSlots);
}

// Fails when the slot is computed from the whole key: the node answers CROSSSLOT.
TEST_CASE("keys with one hash tag are in one slot, for commands with several keys too",
          "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  for (const std::string tag : {"user:1", "a", "{", "tag with spaces"}) {
    INFO(tag);
    const auto key = [&](const std::string& name) { return name + "{" + tag + "}" + name; };
    CHECK(client({"SADD", key("s"), "1", "2"}) == "2");
    CHECK(client({"SADD", key("t"), "2", "3"}) == "2");
    CHECK(client({"SINTERSTORE", key("u"), key("s"), key("t")}) == "1");
    CHECK(client({"SMEMBERS", key("u")}) == "[2]");
    CHECK(client({"RENAME", key("u"), key("v")}) == "OK");
    CHECK(client({"MSETNX", key("x"), "1", key("y"), "2"}) == "1");
    CHECK(client({"EVAL", "return redis.call('GET', KEYS[2])", "2", key("x"), key("y")}) == "2");
  }
  // No tag: nothing between the braces, or no closing one.
  for (const std::string key : {"{}a", "{}b", "{c", "}d{"}) {
    CHECK(client({"SET", key, key}) == "OK");
    CHECK(client({"GET", key}) == key);
  }
}

// Fails when a hit is served that its shard has invalidated: when the lane to one of the nodes does
// not track, or its pushes are not listened to.
TEST_CASE("what somebody else writes on any shard is seen in time, by every connection",
          "[cluster][coherence]") {
  ClusterStack stack;
  std::vector<Client> readers = clients_of(stack.proxy, 6);
  for (const auto node : stack.cluster.primaries()) {
    const std::string key = stack.cluster.key_at(node), read = "GET " + key;
    Client direct = stack.cluster.client(node);
    for (int i = 0; i < 10; ++i) {
      const std::string value = std::to_string(i);
      direct({"SET", key, value});
      for (Client& reader : readers) REQUIRE(seen_in_time(reader, read, value));
      for (Client& reader : readers) REQUIRE(becomes_hit(stack.proxy, reader, read));
    }
    direct({"DEL", key});
    for (Client& reader : readers) CHECK(seen_in_time(reader, read, "(nil)"));
  }
}

// Fails when an own write does not drop what other connections hold.
TEST_CASE("what is written through the proxy on any shard is seen by every connection at once",
          "[cluster][coherence]") {
  ClusterStack stack;
  std::vector<Client> readers = clients_of(stack.proxy, 6);
  Client writer = stack.proxy.client();
  for (const auto node : stack.cluster.primaries()) {
    const std::string key = stack.cluster.key_at(node);
    for (int i = 0; i < 30; ++i) {
      REQUIRE(writer({"SET", key, std::to_string(i)}) == "OK");
      for (Client& reader : readers) CHECK(reader({"GET", key}) == std::to_string(i));
    }
  }
}

// Fails when the parts of a split MGET are put together in the order of their arrival.
TEST_CASE("MGET of 100 keys of all shards keeps their order, with nil for what is no string",
          "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  const Args keys = keys_of(100);
  Args write{"MSET"};
  std::string expected = "[";
  for (size_t i = 0; i < keys.size(); ++i) {
    const std::string value = "v" + std::to_string(i);
    if (i % 10 == 3) REQUIRE(client({"LPUSH", keys[i], value}) == "1");
    if (i % 10 != 3 && i % 10 != 7) write.insert(write.end(), {keys[i], value});
    expected += (i > 0 ? " " : "") + (i % 10 == 3 || i % 10 == 7 ? "(nil)" : value);
  }
  expected += "]";
  CHECK(client(write) == "OK");
  CHECK(keys_held(stack.cluster) == 90);
  for (int i = 0; i < 3; ++i) CHECK(client(request("MGET", keys)) == expected);
  // One key several times, across the parts.
  CHECK(client({"MGET", "k0", "k1", "k0", "k7", "k2", "k0"}) == "[v0 v1 v0 (nil) v2 v0]");
}

// Fails when a served part is not looked at again after the asked one has come (mget.cc's rule).
TEST_CASE("MGET over all shards sees what was written before it, by anybody",
          "[cluster][coherence]") {
  ClusterStack stack;
  Client client = stack.proxy.client(), other = stack.proxy.client();
  const Args keys = keys_of(12);
  std::vector<std::string> values(keys.size(), "(nil)");
  const auto expected = [&] {
    std::string out;
    for (const std::string& value : values) out += (out.empty() ? "[" : " ") + value;
    return out + "]";
  };
  for (size_t round = 0; round < 60; ++round) {
    const size_t at = round % keys.size();
    values[at] = std::to_string(round);
    other({"SET", keys[at], values[at]});
    CHECK(client(request("MGET", keys)) == expected());
  }
  for (size_t at = 0; at < keys.size(); ++at) {
    values[at] = "around";
    stack.cluster.client(stack.cluster.owner_of(keys[at]))({"SET", keys[at], "around"});
    CHECK(seen_in_time(client, line_of(request("MGET", keys)), expected()));
  }
}

// Fails when a command with several keys is sent whole to the node of its first key (CROSSSLOT),
// and when the parts' counts are not added.
TEST_CASE("DEL, UNLINK, EXISTS and TOUCH of 100 keys of all shards count as one Redis does",
          "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  const Args keys = keys_of(100);
  for (const std::string name : {"DEL", "UNLINK"}) {
    INFO(name);
    for (size_t i = 0; i < keys.size(); i += 2) REQUIRE(client({"SET", keys[i], "v"}) == "OK");
    for (int again = 0; again < 3; ++again) CHECK(client(request("EXISTS", keys)) == "50");
    CHECK(client(request("TOUCH", keys)) == "50");
    CHECK(client({"EXISTS", "k0", "k0", "k1", "k2", "k2"}) == "4");
    CHECK(client({name, "k0", "k0", "k1", "k2"}) == "2");
    CHECK(client(request(name, keys)) == "48");
    CHECK(client(request(name, keys)) == "0");
    CHECK(client(request("EXISTS", keys)) == "0");
  }
  CHECK(keys_held(stack.cluster) == 0);
}

// Fails when values are not dealt out with their keys.
TEST_CASE("MSET over all shards writes each value under its key, of a repeated key the last",
          "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    Args write{"MSET"};
    std::map<std::string, std::string> values;
    for (int i = 0; i < 60; ++i) {
      const std::string key = "k" + std::to_string(random() % 40), value = std::to_string(random());
      write.insert(write.end(), {key, value});
      values[key] = value;
    }
    REQUIRE(client(write) == "OK");
    for (const auto& [key, value] : values) CHECK(client({"GET", key}) == value);
  }
  CHECK(client("MSET a").rfind("(error) ERR wrong number of arguments", 0) == 0);
  CHECK(client("MSET a 1 b").rfind("(error) ERR wrong number of arguments", 0) == 0);
  CHECK(client("GET a") == "(nil)");
}

// Fails when a command that is not split is sent to the node of its first key although the others
// are elsewhere, and when MOVED or ASK gets through to the client.
TEST_CASE("commands that need their keys together answer CROSSSLOT, and do nothing",
          "[cluster][commands]") {
  ClusterStack stack;
  RawClient client(stack.proxy.port());
  const auto primaries = stack.cluster.primaries();
  const std::string a = stack.cluster.key_at(primaries[0]), b = stack.cluster.key_at(primaries[1]);
  const std::vector<Args> requests = {
      {"MSETNX", a, "1", b, "2"},
      {"RENAME", a, b},
      {"RENAMENX", a, b},
      {"COPY", a, b},
      {"SMOVE", a, b, "m"},
      {"SINTER", a, b},
      {"SUNION", a, b},
      {"SDIFF", a, b},
      {"SINTERCARD", "2", a, b},
      {"SINTERSTORE", a, b},
      {"SUNIONSTORE", a, b},
      {"SDIFFSTORE", a, b},
      {"ZINTER", "2", a, b},
      {"ZUNIONSTORE", a, "1", b},
      {"ZRANGESTORE", a, b, "0", "-1"},
      {"ZMPOP", "2", a, b, "MIN"},
      {"LMOVE", a, b, "LEFT", "LEFT"},
      {"RPOPLPUSH", a, b},
      {"LMPOP", "2", a, b, "LEFT"},
      {"BLMOVE", a, b, "LEFT", "LEFT", "0.01"},
      {"BLPOP", a, b, "0.01"},
      {"BZMPOP", "0.01", "2", a, b, "MIN"},
      {"PFCOUNT", a, b},
      {"PFMERGE", a, b},
      {"BITOP", "AND", a, b},
      {"LCS", a, b},
      {"SORT", a, "STORE", b},
      {"GEOSEARCHSTORE", a, b, "FROMLONLAT", "1", "1", "BYRADIUS", "1", "km"},
      {"XREAD", "STREAMS", a, b, "0", "0"},
      {"WATCH", a, b},
      {"EVAL", "return 1", "2", a, b},
      {"EVALSHA", std::string(40, '0'), "2", a, b},
      {"FCALL", "f", "2", a, b},
  };
  for (const Args& args : requests) {
    INFO(line_of(args));
    CHECK(client.ask(args) == "-CROSSSLOT Keys in request don't hash to the same slot\r\n");
    CHECK(RawClient(stack.cluster.port(primaries[0])).ask(args) ==
          "-CROSSSLOT Keys in request don't hash to the same slot\r\n");
  }
  // In one node but two slots it is the same.
  const std::string other = stack.cluster.key_at(primaries[0], "o", 1);
  REQUIRE(RedisCluster::slot_of(a) != RedisCluster::slot_of(other));
  CHECK(client.ask({"RENAME", a, other}).rfind("-CROSSSLOT", 0) == 0);
  CHECK(keys_held(stack.cluster) == 0);
  CHECK(client.ask("PING") == "+PONG\r\n");
}

// Fails when replies of the lanes of several nodes leave in the order of their arrival.
TEST_CASE("pipelines of 200 mixed commands over all shards are answered in order, as by one Redis",
          "[cluster][commands]") {
  ClusterStack stack;
  RedisServer plain;
  RawClient through(stack.proxy.port()), direct(plain.port());
  std::mt19937 random(1);
  const auto key = [&] { return "k" + std::to_string(random() % 60); };
  const auto any = [&]() -> Args {
    const std::string number = std::to_string(random() % 1000);
    switch (random() % 16) {
      case 0: return {"SET", key(), number};
      case 1: return {"INCR", "n" + key()};
      case 2: return {"APPEND", key(), "x"};
      case 3: return {"DEL", key(), key(), key()};
      case 4: return {"MGET", key(), key(), key(), key()};
      case 5: return {"MSET", key(), number, key(), number};
      case 6: return {"EXISTS", key(), key()};
      case 7: return {"RPUSH", "l" + key(), number};
      case 8: return {"LRANGE", "l" + key(), "0", "-1"};
      case 9: return {"HSET", "h" + key(), "f", number};
      case 10: return {"HGETALL", "h" + key()};
      case 11: return {"ECHO", number};
      case 12: return {"GET", "l" + key()};
      case 13: return {"PING"};
      default: return {"GET", key()};
    }
  };
  for (int round = 0; round < 50; ++round) {
    std::vector<Args> requests;
    for (int i = 0; i < 200; ++i) requests.push_back(any());
    const std::vector<std::string> expected = direct.ask_all(requests);
    const std::vector<std::string> actual = through.ask_all(requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      INFO("round " << round << ", " << i << ": " << line_of(requests[i]));
      REQUIRE(actual[i] == expected[i]);
    }
  }
}

// Fails when a read in a pipeline is served from memory, or sent to another connection, before the
// write ahead of it has been answered.
TEST_CASE("within a pipeline each key's reads see the writes ahead of them",
          "[cluster][ordering]") {
  ClusterStack stack;
  const Args keys = keys_of(40);
  for (int round = 0; round < 10; ++round) {
    RawClient client(stack.proxy.port());
    std::vector<Args> requests;
    std::vector<std::string> expected;
    for (int i = 0; i < 10; ++i) {
      for (const std::string& key : keys) {
        const std::string value = std::to_string(1000 * round + i);
        requests.push_back({"SET", key, value});
        expected.push_back("+OK\r\n");
        requests.push_back({"GET", key});
        expected.push_back("$" + std::to_string(value.size()) + "\r\n" + value + "\r\n");
      }
    }
    const std::vector<std::string> replies = client.ask_all(requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      INFO(line_of(requests[i]));
      REQUIRE(replies[i] == expected[i]);
    }
  }
}

// Fails when ASK is not followed, or followed without ASKING, or TRYAGAIN is not tried again.
TEST_CASE("while a slot is half moved all its keys are read and written, alone and together",
          "[cluster][commands][coherence]") {
  ClusterStack stack;
  RedisCluster& cluster = stack.cluster;
  const auto from = cluster.primaries()[0], to = cluster.primaries()[1];
  const unsigned slot = cluster.slots_of(from, 1)[0];
  Client client = stack.proxy.client(), other = stack.proxy.client();
  Args keys;
  for (unsigned i = 0; i < 10; ++i) keys.push_back(cluster.key_in(slot, "k", i));
  const std::string fresh = cluster.key_in(slot, "fresh"), none = cluster.key_in(slot, "none");
  for (const std::string& key : keys) client({"SET", key, "0"});
  CHECK(client({"GET", none}) == "(nil)");
  cluster.open_slot(slot, from, to);
  REQUIRE(cluster.move_keys(slot, from, to, 5) == 5);
  for (int round = 1; round < 20; ++round) {
    for (const std::string& key : keys) {
      REQUIRE(client({"SET", key, std::to_string(round)}) == "OK");
      REQUIRE(other({"GET", key}) == std::to_string(round));
      REQUIRE(other({"GET", key}) == std::to_string(round));
    }
    // A key that does not exist is made at the target.
    REQUIRE(client({"SET", fresh, std::to_string(round)}) == "OK");
    REQUIRE(other({"GET", fresh}) == std::to_string(round));
  }
  CHECK(cluster.client(from)({"GET", fresh}).rfind("(error) ASK", 0) == 0);
  CHECK(client("MULTI") == "OK");
  CHECK(client({"GET", fresh}) == "QUEUED");
  CHECK(client({"SET", fresh, "x"}) == "QUEUED");
  CHECK(client("EXEC") == "[19 OK]");
  // Both halves at once: TRYAGAIN until the deadline, unless the rest moves meanwhile.
  RawClient both(stack.proxy.port());
  both.send(encode(request("MGET", keys)));
  cluster.move_keys(slot, from, to);
  cluster.close_slot(slot, from, to);
  const std::string reply = both.read_reply();
  INFO(reply);
  CHECK((reply.rfind("*10\r\n$2\r\n19\r\n", 0) == 0 || reply.rfind("-TRYAGAIN", 0) == 0));
  CHECK(wait_until([&] { return client(request("MGET", keys)).rfind("[19 19", 0) == 0; }));
  CHECK(client({"GET", none}) == "(nil)");
}
