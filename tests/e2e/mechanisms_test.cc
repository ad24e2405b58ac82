// Each mechanism of coherence on its own: for each the history in which it, and nothing else, keeps
// a stale value from being answered. A forwarder between proxy and server decides when bytes
// arrive, so that every history happens the same way each time. tests/mutations.json says which
// claim falls with which mechanism; tools/mutation-test shows that it does.
#include <poll.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "harness/forwarder.h"
#include "harness/servers.h"

using namespace nearcached::e2e;
using namespace std::chrono_literals;
using Way = Forwarder::Way;

namespace {

const std::string kOld = "$3\r\nold\r\n";
const std::string kNew = "$3\r\nnew\r\n";

/// A client, and the upstream connection that its worker uses for it.
struct Seat {
  RawClient client;
  Forwarder::Link link;
};

bool answered(const Seat& seat) {
  pollfd p{seat.client.fd(), POLLIN, 0};
  return poll(&p, 1, 0) == 1;
}

/// A server, the forwarder, a proxy with two workers. By default a held link is neither given up
/// nor stops the hits, so that only the mechanism in question can.
struct Scene {
  explicit Scene(const std::string& max_staleness = "1m", const std::string& mode = "resp3")
      : redis({"--notify-keyspace-events", "KA"}),
        wire(redis.port()),
        proxy(wire.port(), {"--max-staleness", max_staleness, "--set", "upstream.timeout=1m",
                            "--coherence", mode}),
        direct(redis.client()) {
    REQUIRE(wait_until([&] {
      proxy.client()("GET mode");
      return proxy.info("coherence_mode") == mode;
    }));
  }

  Seat seat() {
    const std::string marker = "seat:" + std::to_string(++seats_);
    RawClient client(proxy.port());
    client.ask({"GET", marker});
    const Forwarder::Link link = wire.carrier_of(marker);
    return {std::move(client), link};
  }
  /// A seat on the same worker as `other`, or on the other one.
  Seat seat_beside(const Seat& other) { return seat_where(other.link, true); }
  Seat seat_across(const Seat& other) { return seat_where(other.link, false); }

  /// Reads `key` until it is answered from L1 of that worker.
  bool fill(Seat& seat, const std::string& key) {
    return wait_until([&] {
      const uint64_t hits = proxy.count("l1_hits");
      seat.client.ask({"GET", key});
      return proxy.count("l1_hits") > hits;
    });
  }
  size_t asked_upstream(const Seat& seat, const std::string& key) const {
    return wire.count(seat.link, Way::to_server, encode({"GET", key}));
  }
  /// Has the server pushed that `key` is stale, held on the way or not?
  bool is_told_of(const Seat& seat, const std::string& key) const {
    return wire.count(seat.link, Way::to_client, "invalidate\r\n" + encode({key})) > 0;
  }
  /// Asks behind a read of "miss", whose reply is held, and returns once that has gone upstream.
  void ask_behind_miss(Seat& seat, const std::string& requests) {
    seat.client.send(encode({"GET", "miss"}) + requests);
    REQUIRE(wait_until([&] { return asked_upstream(seat, "miss") == 1; }));
  }
  /// Asks while the replies of the seat's link are held, and lets them go once the request has been
  /// dealt with: it has either been answered from memory or gone upstream.
  std::string ask_over_held_link(Seat& seat, const std::string& key) {
    const size_t before = asked_upstream(seat, key);
    seat.client.send(encode({"GET", key}));
    REQUIRE(wait_until([&] { return answered(seat) || asked_upstream(seat, key) > before; }));
    wire.release(seat.link, Way::to_client);
    return seat.client.read_reply();
  }

  RedisServer redis;
  Forwarder wire;
  Proxy proxy;
  Client direct;

 private:
  Seat seat_where(Forwarder::Link link, bool same) {
    for (int i = 0; i < 64; ++i) {
      Seat found = seat();
      if ((found.link == link) == same) return found;
      others_.push_back(std::move(found));  // kept open: the next one goes to the other worker
    }
    throw std::runtime_error("all connections went to one worker");
  }

  int seats_ = 0;
  std::vector<Seat> others_;
};

}  // namespace

TEST_CASE("what a write through one worker replaced, no other answers, however late its push",
          "[coherence][mechanism]") {
  Scene scene;
  Seat writer = scene.seat(), reader = scene.seat_across(writer);
  scene.direct("SET k old");
  REQUIRE(scene.fill(reader, "k"));
  scene.wire.hold(reader.link, Way::to_client);
  REQUIRE(writer.client.ask("SET k new") == "+OK\r\n");
  CHECK(scene.ask_over_held_link(reader, "k") == kNew);
}

TEST_CASE("what is read while a write is under way is never kept", "[coherence][mechanism]") {
  // The write has been sent, the read overtakes it and brings the old value; then the write is
  // executed and acknowledged while its push to the reader's worker is still on the way.
  Scene scene;
  Seat writer = scene.seat(), reader = scene.seat_across(writer);
  scene.direct("SET k old");
  scene.wire.hold(writer.link, Way::to_server);
  writer.client.send(encode({"SET", "k", "new"}));
  REQUIRE(wait_until([&] {
    return scene.wire.count(writer.link, Way::to_server, encode({"SET", "k", "new"})) == 1;
  }));
  REQUIRE(reader.client.ask("GET k") == kOld);
  reader.client.ask("GET behind");  // its reply comes after everything that belongs to the read
  scene.wire.hold(reader.link, Way::to_client);
  scene.wire.release(writer.link, Way::to_server);
  REQUIRE(writer.client.read_reply() == "+OK\r\n");
  CHECK(scene.ask_over_held_link(reader, "k") == kNew);
}

TEST_CASE("a read that starts after a write never gets the reply of one from before it",
          "[coherence][mechanism]") {
  Scene scene;
  Seat early = scene.seat(), late = scene.seat_beside(early), writer = scene.seat_across(early);
  scene.direct("SET k old");
  scene.wire.hold(early.link, Way::to_client);
  early.client.send(encode({"GET", "k"}));
  REQUIRE(wait_until([&] { return scene.wire.count(early.link, Way::to_client, kOld) == 1; }));
  REQUIRE(writer.client.ask("SET k new") == "+OK\r\n");
  const auto joined = [&] {
    return info_field(writer.client.ask("INFO nearcached"), "flights_joined") != "0";
  };
  late.client.send(encode({"GET", "k"}));
  REQUIRE(wait_until([&] { return joined() || scene.asked_upstream(late, "k") == 2; }));
  scene.wire.release(early.link, Way::to_client);
  CHECK(early.client.read_reply() == kOld);
  CHECK(late.client.read_reply() == kNew);
}

TEST_CASE("a hit behind a miss in one pipeline is never older than the miss's reply",
          "[coherence][mechanism]") {
  // Somebody around the proxy writes hit, then miss. Who is told the new miss must not be told the
  // old hit after it.
  Scene scene;
  Seat reader = scene.seat();
  scene.direct("SET hit old");
  REQUIRE(scene.fill(reader, "hit"));
  scene.wire.hold(reader.link, Way::to_client);
  scene.direct("SET hit new");
  scene.direct("SET miss new");
  scene.ask_behind_miss(reader, encode({"GET", "hit"}));
  scene.wire.release(reader.link, Way::to_client);
  CHECK(reader.client.read_reply() == kNew);
  CHECK(reader.client.read_reply() == kNew);
}

// Fails when go_astray() (route/ahead.cc) keeps what was asked ahead: it was answered before "hit"
// was asked for again.
TEST_CASE("what was read ahead is never older than what had to be asked again before it",
          "[coherence][mechanism]") {
  // Somebody around the proxy writes cold, then hit, after cold has been read ahead. Who is told
  // the new hit must not be told the old cold after it.
  Scene scene;
  Seat reader = scene.seat();
  scene.direct("MSET hit old miss old cold old");
  REQUIRE(scene.fill(reader, "hit"));
  scene.wire.hold(reader.link, Way::to_client);
  const size_t seen = scene.wire.count(reader.link, Way::to_client, kOld);
  scene.ask_behind_miss(reader, encode({"GET", "hit"}) + encode({"GET", "cold"}));
  REQUIRE(
      wait_until([&] { return scene.wire.count(reader.link, Way::to_client, kOld) == seen + 2; }));
  scene.direct("SET cold new");
  scene.direct("SET hit new");
  REQUIRE(wait_until([&] { return scene.is_told_of(reader, "hit"); }));
  scene.wire.release(reader.link, Way::to_client);
  CHECK(reader.client.read_reply() == kOld);
  CHECK(reader.client.read_reply() == kNew);
  CHECK(reader.client.read_reply() == kNew);
  CHECK(scene.asked_upstream(reader, "cold") == 2);
}

// Fails when on_read_ahead() takes a piece for the whole, or take_read_ahead() leaves the rest of
// the reply to the Lookahead.
TEST_CASE("a reply that was read ahead and has come in part goes on when the rest comes",
          "[coherence][mechanism]") {
  Scene scene;
  Seat reader = scene.seat();
  const std::string value(3000, 'v');
  scene.direct("MSET hit old miss old");
  scene.direct({"SET", "cold", value});
  REQUIRE(scene.fill(reader, "hit"));
  Forwarder::Weather weather;
  weather.bytewise = true;
  scene.wire.set_weather(weather);
  scene.ask_behind_miss(reader,
                        encode({"GET", "hit"}) + encode({"GET", "cold"}) + encode({"GET", "hit"}));
  CHECK(reader.client.read_reply() == kOld);
  CHECK(reader.client.read_reply() == kOld);
  CHECK(reader.client.read_reply() == "$3000\r\n" + value + "\r\n");
  CHECK(reader.client.read_reply() == kOld);
  CHECK(scene.asked_upstream(reader, "cold") == 1);
}

// Fails when flush_at_turn_end() does not ask kDeferrals: the flush is then put off for ever.
TEST_CASE("what is answered already does not wait for a reply that does not come",
          "[coherence][mechanism]") {
  Scene scene;
  Seat reader = scene.seat();
  scene.direct("MSET hit old miss old cold old");
  REQUIRE(scene.fill(reader, "hit"));
  scene.wire.hold(reader.link, Way::to_client);
  reader.client.send(encode({"GET", "hit"}) + encode({"GET", "miss"}) + encode({"GET", "hit"}));
  CHECK(reader.client.read_reply() == kOld);
  scene.wire.release(reader.link, Way::to_client);
  CHECK(reader.client.read_reply() == kOld);
  CHECK(reader.client.read_reply() == kOld);
}

// Fails when lose_read_ahead(), is_current() and go_astray() all let it be: the session then waits
// for a reply that never comes.
TEST_CASE("what was read ahead over a link that was lost is asked again",
          "[coherence][mechanism]") {
  Scene scene;
  Seat reader = scene.seat();
  scene.direct("MSET hit old miss old cold old");
  REQUIRE(scene.fill(reader, "hit"));
  scene.wire.hold(reader.link, Way::to_client);
  scene.ask_behind_miss(
      reader, encode({"GET", "cold"}) + encode({"GET", "hit"}) + encode({"GET", "other"}));
  scene.wire.cut(reader.link);
  CHECK(reader.client.read_reply().substr(0, 29) == "-ERR upstream connection lost");
  CHECK(reader.client.read_reply().substr(0, 29) == "-ERR upstream connection lost");
  // Whether the link is up again by then or not: an answer.
  for (int i = 0; i < 2; ++i) CHECK(reader.client.read_reply().size() > 3);
  REQUIRE(wait_until([&] { return reader.client.ask("GET hit") == kOld; }));
}

// Fails when serve_known_ahead() (route/ahead.cc) does not ask again what find_valid() asked when
// the request was looked at: of the key's stamp, of the space, of the patterns.
TEST_CASE("what a request found before its turn is not answered if it has been dropped",
          "[coherence][mechanism]") {
  Scene scene;
  Seat reader = scene.seat(), other = scene.seat_across(reader);
  scene.direct("MSET hit old miss new");
  REQUIRE(scene.fill(reader, "hit"));
  const size_t asked = scene.asked_upstream(reader, "hit");
  scene.wire.hold(reader.link, Way::to_client);
  scene.ask_behind_miss(reader, encode({"GET", "hit"}) + encode({"GET", "hit"}));
  const std::string drop = GENERATE("NEARCACHE FLUSH LOCAL", "NEARCACHE INVALIDATE hit LOCAL",
                                    "NEARCACHE PATTERN h?t LOCAL");
  INFO(drop);
  CHECK(other.client.ask(drop).find("proxies") != std::string::npos);
  scene.wire.release(reader.link, Way::to_client);
  CHECK(reader.client.read_reply() == kNew);
  CHECK(reader.client.read_reply() == kOld);
  CHECK(reader.client.read_reply() == kOld);
  CHECK(scene.asked_upstream(reader, "hit") > asked);
}

// Fails when serve_known_ahead() does not look at the end of what was found.
TEST_CASE("what a request found before its turn is not answered if it has ended",
          "[coherence][mechanism]") {
  Scene scene;
  Seat reader = scene.seat();
  const auto ends = std::chrono::steady_clock::now() + 1s;
  scene.direct("SET hit old PX 1000");
  scene.direct("SET miss new");
  REQUIRE(scene.fill(reader, "hit"));
  scene.wire.hold(reader.link, Way::to_client);
  scene.ask_behind_miss(reader, encode({"GET", "hit"}));
  std::this_thread::sleep_until(ends + 50ms);
  scene.wire.release(reader.link, Way::to_client);
  CHECK(reader.client.read_reply() == kNew);
  CHECK(reader.client.read_reply() == "$-1\r\n");
}

TEST_CASE("a value ends with its key, however late the push that tells of it",
          "[coherence][mechanism]") {
  Scene scene;
  Seat reader = scene.seat();
  scene.direct("SET k old PX 400");
  REQUIRE(scene.fill(reader, "k"));
  scene.wire.hold(reader.link, Way::to_client);
  REQUIRE(wait_until([&] { return scene.direct("EXISTS k") == "0"; }));
  CHECK(scene.ask_over_held_link(reader, "k") == "$-1\r\n");
}

TEST_CASE("a link that hangs silently ends the hits", "[coherence][mechanism]") {
  Scene scene("300ms");
  Seat reader = scene.seat();
  scene.direct("SET k old");
  REQUIRE(scene.fill(reader, "k"));
  scene.wire.hold(reader.link, Way::to_client);
  scene.direct("SET k new");
  const size_t asked = scene.asked_upstream(reader, "k");
  const auto hits_end = [&] {
    reader.client.send(encode({"GET", "k"}));
    if (!wait_until([&] { return answered(reader) || scene.asked_upstream(reader, "k") > asked; }))
      return false;
    if (scene.asked_upstream(reader, "k") > asked) return true;
    REQUIRE(reader.client.read_reply() == kOld);
    return false;
  };
  REQUIRE(wait_until(hits_end));
  scene.wire.release(reader.link, Way::to_client);
  CHECK(reader.client.read_reply() == kNew);
}

TEST_CASE("who has read a write around the proxy reads what was written before it",
          "[coherence][mechanism]") {
  Scene scene;
  Seat reader = scene.seat();
  scene.direct("SET held old");
  REQUIRE(scene.fill(reader, "held"));
  scene.direct("SET held new");
  scene.direct("SET read new");
  REQUIRE(reader.client.ask("GET read") == kNew);
  CHECK(reader.client.ask("GET held") == kNew);
}

TEST_CASE("what changed while a push was lost with its link is not answered from before",
          "[coherence][mechanism]") {
  Scene scene;
  Seat reader = scene.seat();
  scene.direct("SET k old");
  scene.direct("SET other old");
  REQUIRE(scene.fill(reader, "k"));
  scene.wire.hold(reader.link, Way::to_client);
  scene.direct("SET k new");
  REQUIRE(wait_until([&] { return scene.is_told_of(reader, "k"); }));
  scene.wire.cut(reader.link);
  REQUIRE(scene.fill(reader, "other"));  // the new link serves hits
  CHECK(reader.client.ask("GET k") == kNew);
}

TEST_CASE("a script is answered only when no worker holds what it changed",
          "[coherence][mechanism]") {
  Scene scene;
  Seat writer = scene.seat(), reader = scene.seat_across(writer);
  scene.direct("SET k old");
  REQUIRE(scene.fill(reader, "k"));
  scene.wire.hold(reader.link, Way::to_client);
  writer.client.send(encode({"EVAL", "return redis.call('SET', 'k', 'new')", "0"}));
  REQUIRE(wait_until([&] {
    return answered(writer) || scene.wire.count(reader.link, Way::to_server, encode({"PING"})) > 0;
  }));
  if (!answered(writer)) scene.wire.release(reader.link, Way::to_client);
  REQUIRE(writer.client.read_reply() == "+OK\r\n");
  CHECK(scene.ask_over_held_link(reader, "k") == kNew);
}

TEST_CASE("who is told from memory what another read anew reads nothing older after it",
          "[coherence][mechanism]") {
  // The news come by the bus, and the bus is late. Somebody around writes a, which is held, then b,
  // which one session reads from the server, and so it is held too, new. Another session is told
  // the new b from memory: it must not be told the old a after that.
  const auto mode = GENERATE(as<std::string>{}, "redirect", "keyspace");
  INFO(mode);
  Scene scene("1m", mode);
  Seat early = scene.seat(), late = scene.seat_beside(early);
  scene.direct("SET a old");
  REQUIRE(scene.fill(late, "a"));
  const Forwarder::Link bus = scene.wire.carrier_of("SUBSCRIBE");
  scene.wire.hold(bus, Way::to_client);
  scene.direct("SET a new");
  scene.direct("SET b new");
  REQUIRE(early.client.ask("GET b") == kNew);
  REQUIRE(late.client.ask("GET b") == kNew);
  CHECK(late.client.ask("GET a") == kNew);
  scene.wire.release(bus, Way::to_client);
}

TEST_CASE("a read joins no flight that is older than a hit may be", "[coherence][mechanism]") {
  Scene scene("300ms");
  Seat early = scene.seat(), late = scene.seat_beside(early);
  scene.direct("SET k old");
  scene.wire.hold(early.link, Way::to_client);
  early.client.send(encode({"GET", "k"}));
  REQUIRE(wait_until([&] { return scene.wire.count(early.link, Way::to_client, kOld) == 1; }));
  scene.direct("SET k new");
  std::this_thread::sleep_for(300ms);
  late.client.send(encode({"GET", "k"}));
  REQUIRE(wait_until([&] {
    return scene.proxy.count("flights_joined") > 0 || scene.asked_upstream(late, "k") == 2;
  }));
  scene.wire.release(early.link, Way::to_client);
  CHECK(early.client.read_reply() == kOld);
  CHECK(late.client.read_reply() == kNew);
}
