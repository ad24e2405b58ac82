#include "harness/reply_scanner.h"

#include <catch2/catch.hpp>
#include <stdexcept>
#include <string>

using namespace nearcached::e2e;

TEST_CASE("the tests' own scanner finds the end of every kind of reply", "[harness]") {
  const std::string reply =
      GENERATE("+OK\r\n", "-ERR no\r\n", ":12\r\n", "$-1\r\n", "$0\r\n\r\n", "$5\r\na\r\nbc\r\n",
               "*-1\r\n", "*0\r\n", "*2\r\n*1\r\n:1\r\n$1\r\na\r\n", "_\r\n", "#t\r\n", ",1.5\r\n",
               "(123\r\n", "=7\r\ntxt:abc\r\n", "%1\r\n+a\r\n:1\r\n", "~2\r\n:1\r\n:2\r\n",
               ">1\r\n+x\r\n", "|1\r\n+a\r\n+b\r\n:7\r\n");
  const std::string bytes = reply + "+next\r\n";
  CHECK(ReplyScanner().length(bytes) == reply.size());
  ReplyScanner growing;
  for (size_t n = 0; n < reply.size(); ++n) CHECK(growing.length(bytes.substr(0, n)) == 0);
  CHECK(growing.length(bytes) == reply.size());
}

TEST_CASE("the tests' own scanner refuses what is not RESP", "[harness]") {
  CHECK_THROWS_AS(ReplyScanner().length("hello\r\n"), std::runtime_error);
  CHECK_THROWS_AS(ReplyScanner().length("$x\r\n"), std::runtime_error);
}
