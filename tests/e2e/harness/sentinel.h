// SentinelGroup: a primary, its replicas, and three real sentinels that watch them.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "harness/servers.h"

namespace nearcached::e2e {

/// Servers are named by the order of their start; server 0 begins as the primary.
///
/// Thread: the main one alone (see Process).
class SentinelGroup {
 public:
  /// Returns when every sentinel knows the others and could promote each replica.
  explicit SentinelGroup(unsigned replicas = 1);

  static constexpr const char* kService = "main";
  /// "127.0.0.1:s1,127.0.0.1:s2,…"
  std::string sentinels() const;
  std::string url() const { return "redis+sentinel://" + sentinels() + "/" + kService; }
  /// Options for a Proxy behind them, after `more`.
  std::vector<std::string> upstream(std::vector<std::string> more = {}) const;

  size_t servers() const { return servers_.size(); }
  RedisServer& server(size_t n) { return *servers_.at(n); }
  std::string address(size_t n) const {
    return "127.0.0.1:" + std::to_string(servers_.at(n)->port());
  }
  /// Which server all sentinels that live call the primary; servers() while they disagree.
  size_t primary() const;

  /// SENTINEL FAILOVER. Returns when all sentinels name the new primary: the old one still calls
  /// itself a primary then, and does for about two seconds.
  void failover();
  /// Kills the primary; returns when all sentinels name another.
  void kill_primary();
  /// Until every server but the primary is its replica, with all it has.
  bool wait_replicas();
  void kill_sentinel(size_t n) { sentinels_.at(n)->process.kill(); }

 private:
  struct Sentinel {
    TempDir dir;
    uint16_t port = free_port();
    std::string id;
    Process process;
  };

  void configure(Sentinel& sentinel);
  bool ready(const Sentinel& sentinel) const;
  void wait_primary_other_than(size_t old);

  std::vector<std::unique_ptr<RedisServer>> servers_;
  std::vector<std::unique_ptr<Sentinel>> sentinels_;
};

}  // namespace nearcached::e2e
