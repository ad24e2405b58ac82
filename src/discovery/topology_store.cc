// Snapshots are made under the lock: two changes at once must both be in the second one. Readers
// come here only when version() has changed.
#include "discovery/discovery.h"
#include "nearcached/base/log.h"

namespace nearcached {
namespace {

std::shared_ptr<const Topology> initial(const UpstreamUrl& url) {
  return url.kind == UpstreamKind::cluster ? Topology::unknown(url.seeds)
                                           : Topology::single(url.address);
}

}  // namespace

TopologyStore::TopologyStore(const Config& config)
    : nodes_max_(config.limits.nodes),
      topology_(initial(config.upstream.parsed)),
      version_(topology_->version()) {}

std::shared_ptr<const Topology> TopologyStore::get() const {
  std::lock_guard lock(mutex_);
  return topology_;
}

bool TopologyStore::publish(std::shared_ptr<const Topology> next) {
  if (next == nullptr || next->says_the_same(*topology_)) return false;
  topology_ = std::move(next);
  version_.store(topology_->version(), std::memory_order_release);
  return true;
}

Result<bool> TopologyStore::replace(const std::vector<SlotRange>& ranges, uint64_t now_ms) {
  std::lock_guard lock(mutex_);
  auto next = Topology::from_ranges(*topology_, ranges, now_ms, nodes_max_);
  if (!next) return next.error();
  return publish(std::move(next.value()));
}

bool TopologyStore::move_slot(uint16_t slot, const Address& address, uint64_t now_ms) {
  std::lock_guard lock(mutex_);
  auto next = Topology::with_moved(*topology_, slot, address, now_ms, nodes_max_);
  if (next) return publish(std::move(next.value()));
  static log::EverySecond limiter;
  limiter.message(LogLevel::warn, "topology: MOVED {} {} is not followed: {}", slot,
                  address.to_string(), next.error().detail);
  return false;
}

bool TopologyStore::learn(const Address& address) {
  std::lock_guard lock(mutex_);
  auto next = Topology::with_node(*topology_, address, nodes_max_);
  if (next) return publish(std::move(next.value()));
  static log::EverySecond limiter;
  limiter.message(LogLevel::warn, "topology: ASK {} is not followed: {}", address.to_string(),
                  next.error().detail);
  return false;
}

bool TopologyStore::set_address(const Address& address, uint64_t now_ms) {
  std::lock_guard lock(mutex_);
  if (topology_->nodes().front().address == address) return false;
  return publish(Topology::with_address(*topology_, address, now_ms));
}

}  // namespace nearcached
