// Forwarder: a byte forwarder between a proxy and its upstream, whose test decides when bytes
// arrive.
//
// Histories that need luck on a real network become scripts: hold the replies of one connection,
// let the others go on, release. For tests under load there is weather, which all connections meet.
// Bytes keep their order; each direction of each connection is on its own. What has come in is
// remembered up to a limit; what waits is not limited, so it is for tests, not for production.
#pragma once
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <random>
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

  /// What connections meet on their way, besides what each of them was told on its own.
  struct Weather {
    std::array<bool, 2> hold{};           ///< by Way
    std::chrono::milliseconds delay{0};   ///< of what comes in, either way
    std::chrono::milliseconds jitter{0};  ///< up to this much more; each way of each connection
                                          ///< has an amount of its own, which changes
    bool bytewise = false;                ///< one byte at a time
    std::string only;                     ///< connections whose client has sent this; "": all …
    std::string except;                   ///< … but those whose client has sent this
    std::string from;                     ///< connections of this IPv4 address; "": all
  };

  /// Listens on a free port of 127.0.0.1. Of each way of a connection the first `remembered_max`
  /// bytes are remembered.
  explicit Forwarder(uint16_t server_port,
                     size_t remembered_max = std::numeric_limits<size_t>::max());
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
  /// … until here: it leaves in order and in one piece, so that the receiver reads all of it before
  /// it does anything (up to what it reads at once).
  void release(Link link, Way way);
  /// From now on what comes in leaves that much later.
  void delay(Link link, Way way, std::chrono::milliseconds time);
  /// Closes both sides; what was held is lost. Returns when it is done.
  void cut(Link link);

  /// In place of the weather that was; also for connections that are yet to come.
  void set_weather(Weather weather);
  /// Closes both sides of the connections in that weather with RST; what was held is lost.
  void reset_all(const Weather& whose);

 private:
  using Clock = std::chrono::steady_clock;
  struct Chunk {
    std::string bytes;
    Clock::time_point due;
    size_t sent = 0;
  };
  struct Pipe {
    std::deque<Chunk> waiting;
    std::string seen;
    std::chrono::milliseconds delay{0};
    std::chrono::milliseconds jitter{0};  ///< its own amount …
    Clock::time_point jitter_until{};     ///< … for so long
    bool held = false;
    bool ended = false;  ///< the source will send no more
    bool shut = false;   ///< the sink has been told so
  };
  struct Pair {
    int fd[2] = {-1, -1};  ///< 0: the client's side, 1: the server's; -1: closed
    std::string from;      ///< the client's address
    Pipe pipe[2];          ///< by Way: pipe w goes from fd[w] to fd[1 - w]
    bool cut = false;
    bool reset = false;
  };

  void run();
  /// The events to poll for at one side; lowers `timeout_ms` to when the next bytes are due.
  short events_of(const Pair& pair, size_t side, Clock::time_point now, int& timeout_ms) const;
  bool held(const Pair& pair, size_t way) const;
  static bool in_weather(const Pair& pair, const Weather& weather);
  bool in_weather(const Pair& pair) const { return in_weather(pair, weather_); }
  std::chrono::milliseconds delay_of(const Pair& pair, Pipe& pipe);
  void accept_one();
  void serve(Pair& pair, const short (&events)[2]);
  void read_from(Pair& pair, size_t side);
  void write_due(Pair& pair, size_t way);
  void close_pair(Pair& pair);
  void wake() const;
  Pipe& pipe(Link link, Way way) const;

  const uint16_t server_port_;
  const size_t remembered_max_;
  uint16_t port_ = 0;
  int listener_ = -1;
  int wake_[2] = {-1, -1};
  mutable std::mutex mutex_;
  std::condition_variable closed_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  Weather weather_;
  std::mt19937 random_{1};
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace nearcached::e2e
