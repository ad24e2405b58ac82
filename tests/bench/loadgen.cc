// nearcached-loadgen: closed-loop GET load for tools/bench.
//
// Problem: redis-benchmark neither looks into the replies it counts (an error or a nil is as good
// as a value), nor reads the CPU time of the server it loads at the moment the load starts and
// ends. Approach: one thread, epoll, blocking sends and non-blocking receives. Each connection
// sends a batch of `pipeline` GETs in one write, waits for all their replies, sends the next.
// Values are a function of the key, so each reply is compared byte by byte with the one reply that
// is right for that request: a lost, crossed, short or stale reply ends the run with an error.
// Every latency is kept (4 bytes each), so percentiles are exact. The CPU time of the processes
// named by --pid is read from /proc/PID/task/*/schedstat (nanoseconds, not ticks) right before the
// first request and right after the last reply; so neither connecting nor starting a process is
// counted. Invariant: a connection has either no request outstanding or the rest of exactly one
// batch. Rejected: an open loop at a fixed rate. It is the better model of latency under partial
// load, but the figure that matters here is CPU per request at saturation, where both give the
// same.
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr int kStallTimeoutMs = 10'000;  // no reply at all for this long: the server is stuck
constexpr size_t kReadBytes = 256 * 1024;
constexpr size_t kNumberDigits = 12;

struct Options {
  uint16_t port = 0;
  uint32_t keys = 10'000;
  uint32_t value_bytes = 64;
  uint32_t connections = 50;
  uint32_t pipeline = 1;
  double seconds = 2.0;
  uint32_t passes = 1;
  int cpu = -1;
  std::vector<int> pids;
};

[[noreturn]] void die(const std::string& message) {
  std::fprintf(stderr, "nearcached-loadgen: %s\n", message.c_str());
  std::exit(1);
}

[[noreturn]] void die_errno(const std::string& what) { die(what + ": " + std::strerror(errno)); }

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

// The requests and the replies they must get. Key and value both carry the key's number in decimal,
// of fixed width, so that a request or a reply is a fixed text with the number put in.
class Dataset {
 public:
  Dataset(uint32_t keys, uint32_t value_bytes) : keys_(keys) {
    if (value_bytes < kNumberDigits) die("--value-bytes is at least 12");
    numbers_.resize(size_t{keys} * kNumberDigits);
    for (uint32_t key = 0; key < keys; ++key) {
      uint32_t rest = key;
      char* digits = &numbers_[size_t{key} * kNumberDigits];
      for (size_t i = kNumberDigits; i-- > 0; rest /= 10)
        digits[i] = static_cast<char>('0' + rest % 10);
    }
    const std::string zeros(kNumberDigits, '0');
    const std::string bulk = "$16\r\nkey:" + zeros + "\r\n";
    const std::string value = "$" + std::to_string(value_bytes) + "\r\n" + zeros +
                              std::string(value_bytes - kNumberDigits, 'v') + "\r\n";
    get_ = "*2\r\n$3\r\nGET\r\n" + bulk;
    set_ = "*3\r\n$3\r\nSET\r\n" + bulk + value;
    reply_ = value;
    get_number_at_ = get_.size() - 2 - kNumberDigits;
    reply_number_at_ = value.find("\r\n") + 2;
    set_number_at_ = set_.size() - value.size() - 2 - kNumberDigits;
    set_value_at_ = set_.size() - value.size() + reply_number_at_;
  }

  uint32_t keys() const { return keys_; }
  size_t reply_bytes() const { return reply_.size(); }

  void append_get(uint32_t key, std::string& out) const {
    const size_t at = out.size();
    out += get_;
    std::memcpy(&out[at + get_number_at_], number(key), kNumberDigits);
  }

  void append_set(uint32_t key, std::string& out) const {
    const size_t at = out.size();
    out += set_;
    std::memcpy(&out[at + set_number_at_], number(key), kNumberDigits);
    std::memcpy(&out[at + set_value_at_], number(key), kNumberDigits);
  }

  // Whether `piece` is what the reply for `key` has at `offset`.
  bool matches(uint32_t key, size_t offset, std::string_view piece) {
    std::memcpy(&reply_[reply_number_at_], number(key), kNumberDigits);
    return std::memcmp(reply_.data() + offset, piece.data(), piece.size()) == 0;
  }

 private:
  const char* number(uint32_t key) const { return &numbers_[size_t{key} * kNumberDigits]; }

  uint32_t keys_;
  std::string numbers_;
  std::string get_, set_, reply_;
  size_t get_number_at_, set_number_at_, set_value_at_, reply_number_at_;
};

struct CpuTime {
  uint64_t running_ns = 0;
  uint64_t waiting_ns = 0;  // runnable, but another process had the core
};

// Sums over the threads that are alive: none of the servers ends one while it serves.
CpuTime cpu_time_of(int pid) {
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(tasks.c_str()), closedir);
  if (!directory) die_errno(tasks);
  CpuTime sum;
  while (const dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] == '.') continue;
    const std::string path = tasks + "/" + entry->d_name + "/schedstat";
    std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "r"), std::fclose);
    unsigned long long running = 0, waiting = 0;
    if (!file || std::fscanf(file.get(), "%llu %llu", &running, &waiting) != 2) {
      die("cannot read " + path + " (the kernel needs CONFIG_SCHED_INFO)");
    }
    sum.running_ns += running;
    sum.waiting_ns += waiting;
  }
  return sum;
}

int connect_to(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die_errno("socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    die_errno("connect to 127.0.0.1:" + std::to_string(port));
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const timeval timeout{kStallTimeoutMs / 1000, 0};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  return fd;
}

void send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) die_errno("send");
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

std::string printable(std::string_view bytes) {
  std::string out;
  for (const char c : bytes.substr(0, 80)) {
    if (c >= ' ' && c <= '~') out += c;
    else out += '.';
  }
  return out;
}

// One connection and the batch it waits for.
struct Connection {
  int fd = -1;
  uint64_t sent_ns = 0;
  std::vector<uint32_t> batch;  // the key of each request, in order
  size_t replies = 0;           // complete ones of this batch
  size_t offset = 0;            // bytes received of the next one
};

// Drives all connections until a time or a number of requests is reached and all replies are in.
class Load {
 public:
  Load(const Options& options, Dataset& dataset)
      : options_(options), dataset_(dataset), read_buffer_(kReadBytes) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) die_errno("epoll_create1");
    connections_.resize(options.connections);
    for (size_t i = 0; i < connections_.size(); ++i) {
      connections_[i].fd = connect_to(options.port);
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.u64 = i;
      if (epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_[i].fd, &event) != 0) die_errno("epoll_ctl");
    }
  }

  ~Load() {
    for (const Connection& connection : connections_) close(connection.fd);
    close(epoll_);
  }

  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  // Random keys for `seconds`.
  void run_for(double seconds) {
    stop_ns_ = now_ns() + static_cast<uint64_t>(seconds * 1e9);
    latencies_ns_.reserve(static_cast<size_t>(seconds * 2e6));
    run();
  }

  // Every key in order, `passes` times.
  void run_passes(uint32_t passes) {
    in_order_ = true;
    in_order_left_ = uint64_t{dataset_.keys()} * passes;
    run();
  }

  uint64_t requests() const { return latencies_ns_.size(); }
  double elapsed_seconds() const { return static_cast<double>(end_ns_ - start_ns_) / 1e9; }

  double percentile_us(double share) {
    if (latencies_ns_.empty()) return 0;
    const auto rank = static_cast<size_t>(share * static_cast<double>(latencies_ns_.size() - 1));
    const auto nth = latencies_ns_.begin() + static_cast<std::ptrdiff_t>(rank);
    std::nth_element(latencies_ns_.begin(), nth, latencies_ns_.end());
    return static_cast<double>(*nth) / 1e3;
  }

 private:
  bool more_to_send(uint64_t now) const { return in_order_ ? in_order_left_ > 0 : now < stop_ns_; }

  uint32_t next_key() {
    if (in_order_) return static_cast<uint32_t>(in_order_left_-- % dataset_.keys());
    random_ ^= random_ << 13;  // xorshift64: the load generator must cost less than the server
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return static_cast<uint32_t>(((random_ >> 32) * dataset_.keys()) >> 32);
  }

  void send_batch(Connection& connection) {
    connection.batch.clear();
    connection.replies = connection.offset = 0;
    write_buffer_.clear();
    for (uint32_t i = 0; i < options_.pipeline && (!in_order_ || in_order_left_ > 0); ++i) {
      connection.batch.push_back(next_key());
      dataset_.append_get(connection.batch.back(), write_buffer_);
    }
    ++busy_;
    connection.sent_ns = now_ns();
    send_all(connection.fd, write_buffer_);
  }

  void run() {
    start_ns_ = now_ns();
    for (Connection& connection : connections_) {
      if (more_to_send(start_ns_)) send_batch(connection);
    }
    std::vector<epoll_event> events(512);
    while (busy_ > 0) {
      const int ready =
          epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), kStallTimeoutMs);
      if (ready < 0 && errno == EINTR) continue;
      if (ready < 0) die_errno("epoll_wait");
      if (ready == 0)
        die("no reply for 10 s with " + std::to_string(busy_) + " batches outstanding");
      for (int i = 0; i < ready; ++i)
        receive(connections_[events[static_cast<size_t>(i)].data.u64]);
    }
    end_ns_ = now_ns();
  }

  void receive(Connection& connection) {
    const ssize_t got = recv(connection.fd, read_buffer_.data(), read_buffer_.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0) die_errno("recv");
    if (got == 0) die("the server closed a connection");
    const uint64_t now = now_ns();
    take_replies(connection, {read_buffer_.data(), static_cast<size_t>(got)}, now);
    if (connection.replies < connection.batch.size()) return;
    --busy_;
    if (more_to_send(now)) send_batch(connection);
  }

  void take_replies(Connection& connection, std::string_view bytes, uint64_t now) {
    while (!bytes.empty()) {
      if (connection.replies == connection.batch.size()) die("bytes behind the last reply");
      const uint32_t key = connection.batch[connection.replies];
      const std::string_view piece = bytes.substr(0, dataset_.reply_bytes() - connection.offset);
      if (!dataset_.matches(key, connection.offset, piece)) {
        die("wrong reply to GET of key " + std::to_string(key) + " at its byte " +
            std::to_string(connection.offset) + ": " + printable(piece));
      }
      bytes.remove_prefix(piece.size());
      connection.offset += piece.size();
      if (connection.offset < dataset_.reply_bytes()) return;
      connection.offset = 0;
      ++connection.replies;
      latencies_ns_.push_back(
          static_cast<uint32_t>(std::min<uint64_t>(now - connection.sent_ns, UINT32_MAX)));
    }
  }

  const Options& options_;
  Dataset& dataset_;
  int epoll_ = -1;
  std::vector<Connection> connections_;
  std::vector<char> read_buffer_;
  std::string write_buffer_;
  std::vector<uint32_t> latencies_ns_;
  uint64_t random_ = 0x9e3779b97f4a7c15ull;
  uint64_t start_ns_ = 0, end_ns_ = 0, stop_ns_ = 0;
  bool in_order_ = false;
  uint64_t in_order_left_ = 0;
  size_t busy_ = 0;  // connections that wait for replies
};

void fill(const Options& options) {
  const Dataset dataset(options.keys, options.value_bytes);
  const int fd = connect_to(options.port);
  constexpr uint32_t kBatch = 100;
  std::string requests, replies;
  for (uint32_t key = 0; key < options.keys;) {
    requests.clear();
    size_t expected = 0;
    for (uint32_t i = 0; i < kBatch && key < options.keys; ++i, ++key, expected += 5) {
      dataset.append_set(key, requests);
    }
    send_all(fd, requests);
    replies.resize(expected);
    const ssize_t got = recv(fd, replies.data(), expected, MSG_WAITALL);
    if (got != static_cast<ssize_t>(expected)) die("SET: connection closed or no reply for 10 s");
    for (size_t at = 0; at < expected; at += 5) {
      if (replies.compare(at, 5, "+OK\r\n") != 0) die("SET answers " + printable(replies));
    }
  }
  close(fd);
}

void warm(const Options& options) {
  Dataset dataset(options.keys, options.value_bytes);
  Load(options, dataset).run_passes(options.passes);
}

void get(const Options& options) {
  Dataset dataset(options.keys, options.value_bytes);
  Load load(options, dataset);
  std::vector<CpuTime> before;
  for (const int pid : options.pids) before.push_back(cpu_time_of(pid));
  const CpuTime own_before = cpu_time_of(getpid());
  load.run_for(options.seconds);
  const CpuTime own_after = cpu_time_of(getpid());
  std::string processes;
  for (size_t i = 0; i < options.pids.size(); ++i) {
    const CpuTime after = cpu_time_of(options.pids[i]);
    processes += (i ? ", " : "") + std::string("{\"pid\": ") + std::to_string(options.pids[i]) +
                 ", \"running_ns\": " + std::to_string(after.running_ns - before[i].running_ns) +
                 ", \"waiting_ns\": " + std::to_string(after.waiting_ns - before[i].waiting_ns) +
                 "}";
  }
  std::printf(
      "{\"requests\": %llu, \"seconds\": %.6f, \"p50_us\": %.3f, \"p99_us\": %.3f, "
      "\"load_running_ns\": %llu, \"processes\": [%s]}\n",
      static_cast<unsigned long long>(load.requests()), load.elapsed_seconds(),
      load.percentile_us(0.50), load.percentile_us(0.99),
      static_cast<unsigned long long>(own_after.running_ns - own_before.running_ns),
      processes.c_str());
}

// Opens the connections, has each one answer a GET (so that they are connections that have worked,
// not only sockets in a backlog), says "ready" and holds them until standard input ends.
void idle(const Options& options) {
  Dataset dataset(options.keys, options.value_bytes);
  Load load(options, dataset);
  load.run_passes((options.connections + options.keys - 1) / options.keys);
  std::printf("ready\n");
  std::fflush(stdout);
  char ignored = 0;
  while (read(STDIN_FILENO, &ignored, 1) > 0) continue;
}

void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) die_errno("--cpu");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Closed-loop GET load with verified replies, for tools/bench"};
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--port", options.port, "server on 127.0.0.1")->required();
  app.add_option("--keys", options.keys)->check(CLI::Range(1u, 100'000'000u));
  app.add_option("--value-bytes", options.value_bytes)->check(CLI::Range(12u, 1u << 24));
  app.add_option("--connections", options.connections)->check(CLI::Range(1u, 100'000u));
  app.add_option("--pipeline", options.pipeline)->check(CLI::Range(1u, 4096u));
  app.add_option("--seconds", options.seconds)->check(CLI::Range(0.01, 3600.0));
  app.add_option("--passes", options.passes)->check(CLI::Range(1u, 1000u));
  app.add_option("--cpu", options.cpu, "core of the load generator");
  app.add_option("--pid", options.pids, "process whose CPU time is measured; may be repeated");
  const CLI::App* fill_command = app.add_subcommand("fill", "SET every key");
  const CLI::App* warm_command = app.add_subcommand("warm", "GET every key, --passes times");
  const CLI::App* get_command =
      app.add_subcommand("get", "GET random keys for --seconds; prints one line of JSON");
  const CLI::App* idle_command =
      app.add_subcommand("idle", "hold --connections until standard input ends");
  CLI11_PARSE(app, argc, argv);

  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (options.cpu >= 0) pin_to(options.cpu);

  if (fill_command->parsed()) fill(options);
  if (warm_command->parsed()) warm(options);
  if (get_command->parsed()) get(options);
  if (idle_command->parsed()) idle(options);
  return 0;
}
