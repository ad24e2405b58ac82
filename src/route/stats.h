// What a worker counts. One writer (its worker), any reader: relaxed atomics without a locked
// instruction, so INFO on one worker can add up all of them.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "nearcached/coherence/bus_message.h"

namespace nearcached {

class Counter {
 public:
  void add(uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void subtract(uint64_t n = 1) { add(0 - n); }
  void set(uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// X(name): the name is the field's name in INFO. Order is the order there.
// clang-format off
#define NEARCACHED_COUNTERS(X) \
  X(clients) \
  X(connections_received) \
  X(commands_processed) \
  X(client_protocol_errors) \
  X(client_idle_closed) \
  X(l1_hits) \
  X(l1_misses) \
  X(l1_items) \
  X(l1_used_bytes) \
  X(l1_budget_bytes) \
  X(l1_fills) \
  X(l1_fills_discarded) \
  X(l1_not_admitted) \
  X(l1_evictions) \
  X(l1_expired) \
  X(l1_reclaimed) \
  X(invalidations_write) \
  X(invalidations_push) \
  X(invalidations_bus) \
  X(invalidations_pattern) \
  X(invalidations_scheduled) \
  X(invalidations_event) \
  X(invalidations_expiry) \
  X(invalidations_epoch) \
  X(pattern_items_dropped) \
  X(hits_parked) \
  X(stale_served) \
  X(audit_checked) \
  X(audit_stale) \
  X(announcements) \
  X(flights_joined) \
  X(reads_ahead) \
  X(flights) \
  X(fences) \
  X(upstream_connections) \
  X(upstream_reconnects) \
  X(upstream_requests) \
  X(upstream_errors) \
  X(redirects_moved) \
  X(redirects_ask) \
  X(retries) \
  X(breaker_refusals) \
  X(replica_waits) \
  X(replica_waits_short) \
  X(pinned_sessions) \
  X(private_connections_idle) \
  X(limit_request_hit) \
  X(limit_client_inflight_hit) \
  X(limit_client_output_pause_hit) \
  X(limit_client_output_hit) \
  X(limit_upstream_queue_hit) \
  X(limit_upstream_reply_hit) \
  X(limit_lanes_hit) \
  X(limit_private_connections_hit) \
  X(limit_node_connections_hit) \
  X(limit_flights_hit) \
  X(limit_transaction_keys_hit) \
  X(limit_patterns_hit) \
  X(limit_pattern_jobs_hit) \
  X(limit_audits_hit) \
  X(limit_l1_value_hit)
// clang-format on

struct alignas(64) Stats {
#define X(name) Counter name;
  NEARCACHED_COUNTERS(X)
#undef X
  /// Of keys, patterns and epochs, not of items: what was told, not what it hit.
  Counter& invalidated(coherence::Cause cause) {
    Counter* const counters[coherence::kCauses] = {&invalidations_write,     &invalidations_push,
                                                   &invalidations_bus,       &invalidations_pattern,
                                                   &invalidations_scheduled, &invalidations_event,
                                                   &invalidations_expiry,    &invalidations_epoch};
    return *counters[static_cast<size_t>(cause)];
  }
  /// Age of the oldest proof among the lanes that serve hits is computed from this: monotonic ns of
  /// the oldest such proof; 0: no lane serves.
  Counter oldest_proof_ns;
  Counter audit_stale_ms_max;
  Counter sessions_closed;
  Counter lanes_tracking;
  Counter lanes_up;
  /// Of each rule with memory of its own, in their order.
  struct RuleMemory {
    Counter items, used_bytes, budget_bytes, evictions;
  };
  std::vector<RuleMemory> rule_memory;
};

}  // namespace nearcached
