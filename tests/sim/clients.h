// The clients: what they ask, in what batches, and what they make of the answers. Also who tells
// the checker, as everything a proxy says passes here.
#pragma once
#include <memory>

#include "sim/checker.h"

namespace nearcached::sim {

struct ClientOptions {
  uint64_t think_max_ns = 10 * kNsPerMs;
  uint64_t ttl_max_ms = 100;
  uint64_t proof_ns = 0;  ///< by then a link that has come up has been proven
  unsigned batch_max = 4;
  unsigned names = kNames;  ///< how many keys are in use
  // In percent.
  unsigned writes = 20;
  unsigned expiring = 0;  ///< of the writes
  unsigned twins = 0;
  unsigned mgets = 10;
  unsigned scripts = 0;
  unsigned transactions = 0;
  unsigned selects = 0;
  unsigned flushes = 0;
  unsigned swaps = 0;
  unsigned patterns = 0;
};

/// `alone`: nobody else may swap databases behind this proxy's back.
ClientOptions draw_client_options(Random& random, uint64_t active_ns, bool alone);
/// A write by somebody who knows nothing of proxies.
Command draw_direct_write(Random& random, const ClientOptions& options);

class Clients final : public Observer {
 public:
  Clients(Engine& engine, ModelRedis& redis, Checker& checker, const ClientOptions& options)
      : engine_(engine), redis_(redis), checker_(checker), options_(options) {}

  void add(Router& router);
  /// Those from the given one on begin.
  void start(size_t first);
  size_t size() const { return clients_.size(); }
  void stop() { stopped_ = true; }
  /// Somebody hangs up.
  void close_one();
  /// Somebody says of every key that it may have been written around the proxies.
  void ask_pattern();
  /// Every worker reads every key three times; the last must come out of L1.
  void verify();
  /// Throws if somebody has not been answered.
  void check_idle() const;

  void on_start(Session& session, ClientRequest& request) override;
  void on_answer(Session& session, const ClientRequest& request, const Answer& answer) override;
  void on_session_closed(Session& session) override;

 private:
  enum class Phase : uint8_t { plain, watching, watched, executing };
  struct Client {
    Router* router = nullptr;
    unsigned number = 0;
    SessionRef session = kNobody;
    size_t outstanding = 0;
    Phase phase = Phase::plain;
    Key key = 0;  ///< of the transaction
    Observed read;
    bool verifying = false;
    unsigned verified = 0;
    std::vector<ClientRequest> to_verify;  ///< last first
  };

  /// From now on it asks what is in `to_verify`.
  void begin_verifying(Client& client);
  void next_batch(Client& client);
  void next_batch_later(Client& client);
  void send(Client& client, std::vector<ClientRequest> requests);
  std::vector<ClientRequest> draw_batch(Client& client);
  std::vector<ClientRequest> draw_transaction(Client& client);
  ClientRequest draw_request();
  void on_transaction(Client& client, const ClientRequest& request, const Answer& answer);

  Engine& engine_;
  ModelRedis& redis_;
  Checker& checker_;
  const ClientOptions options_;
  std::vector<std::unique_ptr<Client>> clients_;
  bool stopped_ = false;
};

}  // namespace nearcached::sim
