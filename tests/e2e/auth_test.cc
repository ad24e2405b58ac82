// Users: whose rights a request has, whatever other sessions, lanes and cached replies there are.
#include <catch2/catch.hpp>
#include <vector>

#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

bool refused(const std::string& reply) { return reply.rfind("(error)", 0) == 0; }

}  // namespace

TEST_CASE("a client never gets what was fetched as another user", "[auth]") {
  Stack stack;
  Client direct = stack.redis.client();
  direct("SET secret treasure");
  direct("SET bob:1 his");
  direct("ACL SETUSER alice on >pa ~* +@all");
  direct("ACL SETUSER bob on >pb ~bob:* +@all");
  Client alice = stack.proxy.client();
  Client bob = stack.proxy.client();
  Client nobody = stack.proxy.client();
  REQUIRE(alice("AUTH alice pa") == "OK");
  REQUIRE(bob("AUTH bob pb") == "OK");
  REQUIRE(becomes_hit(stack.proxy, alice, "GET secret"));
  REQUIRE(becomes_hit(stack.proxy, nobody, "GET secret"));
  for (int i = 0; i < 5; ++i) {
    CHECK(alice("GET secret") == "treasure");
    CHECK(bob("GET secret").find("NOPERM") != std::string::npos);
    CHECK(bob("MGET bob:1 secret").find("NOPERM") != std::string::npos);
    CHECK(bob("EXISTS secret").find("NOPERM") != std::string::npos);
    CHECK(bob("GET bob:1") == "his");
  }
  CHECK(nobody("AUTH bob pb") == "OK");
  CHECK(nobody("GET secret").find("NOPERM") != std::string::npos);
  CHECK(bob("AUTH alice pa") == "OK");
  CHECK(bob("GET secret") == "treasure");
}

TEST_CASE("a password that was changed opens nothing, though others are in by the old one",
          "[auth]") {
  Stack stack;
  Client direct = stack.redis.client();
  direct("ACL SETUSER alice on >old ~* +@all");
  std::vector<Client> inside;
  for (int i = 0; i < 4; ++i) {
    inside.push_back(stack.proxy.client());
    REQUIRE(inside.back()("AUTH alice old") == "OK");
    REQUIRE(inside.back()("GET k") == "(nil)");
  }
  direct("ACL SETUSER alice resetpass >new");
  for (int i = 0; i < 4; ++i) {
    Client late = stack.proxy.client();
    CHECK(late("AUTH alice old").find("WRONGPASS") != std::string::npos);
    CHECK(late("AUTH alice new") == "OK");
  }
}

TEST_CASE("a failed AUTH leaves the session who it was", "[auth]") {
  Stack stack;
  Client direct = stack.redis.client();
  direct("ACL SETUSER alice on >pa ~* +@all");
  Client client = stack.proxy.client();
  REQUIRE(client("AUTH alice pa") == "OK");
  for (int i = 0; i < 3; ++i) {
    CHECK(refused(client("AUTH alice wrong")));
    CHECK(refused(client("AUTH nobody pa")));
    CHECK(client("ACL WHOAMI") == "alice");
  }
}

TEST_CASE("rights taken away through the proxy end what L1 holds for that user", "[auth]") {
  Stack stack;
  Client admin = stack.proxy.client();
  admin("SET k v");
  admin("ACL SETUSER alice on >pa ~* +@all");
  std::vector<Client> alices;
  for (int i = 0; i < 4; ++i) {
    alices.push_back(stack.proxy.client());
    REQUIRE(alices.back()("AUTH alice pa") == "OK");
    REQUIRE(becomes_hit(stack.proxy, alices.back(), "GET k"));
  }
  REQUIRE(admin("ACL SETUSER alice -get") == "OK");
  for (Client& alice : alices) CHECK(alice("GET k").find("NOPERM") != std::string::npos);
}

TEST_CASE("a user who is deleted gets nothing more", "[auth]") {
  Stack stack;
  Client direct = stack.redis.client();
  direct("SET k v");
  direct("ACL SETUSER alice on >pa ~* +@all");
  Client alice = stack.proxy.client();
  REQUIRE(alice("AUTH alice pa") == "OK");
  REQUIRE(becomes_hit(stack.proxy, alice, "GET k"));
  direct("ACL DELUSER alice");
  CHECK(wait_until([&] { return refused(alice("GET k")); }));
  CHECK(refused(alice("GET k")));
}

TEST_CASE("more identities than lanes: the limit is said and counted, the others are served",
          "[auth][limits]") {
  Stack stack({"--set", "limits.lanes=4", "--threads", "1"});
  Client direct = stack.redis.client();
  direct("SET k v");
  std::vector<Client> users;
  int served = 0;
  int told = 0;
  for (int i = 0; i < 12; ++i) {
    const std::string name = "u" + std::to_string(i);
    direct({"ACL", "SETUSER", name, "on", ">p", "~*", "+@all"});
    users.push_back(stack.proxy.client());
    const std::string reply = users.back()({"AUTH", name, "p"});
    if (reply == "OK") {
      ++served;
      CHECK(users.back()("ACL WHOAMI") == name);
      CHECK(users.back()("GET k") == "v");
    } else {
      ++told;
      CHECK(reply.find("limits.lanes") != std::string::npos);
    }
  }
  CHECK(served > 0);
  CHECK(told > 0);
  CHECK(stack.proxy.count("limit_lanes_hit") > 0);
}

TEST_CASE("a server that wants a password gets it from the client, or from the URL", "[auth]") {
  RedisServer redis({"--requirepass", "pw"});
  Client direct = redis.client();
  REQUIRE(direct("AUTH pw") == "OK");
  REQUIRE(direct("SET k v") == "OK");
  SECTION("from the client") {
    Proxy proxy(redis.port());
    Client client = proxy.client();
    CHECK(client("GET k").find("NOAUTH") != std::string::npos);
    CHECK(client("AUTH wrong").find("WRONGPASS") != std::string::npos);
    CHECK(client("GET k").find("NOAUTH") != std::string::npos);
    CHECK(client("AUTH pw") == "OK");
    for (int i = 0; i < 3; ++i) CHECK(client("GET k") == "v");
    CHECK(proxy.client()("GET k").find("NOAUTH") != std::string::npos);
  }
  SECTION("from the URL") {
    Proxy proxy(redis.port(),
                {"--upstream", "redis://:pw@127.0.0.1:" + std::to_string(redis.port())});
    Client client = proxy.client();
    for (int i = 0; i < 3; ++i) CHECK(client("GET k") == "v");
    CHECK(client("BLPOP none 0.01") == "(nil)");
    CHECK(client("MULTI") == "OK");
    CHECK(client("GET k") == "QUEUED");
    CHECK(client("EXEC") == "[v]");
  }
}

TEST_CASE("with security.require_auth a client must say who it is, whatever the URL knows",
          "[auth]") {
  Stack stack({"--set", "security.require_auth=true"});
  stack.redis.client()("ACL SETUSER alice on >pa ~* +@all");
  Client client = stack.proxy.client();
  CHECK(client("GET k").find("NOAUTH") != std::string::npos);
  CHECK(client("MULTI").find("NOAUTH") != std::string::npos);
  CHECK(client("SUBSCRIBE c").find("NOAUTH") != std::string::npos);
  CHECK(client("CLIENT LIST").find("NOAUTH") != std::string::npos);
  CHECK(client("AUTH alice pa") == "OK");
  CHECK(client("GET k") == "(nil)");
}
