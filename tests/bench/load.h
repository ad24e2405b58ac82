// The load itself: many connections, one thread, every reply verified.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dataset.h"

namespace nearcached::bench {

// Which key is asked for next. Exactly one of the constructors' ways for a whole run.
class KeySource {
 public:
  // Any of the dataset's keys, at random.
  static KeySource random(const Dataset::Shape& shape);
  // Every key, `passes` times, in order.
  static KeySource in_order(const Dataset::Shape& shape, uint32_t passes);
  // The first `hot` keys at random, and `cold_percent` of the time the next of the others, each of
  // which is asked for once. Ends the program when there is no other any more.
  static KeySource mixed(const Dataset::Shape& shape, uint32_t hot, uint32_t cold_percent);

  bool exhausted() const { return in_order_ && left_ == 0; }
  uint32_t next();

 private:
  uint32_t first_ = 0, keys_ = 0;
  uint32_t hot_ = 0, cold_percent_ = 0, cold_next_ = 0;
  bool in_order_ = false;
  uint64_t left_ = 0;
  uint64_t random_ = 0x9e3779b97f4a7c15ull;
};

// Latencies in nanoseconds, all of them: 4 bytes each, and percentiles are exact.
class Latencies {
 public:
  void reserve(size_t count) { all_.reserve(count); }
  void add(uint64_t ns);
  size_t count() const { return all_.size(); }
  double percentile_us(double share);

 private:
  std::vector<uint32_t> all_;
};

class Load {
 public:
  struct Options {
    std::vector<uint16_t> ports;  // the connections are spread over them
    uint32_t connections = 50;
    uint32_t pipeline = 1;      // requests in one write
    uint32_t churned_keys = 0;  // the latencies of the first so many keys are kept apart
  };

  // Connects. `dataset` and `keys` must outlive it.
  Load(const Options& options, Dataset& dataset, KeySource& keys);
  ~Load();
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  // Closed loop: each connection sends its next batch when it has all replies to the last. Until
  // `seconds` are over (0: without end) or the keys are exhausted, and all replies are in.
  void run_closed(double seconds);
  // Open loop: one request at each multiple of 1/rate, on the connections in turn, however many
  // replies are still to come. A latency counts from when its request was due.
  void run_paced(double rate, double seconds);

  uint64_t replies() const { return latencies_.count() + churned_latencies_.count(); }
  uint64_t bytes_received() const { return bytes_received_; }
  double elapsed_seconds() const { return static_cast<double>(end_ns_ - start_ns_) / 1e9; }
  Latencies& latencies() { return latencies_; }
  Latencies& churned_latencies() { return churned_latencies_; }

 private:
  struct Pending {
    uint32_t key;
    bool first_of_request;
    uint64_t since_ns;
  };
  // A connection and the replies it waits for, in order.
  struct Connection {
    int fd = -1;
    std::vector<Pending> pending;
    size_t answered = 0;  // how many of `pending`
    size_t offset = 0;    // bytes received of the next reply
  };

  bool more_to_send(uint64_t now) const { return now < stop_ns_ && !keys_.exhausted(); }
  void append_request(Connection& connection, uint64_t since_ns);
  void send_batch(Connection& connection, uint64_t now);
  // Waits until something is received or `until_ns`; returns at once what is there already.
  void receive_until(uint64_t until_ns);
  void receive(Connection& connection);
  void take_replies(Connection& connection, std::string_view bytes, uint64_t now);

  const Options options_;
  Dataset& dataset_;
  KeySource& keys_;
  int epoll_ = -1;
  std::vector<Connection> connections_;
  std::vector<char> read_buffer_;
  std::vector<uint32_t> request_keys_;
  std::string write_buffer_;
  Latencies latencies_, churned_latencies_;
  uint64_t bytes_received_ = 0;
  uint64_t start_ns_ = 0, end_ns_ = 0, stop_ns_ = UINT64_MAX;
  bool closed_loop_ = true;
  size_t busy_ = 0;  // connections that wait for replies
};

}  // namespace nearcached::bench
