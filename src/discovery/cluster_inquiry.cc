// Whom to believe. The nodes of a cluster disagree for a while after every change, and for long
// when one is cut off: a primary on the wrong side of a partition goes on saying that its slots are
// its own, and a node that was reset knows of no slots at all. CLUSTER SLOTS does not say how old
// an answer is, but CLUSTER INFO has the epoch, which every failover and every moved slot raises,
// and whether the node thinks that the cluster works. An answer of an older epoch than one that was
// believed before, of a node whose cluster has failed, or without any slot is doubtful: others are
// asked first, and the best of the doubtful ones is taken if there is nothing better. So a cluster
// that was made anew, with lower epochs, is believed as soon as nobody of the old one answers.
//
// Rejected: believing who answers first, as most clients do. Each answer that flips back and forth
// moves slots, and a slot that moves drops what is held of it.
#include "discovery/cluster_inquiry.h"

#include <algorithm>
#include <tuple>

namespace nearcached {
namespace {

// In a cluster that has failed every node's answer is doubtful; so many opinions are enough.
constexpr size_t kDoubtfulMax = 5;

}  // namespace

ClusterInquiry::ClusterInquiry(Loop& loop, const Config& config, const TopologyStore& store,
                               Owner& owner)
    : config_(config),
      store_(store),
      owner_(owner),
      conversation_(loop, config.upstream.connect_timeout_ms) {}

std::vector<Address> ClusterInquiry::candidates() const {
  std::vector<Address> addresses;
  const auto add = [&](const Address& address) {
    if (std::find(addresses.begin(), addresses.end(), address) == addresses.end())
      addresses.push_back(address);
  };
  const std::shared_ptr<const Topology> topology = store_.get();
  if (first_) add(*first_);
  for (const NodeIndex primary : topology->primaries()) add(topology->nodes()[primary].address);
  for (const TopologyNode& node : topology->nodes())
    if (!node.gone) add(node.address);
  for (const Address& seed : config_.upstream.parsed.seeds) add(seed);
  return addresses;
}

void ClusterInquiry::ask() {
  if (asking_) return;
  asking_ = true;
  ++round_;
  candidates_ = candidates();
  next_ = doubtful_ = failed_ = 0;
  best_.reset();
  reason_.clear();
  ask_next();
}

void ClusterInquiry::ask_next() {
  if (next_ == candidates_.size() || doubtful_ == kDoubtfulMax) return conclude();
  const Address address = candidates_[next_++];
  answer_ = {};
  answer_.from = address;
  const UpstreamUrl& url = config_.upstream.parsed;
  // First INFO: the slots are then of that epoch or a later one.
  conversation_.start(address, round_, {url.user, url.password},
                      {{{"CLUSTER", "INFO"},
                        [this](redisReply& reply) { answer_.state = parse_cluster_info(reply); }},
                       {{"CLUSTER", "SLOTS"},
                        [this](redisReply& reply) {
                          answer_.ranges = parse_cluster_slots(reply, answer_.from.host);
                        }}},
                      [this, address](const Result<void>& result) {
                        if (!result) return on_failure(address, result.error().detail);
                        if (!answer_.ranges)
                          return on_failure(address, answer_.ranges.error().detail);
                        on_answer(std::move(answer_));
                      });
}

void ClusterInquiry::on_failure(const Address& address, const std::string& reason) {
  ++failed_;
  reason_ = address.to_string() + ": " + reason;
  if (first_ == address) first_.reset();
  ask_next();
}

std::string ClusterInquiry::doubt(const Answer& answer) const {
  const std::string who = answer.from.to_string();
  if (!answer.serves()) return who + " knows of no slot that is served";
  if (answer.state.failed) return who + " says that the cluster has failed";
  if (answer.state.epoch && *answer.state.epoch < epoch_)
    return who + " is behind: its epoch is " + std::to_string(*answer.state.epoch) +
           ", another node's was " + std::to_string(epoch_);
  return {};
}

void ClusterInquiry::on_answer(Answer answer) {
  const auto worth = [](const Answer& one) {
    return std::tuple(one.serves(), one.state.epoch.value_or(0), !one.state.failed);
  };
  const bool doubtful = !doubt(answer).empty();
  // Nodes without slots are cheap to ask and say nothing: they do not count.
  if (doubtful && answer.serves()) ++doubtful_;
  if (!doubtful || !best_ || worth(answer) > worth(*best_)) best_ = std::move(answer);
  if (!doubtful) return conclude();
  ask_next();
}

void ClusterInquiry::conclude() {
  asking_ = false;
  if (!best_) return owner_.on_nothing(reason_);
  const Answer answer = std::move(*best_);
  const std::string why = doubt(answer);
  // That nothing is served any more is believed if all say so. If some could not be asked, what was
  // known before is the better guess.
  if (!answer.serves() && failed_ > 0) return owner_.on_nothing(why + "; " + reason_);
  first_ = answer.from;
  epoch_ = answer.state.epoch.value_or(epoch_);
  owner_.on_ranges(answer.ranges.value(), why);
}

}  // namespace nearcached
