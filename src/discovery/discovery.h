// Discovery: finds out who owns what, and keeps it up to date.
//
// TopologyStore holds the present snapshot for everybody; Discovery, on the control loop, renews
// it: for a cluster by CLUSTER SLOTS (when it starts, every upstream.topology_refresh, and when
// somebody asks for it because of MOVED, an error or NEARCACHE TOPOLOGY REFRESH), for a Sentinel
// service by asking the sentinels and listening to +switch-master. Of one Redis there is nothing to
// find out. How each of them is asked is an Inquiry's; when, and what follows, is decided here.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "discovery/backoff.h"
#include "discovery/inquiry.h"
#include "loop/loop.h"
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

  /// Value: whether there is a new snapshot; an answer that says what is known makes none. Error:
  /// refused, the snapshot stays as it is.
  Result<bool> replace(const std::vector<SlotRange>& ranges, uint64_t now_ms);
  /// Whether there is a new snapshot; what is refused is logged.
  bool move_slot(uint16_t slot, const Address& address, uint64_t now_ms);
  bool set_address(const Address& address, uint64_t now_ms);
  /// A node that owns nothing yet, but may be asked (ASK). Whether there is a new snapshot; what is
  /// refused is logged.
  bool learn(const Address& address);

 private:
  bool publish(std::shared_ptr<const Topology> next);

  const size_t nodes_max_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Topology> topology_;
  std::atomic<uint64_t> version_;
};

class Discovery final : private Inquiry::Owner {
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
  /// A node has said MOVED: into the store at once, and refresh(). Without a host (see Redirect)
  /// only the latter. Any thread.
  void moved(uint16_t slot, const Address& address);

  // For INFO and NEARCACHE TOPOLOGY; any thread.
  uint64_t refreshes() const { return refreshes_.load(); }
  uint64_t failures() const { return failures_.load(); }
  /// When the last answer came (monotonic ms); 0: never.
  uint64_t refreshed_ms() const { return refreshed_ms_.load(); }
  /// When that had been asked.
  uint64_t answered_question_ms() const { return answered_question_ms_.load(); }
  /// Of the last attempt that failed; empty if the last one succeeded. Also what speaks against an
  /// answer that was taken all the same: its node says that the cluster has failed, for one.
  std::string last_error() const;

 private:
  void on_ranges(const std::vector<SlotRange>& ranges, Bytes doubt) override;
  void on_primary(const Address& address) override;
  void on_nothing(Bytes reason) override;

  void ask();
  void schedule(uint64_t within_ms);
  void answered(bool changed, Bytes doubt);
  void failed(Bytes reason);
  void set_last_error(Bytes reason);

  Mailbox& mailbox_;
  const Config& config_;
  TopologyStore& store_;
  Owner& owner_;
  Timer timer_;
  std::unique_ptr<Inquiry> inquiry_;  ///< null: one Redis, or closed
  Backoff backoff_;                   ///< while there is no answer, or a doubtful one
  bool asking_ = false;
  uint64_t asked_ms_ = 0, due_ms_ = UINT64_MAX;
  std::atomic<bool> wanted_{false};  ///< somebody has asked for a refresh since the last question
  std::atomic<uint64_t> refreshes_{0}, failures_{0}, refreshed_ms_{0}, answered_question_ms_{0};
  mutable std::mutex error_mutex_;
  std::string last_error_;
};

}  // namespace nearcached
