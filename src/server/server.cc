// A new connection goes to the worker with the fewest: with a sidecar's few long-lived connections
// the kernel's spreading (SO_REUSEPORT) leaves workers unbalanced and their tails long.
#include "server/server.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <random>

#include "config/address.h"
#include "nearcached/base/clock.h"
#include "nearcached/base/log.h"

namespace nearcached {
namespace {

unsigned worker_count(const Config& config) {
  if (config.server.threads > 0) return config.server.threads;
  return std::max(1u, uv_available_parallelism());
}

Config with_workers(Config config) {
  config.server.threads = worker_count(config);
  return config;
}

// One slot per item that fits: a collision costs a miss, an unused slot eight bytes.
uint64_t stamp_slots(const Config& config) {
  if (config.coherence.stamp_slots > 0) return config.coherence.stamp_slots;
  return config.l1.enabled ? config.l1.memory_bytes / 128 : 1024;
}

// Every client can need a connection of its own upstream: ask for as many descriptors as we may
// have.
void raise_descriptor_limit(const Config& config) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = config.limits.clients * 2ull + 256;
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < config.limits.clients + 64)
    log::warn("only {} file descriptors: fewer than limits.clients = {} can be served",
              limit.rlim_cur, config.limits.clients);
}

}  // namespace

Worker::Worker(Process& process, unsigned index) : mailbox_(loop_), router_(process, loop_, index) {
  loop_.on_turn_end([this] { router_.turn_end(); });
}

void Worker::start() {
  router_.start();
  thread_ = std::thread([this] { loop_.run(); });
}

void Worker::accept(int fd, bool is_unix) {
  ++accepted_;
  if (!mailbox_.post([this, fd, is_unix] { router_.accept(fd, is_unix); })) ::close(fd);
}

void Worker::drain(std::function<void()> done) {
  mailbox_.post([this, done = std::move(done)] { router_.drain(done); });
}

void Worker::stop() {
  mailbox_.post([this] {
    router_.shutdown();
    mailbox_.close();
    loop_.close();
  });
}

Server::Server(const Config& config)
    : config_(with_workers(config)),
      process_(config_, stamp_slots(config_)),
      mailbox_(loop_),
      bus_(loop_, mailbox_, config_, process_),
      schedules_(loop_, mailbox_, config_, bus_,
                 [this](const coherence::Schedule& schedule, std::function<void(bool)> done) {
                   walk_upstream(schedule, std::move(done));
                 }),
      discovery_(loop_, mailbox_, config_, process_.topology, *this) {
  process_.discovery = &discovery_;
  process_.bus = &bus_;
  process_.schedules = &schedules_;
  std::random_device random;
  process_.hash_seed = (static_cast<uint64_t>(random()) << 32) | random();
  process_.started_ns = monotonic_ns();
}

Result<void> Server::run() {
  std::signal(SIGPIPE, SIG_IGN);
  raise_descriptor_limit(config_);
  for (const Address& address : config_.server.listen) {
    listeners_.push_back(
        std::make_unique<Listener>(loop_, [this](int fd, bool is_unix) { accept(fd, is_unix); }));
    const Result<void> listening = listeners_.back()->listen(address, config_.server.backlog);
    if (!listening) return listening;
  }
  for (unsigned i = 0; i < config_.server.threads; ++i) {
    workers_.push_back(std::make_unique<Worker>(process_, i));
    process_.stats.push_back(&workers_[i]->router().stats());
    process_.routers.push_back(&workers_[i]->router());
    process_.mailboxes.push_back(&workers_[i]->mailbox());
  }
  process_.stats.push_back(&process_.control_stats);
  for (const auto& worker : workers_) worker->start();
  discovery_.start();
  on_topology();
  bus_.start();
  for (const int number : {SIGTERM, SIGINT})
    signals_.push_back(std::make_unique<Signal>(loop_, number, [this] { stop(); }));
  for (const Address& address : config_.server.listen)
    log::info("nearcached {} serves {} with {} workers, upstream {}", NEARCACHED_VERSION,
              address.to_string(), config_.server.threads,
              config_.upstream.parsed.kind == UpstreamKind::single
                  ? config_.upstream.parsed.address.to_string()
                  : config::redact(config_.upstream.url));
  loop_.run();
  for (const auto& worker : workers_) worker->join();
  log::info("stopped");
  return {};
}

// The bus goes to the node that owns the schedules.
void Server::on_topology() {
  const auto topology = process_.topology.get();
  const NodeIndex node = topology->owner(slot_of(Schedules::kKey));
  if (node != kNoNode) bus_.set_address(topology->nodes()[node].address);
  watch_replicas(*topology);
  for (unsigned i = 0; i < workers_.size(); ++i)
    process_.post(i, [router = process_.routers[i]] { router->on_topology(); });
}

void Server::watch_replicas(const Topology& topology) {
  const uint32_t factor = config_.upstream.replication_factor;
  uint32_t few = 0;
  for (const NodeIndex primary : topology.primaries())
    if (topology.cluster() && topology.replicas_of(primary).size() < factor) ++few;
  if (few == process_.shards_short.exchange(few)) return;
  if (few > 0)
    log::warn("topology: {} shards have fewer than {} replicas (upstream.replication_factor)", few,
              factor);
  else log::info("topology: every shard has its {} replicas again", factor);
}

// What is scheduled to be deleted all over the upstream is the first worker's, with the proxy's own
// rights.
void Server::walk_upstream(const coherence::Schedule& schedule, std::function<void(bool)> done) {
  Router* const router = &workers_[0]->router();
  process_.post(0, [this, router, schedule, done = std::move(done)] {
    const auto finished = [this, done](bool ok) { mailbox_.post([done, ok] { done(ok); }); };
    if (schedule.kind == coherence::Schedule::Kind::invalidate)
      return router->delete_key(schedule.what, schedule.database, finished);
    if (router->start_job(router->default_identity(), schedule.database, schedule.what, finished) ==
        nullptr)
      finished(false);
  });
}

void Server::accept(int fd, bool is_unix) {
  if (process_.clients.fetch_add(1) >= config_.limits.clients) {
    process_.clients.fetch_sub(1);
    process_.clients_refused.fetch_add(1);
    constexpr Bytes kFull = "-ERR max number of clients reached\r\n";
    (void)!::write(fd, kFull.data(), kFull.size());
    ::close(fd);
    return;
  }
  Worker* least = workers_[0].get();
  for (const auto& worker : workers_)
    if (worker->load() < least->load()) least = worker.get();
  least->accept(fd, is_unix);
}

// The first signal drains; a second one, or the deadline, cuts short.
void Server::stop() {
  if (stopping_) return finish();
  stopping_ = true;
  log::info("stopping: {} clients", process_.clients.load());
  for (const auto& listener : listeners_) listener->close();
  draining_ = workers_.size();
  for (const auto& worker : workers_)
    worker->drain([this] {
      mailbox_.post([this] {
        if (--draining_ == 0) finish();
      });
    });
  deadline_ = std::make_unique<Timer>(loop_, [this] {
    log::warn("server.drain_timeout is over: {} clients are cut off", process_.clients.load());
    finish();
  });
  deadline_->start(config_.server.drain_timeout_ms, 0);
}

void Server::finish() {
  if (finished_) return;
  finished_ = true;
  deadline_.reset();
  signals_.clear();
  for (const auto& worker : workers_) worker->stop();
  schedules_.close();
  discovery_.close();
  bus_.close();
  mailbox_.close();
  loop_.close();
}

}  // namespace nearcached
