#include "nearcached/resp/writer.h"

#include <catch2/catch.hpp>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "heap_copy.h"

using namespace nearcached;
using namespace std::string_literals;

namespace {

template <typename Write>
std::string written(Write write) {
  Buffer out;
  write(out);
  return std::string(out.readable());
}

bool is_bulk(Bytes written) {
  const HeapCopy copy(written);
  Bytes payload;
  return resp::read_bulk(copy.bytes(), payload);
}

}  // namespace

TEST_CASE("each reply type is written in the form of its protocol", "[resp]") {
  CHECK(written([](Buffer& b) { resp::write_simple(b, "OK"); }) == "+OK\r\n");
  CHECK(written([](Buffer& b) { resp::write_simple(b, ""); }) == "+\r\n");
  CHECK(written([](Buffer& b) { resp::write_bulk(b, Bytes("a\0\r\n", 4)); }) ==
        "$4\r\na\0\r\n\r\n"s);
  CHECK(written([](Buffer& b) { resp::write_bulk(b, Bytes()); }) == "$0\r\n\r\n");
  CHECK(written([](Buffer& b) { resp::write_null(b, 2); }) == "$-1\r\n");
  CHECK(written([](Buffer& b) { resp::write_null(b, 3); }) == "_\r\n");
  CHECK(written([](Buffer& b) { resp::write_array(b, 0); }) == "*0\r\n");
  CHECK(written([](Buffer& b) { resp::write_map(b, 12, 2); }) == "*24\r\n");
  CHECK(written([](Buffer& b) { resp::write_map(b, 12, 3); }) == "%12\r\n");
  CHECK(written([](Buffer& b) { resp::write_verbatim(b, "hello", 2); }) == "$5\r\nhello\r\n");
  CHECK(written([](Buffer& b) { resp::write_verbatim(b, "hello", 3); }) == "=9\r\ntxt:hello\r\n");
}

TEST_CASE("integers of every length are written in full", "[resp]") {
  using Limits = std::numeric_limits<int64_t>;
  CHECK(written([](Buffer& b) { resp::write_integer(b, 0); }) == ":0\r\n");
  CHECK(written([](Buffer& b) { resp::write_integer(b, -1); }) == ":-1\r\n");
  CHECK(written([](Buffer& b) { resp::write_integer(b, Limits::max()); }) ==
        ":9223372036854775807\r\n");
  CHECK(written([](Buffer& b) { resp::write_integer(b, Limits::min()); }) ==
        ":-9223372036854775808\r\n");
  CHECK(written([](Buffer& b) { resp::write_array(b, std::numeric_limits<uint64_t>::max()); }) ==
        "*18446744073709551615\r\n");
  int64_t power = 1;
  for (int digits = 1; digits <= 18; ++digits, power *= 10) {
    CHECK(written([&](Buffer& b) { resp::write_integer(b, power); }) ==
          ":" + std::to_string(power) + "\r\n");
    CHECK(written([&](Buffer& b) { resp::write_integer(b, power - 1); }) ==
          ":" + std::to_string(power - 1) + "\r\n");
  }
}

TEST_CASE("an error stays one line whatever its text holds", "[resp]") {
  CHECK(written([](Buffer& b) { resp::write_error(b, "ERR a\r\nb\nc"); }) == "-ERR a  b c\r\n");
  CHECK(written([](Buffer& b) { resp::write_error(b, ""); }) == "-\r\n");
}

TEST_CASE("a request is an array of bulk strings", "[resp]") {
  CHECK(written([](Buffer& b) {
          resp::write_request(b, {"SET", "", Bytes("\0\r", 2)});
        }) == "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\0\r\r\n"s);
  const Bytes args[] = {"GET", Bytes(), "key"};
  CHECK(written([&](Buffer& b) { resp::write_request(b, std::span<const Bytes>(args)); }) ==
        "*3\r\n$3\r\nGET\r\n$0\r\n\r\n$3\r\nkey\r\n");
}

TEST_CASE("what is written goes behind what the buffer holds, across its growth", "[resp]") {
  Buffer out;
  std::string expected;
  for (size_t size = 0; size < 400; ++size) {
    const std::string value(size, 'v');
    resp::write_bulk(out, value);
    expected += "$" + std::to_string(size) + "\r\n" + value + "\r\n";
  }
  CHECK(out.size() > 4 * Buffer::kPooledBytes);
  CHECK(out.readable() == expected);
}

TEST_CASE("a bulk string of any length is written as it is specified, and read again", "[resp]") {
  std::vector<size_t> sizes(1100);
  std::iota(sizes.begin(), sizes.end(), size_t{0});
  sizes.insert(sizes.end(), {9'999, 10'000, 65'535, 99'999, 100'000, 9'999'999, 10'000'000});
  for (const size_t size : sizes) {
    const std::string value(size, 'v');
    const std::string bulk = written([&](Buffer& b) { resp::write_bulk(b, value); });
    REQUIRE((bulk == "$" + std::to_string(size) + "\r\n" + value + "\r\n"));
    const HeapCopy copy(bulk);
    Bytes payload;
    REQUIRE(resp::read_bulk(copy.bytes(), payload));
    REQUIRE((payload == value));
  }
}

TEST_CASE("a payload may hold whatever a reply is made of", "[resp]") {
  for (const Bytes value : {Bytes("\r\n"), Bytes("$1\r\na\r\n"), Bytes("\0\r\n\0", 4), Bytes("\r"),
                            Bytes("_\r\n"), Bytes("\n\r")}) {
    const std::string bulk = written([&](Buffer& b) { resp::write_bulk(b, value); });
    Bytes payload;
    CHECK(resp::read_bulk(bulk, payload));
    CHECK(payload == value);
  }
}

TEST_CASE("only what would be written again to the byte is read as a bulk string", "[resp]") {
  for (const Bytes other : {"",
                            "$",
                            "$\r\n",
                            "$\r\n\r\n",
                            "$-1\r\n",
                            "_\r\n",
                            "$?\r\n;0\r\n",
                            "+3\r\nabc\r\n",
                            "=7\r\ntxt:abc\r\n",
                            "!3\r\nabc\r\n",
                            "*1\r\n$1\r\na\r\n",
                            "$03\r\nabc\r\n",
                            "$00\r\n\r\n",
                            "$+3\r\nabc\r\n",
                            "$-3\r\nabc\r\n",
                            "$ 3\r\nabc\r\n",
                            "$3 \r\nabc\r\n",
                            "$3\nabc\r\n",
                            "$3\rabc\r\n",
                            "$3\r\r\nabc\r\n",
                            "$5\r\nabc",
                            "$5\r\nabc\r\n",
                            "$3\r\nabc",
                            "$3\r\nabc\r",
                            "$3\r\nabc\n\r",
                            "$3\r\nabcde",
                            "$2\r\nabc\r\n",
                            "$3\r\nabc\r\n$3\r\nabc\r\n",
                            "$3\r\nabc\r\n\r\n",
                            "$0\r\n",
                            "$0\r\n\r",
                            "$0x3\r\nabc\r\n",
                            "$18446744073709551619\r\nabc\r\n",
                            "$4294967299\r\nabc\r\n",
                            "$18446744073709551614\r\n"}) {
    INFO(other);
    CHECK_FALSE(is_bulk(other));
  }
  const std::string whole = "$3\r\nabc\r\n";
  for (size_t size = 0; size < whole.size(); ++size)
    CHECK_FALSE(is_bulk(Bytes(whole).substr(0, size)));
  CHECK(is_bulk(whole));
  CHECK(is_bulk("$0\r\n\r\n"));
}
