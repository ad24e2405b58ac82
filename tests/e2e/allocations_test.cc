// No general allocation per request in steady state: counted in the program as it is shipped, by a
// library that is put before its allocator (harness/count_allocations.cc).
//
// A kind of request is first sent until whatever grows has grown, then counted over as many as make
// a single allocation per request, or per hundred, stand out from what happens now and then (a
// timer, the client that asks for INFO). Only the workers count: the bus and discovery run beside
// them.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>

#include "harness/raw_client.h"
#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

constexpr uint64_t kWarmUp = 5'000;  // more misses than the first window of admission has
constexpr uint64_t kRequests = 3'200;
constexpr uint64_t kNowAndThen = 16;  // one in 200 requests
constexpr const char* kLongName = "a-key-that-does-not-fit-into-a-short-string";

/// A proxy with one worker, whose allocations are counted. However long the machine takes, what is
/// done now and then is not done often.
class CountedProxy {
 public:
  CountedProxy(uint16_t upstream_port, std::vector<std::string> options)
      : preloaded_(*this), proxy_(upstream_port, steady(std::move(options))) {
    preloaded_.end();
  }

  RawClient client() const { return RawClient(proxy_.port()); }
  const Proxy& proxy() const { return proxy_; }
  uint64_t allocations_of_workers() const {
    const std::string counts = read_file(path());
    uint64_t count = 0;
    std::memcpy(&count, counts.data() + sizeof count, sizeof count);
    return count;
  }

 private:
  /// What the environment says while the program starts.
  struct Preloaded {
    explicit Preloaded(const CountedProxy& owner) {
      write_file(owner.path(), std::string(2 * sizeof(uint64_t), '\0'));
      setenv("NEARCACHED_ALLOCATIONS", owner.path().c_str(), 1);
      setenv("LD_PRELOAD", std::getenv("NEARCACHED_COUNT_ALLOCATIONS"), 1);
    }
    ~Preloaded() { end(); }
    void end() const {
      unsetenv("LD_PRELOAD");
      unsetenv("NEARCACHED_ALLOCATIONS");
    }
  };

  static std::vector<std::string> steady(std::vector<std::string> options) {
    options.insert(options.end(), {"--threads", "1", "--set", "coherence.max_staleness=10m",
                                   "--set", "coherence.heartbeat=5m"});
    return options;
  }
  std::string path() const { return dir_.path() + "/allocations"; }

  TempDir dir_;
  Preloaded preloaded_;
  Proxy proxy_;
};

/// The n-th request of its kind.
using Requests = std::function<Args(uint64_t n)>;

Requests always(std::string_view line) {
  return [request = words(line)](uint64_t) { return request; };
}

/// Each asks for a key that none before it has asked for.
Requests next_keys(const std::string& command, size_t keys) {
  return [command, keys, next = uint64_t{0}](uint64_t) mutable {
    Args args{command};
    while (args.size() <= keys) args.push_back(kLongName + (":" + std::to_string(next++)));
    return args;
  };
}

void send(RawClient& client, const Requests& requests, uint64_t count, uint64_t pipeline) {
  for (uint64_t sent = 0; sent < count; sent += pipeline) {
    std::string batch;
    for (uint64_t i = 0; i < pipeline; ++i) batch += encode(requests(sent + i));
    client.send(batch);
    for (uint64_t i = 0; i < pipeline; ++i) REQUIRE(client.read_reply()[0] != '-');
  }
}

uint64_t allocations(const CountedProxy& proxy, RawClient& client, const Requests& requests,
                     uint64_t pipeline) {
  send(client, requests, kWarmUp, 100);
  send(client, requests, 160, pipeline);
  const uint64_t before = proxy.allocations_of_workers();
  send(client, requests, kRequests, pipeline);
  return proxy.allocations_of_workers() - before;
}

void check_allocates_nothing(const CountedProxy& proxy, RawClient& client,
                             const Requests& requests) {
  for (const uint64_t pipeline : {1, 16}) {
    CAPTURE(pipeline);
    CHECK(allocations(proxy, client, requests, pipeline) < kNowAndThen);
  }
}

/// False under a sanitizer, whose allocator must be the only one.
bool can_count() {
  if (std::getenv("NEARCACHED_COUNT_ALLOCATIONS") != nullptr) return true;
  WARN("not counted: this build has no library that counts allocations");
  return false;
}

}  // namespace

// Fails when Router::turn_end() takes its lists in vectors of its own. Replies that outgrow a
// pooled buffer (16 KiB) in one turn are not among them: their buffers are the allocator's.
TEST_CASE("a hit allocates nothing", "[allocations]") {
  if (!can_count()) return;
  RedisServer redis;
  Client direct = redis.client();
  const CountedProxy proxy(redis.port(), {});
  direct("DEBUG POPULATE 20");
  direct({"SET", "long", std::string(4096, 'x')});
  direct("HSET hash a 1 b 2 c 3");
  direct("RPUSH list a b c");
  for (const char* const protocol : {"2", "3"}) {
    RawClient client = proxy.client();
    REQUIRE(client.ask(Args{"HELLO", protocol})[0] != '-');
    for (const std::string request :
         {"GET key:1", "GET none", "STRLEN key:1", "HGET hash a", "HGETALL hash",
          "LRANGE list 0 -1", "MGET key:1 key:2 key:3 key:4 key:5 key:6 key:7 key:8"}) {
      REQUIRE(wait_until([&] {
        const uint64_t hits = proxy.proxy().count("l1_hits");
        client.ask(request);
        return proxy.proxy().count("l1_hits") > hits;
      }));
      CAPTURE(request, protocol);
      check_allocates_nothing(proxy, client, always(request));
    }
  }
}

// Fails as the above does, and when what is remembered until the reply is here is allocated for it.
TEST_CASE("what is passed on allocates nothing", "[allocations]") {
  if (!can_count()) return;
  RedisServer redis;
  // Without L1 reads are passed on. In mode publish each write is announced.
  const std::string l1 = GENERATE(as<std::string>(), "false", "true");
  const std::string mode = GENERATE(as<std::string>(), "resp3", "publish");
  const CountedProxy proxy(redis.port(),
                           {"--set", "l1.enabled=" + l1, "--set", "coherence.mode=" + mode});
  redis.client()("DEBUG POPULATE 20");
  RawClient client = proxy.client();
  for (const std::string request : {"GET key:1", "MGET key:1 key:2", "SET key:1 value",
                                    "SET a-key-that-does-not-fit-into-a-short-string value",
                                    "INCR counter", "GEOADD geo 1 1 a", "RANDOMKEY"}) {
    CAPTURE(l1, mode, request);
    check_allocates_nothing(proxy, client, always(request));
  }
  CHECK((proxy.proxy().count("announcements") > 0) == (mode == "publish"));
}

// Fails when flights that have landed are not kept for the next (Router::release_flight,
// Router::release_mget).
TEST_CASE("a miss allocates nothing, kept or not", "[allocations]") {
  if (!can_count()) return;
  RedisServer redis;
  redis.client()({"DEBUG", "POPULATE", "150000", kLongName, "64"});
  for (const char* const scan_resistance : {"true", "false"}) {
    const CountedProxy proxy(redis.port(),
                             {"--set", std::string("l1.scan_resistance=") + scan_resistance});
    RawClient client = proxy.client();
    CAPTURE(scan_resistance);
    check_allocates_nothing(proxy, client, next_keys("GET", 1));
    check_allocates_nothing(proxy, client, next_keys("MGET", 4));
  }
}
