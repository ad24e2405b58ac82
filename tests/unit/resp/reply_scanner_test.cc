#include "nearcached/resp/reply_scanner.h"

#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "heap_copy.h"

using namespace nearcached;
using namespace std::string_literals;

namespace {

using Status = ReplyScanner::Status;

// The replies of a stream that is read in chunks ending at each of `ends`; "bad" behind them if the
// scanner gave up, and what is left of an incomplete one in brackets.
std::vector<std::string> scan_in_chunks(Bytes stream, const std::vector<size_t>& ends,
                                        uint64_t bulk_bytes_max) {
  ReplyScanner scanner(bulk_bytes_max);
  std::vector<std::string> replies;
  std::string current;
  size_t begin = 0;
  for (const size_t end : ends) {
    const HeapCopy chunk(stream.substr(begin, end - begin));
    begin = end;
    Bytes rest = chunk.bytes();
    while (!rest.empty()) {
      const ReplyScanner::Step step = scanner.scan(rest);
      if (step.status == Status::bad) {
        replies.push_back("bad");
        return replies;
      }
      current += rest.substr(0, step.consumed);
      rest.remove_prefix(step.consumed);
      CHECK(scanner.at_start() == (step.status == Status::done));
      if (step.status == Status::need_more) {
        CHECK(rest.empty());
        continue;
      }
      replies.push_back(std::exchange(current, {}));
    }
  }
  if (!current.empty()) replies.push_back("[" + current + "]");
  return replies;
}

std::vector<std::string> scan_every_way(Bytes stream, uint64_t bulk_bytes_max = 1 << 30) {
  CAPTURE(stream);
  const auto whole = scan_in_chunks(stream, {stream.size()}, bulk_bytes_max);
  std::vector<size_t> each_byte;
  for (size_t cut = 1; cut <= stream.size(); ++cut) {
    each_byte.push_back(cut);
    CAPTURE(cut);
    CHECK(scan_in_chunks(stream, {cut, stream.size()}, bulk_bytes_max) == whole);
  }
  CHECK(scan_in_chunks(stream, each_byte, bulk_bytes_max) == whole);
  return whole;
}

bool is_bad(Bytes stream, uint64_t bulk_bytes_max = 1 << 30) {
  return scan_every_way(stream, bulk_bytes_max) == std::vector<std::string>{"bad"};
}

// DEBUG PROTOCOL of redis-server 7.0.15 over RESP3, and what else it sends.
const std::vector<std::string> kReplies = {
    "$11\r\nHello World\r\n",
    ":12345\r\n",
    ",3.141\r\n",
    "_\r\n",
    "*3\r\n:0\r\n:1\r\n:2\r\n",
    "~3\r\n:0\r\n:1\r\n:2\r\n",
    "%3\r\n:0\r\n#f\r\n:1\r\n#t\r\n:2\r\n#f\r\n",
    "|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n$39\r\nSome real reply following "
    "the attribute\r\n",
    ">2\r\n$16\r\nserver-cpu-usage\r\n:42\r\n",
    "=29\r\ntxt:This is a verbatim\nstring\r\n",
    "#t\r\n",
    "(1234567999999999999999999999999999999\r\n",
    "+OK\r\n",
    "-ERR unknown command '', with args beginning with: \r\n",
    "!21\r\nSYNTAX invalid syntax\r\n",
    "$-1\r\n",
    "*-1\r\n",
    "$0\r\n\r\n",
    "*0\r\n",
    "%0\r\n",
    "~0\r\n",
    "*2\r\n*0\r\n*-1\r\n",
    "*2\r\n*2\r\n$1\r\nd\r\n,-inf\r\n*2\r\n$1\r\nh\r\n,9.9999999999999995e-08\r\n",
    "*1\r\n*1\r\n*1\r\n*1\r\n%1\r\n~1\r\n:1\r\n*2\r\n_\r\n#f\r\n",
    "|0\r\n+OK\r\n",
    "*2\r\n|1\r\n+a\r\n|1\r\n+b\r\n+c\r\n:1\r\n:2\r\n:3\r\n",
    "|1\r\n+a\r\n+b\r\n|1\r\n+c\r\n+d\r\n_\r\n",
    "$4\r\n\r\n\r\n\r\n",
    "+a\nb\rc\r\n",
};

}  // namespace

TEST_CASE("each reply ends where it ends, split anywhere", "[resp]") {
  for (const std::string& reply : kReplies)
    CHECK(scan_every_way(reply) == std::vector<std::string>{reply});
}

TEST_CASE("replies in a row are told apart, split anywhere", "[resp]") {
  std::string stream;
  for (const std::string& reply : kReplies) stream += reply;
  CHECK(scan_every_way(stream) == kReplies);
}

TEST_CASE("an incomplete reply asks for more", "[resp]") {
  for (const std::string& reply : kReplies)
    for (size_t size = 1; size < reply.size(); ++size)
      CHECK(scan_every_way(reply.substr(0, size)) ==
            std::vector<std::string>{"[" + reply.substr(0, size) + "]"});
}

TEST_CASE("what is not RESP is bad", "[resp]") {
  for (const char* stream :
       {"x",      "PONG\r\n", "\r\n",    "$\r\n",   "$x\r\n",  "$1x\r\n", "$-2\r\n", "$--1\r\n",
        "$-\r\n", "$1\rx",    "*-2\r\n", "%-1\r\n", "~-1\r\n", "|-1\r\n", "=-1\r\n", "$?\r\n",
        "*?\r\n", "$ 1\r\n",  "*1\r\nx", ".\r\n",   "*02\r\n", "$00\r\n", "$-0\r\n", "$-01\r\n"})
    CHECK(is_bad(stream));
  CHECK(is_bad("$\0\r\n"s));
}

TEST_CASE("a payload that does not end with CRLF is bad", "[resp]") {
  CHECK(is_bad("$1\r\nabc"));
  CHECK(is_bad("$1\r\na\rb"));
  CHECK(is_bad("$0\r\n$0\r\n"));
}

TEST_CASE("absurd lengths are bad", "[resp]") {
  CHECK(is_bad("$101\r\n", 100));
  CHECK(is_bad("+" + std::string(103, 'x') + "\r\n", 100));
  CHECK(scan_every_way("+" + std::string(100, 'x') + "\r\n", 100).size() == 1);
  for (const char* number : {"4294967297", "999999999999999999", "9223372036854775807",
                             "18446744073709551617", "99999999999999999999999999999999"})
    for (const char* type : {"$", "*", "%", "~", ">", "|", "=", "!"})
      CHECK(is_bad(type + std::string(number) + "\r\n"));
}

TEST_CASE("nesting cannot overflow the count of elements", "[resp]") {
  std::string stream;
  for (int i = 0; i < 1000; ++i) stream += "*4294967296\r\n";
  ReplyScanner scanner;
  CHECK(scanner.scan(stream).status == Status::bad);
}

TEST_CASE("depth costs nothing", "[resp]") {
  std::string stream;
  for (int i = 0; i < 1000000; ++i) stream += "*1\r\n";
  ReplyScanner scanner;
  CHECK(scanner.scan(stream).status == Status::need_more);
  CHECK(scanner.scan("_\r\n").status == Status::done);
}

TEST_CASE("a scanner that was reset starts anew and keeps its limit", "[resp]") {
  ReplyScanner scanner(10);
  CHECK(scanner.scan("*2\r\n$5\r\nab").status == Status::need_more);
  scanner.reset();
  CHECK(scanner.at_start());
  CHECK(scanner.scan("+OK\r\n").consumed == 5);
  CHECK(scanner.scan("$11\r\n").status == Status::bad);
}
