// coherence-checker: does a near cache keep its promise under load?
//
// It writes through the caches and around them, reads through them, and judges every reply by what
// it has written itself (judge.cc says how): read your writes, no going back, staleness, and, when
// the writers have stopped, convergence: every connection then reads what Redis holds.
//
// A run with few hits would pass with any cache, so one with less than 30 % of them fails.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <utility>
#include <vector>

#include "run.h"

namespace {

using checker::Missed;
using checker::Options;
using checker::Outcome;
using checker::Results;

unsigned long long wide(uint64_t number) { return number; }

/// Milliseconds: the median, the 99th percentile, and the most.
struct Staleness {
  explicit Staleness(std::vector<int64_t> ns) : count(ns.size()) {
    std::sort(ns.begin(), ns.end());
    const auto at = [&](double part) {
      if (ns.empty()) return 0.0;
      return static_cast<double>(
                 ns[static_cast<size_t>(part * static_cast<double>(ns.size() - 1))]) /
             1e6;
    };
    p50 = at(0.5);
    p99 = at(0.99);
    most = at(1.0);
  }
  size_t count;
  double p50 = 0, p99 = 0, most = 0;
};

std::vector<int64_t> both(const Results& results) {
  std::vector<int64_t> all = results.stale_ns[0];
  all.insert(all.end(), results.stale_ns[1].begin(), results.stale_ns[1].end());
  return all;
}

double ratio(uint64_t hits, uint64_t misses) {
  return static_cast<double>(hits) / static_cast<double>(std::max<uint64_t>(1, hits + misses));
}

void print_table(const Options& options, const Outcome& outcome) {
  std::printf("%-22s %10s %6s %9s %9s %9s %9s %5s %5s %6s %9s\n", "endpoint", "reads", "hits",
              "stale", "p50 ms", "p99 ms", "max ms", "own", "back", "stale!", "converge!");
  for (size_t i = 0; i < outcome.results.size(); ++i) {
    const Results& results = outcome.results[i];
    const auto& [hits, misses] = outcome.lookups[i];
    const Staleness stale(both(results));
    std::printf("%-22s %10llu %5.1f%% %9zu %9.3f %9.3f %9.3f %5llu %5llu %6llu %9llu\n",
                options.endpoints[i].c_str(), wide(results.reads), 100 * ratio(hits, misses),
                stale.count, stale.p50, stale.p99, stale.most, wide(results.own_write_missed),
                wide(results.went_back), wide(results.too_stale), wide(results.not_converged));
  }
}

void print_json(const Results& total, const Outcome& outcome, double hit_ratio) {
  std::printf(
      "{\"reads\": %llu, \"hit_ratio\": %.4f, \"own_write_missed\": %llu, "
      "\"went_back\": %llu, \"too_stale\": %llu, \"never_written\": %llu, "
      "\"not_converged\": %llu, \"lost_writes\": %llu, \"unknown_writes\": %llu, "
      "\"lost_by_redis\": %llu, \"pardoned\": %llu, "
      "\"errors\": %llu, \"lost_connections\": %llu, \"converged_ms\": %.3f",
      wide(total.reads), hit_ratio, wide(total.own_write_missed), wide(total.went_back),
      wide(total.too_stale), wide(total.never_written), wide(total.not_converged),
      wide(outcome.lost_writes), wide(outcome.unknown_writes), wide(outcome.lost_by_redis),
      wide(total.pardoned), wide(total.errors), wide(total.lost),
      total.converged_ns < 0 ? -1.0 : static_cast<double>(total.converged_ns) / 1e6);
  for (const auto& [name, missed] :
       {std::pair{"through", Missed::through_a_cache}, {"around", Missed::around}}) {
    const Staleness stale(total.stale_ns[static_cast<size_t>(missed)]);
    std::printf(
        ", \"stale_%s\": {\"count\": %zu, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
        "\"max_ms\": %.3f}",
        name, stale.count, stale.p50, stale.p99, stale.most);
  }
  std::printf("}\n");
}

/// True when everything held.
bool report(const Options& options, const Outcome& outcome) {
  if (!outcome.failure.empty()) {
    std::printf("the run failed: %s\n", outcome.failure.c_str());
    return false;
  }
  Results total;
  uint64_t hits = 0, misses = 0;
  for (size_t i = 0; i < outcome.results.size(); ++i) {
    total.add(outcome.results[i]);
    hits += outcome.lookups[i].first;
    misses += outcome.lookups[i].second;
  }
  const uint64_t violations = total.violations() + outcome.lost_writes;
  const double hit_ratio = ratio(hits, misses);
  if (options.json) {
    print_json(total, outcome, hit_ratio);
  } else {
    print_table(options, outcome);
    std::printf("errors %llu\nunknown_writes %llu\nlost_by_redis %llu\npardoned %llu\n",
                wide(total.errors + total.lost), wide(outcome.unknown_writes),
                wide(outcome.lost_by_redis), wide(total.pardoned));
    std::printf("hit_ratio %.3f\nviolations %llu\n", hit_ratio, wide(violations));
  }
  if (hit_ratio < options.hit_ratio_min) {
    std::fprintf(stderr, "too few hits to prove anything: at least %.0f %% are wanted\n",
                 100 * options.hit_ratio_min);
    return false;
  }
  return violations == 0;
}

void add_options(CLI::App& app, Options& options) {
  app.add_option("--endpoints", options.endpoints, "nearcached to read through, HOST:PORT,…")
      ->required()
      ->delimiter(',');
  app.add_option("--writers-at", options.writers_at,
                 "one writer at each HOST:PORT,…: endpoints, or the Redis behind them to write "
                 "around the cache (default: the endpoints)")
      ->delimiter(',');
  app.add_option("--redis", options.redis, "the Redis itself: what it holds is right at the end");
  app.add_option(
         "--cluster", options.cluster,
         "Redis is a cluster with these nodes, HOST:PORT,…: a writer at \"around\" follows it")
      ->delimiter(',');
  app.add_option("--sentinels", options.sentinels,
                 "HOST:PORT,…: a writer at \"around\" writes to the primary they name")
      ->delimiter(',');
  app.add_option("--service", options.service, "the name that the sentinels know it by");
  app.add_option("--keys", options.keys, "number of keys")->check(CLI::Range(1, 1'000'000));
  app.add_option("--seconds", options.seconds, "length of the run");
  app.add_option("--readers", options.readers, "connections per endpoint");
  app.add_option("--writes-per-second", options.writes_per_second, "of all writers together");
  app.add_option("--depth", options.depth, "keys per pipeline and per MGET");
  app.add_option("--max-staleness-ms", options.max_staleness_ms, "what is promised");
  app.add_option("--other-staleness-ms", options.other_staleness_ms,
                 "… about what was written through another endpoint, if not the same");
  app.add_option("--around-staleness-ms", options.around_staleness_ms,
                 "… about what was written around them, if not the same");
  app.add_flag("--other-unordered", options.other_unordered,
               "the order of what was written through another endpoint is not promised");
  app.add_flag("--around-unordered", options.around_unordered,
               "the order of what was written around them is not promised");
  app.add_flag("--keys-unordered", options.keys_unordered,
               "the order of writes to different keys is not promised (while slots move)");
  app.add_option("--hit-ratio-min", options.hit_ratio_min, "fewer hits fail the run");
  app.add_option("--seed", options.seed, "of keys and pauses");
  app.add_flag("--faults", options.faults, "survive errors and lost connections, and count them");
  app.add_option("--timeout-ms", options.timeout_ms,
                 "a reader gives up a connection that does not answer for so long");
  app.add_flag(
      "--control", options.control,
      "lines on standard input: \"heal\" (the fault is over: measure convergence), "
      "\"flush\" (FLUSHALL at --redis), \"settle\" (Redis has failed over, and may have lost "
      "writes)");
  app.add_flag("--json", options.json, "the result in one line");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Checks read-your-writes, monotonic reads, staleness and convergence under load");
  add_options(app, options);
  CLI11_PARSE(app, argc, argv);
  if (options.writers_at.empty()) options.writers_at = options.endpoints;
  if (options.keys < options.writers_at.size())
    options.keys = static_cast<unsigned>(options.writers_at.size());
  try {
    return report(options, checker::Run(options).execute()) ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "coherence-checker: " << error.what() << "\n";
    return 1;
  }
}
