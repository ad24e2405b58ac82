// One question at a time, and one timer that says when the next one is due: after topology_refresh
// when all is well, after a growing pause when nobody answered or the answer is doubtful, after
// topology_refresh_min when somebody asked for it. Whoever asks while a question is under way gets
// another one behind it: the answer may have been given before what he has seen.
#include "discovery/discovery.h"

#include <algorithm>
#include <utility>

#include "discovery/cluster_inquiry.h"
#include "discovery/sentinel_inquiry.h"
#include "nearcached/base/clock.h"
#include "nearcached/base/log.h"

namespace nearcached {
namespace {

std::unique_ptr<Inquiry> inquiry_for(Loop& loop, const Config& config, const TopologyStore& store,
                                     Inquiry::Owner& owner) {
  switch (config.upstream.parsed.kind) {
    case UpstreamKind::cluster: return std::make_unique<ClusterInquiry>(loop, config, store, owner);
    case UpstreamKind::sentinel: return std::make_unique<SentinelInquiry>(loop, config, owner);
    case UpstreamKind::single: break;
  }
  return nullptr;
}

void log_change(const Topology& topology) {
  static log::EverySecond limiter;
  if (!topology.cluster()) {
    const std::string address = topology.nodes().front().address.to_string();
    return limiter.message(LogLevel::info, "topology {}: the primary is {}", topology.version(),
                           address);
  }
  const auto replicas =
      std::count_if(topology.nodes().begin(), topology.nodes().end(),
                    [](const TopologyNode& node) { return !node.gone && node.primary != kNoNode; });
  limiter.message(LogLevel::info, "topology {}: {} slots, {} primaries, {} replicas",
                  topology.version(), topology.slots_covered(), topology.primaries().size(),
                  replicas);
}

}  // namespace

Discovery::Discovery(Loop& loop, Mailbox& mailbox, const Config& config, TopologyStore& store,
                     Owner& owner)
    : mailbox_(mailbox),
      config_(config),
      store_(store),
      owner_(owner),
      timer_(loop, [this] { ask(); }),
      inquiry_(inquiry_for(loop, config, store, *this)),
      backoff_(config.upstream.reconnect_min_ms, config.upstream.reconnect_max_ms) {}

void Discovery::start() { ask(); }

void Discovery::close() {
  timer_.close();
  if (inquiry_) inquiry_->close();
  inquiry_.reset();
}

std::string Discovery::last_error() const {
  std::lock_guard lock(error_mutex_);
  return last_error_;
}

void Discovery::set_last_error(Bytes reason) {
  std::lock_guard lock(error_mutex_);
  last_error_ = reason;
}

// ---- When to ask

void Discovery::refresh(Bytes reason) {
  if (config_.upstream.parsed.kind == UpstreamKind::single || wanted_.exchange(true)) return;
  log::debug("topology: to be asked for: {}", reason);
  mailbox_.post([this] { schedule(0); });
}

void Discovery::moved(uint16_t slot, const Address& address) {
  if (config_.upstream.parsed.kind != UpstreamKind::cluster) return;
  const bool named = !address.host.empty();
  if (named && store_.move_slot(slot, address, monotonic_ms()))
    mailbox_.post([this, address] {
      if (inquiry_ == nullptr) return;
      inquiry_->prefer(address);  // the new owner was the first to know
      log_change(*store_.get());
      owner_.on_topology();
    });
  refresh("MOVED");
}

void Discovery::schedule(uint64_t within_ms) {
  if (inquiry_ == nullptr || asking_) return;
  const uint64_t now = monotonic_ms();
  const uint64_t earliest = asked_ms_ + config_.upstream.topology_refresh_min_ms;
  const uint64_t due = std::max(now + within_ms, earliest);
  if (due >= due_ms_) return;  // it is asked before that
  due_ms_ = due;
  timer_.start(due - now, 0);
}

void Discovery::ask() {
  if (inquiry_ == nullptr) return;
  due_ms_ = UINT64_MAX;
  asked_ms_ = monotonic_ms();
  asking_ = true;
  wanted_.store(false);
  inquiry_->ask();
}

// ---- What follows

void Discovery::on_ranges(const std::vector<SlotRange>& ranges, Bytes doubt) {
  const Result<bool> replaced = store_.replace(ranges, monotonic_ms());
  if (!replaced) return failed(replaced.error().detail);
  answered(replaced.value(), doubt);
}

void Discovery::on_primary(const Address& address) {
  answered(store_.set_address(address, monotonic_ms()), "");
}

void Discovery::on_nothing(Bytes reason) { failed(reason); }

void Discovery::answered(bool changed, Bytes doubt) {
  asking_ = false;
  set_last_error(doubt);
  refreshed_ms_.store(monotonic_ms());
  answered_question_ms_.store(asked_ms_);
  refreshes_.fetch_add(1);
  if (changed) log_change(*store_.get());
  if (doubt.empty()) {
    backoff_.reset();
    schedule(jittered(config_.upstream.topology_refresh_ms));
  } else {
    static log::EverySecond limiter;
    limiter.message(LogLevel::warn, "topology: {}", doubt);
    schedule(backoff_.next_ms());
  }
  if (wanted_.load()) schedule(0);
  if (changed) owner_.on_topology();
}

void Discovery::failed(Bytes reason) {
  asking_ = false;
  set_last_error(reason);
  failures_.fetch_add(1);
  static log::EverySecond limiter;
  limiter.message(LogLevel::warn, "topology: not renewed: {}", reason);
  schedule(backoff_.next_ms());
  if (wanted_.load()) schedule(0);
}

}  // namespace nearcached
