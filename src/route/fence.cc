// Fences: for writes whose keys nobody can name (EVAL, functions, modules).
//
// Such a write is acknowledged only after every lane that feeds L1, on every worker, has answered a
// PING sent after the write's own reply: on one connection everything the server pushed before
// comes before that answer, so whatever the script changed is no longer held anywhere. Rounds are
// shared: while one is under way, further writes gather for the next, so that a pipeline of scripts
// costs one round trip a round, not one a script.
#include "nearcached/coherence/mutations.h"
#include "route/router.h"

namespace nearcached {

void Router::await_fence(SessionRef session, ReplyQueue::Slot slot) {
  if (mutation::no_fence || !process_.config.l1.enabled) {
    if (Session* waiting = find(session)) waiting->release(slot);
    return;
  }
  fence_waiting_.push_back({session, slot});
  if (!fence_running_) start_fence_round();
}

void Router::start_fence_round() {
  fence_running_ = true;
  fence_round_.swap(fence_waiting_);
  stats_.fences.add();
  process_.on_every_worker(
      index_,
      [](Router& router, std::function<void()> finished) {
        router.fence_lanes(std::move(finished));
      },
      [this] { end_fence_round(); });
}

void Router::fence_lanes(std::function<void()> finished) {
  auto left = std::make_shared<size_t>(1);
  auto one = [left, finished = std::move(finished)] {
    if (--*left == 0) finished();
  };
  now_ns();
  bool by_bus = false;
  for (const auto& lane : lanes_) {
    if (via_bus(lane->mode)) by_bus = true;
    if (lane->mode != CoherenceMode::resp3) continue;
    // Its last proof is too old for a hit, and the next one comes behind what the node will push.
    if (is_silent(*lane)) continue;
    ++*left;
    // A lost link is as good as an answer: what it fed is gone.
    lane->connection->send({"PING"}, ReplyTask::pending([one](Bytes, Bytes) { one(); }, now_ns_));
  }
  if (by_bus) {
    ++*left;
    process_.bus->confirm({}, [this, one](bool) { process_.post(index_, one); });
  }
  one();
}

void Router::end_fence_round() {
  for (const Fenced& fenced : fence_round_)
    if (Session* session = find(fenced.session)) session->release(fenced.slot);
  fence_round_.clear();
  fence_running_ = false;
  if (!fence_waiting_.empty()) start_fence_round();
}

}  // namespace nearcached
