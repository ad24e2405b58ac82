// Server: the whole process: listeners and signals on the main loop, one Worker per thread.
//
// Start: workers' loops and routers, then their threads, then the listeners (so that what is
// accepted finds a worker). Stop: listeners, drain, then the workers' routers, mailboxes and loops.
#pragma once
#include <memory>
#include <thread>
#include <vector>

#include "bus/schedules.h"
#include "discovery/discovery.h"
#include "loop/loop.h"
#include "nearcached/base/result.h"
#include "nearcached/config/config.h"
#include "route/router.h"

namespace nearcached {

/// One thread with a loop and everything that is needed to answer a client on it.
class Worker {
 public:
  Worker(Process& process, unsigned index);
  void start();
  /// Hands it an accepted socket. Called by the main thread only.
  void accept(int fd, bool is_unix);
  /// How many connections it has, as the main thread reckons.
  uint64_t load() const { return accepted_ - router_.sessions_closed(); }
  void drain(std::function<void()> done);
  void stop();
  void join() { thread_.join(); }
  Router& router() { return router_; }
  Mailbox& mailbox() { return mailbox_; }

 private:
  Loop loop_;
  Mailbox mailbox_;
  Router router_;
  std::thread thread_;
  uint64_t accepted_ = 0;
};

class Server final : private Discovery::Owner {
 public:
  explicit Server(const Config& config);
  /// Serves until SIGTERM or SIGINT. The error: why it could not start.
  Result<void> run();

 private:
  void accept(int fd, bool is_unix);
  void walk_upstream(const coherence::Schedule& schedule, std::function<void(bool ok)> done);
  void on_topology() override;
  void watch_replicas(const Topology& topology);
  void stop();
  void finish();

  const Config config_;
  Process process_;
  Loop loop_;
  Mailbox mailbox_;
  Bus bus_;
  Schedules schedules_;
  Discovery discovery_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Signal>> signals_;
  std::unique_ptr<Timer> deadline_;
  size_t draining_ = 0;
  bool stopping_ = false;
  bool finished_ = false;
};

}  // namespace nearcached
