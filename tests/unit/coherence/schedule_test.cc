#include "nearcached/coherence/schedule.h"

#include <catch2/catch.hpp>
#include <random>

#include "../resp/heap_copy.h"

using namespace nearcached;
using namespace nearcached::coherence;

namespace {

bool same(const Schedule& a, const Schedule& b) {
  return a.kind == b.kind && a.due_ms == b.due_ms && a.every_ms == b.every_ms &&
         a.upstream == b.upstream && a.database == b.database && a.base_ms == b.base_ms &&
         a.what == b.what;
}

bool parses(const std::string& text) {
  const HeapCopy copy(text);
  Schedule schedule;
  return schedule.parse(copy.bytes());
}

Schedule due_at(uint64_t due_ms, uint64_t every_ms, uint64_t base_ms = 0) {
  Schedule schedule;
  schedule.due_ms = due_ms;
  schedule.every_ms = every_ms;
  schedule.base_ms = base_ms;
  return schedule;
}

}  // namespace

TEST_CASE("a schedule reads back as it was written, whatever it is about", "[schedule]") {
  std::mt19937_64 random(3);
  const std::string whats[] = {"", "key", " ", "1 2 3", std::string("\0\r\n \xFF", 5), "user:*"};
  for (int i = 0; i < 10'000; ++i) {
    Schedule written;
    written.kind = random() % 2 == 0 ? Schedule::Kind::invalidate : Schedule::Kind::pattern;
    written.due_ms = random() >> random() % 64;
    written.every_ms = random() >> random() % 64;
    written.upstream = random() % 2 == 0;
    written.database = static_cast<uint32_t>(random());
    written.base_ms = random() % 2 == 0 ? 0 : random();
    written.what = whats[random() % std::size(whats)];
    const HeapCopy text(written.to_text());
    Schedule read;
    REQUIRE(read.parse(text.bytes()));
    REQUIRE(same(read, written));
  }
}

TEST_CASE("the text of a schedule is what other proxies expect", "[schedule]") {
  Schedule schedule;
  schedule.kind = Schedule::Kind::pattern;
  schedule.due_ms = 1'700'000'000'000;
  schedule.every_ms = 60'000;
  schedule.upstream = true;
  schedule.database = 3;
  schedule.base_ms = 5;
  schedule.what = "a b";
  CHECK(schedule.to_text() == "1 1 1700000000000 60000 1 3 5 a b");
}

TEST_CASE("what is not a schedule is told from one", "[schedule]") {
  const std::string sound = "1 1 1700000000000 60000 1 3 5 what";
  REQUIRE(parses(sound));
  REQUIRE(parses("1 0 0 0 0 0 0 "));
  for (size_t size = 0; size <= sound.size() - 5; ++size) {
    INFO(size);
    CHECK_FALSE(parses(sound.substr(0, size)));
  }
  for (const char* text :
       {"2 0 0 0 0 0 0 k", "0 0 0 0 0 0 0 k", "1 2 0 0 0 0 0 k", "1 0 0 0 2 0 0 k",
        "1 0 0 0 0 4294967296 0 k", "1 0 -1 0 0 0 0 k", "1 0 +1 0 0 0 0 k", " 1 0 0 0 0 0 0 k",
        "1  0 0 0 0 0 0 k", "1 0 0x1 0 0 0 0 k", "1 0 18446744073709551616 0 0 0 0 k",
        "1 0 1.5 0 0 0 0 k", "1,0,0,0,0,0,0,k", "1 0 0 0 0 0 0", "garbage", ""}) {
    INFO(text);
    CHECK_FALSE(parses(text));
  }
}

TEST_CASE("random bytes are parsed without a byte read beyond them", "[schedule]") {
  std::mt19937_64 random(9);
  const std::string sound = "1 1 1700000000000 60000 1 3 5 what";
  for (int i = 0; i < 100'000; ++i) {
    std::string text = sound;
    for (uint64_t damage = 1 + random() % 5; damage > 0; --damage)
      text[random() % text.size()] = "0123456789 -x\0"[random() % 14];
    text.resize(random() % (text.size() + 1));
    const HeapCopy copy(text);
    Schedule schedule;
    if (!schedule.parse(copy.bytes())) continue;
    Schedule again;
    REQUIRE(again.parse(schedule.to_text()));
    REQUIRE(same(again, schedule));
  }
}

TEST_CASE("what is due once is due never again", "[schedule]") {
  CHECK(due_at(1'000, 0).next_ms(0) == 0);
  CHECK(due_at(1'000, 0).next_ms(5'000) == 0);
}

TEST_CASE("a time still ahead stays", "[schedule]") {
  CHECK(due_at(1'000, 100).next_ms(999) == 1'000);
}

TEST_CASE("what is due again keeps its rhythm and skips what has passed", "[schedule]") {
  CHECK(due_at(1'000, 100).next_ms(1'000) == 1'100);
  CHECK(due_at(1'000, 100).next_ms(1'099) == 1'100);
  CHECK(due_at(1'000, 100).next_ms(1'100) == 1'200);
  CHECK(due_at(1'000, 100).next_ms(9'999'950) == 10'000'000);
  CHECK(due_at(1'000, 1).next_ms(1'700'000'000'000) == 1'700'000'000'001);
}

TEST_CASE("after a lease the rhythm is that of the time it was taken for", "[schedule]") {
  CHECK(due_at(601'000, 100, 1'000).next_ms(1'250) == 1'300);
  CHECK(due_at(601'000, 100'000, 1'000).next_ms(1'250) == 101'000);
  CHECK(due_at(601'000, 0, 1'000).next_ms(1'250) == 0);
}
