// Discovery: finds out who owns what, and keeps it up to date.
//
// TopologyStore holds the present snapshot for everybody; Discovery, on the control loop, renews
// it: for a cluster by CLUSTER SLOTS (when it starts, every upstream.topology_refresh, and when
// somebody asks for it because of MOVED, an error or NEARCACHE TOPOLOGY REFRESH), for a Sentinel
// service by asking the sentinels and listening to +switch-master. Of one Redis there is nothing to
// find out.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "loop/redis_link.h"
#include "nearcached/config/config.h"
#include "nearcached/topology/topology.h"

namespace nearcached {

/// Any thread.
class TopologyStore {
 public:
  explicit TopologyStore(const Config& config);
  std::shared_ptr<const Topology> get() const;
  /// Changes with every snapshot: a cheap look before get().
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

  /// False: refused (the reason is logged), and the snapshot stays as it is.
  bool replace(const std::vector<SlotRange>& ranges, uint64_t now_ms);
  bool move_slot(uint16_t slot, const Address& address, uint64_t now_ms);
  void set_address(const Address& address, uint64_t now_ms);

 private:
  const size_t nodes_max_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Topology> topology_;
  std::atomic<uint64_t> version_;
};

class Discovery final : private RedisLink::Handler {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    /// The store has a new snapshot (also after move_slot). Control loop.
    virtual void on_topology() = 0;
  };

  Discovery(Loop& loop, Mailbox& mailbox, const Config& config, TopologyStore& store, Owner& owner);
  void start();
  void close();

  /// Asks again soon; many calls in a short time are one (at most one question every
  /// upstream.topology_refresh_min). Any thread.
  void refresh(Bytes reason);
  /// A node has said MOVED: into the store at once, and refresh(). Any thread.
  void moved(uint16_t slot, const Address& address);

  // For INFO and NEARCACHE TOPOLOGY; any thread.
  uint64_t refreshes() const { return refreshes_.load(); }
  uint64_t failures() const { return failures_.load(); }
  /// When the last answer came (monotonic ms); 0: never.
  uint64_t refreshed_ms() const { return refreshed_ms_.load(); }
  /// Of the last attempt that failed; empty if the last one succeeded.
  std::string last_error() const;

 private:
  void on_up(RedisLink& link) override;
  void on_down(RedisLink& link, Bytes reason) override;
  void on_message(RedisLink& link, redisReply& reply) override;

  Mailbox& mailbox_;
  const Config& config_;
  TopologyStore& store_;
  Owner& owner_;
  RedisLink link_;
  Timer timer_;
  std::atomic<uint64_t> refreshes_{0}, failures_{0}, refreshed_ms_{0};
  mutable std::mutex error_mutex_;
  std::string last_error_;
};

}  // namespace nearcached
