// How a schedule is drawn. Each has its own sizes, delays, mix of commands and kinds of faults, so
// that some are crowded and some nearly empty: rare interleavings are found where few other things
// happen. Clients stop and faults end at the same time; then everything must come to rest, and
// every worker must answer every key as the server holds it.
#include "sim/schedule.h"

#include "sim/clients.h"

namespace nearcached::sim {
namespace {

struct Plan {
  uint64_t unit_ns = 0;  ///< max_staleness: what everything else is long or short against
  uint64_t active_ns = 0;
  uint64_t settle_ns = 0;  ///< convergence must not take longer than this
  uint64_t fault_gap_ns = 0;
  uint64_t writer_gap_ns = 0;
  uint64_t tick_ns = 0;
  unsigned proxies = 1;
  unsigned workers = 1;
  unsigned clients_per_worker = 1;
  std::vector<Fault> faults;
  ProxyOptions proxy;
  NetworkOptions network;
  ClientOptions clients;
};

Plan draw_plan(Random& random, const ScheduleOptions& options) {
  Plan plan;
  plan.network.late_untold = options.late_untold;
  plan.network.nothing_tracked = options.mode == CoherenceMode::publish;
  const uint64_t unit_ns = plan.unit_ns = random.between(30, 500) * kNsPerMs;
  plan.active_ns = random.between(1, 6) * unit_ns;
  const bool in_band = options.mode == CoherenceMode::resp3;
  plan.proxies = random.percent(in_band ? 60 : 25) ? 1 : 2;
  plan.workers = random.percent(30) ? 1 : 2;
  plan.clients_per_worker = static_cast<unsigned>(random.between(1, 3));
  plan.network.delay_max_ns = std::min((50 * kNsPerUs) << random.below(9), unit_ns / 8);
  plan.network.reap_max_ns = random.between(1, unit_ns);
  ProxyOptions& proxy = plan.proxy;
  proxy.mode = options.mode;
  proxy.measures = options.measures;
  proxy.max_staleness_ns = unit_ns;
  proxy.heartbeat_ns = unit_ns / 5;
  proxy.idle_proof_ns = 2 * unit_ns;
  proxy.timeout_ns = random.between(unit_ns / 2, 4 * unit_ns);
  proxy.connect_timeout_ns = random.between(unit_ns / 2, unit_ns);
  proxy.reconnect_min_ns = random.between(1, 20) * kNsPerMs;
  proxy.reconnect_max_ns = proxy.reconnect_min_ns * 4;
  proxy.l1_bytes = random.percent(90) ? 1 << 20 : 8192;
  plan.tick_ns = std::clamp(proxy.heartbeat_ns / 2, 5 * kNsPerMs, 100 * kNsPerMs);
  // In mode publish nobody hears of writers around the proxies, unless somebody says so.
  const bool publish = options.mode == CoherenceMode::publish;
  const bool patterns = publish && random.percent(40);
  if (!publish || patterns)
    plan.writer_gap_ns =
        random.percent(20) && !patterns ? 0 : plan.active_ns / random.between(2, 40);
  for (unsigned i = 0; i < std::size(kFaultNames); ++i) {
    const auto fault = static_cast<Fault>(i);
    if (fault == Fault::mute) continue;
    if (random.percent(25) && (options.address_moves || fault != Fault::fail_over))
      plan.faults.push_back(fault);
  }
  if (publish && random.percent(20)) plan.faults = {Fault::mute};
  if (!options.faults.empty()) plan.faults = options.faults;
  if (!plan.faults.empty()) plan.fault_gap_ns = plan.active_ns / random.between(1, 12);
  plan.clients = draw_client_options(random, plan.active_ns, plan.proxies == 1);
  if (patterns) plan.clients.patterns = static_cast<unsigned>(random.between(1, 10));
  proxy.ack_timeout_ns = 2 * unit_ns;
  if (patterns) plan.settle_ns += proxy.ack_timeout_ns;
  plan.clients.proof_ns = unit_ns;
  if (!in_band) plan.settle_ns += proxy.idle_proof_ns + proxy.timeout_ns;
  plan.settle_ns += proxy.timeout_ns + 2 * proxy.connect_timeout_ns + 2 * proxy.reconnect_max_ns +
                    4 * unit_ns + 300 * kNsPerMs + plan.clients.ttl_max_ms * kNsPerMs;
  return plan;
}

class Schedule {
 public:
  Schedule(const ScheduleOptions& options, uint64_t seed)
      : engine_(seed, options.tracing),
        plan_(draw_plan(engine_.random, options)),
        redis_(engine_, plan_.network),
        checker_(engine_, redis_, plan_.proxy, options.bounds),
        clients_(engine_, redis_, checker_, plan_.clients) {}

  void run();
  Counts counts() const;
  std::vector<std::string> take_trace() { return engine_.take_trace(); }

 private:
  void start_process(unsigned number);
  void tick(Router& router);
  void write_directly();
  void do_fault();
  void do_link_fault(Fault fault);

  Engine engine_;
  const Plan plan_;
  ModelRedis redis_;
  Checker checker_;
  Clients clients_;
  std::vector<std::unique_ptr<Process>> processes_;
};

void Schedule::start_process(unsigned number) {
  Process& process = *processes_.emplace_back(
      std::make_unique<Process>(engine_, redis_, clients_, plan_.proxy, number));
  for (uint64_t& hash : process.hashes) hash = engine_.random.next();
  if (engine_.random.percent(20)) process.hashes[1] = process.hashes[0] ^ 1;  // one slot for two
  checker_.add(process);
  const size_t first_client = clients_.size();
  for (unsigned i = 0; i < plan_.workers; ++i) {
    Router& router = *process.routers.emplace_back(std::make_unique<Router>(process, i));
    for (unsigned client = 0; client < plan_.clients_per_worker; ++client) clients_.add(router);
  }
  if (plan_.proxy.mode != CoherenceMode::resp3) process.bus.start();
  for (const auto& router : process.routers) {
    Router& worker = *router;
    worker.turn([&] { worker.start(); });
    engine_.after(engine_.random.below(plan_.tick_ns), [this, &worker] { tick(worker); });
  }
  clients_.start(first_client);
}

void Schedule::tick(Router& router) {
  router.turn([&] { router.tick(); });
  engine_.after(plan_.tick_ns, [this, &router] { tick(router); });
}

void Schedule::write_directly() {
  if (engine_.now_ns() >= plan_.active_ns) return;
  const Command command = draw_direct_write(engine_.random, plan_.clients);
  redis_.primary().write_directly(command);
  engine_.after(engine_.random.skewed(2 * plan_.writer_gap_ns), [this] { write_directly(); });
}

void Schedule::do_link_fault(Fault fault) {
  Random& random = engine_.random;
  std::vector<Link*> open;
  for (Link& link : redis_.links())
    if (link.open()) open.push_back(&link);
  if (open.empty()) return;
  Link& link = *open[random.below(open.size())];
  const uint64_t until_ns =
      std::min(engine_.now_ns() + random.skewed(4 * plan_.unit_ns), plan_.active_ns);
  if (fault == Fault::hang) {
    const uint64_t ways = random.between(1, 3);
    engine_.trace("fault: link ", uint64_t{link.id()}, " hangs", ways != 1 ? " to server" : "",
                  ways != 2 ? " to client" : "", " until ", until_ns / kNsPerMs, " ms");
    link.hang(until_ns, ways != 1, ways != 2);
  } else if (fault == Fault::vanish) {
    engine_.trace("fault: link ", uint64_t{link.id()}, " vanishes");
    link.vanish();
  } else {
    engine_.trace("fault: link ", uint64_t{link.id()}, " is cut");
    link.cut(random.percent(50));
  }
}

void Schedule::do_fault() {
  if (engine_.now_ns() >= plan_.active_ns) return;
  Random& random = engine_.random;
  ModelServer& primary = redis_.primary();
  const Fault fault = plan_.faults[random.below(plan_.faults.size())];
  const uint64_t left_ns = plan_.active_ns - engine_.now_ns();
  switch (fault) {
    case Fault::hang:
    case Fault::vanish:
    case Fault::cut: do_link_fault(fault); break;
    case Fault::cut_all:
      engine_.trace("fault: all links are cut");
      for (Link& link : redis_.links())
        if (link.open()) link.cut(random.percent(50));
      break;
    case Fault::stop:
      engine_.trace("fault: server ", uint64_t{primary.id()}, " stops");
      primary.stop();
      engine_.after(random.skewed(std::min(left_ns, 4 * plan_.unit_ns)),
                    [&primary] { primary.resume(); });
      break;
    case Fault::restart:
      engine_.trace("fault: server ", uint64_t{primary.id()}, " restarts");
      primary.restart(random.skewed(std::min(left_ns, plan_.unit_ns)));
      break;
    case Fault::fail_over:
      if (redis_.servers() < 3) {
        const uint64_t takes_ns = random.skewed(2 * plan_.unit_ns);
        redis_.fail_over(static_cast<uint32_t>(random.skewed(8)), takes_ns);
      }
      break;
    case Fault::evict: primary.evict_tracked(static_cast<Name>(random.below(kNames))); break;
    case Fault::hang_up: clients_.close_one(); break;
    case Fault::mute: {
      const uint64_t until_ns =
          engine_.now_ns() + random.skewed(std::min(left_ns, 4 * plan_.unit_ns));
      engine_.trace("fault: server ", uint64_t{primary.id()},
                    " delivers no messages of writes until ", until_ns / kNsPerMs, " ms");
      primary.mute(until_ns);
      break;
    }
  }
  engine_.after(random.skewed(4 * plan_.fault_gap_ns), [this] { do_fault(); });
}

void Schedule::run() {
  for (unsigned i = 0; i < plan_.proxies; ++i) {
    const bool later = i > 0 && engine_.random.percent(50);
    engine_.after(later ? engine_.random.skewed(plan_.active_ns / 2) : 0,
                  [this, i] { start_process(i); });
  }
  if (plan_.writer_gap_ns > 0) write_directly();
  if (!plan_.faults.empty())
    engine_.after(engine_.random.skewed(2 * plan_.fault_gap_ns), [this] { do_fault(); });
  engine_.run_until(plan_.active_ns);
  engine_.trace("faults end, clients stop");
  clients_.stop();
  redis_.end_faults();
  engine_.run_until(plan_.active_ns + plan_.settle_ns);
  clients_.check_idle();
  if (plan_.clients.patterns > 0) {
    clients_.ask_pattern();
    engine_.run_until(engine_.now_ns() + plan_.proxy.ack_timeout_ns +
                      50 * plan_.network.delay_max_ns);
    clients_.check_idle();
  }
  engine_.trace("all must have converged");
  clients_.verify();
  engine_.run_until(engine_.now_ns() + 800 * plan_.network.delay_max_ns + plan_.settle_ns +
                    2 * kKeys * plan_.clients.proof_ns);
  clients_.check_idle();
}

Counts Schedule::counts() const {
  Counts counts = checker_.counts();
  for (const auto& process : processes_)
    for (const auto& router : process->routers) counts.joined += router->joined;
  return counts;
}

}  // namespace

Outcome run_schedule(const ScheduleOptions& options, uint64_t seed) {
  Outcome outcome;
  Schedule schedule(options, seed);
  try {
    schedule.run();
  } catch (const Violation& violation) {
    outcome.violation = violation;
  }
  outcome.counts = schedule.counts();
  outcome.trace = schedule.take_trace();
  return outcome;
}

}  // namespace nearcached::sim
