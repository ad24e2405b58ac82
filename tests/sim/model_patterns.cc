// NEARCACHE PATTERN. See model_proxy.h for what stands for what.
#include <algorithm>

#include "sim/model_proxy.h"

namespace nearcached::sim {

void Process::accept_pattern(Bytes glob) {
  engine.trace("proxy ", number, ": accepts the pattern ", std::string(glob));
  ++patterns_version;
  patterns.push_back(std::make_shared<const coherence::Pattern>(
      coherence::Pattern{next_pattern++, engine.now_ns() / kNsPerMs, std::string(glob)}));
}

void Process::pattern_walked(unsigned worker, uint64_t id) {
  walked.resize(routers.size());
  walked[worker] = id;
  const uint64_t all = *std::min_element(walked.begin(), walked.end());
  std::erase_if(patterns, [all](const auto& pattern) { return pattern->id <= all; });
}

void Router::adopt_patterns() {
  patterns_seen_ = process.patterns_version;
  if (!patterns_.catch_up(process.patterns)) return;
  fills_void_ns_ = now_ns;
  pattern_walk_ = {};
}

void Router::walk_patterns(uint64_t buckets) {
  const bool done = l1_.erase_if(pattern_walk_, buckets, [this](Bytes key, uint64_t filled_ms) {
    return patterns_.kills(key, filled_ms);
  });
  if (!done) return;
  engine.trace(name(), ": has walked its patterns off");
  process.pattern_walked(index, patterns_.newest());
  patterns_.retire(patterns_.newest());
}

// Whether it is allowed is asked of the server first.
Session::Outcome Router::pattern(Session& session, const ClientRequest& request) {
  const Session::Slot slot = session.reserve(request);
  const auto accept = [this, ref = session.ref, slot, glob = request.glob] {
    process.bus.request(glob, [this, ref, slot](const ModelBus::Outcome& outcome) {
      Answer answer;
      if (outcome.failed) answer.reply.kind = Reply::Kind::error;
      answer.acknowledged = outcome.acknowledged;
      answer.published = outcome.receivers > 0 || outcome.acknowledged != 0;
      process.post(*this, [this, ref, slot, answer] {
        if (Session* waiting = find(ref)) waiting->deliver(slot, answer);
      });
    });
  };
  Connection& connection = session.lane->connection;
  if (!connection.up()) {
    accept();
    return Outcome::done;
  }
  Command scan;
  scan.kind = Command::Kind::ping;
  Pending pending;
  pending.kind = Pending::Kind::ask;
  pending.sent_ns = now_ns;
  pending.answered = [this, ref = session.ref, slot, accept](const Reply* reply) {
    if (reply != nullptr) return accept();
    if (Session* waiting = find(ref)) waiting->deliver(slot, failure());
  };
  connection.send(scan, std::move(pending));
  return Outcome::done;
}

}  // namespace nearcached::sim
