// coherence-sim: the simulator by hand. A schedule is named by its seed: the same seed replays the
// same schedule, event by event.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>

#include "nearcached/coherence/mutations.h"
#include "sim/schedule.h"

using namespace nearcached::sim;

namespace {

struct Options {
  uint64_t schedules = 10'000;
  uint64_t seed = 1;
  uint64_t replay = 0;
  uint64_t failures_max = 3;
  size_t trace_lines = 40;
  std::string mode = "all";
  std::string mutation;
  ScheduleOptions schedule;
};

unsigned long long number(uint64_t value) { return value; }

void report(const Outcome& outcome, const char* mode, uint64_t seed, size_t lines_max) {
  const size_t lines = outcome.trace.size();
  if (lines > lines_max) std::printf("(%zu earlier lines)\n", lines - lines_max);
  for (size_t i = lines - std::min(lines, lines_max); i < lines; ++i)
    std::printf("%s\n", outcome.trace[i].c_str());
  if (outcome.violation)
    std::printf("%s, seed %llu violates %s: %s\n", mode, number(seed),
                outcome.violation->guarantee.c_str(), outcome.violation->what.c_str());
}

/// Returns how many schedules broke a promise.
uint64_t run_mode(const Options& options, const std::string& name) {
  Counts total;
  uint64_t failed = 0;
  uint64_t seed = options.seed;
  ScheduleOptions schedule = options.schedule;
  for (; seed < options.seed + options.schedules && failed < options.failures_max; ++seed) {
    const Outcome outcome = run_schedule(schedule, seed);
    total += outcome.counts;
    if (!outcome.violation) continue;
    ++failed;
    schedule.tracing = true;
    report(run_schedule(schedule, seed), name.c_str(), seed, options.trace_lines);
    schedule.tracing = false;
  }
  std::printf(
      "%s: %llu schedules, %llu reads, %llu hits, %llu joined, %llu writes, %llu failed "
      "requests, %llu violations\n",
      name.c_str(), number(seed - options.seed), number(total.reads), number(total.hits),
      number(total.joined), number(total.writes), number(total.failed), number(failed));
  std::fflush(stdout);
  return failed;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Runs the coherence protocol against a model of Redis, in simulated time.");
  app.add_option("--schedules", options.schedules, "how many, of each mode")->capture_default_str();
  app.add_option("--seed", options.seed, "the first one's")->capture_default_str();
  using Mode = nearcached::CoherenceMode;
  const std::map<std::string, Mode> modes = {
      {"resp3", Mode::resp3}, {"redirect", Mode::redirect}, {"publish", Mode::publish}};
  app.add_option("--mode", options.mode, "resp3, redirect, publish or all")->capture_default_str();
  app.add_option("--mutation", options.mutation,
                 "switch a mechanism off (builds with -Dmutations=true)");
  app.add_flag("--bound-demoted", options.schedule.bounds.demoted,
               "bound it also of reads that a demoted server answers");
  app.add_flag("--late-untold", options.schedule.late_untold,
               "what pushes nothing may be run after the proxy has given up its link");
  app.add_option("--failures", options.failures_max, "stop after that many")->capture_default_str();
  app.add_option("--trace", options.trace_lines, "lines to show of a failed schedule")
      ->capture_default_str();
  app.add_option("--replay", options.replay, "run this seed alone and show all that happens");
  std::vector<std::string> faults;
  app.add_option("--fault", faults, "only these faults, in every schedule");
  std::string turned;
  app.add_option("--turn", turned, "turn one of the measures of tests/sim/model_proxy.h around");
  CLI11_PARSE(app, argc, argv);

  Measures& measures = options.schedule.measures;
  const std::map<std::string, bool*> switches = {
      {"fill_floor", &measures.fill_floor},       {"mget_erase", &measures.mget_erase},
      {"early_scripts", &measures.early_scripts}, {"deaf_heartbeats", &measures.deaf_heartbeats},
      {"early_silence", &measures.early_silence}, {"leave_demoted", &measures.leave_demoted},
      {"same_server", &measures.same_server}};
  if (!turned.empty()) *switches.at(turned) = !*switches.at(turned);

  for (const std::string& name : faults) {
    const auto at = std::find(std::begin(kFaultNames), std::end(kFaultNames), name);
    if (at != std::end(kFaultNames))
      options.schedule.faults.push_back(static_cast<Fault>(at - std::begin(kFaultNames)));
  }
  if (!options.mutation.empty() && !nearcached::mutation::enable(options.mutation)) {
    std::fprintf(stderr, "no mutation %s in this build\n", options.mutation.c_str());
    return 2;
  }
  if (options.mode != "all" && modes.count(options.mode) == 0) {
    std::fprintf(stderr, "no mode %s\n", options.mode.c_str());
    return 2;
  }
  uint64_t failed = 0;
  for (const auto& [name, mode] : modes) {
    if (options.mode != "all" && options.mode != name) continue;
    options.schedule.mode = mode;
    // Not promised over publish (sim_test.cc); `--fault fail_over` shows it.
    options.schedule.address_moves = mode != Mode::publish;
    if (options.replay != 0) {
      options.schedule.tracing = true;
      const Outcome outcome = run_schedule(options.schedule, options.replay);
      report(outcome, name.c_str(), options.replay, SIZE_MAX);
      failed += outcome.violation ? 1 : 0;
    } else {
      failed += run_mode(options, name);
    }
  }
  return failed == 0 ? 0 : 1;
}
