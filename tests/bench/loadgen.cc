// nearcached-loadgen: load for tools/bench.
//
// Problem: redis-benchmark neither looks into the replies it counts (an error or a nil is as good
// as a value), nor reads the CPU time of the server it loads at the moment the load starts and
// ends. Approach: values are a function of the key (dataset.h), so each reply is compared byte by
// byte with the one reply that is right for that request: a lost, crossed, short or stale reply
// ends the run with an error. The CPU time of the processes named by --pid is read right before the
// first request and right after the last reply; so neither connecting nor starting a process is
// counted. Rejected: one mode for everything that tools/bench asks. What a row needs is put
// together from a command, an order of the keys and a pace, which know nothing of each other
// (load.h).
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "dataset.h"
#include "load.h"
#include "net.h"

using nearcached::bench::Command;
using nearcached::bench::CpuTime;
using nearcached::bench::Dataset;
using nearcached::bench::KeySource;
using nearcached::bench::Load;

namespace {

namespace bench = nearcached::bench;

struct Options {
  Load::Options load;
  Dataset::Shape shape;
  double seconds = 2.0;
  uint32_t passes = 0;
  double rate = 0;
  uint32_t hot_keys = 0;
  uint32_t cold_percent = 0;
  int cpu = -1;
  std::vector<int> pids;
};

void fill(const Options& options) {
  const Dataset dataset(options.shape);
  const int fd = bench::connect_to(options.load.ports.front());
  constexpr uint32_t kBatch = 100;
  const std::string ok = "+OK\r\n";
  std::string requests, replies;
  const uint32_t end = options.shape.first_key + options.shape.keys;
  for (uint32_t key = options.shape.first_key; key < end;) {
    requests.clear();
    const uint32_t batch = std::min(kBatch, end - key);
    for (uint32_t i = 0; i < batch; ++i) dataset.append_store(key++, requests);
    bench::send_all(fd, requests);
    replies.resize(batch * ok.size());
    bench::receive_exactly(fd, replies);
    for (size_t at = 0; at < replies.size(); at += ok.size()) {
      if (replies.compare(at, ok.size(), ok) != 0)
        bench::die("a store answers " + bench::printable(replies));
    }
  }
  close(fd);
}

KeySource keys_of(const Options& options) {
  if (options.passes > 0) return KeySource::in_order(options.shape, options.passes);
  if (options.cold_percent > 0)
    return KeySource::mixed(options.shape, options.hot_keys, options.cold_percent);
  return KeySource::random(options.shape);
}

void run(const Options& options) {
  Dataset dataset(options.shape);
  KeySource keys = keys_of(options);
  Load load(options.load, dataset, keys);
  std::vector<CpuTime> before;
  for (const int pid : options.pids) before.push_back(bench::cpu_time_of(pid));
  const CpuTime own_before = bench::cpu_time_of(getpid());
  if (options.rate > 0) load.run_paced(options.rate, options.seconds);
  else load.run_closed(options.passes > 0 ? 0 : options.seconds);
  const CpuTime own_after = bench::cpu_time_of(getpid());
  std::string processes;
  for (size_t i = 0; i < options.pids.size(); ++i) {
    const CpuTime after = bench::cpu_time_of(options.pids[i]);
    processes += (i ? ", " : "") + std::string("{\"pid\": ") + std::to_string(options.pids[i]) +
                 ", \"running_ns\": " + std::to_string(after.running_ns - before[i].running_ns) +
                 ", \"waiting_ns\": " + std::to_string(after.waiting_ns - before[i].waiting_ns) +
                 "}";
  }
  std::printf(
      "{\"requests\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"p50_us\": %.3f, "
      "\"p99_us\": %.3f, \"p999_us\": %.3f, \"churned\": %llu, \"churned_p99_us\": %.3f, "
      "\"load_running_ns\": %llu, \"load_waiting_ns\": %llu, \"processes\": [%s]}\n",
      static_cast<unsigned long long>(load.replies()),
      static_cast<unsigned long long>(load.bytes_received()), load.elapsed_seconds(),
      load.latencies().percentile_us(0.50), load.latencies().percentile_us(0.99),
      load.latencies().percentile_us(0.999),
      static_cast<unsigned long long>(load.churned_latencies().count()),
      load.churned_latencies().percentile_us(0.99),
      static_cast<unsigned long long>(own_after.running_ns - own_before.running_ns),
      static_cast<unsigned long long>(own_after.waiting_ns - own_before.waiting_ns),
      processes.c_str());
}

// Opens the connections, has each one answer a GET (so that they are connections that have worked,
// not only sockets in a backlog), says "ready" and holds them until standard input ends.
void idle(const Options& options) {
  Dataset dataset(options.shape);
  const uint32_t keys = options.shape.keys;
  KeySource source =
      KeySource::in_order(options.shape, (options.load.connections + keys - 1) / keys);
  Load load(options.load, dataset, source);
  load.run_closed(0);
  std::printf("ready\n");
  std::fflush(stdout);
  char ignored = 0;
  while (read(STDIN_FILENO, &ignored, 1) > 0) continue;
}

void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) bench::die_errno("--cpu");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  const std::map<std::string, Command> commands{{"get", Command::get},
                                                {"set", Command::set},
                                                {"mget", Command::mget},
                                                {"hgetall", Command::hgetall}};
  CLI::App app{"Load with verified replies, for tools/bench"};
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--port", options.load.ports, "server on 127.0.0.1; may be repeated")->required();
  app.add_option("--command", options.shape.command, "get (default), set, mget, hgetall")
      ->transform(CLI::CheckedTransformer(commands));
  app.add_option("--first-key", options.shape.first_key);
  app.add_option("--keys", options.shape.keys)->check(CLI::Range(1u, 100'000'000u));
  app.add_option("--key-tag", options.shape.key_tag,
                 "every key begins with {this}: all are in one slot of a cluster");
  app.add_option("--value-bytes", options.shape.value_bytes)
      ->check(CLI::Range(uint32_t{Dataset::kNumberDigits}, 1u << 24));
  app.add_option("--keys-per-request", options.shape.keys_per_request, "of an MGET")
      ->check(CLI::Range(1u, 10'000u));
  app.add_flag("--resp3", options.shape.resp3, "the connections say HELLO 3");
  app.add_option("--connections", options.load.connections)->check(CLI::Range(1u, 100'000u));
  app.add_option("--pipeline", options.load.pipeline)->check(CLI::Range(1u, 4096u));
  app.add_option("--seconds", options.seconds)->check(CLI::Range(0.01, 3600.0));
  app.add_option("--passes", options.passes, "every key so many times in order, not --seconds")
      ->check(CLI::Range(1u, 1000u));
  app.add_option("--rate", options.rate, "open loop: so many requests per second")
      ->check(CLI::Range(1.0, 1e7));
  app.add_option("--cold-percent", options.cold_percent,
                 "of the requests are for keys behind --hot-keys, each asked for once")
      ->check(CLI::Range(1u, 99u));
  app.add_option("--hot-keys", options.hot_keys)->check(CLI::Range(1u, 100'000'000u));
  app.add_option("--churned-keys", options.load.churned_keys,
                 "keep the latencies of the first so many keys apart");
  app.add_option("--cpu", options.cpu, "core of the load generator");
  app.add_option("--pid", options.pids, "process whose CPU time is measured; may be repeated");
  const CLI::App* fill_command = app.add_subcommand("fill", "store every key");
  const CLI::App* run_command =
      app.add_subcommand("run", "ask for keys and verify; prints one line of JSON");
  const CLI::App* idle_command =
      app.add_subcommand("idle", "hold --connections until standard input ends");
  CLI11_PARSE(app, argc, argv);
  if (const char* refusal = Dataset::refusal(options.shape)) bench::die(refusal);
  if (options.passes > 0 && options.shape.keys % options.shape.keys_per_request != 0)
    bench::die("--keys must be a multiple of --keys-per-request");
  if (options.cold_percent > 0 && (options.hot_keys == 0 || options.hot_keys > options.shape.keys))
    bench::die("--cold-percent needs --hot-keys, at most --keys");

  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (options.cpu >= 0) pin_to(options.cpu);

  if (fill_command->parsed()) fill(options);
  if (run_command->parsed()) run(options);
  if (idle_command->parsed()) idle(options);
  return 0;
}
