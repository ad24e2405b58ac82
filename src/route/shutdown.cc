// The end of a worker, in two steps. Drain: no new connections; every session goes on being served
// and is closed when it has been quiet for a tick and owes nothing, so that what its client had
// sent by then has been read and answered. Shutdown: everything is closed at once.
#include "nearcached/base/clock.h"
#include "route/flight.h"
#include "route/router.h"

namespace nearcached {

void Router::drain(std::function<void()> done) {
  draining_ = true;
  drain_began_ns_ = now_ns();
  drained_ = std::move(done);
  if (stats_.clients.get() == 0 && drained_) std::exchange(drained_, nullptr)();
}

void Router::drain_sessions() {
  constexpr uint64_t kQuietNs = 20'000'000, kLingerNs = 500'000'000;
  const bool stop_taking =
      now_ns_ > drain_began_ns_ + process_.config.server.drain_timeout_ms * kNsPerMs / 2;
  for (size_t i = 0; i < sessions_.size(); ++i)
    if (Session* session = sessions_[i].session.get())
      session->drain(kQuietNs, kLingerNs, stop_taking);
}

void Router::shutdown() {
  shutting_down_ = true;
  tick_timer_.reset();
  retry_timer_.reset();
  for (auto& [node, waiters] : replica_waiters_) retire(std::move(waiters.lane->connection));
  for (Retry& retry : retries_) give_up(retry.pending, retry.error);
  retries_.clear();
  for (size_t i = 0; i < sessions_.size(); ++i)
    if (Session* session = sessions_[i].session.get()) session->close();
  while (!pins_.empty()) close_pin(*pins_.back());
  while (!lanes_.empty()) close_lane(*lanes_.back());
}

Router::~Router() {
  for (Flight* flight : free_flights_) delete flight;
  delete_free_mgets();
  delete_free_announcements();
}

}  // namespace nearcached
