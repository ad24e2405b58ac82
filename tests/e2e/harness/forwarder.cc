// One thread polls everything; a test's call changes flags under the mutex and wakes it by a pipe.
// Only that thread touches descriptors, so none can be closed and used again while it is polled.
#include "harness/forwarder.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <utility>

namespace nearcached::e2e {
namespace {

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void prepare(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

}  // namespace

Forwarder::Forwarder(uint16_t server_port, size_t remembered_max)
    : server_port_(server_port), remembered_max_(remembered_max) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener_, 128) != 0 || pipe2(wake_, O_CLOEXEC | O_NONBLOCK) != 0) {
    throw std::runtime_error("the forwarder cannot listen");
  }
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { run(); });
}

Forwarder::~Forwarder() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake();
  thread_.join();
  for (const int fd : {listener_, wake_[0], wake_[1]}) close(fd);
}

void Forwarder::wake() const { (void)!write(wake_[1], "", 1); }

Forwarder::Pipe& Forwarder::pipe(Link link, Way way) const {
  return pairs_.at(link)->pipe[static_cast<size_t>(way)];
}

Forwarder::Link Forwarder::carrier_of(std::string_view text) const {
  const std::lock_guard lock(mutex_);
  for (Link link = pairs_.size(); link-- > 0;)
    if (pairs_[link]->pipe[0].seen.find(text) != std::string::npos) return link;
  throw std::runtime_error("no connection has carried " + std::string(text));
}

size_t Forwarder::count(Link link, Way way, std::string_view text) const {
  const std::lock_guard lock(mutex_);
  const std::string& seen = pipe(link, way).seen;
  size_t found = 0;
  for (size_t at = 0; (at = seen.find(text, at)) != std::string::npos; at += text.size()) ++found;
  return found;
}

void Forwarder::hold(Link link, Way way) {
  const std::lock_guard lock(mutex_);
  pipe(link, way).held = true;
}

void Forwarder::release(Link link, Way way) {
  const std::lock_guard lock(mutex_);
  Pipe& released = pipe(link, way);
  released.held = false;
  Chunk all;
  for (const Chunk& chunk : released.waiting) {
    all.bytes.append(chunk.bytes, chunk.sent);
    all.due = chunk.due;
  }
  if (!all.bytes.empty()) released.waiting.assign(1, std::move(all));
  wake();
}

void Forwarder::delay(Link link, Way way, std::chrono::milliseconds time) {
  const std::lock_guard lock(mutex_);
  pipe(link, way).delay = time;
}

void Forwarder::cut(Link link) {
  std::unique_lock lock(mutex_);
  pairs_.at(link)->cut = true;
  wake();
  const auto is_closed = [&] { return pairs_[link]->fd[0] < 0; };
  if (!closed_.wait_for(lock, std::chrono::seconds(20), is_closed))
    throw std::runtime_error("the forwarder does not close a connection");
}

void Forwarder::set_weather(Weather weather) {
  const std::lock_guard lock(mutex_);
  weather_ = std::move(weather);
  wake();
}

void Forwarder::reset_all(const Weather& whose) {
  const std::lock_guard lock(mutex_);
  for (const auto& pair : pairs_)
    if (in_weather(*pair, whose)) pair->cut = pair->reset = true;
  wake();
}

bool Forwarder::in_weather(const Pair& pair, const Weather& weather) {
  const auto has_sent = [&](const std::string& text) {
    return pair.pipe[0].seen.find(text) != std::string::npos;
  };
  if (!weather.from.empty() && weather.from != pair.from) return false;
  return has_sent(weather.only) && (weather.except.empty() || !has_sent(weather.except));
}

bool Forwarder::held(const Pair& pair, size_t way) const {
  return pair.pipe[way].held || (weather_.hold[way] && in_weather(pair));
}

std::chrono::milliseconds Forwarder::delay_of(const Pair& pair, Pipe& pipe) {
  if (!in_weather(pair)) return pipe.delay;
  // Long enough that a connection is behind another for several messages, short enough that which
  // of them is behind changes often.
  constexpr std::chrono::milliseconds kJitterKept{20};
  const Clock::time_point now = Clock::now();
  if (pipe.jitter_until <= now) {
    std::uniform_int_distribution<int64_t> any(0, weather_.jitter.count());
    pipe.jitter = std::chrono::milliseconds(any(random_));
    pipe.jitter_until = now + kJitterKept;
  }
  return pipe.delay + weather_.delay + std::min(pipe.jitter, weather_.jitter);
}

short Forwarder::events_of(const Pair& pair, size_t side, Clock::time_point now,
                           int& timeout_ms) const {
  const Pipe& out = pair.pipe[1 - side];
  short events = pair.pipe[side].ended ? short{0} : short{POLLIN};
  if (out.waiting.empty() || held(pair, 1 - side)) return events;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(out.waiting.front().due - now);
  if (left.count() <= 0) return static_cast<short>(events | POLLOUT);
  if (timeout_ms < 0 || left.count() < timeout_ms) timeout_ms = static_cast<int>(left.count());
  return events;
}

void Forwarder::run() {
  std::vector<pollfd> polled;
  std::vector<Pair*> polled_pairs;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    polled.assign({{wake_[0], POLLIN, 0}, {listener_, POLLIN, 0}});
    polled_pairs.clear();
    int timeout_ms = -1;
    const Clock::time_point now = Clock::now();
    for (const auto& pair : pairs_) {
      if (pair->fd[0] < 0) continue;
      polled_pairs.push_back(pair.get());
      for (size_t side = 0; side < 2; ++side) {
        const short events = events_of(*pair, side, now, timeout_ms);
        // Not even looked at when there is nothing to do: a hang-up would be reported for ever.
        polled.push_back({events == 0 ? -1 : pair->fd[side], events, 0});
      }
    }
    lock.unlock();
    const int ready = poll(polled.data(), polled.size(), timeout_ms);
    lock.lock();
    if (ready < 0 && errno != EINTR) return;
    if (polled[0].revents != 0) {
      char drained[64];
      while (read(wake_[0], drained, sizeof drained) > 0) continue;
    }
    for (size_t i = 0; i < polled_pairs.size(); ++i)
      serve(*polled_pairs[i], {polled[2 + 2 * i].revents, polled[3 + 2 * i].revents});
    if (polled[1].revents != 0) accept_one();
  }
  for (const auto& pair : pairs_) close_pair(*pair);
}

void Forwarder::accept_one() {
  sockaddr_in peer{};
  socklen_t size = sizeof peer;
  const int client = accept4(listener_, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC);
  if (client < 0) return;
  const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(server_port_);
  if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    close(client);
    close(server);
    return;
  }
  prepare(client);
  prepare(server);
  pairs_.push_back(std::make_unique<Pair>());
  char text[INET_ADDRSTRLEN] = "";
  inet_ntop(AF_INET, &peer.sin_addr, text, sizeof text);
  pairs_.back()->from = text;
  pairs_.back()->fd[0] = client;
  pairs_.back()->fd[1] = server;
}

void Forwarder::serve(Pair& pair, const short (&events)[2]) {
  if (pair.cut) return close_pair(pair);
  for (size_t side = 0; side < 2; ++side)
    if (events[side] & (POLLIN | POLLHUP | POLLERR)) read_from(pair, side);
  for (size_t way = 0; way < 2; ++way)
    if (pair.fd[0] >= 0) write_due(pair, way);
  if (pair.pipe[0].shut && pair.pipe[1].shut) close_pair(pair);
}

void Forwarder::read_from(Pair& pair, size_t side) {
  if (pair.fd[side] < 0) return;
  char bytes[64 * 1024];
  Pipe& in = pair.pipe[side];
  const ssize_t n = recv(pair.fd[side], bytes, sizeof bytes, 0);
  if (n > 0) {
    in.seen.append(bytes, std::min(static_cast<size_t>(n), remembered_max_ - in.seen.size()));
    in.waiting.push_back({{bytes, static_cast<size_t>(n)}, Clock::now() + delay_of(pair, in)});
  } else if (n == 0) {
    in.ended = true;
  } else if (errno != EAGAIN && errno != EINTR) {
    close_pair(pair);
  }
}

void Forwarder::write_due(Pair& pair, size_t way) {
  if (held(pair, way)) return;
  Pipe& out = pair.pipe[way];
  const int fd = pair.fd[1 - way];
  const bool bytewise = weather_.bytewise && in_weather(pair);
  while (!out.waiting.empty() && out.waiting.front().due <= Clock::now()) {
    Chunk& chunk = out.waiting.front();
    const size_t left = chunk.bytes.size() - chunk.sent;
    const ssize_t n = send(fd, chunk.bytes.data() + chunk.sent, bytewise ? 1 : left, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno != EAGAIN && errno != EINTR) close_pair(pair);
      return;
    }
    chunk.sent += static_cast<size_t>(n);
    if (chunk.sent == chunk.bytes.size()) out.waiting.pop_front();
    if (bytewise) break;  // the next byte in the next turn, after one of each other connection
  }
  if (out.ended && !out.shut && out.waiting.empty()) {
    shutdown(fd, SHUT_WR);
    out.shut = true;
  }
}

void Forwarder::close_pair(Pair& pair) {
  for (int& fd : pair.fd) {
    if (fd < 0) continue;
    const linger at_once{1, 0};
    if (pair.reset) setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
    fd = -1;
  }
  pair.pipe[0].waiting.clear();
  pair.pipe[1].waiting.clear();
  closed_.notify_all();
}

}  // namespace nearcached::e2e
