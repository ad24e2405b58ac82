#include <catch2/catch.hpp>

#include "config/address.h"

using namespace nearcached;
using config::parse_address;
using config::parse_url;
using config::redact;

namespace {

UpstreamUrl single(Address address, std::string user, std::string password, uint32_t database) {
  UpstreamUrl url;
  url.address = std::move(address);
  url.user = std::move(user);
  url.password = std::move(password);
  url.database = database;
  return url;
}

UpstreamUrl url(const std::string& text) {
  INFO(text);
  Result<UpstreamUrl> parsed = parse_url(text);
  REQUIRE(parsed.ok());
  return parsed.value();
}

std::string url_error(const std::string& text) {
  const Result<UpstreamUrl> parsed = parse_url(text);
  return parsed.ok() ? "accepted" : parsed.error().detail;
}

}  // namespace

TEST_CASE("an address to listen on reads back from its text", "[config]") {
  for (const char* text : {"127.0.0.1:6380", "0.0.0.0:1", "[::1]:65535", "unix:/run/n.sock"}) {
    const Result<Address> address = parse_address(text);
    INFO(text);
    REQUIRE(address.ok());
    CHECK(address.value().to_string() == text);
  }
}

TEST_CASE("an address to listen on is complete and numeric", "[config]") {
  for (const char* text : {"",
                           ":6380",
                           "6380",
                           "127.0.0.1",
                           "127.0.0.1:",
                           "127.0.0.1:0",
                           "127.0.0.1:65536",
                           "*:6380",
                           "localhost:6380",
                           "256.0.0.1:6380",
                           "::1:6380",
                           "[::1]",
                           "[::1",
                           "[::1]6380",
                           "[]:6380",
                           "[127.0.0.1]:6380",
                           "127.0.0.1:6380x",
                           "127.0.0.1:6380 ",
                           "unix:",
                           "unix:relative",
                           "redis://127.0.0.1:6380"}) {
    INFO(text);
    CHECK_FALSE(parse_address(text).ok());
  }
}

TEST_CASE("the path of a Unix socket fits sockaddr_un", "[config]") {
  CHECK(parse_address("unix:/" + std::string(106, 'x')).ok());
  CHECK_FALSE(parse_address("unix:/" + std::string(107, 'x')).ok());
}

TEST_CASE("an upstream has each part of its URL", "[config]") {
  CHECK(url("redis://h") == single({"h", 6379, {}}, {}, {}, 0));
  CHECK(url("redis://h/") == single({"h", 6379, {}}, {}, {}, 0));
  CHECK(url("redis://h:1/15") == single({"h", 1, {}}, {}, {}, 15));
  CHECK(url("redis://u:p@h:1") == single({"h", 1, {}}, "u", "p", 0));
  CHECK(url("redis://:p@h:1") == single({"h", 1, {}}, {}, "p", 0));
  CHECK(url("redis://:p@[::1]:1/2") == single({"::1", 1, {}}, {}, "p", 2));
  CHECK(url("redis://[::1]") == single({"::1", 6379, {}}, {}, {}, 0));
  CHECK(url("h.example:1") == single({"h.example", 1, {}}, {}, {}, 0));
  CHECK(url("[::1]:1") == single({"::1", 1, {}}, {}, {}, 0));
  CHECK(url("unix:/s") == single({{}, 0, "/s"}, {}, {}, 0));
  CHECK(url("unix:///s?db=3") == single({{}, 0, "/s"}, {}, {}, 3));
}

TEST_CASE("a password may be percent-encoded, and need not be", "[config]") {
  CHECK(url("redis://a%3Ab:p%40%2f%25%00@h").user == "a:b");
  CHECK(url("redis://a%3Ab:p%40%2f%25%00@h").password == std::string("p@/%\0", 5));
  CHECK(url("redis://:p@s/s:w@h").password == "p@s/s:w");
  CHECK(url_error("redis://:p%4@h") == "% is not followed by two hexadecimal digits");
  CHECK(url_error("redis://:p%zz@h") == "% is not followed by two hexadecimal digits");
  CHECK(url_error("redis://:%@h") == "% is not followed by two hexadecimal digits");
}

TEST_CASE("a URL that could mean two things is refused", "[config]") {
  CHECK(url_error("redis://word@h") == "what stands before @ is user:password or :password");
  CHECK(url_error("redis://user:@h") == "what stands before @ is user:password or :password");
  CHECK(url_error("redis://@h") == "what stands before @ is user:password or :password");
  CHECK(url_error("redis://h/x") == "the database is not a number");
  CHECK(url_error("redis://h/1/2") == "the database is not a number");
  CHECK(url_error("redis://h/2147483648") == "the database is not a number");
  CHECK(url_error("h") == "the port is missing");
  CHECK(url_error("") == "the host is missing");
  CHECK(url_error("redis://") == "the host is missing");
  CHECK(url_error("http://h:1") == "unknown scheme");
}

TEST_CASE("a scheme of a later version is called by its name", "[config]") {
  CHECK(url_error("rediss://h") == "this version does not speak rediss://");
}

TEST_CASE("a cluster has its seeds, in the order given", "[config]") {
  const UpstreamUrl cluster = url("redis+cluster://u:p%40@a:1,[::1],c.example:65535/0");
  CHECK(cluster.kind == UpstreamKind::cluster);
  CHECK(cluster.seeds ==
        std::vector<Address>{{"a", 1, {}}, {"::1", 6379, {}}, {"c.example", 65535, {}}});
  CHECK(cluster.address == Address{"a", 1, {}});
  CHECK(cluster.user == "u");
  CHECK(cluster.password == "p@");
  CHECK(cluster.database == 0);
  CHECK(url("redis+cluster://a").seeds == std::vector<Address>{{"a", 6379, {}}});
  CHECK(url("redis+cluster://a/").seeds == std::vector<Address>{{"a", 6379, {}}});
  CHECK(url("redis://a").kind == UpstreamKind::single);
  CHECK(url("redis://a").seeds.empty());
}

TEST_CASE("a cluster has only database 0", "[config]") {
  CHECK(url_error("redis+cluster://a/1") == "a cluster has only database 0");
  CHECK(url_error("redis+cluster://a,b/15") == "a cluster has only database 0");
  CHECK(url_error("redis+cluster://a/x") == "the database is not a number");
}

TEST_CASE("a Sentinel service has its sentinels, its name and a database", "[config]") {
  const UpstreamUrl service = url("redis+sentinel://:p@a,b:1/my.master-1_x/3");
  CHECK(service.kind == UpstreamKind::sentinel);
  CHECK(service.seeds == std::vector<Address>{{"a", 26379, {}}, {"b", 1, {}}});
  CHECK(service.service == "my.master-1_x");
  CHECK(service.database == 3);
  CHECK(service.password == "p");
  CHECK(service.address == Address{});
  CHECK(url("redis+sentinel://a/s").database == 0);
  CHECK(url("redis+sentinel://a/s/").service == "s");
}

TEST_CASE("a Sentinel service without a proper name is refused", "[config]") {
  const std::string missing = "the service is missing: redis+sentinel://host/service";
  CHECK(url_error("redis+sentinel://a") == missing);
  CHECK(url_error("redis+sentinel://a/") == missing);
  const std::string bad = "the service is not a word of letters, digits and \".-_\"";
  CHECK(url_error("redis+sentinel://a//1") == bad);
  CHECK(url_error("redis+sentinel://a/s t") == bad);
  CHECK(url_error("redis+sentinel://a/s%20t") == bad);
  CHECK(url_error("redis+sentinel://a/s/x") == "the database is not a number");
}

TEST_CASE("a list of hosts with a gap, a repetition or no end is refused", "[config]") {
  for (const std::string scheme : {"redis+cluster://", "redis+sentinel://"}) {
    CHECK(url_error(scheme) == "the host is missing");
    CHECK(url_error(scheme + "a,/s") == "the host is missing");
    CHECK(url_error(scheme + ",a/s") == "the host is missing");
    CHECK(url_error(scheme + "a,,b/s") == "the host is missing");
    CHECK(url_error(scheme + "a:x,b/s") == "the port is not 1 to 65535");
    CHECK(url_error(scheme + "a:1,b,a:1/s") == "a host is given twice");
    CHECK(url_error(scheme + "word@a/s") == "what stands before @ is user:password or :password");
    std::string hosts = "a:1";
    for (int port = 2; port <= 64; ++port) hosts += ",a:" + std::to_string(port);
    CHECK(url_error(scheme + hosts + ",a:65/0") == "at most 64 hosts are given");
    CHECK(url(scheme + hosts + "/0").seeds.size() == 64);
  }
  CHECK(url_error("redis://a,b") == "the host is neither a name nor an IP address");
}

TEST_CASE("a redacted URL holds no password, right or wrong", "[config]") {
  CHECK(redact("redis://h:1/2") == "redis://h:1/2");
  CHECK(redact("redis://[::1]:1") == "redis://[::1]:1");
  CHECK(redact("redis://[::1]") == "redis://[::1]");
  CHECK(redact("unix:/a:b@c") == "unix:/a:b@c");
  CHECK(redact("redis+cluster://a:1,[::1]:2,c") == "redis+cluster://a:1,[::1]:2,c");
  CHECK(redact("redis+sentinel://a:1,b:2/s/3") == "redis+sentinel://a:1,b:2/s/3");
  CHECK(redact("redis+sentinel://u:hunter2@a:1,b:2/s/3") == "redis+sentinel://u:***@a:1,b:2/s/3");
  CHECK(redact("redis://u:hunter2@h") == "redis://u:***@h");
  for (const char* text : {"redis://:hunter2@h",
                           "redis://u:x@hunter2@h",
                           "redis://u:x/hunter2@h:1",
                           "redis://hunter2@h",
                           "u:hunter2@h:1",
                           "redis://u:hunter2",
                           "redis://:hunter2",
                           "rediss://u:hunter2@h/x?y",
                           "redis+cluster://:hunter2@a:1,b:2",
                           "redis://u:%hunter2@",
                           "redis+cluster://u:hunter2",
                           "redis+cluster://a:1,u:hunter2",
                           "redis+sentinel://:hunter2@a/s",
                           "redis+sentinel://u:hunter2,a/s",
                           "redis+sentinel://u:x,hunter2@a/s",
                           "redis+cluster://hunter2@a",
                           "redis://u:hunter2/0",
                           "u:hunter2",
                           "redis:/:hunter2@h",
                           "redis://h:1/hunter2?hunter2@",
                           "redis:\n//u:hunter2@h"}) {
    INFO(text);
    CHECK(redact(text).find("hunter2") == std::string::npos);
    CHECK(url_error(text).find("hunter2") == std::string::npos);
  }
}
