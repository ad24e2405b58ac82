#include <catch2/catch.hpp>

#include "nearcached/base/glob.h"

using namespace nearcached;

TEST_CASE("a glob matches as Redis's stringmatchlen does", "[base]") {
  CHECK(glob_match("*", ""));
  CHECK(glob_match("a*c", "abbbc"));
  CHECK_FALSE(glob_match("a*c", "abbbd"));
  CHECK(glob_match("h?llo", "hello"));
  CHECK_FALSE(glob_match("h?llo", "hllo"));
  CHECK(glob_match("h[ae]llo", "hallo"));
  CHECK_FALSE(glob_match("h[^e]llo", "hello"));
  CHECK(glob_match("h[a-b]llo", "hbllo"));
  CHECK(glob_match("h[b-a]llo", "hbllo"));
  CHECK(glob_match("a\\*c", "a*c"));
  CHECK_FALSE(glob_match("a\\*c", "abc"));
  CHECK(glob_match("[a", "a"));
  CHECK(glob_match("user:*:name", "user:1:2:name"));
  CHECK_FALSE(glob_match("", "a"));
}

TEST_CASE("a hostile glob costs pattern × text, not an exponential", "[base]") {
  std::string pattern, text(3000, 'a');
  for (int i = 0; i < 200; ++i) pattern += "a*";
  CHECK_FALSE(glob_match(pattern + "b", text));
}
