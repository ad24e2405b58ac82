#include "nearcached/resp/request_shape.h"

#include <catch2/catch.hpp>
#include <random>
#include <set>
#include <string>

#include "nearcached/resp/request_parser.h"

using namespace nearcached;

namespace {

std::string wire_of(const std::vector<std::string>& args) {
  std::string wire = "*" + std::to_string(args.size()) + "\r\n";
  for (const std::string& arg : args)
    wire += "$" + std::to_string(arg.size()) + "\r\n" + arg + "\r\n";
  return wire;
}

RequestShape shape_of(const std::string& wire) {
  RequestParser parser{RequestLimits{}};
  Request request;
  size_t consumed = 0;
  REQUIRE(parser.parse(wire, request, consumed) == ParseStatus::ok);
  RequestShape shape;
  REQUIRE(shape.learn(request.wire, request.args[0], request.args.size()));
  return shape;
}

constexpr uint64_t kBulkMax = 512u << 20;

}  // namespace

TEST_CASE("a request of a known shape is read as the parser reads it", "[resp][shape]") {
  const RequestShape get = shape_of(wire_of({"GET", "k"}));
  std::array<Bytes, RequestShape::kArgsMax> args;
  const std::string key(300, 'x');
  const std::string wire = wire_of({"GET", key});
  const std::string more = wire + "more";
  CHECK(get.read(more, kBulkMax, args) == wire.size());
  CHECK(args[0] == key);
  const RequestShape range = shape_of(wire_of({"ZRANGE", "z", "0", "-1", "WITHSCORES"}));
  const std::string other = wire_of({"ZRANGE", "", "1", "", "WITHSCORES"});
  REQUIRE(range.read(other, kBulkMax, args) == other.size());
  CHECK(range.args() == 4);
  CHECK(args[0] == "");
  CHECK(args[1] == "1");
  CHECK(args[3] == "WITHSCORES");
}

// Fails when the letters' case does not count: two clients that write one command differently would
// take turns in forgetting each other's shape.
TEST_CASE("the shapes of common reads have places of their own", "[resp][shape]") {
  const auto place = [](const char* name, size_t args) {
    std::vector<std::string> parts{name};
    parts.resize(args, "argument");
    return RequestShape::hash(wire_of(parts), 256);
  };
  std::set<size_t> places;
  for (const char* name : {"GET", "get", "STRLEN", "HGETALL"}) places.insert(place(name, 2));
  for (const char* name : {"HGET", "hget"}) places.insert(place(name, 3));
  CHECK(places.size() == 6);
  CHECK(place("ZRANGE", 4) != place("ZRANGE", 5));
  CHECK(RequestShape::hash(wire_of({"GET", "k"}), 256) ==
        RequestShape::hash(wire_of({"GET", std::string(200, 'k')}), 256));
}

TEST_CASE("what is of another shape, or not whole, is refused", "[resp][shape]") {
  const std::string wire = wire_of({"GET", "key"});
  const RequestShape get = shape_of(wire);
  std::array<Bytes, RequestShape::kArgsMax> args;
  for (size_t size = 0; size < wire.size(); ++size)
    CHECK(get.read(wire.substr(0, size), kBulkMax, args) == 0);
  CHECK(get.read(wire_of({"get", "key"}), kBulkMax, args) == 0);
  CHECK(get.read(wire_of({"SET", "key"}), kBulkMax, args) == 0);
  CHECK(get.read(wire_of({"GET", "key", "more"}), kBulkMax, args) == 0);
  CHECK(get.read(wire, 2, args) == 0);
  for (const char* odd : {"*2\r\n$3\r\nGET\r\n$03\r\nkey\r\n", "*2\r\n$3\r\nGET\r\n$-1\r\nkey\r\n",
                          "*2\r\n$3\r\nGET\r\n$3\r\nkeyxx", "*2\r\n$3\r\nGET\r\n$3\rxkey\r\n",
                          "*2\r\n$3\r\nGET\r\n$99999999999\r\nkey\r\n"})
    CHECK(get.read(odd, kBulkMax, args) == 0);
  RequestShape none;
  CHECK(none.read(wire, kBulkMax, args) == 0);
  CHECK_FALSE(none.learn(wire_of({"PING"}), "PING", 1));
}

TEST_CASE("a shape that reads a mangled request reads what the parser reads", "[resp][shape]") {
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  size_t read = 0;
  for (int round = 0; round < 200'000; ++round) {
    std::vector<std::string> parts{below(2) != 0 ? "GET" : "HGETALL"};
    while (parts.size() < 2 + below(2)) parts.push_back(std::string(below(12), 'k'));
    const std::string good = wire_of(parts);
    const RequestShape shape = shape_of(good);
    std::string bad = wire_of(parts) + wire_of({"PING"});
    for (size_t n = below(3); n > 0; --n) bad[below(bad.size())] = "\r\n$*0123459kGx"[below(14)];
    std::array<Bytes, RequestShape::kArgsMax> args;
    const size_t taken = shape.read(bad, kBulkMax, args);
    if (taken == 0) continue;
    ++read;
    RequestParser parser{RequestLimits{}};
    Request request;
    size_t consumed = 0;
    REQUIRE(parser.parse(bad, request, consumed) == ParseStatus::ok);
    REQUIRE(consumed == taken);
    REQUIRE(request.args.size() == shape.args() + 1);
    REQUIRE(request.args[0] == parts[0]);
    for (size_t i = 0; i < shape.args(); ++i) REQUIRE(request.args[i + 1] == args[i]);
  }
  CHECK(read > 50'000);
}
