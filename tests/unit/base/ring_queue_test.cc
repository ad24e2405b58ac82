#include "nearcached/base/ring_queue.h"

#include <catch2/catch.hpp>
#include <deque>
#include <memory>
#include <random>

using namespace nearcached;

TEST_CASE("what is pushed first is popped first", "[ring]") {
  RingQueue<int> queue;
  for (int i = 0; i < 1'000; ++i) queue.push_back(i);
  CHECK(queue.size() == 1'000);
  for (int i = 0; i < 1'000; ++i) {
    REQUIRE(queue.front() == i);
    queue.pop_front();
  }
  CHECK(queue.empty());
}

TEST_CASE("the order survives growth while the ring is wrapped", "[ring]") {
  // Eight is the first capacity: the front stands at each place of it when the ring has to grow.
  for (int popped = 0; popped < 8; ++popped) {
    RingQueue<int> queue;
    for (int i = 0; i < 8; ++i) queue.push_back(i);
    for (int i = 0; i < popped; ++i) queue.pop_front();
    for (int i = 8; i < 8 + popped + 1; ++i) queue.push_back(i);
    REQUIRE(queue.size() == 9);
    for (size_t i = 0; i < 9; ++i) REQUIRE(queue[i] == popped + static_cast<int>(i));
    CHECK(queue.back() == popped + 8);
  }
}

TEST_CASE("pop_back takes the youngest and leaves the rest", "[ring]") {
  RingQueue<int> queue;
  for (int i = 0; i < 5; ++i) queue.push_back(i);
  queue.pop_back();
  CHECK(queue.size() == 4);
  CHECK(queue.back() == 3);
  queue.push_back(9);
  CHECK(queue[4] == 9);
  CHECK(queue.front() == 0);
}

TEST_CASE("what is popped is destroyed at once", "[ring]") {
  RingQueue<std::shared_ptr<int>> queue;
  const auto first = std::make_shared<int>(1), last = std::make_shared<int>(2);
  queue.push_back(first);
  queue.push_back(last);
  queue.pop_back();
  CHECK(last.use_count() == 1);
  CHECK(first.use_count() == 2);
  queue.pop_front();
  CHECK(first.use_count() == 1);
}

TEST_CASE("a ring that was large is given back when it runs empty", "[ring]") {
  struct Counted {
    Counted() { ++alive(); }
    Counted(Counted&&) { ++alive(); }
    Counted& operator=(Counted&&) = default;
    ~Counted() { --alive(); }
    static int& alive() {
      static int count = 0;
      return count;
    }
  };
  RingQueue<Counted> queue;
  CHECK(Counted::alive() == 0);
  for (int i = 0; i < 256; ++i) queue.push_back({});
  for (int i = 0; i < 256; ++i) queue.pop_front();
  CHECK(Counted::alive() == 256);  // an ordinary ring is kept: no allocation in steady state
  for (int i = 0; i < 257; ++i) queue.push_back({});
  for (int i = 0; i < 256; ++i) queue.pop_front();
  CHECK(Counted::alive() == 512);
  queue.pop_front();
  CHECK(Counted::alive() == 0);
  queue.push_back({});
  CHECK(queue.size() == 1);
}

TEST_CASE("a ring does what a deque does, whatever is asked of it", "[ring]") {
  std::mt19937 random(1);
  for (int run = 0; run < 50; ++run) {
    RingQueue<int> queue;
    std::deque<int> model;
    const auto pushes_of_10 = 3 + random() % 5;
    for (int step = 0; step < 2'000; ++step) {
      if (random() % 10 < pushes_of_10) {
        queue.push_back(step);
        model.push_back(step);
      } else if (!model.empty()) {
        if (random() % 4 == 0) {
          queue.pop_back();
          model.pop_back();
        } else {
          queue.pop_front();
          model.pop_front();
        }
      }
      REQUIRE(queue.size() == model.size());
      REQUIRE(queue.empty() == model.empty());
      if (model.empty()) continue;
      const size_t i = random() % model.size();
      REQUIRE(queue[i] == model[i]);
      REQUIRE(queue.front() == model.front());
      REQUIRE(queue.back() == model.back());
    }
  }
}
