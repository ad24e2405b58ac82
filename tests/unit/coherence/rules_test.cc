// Each rule at both sides of each of its boundaries, and what the rules make of the stamp table
// together: the histories in which caches go wrong, step by step.
#include "nearcached/coherence/rules.h"

#include <catch2/catch.hpp>
#include <string>

#include "nearcached/coherence/stamp_table.h"

using namespace nearcached;
using namespace nearcached::coherence;

namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kStaleness = 500 * kMs;
constexpr FillTtls kTtls{60'000, 5'000};

LaneProof proven_at(uint64_t ns) {
  return {.space = 1, .tracking = true, .master_ns = ns, .link_ns = ns};
}

/// A verdict on a reply whose fill was started at 10 s under stamp 0 in space 1, with nothing
/// since.
Verdict judge(int64_t pttl, bool missing, const FillTtls& ttls = kTtls) {
  return judge_fill({0, 1, 10'000 * kMs}, 0, 1, pttl, missing, ttls);
}

}  // namespace

TEST_CASE("a hit needs a proof that is younger than max_staleness", "[rules]") {
  const LaneProof lane = proven_at(1'000 * kMs);
  CHECK(may_serve(lane, {}, 1'000 * kMs, kStaleness));
  CHECK(may_serve(lane, {}, 1'500 * kMs - 1, kStaleness));
  CHECK_FALSE(may_serve(lane, {}, 1'500 * kMs, kStaleness));
  CHECK_FALSE(may_serve(lane, {}, 9'000 * kMs, kStaleness));
}

TEST_CASE("the answer of something else than a primary proves nothing", "[rules]") {
  LaneProof lane = proven_at(1'000 * kMs);
  lane.master_ns = 0;
  CHECK_FALSE(may_serve(lane, {}, 1'000 * kMs, kStaleness));
}

TEST_CASE("a lane that the server does not push to serves nothing", "[rules]") {
  LaneProof lane = proven_at(1'000 * kMs);
  lane.tracking = false;
  CHECK_FALSE(may_serve(lane, {}, 1'000 * kMs, kStaleness));
}

TEST_CASE("no hit is served behind an unanswered request of the same session", "[rules]") {
  const LaneProof lane = proven_at(1'000 * kMs);
  CHECK(may_serve(lane, {.floor_ns = 0, .replies_pending = false}, 1'001 * kMs, kStaleness));
  CHECK_FALSE(may_serve(lane, {.floor_ns = 0, .replies_pending = true}, 1'001 * kMs, kStaleness));
}

TEST_CASE("a session that read elsewhere waits until the lane has caught up", "[rules]") {
  LaneProof lane = proven_at(1'000 * kMs);
  CHECK_FALSE(may_serve(lane, {.floor_ns = 1'000 * kMs + 1, .replies_pending = false}, 1'001 * kMs,
                        kStaleness));
  CHECK(may_serve(lane, {.floor_ns = 1'000 * kMs, .replies_pending = false}, 1'001 * kMs,
                  kStaleness));
  lane.link_ns = 1'000 * kMs + 1;
  CHECK(may_serve(lane, {.floor_ns = 1'000 * kMs + 1, .replies_pending = false}, 1'001 * kMs,
                  kStaleness));
}

TEST_CASE("over the bus nothing counts as proven that the bus has not proven", "[rules]") {
  LaneProof lane = proven_at(1'000 * kMs);
  lane.link_ns = 1'400 * kMs;
  const SessionView saw_a_reply{.floor_ns = 1'300 * kMs, .replies_pending = false};
  CHECK(may_serve(lane, saw_a_reply, 1'400 * kMs, kStaleness));
  CHECK_FALSE(may_serve(over_bus(lane, 1'200 * kMs), saw_a_reply, 1'400 * kMs, kStaleness));
  CHECK(may_serve(over_bus(lane, 1'300 * kMs), saw_a_reply, 1'400 * kMs, kStaleness));
  CHECK_FALSE(may_serve(over_bus(lane, 0), {}, 1'400 * kMs, kStaleness));
  CHECK_FALSE(may_serve(over_bus(lane, 900 * kMs), {}, 1'400 * kMs, kStaleness));
}

TEST_CASE("the bus proves nothing of the primary", "[rules]") {
  CHECK_FALSE(may_serve(over_bus(proven_at(800 * kMs), 1'400 * kMs), {}, 1'400 * kMs, kStaleness));
}

TEST_CASE("an item holds only under exactly the stamp it was filled under", "[rules]") {
  StampTable table(1024);
  const uint64_t filled = table.load(7);
  CHECK(stamp_holds(filled, table.load(7)));
  table.begin_write(7);
  CHECK_FALSE(stamp_holds(filled, table.load(7)));
  table.end_write(7);
  CHECK_FALSE(stamp_holds(filled, table.load(7)));
}

TEST_CASE("an item is dead after somebody else's write", "[rules]") {
  StampTable table(1024);
  const uint64_t filled = table.load(7);
  table.invalidate(7);
  CHECK_FALSE(stamp_holds(filled, table.load(7)));
}

TEST_CASE("nothing read while a write was under way holds after its end", "[rules]") {
  StampTable table(1024);
  table.begin_write(7);
  const uint64_t during = table.load(7);
  CHECK_FALSE(may_fill(during));
  table.end_write(7);
  CHECK_FALSE(stamp_holds(during, table.load(7)));
  CHECK(may_fill(table.load(7)));
}

TEST_CASE("a read fills again only when the last of several writes has ended", "[rules]") {
  StampTable table(1024);
  table.begin_write(7);
  table.begin_write(7);
  table.end_write(7);
  CHECK_FALSE(may_fill(table.load(7)));
  table.end_write(7);
  CHECK(may_fill(table.load(7)));
}

TEST_CASE("a flight is joined while nothing has changed since its start", "[rules]") {
  StampTable table(1024);
  const FillStart flight{table.load(7), 3, 10 * kMs};
  CHECK(may_join(flight, table.load(7), 3, 0));
  table.invalidate(8 << 16);
  CHECK(may_join(flight, table.load(7), 3, 0));
}

TEST_CASE("a read never joins a flight that was sent before a pattern was accepted", "[rules]") {
  StampTable table(1024);
  const FillStart flight{table.load(7), 3, 10 * kMs};
  CHECK(may_join(flight, table.load(7), 3, 10 * kMs - 1));
  CHECK_FALSE(may_join(flight, table.load(7), 3, 10 * kMs));
}

TEST_CASE("a read never joins a flight from before a write, an invalidation or an epoch",
          "[rules]") {
  StampTable table(1024);
  const FillStart flight{table.load(7), 3, 10 * kMs};
  CHECK_FALSE(may_join(flight, table.load(7), 4, 0));
  SECTION("a write that has ended") {
    table.begin_write(7);
    table.end_write(7);
  }
  SECTION("a write that is under way") { table.begin_write(7); }
  SECTION("an invalidation") { table.invalidate(7); }
  CHECK_FALSE(may_join(flight, table.load(7), 3, 0));
}

TEST_CASE("a fill is kept only if stamp and epoch are those of its start", "[rules]") {
  const FillStart start{5 * StampTable::kVersion, 3, 10'000 * kMs};
  CHECK(judge_fill(start, start.stamp, 3, -1, false, kTtls).store);
  CHECK_FALSE(judge_fill(start, start.stamp + StampTable::kVersion, 3, -1, false, kTtls).store);
  CHECK_FALSE(judge_fill(start, start.stamp + StampTable::kInFlight, 3, -1, false, kTtls).store);
  CHECK_FALSE(judge_fill(start, start.stamp, 4, -1, false, kTtls).store);
}

TEST_CASE("a value without expiry lives for the ttl, counted from the send", "[rules]") {
  const Verdict verdict = judge(-1, false);
  CHECK(verdict.store);
  CHECK_FALSE(verdict.negative);
  CHECK(verdict.expires_ms == 10'000 + 60'000);
}

TEST_CASE("a value never outlives its key", "[rules]") {
  CHECK(judge(59'999, false).expires_ms == 10'000 + 59'999);
  CHECK(judge(60'000, false).expires_ms == 10'000 + 60'000);
  CHECK(judge(60'001, false).expires_ms == 10'000 + 60'000);
  CHECK(judge(1, false).expires_ms == 10'001);
  CHECK_FALSE(judge(0, false).store);
}

TEST_CASE("a part of a millisecond of the send is never added to a life", "[rules]") {
  const FillStart start{0, 1, 10'000 * kMs + 999'999};
  CHECK(judge_fill(start, 0, 1, 7, false, kTtls).expires_ms == 10'007);
}

TEST_CASE("a missing key lives for the negative ttl", "[rules]") {
  const Verdict verdict = judge(-2, true);
  CHECK(verdict.store);
  CHECK(verdict.negative);
  CHECK(verdict.expires_ms == 10'000 + 5'000);
}

TEST_CASE("a value whose key was gone by PTTL is not kept", "[rules]") {
  CHECK_FALSE(judge(-2, false).store);
}

TEST_CASE("a value that looks like a missing key's is an ordinary one if the key is there",
          "[rules]") {
  const Verdict verdict = judge(-1, true);
  CHECK(verdict.store);
  CHECK_FALSE(verdict.negative);
  CHECK(verdict.expires_ms == 10'000 + 60'000);
}

TEST_CASE("an answer that PTTL cannot give keeps nothing", "[rules]") {
  CHECK_FALSE(judge(-3, false).store);
  CHECK_FALSE(judge(INT64_MIN, true).store);
}

TEST_CASE("a ttl of zero keeps nothing of its kind", "[rules]") {
  CHECK_FALSE(judge(-1, false, {0, 5'000}).store);
  CHECK(judge(-2, true, {0, 5'000}).store);
  CHECK_FALSE(judge(-2, true, {60'000, 0}).store);
  CHECK(judge(-1, false, {60'000, 0}).store);
}

TEST_CASE("every reply that a missing key gives looks missing", "[rules]") {
  for (const std::string reply :
       {"_\r\n", "$-1\r\n", "*-1\r\n", ":0\r\n", ":-1\r\n", "+none\r\n", "#f\r\n", "$0\r\n\r\n",
        "*0\r\n", "%0\r\n", "~0\r\n", "*1\r\n_\r\n", "*3\r\n:0\r\n:0\r\n:0\r\n",
        "*2\r\n$0\r\n\r\n$-1\r\n", "*2\r\n*0\r\n_\r\n"}) {
    INFO(reply);
    CHECK(looks_missing(reply));
  }
}

TEST_CASE("a reply with anything in it does not look missing", "[rules]") {
  for (const std::string reply :
       {"$1\r\nv\r\n", "$1\r\n_\r\n", "$2\r\n:0\r\n", "$4\r\n+no\r\n\r\n", ":1\r\n", ":-2\r\n",
        ":00\r\n", "+string\r\n", "+nonesuch\r\n", "#t\r\n", ",0\r\n", "-ERR none\r\n",
        "*1\r\n$1\r\nv\r\n", "*2\r\n_\r\n$1\r\nv\r\n", "*2\r\n$1\r\nv\r\n_\r\n",
        "%1\r\n$1\r\nf\r\n$0\r\n\r\n", "~1\r\n$1\r\nm\r\n", "*2\r\n:0\r\n:1\r\n",
        "*2\r\n$0\r\n\r\n$1\r\nv\r\n"}) {
    INFO(reply);
    CHECK_FALSE(looks_missing(reply));
  }
}

TEST_CASE("a reply that is cut anywhere within a line does not look missing", "[rules]") {
  const std::string whole = "*2\r\n_\r\n:0\r\n";
  for (const size_t size : {1, 2, 3, 5, 6, 8, 9, 10}) {
    INFO(size);
    const std::string piece = whole.substr(0, size);
    CHECK_FALSE(looks_missing(piece));
  }
}
