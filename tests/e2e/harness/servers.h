// The servers of an end-to-end test: Redis, nearcached, and both together.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/client.h"
#include "harness/process.h"

namespace nearcached::e2e {

/// Asks again every 2 ms until the answer is yes (true) or the time is over (false). The limit is
/// only there so that a broken build ends: no test asserts how long anything took.
bool wait_until(const std::function<bool()>& predicate,
                std::chrono::milliseconds within = std::chrono::seconds(20));

/// The value of `field` in `key:value` lines; throws if it is not there.
std::string info_field(const std::string& info, const std::string& field);

/// A redis-server without persistence, in a directory of its own.
class RedisServer {
 public:
  explicit RedisServer(std::vector<std::string> options = {});
  /// Starts again on the same port after kill(); the data set is empty then.
  void start();
  /// The same with other options, from now on.
  void start(std::vector<std::string> options);
  void kill() { process_.kill(); }
  /// SIGSTOP: connections stay open and silent.
  void freeze() const;
  void thaw() const;

  uint16_t port() const { return port_; }
  Client client() const { return Client(port_); }
  /// How often the server ran `command` (lower case), from INFO commandstats.
  uint64_t calls(const std::string& command) const;

 private:
  bool launch();
  std::string log() const;

  TempDir dir_;
  uint16_t port_ = free_port();
  uint16_t bus_port_ = free_port();  // of a server with --cluster-enabled
  std::vector<std::string> options_;
  Process process_;
};

/// A nearcached; the program is the one that NEARCACHED_BINARY names.
class Proxy {
 public:
  /// Starts it in front of `upstream_port` with 2 workers; `options` are added to the command line,
  /// and
  /// --upstream or --threads among them replace those.
  explicit Proxy(uint16_t upstream_port, std::vector<std::string> options = {});
  /// Stops it by SIGTERM; the test fails if it does not end with status 0.
  ~Proxy();
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  uint16_t port() const { return port_; }
  Client client() const { return Client(port_); }
  /// A field of INFO nearcached.
  std::string info(const std::string& field) const;
  uint64_t count(const std::string& field) const { return std::stoull(info(field)); }
  std::string log() const { return read_file(log_path_); }
  Process& process() { return process_; }

 private:
  uint16_t port_;
  std::string log_path_;
  Process process_;
};

/// Asks until the answer came from L1 (a fill may be refused while an invalidation of the set-up is
/// on its way). False: it never does.
bool becomes_hit(const Proxy& proxy, Client& client, const std::string& read);

/// What coherence.max_staleness is when nobody says otherwise.
constexpr std::chrono::milliseconds kMaxStaleness{500};

/// Reads, until the answer is `expected`, on one connection. False if one that was sent later than
/// max_staleness after now was not.
bool seen_in_time(Client& reader, const std::string& read, const std::string& expected);

/// More connections than workers, so that each worker has some.
std::vector<Client> clients_of(const Proxy& proxy, int count);

/// The ordinary set-up: one Redis, one proxy before it.
struct Stack {
  explicit Stack(std::vector<std::string> proxy_options = {},
                 std::vector<std::string> redis_options = {})
      : redis(std::move(redis_options)), proxy(redis.port(), std::move(proxy_options)) {}
  RedisServer redis;
  Proxy proxy;
};

/// The path of the nearcached under test.
std::string nearcached_binary();

}  // namespace nearcached::e2e
