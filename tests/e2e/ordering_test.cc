// Three ways in which a cache is caught lying, each with many clients at once: the effect is seen
// before its cause; a transaction is built on a value that was no longer true; a key is read after
// its end.
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "harness/forwarder.h"
#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;

namespace {

int64_t number_in(const std::string& bulk_reply) {
  return bulk_reply[1] == '-' ? -1 : std::stoll(bulk_reply.substr(bulk_reply.find('\n') + 1));
}

/// Throws in a thread would end the program: they are counted, and the test fails by the count.
template <typename Body>
std::thread guarded(std::atomic<int>& failures, Body body) {
  return std::thread([&failures, body] {
    try {
      body();
    } catch (const std::exception&) {
      ++failures;
    }
  });
}

constexpr size_t kPairs = 8;

std::string cause(size_t pair) { return "a" + std::to_string(pair); }
std::string effect(size_t pair) { return "b" + std::to_string(pair); }

/// A session that reads effects and then causes, and remembers the newest effect of each pair.
class Witness {
 public:
  Witness(uint16_t port, unsigned seed) : client_(port), random_(seed) {}

  /// How many of the causes read were older than an effect that had been read before.
  int look() {
    const size_t pair = random_() % kPairs;
    switch (random_() % 16) {
      case 0:
        learn(pair, client_.ask({"GET", effect(pair)}));
        return judge(pair, client_.ask({"GET", cause(pair)}));
      case 1:  // the effect never from memory
        learn(pair, client_.ask(uncached(pair)));
        return judge(pair, client_.ask({"GET", cause(pair)}));
      case 2:  // the same, and the cause is asked for before that is answered
        client_.send(encode(uncached(pair)) + encode({"GET", cause(pair)}));
        learn(pair, client_.read_reply());
        return judge(pair, client_.read_reply());
      case 3:  // both by MGET, and the cause again
        return look_by_mget(pair);
      case 4:  // only the cause, so that it is held when its effect is not
        return judge(pair, client_.ask({"GET", cause(pair)}));
      default: return look_by_pipeline();
    }
  }

 private:
  static Args uncached(size_t pair) {
    return {"EVAL_RO", "return redis.call('GET', KEYS[1])", "1", effect(pair)};
  }

  int look_by_mget(size_t pair) {
    const std::string both = client_.ask({"MGET", cause(pair), effect(pair)}).substr(4);
    const std::string second = both.substr(both.find('\n', both.find('\n') + 1) + 1);
    const int before = judge(pair, both);
    learn(pair, second);
    return before + judge(pair, client_.ask({"GET", cause(pair)}));
  }

  /// Misses between, so that hits are asked for behind requests that are not answered yet.
  int look_by_pipeline() {
    std::string requests;
    for (size_t pair = 0; pair < kPairs; ++pair) {
      requests += encode({"GET", effect(pair)});
      between_[pair] = random_() % 64 == 0;
      if (between_[pair]) requests += encode({"GET", "miss:" + std::to_string(++misses_)});
      requests += encode({"GET", cause(pair)});
    }
    client_.send(requests);
    int wrong = 0;
    for (size_t pair = 0; pair < kPairs; ++pair) {
      learn(pair, client_.read_reply());
      if (between_[pair]) client_.read_reply();
      wrong += judge(pair, client_.read_reply());
    }
    return wrong;
  }

  void learn(size_t pair, const std::string& reply) {
    effects_[pair] = std::max(effects_[pair], number_in(reply));
  }
  int judge(size_t pair, const std::string& reply) const {
    return number_in(reply) < effects_[pair] ? 1 : 0;
  }

  RawClient client_;
  std::mt19937 random_;
  uint64_t misses_ = 0;
  int64_t effects_[kPairs] = {};
  bool between_[kPairs] = {};
};

}  // namespace

TEST_CASE("in 100,000 hits nobody who has read an effect reads an older cause",
          "[coherence][ordering]") {
  constexpr uint64_t kHits = 100'000;
  RedisServer redis;
  Forwarder wire(redis.port(), 4096);
  Forwarder::Weather slow;
  slow.delay = 3ms;
  wire.set_weather(slow);
  Proxy proxy(wire.port());
  for (size_t pair = 0; pair < kPairs; ++pair)
    redis.client()({"MSET", cause(pair), "0", effect(pair), "0"});

  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, failures{0};
  std::vector<std::thread> threads;
  threads.push_back(guarded(failures, [&] {
    Client around = redis.client();
    for (int i = 1; !stop; ++i) {
      const size_t pair = static_cast<size_t>(i) % kPairs;
      around({"SET", cause(pair), std::to_string(i)});
      around({"SET", effect(pair), std::to_string(i)});
      std::this_thread::sleep_for(10ms);  // more than a fill takes: else there would be no hits
    }
  }));
  for (unsigned reader = 0; reader < 4; ++reader)
    threads.push_back(guarded(failures, [&, reader] {
      Witness witness(proxy.port(), reader);
      while (!stop) wrong += witness.look();
    }));
  const bool enough = wait_until(
      [&] {
        std::this_thread::sleep_for(50ms);
        return wrong > 0 || failures > 0 || proxy.count("l1_hits") >= kHits;
      },
      120s);
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(failures == 0);
  CHECK(enough);
  CHECK(proxy.count("l1_misses") > 100);  // the link was in use, and so was its order
}

TEST_CASE("counters by WATCH, GET, MULTI and EXEC lose no update", "[coherence][ordering]") {
  constexpr int kEach = 150;
  Stack stack;
  stack.redis.client()("SET counter 0");
  std::atomic<int> failures{0}, conflicts{0}, counting{0};
  const auto count_up = [&](uint16_t port) {
    Client client(port);
    for (int done = 0; done < kEach;) {
      client("GET counter");  // as others do: it is held in L1
      client("WATCH counter");
      const std::string value = client("GET counter");
      client("MULTI");
      client({"SET", "counter", std::to_string(std::stoi(value) + 1)});
      if (client("EXEC") == "[OK]") ++done;
      else ++conflicts;
    }
    --counting;
  };
  std::vector<std::thread> threads;
  for (const uint16_t port : {stack.proxy.port(), stack.proxy.port(), stack.proxy.port(),
                              stack.proxy.port(), stack.redis.port()}) {
    ++counting;
    threads.push_back(guarded(failures, [&, port] { count_up(port); }));
  }
  threads.push_back(guarded(failures, [&] {
    Client reader = stack.proxy.client();
    int last = 0;
    while (counting > 0 && failures == 0) {
      const int value = std::stoi(reader("GET counter"));
      if (value < last) ++failures;
      last = value;
    }
  }));
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(conflicts > 0);
  CHECK(stack.redis.client()("GET counter") == std::to_string(5 * kEach));
  CHECK(stack.proxy.client()("GET counter") == std::to_string(5 * kEach));
  CHECK(stack.proxy.count("l1_hits") > 0);
}

TEST_CASE("keys that end among 200,000 long-lived ones are never read past their end",
          "[coherence][ordering]") {
  // Redis looks for expired keys by samples, so among so many it reports the end of these late or
  // not at all. The deadline is absolute and Redis's clock is asked before each reading, so that no
  // pause of this test can make a right answer look late.
  constexpr int kKeys = 100;
  Stack stack;
  Client direct = stack.redis.client();
  REQUIRE(direct({"EVAL",
                  "for i = 1, 200000 do redis.call('SET', 'long:' .. i, 'v', 'EX', 10000) end "
                  "return 'filled'",
                  "0"}) == "filled");
  const auto now_ms = [&] {
    const std::string time = direct("TIME");  // [seconds microseconds]
    const size_t space = time.find(' ');
    return std::stoll(time.substr(1, space - 1)) * 1000 + std::stoll(time.substr(space + 1)) / 1000;
  };
  const int64_t began = now_ms();
  std::vector<int64_t> ends;
  for (int i = 0; i < kKeys; ++i) {
    ends.push_back(began + 500 + i * 20);
    direct({"SET", "short:" + std::to_string(i), "v", "PXAT", std::to_string(ends.back())});
  }
  std::vector<RawClient> readers;
  for (int i = 0; i < 4; ++i) readers.emplace_back(stack.proxy.port());
  std::string all;
  for (int i = 0; i < kKeys; ++i) all += encode({"GET", "short:" + std::to_string(i)});

  int past_end = 0, alive = 0;
  for (int64_t now = began; now <= ends.back() + 200;) {
    for (RawClient& reader : readers) {
      now = now_ms();
      reader.send(all);
      for (const int64_t end : ends) {
        const bool found = reader.read_reply() != "$-1\r\n";
        alive += found ? 1 : 0;
        past_end += found && now > end ? 1 : 0;
      }
    }
  }
  CHECK(past_end == 0);
  CHECK(alive > kKeys);
  CHECK(stack.proxy.count("l1_hits") > 1000);
}
