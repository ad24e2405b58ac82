#include "client/reply_queue.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

using namespace nearcached;

namespace {

std::string taken(ReplyQueue& queue) {
  std::string text(queue.out().readable());
  queue.out().clear();
  return text;
}

}  // namespace

TEST_CASE("replies leave in the order of the requests, whatever the order they come in",
          "[replies]") {
  std::vector<size_t> order{0, 1, 2, 3, 4};
  do {
    ReplyQueue queue;
    std::vector<ReplyQueue::Slot> slots;
    for (size_t i = 0; i < order.size(); ++i) slots.push_back(queue.reserve(false));
    for (const size_t i : order) queue.deliver(slots[i], std::to_string(i), true);
    REQUIRE(taken(queue) == "01234");
    REQUIRE(queue.empty());
    REQUIRE(queue.bytes() == 0);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("pieces of the front reply leave as they come, those of a later one wait", "[replies]") {
  ReplyQueue queue;
  const auto first = queue.reserve(false), second = queue.reserve(false);
  queue.deliver(second, "b1", false);
  queue.deliver(first, "a1", false);
  CHECK(taken(queue) == "a1");
  CHECK(queue.bytes() == 2);
  queue.deliver(first, "a2", true);
  CHECK(taken(queue) == "a2b1");
  CHECK(queue.outstanding() == 1);
  queue.deliver(second, "b2", true);
  CHECK(taken(queue) == "b2");
  CHECK(queue.empty());
}

TEST_CASE("a held reply stays back until its release, and all that follow with it", "[replies]") {
  ReplyQueue queue;
  const auto first = queue.reserve(false), held = queue.reserve(false), last = queue.reserve(false);
  queue.hold(held);
  queue.deliver(held, "b", true);
  queue.deliver(last, "c", true);
  queue.deliver(first, "a", true);
  CHECK(taken(queue) == "a");
  CHECK(queue.outstanding() == 2);
  CHECK(queue.bytes() == 2);
  queue.release(held);
  CHECK(taken(queue) == "bc");
  CHECK(queue.empty());
}

TEST_CASE("a hold at the front keeps even pieces back", "[replies]") {
  ReplyQueue queue;
  const auto slot = queue.reserve(false);
  queue.hold(slot);
  queue.deliver(slot, "a1", false);
  CHECK(taken(queue).empty());
  queue.release(slot);
  CHECK(taken(queue) == "a1");
  queue.deliver(slot, "a2", true);
  CHECK(taken(queue) == "a2");
}

TEST_CASE("a release before the reply changes nothing", "[replies]") {
  ReplyQueue queue;
  const auto slot = queue.reserve(false);
  queue.hold(slot);
  queue.release(slot);
  CHECK(queue.outstanding() == 1);
  queue.deliver(slot, "a", true);
  CHECK(taken(queue) == "a");
}

TEST_CASE("a release behind an unanswered request lets nothing overtake it", "[replies]") {
  ReplyQueue queue;
  const auto first = queue.reserve(false), held = queue.reserve(false);
  queue.hold(held);
  queue.deliver(held, "b", true);
  queue.release(held);
  CHECK(taken(queue).empty());
  queue.deliver(first, "a", true);
  CHECK(taken(queue) == "ab");
}

TEST_CASE("a mute reply is dropped in its turn and holds no bytes", "[replies]") {
  ReplyQueue queue;
  const auto first = queue.reserve(false), mute = queue.reserve(true), last = queue.reserve(false);
  queue.deliver(mute, "never", true);
  CHECK(queue.bytes() == 0);
  queue.deliver(last, "c", true);
  queue.deliver(first, "a", true);
  CHECK(taken(queue) == "ac");
  CHECK(queue.empty());
}

TEST_CASE("a mute request still holds its place", "[replies]") {
  ReplyQueue queue;
  const auto mute = queue.reserve(true), last = queue.reserve(false);
  queue.deliver(last, "b", true);
  CHECK(taken(queue).empty());
  queue.deliver(mute, "never", false);
  CHECK(taken(queue).empty());
  queue.deliver(mute, "", true);
  CHECK(taken(queue) == "b");
}

TEST_CASE("a slot is open from its request to the end of its reply", "[replies]") {
  ReplyQueue queue;
  const auto first = queue.reserve(false), second = queue.reserve(false);
  CHECK(queue.is_open(first));
  queue.deliver(second, "b", false);
  CHECK(queue.is_open(second));
  queue.deliver(second, "b", true);
  CHECK_FALSE(queue.is_open(second));
  queue.deliver(first, "a", true);
  CHECK_FALSE(queue.is_open(first));
  CHECK_FALSE(queue.is_open(second));
  CHECK_FALSE(queue.is_open(second + 1));
}

TEST_CASE("a queue with nothing outstanding and nothing to write owns no memory", "[replies]") {
  ReplyQueue queue;
  CHECK(queue.out().capacity() == 0);
  std::vector<ReplyQueue::Slot> slots;
  for (int i = 0; i < 10; ++i) slots.push_back(queue.reserve(false));
  for (size_t i = slots.size(); i-- > 0;) queue.deliver(slots[i], std::string(1'000, 'x'), true);
  CHECK(queue.bytes() == 10'000);
  queue.out().consume(10'000);
  CHECK(queue.out().capacity() == 0);
  CHECK(queue.bytes() == 0);
}

TEST_CASE("a message out of band goes in front of the first reply that is still owed",
          "[replies]") {
  ReplyQueue queue;
  const auto first = queue.reserve(false), second = queue.reserve(false),
             third = queue.reserve(false);
  queue.out_of_band("0>", &first);
  queue.hold(second);
  queue.deliver(second, "b", true);
  queue.out_of_band("2>", &third);
  queue.deliver(third, "c", true);
  queue.out_of_band("end>", nullptr);
  queue.deliver(first, "a", true);
  CHECK(taken(queue) == "0>a");
  queue.release(second);
  CHECK(taken(queue) == "b2>cend>");
}

TEST_CASE("in any history replies leave whole, in order, and none before its release",
          "[replies]") {
  struct Request {
    ReplyQueue::Slot slot;
    std::string reply;
    size_t delivered = 0;
    bool complete = false, held = false, mute = false;
  };
  std::mt19937 random(7);
  for (int run = 0; run < 300; ++run) {
    ReplyQueue queue;
    std::vector<Request> requests;
    std::string seen;
    // What may have left by now: the model looks at the whole history, the queue only at its slots.
    const auto expected = [&] {
      std::string text;
      for (const Request& r : requests) {
        if (r.held) break;
        if (!r.mute) text += r.reply.substr(0, r.delivered);
        if (!r.complete) break;
      }
      return text;
    };
    for (int step = 0; step < 400; ++step) {
      const unsigned what = random() % 8;
      if (requests.empty() || what < 2) {
        Request r;
        r.mute = random() % 8 == 0;
        r.slot = queue.reserve(r.mute);
        r.reply = "<" + std::to_string(requests.size()) + std::string(random() % 30, '.') + ">";
        if (random() % 5 == 0) {
          queue.hold(r.slot);
          r.held = true;
        }
        requests.push_back(std::move(r));
      } else {
        Request& r =
            requests[requests.size() - 1 - random() % std::min<size_t>(requests.size(), 12)];
        if (what == 2 && r.held) {
          queue.release(r.slot);
          r.held = false;
        } else if (!r.complete) {
          const size_t size = random() % (r.reply.size() - r.delivered + 1);
          r.complete = r.delivered + size == r.reply.size();
          queue.deliver(r.slot, Bytes(r.reply).substr(r.delivered, size), r.complete);
          r.delivered += size;
        }
        REQUIRE(queue.is_open(r.slot) == !r.complete);
      }
      if (random() % 3 == 0) seen += taken(queue);
      REQUIRE(seen + std::string(queue.out().readable()) == expected());
    }
    for (Request& r : requests) {
      if (!r.complete) queue.deliver(r.slot, Bytes(r.reply).substr(r.delivered), true);
      r.delivered = r.reply.size();
      r.complete = true;
      if (r.held) queue.release(r.slot);
      r.held = false;
    }
    seen += taken(queue);
    REQUIRE(seen == expected());
    REQUIRE(queue.empty());
    REQUIRE(queue.bytes() == 0);
  }
}
