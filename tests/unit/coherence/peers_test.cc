// What counts as missed: each way in which a peer's messages can fail to arrive, and the ways in
// which they merely arrive late.
#include "nearcached/coherence/peers.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

using namespace nearcached;
using namespace nearcached::coherence;

namespace {

constexpr uint64_t kPeer = 77;
constexpr uint64_t kSilence = 500;

/// A table that has heard of kPeer, all of whose messages up to `all` have been executed.
PeerTable knowing(uint64_t all, uint64_t now = 0) {
  PeerTable peers(8, kSilence);
  REQUIRE(peers.on_heartbeat(kPeer, all, now));
  return peers;
}

}  // namespace

TEST_CASE("a peer that is new may have written before, whatever its first word", "[peers]") {
  PeerTable peers(8, kSilence);
  CHECK(peers.on_message(1, 1, 0));
  CHECK(peers.on_heartbeat(2, 0, 0));
  CHECK(peers.on_heartbeat(3, 1'000, 0));
  CHECK(peers.size() == 3);
  CHECK_FALSE(peers.on_message(1, 2, 0));
  CHECK_FALSE(peers.on_heartbeat(2, 0, 0));
  CHECK_FALSE(peers.on_heartbeat(3, 1'000, 0));
}

TEST_CASE("a message that is lost is a gap by the next heartbeat, once", "[peers]") {
  PeerTable peers = knowing(10);
  CHECK_FALSE(peers.on_message(kPeer, 11, 0));
  CHECK_FALSE(peers.on_message(kPeer, 13, 0));
  CHECK_FALSE(peers.on_heartbeat(kPeer, 11, 0));
  CHECK(peers.on_heartbeat(kPeer, 13, 0));
  CHECK_FALSE(peers.on_heartbeat(kPeer, 13, 0));
  CHECK_FALSE(peers.on_message(kPeer, 14, 0));
  CHECK_FALSE(peers.on_heartbeat(kPeer, 14, 0));
}

TEST_CASE("the last message before a silence is missed by the heartbeat alone", "[peers]") {
  PeerTable peers = knowing(10);
  CHECK(peers.on_heartbeat(kPeer, 11, 0));
  CHECK_FALSE(peers.on_message(kPeer, 12, 0));
  CHECK_FALSE(peers.on_heartbeat(kPeer, 12, 0));
}

TEST_CASE("messages that overtake each other are no gap", "[peers]") {
  PeerTable peers = knowing(0);
  std::mt19937_64 random(5);
  uint64_t next = 1;
  for (int round = 0; round < 2'000; ++round) {
    std::vector<uint64_t> batch;
    for (uint64_t n = 1 + random() % 20; n > 0; --n) batch.push_back(next++);
    std::shuffle(batch.begin(), batch.end(), random);
    for (const uint64_t sequence : batch) REQUIRE_FALSE(peers.on_message(kPeer, sequence, 0));
    REQUIRE_FALSE(peers.on_heartbeat(kPeer, next - 1, 0));
  }
}

TEST_CASE("a message may be ahead of a heartbeat that does not speak of it yet", "[peers]") {
  PeerTable peers = knowing(10);
  CHECK_FALSE(peers.on_message(kPeer, 12, 0));
  CHECK_FALSE(peers.on_heartbeat(kPeer, 10, 0));
  CHECK_FALSE(peers.on_message(kPeer, 11, 0));
  CHECK_FALSE(peers.on_heartbeat(kPeer, 12, 0));
}

TEST_CASE("after a gap what came ahead still counts as seen", "[peers]") {
  PeerTable peers = knowing(10);
  CHECK_FALSE(peers.on_message(kPeer, 12, 0));
  CHECK_FALSE(peers.on_message(kPeer, 13, 0));
  CHECK(peers.on_heartbeat(kPeer, 11, 0));
  CHECK_FALSE(peers.on_heartbeat(kPeer, 13, 0));
  CHECK(peers.on_heartbeat(kPeer, 14, 0));
}

TEST_CASE("a message seen twice, or again after its heartbeat, changes nothing", "[peers]") {
  PeerTable peers = knowing(10);
  for (const uint64_t sequence : {11, 11, 5, 0, 11})
    CHECK_FALSE(peers.on_message(kPeer, sequence, 0));
  CHECK_FALSE(peers.on_heartbeat(kPeer, 11, 0));
  CHECK_FALSE(peers.on_heartbeat(kPeer, 4, 0));
  CHECK(peers.on_heartbeat(kPeer, 12, 0));
}

TEST_CASE("of every random loss exactly the heartbeats that cover one tell", "[peers]") {
  // The reference keeps every number that has been seen.
  std::mt19937_64 random(11);
  PeerTable peers = knowing(0);
  std::vector<bool> seen(1, true);
  uint64_t covered = 0;
  int gaps = 0;
  for (int round = 0; round < 5'000; ++round) {
    for (uint64_t n = random() % 6; n > 0; --n) {
      seen.push_back(random() % 50 != 0);
      if (seen.back()) REQUIRE_FALSE(peers.on_message(kPeer, seen.size() - 1, 0));
    }
    const uint64_t executed = covered + random() % (seen.size() - covered);
    bool lost = false;
    while (covered < executed) lost = !seen[++covered] || lost;
    REQUIRE(peers.on_heartbeat(kPeer, executed, 0) == lost);
    gaps += lost;
  }
  CHECK(gaps > 100);
}

TEST_CASE("a peer is silent when its heartbeats stop, at its time and not before", "[peers]") {
  PeerTable peers = knowing(0, 1'000);
  CHECK_FALSE(peers.expire(1'000 + kSilence - 1));
  CHECK_FALSE(peers.on_heartbeat(kPeer, 0, 1'200));
  CHECK_FALSE(peers.expire(1'200 + kSilence - 1));
  CHECK(peers.expire(1'200 + kSilence));
  CHECK(peers.size() == 0);
  CHECK_FALSE(peers.expire(9'000));
  CHECK(peers.on_heartbeat(kPeer, 0, 9'000));
}

TEST_CASE("messages do not stand for heartbeats: what came between them is unknown", "[peers]") {
  PeerTable peers = knowing(0, 1'000);
  CHECK_FALSE(peers.on_message(kPeer, 1, 1'000 + kSilence - 1));
  CHECK(peers.expire(1'000 + kSilence));
}

TEST_CASE("one silent peer does not take the others with it", "[peers]") {
  PeerTable peers = knowing(0, 1'000);
  CHECK(peers.on_heartbeat(2, 0, 1'100));
  CHECK(peers.expire(1'000 + kSilence));
  CHECK(peers.size() == 1);
  CHECK_FALSE(peers.on_heartbeat(2, 0, 1'000 + kSilence));
}

TEST_CASE("of a peer too many every word counts as missed, until there is room", "[peers]") {
  PeerTable peers(2, kSilence);
  CHECK(peers.on_heartbeat(1, 0, 0));
  CHECK(peers.on_heartbeat(2, 0, 0));
  CHECK(peers.refused() == 0);
  for (int i = 0; i < 3; ++i) {
    CHECK(peers.on_heartbeat(3, 0, 0));
    CHECK(peers.on_message(3, 1, 0));
  }
  CHECK(peers.refused() == 6);
  CHECK(peers.size() == 2);
  CHECK_FALSE(peers.on_message(1, 1, 0));
  CHECK(peers.expire(kSilence));
  CHECK(peers.on_heartbeat(3, 0, kSilence));
  CHECK_FALSE(peers.on_heartbeat(3, 0, kSilence));
}

TEST_CASE("after clear nothing is known of anybody", "[peers]") {
  PeerTable peers = knowing(3);
  peers.clear();
  CHECK(peers.size() == 0);
  CHECK(peers.on_message(kPeer, 4, 0));
}

TEST_CASE("a peer that never closes its gaps is not remembered without end", "[peers]") {
  PeerTable peers = knowing(0);
  uint64_t sequence = 2;  // 1 never comes
  while (!peers.on_message(kPeer, sequence, 0)) REQUIRE(++sequence < 1'000'000);
  CHECK_FALSE(peers.on_heartbeat(kPeer, sequence, 0));
}
