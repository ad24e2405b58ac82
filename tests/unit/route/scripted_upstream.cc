// The worker runs on its own thread, as in the program; the test's thread plays client and server
// by blocking reads. An ECHO through the lane marks a place of the stream: when its reply is here,
// all that was sent before it has been dealt with.
#include "scripted_upstream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>

#include "nearcached/base/log.h"
#include "nearcached/resp/reply_scanner.h"
#include "nearcached/resp/writer.h"

namespace nearcached::test {
namespace {

constexpr int kDeadlineMs = 20'000;
constexpr Bytes kHello = "%2\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$2\r\nid\r\n:1\r\n";
constexpr Bytes kMaster = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";

/// Nothing ages within a test: proofs hold for an hour, heartbeats come every half.
Config config_for(uint16_t port, CoherenceMode mode) {
  Config config;
  config.coherence.mode = mode;
  config.server.threads = 1;
  config.upstream.parsed.address = {"127.0.0.1", port, {}};
  config.upstream.timeout_ms = 3'600'000;
  config.coherence.max_staleness_ms = 3'600'000;
  config.coherence.heartbeat_ms = 1'800'000;
  return config;
}

}  // namespace

std::string bulk(const std::string& value) {
  return "$" + std::to_string(value.size()) + "\r\n" + value + "\r\n";
}

Peer::~Peer() { close(fd_); }

void Peer::send(Bytes bytes) const {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) throw std::runtime_error("the worker closed a connection");
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

void Peer::send_request(std::initializer_list<Bytes> args) const {
  Buffer wire;
  resp::write_request(wire, args);
  send(wire.readable());
}

bool Peer::readable_before(const Peer& other) const {
  pollfd both[] = {{fd_, POLLIN, 0}, {other.fd_, POLLIN, 0}};
  if (poll(both, 2, kDeadlineMs) <= 0) throw std::runtime_error("nothing happens");
  return both[1].revents == 0;
}

void Peer::receive() {
  pollfd one{fd_, POLLIN, 0};
  char bytes[16 * 1024];
  const ssize_t n = poll(&one, 1, kDeadlineMs) > 0 ? recv(fd_, bytes, sizeof bytes, 0) : 0;
  if (n <= 0) throw std::runtime_error("nothing comes from the worker");
  received_.append(bytes, static_cast<size_t>(n));
}

std::string Peer::reply() {
  while (true) {
    ReplyScanner scanner;
    const ReplyScanner::Step step = scanner.scan(received_);
    if (!received_.empty() && step.status == ReplyScanner::Status::done) {
      std::string whole = received_.substr(0, step.consumed);
      received_.erase(0, step.consumed);
      return whole;
    }
    receive();
  }
}

ScriptedUpstream::ScriptedUpstream() {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener_, 8) != 0)
    throw std::runtime_error("the scripted upstream cannot listen");
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
}

ScriptedUpstream::~ScriptedUpstream() { close(listener_); }

void ScriptedUpstream::accept() {
  peer_.reset();
  pollfd one{listener_, POLLIN, 0};
  if (poll(&one, 1, kDeadlineMs) <= 0) throw std::runtime_error("the worker does not connect");
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // else each answer waits for an ACK
  peer_ = std::make_unique<Peer>(fd);
}

std::optional<std::string> ScriptedUpstream::next_parsed() {
  RequestParser parser{RequestLimits{}};
  Request request;
  size_t consumed = 0;
  if (parser.parse(peer_->received(), request, consumed) != ParseStatus::ok) return std::nullopt;
  std::string text;
  for (const Bytes arg : request.args) text.append(text.empty() ? "" : " ").append(arg);
  peer_->received().erase(0, consumed);
  return text;
}

bool ScriptedUpstream::answered_in_passing(const std::string& request) {
  const size_t probe = request.find(kReservedPrefix);
  if (request.starts_with("HELLO")) send(kHello);
  else if (request.starts_with("CLIENT")) send("+OK\r\n");
  else if (request == "COMMAND") send("-ERR unknown command\r\n");
  else if (request == "ROLE") send(kMaster);
  else if (probe == std::string::npos) return false;
  else if (request.starts_with("EXISTS")) send(":0\r\n");
  else if (request.starts_with("DEL")) send(":1\r\n");
  else
    send("+OK\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n" +
         bulk(request.substr(probe, request.find(' ', probe) - probe)));
  return true;
}

std::optional<std::string> ScriptedUpstream::request_before(const Peer& other) {
  while (true) {
    while (const auto text = next_parsed()) {
      if (!answered_in_passing(*text)) return text;
    }
    if (&other != peer_.get() && !peer_->readable_before(other)) return std::nullopt;
    peer_->receive();
  }
}

std::string ScriptedUpstream::request() { return *request_before(*peer_); }

WorkerUnderTest::WorkerUnderTest(CoherenceMode mode)
    : config_(config_for(upstream.port(), mode)),
      process_(config_, 1024),
      control_(control_loop_),
      bus_(control_loop_, control_, config_, process_),
      schedules_(control_loop_, control_, config_, bus_, {}),
      level_before_(log::least_level) {
  log::least_level = LogLevel::error;
  std::signal(SIGPIPE, SIG_IGN);
  process_.bus = &bus_;
  process_.schedules = &schedules_;
  worker_ = std::make_unique<Worker>(process_, 0);
  process_.stats.push_back(&worker_->router().stats());
  process_.routers.push_back(&worker_->router());
  process_.mailboxes.push_back(&worker_->mailbox());
  worker_->start();
  upstream.accept();
  client = connect();
}

std::unique_ptr<Peer> WorkerUnderTest::connect() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::runtime_error("no socket pair");
  auto peer = std::make_unique<Peer>(ends[0]);
  process_.clients.fetch_add(1);
  worker_->accept(ends[1], true);
  peer->send_request({"HELLO", "3"});
  peer->send_request({"ECHO", "ready"});
  upstream.request();
  upstream.send("$5\r\nready\r\n");
  peer->reply();
  peer->reply();
  return peer;
}

WorkerUnderTest::~WorkerUnderTest() {
  worker_->stop();
  worker_->join();
  schedules_.close();
  bus_.close();
  control_.close();
  control_loop_.close();
  control_loop_.run();
  log::least_level = level_before_;
}

std::string WorkerUnderTest::read(const std::string& key, const std::string& value) {
  client->send_request({"GET", key});
  client->send_request({"ECHO", "after"});
  for (std::string asked = upstream.request(); asked != "ECHO after"; asked = upstream.request())
    upstream.send(asked.starts_with("PTTL") ? ":-1\r\n" : bulk(value));
  upstream.send("$5\r\nafter\r\n");
  std::string answer = client->reply();
  client->reply();
  return answer;
}

}  // namespace nearcached::test
