// Three notations share one grammar of host and port: ADDR (listen), URL (upstream), and bare
// host:port; a cluster and a Sentinel service have several of the latter. Anything doubtful is
// refused here, before a socket is made, because getaddrinfo and bind explain themselves badly. A
// password may hold '@' or '/' unencoded: the last '@' ends it. A generic URL library would refuse
// exactly those, and would bring more than it saves.
#include "config/address.h"

#include <arpa/inet.h>
#include <sys/un.h>

#include <algorithm>
#include <optional>

#include "config/units.h"

namespace nearcached {

std::string Address::to_string() const {
  if (!unix_path.empty()) return "unix:" + unix_path;
  const bool ipv6 = host.find(':') != std::string::npos;
  return (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

namespace config {
namespace {

constexpr std::string_view kUnixScheme = "unix:";
constexpr uint16_t kRedisPort = 6379;
constexpr uint16_t kSentinelPort = 26379;
constexpr size_t kSeedsMax = 64;
constexpr uint32_t kDatabaseMax = INT32_MAX;  // Redis's own type for it

bool is_ip(int family, const std::string& host) {
  in6_addr any_address;
  return inet_pton(family, host.c_str(), &any_address) == 1;
}

bool is_host_name(std::string_view host) {
  static constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
  return !host.empty() && host.size() <= 253 &&
         host.find_first_not_of(kAllowed) == std::string_view::npos;
}

Result<std::string> parse_unix_path(std::string_view path) {
  constexpr size_t kPathMax = sizeof(sockaddr_un::sun_path) - 1;
  if (path.empty() || path[0] != '/') return Error{"the path of a Unix socket begins with /"};
  if (path.size() > kPathMax)
    return Error{"the path of a Unix socket has at most " + std::to_string(kPathMax) + " bytes"};
  if (path.find('\0') != std::string_view::npos) return Error{"a path holds no NUL"};
  return std::string(path);
}

// host[:port] or [ipv6][:port]; without a port `default_port`, and if that is 0 the port is
// required.
Result<Address> parse_host_port(std::string_view text, uint16_t default_port) {
  Address address;
  std::string_view rest;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return Error{"[ without ]"};
    address.host = text.substr(1, close - 1);
    if (!is_ip(AF_INET6, address.host)) return Error{"no IPv6 address between [ and ]"};
    rest = text.substr(close + 1);
  } else {
    const size_t colon = std::min(text.find(':'), text.size());
    address.host = text.substr(0, colon);
    rest = text.substr(colon);
    if (address.host.empty()) return Error{"the host is missing"};
    if (rest.find(':', 1) != std::string_view::npos)
      return Error{"an IPv6 address is written in brackets"};
    const bool numeric = address.host.find_first_not_of("0123456789.") == std::string::npos;
    if (numeric ? !is_ip(AF_INET, address.host) : !is_host_name(address.host))
      return Error{"the host is neither a name nor an IP address"};
  }
  if (rest.empty() && default_port != 0) {
    address.port = default_port;
    return address;
  }
  if (!rest.starts_with(':')) return Error{"the port is missing"};
  const std::optional<uint64_t> port = parse_integer(rest.substr(1));
  if (!port || *port == 0 || *port > UINT16_MAX) return Error{"the port is not 1 to 65535"};
  address.port = static_cast<uint16_t>(*port);
  return address;
}

Result<uint32_t> parse_database(std::string_view text) {
  const std::optional<uint64_t> number = parse_integer(text);
  if (!number || *number > kDatabaseMax) return Error{"the database is not a number"};
  return static_cast<uint32_t>(*number);
}

std::optional<std::string> percent_decode(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = digit(text[i + 1]), low = digit(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

// "user:password" or ":password". A lone word is refused: redis-cli takes it for the password and
// most client libraries for the user.
Result<void> parse_user_info(std::string_view text, UpstreamUrl& url) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || colon + 1 == text.size())
    return Error{"what stands before @ is user:password or :password"};
  const std::optional<std::string> user = percent_decode(text.substr(0, colon));
  const std::optional<std::string> password = percent_decode(text.substr(colon + 1));
  if (!user || !password) return Error{"% is not followed by two hexadecimal digits"};
  url.user = *user;
  url.password = *password;
  return {};
}

Result<UpstreamUrl> parse_unix_url(std::string_view text) {
  UpstreamUrl url;
  url.address = {};
  const size_t query = text.rfind("?db=");
  if (query != std::string_view::npos) {
    const Result<uint32_t> database = parse_database(text.substr(query + 4));
    if (!database) return database.error();
    url.database = database.value();
    text = text.substr(0, query);
  }
  Result<std::string> path = parse_unix_path(text);
  if (!path) return path.error();
  url.address.unix_path = std::move(path.value());
  return url;
}

// Takes "user:password@" off the front of `text`, if it is there.
Result<void> take_user_info(std::string_view& text, UpstreamUrl& url) {
  const size_t at = text.rfind('@');
  if (at == std::string_view::npos) return {};
  const std::string_view user_info = text.substr(0, at);
  text = text.substr(at + 1);
  return parse_user_info(user_info, url);
}

// "host[:port],host[:port]"
Result<std::vector<Address>> parse_hosts(std::string_view text, uint16_t default_port) {
  std::vector<Address> hosts;
  for (bool more = true; more;) {
    const size_t comma = text.find(',');
    Result<Address> address = parse_host_port(text.substr(0, comma), default_port);
    if (!address) return address.error();
    if (std::find(hosts.begin(), hosts.end(), address.value()) != hosts.end())
      return Error{"a host is given twice"};
    if (hosts.size() == kSeedsMax)
      return Error{"at most " + std::to_string(kSeedsMax) + " hosts are given"};
    hosts.push_back(std::move(address.value()));
    more = comma != std::string_view::npos;
    if (more) text = text.substr(comma + 1);
  }
  return hosts;
}

// What follows redis://
Result<UpstreamUrl> parse_redis_url(std::string_view text) {
  UpstreamUrl url;
  if (const Result<void> taken = take_user_info(text, url); !taken) return taken.error();
  const size_t slash = std::min(text.find('/'), text.size());
  Result<Address> address = parse_host_port(text.substr(0, slash), kRedisPort);
  if (!address) return address.error();
  url.address = std::move(address.value());
  if (slash + 1 < text.size()) {
    const Result<uint32_t> database = parse_database(text.substr(slash + 1));
    if (!database) return database.error();
    url.database = database.value();
  }
  return url;
}

// What follows redis+cluster://
Result<UpstreamUrl> parse_cluster_url(std::string_view text) {
  UpstreamUrl url;
  url.kind = UpstreamKind::cluster;
  if (const Result<void> taken = take_user_info(text, url); !taken) return taken.error();
  const size_t slash = std::min(text.find('/'), text.size());
  Result<std::vector<Address>> seeds = parse_hosts(text.substr(0, slash), kRedisPort);
  if (!seeds) return seeds.error();
  if (slash + 1 < text.size()) {
    const Result<uint32_t> database = parse_database(text.substr(slash + 1));
    if (!database) return database.error();
    if (database.value() != 0) return Error{"a cluster has only database 0"};
  }
  url.seeds = std::move(seeds.value());
  url.address = url.seeds.front();
  return url;
}

// Sentinel's own rule for names.
bool is_service(std::string_view name) {
  static constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
  return !name.empty() && name.find_first_not_of(kAllowed) == std::string_view::npos;
}

// What follows redis+sentinel://
Result<UpstreamUrl> parse_sentinel_url(std::string_view text) {
  UpstreamUrl url;
  url.kind = UpstreamKind::sentinel;
  url.address = {};
  if (const Result<void> taken = take_user_info(text, url); !taken) return taken.error();
  const size_t slash = std::min(text.find('/'), text.size());
  Result<std::vector<Address>> sentinels = parse_hosts(text.substr(0, slash), kSentinelPort);
  if (!sentinels) return sentinels.error();
  url.seeds = std::move(sentinels.value());
  text = text.substr(std::min(slash + 1, text.size()));
  if (text.empty()) return Error{"the service is missing: redis+sentinel://host/service"};
  const size_t service_end = std::min(text.find('/'), text.size());
  url.service = text.substr(0, service_end);
  if (!is_service(url.service))
    return Error{"the service is not a word of letters, digits and \".-_\""};
  if (service_end + 1 < text.size()) {
    const Result<uint32_t> database = parse_database(text.substr(service_end + 1));
    if (!database) return database.error();
    url.database = database.value();
  }
  return url;
}

}  // namespace

Result<Address> parse_address(std::string_view text) {
  if (text.starts_with(kUnixScheme)) {
    Result<std::string> path = parse_unix_path(text.substr(kUnixScheme.size()));
    if (!path) return path.error();
    return Address{{}, 0, std::move(path.value())};
  }
  Result<Address> address = parse_host_port(text, 0);
  if (!address) return address;
  const std::string& host = address.value().host;
  if (!is_ip(AF_INET, host) && !is_ip(AF_INET6, host))
    return Error{"listening needs an IP address, not a name"};
  return address;
}

Result<UpstreamUrl> parse_url(std::string_view text) {
  const size_t scheme_end = text.find("://");
  if (text.starts_with(kUnixScheme) && scheme_end != kUnixScheme.size() - 1)
    return parse_unix_url(text.substr(kUnixScheme.size()));
  if (scheme_end == std::string_view::npos) {
    Result<Address> address = parse_host_port(text, 0);
    if (!address) return address.error();
    UpstreamUrl url;
    url.address = std::move(address.value());
    return url;
  }
  const std::string_view scheme = text.substr(0, scheme_end);
  const std::string_view rest = text.substr(scheme_end + 3);
  if (scheme == "redis") return parse_redis_url(rest);
  if (scheme == "unix") return parse_unix_url(rest);  // unix:///path
  if (scheme == "redis+cluster") return parse_cluster_url(rest);
  if (scheme == "redis+sentinel") return parse_sentinel_url(rest);
  if (scheme == "rediss") return Error{"this version does not speak rediss://"};
  return Error{"unknown scheme"};
}

std::string redact(std::string_view url) {
  if (url.starts_with(kUnixScheme)) return std::string(url);
  const size_t scheme_end = url.find("://");
  const size_t begin = scheme_end == std::string_view::npos ? 0 : scheme_end + 3;
  const size_t at = url.rfind('@');
  const size_t colon = std::min(url.find(':', begin), url.size());
  if (at != std::string_view::npos && at >= begin) {
    // The user is worth showing; a word without a colon may be the password.
    const size_t secret = colon < at ? colon + 1 : begin;
    return std::string(url.substr(0, secret)).append("***").append(url.substr(at));
  }
  // Without '@' the host may have been forgotten: "redis://user:password". So what follows a colon
  // is shown only if the whole is hosts and ports, or IPv6 addresses that were given none.
  const std::string_view rest = url.substr(begin);
  if (colon == url.size() || parse_hosts(rest.substr(0, rest.find('/')), kRedisPort))
    return std::string(url);
  return std::string(url.substr(0, colon + 1)).append("***");
}

}  // namespace config
}  // namespace nearcached
