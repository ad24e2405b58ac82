// Writers and readers are plain threads with blocking connections, as clients are. What they share
// is the histories (history.h) and a few flags.
//
// Under faults (--faults) nothing that a client can survive ends the run. A reader whose reply is
// an error or late goes on, on a new connection if need be: that is a new session, to which only
// the process's own writes are promised again. A writer whose write fails does not know its fate:
// it leaves that key for ever (KeySpace::retire) and goes on when a write to a key of nobody's
// succeeds.
//
// Control, one line each on standard input:
//   heal    the fault is over: from here each reader measures how long it takes until it has read,
//           of every key, what had been acknowledged before;
//   flush   FLUSHALL at --redis. Writers pause meanwhile, so that its place in history is known.
//   settle  Redis has failed over, and is in order again. While the writers pause, each key is read
//           from it: what was executed and is not there any more it has lost;
//   end     the time is over.
#include "run.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <optional>
#include <stdexcept>
#include <thread>

#include "around.h"

namespace checker {
namespace {

constexpr unsigned kPatientMs = 10'000;  ///< for what is not measured
constexpr unsigned kAroundMs = 3'000;    ///< a cluster's node that is stopped holds its writer up
constexpr size_t kGroups = 16;  ///< slots of a cluster that keys are in: some on each shard

void sleep_ms(unsigned time) { std::this_thread::sleep_for(std::chrono::milliseconds(time)); }

void require_no_error(const redisReply& reply) {
  const std::string error = error_in(reply);
  if (!error.empty()) throw ConnectionLost(error);
}

}  // namespace

Run::Run(Options options)
    : options_(std::move(options)),
      keys_(options_.keys, options_.writers_at.size(), options_.endpoints.size(),
            "coherence-checker:" + std::to_string(options_.seed) + ":",
            {options_.cluster.empty() ? 0 : kGroups, options_.keys_unordered}),
      numbers_(options_.writers_at.size()) {
  const auto ns = [&](unsigned ms) {
    return int64_t{ms == 0 ? options_.max_staleness_ms : ms} * 1'000'000;
  };
  const size_t endpoints = options_.endpoints.size();
  for (size_t e = 0; e < endpoints; ++e) {
    Promise promise;
    promise.staleness_ns.assign(endpoints, ns(options_.other_staleness_ms));
    promise.ordered.assign(endpoints, !options_.other_unordered);
    promise.staleness_ns[e] = ns(0);
    promise.ordered[e] = true;
    promise.staleness_ns.push_back(ns(options_.around_staleness_ms));
    promise.ordered.push_back(!options_.around_unordered);
    promises_.push_back(std::move(promise));
  }
}

size_t Run::place_of(const std::string& place) const {
  return static_cast<size_t>(
      std::find(options_.endpoints.begin(), options_.endpoints.end(), place) -
      options_.endpoints.begin());
}

unsigned Run::longest_staleness_ms() const {
  return std::max(
      {options_.max_staleness_ms, options_.other_staleness_ms, options_.around_staleness_ms});
}

// ---- writers

std::unique_ptr<Link> Run::link_to(const std::string& place) const {
  if (place_of(place) < options_.endpoints.size())
    return std::make_unique<Connection>(place, kPatientMs);
  if (!options_.cluster.empty()) return std::make_unique<Cluster>(options_.cluster, kAroundMs);
  if (!options_.sentinels.empty())
    return std::make_unique<Connection>(
        connect_to_primary(options_.sentinels, options_.service, kAroundMs));
  return std::make_unique<Connection>(place, kPatientMs);
}

std::unique_ptr<Link> Run::link_to_redis() const {
  if (options_.redis.empty() && !fails_over()) return nullptr;
  return link_to(options_.redis);
}

/// One to two writes; what was begun is in `begun` even when it throws.
void Run::send_writes(Link& link, std::vector<Begun>& begun, size_t writer,
                      std::mt19937_64& random) {
  const size_t place = place_of(options_.writers_at[writer]);
  const size_t writers = options_.writers_at.size();
  const auto pick = [&] {
    const size_t owned = (keys_.slots() - writer + writers - 1) / writers;
    return keys_.current(writer + writers * (random() % owned));
  };
  const auto begin = [&](size_t key) {
    const uint64_t number = ++numbers_[writer];
    keys_[key].history.begin(number, place);
    begun.push_back({key, number});
    Request set{"SET", keys_[key].name, std::to_string(number)};
    if (fails_over()) set.push_back("GET");
    return set;
  };
  const size_t key = pick();
  std::vector<Request> requests;
  switch (random() % 32) {
    case 0:
    case 1:
    case 2:
    case 3:  // a transaction: the private connection's way
      requests = {{"MULTI"}, begin(key), {"EXEC"}};
      break;
    case 4: {  // a script, which need not say which key it writes: few, they may drop everything
      const Request set = begin(key);
      const std::string get = fails_over() ? ", 'GET'" : "";
      if (options_.cluster.empty())
        requests = {
            {"EVAL", "return redis.call('SET', ARGV[1], ARGV[2]" + get + ")", "0", set[1], set[2]}};
      else
        requests = {
            {"EVAL", "return redis.call('SET', KEYS[1], ARGV[1]" + get + ")", "1", set[1], set[2]}};
      break;
    }
    case 5:
    case 6:
    case 7:
    case 8: {  // two writes in one pipeline
      const size_t other = pick();
      requests.push_back(begin(key));
      if (other != key) requests.push_back(begin(other));
      break;
    }
    default: requests.push_back(begin(key));
  }
  const std::vector<Reply> replies = link.ask_all(requests);
  const bool transaction = requests[0][0] == "MULTI";
  for (size_t i = 0; i < begun.size(); ++i) {
    const redisReply& reply = transaction ? *replies.back() : *replies[i];
    begun[i].acknowledged = error_in(reply).empty();
    if (begun[i].acknowledged && fails_over())
      begun[i].replaced = value_of(transaction ? *reply.element[0] : reply);
  }
  for (const Reply& reply : replies) require_no_error(*reply);
}

void Run::settle(const std::vector<Begun>& begun, size_t place) {
  for (const Begun& write : begun) {
    Key& key = keys_[write.key];
    if (!write.acknowledged) {
      key.history.unknown(write.number);
      keys_.retire(write.key);
      ++unknown_writes_;
      continue;
    }
    key.history.executed(write.number);
    if (fails_over()) lost_by_redis_ += key.history.lose(write.replaced, write.number);
    if (place < options_.endpoints.size()) key.acknowledged[place] = write.number;
  }
}

void Run::pause(std::mt19937_64& random) const {
  const double mean_us = 1e6 * static_cast<double>(options_.writers_at.size()) /
                         std::max(1u, options_.writes_per_second);
  std::exponential_distribution<double> pause_us(1.0 / mean_us);
  std::this_thread::sleep_for(std::chrono::microseconds(static_cast<int64_t>(pause_us(random))));
}

void Run::write_until_failure(size_t writer, std::mt19937_64& random) {
  const std::string& at = options_.writers_at[writer];
  const std::unique_ptr<Link> link = link_to(at);
  const std::string nobodys =
      "coherence-checker:" + std::to_string(options_.seed) + ":probe:" + std::to_string(writer);
  require_no_error(*link->ask({"SET", nobodys, "1"}));
  while (writing_) {
    {
      const std::shared_lock lock(writes_or_flush_);
      std::vector<Begun> begun;
      try {
        send_writes(*link, begun, writer, random);
      } catch (const ConnectionLost&) {
        settle(begun, place_of(at));
        throw;
      }
      settle(begun, place_of(at));
    }
    pause(random);
  }
}

void Run::write(size_t writer) {
  std::mt19937_64 random(options_.seed * 1000 + writer);
  while (writing_) {
    try {
      write_until_failure(writer, random);
    } catch (const ConnectionLost&) {
      if (!options_.faults) throw;
      sleep_ms(20);
    }
  }
}

// ---- readers

/// One reader's connections, one after the other, and what they were told.
class Run::Reading {
 public:
  Reading(Run& run, size_t endpoint, unsigned reader)
      : run_(run),
        options_(run.options_),
        endpoint_(endpoint),
        random_(options_.seed * 7777 + endpoint * 100 + reader),
        judge_(run.keys_, run.promises_[endpoint], endpoint, options_.endpoints[endpoint],
               options_.faults, results) {}

  /// Any reads; when the fault is over, above all of what is still behind.
  void read_some() {
    attempt([&] {
      if (run_.healed_ns_ != 0 && results.converged_ns == 0) read_what_is_behind();
      else read_anything();
    });
  }
  /// What the writers left must be what every key reads.
  void check_convergence() {
    if (results.converged_ns == 0 && run_.healed_ns_ != 0) results.converged_ns = -1;
    for (size_t key = 0; key < run_.truth_.size(); ++key) {
      std::optional<uint64_t> value;
      for (int tries = 0; tries < 100 && !value; ++tries) attempt([&] { value = plain(key); });
      if (!value || *value != run_.truth_[key]) ++results.not_converged;
    }
    judge_.conclude();
  }

  Results results;

 private:
  void attempt(const std::function<void()>& reads) {
    try {
      if (!connection_) connection_.emplace(options_.endpoints[endpoint_], options_.timeout_ms);
      reads();
    } catch (const ConnectionLost&) {
      if (!options_.faults) throw;
      ++results.lost;
      connection_.reset();
      judge_.new_session();
      sleep_ms(5);
    }
  }

  size_t pick() {
    const size_t all = run_.keys_.size();
    if (all > run_.keys_.slots() && random_() % 16 == 0) return random_() % all;
    return run_.keys_.current(random_() % run_.keys_.slots());
  }

  void read_anything() {
    const uint64_t kind = random_() % 4;
    std::vector<size_t> keys;
    for (unsigned i = 0; i < (kind < 2 ? 1 : options_.depth); ++i) keys.push_back(pick());
    if (kind == 3) mget(keys);
    else pipeline(keys);
  }

  void pipeline(const std::vector<size_t>& keys) {
    for (const size_t key : keys) {
      judge_.expect(key);
      connection_->append({"GET", run_.keys_[key].name});
    }
    for (size_t i = 0; i < keys.size(); ++i) {
      const Reply reply = connection_->read();
      if (!failed(*reply, 1)) judge_.judge({value_of(*reply)});
    }
  }

  std::vector<uint64_t> mget(const std::vector<size_t>& keys) {
    std::vector<std::string> request{"MGET"};
    for (const size_t key : keys) {
      judge_.expect(key);
      request.push_back(run_.keys_[key].name);
    }
    const Reply reply = connection_->ask(request);
    if (failed(*reply, keys.size())) return {};
    std::vector<uint64_t> values;
    for (size_t i = 0; i < reply->elements; ++i) values.push_back(value_of(*reply->element[i]));
    return judge_.judge(values);
  }

  void read_what_is_behind() {
    if (behind_.empty())
      for (size_t key = 0; key < run_.due_when_healed_.size(); ++key) behind_.push_back(key);
    std::vector<size_t> keys;
    for (; keys.size() < options_.depth && !behind_.empty(); behind_.pop_front())
      keys.push_back(behind_.front());
    behind_.insert(behind_.end(), keys.begin(), keys.end());  // if it fails, or is still behind
    const std::vector<uint64_t> numbers = mget(keys);
    for (size_t i = 0; i < numbers.size(); ++i)
      if (numbers[i] >= run_.due_when_healed_[keys[i]])
        behind_.erase(std::find(behind_.begin(), behind_.end(), keys[i]));
    if (behind_.empty()) results.converged_ns = std::max<int64_t>(1, now_ns() - run_.healed_ns_);
  }

  std::optional<uint64_t> plain(size_t key) {
    const Reply reply = connection_->ask({"GET", run_.keys_[key].name});
    if (failed(*reply, 0)) return std::nullopt;
    return value_of(*reply);
  }

  bool failed(const redisReply& reply, size_t reads) {
    const std::string error = error_in(reply);
    if (error.empty()) return false;
    if (!options_.faults) throw std::runtime_error(options_.endpoints[endpoint_] + ": " + error);
    ++results.errors;
    judge_.skip(reads);
    return true;
  }

  Run& run_;
  const Options& options_;
  const size_t endpoint_;
  std::mt19937_64 random_;
  Judge judge_;
  std::optional<Connection> connection_;
  std::deque<size_t> behind_;
};

void Run::read(size_t endpoint, unsigned reader) {
  Reading reading(*this, endpoint, reader);
  while (reading_) reading.read_some();
  if (!outcome_.failure.empty()) return;
  reading.check_convergence();
  const std::lock_guard lock(mutex_);
  outcome_.results[endpoint].add(reading.results);
}

// ---- faults, and the course of the run

void Run::heal() {
  due_when_healed_.clear();
  for (size_t key = 0; key < keys_.size(); ++key)
    due_when_healed_.push_back(keys_[key].history.last_executed());
  healed_ns_ = now_ns();
}

void Run::flush_around() {
  Connection redis(options_.redis, kPatientMs);
  const std::unique_lock lock(writes_or_flush_);
  for (std::atomic<uint64_t>& number : numbers_) ++number;
  for (size_t key = 0; key < keys_.size(); ++key)
    keys_[key].history.begin(numbers_[keys_[key].writer], options_.endpoints.size(), true);
  require_no_error(*redis.ask({"FLUSHALL"}));
  for (size_t key = 0; key < keys_.size(); ++key)
    keys_[key].history.executed(numbers_[keys_[key].writer]);
}

void Run::settle_losses() {
  const std::unique_lock lock(writes_or_flush_);
  const std::unique_ptr<Link> redis = link_to_redis();
  if (!redis) throw std::runtime_error("settle: where Redis is has not been said");
  for (size_t key = 0; key < keys_.size(); ++key) {
    KeyHistory& history = keys_[key].history;
    const Reply held = redis->ask({"GET", keys_[key].name});
    require_no_error(*held);
    lost_by_redis_ += history.settle(value_of(*held));
  }
}

void Run::obey(const std::string& line) {
  if (line == "heal") heal();
  else if (line == "flush") flush_around();
  else if (line == "settle") settle_losses();
  else if (line == "end") writing_ = false;
  else throw std::runtime_error("no such command: " + line);
}

void Run::wait_for_end() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(options_.seconds);
  std::string input;
  pollfd control{options_.control ? STDIN_FILENO : -1, POLLIN, 0};
  while (writing_ && std::chrono::steady_clock::now() < end) {
    if (poll(&control, 1, 5) <= 0) continue;
    char bytes[256];
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n <= 0) control.fd = -1;
    else input.append(bytes, static_cast<size_t>(n));
    for (size_t at; (at = input.find('\n')) != std::string::npos; input.erase(0, at + 1))
      obey(input.substr(0, at));
  }
}

/// What every key holds now that nobody writes: what Redis says, or the last write if that is out
/// of reach.
void Run::fetch_truth() {
  const std::unique_ptr<Link> redis = link_to_redis();
  for (size_t key = 0; key < keys_.size(); ++key) {
    const KeyHistory& history = keys_[key].history;
    truth_.push_back(redis ? value_of(*redis->ask({"GET", keys_[key].name})) : history.last());
    const uint64_t number = truth_.back() == 0 ? history.nil(0).last : truth_.back();
    if (number < history.last_executed()) ++outcome_.lost_writes;
  }
}

void Run::fail(const std::string& what) {
  const std::lock_guard lock(mutex_);
  if (outcome_.failure.empty()) outcome_.failure = what;
  writing_ = false;
  reading_ = false;
}

std::pair<uint64_t, uint64_t> Run::hits_and_misses(const std::string& endpoint) const {
  const Reply reply = Connection(endpoint, kPatientMs).ask({"INFO", "nearcached"});
  const std::string info(reply->str, reply->len);
  const auto field = [&](const std::string& name) {
    const size_t at = info.find("\n" + name + ":");
    if (at == std::string::npos) throw std::runtime_error(endpoint + " is no nearcached");
    return std::stoull(info.substr(at + name.size() + 2));
  };
  return {field("l1_hits"), field("l1_misses")};
}

void Run::start() {
  outcome_.results.resize(options_.endpoints.size());
  for (const std::string& place : options_.writers_at) {
    const std::unique_ptr<Link> link = link_to(place);
    for (size_t key = 0; key < keys_.size(); ++key) link->ask({"DEL", keys_[key].name});
  }
  for (const std::string& endpoint : options_.endpoints)
    outcome_.lookups.push_back(hits_and_misses(endpoint));
}

Outcome Run::execute() {
  start();
  std::vector<std::thread> writers, readers;
  const auto guarded = [this](auto&& body) {
    try {
      body();
    } catch (const std::exception& error) {
      fail(error.what());
    }
  };
  for (size_t i = 0; i < options_.writers_at.size(); ++i)
    writers.emplace_back([=, this] { guarded([=, this] { write(i); }); });
  for (size_t e = 0; e < options_.endpoints.size(); ++e)
    for (unsigned r = 0; r < options_.readers; ++r)
      readers.emplace_back([=, this] { guarded([=, this] { read(e, r); }); });

  guarded([this] { wait_for_end(); });
  writing_ = false;
  for (std::thread& thread : writers) thread.join();
  // The readers go on until what the writers left must be everywhere.
  sleep_ms(longest_staleness_ms());
  guarded([this] { fetch_truth(); });
  reading_ = false;
  for (std::thread& thread : readers) thread.join();

  if (!outcome_.failure.empty()) return outcome_;
  for (size_t e = 0; e < options_.endpoints.size(); ++e) {
    const auto [hits, misses] = hits_and_misses(options_.endpoints[e]);
    outcome_.lookups[e] = {hits - outcome_.lookups[e].first, misses - outcome_.lookups[e].second};
  }
  outcome_.unknown_writes = unknown_writes_;
  outcome_.lost_by_redis = lost_by_redis_;
  return outcome_;
}

}  // namespace checker
