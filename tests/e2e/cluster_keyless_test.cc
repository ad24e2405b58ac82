// A cluster of three shards looks like one Redis: commands that name no key, and so concern all
// shards, or any.
#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <vector>

#include "harness/cluster.h"
#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

std::set<std::string> set_of(const std::string& array) {
  const Args all = words(array.substr(1, array.size() - 2));
  std::set<std::string> out(all.begin(), all.end());
  REQUIRE(out.size() == all.size());
  return out;
}

/// "k0" … : enough that every shard has some.
std::set<std::string> fill(const ClusterStack& stack, unsigned count) {
  RawClient client(stack.proxy.port());
  std::string bytes;
  std::set<std::string> keys;
  for (unsigned i = 0; i < count; ++i) {
    const std::string key = "k" + std::to_string(i);
    bytes += encode(i % 5 == 0 ? Args{"RPUSH", key, "v"} : Args{"SET", key, "v"});
    keys.insert(key);
  }
  client.send(bytes);
  for (unsigned i = 0; i < count; ++i) REQUIRE(client.read_reply()[0] != '-');
  return keys;
}

/// All that SCAN with these options returns, until its cursor is 0 again.
std::set<std::string> scan(Client& client, const Args& options) {
  std::set<std::string> found;
  std::string cursor = "0";
  for (int calls = 0; calls < 20'000; ++calls) {
    Args args{"SCAN", cursor};
    args.insert(args.end(), options.begin(), options.end());
    const std::string reply = client(args);
    REQUIRE(reply[0] == '[');
    const size_t space = reply.find(' ');
    cursor = reply.substr(1, space - 1);
    // What clients keep in a signed 64-bit integer.
    REQUIRE((!cursor.empty() && cursor.size() < 19));
    REQUIRE(cursor.find_first_not_of("0123456789") == std::string::npos);
    for (const std::string& key : words(reply.substr(space + 2, reply.size() - space - 4)))
      found.insert(key);
    if (cursor == "0") return found;
  }
  FAIL("SCAN does not end");
  return found;
}

/// A script's or function's reply for a key of each shard, one after the other.
std::string on_each_shard(const ClusterStack& stack, Client& client, Args call) {
  std::string out;
  for (const auto node : stack.cluster.primaries()) {
    Args args = call;
    args.insert(args.end(), {"1", stack.cluster.key_at(node)});
    out += (out.empty() ? "" : ",") + client(args);
  }
  return out;
}

}  // namespace

// Fails when it is asked of one shard.
TEST_CASE("DBSIZE is the number of keys of all shards", "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  CHECK(client("DBSIZE") == "0");
  fill(stack, 300);
  CHECK(client("DBSIZE") == "300");
  for (const auto node : stack.cluster.primaries())
    CHECK(stack.cluster.client(node)("DBSIZE") != "300");
}

// Fails when it is asked of one shard.
TEST_CASE("KEYS finds the keys of all shards", "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  CHECK(client("KEYS *") == "[]");
  const std::set<std::string> keys = fill(stack, 300);
  CHECK(set_of(client("KEYS *")) == keys);
  CHECK(set_of(client("KEYS k1?")).size() == 10);
  CHECK(client("KEYS nothing*") == "[]");
}

// Fails when the cursor does not say which shard it is of: keys of the others are missing, or it
// never ends.
TEST_CASE("SCAN to the end finds each of 5,000 keys of all shards", "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  CHECK(scan(client, {}).empty());
  const std::set<std::string> keys = fill(stack, 5'000);
  CHECK(scan(client, {}) == keys);
  CHECK(scan(client, {"COUNT", "100"}) == keys);
  CHECK(scan(client, {"COUNT", "100000"}) == keys);
  CHECK(scan(client, {"MATCH", "k12*", "COUNT", "500"}).size() == 111);
  CHECK(scan(client, {"TYPE", "list", "COUNT", "500"}).size() == 1'000);
  CHECK(scan(client, {"TYPE", "hash", "COUNT", "500"}).empty());
  CHECK(client("SCAN x") == "(error) ERR invalid cursor");
  CHECK(client("SCAN 0 COUNT 0") == "(error) ERR syntax error");
}

// Fails when a scan goes on with a snapshot of who owns what: keys that are never gone must be
// found even if their slots move meanwhile, as far as Redis's own SCAN allows (each is on one node
// at a time; those that moved from a node still to come to one already done are found by the slots'
// old place only). So: only replicas take over here, no slot moves.
TEST_CASE("SCAN survives a failover between two of its calls", "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  fill(stack, 500);
  const std::string first = client("SCAN 0 COUNT 50");
  const std::string cursor = first.substr(1, first.find(' ') - 1);
  const auto primary = stack.cluster.primaries()[1];
  REQUIRE(stack.cluster.client(primary)("WAIT 1 5000") != "0");
  stack.cluster.failover(stack.cluster.replicas_of(primary).at(0), "");
  REQUIRE(stack.cluster.wait_ok());
  const std::string next = client("SCAN " + cursor + " COUNT 50");
  INFO(next);
  CHECK(next[0] == '[');
  CHECK(scan(client, {}).size() == 500);
}

// Fails when one shard is asked, and its answer taken, though it has no key.
// Fails when a part that was sent to one node, and lost, is not asked for again, at the node's
// successor. Fails when SCAN goes on there with the cursor of the node that is gone.
TEST_CASE("a question to all shards outlives a primary that is killed before it answers",
          "[cluster][commands]") {
  // Behind connect_timeout the breaker would answer before the replica has taken over.
  ClusterStack stack({"--set", "upstream.timeout=20s", "--set", "upstream.connect_timeout=20s"});
  RedisCluster& cluster = stack.cluster;
  const std::set<std::string> keys = fill(stack, 100);
  const RedisCluster::Node primary = cluster.primaries().at(0);
  const RedisCluster::Node replica = cluster.replicas_of(primary).at(0);
  REQUIRE(wait_until(
      [&] { return cluster.client(replica)("DBSIZE") == cluster.client(primary)("DBSIZE"); }));
  const auto asked = [&](RawClient& client, const Args& request) {
    const uint64_t before = stack.proxy.count("upstream_requests");
    client.send(encode(request));
    REQUIRE(wait_until([&] { return stack.proxy.count("upstream_requests") > before; }));
  };
  RawClient size(stack.proxy.port()), all(stack.proxy.port()), page(stack.proxy.port());
  Client client = stack.proxy.client();
  REQUIRE(client("PING") == "PONG");
  cluster.freeze(primary);
  asked(size, {"DBSIZE"});
  asked(all, {"KEYS", "*"});
  asked(page, {"SCAN", "0", "COUNT", "1000"});
  cluster.kill(primary);
  CHECK(size.read_reply() == ":100\r\n");
  CHECK(all.read_reply().rfind("*100\r\n", 0) == 0);
  CHECK(page.read_reply().rfind("*2\r\n", 0) == 0);
  CHECK(scan(client, {}) == keys);
}

// Fails when a node that loads its data set, and says so, is not waited for.
TEST_CASE("a question to all shards waits for a node that starts again", "[cluster][commands]") {
  ClusterStack stack({"--set", "upstream.timeout=20s"});
  RedisCluster& cluster = stack.cluster;
  const RedisCluster::Node primary = cluster.primaries().at(1);
  Client client = stack.proxy.client();
  REQUIRE(client("DBSIZE") == "0");
  cluster.kill(primary);
  cluster.start(primary);
  for (const char* request : {"DBSIZE", "KEYS *", "RANDOMKEY", "SCRIPT EXISTS abc", "SCAN 0"}) {
    INFO(request);
    CHECK(client(request).rfind("(error)", 0) == std::string::npos);
  }
}

TEST_CASE("RANDOMKEY finds the only key, on whatever shard it is", "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  for (int i = 0; i < 10; ++i) CHECK(client("RANDOMKEY") == "(nil)");
  for (const auto node : stack.cluster.primaries()) {
    const std::string key = stack.cluster.key_at(node);
    client({"SET", key, "v"});
    for (int i = 0; i < 10; ++i) CHECK(client("RANDOMKEY") == key);
    client({"DEL", key});
  }
}

// Fails when a shard is left out, and when what is held from it is not dropped.
TEST_CASE("FLUSHALL and FLUSHDB empty all shards, and what every connection holds",
          "[cluster][commands][coherence]") {
  ClusterStack stack;
  std::vector<Client> readers = clients_of(stack.proxy, 6);
  Client client = stack.proxy.client();
  for (const std::string flush : {"FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC", "FLUSHDB SYNC"}) {
    INFO(flush);
    fill(stack, 30);
    for (const auto node : stack.cluster.primaries())
      for (Client& reader : readers)
        REQUIRE(becomes_hit(stack.proxy, reader, "GET " + stack.cluster.key_at(node)));
    for (const auto node : stack.cluster.primaries())
      client({"SET", stack.cluster.key_at(node), "v"});
    for (Client& reader : readers)
      REQUIRE(becomes_hit(stack.proxy, reader,
                          "GET " + stack.cluster.key_at(stack.cluster.primaries()[2])));
    CHECK(client(flush) == "OK");
    for (Client& reader : readers)
      for (const auto node : stack.cluster.primaries())
        CHECK(reader({"GET", stack.cluster.key_at(node)}) == "(nil)");
    CHECK(client("DBSIZE") == "0");
  }
  CHECK(client("FLUSHALL NOPE") == "(error) ERR syntax error");
}

// Fails when SCRIPT LOAD reaches only one shard: EVALSHA answers NOSCRIPT on the others.
TEST_CASE("a loaded script runs on every shard, until SCRIPT FLUSH", "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  const std::string sha = client({"SCRIPT", "LOAD", "return KEYS[1] and 'ran'"});
  REQUIRE(sha.size() == 40);
  CHECK(on_each_shard(stack, client, {"EVALSHA", sha}) == "ran,ran,ran");
  CHECK(client({"SCRIPT", "EXISTS", sha, std::string(40, '0')}) == "[1 0]");
  // On one shard only is as good as nowhere.
  const std::string alone =
      stack.cluster.client(stack.cluster.primaries()[1])({"SCRIPT", "LOAD", "return 'alone'"});
  CHECK(client({"SCRIPT", "EXISTS", alone, sha}) == "[0 1]");
  CHECK(client("SCRIPT FLUSH") == "OK");
  CHECK(client({"SCRIPT", "EXISTS", sha}) == "[0]");
  for (const auto node : stack.cluster.primaries())
    CHECK(client({"EVALSHA", sha, "1", stack.cluster.key_at(node)}).rfind("(error) NOSCRIPT", 0) ==
          0);
}

// Fails when a script is sent anywhere but to the node of its keys.
TEST_CASE("a script runs where its keys are, and without keys anywhere", "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  CHECK(on_each_shard(stack, client, {"EVAL", "return redis.call('SET', KEYS[1], 'v')"}) ==
        "OK,OK,OK");
  CHECK(on_each_shard(stack, client, {"EVAL_RO", "return redis.call('GET', KEYS[1])"}) == "v,v,v");
  for (const auto node : stack.cluster.primaries())
    CHECK(client({"GET", stack.cluster.key_at(node)}) == "v");
  for (int i = 0; i < 9; ++i) CHECK(client({"EVAL", "return 7", "0"}) == "7");
}

// Fails when FUNCTION LOAD reaches only one shard.
TEST_CASE("a loaded library's functions run on every shard, until it is deleted",
          "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  const std::string library =
      "#!lua name=lib\nredis.register_function('put', function(keys, args) return "
      "redis.call('SET', keys[1], 'v') end)\nredis.register_function{function_name='seven', "
      "callback=function() return 7 end, flags={'no-writes'}}";
  CHECK(client({"FUNCTION", "LOAD", library}) == "lib");
  CHECK(on_each_shard(stack, client, {"FCALL", "put"}) == "OK,OK,OK");
  for (const auto node : stack.cluster.primaries())
    CHECK(client({"GET", stack.cluster.key_at(node)}) == "v");
  for (int i = 0; i < 9; ++i) CHECK(client("FCALL seven 0") == "7");
  CHECK(on_each_shard(stack, client, {"FCALL_RO", "seven"}) == "7,7,7");
  CHECK(client({"FUNCTION", "LOAD", library}) == "(error) ERR Library 'lib' already exists");
  CHECK(client({"FUNCTION", "LOAD", "REPLACE", library}) == "lib");
  const std::string dump = client("FUNCTION DUMP");
  CHECK(client("FUNCTION DELETE lib") == "OK");
  for (const auto node : stack.cluster.primaries())
    CHECK(client({"FCALL", "put", "1", stack.cluster.key_at(node)}) ==
          "(error) ERR Function not found");
  CHECK(client({"FUNCTION", "RESTORE", dump}) == "OK");
  CHECK(on_each_shard(stack, client, {"FCALL", "put"}) == "OK,OK,OK");
  CHECK(client("FUNCTION FLUSH") == "OK");
  for (const auto node : stack.cluster.primaries())
    CHECK(stack.cluster.client(node)("FUNCTION LIST") == "[]");
}

// Fails when WAIT is asked of another node than the write before it went to.
TEST_CASE("WAIT counts the replicas of the shard that was written to", "[cluster][commands]") {
  ClusterStack stack;
  Client client = stack.proxy.client();
  for (const auto node : stack.cluster.primaries()) {
    REQUIRE(client({"SET", stack.cluster.key_at(node), "v"}) == "OK");
    CHECK(client("WAIT 1 10000") == "1");
    const auto replica = stack.cluster.replicas_of(node).at(0);
    Client copy = stack.cluster.client(replica);
    copy("READONLY");
    CHECK(copy({"GET", stack.cluster.key_at(node)}) == "v");
  }
}
