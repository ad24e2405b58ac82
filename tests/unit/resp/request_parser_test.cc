// The cases and the texts of errors were taken from redis-server 7.0.15 over a raw socket.
#include "nearcached/resp/request_parser.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "heap_copy.h"

using namespace nearcached;
using namespace std::string_literals;

namespace {

using Args = std::vector<std::string>;

struct Outcome {
  std::vector<Args> requests;
  std::string error;   ///< of the protocol error that ended it, if any
  std::string wires;   ///< all Request::wire in a row
  size_t pending = 0;  ///< bytes left unconsumed
  bool operator==(const Outcome&) const = default;
};

// Feeds `input` as reads that end at each of `ends`, the way a session does.
Outcome parse_in_reads(Bytes input, const std::vector<size_t>& ends, RequestLimits limits,
                       bool unauthenticated) {
  RequestParser parser(limits);
  parser.set_unauthenticated(unauthenticated);
  Outcome outcome;
  size_t begin = 0;
  for (const size_t end : ends) {
    const HeapCopy copy(input.substr(begin, end - begin));  // it moves at every read
    Bytes rest = copy.bytes();
    for (;;) {
      Request request;
      size_t consumed = 0;
      const ParseStatus status = parser.parse(rest, request, consumed);
      rest.remove_prefix(consumed);
      begin += consumed;
      if (status == ParseStatus::protocol_error) {
        outcome.error = parser.error();
        return outcome;
      }
      if (status == ParseStatus::need_more) break;
      outcome.requests.emplace_back(request.args.begin(), request.args.end());
      outcome.wires += request.wire;
    }
  }
  outcome.pending = input.size() - begin;
  return outcome;
}

// Parses `input` in one read, in every two reads, and byte by byte: the outcome must be the same.
Outcome parse_every_way(Bytes input, RequestLimits limits = {}, bool unauthenticated = false) {
  const Outcome whole = parse_in_reads(input, {input.size()}, limits, unauthenticated);
  std::vector<size_t> each_byte;
  for (size_t cut = 1; cut <= input.size(); ++cut) {
    each_byte.push_back(cut);
    CAPTURE(cut);
    CHECK(parse_in_reads(input, {cut, input.size()}, limits, unauthenticated) == whole);
  }
  CHECK(parse_in_reads(input, each_byte, limits, unauthenticated) == whole);
  return whole;
}

std::vector<Args> requests(Bytes input) {
  CAPTURE(input);
  const Outcome outcome = parse_every_way(input);
  CHECK(outcome.error.empty());
  CHECK(outcome.pending == 0);
  return outcome.requests;
}

std::string error_of(Bytes input, RequestLimits limits = {}, bool unauthenticated = false) {
  CAPTURE(input);
  const Outcome outcome = parse_every_way(input, limits, unauthenticated);
  CHECK(outcome.requests.empty());
  return outcome.error;
}

std::string bulks(int count) {
  std::string wire;
  while (count-- > 0) wire += "$1\r\nx\r\n";
  return wire;
}

const std::string kPing = "*1\r\n$4\r\nPING\r\n";

}  // namespace

TEST_CASE("requests split anywhere are the same requests", "[resp]") {
  CHECK(requests(kPing) == std::vector<Args>{{"PING"}});
  CHECK(requests("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nvalue\r\n$3\r\n!\r\n" + kPing) ==
        std::vector<Args>{{"SET", "k", "value\r\n$3\r\n!"}, {"PING"}});
  CHECK(requests("*2\r\n$0\r\n\r\n$0\r\n\r\n") == std::vector<Args>{{"", ""}});
  CHECK(requests("*2\r\n$3\r\nGET\r\n$4\r\n\0\r\n\xff\r\n"s) ==
        std::vector<Args>{{"GET", "\0\r\n\xff"s}});
  CHECK(requests("PING\r\n" + kPing + "ECHO a\n" + kPing) ==
        std::vector<Args>{{"PING"}, {"PING"}, {"ECHO", "a"}, {"PING"}});
}

TEST_CASE("empty requests are skipped in silence", "[resp]") {
  CHECK(requests("*0\r\n" + kPing) == std::vector<Args>{{"PING"}});
  CHECK(requests("*-1\r\n*-5\r\n*-9223372036854775808\r\n" + kPing) == std::vector<Args>{{"PING"}});
  CHECK(requests("\r\n\n  \r\n \t\nPING\r\n\n") == std::vector<Args>{{"PING"}});
  CHECK(requests("*0\r\n\r\n*0\r\n").empty());
}

TEST_CASE("a canonical array is its own wire form, anything else has none", "[resp]") {
  const std::string two = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" + kPing;
  CHECK(parse_every_way(two).wires == two);
  CHECK(parse_every_way("*0\r\n" + kPing).wires == kPing);
  CHECK(parse_every_way("PING\r\n").wires.empty());
  CHECK(parse_every_way("*1\r\n$4\r\nPINGxy" + kPing).wires == kPing);
  CHECK(parse_every_way("*1\rx$4\r\nPING\r\n" + kPing).wires == kPing);
  CHECK(parse_every_way("*1\r\n$4\rxPING\r\n" + kPing).wires == kPing);
}

TEST_CASE("whatever two bytes stand where CRLF belongs are skipped", "[resp]") {
  CHECK(requests("*1\r\n$4\r\nPINGxy" + kPing) == std::vector<Args>{{"PING"}, {"PING"}});
  CHECK(requests("*1\rx$4\ryPINGzz" + kPing) == std::vector<Args>{{"PING"}, {"PING"}});
}

TEST_CASE("a count that is no canonical number is refused", "[resp]") {
  for (const char* count :
       {"abc", "+1", "01", "", "-0", "1 ", " 1", "1a", "-", "--1", "-9223372036854775809",
        "9223372036854775808", "2147483648", "99999999999999999999999999"})
    CHECK(error_of("*"s + count + "\r\n") == "Protocol error: invalid multibulk length");
}

TEST_CASE("a count above the limit is refused before any argument", "[resp]") {
  CHECK(error_of("*4\r\n", {.args_max = 3}) == "Protocol error: invalid multibulk length");
  CHECK(error_of("*4\r\n" + bulks(4), {.args_max = 3}) ==
        "Protocol error: invalid multibulk length");
  CHECK(parse_every_way("*3\r\n" + bulks(3), {.args_max = 3}).requests.size() == 1);
  CHECK(error_of("*2000000000\r\n") == "Protocol error: invalid multibulk length");
  CHECK(error_of("*1048577\r\n") == "Protocol error: invalid multibulk length");
  CHECK(error_of("*1048576\r\n").empty());
}

TEST_CASE("an argument must start with a dollar", "[resp]") {
  CHECK(error_of("*1\r\nx4\r\nPING\r\n") == "Protocol error: expected '$', got 'x'");
  CHECK(error_of("*1\r\n:1\r\n") == "Protocol error: expected '$', got ':'");
  CHECK(error_of("*1\r\n\xff\r\n") == "Protocol error: expected '$', got '\xff'");
  CHECK(error_of("*1\r\n\r\n") == "Protocol error: expected '$', got ' '");
  CHECK(error_of("*1\r\n\nx\r\n") == "Protocol error: expected '$', got ' '");
  CHECK(error_of("*2\r\n$1\r\na\r\n*1\r\n") == "Protocol error: expected '$', got '*'");
  CHECK(error_of("*1\r\nxxxx").empty());  // Redis reads the whole line before it judges
}

TEST_CASE("an argument's length that is no length is refused", "[resp]") {
  for (const char* length : {"abc", "-1", "", "04", "+4", "-0", "536870913", "9223372036854775808"})
    CHECK(error_of("*1\r\n$"s + length + "\r\n") == "Protocol error: invalid bulk length");
  CHECK(error_of("*1\r\n$536870912\r\n").empty());
  CHECK(error_of("*1\r\n$4\r\nPING\r\n", {.bulk_bytes_max = 3}) ==
        "Protocol error: invalid bulk length");
}

TEST_CASE("clients that have not authenticated get small limits", "[resp]") {
  CHECK(error_of("*11\r\n", {}, true) == "Protocol error: unauthenticated multibulk length");
  CHECK(error_of("*11\r\n" + bulks(11), {}, true) ==
        "Protocol error: unauthenticated multibulk length");
  CHECK(parse_every_way("*10\r\n" + bulks(10), {}, true).requests.size() == 1);
  CHECK(error_of("*10\r\n$16385\r\n", {}, true) == "Protocol error: unauthenticated bulk length");
  CHECK(error_of("*10\r\n$16384\r\n", {}, true).empty());
  CHECK(error_of("*2147483648\r\n", {}, true) == "Protocol error: invalid multibulk length");
  CHECK(error_of("*1\r\n$536870913\r\n", {}, true) == "Protocol error: invalid bulk length");
  CHECK(parse_every_way("*-3\r\n" + kPing, {}, true).requests == std::vector<Args>{{"PING"}});
}

TEST_CASE("a line that does not end is refused at the limit, not before", "[resp]") {
  const RequestLimits limits{.inline_bytes_max = 64};
  CHECK(error_of(std::string(64, 'x'), limits).empty());
  CHECK(error_of(std::string(65, 'x'), limits) == "Protocol error: too big inline request");
  CHECK(error_of("*" + std::string(63, '1'), limits).empty());
  CHECK(error_of("*" + std::string(64, '1'), limits) ==
        "Protocol error: too big mbulk count string");
  CHECK(error_of("*1\r\n$" + std::string(63, '1'), limits).empty());
  CHECK(error_of("*1\r\n$" + std::string(64, '1'), limits) ==
        "Protocol error: too big bulk count string");
  const std::string at_default_limit(64 * 1024, 'x');
  CHECK(parse_in_reads(at_default_limit, {at_default_limit.size()}, {}, false).error.empty());
  const std::string above(64 * 1024 + 1, 'x');
  CHECK(parse_in_reads(above, {above.size()}, {}, false).error ==
        "Protocol error: too big inline request");
}

TEST_CASE("a NUL hides the end of its line, as strchr does in Redis", "[resp]") {
  const RequestLimits limits{.inline_bytes_max = 64};
  CHECK(error_of("PI\0NG\r\nPING\r\n"s).empty());
  CHECK(error_of("\0PING\r\nPING\r\n"s).empty());
  CHECK(error_of("*1\0\r\n$4\r\nPING\r\n"s).empty());
  CHECK(error_of("*1\r\n$4\0\r\nPING\r\n"s).empty());
  CHECK(error_of("P\0\r\n"s + std::string(61, 'x'), limits) ==
        "Protocol error: too big inline request");
  CHECK(error_of("*1\0\r\n"s + std::string(60, 'x'), limits) ==
        "Protocol error: too big mbulk count string");
  CHECK(error_of("*1\r\n$1\0\r\n"s + std::string(60, 'x'), limits) ==
        "Protocol error: too big bulk count string");
  CHECK(error_of("*1\n$4\nPING\n").empty());  // arrays need CR
}

TEST_CASE("inline arguments are split and unquoted as sdssplitargs does", "[resp]") {
  CHECK(requests("SET  key\tvalue \r\n") == std::vector<Args>{{"SET", "key", "value"}});
  CHECK(requests("ECHO ab\"cd\"\r\n") == std::vector<Args>{{"ECHO", "abcd"}});
  CHECK(requests("ECHO \"\\x41\\n\\t\\r\\b\\a\\q\\\"\\x4\"\r\n") ==
        std::vector<Args>{{"ECHO", "A\n\t\r\b\aq\"x4"}});
  CHECK(requests("ECHO \"\\x00\\xfF\\x\"\r\n") == std::vector<Args>{{"ECHO", "\0\xffx"s}});
  CHECK(requests("ECHO 'a\\'b\\n' 'c\"'\r\n") == std::vector<Args>{{"ECHO", "a'b\\n", "c\""}});
  CHECK(requests("ECHO a\\nb\r\n") == std::vector<Args>{{"ECHO", "a\\nb"}});
  CHECK(requests("ECHO \"\" ''\r\n") == std::vector<Args>{{"ECHO", "", ""}});
  CHECK(requests("\"\"\r\n") == std::vector<Args>{{""}});
  CHECK(requests("ECHO\ra\r\n") == std::vector<Args>{{"ECHO", "a"}});
  CHECK(requests("PING\r\r\n") == std::vector<Args>{{"PING"}});
  CHECK(requests("ECHO a\vb\r\n") == std::vector<Args>{{"ECHO", "a\vb"}});
  CHECK(requests("\fECHO \"a\"\v\r\n") == std::vector<Args>{{"ECHO", "a"}});
  CHECK(requests(" *1\r\n") == std::vector<Args>{{"*1"}});
}

TEST_CASE("unbalanced quotes are refused", "[resp]") {
  for (const char* line :
       {"SET a \"b", "ECHO \"b\"c", "ECHO 'b", "ECHO 'b'c", "ECHO \"a\\", "ECHO \"a\"\"b\"",
        "ECHO 'a'\"b\"", "\"", "'", "ECHO \"a\\\"", "ECHO 'a\\'"})
    CHECK(error_of(line + "\r\n"s) == "Protocol error: unbalanced quotes in request");
}

TEST_CASE("requests of up to a million arguments arrive whole", "[resp]") {
  for (const size_t count : {63u, 64u, 65u, 1000u}) {
    std::string input = "*" + std::to_string(count) + "\r\n";
    Args expected;
    for (size_t i = 0; i < count; ++i) {
      expected.push_back(std::to_string(i));
      input += "$" + std::to_string(expected.back().size()) + "\r\n" + expected.back() + "\r\n";
    }
    const Outcome outcome = parse_in_reads(input + kPing, {input.size() + kPing.size()}, {}, false);
    CHECK(outcome.requests == std::vector<Args>{expected, {"PING"}});
    CHECK(outcome.wires == input + kPing);
  }
  std::string input = "*1048576\r\n";
  for (int i = 0; i < 1048576; ++i) input += "$1\r\nx\r\n";
  RequestParser parser(RequestLimits{});
  Request request;
  size_t consumed = 0;
  REQUIRE(parser.parse(input, request, consumed) == ParseStatus::ok);
  CHECK(request.args.size() == 1048576);
  CHECK(consumed == input.size());
}

// Each of these finishes in no time if no byte is read twice, and not within hours otherwise.
TEST_CASE("a request that arrives byte by byte costs its size", "[resp]") {
  std::string many = "*200000\r\n";
  for (int i = 0; i < 200000; ++i) many += "$1\r\nx\r\n";
  const std::string large = "*2\r\n$3\r\nGET\r\n$1000000\r\n" + std::string(1000000, 'x') + "\r\n";
  const std::string line = "ECHO " + std::string(1000000, 'x') + "\r\n";
  for (const std::string& input : {many, large, line}) {
    RequestParser parser({.inline_bytes_max = 2000000});
    Request request;
    size_t consumed = 0;
    for (size_t size = 0; size < input.size(); ++size)
      if (parser.parse(Bytes(input).substr(0, size), request, consumed) != ParseStatus::need_more)
        FAIL("not complete yet");
    CHECK(parser.parse(input, request, consumed) == ParseStatus::ok);
    CHECK(consumed == input.size());
  }
}

TEST_CASE("the bytes needed are known inside an argument only", "[resp]") {
  RequestParser parser(RequestLimits{});
  Request request;
  size_t consumed = 0;
  const std::string input = "*2\r\n$3\r\nGET\r\n$500\r\n" + std::string(500, 'k') + "\r\n";
  const auto needed_at = [&](size_t size) {
    CHECK(parser.parse(Bytes(input).substr(0, size), request, consumed) == ParseStatus::need_more);
    return parser.bytes_needed();
  };
  CHECK(needed_at(3) == 0);
  CHECK(needed_at(10) == 13);
  CHECK(needed_at(15) == 0);
  CHECK(needed_at(19) == input.size());
  CHECK(needed_at(input.size() - 1) == input.size());
  CHECK(parser.parse(input, request, consumed) == ParseStatus::ok);
  CHECK(parser.bytes_needed() == 0);
}

TEST_CASE("a parser that was reset starts anew", "[resp]") {
  RequestParser parser(RequestLimits{});
  Request request;
  size_t consumed = 0;
  CHECK(parser.parse("*2\r\n$3\r\nGET\r\n$5", request, consumed) == ParseStatus::need_more);
  parser.reset();
  CHECK(parser.parse(kPing, request, consumed) == ParseStatus::ok);
  CHECK(request.args.size() == 1);
  CHECK(request.wire == kPing);
}
