// One thread, epoll, blocking sends and non-blocking receives.
//
// Invariant: a connection's `pending` holds what it has asked for since it was last without
// anything outstanding; in a closed loop that is exactly one batch. Closed loop: CPU per request at
// saturation, the same for all servers. Open loop: latency at a rate that the server can serve; a
// request that could not be sent in time, because the load or the server was late, counts from when
// it was due, so that a pause of either is seen by all the requests it delays. Rejected: two kinds
// of connections for the two; what is received is checked the same way.
#include "load.h"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>

#include "net.h"

namespace nearcached::bench {
namespace {

constexpr size_t kReadBytes = 256 * 1024;
constexpr size_t kRepliesPerSecondExpected = 2'000'000;
constexpr uint64_t kStallTimeoutNs = uint64_t{kStallTimeoutMs} * 1'000'000;

const char* name_of(Command command) {
  switch (command) {
    case Command::get: return "GET";
    case Command::set: return "SET";
    case Command::mget: return "MGET";
    case Command::hgetall: return "HGETALL";
  }
  return "?";
}

}  // namespace

KeySource KeySource::random(const Dataset::Shape& shape) { return mixed(shape, shape.keys, 0); }

KeySource KeySource::in_order(const Dataset::Shape& shape, uint32_t passes) {
  KeySource source = random(shape);
  source.in_order_ = true;
  source.left_ = uint64_t{shape.keys} * passes;
  return source;
}

KeySource KeySource::mixed(const Dataset::Shape& shape, uint32_t hot, uint32_t cold_percent) {
  KeySource source;
  source.first_ = shape.first_key;
  source.keys_ = shape.keys;
  source.hot_ = source.cold_next_ = hot;
  source.cold_percent_ = cold_percent;
  return source;
}

uint32_t KeySource::next() {
  if (in_order_) return first_ + static_cast<uint32_t>(--left_ % keys_);
  random_ ^= random_ << 13;  // xorshift64: the load generator must cost less than the server
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  if (cold_percent_ > 0 && (random_ & 0xffffffff) % 100 < cold_percent_) {
    if (cold_next_ == keys_) die("every key has been asked for: needs more --keys");
    return first_ + cold_next_++;
  }
  return first_ + static_cast<uint32_t>(((random_ >> 32) * hot_) >> 32);
}

void Latencies::add(uint64_t ns) {
  all_.push_back(static_cast<uint32_t>(std::min<uint64_t>(ns, UINT32_MAX)));
}

double Latencies::percentile_us(double share) {
  if (all_.empty()) return 0;
  const auto rank = static_cast<size_t>(share * static_cast<double>(all_.size() - 1));
  const auto nth = all_.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(all_.begin(), nth, all_.end());
  return static_cast<double>(*nth) / 1e3;
}

Load::Load(const Options& options, Dataset& dataset, KeySource& keys)
    : options_(options), dataset_(dataset), keys_(keys), read_buffer_(kReadBytes) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) die_errno("epoll_create1");
  connections_.resize(options.connections);
  for (size_t i = 0; i < connections_.size(); ++i) {
    connections_[i].fd = connect_to(options.ports[i % options.ports.size()]);
    if (dataset.shape().resp3) say_hello_3(connections_[i].fd);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = i;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_[i].fd, &event) != 0) die_errno("epoll_ctl");
  }
}

Load::~Load() {
  for (const Connection& connection : connections_) close(connection.fd);
  close(epoll_);
}

void Load::append_request(Connection& connection, uint64_t since_ns) {
  const uint32_t keys_per_request = dataset_.shape().keys_per_request;
  request_keys_.clear();
  for (uint32_t i = 0; i < keys_per_request; ++i) {
    request_keys_.push_back(keys_.next());
    connection.pending.push_back({request_keys_.back(), i == 0, since_ns});
  }
  dataset_.append_request(request_keys_, write_buffer_);
}

void Load::send_batch(Connection& connection, uint64_t now) {
  write_buffer_.clear();
  for (uint32_t i = 0; i < options_.pipeline && !keys_.exhausted(); ++i)
    append_request(connection, now);
  ++busy_;
  send_all(connection.fd, write_buffer_);
}

void Load::run_closed(double seconds) {
  start_ns_ = now_ns();
  if (seconds > 0) {
    stop_ns_ = start_ns_ + static_cast<uint64_t>(seconds * 1e9);
    latencies_.reserve(static_cast<size_t>(seconds * kRepliesPerSecondExpected));
  }
  for (Connection& connection : connections_) {
    if (more_to_send(start_ns_)) send_batch(connection, now_ns());
  }
  while (busy_ > 0) receive_until(UINT64_MAX);
  end_ns_ = now_ns();
}

void Load::run_paced(double rate, double seconds) {
  prctl(PR_SET_TIMERSLACK, 1'000ul);  // of a wait for the next request, in ns; 50 µs is the default
  closed_loop_ = false;
  start_ns_ = now_ns();
  stop_ns_ = start_ns_ + static_cast<uint64_t>(seconds * 1e9);
  latencies_.reserve(static_cast<size_t>(seconds * rate) + 1);
  const double interval_ns = 1e9 / rate;
  uint64_t sent = 0;
  const auto due_ns = [&] {
    return start_ns_ + static_cast<uint64_t>(static_cast<double>(sent) * interval_ns);
  };
  while (more_to_send(due_ns())) {
    while (due_ns() <= now_ns() && more_to_send(due_ns())) {
      Connection& connection = connections_[sent % connections_.size()];
      if (connection.pending.empty()) ++busy_;
      write_buffer_.clear();
      append_request(connection, due_ns());
      send_all(connection.fd, write_buffer_);
      ++sent;
    }
    receive_until(due_ns());
  }
  while (busy_ > 0) receive_until(UINT64_MAX);
  end_ns_ = now_ns();
}

void Load::receive_until(uint64_t until_ns) {
  std::array<epoll_event, 512> events;
  const uint64_t now = now_ns();
  const uint64_t wait_ns = until_ns <= now ? 0 : std::min(until_ns - now, kStallTimeoutNs);
  const timespec wait{static_cast<time_t>(wait_ns / 1'000'000'000),
                      static_cast<long>(wait_ns % 1'000'000'000)};
  const int ready =
      epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &wait, nullptr);
  if (ready < 0 && errno != EINTR) die_errno("epoll_pwait2");
  if (ready == 0 && wait_ns == kStallTimeoutNs && busy_ > 0)
    die("no reply for 10 s with " + std::to_string(busy_) + " batches outstanding");
  for (int i = 0; i < ready; ++i) receive(connections_[events[static_cast<size_t>(i)].data.u64]);
}

void Load::receive(Connection& connection) {
  const ssize_t got = recv(connection.fd, read_buffer_.data(), read_buffer_.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got < 0) die_errno("recv");
  if (got == 0) die("the server closed a connection");
  const uint64_t now = now_ns();
  bytes_received_ += static_cast<uint64_t>(got);
  take_replies(connection, {read_buffer_.data(), static_cast<size_t>(got)}, now);
  if (connection.answered < connection.pending.size()) return;
  connection.pending.clear();
  connection.answered = 0;
  --busy_;
  if (closed_loop_ && more_to_send(now)) send_batch(connection, now);
}

void Load::take_replies(Connection& connection, std::string_view bytes, uint64_t now) {
  while (!bytes.empty()) {
    if (connection.answered == connection.pending.size()) die("bytes behind the last reply");
    const Pending& next = connection.pending[connection.answered];
    const size_t reply_bytes = dataset_.reply_bytes(next.first_of_request);
    const std::string_view piece = bytes.substr(0, reply_bytes - connection.offset);
    if (!dataset_.matches(next.key, next.first_of_request, connection.offset, piece)) {
      die(std::string("wrong reply to ") + name_of(dataset_.shape().command) + " of key " +
          std::to_string(next.key) + " at its byte " + std::to_string(connection.offset) + ": " +
          printable(piece));
    }
    bytes.remove_prefix(piece.size());
    connection.offset += piece.size();
    if (connection.offset < reply_bytes) return;
    connection.offset = 0;
    ++connection.answered;
    const bool churned = next.key - dataset_.shape().first_key < options_.churned_keys;
    (churned ? churned_latencies_ : latencies_).add(now - next.since_ns);
  }
}

}  // namespace nearcached::bench
