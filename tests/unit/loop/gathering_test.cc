// What several streams have read in one turn: read first, then looked at, then handled.
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "loop/loop.h"

using namespace nearcached;

namespace {

using Events = std::vector<std::string>;

/// One end of a connection on the loop; the other is written by the test. What happens to it is
/// put down with its name.
class Peer final : private Stream::Handler {
 public:
  Peer(Loop& loop, std::string name, Events& events, bool gathered = true)
      : name_(std::move(name)), events_(events), stream_(loop, *this, gathered ? sizeof(Peer) : 0) {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    REQUIRE(stream_.open(ends[0], true, 0));
    far_ = ends[1];
    stream_.start_reading();
  }
  ~Peer() override { hang_up(); }

  void send(std::string_view bytes) const {
    REQUIRE(write(far_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  }
  void hang_up() {
    if (far_ >= 0) ::close(far_);
    far_ = -1;
  }
  void close() { stream_.close(); }

  std::function<void()> when_read = [] {};

 private:
  static std::string shown(Bytes bytes) {
    return bytes.size() < 20 ? std::string(bytes) : std::to_string(bytes.size()) + " bytes";
  }
  void foresee(Bytes bytes, bool last) override {
    events_.push_back(name_ + " foresees " + shown(bytes) + (last ? ", the last" : ""));
  }
  void on_read(Bytes bytes) override {
    events_.push_back(name_ + " reads " + shown(bytes));
    when_read();
  }
  void on_eof() override {
    events_.push_back(name_ + " ends");
    close();
  }
  void on_connected(int) override {}
  void on_error(int) override { close(); }
  void on_drained() override {}
  void on_closed(Stream&) override {}

  std::string name_;
  Events& events_;
  Stream stream_;
  int far_ = -1;
};

/// Whatever has arrived, as one turn.
void one_turn(Loop& loop) { uv_run(loop.raw(), UV_RUN_NOWAIT); }

void end(Loop& loop, std::initializer_list<Peer*> peers) {
  for (Peer* peer : peers) peer->close();
  loop.close();
  loop.run();
}

}  // namespace

TEST_CASE("what streams have read in a turn is foreseen for all, then handled in order",
          "[gathering]") {
  Events events;
  Loop loop;
  Peer a(loop, "a", events), b(loop, "b", events);
  one_turn(loop);  // from here on they are read in the order in which something arrives
  b.send("first");
  a.send("second");
  one_turn(loop);
  CHECK(events == Events{"b foresees first", "a foresees second, the last", "b reads first",
                         "a reads second"});
  events.clear();
  a.send("alone");
  one_turn(loop);
  CHECK(events == Events{"a reads alone"});
  end(loop, {&a, &b});
}

TEST_CASE("a long read, and a stream that is not gathered, do not wait for others", "[gathering]") {
  Events events;
  Loop loop;
  Peer a(loop, "a", events), b(loop, "b", events), c(loop, "c", events, false);
  a.send("short");
  b.send(std::string(Loop::kGatheredBytes + 1, 'x'));
  c.send("c");
  one_turn(loop);
  CHECK(events == Events{"b reads 513 bytes", "c reads c", "a reads short"});
  end(loop, {&a, &b, &c});
}

// Fails without the delivery in Stream::end().
TEST_CASE("a stream's end comes behind what it has read", "[gathering]") {
  Events events;
  Loop loop;
  Peer a(loop, "a", events), b(loop, "b", events);
  a.send("last words");
  a.hang_up();
  one_turn(loop);
  one_turn(loop);
  CHECK(events == Events{"a reads last words", "a ends"});
  end(loop, {&a, &b});
}

// Fails when Loop::deliver() does not ask whether the stream is closing.
TEST_CASE("what a stream has read is forgotten when another's handler closes it", "[gathering]") {
  Events events;
  Loop loop;
  Peer a(loop, "a", events), b(loop, "b", events), c(loop, "c", events);
  a.when_read = [&b] { b.close(); };
  for (Peer* peer : {&a, &b, &c}) peer->send("x");
  one_turn(loop);
  CHECK(events ==
        Events{"a foresees x", "b foresees x", "c foresees x, the last", "a reads x", "c reads x"});
  end(loop, {&a, &c});
}

// Crashes when Loop::gather() lets one more wait.
TEST_CASE("not more than so many streams are gathered before the first is handled", "[gathering]") {
  Events events;
  Loop loop;
  std::vector<std::unique_ptr<Peer>> peers;
  for (size_t i = 0; i <= Loop::kGatheredMax; ++i) {
    peers.push_back(std::make_unique<Peer>(loop, std::to_string(i), events));
    peers.back()->send("x");
  }
  one_turn(loop);
  REQUIRE(events.size() == 2 * Loop::kGatheredMax + 1);
  CHECK(events[Loop::kGatheredMax] == "0 reads x");
  CHECK(events.back() == std::to_string(Loop::kGatheredMax) + " reads x");
  for (auto& peer : peers) peer->close();
  end(loop, {});
}

// libuv asks for 1,024 events at a time and, if it gets as many, for more in the same turn: then,
// and only then, one stream can be read twice in one. Fails without the delivery in Stream::take().
TEST_CASE("a stream's bytes stay in order when it is read twice in a turn", "[gathering]") {
  constexpr size_t kEventsOfLibuv = 1024;
  Events events;
  Loop loop;
  std::vector<std::unique_ptr<Peer>> peers;
  for (size_t i = 0; i < kEventsOfLibuv; ++i)
    peers.push_back(std::make_unique<Peer>(loop, std::to_string(i), events));
  const std::string longer(Loop::kGatheredBytes + 1, 'x');
  Peer& twice = *peers[kEventsOfLibuv - 2];
  // The last but one is read and waits when the last, whose bytes are too many to wait, is handled.
  peers.back()->when_read = [&] { twice.send(longer); };
  for (auto& peer : peers) peer->send(peer == peers.back() ? longer : "x");
  one_turn(loop);
  const std::string name = std::to_string(kEventsOfLibuv - 2);
  Events of_twice;
  for (const std::string& event : events)
    if (event.starts_with(name + " reads")) of_twice.push_back(event);
  CHECK(of_twice == Events{name + " reads x", name + " reads 513 bytes"});
  for (auto& peer : peers) peer->close();
  end(loop, {});
}
