// What arrives on the bus becomes stamps, which every worker sees without being told; only what
// changes a lane's mode, or wakes a session, is posted to the workers.
#include "route/process.h"

#include <algorithm>

#include "bus/schedules.h"
#include "nearcached/base/clock.h"
#include "nearcached/base/hash.h"
#include "route/router.h"

namespace nearcached {

using coherence::Cause;

void Process::on_every_worker(unsigned origin, const Each& each, std::function<void()> done) {
  auto left = std::make_shared<std::atomic<size_t>>(routers.size());
  auto finish = [this, origin, left, finished = std::move(done)] {
    if (left->fetch_sub(1) == 1) post(origin, finished);
  };
  for (unsigned i = 0; i < routers.size(); ++i) {
    Router* router = routers[i];
    if (!post(i, [router, each, finish] { each(*router, finish); })) finish();
  }
}

void Process::on_invalidate(Bytes key, Cause cause) {
  stamps.invalidate(hash_key(key, hash_seed));
  control_stats.invalidated(cause).add();
}

void Process::flush_here(Stats& counters) {
  flushes.fetch_add(1);
  stamps.invalidate_all();
  counters.invalidated(Cause::bus).add();
}

void Process::on_everything(Cause cause, Bytes reason) {
  if (cause != Cause::epoch) flushes.fetch_add(1);
  stamps.invalidate_all();
  control_stats.invalidated(cause).add();
  if (cause == Cause::epoch) count_epoch(reason);
}

// The version first, the time after it: a worker that has not seen the version yet stores with a
// time from before this one, and a worker that has seen it waits here for the pattern itself.
void Process::accept_pattern(Bytes glob, Stats& counters) {
  std::lock_guard lock(mutex_);
  if (patterns_.size() >= config.limits.patterns) {
    counters.limit_patterns_hit.add();
    flushes.fetch_add(1);
    stamps.invalidate_all();
    return;
  }
  patterns_version.fetch_add(1);
  patterns_.push_back(std::make_shared<const coherence::Pattern>(
      coherence::Pattern{next_pattern_++, monotonic_ms(), std::string(glob)}));
}

void Process::on_pattern(Bytes glob, Cause cause) {
  control_stats.invalidated(cause).add();
  accept_pattern(glob, control_stats);
}

void Process::on_pattern_here(Bytes glob, Stats& counters) {
  counters.invalidated(Cause::pattern).add();
  accept_pattern(glob, counters);
}

Process::Patterns Process::patterns() const {
  std::lock_guard lock(mutex_);
  return patterns_;
}

void Process::pattern_walked(unsigned worker, uint64_t id) {
  std::lock_guard lock(mutex_);
  walked_.resize(routers.size());
  walked_[worker] = id;
  const uint64_t all = *std::min_element(walked_.begin(), walked_.end());
  std::erase_if(patterns_, [all](const auto& pattern) { return pattern->id <= all; });
}

void Process::on_state() {
  if (bus->state() != Bus::State::up) schedules->on_bus_down();
  for (unsigned i = 0; i < routers.size(); ++i)
    post(i, [router = routers[i]] { router->on_bus_state(); });
}

void Process::on_proof() {
  for (unsigned i = 0; i < routers.size(); ++i)
    if (routers[i]->waits_for_proof()) post(i, [router = routers[i]] { router->on_bus_proof(); });
}

void Process::on_schedules() { schedules->reload(); }

void Process::count_epoch(Bytes reason) {
  constexpr size_t kReasonsMax = 16;
  std::lock_guard lock(mutex_);
  const Bytes name = epoch_reasons_.size() < kReasonsMax ? reason.substr(0, 80) : "other";
  for (auto& [known, count] : epoch_reasons_)
    if (known == reason.substr(0, 80) || known == name) {
      ++count;
      return;
    }
  epoch_reasons_.emplace_back(name, 1);
}

void Process::node_failed(NodeIndex node, Bytes reason) {
  if (nodes[node].failures.fetch_add(1) == 0) nodes[node].failing_since_ns.store(monotonic_ns());
  std::lock_guard lock(mutex_);
  node_errors_[node] = std::string(reason.substr(0, 200));
}

void Process::node_works(NodeIndex node) {
  nodes[node].failures.store(0);
  std::lock_guard lock(mutex_);
  node_errors_.erase(node);
}

std::string Process::node_error(NodeIndex node) const {
  std::lock_guard lock(mutex_);
  const auto at = node_errors_.find(node);
  return at == node_errors_.end() ? std::string() : at->second;
}

std::vector<std::pair<std::string, uint64_t>> Process::epoch_reasons() const {
  std::lock_guard lock(mutex_);
  return epoch_reasons_;
}

}  // namespace nearcached
