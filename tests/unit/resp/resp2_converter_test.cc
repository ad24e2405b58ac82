// The pairs were taken from redis-server 7.0.15, the same question over HELLO 3 and HELLO 2, where
// it sends such a reply at all; attributes, blob errors and odd shapes follow the specification.
#include "nearcached/resp/resp2_converter.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "heap_copy.h"
#include "nearcached/resp/reply_scanner.h"

using namespace nearcached;

namespace {

std::string convert_in_chunks(Bytes reply, const std::vector<size_t>& ends, Resp2Rule rule) {
  Resp2Converter converter;
  Buffer out;
  converter.begin(rule);
  size_t begin = 0;
  for (const size_t end : ends) {
    const HeapCopy chunk(reply.substr(begin, end - begin));
    converter.feed(chunk.bytes(), out);
    begin = end;
  }
  return std::string(out.readable());
}

std::string convert(Bytes reply, Resp2Rule rule = Resp2Rule::null_bulk) {
  CAPTURE(reply);
  const std::string whole = convert_in_chunks(reply, {reply.size()}, rule);
  std::vector<size_t> each_byte;
  for (size_t cut = 1; cut <= reply.size(); ++cut) {
    each_byte.push_back(cut);
    CAPTURE(cut);
    CHECK(convert_in_chunks(reply, {cut, reply.size()}, rule) == whole);
  }
  CHECK(convert_in_chunks(reply, each_byte, rule) == whole);
  return whole;
}

// Every rule gives the same: nothing in the reply depends on the command.
std::string convert_by_any_rule(Bytes reply) {
  const std::string converted = convert(reply);
  CHECK(convert(reply, Resp2Rule::null_array) == converted);
  CHECK(convert(reply, Resp2Rule::flatten_pairs) == converted);
  return converted;
}

struct Pair {
  std::string resp3, resp2;
};

const std::vector<Pair> kTyped = {
    {",3.141\r\n", "$5\r\n3.141\r\n"},
    {",inf\r\n", "$3\r\ninf\r\n"},
    {",-inf\r\n", "$4\r\n-inf\r\n"},
    {",9.9999999999999995e-08\r\n", "$22\r\n9.9999999999999995e-08\r\n"},
    {"~3\r\n:0\r\n:1\r\n:2\r\n", "*3\r\n:0\r\n:1\r\n:2\r\n"},
    {"%3\r\n:0\r\n#f\r\n:1\r\n#t\r\n:2\r\n#f\r\n", "*6\r\n:0\r\n:0\r\n:1\r\n:1\r\n:2\r\n:0\r\n"},
    {"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n$39\r\nSome real reply "
     "following "
     "the attribute\r\n",
     "$39\r\nSome real reply following the attribute\r\n"},
    {"=29\r\ntxt:This is a verbatim\nstring\r\n", "$25\r\nThis is a verbatim\nstring\r\n"},
    {"#t\r\n", ":1\r\n"},
    {"#f\r\n", ":0\r\n"},
    {"(1234567999999999999999999999999999999\r\n",
     "$37\r\n1234567999999999999999999999999999999\r\n"},
    {"%0\r\n", "*0\r\n"},
    {"*3\r\n$-1\r\n#t\r\n*-1\r\n", "*3\r\n$-1\r\n:1\r\n*-1\r\n"},
    {"~0\r\n", "*0\r\n"},
    {"%3\r\n$5\r\nflags\r\n~1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n",
     "*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n"},
    {"*1\r\n*4\r\n$1\r\nP\r\n$6\r\n0.0000\r\n:3479099956230698\r\n*2\r\n,13.36138933897018433\r\n"
     ",38.11555639549629859\r\n",
     "*1\r\n*4\r\n$1\r\nP\r\n$6\r\n0.0000\r\n:3479099956230698\r\n*2\r\n$20\r\n13.36138933897018433"
     "\r\n$20\r\n38.11555639549629859\r\n"},
};

const std::vector<std::string> kSame = {
    "$11\r\nHello World\r\n",
    "$0\r\n\r\n",
    "$-1\r\n",
    "*-1\r\n",
    "*0\r\n",
    ":12345\r\n",
    ":-1\r\n",
    "+OK\r\n",
    "-ERR no\r\n",
    "*3\r\n:0\r\n:1\r\n:2\r\n",
    "$5\r\n_\r\n#t\r\n",
    "*3\r\n$1\r\na\r\n$-1\r\n*2\r\n+b\r\n*-1\r\n",
    "+a\nb\rc\r\n",
};

}  // namespace

TEST_CASE("types that RESP2 lacks become what Redis sends instead", "[resp]") {
  for (const Pair& pair : kTyped) {
    CHECK(convert_by_any_rule(pair.resp3) == pair.resp2);
    CHECK_FALSE(Resp2Converter::same_in_resp2(pair.resp3));
  }
}

TEST_CASE("what both protocols share passes unchanged", "[resp]") {
  for (const std::string& reply : kSame) {
    CHECK(convert_by_any_rule(reply) == reply);
    CHECK(Resp2Converter::same_in_resp2(reply));
  }
}

// Fails when append_plain() counts a map's pairs as elements, or is_plain() looks at the header
// only.
TEST_CASE("a map or set of what both protocols share differs in its header alone", "[resp]") {
  const auto plain = [](const std::string& reply) {
    Buffer out;
    Resp2Converter::append_plain(reply, out);
    return std::string(out.readable());
  };
  for (const std::string reply : {"%2\r\n$1\r\na\r\n:1\r\n$0\r\n\r\n*2\r\n+x\r\n$-1\r\n",
                                  "~2\r\n*2\r\n:1\r\n:2\r\n:3\r\n", "%0\r\n", "~0\r\n"}) {
    INFO(reply);
    CHECK(Resp2Converter::is_plain(reply));
    CHECK_FALSE(Resp2Converter::same_in_resp2(reply));
    CHECK(plain(reply) == convert_by_any_rule(reply));
  }
  for (const std::string reply : {"%1\r\n+a\r\n_\r\n", "~1\r\n,1.5\r\n", "%1\r\n+a\r\n%0\r\n",
                                  "_\r\n", "*1\r\n#t\r\n", "|1\r\n+a\r\n+b\r\n+c\r\n"})
    CHECK_FALSE(Resp2Converter::is_plain(reply));
  for (const std::string& reply : kSame) {
    CHECK(Resp2Converter::is_plain(reply));
    CHECK(plain(reply) == reply);
  }
}

TEST_CASE("a null is written as the command's rule says, at any depth", "[resp]") {
  CHECK(convert("_\r\n", Resp2Rule::null_bulk) == "$-1\r\n");
  CHECK(convert("_\r\n", Resp2Rule::flatten_pairs) == "$-1\r\n");
  CHECK(convert("_\r\n", Resp2Rule::null_array) == "*-1\r\n");
  CHECK(convert("*2\r\n$1\r\nv\r\n_\r\n", Resp2Rule::null_bulk) == "*2\r\n$1\r\nv\r\n$-1\r\n");
  // GEOPOS of a member that is there and one that is not.
  CHECK(convert("*2\r\n*2\r\n,13.36138933897018433\r\n,38.11555639549629859\r\n_\r\n",
                Resp2Rule::null_array) ==
        "*2\r\n*2\r\n$20\r\n13.36138933897018433\r\n$20\r\n38.11555639549629859\r\n*-1\r\n");
  CHECK_FALSE(Resp2Converter::same_in_resp2("_\r\n"));
}

TEST_CASE("pairs are flattened where the command's rule says so", "[resp]") {
  // ZRANGE … WITHSCORES
  CHECK(convert("*2\r\n*2\r\n$1\r\nd\r\n,-inf\r\n*2\r\n$1\r\nh\r\n,1\r\n",
                Resp2Rule::flatten_pairs) ==
        "*4\r\n$1\r\nd\r\n$4\r\n-inf\r\n$1\r\nh\r\n$1\r\n1\r\n");
  // HRANDFIELD … WITHVALUES
  const std::string pairs = "*2\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n*2\r\n$1\r\ng\r\n$1\r\nw\r\n";
  CHECK(convert(pairs, Resp2Rule::flatten_pairs) ==
        "*4\r\n$1\r\nf\r\n$1\r\nv\r\n$1\r\ng\r\n$1\r\nw\r\n");
  CHECK(convert(pairs, Resp2Rule::null_bulk) == pairs);
  CHECK_FALSE(Resp2Converter::same_in_resp2(pairs));
}

TEST_CASE("only the pairs of the top level are flattened", "[resp]") {
  CHECK(convert("*2\r\n*2\r\n$1\r\na\r\n*2\r\n:1\r\n:2\r\n*2\r\n%1\r\n:3\r\n:4\r\n,5\r\n",
                Resp2Rule::flatten_pairs) ==
        "*4\r\n$1\r\na\r\n*2\r\n:1\r\n:2\r\n*2\r\n:3\r\n:4\r\n$1\r\n5\r\n");
  CHECK(convert("%1\r\n*2\r\n:1\r\n:2\r\n*2\r\n:3\r\n:4\r\n", Resp2Rule::flatten_pairs) ==
        "*2\r\n*2\r\n:1\r\n:2\r\n*2\r\n:3\r\n:4\r\n");
}

TEST_CASE("the first element tells pairs from the rest", "[resp]") {
  for (const std::string reply :
       {"*2\r\n$1\r\na\r\n*2\r\n:1\r\n:2\r\n", "*1\r\n*3\r\n:1\r\n:2\r\n:3\r\n",
        "*1\r\n*1\r\n:1\r\n", "*1\r\n*0\r\n", "*1\r\n*-1\r\n", "*0\r\n"})
    CHECK(convert(reply, Resp2Rule::flatten_pairs) == reply);
}

TEST_CASE("a lone element among pairs is filled up so that the framing holds", "[resp]") {
  CHECK(convert("*3\r\n*2\r\n:1\r\n:2\r\n:3\r\n*1\r\n,4\r\n", Resp2Rule::flatten_pairs) ==
        "*6\r\n:1\r\n:2\r\n$-1\r\n:3\r\n$-1\r\n*1\r\n$1\r\n4\r\n");
}

TEST_CASE("attributes are dropped wherever they stand", "[resp]") {
  CHECK(convert_by_any_rule("|0\r\n+OK\r\n") == "+OK\r\n");
  CHECK(convert_by_any_rule(
            "|1\r\n+a\r\n|1\r\n+b\r\n%1\r\n+c\r\n!1\r\nd\r\n=5\r\ntxt:e\r\n#t\r\n") == ":1\r\n");
  CHECK(convert_by_any_rule("|1\r\n$-1\r\n$1\r\na\r\n#t\r\n") == ":1\r\n");
  CHECK(convert_by_any_rule("|1\r\n+a\r\n+b\r\n|1\r\n$-1\r\n*-1\r\n,1\r\n") == "$1\r\n1\r\n");
  CHECK(convert_by_any_rule("*2\r\n|1\r\n+a\r\n*2\r\n:8\r\n:9\r\n:1\r\n:2\r\n") ==
        "*2\r\n:1\r\n:2\r\n");
  CHECK(convert("*1\r\n|1\r\n+a\r\n+b\r\n*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n",
                Resp2Rule::flatten_pairs) == "*2\r\n:1\r\n:2\r\n");
}

TEST_CASE("a blob error becomes one line", "[resp]") {
  CHECK(convert_by_any_rule("!23\r\nSYNTAX invalid\r\nsyntax!\r\n") ==
        "-SYNTAX invalid  syntax!\r\n");
  CHECK(convert_by_any_rule("!0\r\n\r\n") == "-\r\n");
}

TEST_CASE("a verbatim string shorter than its format is empty", "[resp]") {
  CHECK(convert_by_any_rule("=4\r\ntxt:\r\n") == "$0\r\n\r\n");
  CHECK(convert_by_any_rule("=2\r\ntx\r\n") == "$0\r\n\r\n");
}

TEST_CASE("a push becomes an array", "[resp]") {
  CHECK(convert_by_any_rule(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n") ==
        "*2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
}

TEST_CASE("large payloads pass through whole", "[resp]") {
  const std::string value(100000, 'v');
  const std::string bulk = "$100000\r\n" + value + "\r\n";
  const std::string reply = "%1\r\n" + bulk + "=100004\r\ntxt:" + value + "\r\n";
  std::vector<size_t> ends;
  for (size_t end = 0; end < reply.size(); end += 4099) ends.push_back(end);
  ends.push_back(reply.size());
  CHECK(convert_in_chunks(reply, ends, Resp2Rule::flatten_pairs) == "*2\r\n" + bulk + bulk);
  CHECK(Resp2Converter::same_in_resp2(bulk));
}
