// Commands with connection state: they get an upstream connection of their own while the state
// lasts, and the session returns to the shared one afterwards.
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>
#include <vector>

#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;

namespace {

/// Reads through L1 work again, and no private connection is held.
void check_back_to_normal(const Proxy& proxy, RawClient& client) {
  CHECK(client.ask("SET after normal") == "+OK\r\n");
  CHECK(client.ask("GET after") == "$6\r\nnormal\r\n");
  CHECK(wait_until([&] { return proxy.count("pinned_sessions") == 0; }));
  CHECK(wait_until([&] {
    const uint64_t hits = proxy.count("l1_hits");
    client.ask("GET after");
    return proxy.count("l1_hits") > hits;
  }));
}

std::string message_text(int protocol, std::initializer_list<std::string> words_of_it) {
  std::string out = (protocol == 3 ? ">" : "*") + std::to_string(words_of_it.size()) + "\r\n";
  for (const std::string& word : words_of_it) {
    if (word[0] == ':') {
      out += word + "\r\n";
    } else {
      out += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
    }
  }
  return out;
}

}  // namespace

TEST_CASE("counters under WATCH, MULTI and EXEC lose no update", "[pinned]") {
  Stack stack;
  stack.redis.client()("SET counter 0");
  constexpr int kThreads = 8, kIncrements = 40;
  std::atomic<int> committed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      Client client = stack.proxy.client();
      for (int done = 0; done < kIncrements;) {
        client("GET counter");  // warms L1: the trap is to serve the next one from it
        client("WATCH counter");
        const int value = std::stoi(client("GET counter"));
        client("MULTI");
        client({"SET", "counter", std::to_string(value + 1)});
        if (client("EXEC") == "[OK]") {
          ++done;
          ++committed;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(committed == kThreads * kIncrements);
  CHECK(stack.proxy.client()("GET counter") == std::to_string(kThreads * kIncrements));
}

TEST_CASE("EXEC after a foreign write to a watched key is refused", "[pinned]") {
  Stack stack;
  Client direct = stack.redis.client();
  direct("SET k 1");
  RawClient client(stack.proxy.port());
  client.ask("GET k");
  CHECK(client.ask("WATCH k") == "+OK\r\n");
  CHECK(client.ask("GET k") == "$1\r\n1\r\n");
  direct("SET k 2");
  CHECK(client.ask("MULTI") == "+OK\r\n");
  CHECK(client.ask("SET k lost") == "+QUEUED\r\n");
  CHECK(client.ask("EXEC") == "*-1\r\n");
  CHECK(client.ask("GET k") == "$1\r\n2\r\n");
  check_back_to_normal(stack.proxy, client);
}

TEST_CASE("a transaction's writes are seen by every connection once EXEC is answered", "[pinned]") {
  Stack stack;
  Client writer = stack.proxy.client();
  std::vector<Client> readers;
  for (int i = 0; i < 4; ++i) readers.push_back(stack.proxy.client());
  for (int i = 0; i < 300; ++i) {
    const std::string value = std::to_string(i);
    for (Client& reader : readers) reader("MGET a b");
    writer("MULTI");
    writer({"SET", "a", value});
    writer({"SET", "b", value});
    REQUIRE(writer("EXEC") == "[OK OK]");
    for (Client& reader : readers) {
      REQUIRE(reader("GET a") == value);
      REQUIRE(reader("MGET a b") == "[" + value + " " + value + "]");
    }
  }
}

TEST_CASE("a pipeline that runs through a transaction is answered in order", "[pinned]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  client.send(encode({"SET", "k", "1"}) + encode({"GET", "k"}) + encode({"MULTI"}) +
              encode({"INCR", "k"}) + encode({"GET", "k"}) + encode({"EXEC"}) +
              encode({"GET", "k"}) + encode({"MULTI"}) + encode({"DISCARD"}) +
              encode({"GET", "k"}));
  for (const char* expected :
       {"+OK\r\n", "$1\r\n1\r\n", "+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n",
        "*2\r\n:2\r\n$1\r\n2\r\n", "$1\r\n2\r\n", "+OK\r\n", "+OK\r\n", "$1\r\n2\r\n"}) {
    CHECK(client.read_reply() == expected);
  }
  check_back_to_normal(stack.proxy, client);
}

TEST_CASE("a blocked client is woken by anybody's push, and holds up nobody else", "[pinned]") {
  Stack stack;
  RawClient waiting(stack.proxy.port());
  waiting.send(encode({"BLPOP", "queue", "0"}) + encode({"GET", "after"}));
  CHECK(wait_until([&] { return stack.proxy.count("pinned_sessions") == 1; }));
  Client other = stack.proxy.client();
  CHECK(other("SET after 1") == "OK");
  CHECK(waiting.silent_for(50ms));
  SECTION("through the proxy") { CHECK(other("LPUSH queue job") == "1"); }
  SECTION("around it") { CHECK(stack.redis.client()("LPUSH queue job") == "1"); }
  CHECK(waiting.read_reply() == "*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
  CHECK(waiting.read_reply() == "$1\r\n1\r\n");
  CHECK(other("LLEN queue") == "0");
  check_back_to_normal(stack.proxy, waiting);
}

TEST_CASE("an element is not lost to a client that went away while it was blocked", "[pinned]") {
  Stack stack;
  {
    RawClient waiting(stack.proxy.port());
    waiting.send(encode({"BLPOP", "queue", "0"}));
    REQUIRE(wait_until([&] {
      return stack.redis.client()("INFO clients").find("blocked_clients:1") != std::string::npos;
    }));
  }
  REQUIRE(wait_until([&] {
    return stack.redis.client()("INFO clients").find("blocked_clients:0") != std::string::npos;
  }));
  CHECK(stack.proxy.client()("LPUSH queue job") == "1");
  CHECK(stack.proxy.client()("LLEN queue") == "1");
  CHECK(stack.proxy.count("pinned_sessions") == 0);
}

TEST_CASE("CLIENT UNBLOCK wakes a client that blocks through the proxy", "[pinned]") {
  Stack stack;
  RawClient waiting(stack.proxy.port());
  const std::string id = waiting.ask("CLIENT ID").substr(1);
  waiting.send(encode({"BLPOP", "queue", "0"}));
  Client other = stack.proxy.client();
  CHECK(wait_until([&] {
    return other({"CLIENT", "UNBLOCK", id.substr(0, id.size() - 2)}) == "1";
  }));
  CHECK(waiting.read_reply() == "*-1\r\n");
}

TEST_CASE("subscribers get every message in order, and return to normal", "[pinned][pubsub]") {
  const int protocol = GENERATE(2, 3);
  INFO("RESP" << protocol);
  Stack stack;
  RawClient client(stack.proxy.port());
  if (protocol == 3) client.ask("HELLO 3");
  client.send(encode({"SUBSCRIBE", "c1", "c2"}) + encode({"PSUBSCRIBE", "p*"}) +
              encode({"SSUBSCRIBE", "s1"}));
  CHECK(client.read_reply() == message_text(protocol, {"subscribe", "c1", ":1"}));
  CHECK(client.read_reply() == message_text(protocol, {"subscribe", "c2", ":2"}));
  CHECK(client.read_reply() == message_text(protocol, {"psubscribe", "p*", ":3"}));
  CHECK(client.read_reply() == message_text(protocol, {"ssubscribe", "s1", ":1"}));
  CHECK(stack.proxy.count("pinned_sessions") == 1);
  Client through = stack.proxy.client();
  Client direct = stack.redis.client();
  for (int i = 0; i < 50; ++i) {
    const std::string text = std::to_string(i);
    CHECK(through({"PUBLISH", "c1", text}) == "1");
    CHECK(direct({"PUBLISH", "pattern", text}) == "1");
    CHECK(through({"SPUBLISH", "s1", text}) == "1");
    CHECK(client.read_reply() == message_text(protocol, {"message", "c1", text}));
    CHECK(client.read_reply() == message_text(protocol, {"pmessage", "p*", "pattern", text}));
    CHECK(client.read_reply() == message_text(protocol, {"smessage", "s1", text}));
  }
  if (protocol == 2) {
    CHECK(client.ask("GET k").find("-ERR Can't execute 'get'") == 0);
    CHECK(client.ask("PING") == "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
  } else {
    CHECK(client.ask("SET k v") == "+OK\r\n");
    CHECK(client.ask("GET k") == "$1\r\nv\r\n");
  }
  CHECK(client.ask("UNSUBSCRIBE c1") == message_text(protocol, {"unsubscribe", "c1", ":2"}));
  CHECK(client.ask("UNSUBSCRIBE") == message_text(protocol, {"unsubscribe", "c2", ":1"}));
  CHECK(client.ask("PUNSUBSCRIBE") == message_text(protocol, {"punsubscribe", "p*", ":0"}));
  CHECK(client.ask("SUNSUBSCRIBE") == message_text(protocol, {"sunsubscribe", "s1", ":0"}));
  CHECK(through("PUBLISH c1 x") == "0");
  check_back_to_normal(stack.proxy, client);
}

TEST_CASE("a subscriber that goes away leaves no subscription behind", "[pinned][pubsub]") {
  Stack stack;
  Client direct = stack.redis.client();
  {
    RawClient client(stack.proxy.port());
    client.ask("SUBSCRIBE c");
    CHECK(direct("PUBSUB NUMSUB c") == "[c 1]");
  }
  CHECK(wait_until([&] { return direct("PUBSUB NUMSUB c") == "[c 0]"; }));
}

TEST_CASE("RESET ends a subscription", "[pinned][pubsub]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  client.ask("SUBSCRIBE c");
  CHECK(client.ask("RESET") == "+RESET\r\n");
  CHECK(wait_until([&] { return stack.redis.client()("PUBSUB NUMSUB c") == "[c 0]"; }));
  check_back_to_normal(stack.proxy, client);
}

TEST_CASE("MONITOR shows what the server runs, until RESET", "[pinned]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  CHECK(client.ask("MONITOR") == "+OK\r\n");
  CHECK(stack.redis.client()("ECHO seen-by-monitor") == "seen-by-monitor");
  CHECK(wait_until([&] {
    return client.read_reply().find("\"ECHO\" \"seen-by-monitor\"") != std::string::npos;
  }));
  client.send(encode({"RESET"}));
  CHECK(wait_until([&] { return client.read_reply() == "+RESET\r\n"; }));
  check_back_to_normal(stack.proxy, client);
}

TEST_CASE("CLIENT REPLY OFF and SKIP silence what they should, and no more", "[pinned]") {
  Stack stack;
  RawClient client(stack.proxy.port());
  client.send(encode({"SET", "k", "1"}) + encode({"CLIENT", "REPLY", "OFF"}) +
              encode({"SET", "k", "2"}) + encode({"GET", "k"}) + encode({"NOSUCHCOMMAND"}) +
              encode({"CLIENT", "REPLY", "ON"}) + encode({"GET", "k"}) +
              encode({"CLIENT", "REPLY", "SKIP"}) + encode({"SET", "k", "3"}) +
              encode({"GET", "k"}));
  CHECK(client.read_reply() == "+OK\r\n");
  CHECK(client.read_reply() == "+OK\r\n");
  CHECK(client.read_reply() == "$1\r\n2\r\n");
  CHECK(client.read_reply() == "$1\r\n3\r\n");
  check_back_to_normal(stack.proxy, client);
}

TEST_CASE("a client's own tracking gets its invalidations", "[pinned]") {
  Stack stack;
  Client direct = stack.redis.client();
  direct("SET k 1");
  RawClient client(stack.proxy.port());
  client.ask("HELLO 3");
  CHECK(client.ask("CLIENT TRACKING ON") == "+OK\r\n");
  CHECK(client.ask("GET k") == "$1\r\n1\r\n");
  direct("SET k 2");
  CHECK(client.read_reply() == ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
  CHECK(client.ask("CLIENT TRACKING OFF") == "+OK\r\n");
  CHECK(client.ask("GET k") == "$1\r\n2\r\n");
}

TEST_CASE("each session keeps its own database, name and user", "[pinned]") {
  Stack stack;
  Client direct = stack.redis.client();
  for (int db = 0; db < 16; ++db) {
    direct({"SELECT", std::to_string(db)});
    direct({"SET", "where", "db" + std::to_string(db)});
  }
  std::vector<Client> clients;
  for (int i = 0; i < 32; ++i) {
    clients.push_back(stack.proxy.client());
    REQUIRE(clients.back()({"SELECT", std::to_string(i % 16)}) == "OK");
  }
  for (int round = 0; round < 10; ++round) {
    for (size_t i = 0; i < clients.size(); ++i) {
      REQUIRE(clients[i]("GET where") == "db" + std::to_string(i % 16));
    }
  }
  clients[1]("MULTI");
  clients[1]("GET where");
  CHECK(clients[1]("EXEC") == "[db1]");
  CHECK(clients[1]("BLPOP none 0.01") == "(nil)");
  CHECK(clients[1]("GET where") == "db1");
}

TEST_CASE("what a client leaves behind in mid-transaction never meets another client", "[pinned]") {
  Stack stack;
  stack.redis.client()("SET k v");
  for (int i = 0; i < 40; ++i) {
    RawClient leaver(stack.proxy.port());
    if (i % 2 == 0) leaver.ask("HELLO 3");
    leaver.send(encode({"SELECT", "5"}) + encode({"CLIENT", "SETNAME", "left"}) +
                encode({"CLIENT", "NO-EVICT", "ON"}) + encode({"WATCH", "k"}) + encode({"MULTI"}) +
                encode({"SET", "k", "leftover"}));
    if (i % 4 < 2) leaver.read_reply();
  }
  for (int i = 0; i < 40; ++i) {
    RawClient silent(stack.proxy.port());
    silent.send(encode({"CLIENT", "REPLY", "OFF"}) + encode({"SET", "k", "v"}));
  }
  for (int i = 0; i < 40; ++i) {
    Client next = stack.proxy.client();
    CHECK(next("WATCH other") == "OK");
    CHECK(next("GET k") == "v");
    CHECK(next("MULTI") == "OK");
    CHECK(next("GET k") == "QUEUED");
    CHECK(next("EXEC") == "[v]");
    CHECK(next("CLIENT GETNAME") == "(nil)");
    CHECK(next("BLPOP none 0.01") == "(nil)");
  }
  CHECK(wait_until([&] { return stack.proxy.count("pinned_sessions") == 0; }));
}

TEST_CASE("a write that waits in a blocking command is seen at once when it comes", "[pinned]") {
  Stack stack;
  Client direct = stack.redis.client();
  std::vector<Client> readers;
  for (int i = 0; i < 4; ++i) readers.push_back(stack.proxy.client());
  RawClient mover(stack.proxy.port());
  for (int i = 0; i < 50; ++i) {
    mover.send(encode({"BLMOVE", "src", "dst", "LEFT", "LEFT", "0"}));
    for (Client& reader : readers) CHECK(reader("LLEN dst") == std::to_string(i));
    direct("RPUSH src e");
    CHECK(mover.read_reply() == "$1\r\ne\r\n");
    for (Client& reader : readers) CHECK(reader("LLEN dst") == std::to_string(i + 1));
  }
}

TEST_CASE("flushes and undeclared scripts inside a transaction are seen by everybody", "[pinned]") {
  Stack stack;
  Client client = stack.proxy.client();
  std::vector<Client> readers;
  for (int i = 0; i < 4; ++i) readers.push_back(stack.proxy.client());
  for (const Args& change :
       {Args{"FLUSHALL"}, Args{"EVAL", "redis.call('DEL', 'k')", "0"}, Args{"SWAPDB", "0", "9"}}) {
    INFO(change[0]);
    client("FLUSHALL");
    client("SET k v");
    for (int i = 0; i < 3; ++i) {
      for (Client& reader : readers) CHECK(reader("GET k") == "v");
    }
    client("MULTI");
    client(change);
    client("EXEC");
    for (Client& reader : readers) CHECK(reader("GET k") == "(nil)");
  }
}
