// Forwarder: a byte forwarder between a proxy and its upstream, whose test decides when bytes
// arrive.
//
// Histories that need luck on a real network become scripts: hold the replies of one connection,
// let the others go on, release. Bytes keep their order; each direction of each connection is on
// its own. Everything that has come in is remembered and nothing is refused, so it is for tests
// that move megabytes, not gigabytes.
#pragma once
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace nearcached::e2e {

/// Thread: its public functions may be called from any; the bytes move on a thread of its own.
class Forwarder {
 public:
  using Link = size_t;  ///< a connection: the n-th that was accepted
  enum class Way : uint8_t { to_server, to_client };

  /// Listens on a free port of 127.0.0.1.
  explicit Forwarder(uint16_t server_port);
  ~Forwarder();
  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  uint16_t port() const { return port_; }
  /// The youngest connection whose client has sent `text`; throws if none has.
  Link carrier_of(std::string_view text) const;
  /// How often `text` has come in, whether passed on yet or held.
  size_t count(Link link, Way way, std::string_view text) const;

  /// From now on what comes in waits, an end of the stream too …
  void hold(Link link, Way way);
  /// … until here: it leaves in order.
  void release(Link link, Way way);
  /// From now on what comes in leaves that much later.
  void delay(Link link, Way way, std::chrono::milliseconds time);
  /// Closes both sides; what was held is lost. Returns when it is done.
  void cut(Link link);

 private:
  using Clock = std::chrono::steady_clock;
  struct Chunk {
    std::string bytes;
    Clock::time_point due;
  };
  struct Pipe {
    std::deque<Chunk> waiting;
    std::string seen;
    std::chrono::milliseconds delay{0};
    bool held = false;
    bool ended = false;  ///< the source will send no more
    bool shut = false;   ///< the sink has been told so
  };
  struct Pair {
    int fd[2] = {-1, -1};  ///< 0: the client's side, 1: the server's; -1: closed
    Pipe pipe[2];          ///< by Way: pipe w goes from fd[w] to fd[1 - w]
    bool cut = false;
  };

  void run();
  void accept_one();
  void serve(Pair& pair, const short (&events)[2]);
  void read_from(Pair& pair, size_t side);
  void write_due(Pair& pair, size_t way);
  void close_pair(Pair& pair);
  void wake() const;
  Pipe& pipe(Link link, Way way) const;

  const uint16_t server_port_;
  uint16_t port_ = 0;
  int listener_ = -1;
  int wake_[2] = {-1, -1};
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace nearcached::e2e
