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

#include "harness/servers.h"

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

Forwarder::Forwarder(uint16_t server_port) : server_port_(server_port) {
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
  pipe(link, way).held = false;
  wake();
}

void Forwarder::delay(Link link, Way way, std::chrono::milliseconds time) {
  const std::lock_guard lock(mutex_);
  pipe(link, way).delay = time;
}

void Forwarder::cut(Link link) {
  {
    const std::lock_guard lock(mutex_);
    pairs_.at(link)->cut = true;
  }
  wake();
  const bool closed = wait_until([&] {
    const std::lock_guard lock(mutex_);
    return pairs_[link]->fd[0] < 0;
  });
  if (!closed) throw std::runtime_error("the forwarder does not close a connection");
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
        const Pipe& in = pair->pipe[side];
        const Pipe& out = pair->pipe[1 - side];
        short events = in.ended ? short{0} : short{POLLIN};
        if (!out.held && !out.waiting.empty()) {
          const auto left =
              std::chrono::ceil<std::chrono::milliseconds>(out.waiting.front().due - now);
          if (left.count() <= 0) events = static_cast<short>(events | POLLOUT);
          else if (timeout_ms < 0 || left.count() < timeout_ms)
            timeout_ms = static_cast<int>(left.count());
        }
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
  const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
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
    in.seen.append(bytes, static_cast<size_t>(n));
    in.waiting.push_back({{bytes, static_cast<size_t>(n)}, Clock::now() + in.delay});
  } else if (n == 0) {
    in.ended = true;
  } else if (errno != EAGAIN && errno != EINTR) {
    close_pair(pair);
  }
}

void Forwarder::write_due(Pair& pair, size_t way) {
  Pipe& out = pair.pipe[way];
  const int fd = pair.fd[1 - way];
  while (!out.held && !out.waiting.empty() && out.waiting.front().due <= Clock::now()) {
    std::string& bytes = out.waiting.front().bytes;
    const ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0) {
      if (errno != EAGAIN && errno != EINTR) close_pair(pair);
      return;
    }
    bytes.erase(0, static_cast<size_t>(n));
    if (bytes.empty()) out.waiting.pop_front();
  }
  if (out.ended && !out.shut && !out.held && out.waiting.empty()) {
    shutdown(fd, SHUT_WR);
    out.shut = true;
  }
}

void Forwarder::close_pair(Pair& pair) {
  for (int& fd : pair.fd) {
    if (fd >= 0) close(fd);
    fd = -1;
  }
}

}  // namespace nearcached::e2e
