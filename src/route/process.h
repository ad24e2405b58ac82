// What the workers of a process share, and what the bus tells all of them.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bus/bus.h"
#include "discovery/discovery.h"
#include "nearcached/coherence/patterns.h"
#include "nearcached/coherence/stamp_table.h"
#include "nearcached/config/config.h"
#include "route/stats.h"

namespace nearcached {

class Router;
class Schedules;

/// Everything in it may be used from any thread, but what Bus::Owner says.
struct Process final : public Bus::Owner {
  Process(const Config& c, uint64_t stamp_slots)
      : config(c), stamps(stamp_slots), topology(c), nodes(c.limits.nodes) {}
  bool cluster() const { return config.upstream.parsed.kind == UpstreamKind::cluster; }
  const Config& config;
  StampTable stamps;
  uint64_t hash_seed = 0;
  uint64_t started_ns = 0;
  std::atomic<uint64_t> next_client_id{1};
  std::atomic<uint64_t> clients{0};
  std::atomic<uint64_t> clients_refused{0};  ///< limits.clients was hit
  std::atomic<uint64_t> pins{0};
  std::atomic<uint64_t> next_job_id{1};
  std::atomic<uint64_t> flushes{0};  ///< of everything, because somebody asked for it
  Bus* bus = nullptr;                ///< set before the workers start
  Schedules* schedules = nullptr;    ///< likewise
  TopologyStore topology;
  std::atomic<uint32_t> shards_short{0};  ///< of replicas: fewer than upstream.replication_factor
  Discovery* discovery = nullptr;         ///< likewise
  std::vector<const Stats*> stats;        ///< of every worker, then the control loop's; likewise
  std::vector<Router*> routers;           ///< likewise
  std::vector<Mailbox*> mailboxes;        ///< likewise
  Stats control_stats;                    ///< the control loop's own

  /// What all workers together know of a node.
  struct Node {
    std::atomic<uint32_t> links{0};     ///< lanes and private connections, up or not
    std::atomic<uint32_t> failures{0};  ///< attempts to connect since one went well
    std::atomic<uint64_t> failing_since_ns{0};
    std::atomic<uint64_t> latency_us{0};  ///< of the last heartbeat
  };
  std::vector<Node> nodes;  ///< by NodeIndex
  void node_failed(NodeIndex node, Bytes reason);
  void node_works(NodeIndex node);
  std::string node_error(NodeIndex node) const;
  /// The breaker is open: it has failed too often and for too long, requests to it fail at once.
  /// The next attempt to connect, by whichever lane, is the probe that closes it.
  bool is_broken(NodeIndex node, uint64_t now_ns) const {
    const Node& of = nodes[node];
    return of.failures.load(std::memory_order_relaxed) >= config.upstream.breaker_failures &&
           now_ns > of.failing_since_ns.load() + config.upstream.connect_timeout_ms * 1'000'000;
  }

  /// Lanes that feed L1, or did before they were lost, though nobody tells them of writes with
  /// unknown keys (publish, ttl).
  std::atomic<uint64_t> blind_lanes{0};
  /// What worker 0's main lane has: "the" mode, for INFO.
  std::atomic<CoherenceMode> mode{CoherenceMode::off};

  /// Runs `task` on the worker's thread; dropped if that worker has stopped.
  bool post(unsigned worker, Mailbox::Task task) {
    return mailboxes[worker]->post(std::move(task));
  }
  /// Runs `each` on every worker; when all have called `finished`, runs `done` on `origin`.
  /// A worker that has stopped counts as finished.
  using Each = std::function<void(Router& router, std::function<void()> finished)>;
  void on_every_worker(unsigned origin, const Each& each, std::function<void()> done);

  // Patterns. A worker compares patterns_version with what it has seen at every request.
  using Patterns = std::vector<std::shared_ptr<const coherence::Pattern>>;
  std::atomic<uint64_t> patterns_version{0};
  Patterns patterns() const;
  /// A write of everything, or of what nobody knows, goes out. Any thread.
  void begin_write_all() {
    flushes.fetch_add(1);
    stamps.begin_write_all();
  }
  /// NEARCACHE FLUSH LOCAL, on a worker.
  void flush_here(Stats& counters);
  /// As on_pattern, for a pattern that is accepted by a worker and for this process only.
  void on_pattern_here(Bytes glob, Stats& counters);
  /// The worker has dropped whatever the patterns up to `id` killed.
  void pattern_walked(unsigned worker, uint64_t id);

  // Bus::Owner, on the control loop; the first three are right on any thread.
  void on_invalidate(Bytes key, coherence::Cause cause) override;
  void on_everything(coherence::Cause cause, Bytes reason) override;
  void on_pattern(Bytes glob, coherence::Cause cause) override;
  void on_state() override;
  void on_proof() override;
  void on_schedules() override;

  /// Why everything was dropped last, and how often for each reason.
  std::vector<std::pair<std::string, uint64_t>> epoch_reasons() const;
  void count_epoch(Bytes reason);

 private:
  void accept_pattern(Bytes glob, Stats& counters);
  mutable std::mutex mutex_;
  Patterns patterns_;
  std::vector<uint64_t> walked_;  ///< by worker: all patterns up to this id
  uint64_t next_pattern_ = 1;
  std::vector<std::pair<std::string, uint64_t>> epoch_reasons_;
  std::map<NodeIndex, std::string> node_errors_;
};

}  // namespace nearcached
