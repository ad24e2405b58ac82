// What the router itself does for coherence, apart from asking the rules: pushes, epochs, fences.
#include <catch2/catch.hpp>

#include "nearcached/resp/writer.h"
#include "scripted_upstream.h"

#include "nearcached/coherence/bus_message.h"

using namespace nearcached;
using namespace nearcached::test;
using coherence::BusMessage;

namespace {

/// What a request publishes on the bus, and for which keys; fails if it is something else.
std::vector<std::string> announced(const std::string& request, BusMessage::Kind kind) {
  const std::string head = "PUBLISH nearcached:0 ";
  REQUIRE(request.starts_with(head));
  BusMessage message;
  REQUIRE(decode(Bytes(request).substr(head.size()), message));
  CHECK(message.kind == kind);
  return {message.items.begin(), message.items.end()};
}

}  // namespace

TEST_CASE("an invalidation ends what is held", "[router]") {
  WorkerUnderTest worker;
  CHECK(worker.read("k", "old") == bulk("old"));
  CHECK(worker.read("k", "new") == bulk("old"));
  worker.upstream.send(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
  worker.read("other", "v");
  CHECK(worker.read("k", "new") == bulk("new"));
}

TEST_CASE("an invalidation of one key leaves the others", "[router]") {
  WorkerUnderTest worker;
  worker.read("k", "old");
  worker.read("kept", "old");
  worker.upstream.send(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
  CHECK(worker.read("kept", "new") == bulk("old"));
}

TEST_CASE("an invalidation of several keys ends each of them", "[router]") {
  WorkerUnderTest worker;
  worker.read("a", "old");
  worker.read("b", "old");
  worker.upstream.send(">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n");
  worker.read("other", "v");
  CHECK(worker.read("a", "new") == bulk("new"));
  CHECK(worker.read("b", "new") == bulk("new"));
}

TEST_CASE("an invalidation of everything ends everything", "[router]") {
  WorkerUnderTest worker;
  worker.read("k", "old");
  worker.upstream.send(">2\r\n$10\r\ninvalidate\r\n_\r\n");
  worker.read("other", "v");
  CHECK(worker.read("k", "new") == bulk("new"));
}

TEST_CASE("an invalidation between a read's reply and its PTTL keeps the value out", "[router]") {
  WorkerUnderTest worker;
  worker.client->send_request({"GET", "k"});
  REQUIRE(worker.upstream.request() == "GET k");
  worker.upstream.send(bulk("old") + ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n:-1\r\n");
  REQUIRE(worker.upstream.request() == "PTTL k");
  CHECK(worker.client->reply() == bulk("old"));
  worker.read("other", "v");
  CHECK(worker.read("k", "new") == bulk("new"));
}

TEST_CASE("a read behind a pattern does not share the reply of one from before it", "[router]") {
  WorkerUnderTest worker;
  const std::unique_ptr<Peer> other = worker.connect();
  worker.client->send_request({"GET", "k"});
  REQUIRE(worker.upstream.request() == "GET k");
  REQUIRE(worker.upstream.request() == "PTTL k");
  worker.accept_pattern("k*");
  other->send_request({"GET", "k"});
  worker.upstream.await("$3\r\nGET\r\n$1\r\nk\r\n");
  worker.upstream.send(bulk("old") + ":-1\r\n");
  CHECK(worker.client->reply() == bulk("old"));
  REQUIRE(worker.upstream.request() == "GET k");
  worker.upstream.send(bulk("new"));
  CHECK(other->reply() == bulk("new"));
}

TEST_CASE("a link that was lost takes with it what was filled over it", "[router]") {
  WorkerUnderTest worker;
  worker.read("k", "old");
  worker.upstream.accept();
  worker.read("other", "v");
  worker.read("other", "v");
  CHECK(worker.read("k", "new") == bulk("new"));
  CHECK(worker.read("k", "newer") == bulk("new"));
}

TEST_CASE("a script's reply waits for the answer to a ping behind it", "[router]") {
  WorkerUnderTest worker;
  worker.client->send_request({"EVAL", "return 1", "0"});
  REQUIRE(worker.upstream.request() == "EVAL return 1 0");
  worker.upstream.send(":1\r\n");
  REQUIRE(worker.upstream.request_before(*worker.client) == "PING");
  worker.upstream.send("+PONG\r\n");
  CHECK(worker.client->reply() == ":1\r\n");
}

TEST_CASE("what a script changed is not held when its reply is out", "[router]") {
  WorkerUnderTest worker;
  worker.read("k", "old");
  worker.client->send_request({"EVAL", "return redis.call('SET', 'k', 'new')", "0"});
  worker.upstream.request();
  worker.upstream.send("+OK\r\n");
  REQUIRE(worker.upstream.request_before(*worker.client) == "PING");
  worker.upstream.send(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n+PONG\r\n");
  CHECK(worker.client->reply() == "+OK\r\n");
  CHECK(worker.read("k", "new") == bulk("new"));
}

TEST_CASE("in mode publish the keys of a turn's writes are told behind them, once", "[router]") {
  WorkerUnderTest worker(CoherenceMode::publish);
  Buffer turn;
  resp::write_request(turn, std::vector<Bytes>{"SET", "a", "1"});
  resp::write_request(turn, std::vector<Bytes>{"GET", "read"});
  resp::write_request(turn, std::vector<Bytes>{"MSET", "b", "2", Bytes("c\r\n\0", 4), "3"});
  resp::write_request(turn, std::vector<Bytes>{"ECHO", "last"});
  worker.client->send(turn.readable());
  CHECK(worker.upstream.request() == "SET a 1");
  CHECK(worker.upstream.request() == "GET read");
  worker.upstream.request();
  CHECK(worker.upstream.request() == "ECHO last");
  CHECK(announced(worker.upstream.request(), BusMessage::Kind::wrote) ==
        std::vector<std::string>{"a", "b", std::string("c\r\n\0", 4)});
}

TEST_CASE("in mode publish a write of unknown keys is told as a write of everything", "[router]") {
  WorkerUnderTest worker(CoherenceMode::publish);
  worker.client->send_request({"FLUSHALL"});
  CHECK(worker.upstream.request() == "FLUSHALL");
  CHECK(announced(worker.upstream.request(), BusMessage::Kind::wrote_everything).empty());
}

TEST_CASE("in mode resp3 writes are told by the server, not by us", "[router]") {
  WorkerUnderTest worker(CoherenceMode::resp3);
  worker.client->send_request({"SET", "a", "1"});
  CHECK(worker.upstream.request() == "SET a 1");
  worker.upstream.send("+OK\r\n");
  CHECK(worker.client->reply() == "+OK\r\n");
  worker.client->send_request({"ECHO", "after"});
  CHECK(worker.upstream.request() == "ECHO after");
}
