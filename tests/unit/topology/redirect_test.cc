// What Redis says when it redirects, and what only looks like it.
#include <catch2/catch.hpp>
#include <string>

#include "nearcached/topology/topology.h"

using namespace nearcached;
using Kind = Redirect::Kind;

TEST_CASE("MOVED and ASK name a slot and an address", "[topology]") {
  const Redirect moved = parse_redirect("-MOVED 3999 127.0.0.1:6381\r\n");
  CHECK(moved.kind == Kind::moved);
  CHECK(moved.slot == 3999);
  CHECK(moved.address == Address{"127.0.0.1", 6381, {}});
  const Redirect ask = parse_redirect("-ASK 16383 node-1.example:65535\r\n");
  CHECK(ask.kind == Kind::ask);
  CHECK(ask.slot == 16383);
  CHECK(ask.address == Address{"node-1.example", 65535, {}});
}

TEST_CASE("an IPv6 address stands without brackets before the last colon", "[topology]") {
  CHECK(parse_redirect("-MOVED 0 ::1:6379\r\n").address == Address{"::1", 6379, {}});
  CHECK(parse_redirect("-ASK 0 fe80::a:b:1\r\n").address == Address{"fe80::a:b", 1, {}});
}

TEST_CASE("a host that is not known is the node that was asked", "[topology]") {
  for (const Bytes reply : {"-MOVED 1 :6379\r\n", "-MOVED 1 ?:6379\r\n"}) {
    const Redirect redirect = parse_redirect(reply);
    CHECK(redirect.kind == Kind::moved);
    CHECK(redirect.slot == 1);
    CHECK(redirect.address == Address{"", 6379, {}});
  }
}

TEST_CASE("a node that cannot answer now is told from other errors", "[topology]") {
  const auto kind = [](Bytes reply) { return parse_redirect(reply).kind; };
  CHECK(kind("-TRYAGAIN Multiple keys request during rehashing of slot\r\n") == Kind::try_again);
  CHECK(kind("-CLUSTERDOWN Hash slot not served\r\n") == Kind::down);
  CHECK(kind("-CLUSTERDOWN The cluster is down\r\n") == Kind::down);
  CHECK(kind("-LOADING Redis is loading the dataset in memory\r\n") == Kind::loading);
  CHECK(kind("-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to "
             "'no'.\r\n") == Kind::loading);
  CHECK(kind("-READONLY You can't write against a read only replica.\r\n") == Kind::readonly);
  CHECK(kind("-TRYAGAIN\r\n") == Kind::try_again);
}

TEST_CASE("other errors and other replies are no redirection", "[topology]") {
  for (const Bytes reply :
       {"", "-", "-\r\n", "- \r\n", "-ERR MOVED 1 a:1\r\n", "-MOVEDX 1 a:1\r\n", "-moved 1 a:1\r\n",
        " -MOVED 1 a:1\r\n", "+MOVED 1 a:1\r\n", "MOVED 1 a:1\r\n", "$13\r\nMOVED 1 a:1\r\n",
        "-CROSSSLOT Keys in request don't hash to the same slot\r\n", "-TRYAGAINX\r\n",
        "-LOADINGS Redis\r\n"})
    CHECK(parse_redirect(reply).kind == Kind::none);
}

TEST_CASE("a malformed MOVED or ASK is no redirection and names no address", "[topology]") {
  for (const std::string first : {"-MOVED", "-ASK"})
    for (const std::string rest : {"",
                                   " ",
                                   " 1",
                                   " 1 ",
                                   " 1 a",
                                   " 1 a:",
                                   " 1 a:0",
                                   " 1 a:65536",
                                   " 1 a:-1",
                                   " 1 a:+1",
                                   " 1 a:1x",
                                   " 1 a: 1",
                                   " 1 a:99999999999999999999",
                                   " 16384 a:1",
                                   " -1 a:1",
                                   " +1 a:1",
                                   " x a:1",
                                   " 1x a:1",
                                   "  1 a:1",
                                   " 99999999999999999999 a:1",
                                   " a:1 1",
                                   " 1 a b:1",
                                   " 1  a:1",
                                   " 1 a\t:1",
                                   " 1 a\x01:1",
                                   " 1 \xc3\xa4:1",
                                   " 1:1 a",
                                   " : "}) {
      const Redirect redirect = parse_redirect(first + rest + "\r\n");
      INFO(first + rest);
      CHECK(redirect.kind == Kind::none);
    }
  CHECK(parse_redirect("-MOVED 1 a\0b:1\r\n").kind == Kind::none);
  CHECK(parse_redirect(Bytes("-MOVED 1 a\0b:1\r\n", 16)).kind == Kind::none);
  const std::string longest = "-MOVED 1 " + std::string(255, 'a');
  CHECK(parse_redirect(longest + ":1\r\n").kind == Kind::moved);
  CHECK(parse_redirect(longest + "a:1\r\n").kind == Kind::none);
}

TEST_CASE("a redirection cut anywhere but in its end is none", "[topology]") {
  const std::string whole = "-MOVED 3999 10.0.0.7:6\r\n";
  for (size_t size = 0; size <= whole.size(); ++size) {
    const std::string heap_copy(whole, 0, size);
    // From the port's digit on the text is complete; a carriage return without its line feed is
    // not.
    const bool complete = size == whole.size() || size == whole.size() - 2;
    INFO(size);
    CHECK((parse_redirect(heap_copy).kind == Kind::moved) == complete);
  }
}
