// Starting and stopping: what an operator sees.
#include <signal.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;

namespace {

struct Outcome {
  int status;
  std::string output;
};

/// Runs nearcached with these options until it ends by itself.
Outcome run_nearcached(std::vector<std::string> options) {
  TempDir dir;
  Process process;
  options.insert(options.begin(), nearcached_binary());
  process.start(options, dir.path() + "/log");
  const std::optional<int> status = process.wait_exit(20s);
  return {status.value_or(-1), read_file(dir.path() + "/log")};
}

size_t lines_of(const std::string& text) {
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

TEST_CASE("SIGTERM lets every accepted request have its reply", "[operations]") {
  Stack stack;
  constexpr int kClients = 20, kRequests = 200;
  std::vector<RawClient> clients;
  for (int i = 0; i < kClients; ++i) clients.emplace_back(stack.proxy.port());
  for (RawClient& client : clients) REQUIRE(client.ask("PING") == "+PONG\r\n");
  stack.redis.client()("CLIENT PAUSE 300 ALL");  // all of it is still on its way at SIGTERM
  for (RawClient& client : clients) {
    std::string requests;
    for (int i = 0; i < kRequests; ++i) requests += encode({"INCR", "counter"});
    client.send(requests);
  }
  std::this_thread::sleep_for(50ms);  // sent is not yet accepted
  stack.proxy.process().signal(SIGTERM);
  size_t replies = 0;
  for (RawClient& client : clients) {
    const std::string all = client.read_to_end();
    CHECK(all.find('-') == std::string::npos);
    replies += static_cast<size_t>(std::count(all.begin(), all.end(), ':'));
  }
  CHECK(stack.proxy.process().wait_exit(20s) == 0);
  CHECK(replies == kClients * kRequests);
  CHECK(stack.redis.client()("GET counter") == std::to_string(kClients * kRequests));
}

TEST_CASE("after SIGTERM no new connection is accepted and the idle ones are closed",
          "[operations]") {
  Stack stack;
  RawClient idle(stack.proxy.port());
  REQUIRE(idle.ask("PING") == "+PONG\r\n");
  stack.proxy.process().signal(SIGTERM);
  CHECK(idle.read_to_end().empty());
  CHECK(stack.proxy.process().wait_exit(20s) == 0);
  CHECK_THROWS(RawClient(stack.proxy.port()));
}

TEST_CASE("a wrong start says why in one line and fails", "[operations]") {
  RedisServer redis;
  const std::string upstream = "redis://127.0.0.1:" + std::to_string(redis.port());
  TempDir dir;
  const std::string file = dir.path() + "/n.toml";
  const auto fails_with = [&](const std::vector<std::string>& options, const std::string& word) {
    const Outcome outcome = run_nearcached(options);
    INFO(outcome.output);
    CHECK(outcome.status > 0);
    CHECK(outcome.status < 128);
    CHECK(lines_of(outcome.output) == 1);
    CHECK(outcome.output.find(word) != std::string::npos);
  };
  SECTION("a port that somebody has") {
    const std::string taken = "127.0.0.1:" + std::to_string(redis.port());
    fails_with({"--listen", taken, "--upstream", upstream}, taken);
  }
  SECTION("an unknown key on the command line") {
    fails_with({"--set", "l1.memry=1mb"}, "l1.memry");
  }
  SECTION("an unknown key in the file") {
    write_file(file, "[l1]\nmemory = \"64mb\"\nmemry = \"1mb\"\n");
    fails_with({"-c", file}, file + ":3");
  }
  SECTION("a wrong type") {
    write_file(file, "[l1]\nenabled = 7\n");
    fails_with({"-c", file, "--check"}, file + ":2");
  }
  SECTION("a value out of range") {
    fails_with({"--set", "coherence.max_staleness=0"}, "max_staleness");
  }
  SECTION("a file that is not there") {
    fails_with({"-c", dir.path() + "/none.toml"}, "none.toml");
  }
  SECTION("an upstream URL that is none") { fails_with({"--upstream", "http://x"}, "http://x"); }
}

TEST_CASE("--check and --print-config connect to nothing", "[operations]") {
  CHECK(run_nearcached({"--check", "--upstream", "redis://127.0.0.1:1"}).status == 0);
  const Outcome printed =
      run_nearcached({"--print-config", "--upstream", "redis://u:topsecret@127.0.0.1:1/3"});
  CHECK(printed.status == 0);
  CHECK(printed.output.find("[coherence]") != std::string::npos);
  CHECK(printed.output.find("topsecret") == std::string::npos);
  TempDir dir;
  write_file(dir.path() + "/n.toml", run_nearcached({"--print-config"}).output);
  CHECK(run_nearcached({"-c", dir.path() + "/n.toml", "--check"}).status == 0);
}

TEST_CASE("an upstream that is not there yet is waited for", "[operations]") {
  RedisServer redis;
  redis.kill();
  Proxy proxy(redis.port());
  CHECK(wait_until([&] {
    return proxy.log().find("127.0.0.1:" + std::to_string(redis.port())) != std::string::npos;
  }));
  RawClient client(proxy.port());
  CHECK(client.ask("GET k").find("-") == 0);
  redis.start();
  CHECK(wait_until([&] { return client.ask("SET k v") == "+OK\r\n"; }));
  CHECK(client.ask("GET k") == "$1\r\nv\r\n");
}

TEST_CASE("it listens on Unix sockets and reaches its upstream by one", "[operations]") {
  TempDir dir;
  RedisServer redis({"--unixsocket", dir.path() + "/redis.sock"});
  redis.client()("SET k v");
  Proxy proxy(redis.port(), {"--upstream", "unix:" + dir.path() + "/redis.sock", "--listen",
                             "unix:" + dir.path() + "/near.sock"});
  Client client = proxy.client();
  for (int i = 0; i < 3; ++i) CHECK(client("GET k") == "v");
  std::unique_ptr<redisContext, void (*)(redisContext*)> local(
      redisConnectUnix((dir.path() + "/near.sock").c_str()), redisFree);
  REQUIRE(local->err == 0);
  std::unique_ptr<void, void (*)(void*)> reply(redisCommand(local.get(), "GET k"), freeReplyObject);
  REQUIRE(reply != nullptr);
  CHECK(to_text(*static_cast<redisReply*>(reply.get())) == "v");
}
