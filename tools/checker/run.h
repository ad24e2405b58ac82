// A run: writers and readers as threads, until the time is over.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "connection.h"
#include "history.h"
#include "judge.h"

namespace checker {

struct Options {
  std::vector<std::string> endpoints;
  std::vector<std::string> writers_at;
  std::string redis;                   ///< empty: not known
  std::vector<std::string> cluster;    ///< not empty: Redis is a cluster, and these are nodes of it
  std::vector<std::string> sentinels;  ///< not empty: they know which is the primary of `service`
  std::string service;
  unsigned keys = 64;
  unsigned seconds = 10;
  unsigned readers = 3;
  unsigned writes_per_second = 600;
  unsigned max_staleness_ms = 500;
  unsigned other_staleness_ms = 0;   ///< of writes through other endpoints; 0: max_staleness_ms
  unsigned around_staleness_ms = 0;  ///< of writes around the endpoints; 0: max_staleness_ms
  bool other_unordered = false;
  bool around_unordered = false;
  bool keys_unordered = false;  ///< nothing is promised about the order of several keys
  unsigned depth = 8;
  double hit_ratio_min = 0.3;
  uint64_t seed = 1;
  bool faults = false;   ///< errors and lost connections are counted, and do not end the run
  bool control = false;  ///< standard input tells of faults
  bool json = false;
  unsigned timeout_ms = 10'000;
};

struct Outcome {
  std::vector<Results> results;                        ///< per endpoint
  std::vector<std::pair<uint64_t, uint64_t>> lookups;  ///< per endpoint: hits, misses
  uint64_t unknown_writes = 0;                         ///< that failed and may have been executed
  uint64_t lost_writes = 0;    ///< acknowledged, but not in Redis at the end
  uint64_t lost_by_redis = 0;  ///< executed, but not there any more after it had failed over
  std::string failure;         ///< why the run proves nothing; empty: it does
};

class Run {
 public:
  explicit Run(Options options);
  Outcome execute();

 private:
  struct Begun {
    size_t key;
    uint64_t number;
    bool acknowledged = false;
    uint64_t replaced = 0;  ///< the number that Redis had, when it was asked for
  };
  class Reading;

  void start();
  void wait_for_end();
  void obey(const std::string& line);
  void flush_around();
  void settle_losses();
  void heal();

  void write(size_t writer);
  void write_until_failure(size_t writer, std::mt19937_64& random);
  void send_writes(Link& link, std::vector<Begun>& begun, size_t writer, std::mt19937_64& random);
  void settle(const std::vector<Begun>& begun, size_t place);
  /// Redis is a cluster, or has sentinels.
  bool fails_over() const { return !options_.cluster.empty() || !options_.sentinels.empty(); }
  void pause(std::mt19937_64& random) const;

  void read(size_t endpoint, unsigned reader);
  void fetch_truth();
  void fail(const std::string& what);
  std::pair<uint64_t, uint64_t> hits_and_misses(const std::string& endpoint) const;
  unsigned longest_staleness_ms() const;
  /// The index of a writer's place among the endpoints, or their number for Redis itself.
  size_t place_of(const std::string& place) const;
  /// To an endpoint, or to Redis itself, wherever that is now.
  std::unique_ptr<Link> link_to(const std::string& place) const;
  /// To ask Redis itself what it holds; null if it is not known.
  std::unique_ptr<Link> link_to_redis() const;

  const Options options_;
  KeySpace keys_;
  std::vector<Promise> promises_;               ///< per endpoint
  std::vector<std::atomic<uint64_t>> numbers_;  ///< per writer: of its last write
  std::shared_mutex writes_or_flush_;           ///< shared by writes, alone for a flush
  std::atomic<bool> writing_{true};
  std::atomic<bool> reading_{true};
  std::atomic<int64_t> healed_ns_{0};
  std::vector<uint64_t> due_when_healed_;  ///< by key; written before healed_ns_
  std::vector<uint64_t> truth_;            ///< by key; written before reading_ is false
  std::atomic<uint64_t> unknown_writes_{0};
  std::atomic<uint64_t> lost_by_redis_{0};
  std::mutex mutex_;
  Outcome outcome_;
};

}  // namespace checker
