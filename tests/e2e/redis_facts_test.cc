// What coherence is built on is how Redis behaves, not how it is documented. These tests ask the
// server alone: if one fails on a new version, the design has lost a leg, and no other test may say
// so.
#include <catch2/catch.hpp>
#include <chrono>

#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;

namespace {

constexpr const char* kPushOfK = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
constexpr const char* kPushOfAll = ">2\r\n$10\r\ninvalidate\r\n_\r\n";

/// A connection as a lane has it.
RawClient tracking_client(const RedisServer& server, const char* mode = "CLIENT TRACKING ON") {
  RawClient client(server.port());
  client.ask("HELLO 3");
  REQUIRE(client.ask(mode) == "+OK\r\n");
  return client;
}

}  // namespace

TEST_CASE("Redis: the push of a connection's own write follows its reply, before the next reply",
          "[facts]") {
  RedisServer server;
  RawClient lane = tracking_client(server);
  lane.ask("GET k");
  lane.send(encode({"SET", "k", "1"}) + encode({"PING"}));
  CHECK(lane.read_reply() == "+OK\r\n");
  CHECK(lane.read_reply() == kPushOfK);
  CHECK(lane.read_reply() == "+PONG\r\n");
}

TEST_CASE("Redis: the push of a foreign write comes before any later reply", "[facts]") {
  RedisServer server;
  Client other = server.client();
  RawClient lane = tracking_client(server);
  for (int i = 0; i < 500; ++i) {
    lane.ask("GET k");
    other({"SET", "k", std::to_string(i)});
    lane.send(encode({"PING"}));
    REQUIRE(lane.read_reply() == kPushOfK);
    REQUIRE(lane.read_reply() == "+PONG\r\n");
  }
}

TEST_CASE("Redis: the pushes of a transaction follow the whole reply of EXEC", "[facts]") {
  RedisServer server;
  RawClient lane = tracking_client(server);
  lane.ask("GET k");
  lane.send(encode({"MULTI"}) + encode({"SET", "k", "1"}) + encode({"GET", "x"}) +
            encode({"EXEC"}));
  CHECK(lane.read_reply() == "+OK\r\n");
  CHECK(lane.read_reply() == "+QUEUED\r\n");
  CHECK(lane.read_reply() == "+QUEUED\r\n");
  CHECK(lane.read_reply() == "*2\r\n+OK\r\n_\r\n");
  CHECK(lane.read_reply() == kPushOfK);
}

TEST_CASE("Redis: a foreign write between GET and PTTL pushes before PTTL's reply", "[facts]") {
  RedisServer server;
  RawClient lane = tracking_client(server);
  for (int i = 0; i < 200; ++i) {
    // The pipeline is cut in two by the writer; a pause between the halves is where the race would
    // be.
    lane.send(encode({"GET", "k"}));
    lane.read_reply();
    server.client()({"SET", "k", std::to_string(i), "PX", "100000"});
    lane.send(encode({"PTTL", "k"}));
    REQUIRE(lane.read_reply() == kPushOfK);
    REQUIRE(lane.read_reply()[0] == ':');
  }
}

TEST_CASE("Redis: a push uses up the tracking: two writes after one read push once", "[facts]") {
  RedisServer server;
  Client other = server.client();
  RawClient lane = tracking_client(server);
  lane.ask("GET k");
  other("SET k 1");
  other("SET k 2");
  lane.send(encode({"PING"}));
  CHECK(lane.read_reply() == kPushOfK);
  CHECK(lane.read_reply() == "+PONG\r\n");
}

TEST_CASE("Redis: a connection's own write does not track the key", "[facts]") {
  RedisServer server;
  RawClient lane = tracking_client(server);
  lane.ask("SET k 1");
  server.client()("SET k 2");
  CHECK(lane.ask("PING") == "+PONG\r\n");
}

TEST_CASE("Redis: a missing key is tracked, and its making pushes", "[facts]") {
  RedisServer server;
  RawClient lane = tracking_client(server);
  CHECK(lane.ask("GET k") == "_\r\n");
  server.client()("SET k 1");
  CHECK(lane.ask("PING") == kPushOfK);
  CHECK(lane.read_reply() == "+PONG\r\n");
}

TEST_CASE("Redis: reads that are cached are tracked", "[facts]") {
  RedisServer server;
  Client other = server.client();
  const std::string read =
      GENERATE(as<std::string>{}, "GET k", "MGET j k", "STRLEN k", "GETRANGE k 0 1", "EXISTS k",
               "TYPE k", "HGET k f", "HMGET k f", "HGETALL k", "HLEN k", "HEXISTS k f", "HKEYS k",
               "HVALS k", "HSTRLEN k f", "LRANGE k 0 1", "LLEN k", "LINDEX k 0", "SMEMBERS k",
               "SISMEMBER k m", "SMISMEMBER k m", "SCARD k", "ZRANGE k 0 1", "ZRANGEBYSCORE k 0 1",
               "ZSCORE k m", "ZMSCORE k m", "ZRANK k m", "ZREVRANK k m", "ZCARD k", "ZCOUNT k 0 1",
               "BITCOUNT k", "GETBIT k 1");
  INFO(read);
  RawClient lane = tracking_client(server);
  lane.ask(read);
  other("SET k new");
  CHECK(lane.ask("PING") == kPushOfK);
}

TEST_CASE("Redis: OPTIN's CLIENT CACHING YES covers one command", "[facts]") {
  RedisServer server;
  Client other = server.client();
  RawClient lane = tracking_client(server, "CLIENT TRACKING ON OPTIN");
  lane.ask("GET k");
  other("SET k 1");
  CHECK(lane.ask("CLIENT CACHING YES") == "+OK\r\n");
  lane.ask("GET k");
  lane.ask("GET j");
  other("SET j 1");
  other("SET k 2");
  CHECK(lane.ask("PING") == kPushOfK);
  CHECK(lane.read_reply() == "+PONG\r\n");
}

TEST_CASE("Redis: FLUSHALL, and FLUSHDB of any database, push a null", "[facts]") {
  RedisServer server;
  Client other = server.client();
  RawClient lane = tracking_client(server);
  lane.ask("GET k");
  const std::string flush = GENERATE(as<std::string>{}, "FLUSHALL", "FLUSHDB", "FLUSHDB ASYNC");
  other("SELECT 9");
  other("SET x 1");
  other(flush);
  CHECK(lane.ask("PING") == kPushOfAll);
  CHECK(lane.read_reply() == "+PONG\r\n");
}

TEST_CASE("Redis: redirected tracking tells of a flush in the protocol of who is tracked",
          "[facts]") {
  RedisServer server;
  Client other = server.client();
  RawClient subscriber(server.port());
  const std::string id = subscriber.ask("CLIENT ID");
  subscriber.ask("SUBSCRIBE __redis__:invalidate");
  const bool resp3 = GENERATE(true, false);
  RawClient lane(server.port());
  if (resp3) lane.ask("HELLO 3");
  const std::string number = id.substr(1, id.size() - 3);
  CHECK(lane.ask("CLIENT TRACKING ON REDIRECT " + number) == "+OK\r\n");
  lane.ask("GET k");
  other("FLUSHALL");
  const std::string head = "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";
  // `_` is not RESP2, though the subscriber speaks nothing else.
  CHECK(subscriber.read_reply() == head + (resp3 ? "_\r\n" : "$-1\r\n"));
}

TEST_CASE("Redis: pushes carry no database: a write in another one pushes as well", "[facts]") {
  RedisServer server;
  Client other = server.client();
  other("SELECT 3");
  RawClient lane = tracking_client(server);
  lane.ask("GET k");
  other("SET k 1");
  CHECK(lane.ask("PING") == kPushOfK);
}

TEST_CASE("Redis: SWAPDB pushes nothing", "[facts]") {
  RedisServer server;
  Client other = server.client();
  other("SET k 1");
  RawClient lane = tracking_client(server);
  lane.ask("GET k");
  other("SWAPDB 0 1");
  CHECK(lane.ask("GET k") == "_\r\n");
}

TEST_CASE("Redis: a change of the time to live pushes", "[facts]") {
  RedisServer server;
  Client other = server.client();
  other("SET k 1");
  const std::string change =
      GENERATE(as<std::string>{}, "EXPIRE k 1000", "PEXPIREAT k 4102444800000", "GETEX k EX 1000");
  INFO(change);
  RawClient lane = tracking_client(server);
  lane.ask("GET k");
  other(change);
  CHECK(lane.ask("PING") == kPushOfK);
}

TEST_CASE("Redis: the logical end of a key is not pushed in time", "[facts]") {
  RedisServer server;
  Client other = server.client();
  other("DEBUG SET-ACTIVE-EXPIRE 0");
  other("SET k 1 PX 30");
  RawClient lane = tracking_client(server);
  lane.ask("GET k");
  CHECK(lane.silent_for(150ms));
  CHECK(other("EXISTS k") == "0");  // it had been gone all the time
}
