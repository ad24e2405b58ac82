// Every test gets fresh processes: a start costs some ten milliseconds, and no test can then depend
// on what another left behind. The logs of a test's proxies are kept until the test ends and
// printed if it failed; a listener does that, because by then the test's own objects are gone.
#include "harness/servers.h"

#include <signal.h>

#define CATCH_CONFIG_EXTERNAL_INTERFACES  // the listener's base class
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <thread>

namespace nearcached::e2e {
namespace {

/// The logs of the test case that is running.
struct Logs {
  TempDir dir;
  std::vector<std::string> paths;

  std::string add() {
    paths.push_back(dir.path() + "/proxy-" + std::to_string(paths.size()) + ".log");
    return paths.back();
  }
};

Logs& logs() {
  static Logs instance;
  return instance;
}

struct PrintLogsOfFailedTests : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;

  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    for (const std::string& path : logs().paths) {
      if (stats.totals.assertions.failed > 0) {
        std::cerr << "log of nearcached in \"" << stats.testInfo.name << "\":\n"
                  << read_file(path) << std::flush;
      }
      write_file(path, "");
    }
    logs().paths.clear();
  }
};
CATCH_REGISTER_LISTENER(PrintLogsOfFailedTests)

bool accepts(uint16_t port) {
  try {
    RawClient client(port);
    return true;
  } catch (const std::runtime_error&) {
    return false;
  }
}

/// More than accepts(): a Redis listens before it opens its cluster's port, and ends if it cannot.
bool answers(uint16_t port) {
  try {
    Client client(port);
    client("PING");
    return true;
  } catch (const std::runtime_error&) {
    return false;
  }
}

}  // namespace

bool wait_until(const std::function<bool()>& predicate, std::chrono::milliseconds within) {
  const auto deadline = std::chrono::steady_clock::now() + within;
  while (!predicate()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

std::string info_field(const std::string& info, const std::string& field) {
  const std::string start = field + ":";
  size_t at = info.rfind(start, 0) == 0 ? 0 : info.find("\n" + start);
  if (at == std::string::npos) throw std::runtime_error("no field " + field + " in: " + info);
  at = info.find(':', at) + 1;
  return info.substr(at, info.find_first_of("\r\n", at) - at);
}

std::string nearcached_binary() {
  const char* path = std::getenv("NEARCACHED_BINARY");
  if (path == nullptr) throw std::runtime_error("NEARCACHED_BINARY is not set");
  return path;
}

RedisServer::RedisServer(std::vector<std::string> options) : options_(std::move(options)) {
  for (int tries = 1; !launch(); ++tries) {
    if (tries == kLaunchTries) throw std::runtime_error("redis-server did not start: " + log());
    port_ = free_port();
    bus_port_ = free_port();
  }
}

void RedisServer::start() {
  if (!launch()) throw std::runtime_error("redis-server did not start: " + log());
}

bool RedisServer::launch() {
  std::vector<std::string> argv{"redis-server",
                                "--port",
                                std::to_string(port_),
                                "--bind",
                                "127.0.0.1",
                                "--save",
                                "",
                                "--appendonly",
                                "no",
                                "--dir",
                                dir_.path(),
                                "--enable-debug-command",
                                "yes",
                                "--cluster-port",
                                std::to_string(bus_port_)};
  argv.insert(argv.end(), options_.begin(), options_.end());
  process_.start(argv, dir_.path() + "/log");
  const bool ended = wait_until([&] { return !process_.running() || answers(port_); });
  if (ended && process_.running()) return true;
  process_.kill();
  return false;
}

std::string RedisServer::log() const { return read_file(dir_.path() + "/log"); }

void RedisServer::start(std::vector<std::string> options) {
  options_ = std::move(options);
  start();
}

void RedisServer::freeze() const { process_.signal(SIGSTOP); }
void RedisServer::thaw() const { process_.signal(SIGCONT); }

uint64_t RedisServer::calls(const std::string& command) const {
  const std::string stats = client()("INFO commandstats");
  const std::string start = "cmdstat_" + command + ":calls=";
  const size_t at = stats.find(start);
  return at == std::string::npos ? 0 : std::stoull(stats.substr(at + start.size()));
}

Proxy::Proxy(uint16_t upstream_port, std::vector<std::string> options)
    : port_(free_port()), log_path_(logs().add()) {
  std::vector<std::string> argv{nearcached_binary(), "--listen",
                                "127.0.0.1:" + std::to_string(port_)};
  const auto add_unless_given = [&](const char* option, const std::string& value) {
    if (std::find(options.begin(), options.end(), option) != options.end()) return;
    argv.insert(argv.end(), {option, value});
  };
  add_unless_given("--upstream", "redis://127.0.0.1:" + std::to_string(upstream_port));
  add_unless_given("--threads", "2");
  argv.insert(argv.end(), options.begin(), options.end());
  process_.start(argv, log_path_);
  const bool serving = wait_until([&] { return !process_.running() || accepts(port_); });
  if (!serving || !process_.running()) {
    throw std::runtime_error("nearcached did not start: " + log());
  }
  // When the bus comes up, what was filled before it is dropped: tests that count hits begin after.
  // Some have no upstream, or none that lets the bus up.
  if (accepts(upstream_port))
    wait_until([&] { return log().find("bus") != std::string::npos; }, std::chrono::seconds(1));
}

Proxy::~Proxy() {
  // Every test ends with an orderly stop, which must succeed: a crash that no reply showed and what
  // a sanitizer says at the end would go unseen otherwise.
  process_.signal(SIGTERM);
  const std::optional<int> status = process_.wait_exit(std::chrono::seconds(30));
  if (!status.has_value()) FAIL_CHECK("nearcached did not stop within 30 s of SIGTERM");
  if (status.value_or(0) != 0) FAIL_CHECK("nearcached ended with status " << *status);
}

std::string Proxy::info(const std::string& field) const {
  return info_field(client()("INFO nearcached"), field);
}

bool becomes_hit(const Proxy& proxy, Client& client, const std::string& read) {
  return wait_until([&] {
    const uint64_t hits = proxy.count("l1_hits");
    client(read);
    return proxy.count("l1_hits") > hits;
  });
}

bool seen_in_time(Client& reader, const std::string& read, const std::string& expected) {
  const auto limit = std::chrono::steady_clock::now() + kMaxStaleness;
  for (;;) {
    const bool must = std::chrono::steady_clock::now() > limit;
    if (reader(read) == expected) return true;
    if (must) return false;
  }
}

std::vector<Client> clients_of(const Proxy& proxy, int count) {
  std::vector<Client> out;
  for (int i = 0; i < count; ++i) out.push_back(proxy.client());
  return out;
}

}  // namespace nearcached::e2e
