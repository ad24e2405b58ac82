// What a client library hides is what a proxy gets wrong: split requests, pipelines, pushes between
// replies, a closed half. So this client knows nothing but where a reply ends.
#include "harness/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "harness/reply_scanner.h"

namespace nearcached::e2e {
namespace {

constexpr size_t kReadBytes = 256 * 1024;

bool wait_for(int fd, short events, std::chrono::milliseconds time) {
  pollfd p{fd, events, 0};
  int n = 0;
  do {
    n = poll(&p, 1, static_cast<int>(time.count()));
  } while (n < 0 && errno == EINTR);
  return n > 0;
}

}  // namespace

std::string encode(const Args& args) {
  std::string out = "*" + std::to_string(args.size()) + "\r\n";
  for (const std::string& arg : args) {
    out += "$" + std::to_string(arg.size()) + "\r\n";
    out += arg;
    out += "\r\n";
  }
  return out;
}

Args words(std::string_view line) {
  Args out;
  size_t begin = 0;
  while (begin < line.size()) {
    const size_t end = std::min(line.find(' ', begin), line.size());
    if (end > begin) out.emplace_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

RawClient::RawClient(uint16_t port) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    const std::string reason = strerror(errno);
    close(fd_);
    throw std::runtime_error("connect to port " + std::to_string(port) + ": " + reason);
  }
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

RawClient::~RawClient() {
  if (fd_ >= 0) close(fd_);
}

RawClient::RawClient(RawClient&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      received_(std::move(other.received_)),
      consumed_(other.consumed_),
      deadline_(other.deadline_) {}

void RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    if (!wait_for(fd_, POLLOUT, deadline_)) throw std::runtime_error("the peer stopped reading");
    bytes.remove_prefix(send_some(bytes));
  }
}

size_t RawClient::send_some(std::string_view bytes) {
  const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n >= 0) return static_cast<size_t>(n);
  if (errno == EAGAIN || errno == EINTR) return 0;
  throw std::runtime_error(std::string("send: ") + strerror(errno));
}

bool RawClient::receive() {
  if (!wait_for(fd_, POLLIN, deadline_)) {
    throw std::runtime_error("no reply before the deadline; unread: " +
                             received_.substr(consumed_, 200));
  }
  const size_t size = received_.size();
  received_.resize(size + kReadBytes);
  const ssize_t n = recv(fd_, received_.data() + size, kReadBytes, 0);
  received_.resize(size + (n > 0 ? static_cast<size_t>(n) : 0));
  if (n < 0 && errno != EINTR) throw std::runtime_error(std::string("recv: ") + strerror(errno));
  return n != 0;
}

std::string RawClient::read_reply() {
  ReplyScanner scanner;
  while (true) {
    const std::string_view unread = std::string_view(received_).substr(consumed_);
    const size_t length = scanner.length(unread);
    if (length > 0) {
      std::string reply(unread.substr(0, length));
      consumed_ += length;
      if (consumed_ == received_.size() || consumed_ > 16 * kReadBytes) {
        received_.erase(0, consumed_);
        consumed_ = 0;
      }
      return reply;
    }
    if (!receive()) {
      throw std::runtime_error("closed by the peer; unread: " + received_.substr(consumed_, 200));
    }
  }
}

std::string RawClient::ask(const Args& args) {
  send(encode(args));
  return read_reply();
}

std::vector<std::string> RawClient::ask_all(const std::vector<Args>& requests) {
  std::string pipeline;
  for (const Args& request : requests) pipeline += encode(request);
  send(pipeline);
  std::vector<std::string> replies;
  for (size_t i = 0; i < requests.size(); ++i) replies.push_back(read_reply());
  return replies;
}

std::string RawClient::read_to_end() {
  while (receive()) {
  }
  std::string all = received_.substr(consumed_);
  received_.clear();
  consumed_ = 0;
  return all;
}

bool RawClient::silent_for(std::chrono::milliseconds time) {
  return consumed_ == received_.size() && !wait_for(fd_, POLLIN, time);
}

void RawClient::half_close() { shutdown(fd_, SHUT_WR); }

void RawClient::abort() {
  const linger now{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(std::exchange(fd_, -1));
}

}  // namespace nearcached::e2e
