// coherence-checker: does a near cache keep its promise under load?
//
// Every key has one writer, and every writer numbers its writes 1, 2, 3… over all its keys; a key's
// value is the number of its last write. A writer waits for each answer, so Redis's history holds
// its writes in the order of their numbers. From that, and nothing else, a reader can judge each
// reply:
//   read your writes  the value is not older than a write to this key that was acknowledged through
//   the
//                     same proxy before the read was sent;
//   no going back     if this connection has seen number s of a writer in an earlier reply (on
//   whatever
//                     key), the value is not older than this key's last write up to s;
//   staleness         how long before the read was sent the next write to this key had been
//   acknowledged:
//                     the least age that the overwritten value can have had;
//   convergence       when the writers have stopped, every connection reads the last value of every
//   key.
// Comparing with what Redis itself holds at the same moment would prove nothing: there is no same
// moment. Elements of one MGET are judged against earlier replies, not against each other: several
// keys at once are no snapshot, and none is promised.
//
// A run with few hits would pass with any cache, so one with less than 30 % of them fails.
#include <hiredis/hiredis.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

struct Options {
  std::vector<std::string> endpoints;
  std::vector<std::string> writers_at;
  unsigned keys = 64;
  unsigned seconds = 10;
  unsigned readers = 3;
  unsigned writes_per_second = 600;
  unsigned max_staleness_ms = 500;
  unsigned depth = 8;
  double hit_ratio_min = 0.3;
  uint64_t seed = 1;
};

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

/// One connection. Any failure ends the run: on a healthy system there is none.
class Connection {
 public:
  explicit Connection(const std::string& endpoint) : endpoint_(endpoint) {
    const size_t colon = endpoint.rfind(':');
    if (colon == std::string::npos) throw std::runtime_error(endpoint + ": HOST:PORT expected");
    const timeval limit{10, 0};
    context_.reset(redisConnectWithTimeout(endpoint.substr(0, colon).c_str(),
                                           std::stoi(endpoint.substr(colon + 1)), limit));
    if (!context_ || context_->err != 0) throw std::runtime_error(endpoint + ": cannot connect");
    redisSetTimeout(context_.get(), limit);
  }

  void append(const std::vector<std::string>& args) {
    std::vector<const char*> data;
    std::vector<size_t> sizes;
    for (const std::string& arg : args) {
      data.push_back(arg.data());
      sizes.push_back(arg.size());
    }
    redisAppendCommandArgv(context_.get(), static_cast<int>(args.size()), data.data(),
                           sizes.data());
  }

  using Reply = std::unique_ptr<redisReply, void (*)(void*)>;
  Reply read() {
    void* raw = nullptr;
    if (redisGetReply(context_.get(), &raw) != REDIS_OK) {
      throw std::runtime_error(endpoint_ + ": " + context_->errstr);
    }
    Reply reply(static_cast<redisReply*>(raw), freeReplyObject);
    if (reply->type == REDIS_REPLY_ERROR) throw std::runtime_error(endpoint_ + ": " + reply->str);
    return reply;
  }

  Reply ask(const std::vector<std::string>& args) {
    append(args);
    return read();
  }

 private:
  struct Free {
    void operator()(redisContext* context) const { redisFree(context); }
  };
  std::string endpoint_;
  std::unique_ptr<redisContext, Free> context_;
};

/// What one key's writer did, in order. Shared by its writer and all readers.
class KeyHistory {
 public:
  void begin(uint64_t number) {
    const std::lock_guard lock(mutex_);
    writes_.push_back({number, 0});
  }
  void acknowledged() {
    const std::lock_guard lock(mutex_);
    writes_.back().acknowledged_ns = now_ns();
  }
  /// The last write numbered `number` or less; 0 if there is none.
  uint64_t last_up_to(uint64_t number) const {
    const std::lock_guard lock(mutex_);
    const auto after = after_number(number);
    return after == writes_.begin() ? 0 : std::prev(after)->number;
  }
  uint64_t last() const {
    const std::lock_guard lock(mutex_);
    return writes_.empty() ? 0 : writes_.back().number;
  }
  /// When the write that replaced `number` was acknowledged; 0: not yet.
  int64_t replaced_ns(uint64_t number) const {
    const std::lock_guard lock(mutex_);
    const auto next = after_number(number);
    return next == writes_.end() ? 0 : next->acknowledged_ns;
  }

 private:
  struct Write {
    uint64_t number;
    int64_t acknowledged_ns;
  };
  std::vector<Write>::const_iterator after_number(uint64_t number) const {
    return std::upper_bound(writes_.begin(), writes_.end(), number,
                            [](uint64_t n, const Write& w) { return n < w.number; });
  }
  mutable std::mutex mutex_;
  std::vector<Write> writes_;
};

struct Key {
  std::string name;
  size_t writer = 0;
  KeyHistory history;
  /// Per endpoint: the highest number acknowledged through it.
  std::vector<std::atomic<uint64_t>> acknowledged;
};

/// What writers and readers share.
struct World {
  Options options;
  std::vector<std::unique_ptr<Key>> keys;
};

struct Results {
  uint64_t reads = 0;
  uint64_t own_write_missed = 0;
  uint64_t went_back = 0;
  uint64_t too_stale = 0;
  uint64_t not_converged = 0;
  std::vector<int64_t> stale_ns;  ///< of the reads that were certainly stale

  void add(const Results& other) {
    reads += other.reads;
    own_write_missed += other.own_write_missed;
    went_back += other.went_back;
    too_stale += other.too_stale;
    not_converged += other.not_converged;
    stale_ns.insert(stale_ns.end(), other.stale_ns.begin(), other.stale_ns.end());
  }
  uint64_t violations() const { return own_write_missed + went_back + too_stale + not_converged; }
};

/// Judges the replies of one connection.
class Reader {
 public:
  Reader(const World& world, size_t endpoint, Results& results)
      : world_(world),
        endpoint_(endpoint),
        results_(results),
        seen_(world.options.writers_at.size(), 0) {}

  /// To be called before the read is sent: what it has to see at least.
  void expect(size_t key) {
    expected_.push_back({key, world_.keys[key]->acknowledged[endpoint_].load(), now_ns()});
  }
  /// A reply to the oldest reads expected, with one value for each.
  void judge(const std::vector<uint64_t>& values) {
    std::vector<std::pair<size_t, uint64_t>> news;
    for (size_t i = 0; i < values.size(); ++i) {
      judge_one(expected_[i], values[i]);
      news.emplace_back(world_.keys[expected_[i].key]->writer, values[i]);
    }
    for (const auto& [writer, number] : news) seen_[writer] = std::max(seen_[writer], number);
    expected_.erase(expected_.begin(),
                    expected_.begin() + static_cast<std::ptrdiff_t>(values.size()));
  }

 private:
  struct Expected {
    size_t key;
    uint64_t own_write;
    int64_t sent_ns;
  };

  void judge_one(const Expected& expected, uint64_t value) {
    const Key& key = *world_.keys[expected.key];
    ++results_.reads;
    if (value < expected.own_write) {
      ++results_.own_write_missed;
      tell("own write missed", key, value, expected.own_write);
    }
    const uint64_t at_least = key.history.last_up_to(seen_[key.writer]);
    if (value < at_least) {
      ++results_.went_back;
      tell("went back", key, value, at_least);
    }
    const int64_t replaced_ns = key.history.replaced_ns(value);
    if (replaced_ns == 0 || replaced_ns >= expected.sent_ns) return;
    const int64_t stale_ns = expected.sent_ns - replaced_ns;
    results_.stale_ns.push_back(stale_ns);
    if (stale_ns > int64_t{world_.options.max_staleness_ms} * 1'000'000) {
      ++results_.too_stale;
      tell("too stale", key, value, key.history.last());
    }
  }

  void tell(const char* what, const Key& key, uint64_t value, uint64_t at_least) const {
    constexpr uint64_t kTold = 20;
    if (results_.violations() > kTold) return;
    std::fprintf(stderr, "%s: %s at %s read %llu, at least %llu was due\n", what, key.name.c_str(),
                 world_.options.endpoints[endpoint_].c_str(),
                 static_cast<unsigned long long>(value), static_cast<unsigned long long>(at_least));
  }

  const World& world_;
  size_t endpoint_;
  Results& results_;
  std::vector<uint64_t> seen_;  ///< per writer: the highest number in an earlier reply
  std::vector<Expected> expected_;
};

uint64_t value_of(const redisReply& reply) {
  return reply.type == REDIS_REPLY_NIL ? 0 : std::stoull(std::string(reply.str, reply.len));
}

class Run {
 public:
  explicit Run(Options options) : world_{std::move(options), {}} {
    for (unsigned i = 0; i < options_.keys; ++i) {
      auto key = std::make_unique<Key>();
      key->name = "coherence-checker:" + std::to_string(options_.seed) + ":" + std::to_string(i);
      key->writer = i % options_.writers_at.size();
      key->acknowledged = std::vector<std::atomic<uint64_t>>(options_.endpoints.size());
      world_.keys.push_back(std::move(key));
    }
  }

  /// True when everything held.
  bool execute();

 private:
  void write(size_t writer);
  /// Returns the keys written.
  std::vector<size_t> write_once(Connection& connection, const std::vector<size_t>& own,
                                 uint64_t& number, std::mt19937_64& random);
  void read(size_t endpoint, unsigned reader);
  void check_convergence(Connection& connection, Results& results);
  void remember(size_t endpoint, const Results& results);
  void fail(const std::string& what);
  double report(const std::vector<std::pair<uint64_t, uint64_t>>& before) const;
  std::pair<uint64_t, uint64_t> hits_and_misses(const std::string& endpoint) const;

  /// The index of a writer's place among the endpoints, or their number for Redis itself.
  size_t endpoint_of(const std::string& place) const {
    return static_cast<size_t>(
        std::find(options_.endpoints.begin(), options_.endpoints.end(), place) -
        options_.endpoints.begin());
  }

  World world_;
  const Options& options_ = world_.options;
  const std::vector<std::unique_ptr<Key>>& keys_ = world_.keys;
  std::atomic<bool> writing_{true};
  std::atomic<bool> reading_{true};
  std::mutex mutex_;
  std::vector<Results> results_;  ///< per endpoint
  std::string failure_;
};

std::vector<size_t> Run::write_once(Connection& connection, const std::vector<size_t>& own,
                                    uint64_t& number, std::mt19937_64& random) {
  const auto pick = [&] { return own[random() % own.size()]; };
  std::vector<size_t> touched{pick()};
  const auto begin = [&](size_t key) {
    keys_[key]->history.begin(++number);
    return std::vector<std::string>{"SET", keys_[key]->name, std::to_string(number)};
  };
  switch (random() % 8) {
    case 0: {  // a transaction: the private connection's way
      connection.append({"MULTI"});
      connection.append(begin(touched[0]));
      connection.append({"EXEC"});
      for (int i = 0; i < 3; ++i) connection.read();
      break;
    }
    case 1: {  // a script that does not say which key it writes
      const std::vector<std::string> set = begin(touched[0]);
      connection.ask({"EVAL", "return redis.call('SET', ARGV[1], ARGV[2])", "0", set[1], set[2]});
      break;
    }
    case 2: {  // two writes in one pipeline
      size_t other = pick();
      while (own.size() > 1 && other == touched[0]) other = pick();
      connection.append(begin(touched[0]));
      if (other != touched[0]) {
        connection.append(begin(other));
        touched.push_back(other);
      }
      for (size_t i = 0; i < touched.size(); ++i) connection.read();
      break;
    }
    default: connection.ask(begin(touched[0]));
  }
  for (const size_t key : touched) keys_[key]->history.acknowledged();
  return touched;
}

void Run::write(size_t writer) {
  Connection connection(options_.writers_at[writer]);
  const size_t endpoint = endpoint_of(options_.writers_at[writer]);
  const bool around = endpoint == options_.endpoints.size();
  std::mt19937_64 random(options_.seed * 1000 + writer);
  std::vector<size_t> own;
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (keys_[i]->writer == writer) own.push_back(i);
  }
  const double mean_us = 1e6 * static_cast<double>(options_.writers_at.size()) /
                         std::max(1u, options_.writes_per_second);
  std::exponential_distribution<double> pause_us(1.0 / mean_us);
  uint64_t number = 0;
  while (writing_) {
    for (const size_t key : write_once(connection, own, number, random)) {
      if (around) continue;
      keys_[key]->acknowledged[endpoint] = keys_[key]->history.last();
    }
    std::this_thread::sleep_for(std::chrono::microseconds(static_cast<int64_t>(pause_us(random))));
  }
}

void Run::read(size_t endpoint, unsigned reader_index) {
  Connection connection(options_.endpoints[endpoint]);
  std::mt19937_64 random(options_.seed * 7777 + endpoint * 100 + reader_index);
  Results results;
  Reader reader(world_, endpoint, results);
  while (reading_) {
    const uint64_t kind = random() % 4;
    const unsigned count = kind < 2 ? 1 : options_.depth;
    std::vector<std::string> mget{"MGET"};
    for (unsigned i = 0; i < count; ++i) {
      const size_t key = random() % keys_.size();
      reader.expect(key);
      if (kind == 3) {
        mget.push_back(keys_[key]->name);
      } else {
        connection.append({"GET", keys_[key]->name});
      }
    }
    if (kind == 3) {
      const Connection::Reply reply = connection.ask(mget);
      std::vector<uint64_t> values;
      for (size_t i = 0; i < reply->elements; ++i) values.push_back(value_of(*reply->element[i]));
      reader.judge(values);
    } else {
      for (unsigned i = 0; i < count; ++i) reader.judge({value_of(*connection.read())});
    }
  }
  check_convergence(connection, results);
  remember(endpoint, results);
}

void Run::check_convergence(Connection& connection, Results& results) {
  for (const std::unique_ptr<Key>& key : keys_) {
    const uint64_t value = value_of(*connection.ask({"GET", key->name}));
    if (value != key->history.last()) ++results.not_converged;
  }
}

void Run::remember(size_t endpoint, const Results& results) {
  const std::lock_guard lock(mutex_);
  results_[endpoint].add(results);
}

void Run::fail(const std::string& what) {
  const std::lock_guard lock(mutex_);
  if (failure_.empty()) failure_ = what;
  writing_ = false;
  reading_ = false;
}

std::pair<uint64_t, uint64_t> Run::hits_and_misses(const std::string& endpoint) const {
  const Connection::Reply reply = Connection(endpoint).ask({"INFO", "nearcached"});
  const std::string info(reply->str, reply->len);
  const auto field = [&](const std::string& name) {
    const size_t at = info.find("\n" + name + ":");
    if (at == std::string::npos) throw std::runtime_error(endpoint + " is no nearcached");
    return std::stoull(info.substr(at + name.size() + 2));
  };
  return {field("l1_hits"), field("l1_misses")};
}

double Run::report(const std::vector<std::pair<uint64_t, uint64_t>>& before) const {
  std::printf("%-22s %10s %6s %9s %9s %9s %9s %5s %5s %6s %9s\n", "endpoint", "reads", "hits",
              "stale", "p50 ms", "p99 ms", "max ms", "own", "back", "stale!", "converge!");
  uint64_t all_hits = 0, all_lookups = 0;
  for (size_t i = 0; i < results_.size(); ++i) {
    const auto [hits, misses] = hits_and_misses(options_.endpoints[i]);
    const uint64_t new_hits = hits - before[i].first;
    const uint64_t lookups = new_hits + misses - before[i].second;
    all_hits += new_hits;
    all_lookups += lookups;
    std::vector<int64_t> stale = results_[i].stale_ns;
    std::sort(stale.begin(), stale.end());
    const auto at = [&](double part) {
      if (stale.empty()) return 0.0;
      const auto index = static_cast<size_t>(part * static_cast<double>(stale.size() - 1));
      return static_cast<double>(stale[index]) / 1e6;
    };
    const double ratio =
        static_cast<double>(new_hits) / static_cast<double>(std::max<uint64_t>(1, lookups));
    std::printf("%-22s %10llu %5.1f%% %9zu %9.3f %9.3f %9.3f %5llu %5llu %6llu %9llu\n",
                options_.endpoints[i].c_str(), static_cast<unsigned long long>(results_[i].reads),
                100 * ratio, stale.size(), at(0.5), at(0.99), at(1.0),
                static_cast<unsigned long long>(results_[i].own_write_missed),
                static_cast<unsigned long long>(results_[i].went_back),
                static_cast<unsigned long long>(results_[i].too_stale),
                static_cast<unsigned long long>(results_[i].not_converged));
  }
  return static_cast<double>(all_hits) / static_cast<double>(std::max<uint64_t>(1, all_lookups));
}

bool Run::execute() {
  results_.resize(options_.endpoints.size());
  for (const std::string& place : options_.writers_at) {
    Connection connection(place);
    for (const std::unique_ptr<Key>& key : keys_) connection.ask({"DEL", key->name});
  }
  std::vector<std::pair<uint64_t, uint64_t>> before;
  for (const std::string& endpoint : options_.endpoints)
    before.push_back(hits_and_misses(endpoint));

  std::vector<std::thread> writers, readers;
  const auto guarded = [this](auto&& body) {
    try {
      body();
    } catch (const std::exception& error) {
      fail(error.what());
    }
  };
  for (size_t i = 0; i < options_.writers_at.size(); ++i) {
    writers.emplace_back([=, this] { guarded([=, this] { write(i); }); });
  }
  for (size_t e = 0; e < options_.endpoints.size(); ++e) {
    for (unsigned r = 0; r < options_.readers; ++r) {
      readers.emplace_back([=, this] { guarded([=, this] { read(e, r); }); });
    }
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(options_.seconds);
  while (writing_ && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  writing_ = false;
  for (std::thread& thread : writers) thread.join();
  // The readers go on until what the writers left must be everywhere.
  std::this_thread::sleep_for(std::chrono::milliseconds(options_.max_staleness_ms));
  reading_ = false;
  for (std::thread& thread : readers) thread.join();

  if (!failure_.empty()) {
    std::printf("the run failed: %s\n", failure_.c_str());
    return false;
  }
  const double hit_ratio = report(before);
  Results total;
  for (const Results& results : results_) total.add(results);
  std::printf("hit_ratio %.3f\nviolations %llu\n", hit_ratio,
              static_cast<unsigned long long>(total.violations()));
  if (hit_ratio < options_.hit_ratio_min) {
    std::printf("too few hits to prove anything: at least %.0f %% are wanted\n",
                100 * options_.hit_ratio_min);
    return false;
  }
  return total.violations() == 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Checks read-your-writes, monotonic reads, staleness and convergence under load");
  app.add_option("--endpoints", options.endpoints, "nearcached to read through, HOST:PORT,…")
      ->required()
      ->delimiter(',');
  app.add_option("--writers-at", options.writers_at,
                 "one writer at each HOST:PORT,…: endpoints, or the Redis behind them to write "
                 "around the cache (default: the endpoints)")
      ->delimiter(',');
  app.add_option("--keys", options.keys, "number of keys")->check(CLI::Range(1, 1'000'000));
  app.add_option("--seconds", options.seconds, "length of the run");
  app.add_option("--readers", options.readers, "connections per endpoint");
  app.add_option("--writes-per-second", options.writes_per_second, "of all writers together");
  app.add_option("--depth", options.depth, "keys per pipeline and per MGET");
  app.add_option("--max-staleness-ms", options.max_staleness_ms, "what is promised");
  app.add_option("--hit-ratio-min", options.hit_ratio_min, "fewer hits fail the run");
  app.add_option("--seed", options.seed, "of keys and pauses");
  CLI11_PARSE(app, argc, argv);
  if (options.writers_at.empty()) options.writers_at = options.endpoints;
  if (options.keys < options.writers_at.size())
    options.keys = static_cast<unsigned>(options.writers_at.size());
  try {
    return Run(options).execute() ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "coherence-checker: " << error.what() << "\n";
    return 1;
  }
}
