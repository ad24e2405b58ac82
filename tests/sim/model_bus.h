// The bus of one process (src/bus/bus.cc): a connection that subscribes, one that publishes, proofs
// from the one to the other, heartbeats, and what is known of the peers. PeerTable and
// AnnouncementLog are the real ones. Its loop is the process's control loop: what others ask of it
// is posted to it, what it learns goes into the stamps at once, and is posted to the workers.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "bus/bus.h"
#include "sim/model_redis.h"

namespace nearcached::sim {

struct Process;

class ModelBus {
 public:
  struct Outcome {
    uint8_t receivers = 0;
    uint8_t acknowledged = 0;  ///< a bit for each process by its number
    bool failed = false;
  };

  explicit ModelBus(Process& process);
  void start();

  bool up() const { return up_; }
  uint32_t subscriber_id() const { return subscriber_id_; }
  uint64_t proof_ns() const { return proof_ns_; }
  uint64_t proxy_id() const { return proxy_id_; }
  AnnouncementLog& announcements() { return announcements_; }
  void set_announcing();
  void set_needed();
  void request_proof();
  /// `done` on the control loop: whatever was published before has been seen (`saw`: the probe,
  /// too), or everything has been dropped.
  void confirm(uint64_t probe, std::function<void(bool saw)> done);
  /// Of the server that it has reached.
  uint32_t server() const { return server_; }
  /// Connects anew: somebody has been led to another server.
  void look_again();
  /// Publishes kGlobs[glob] to all proxies. `done` on the control loop, within ack_timeout.
  void request(uint8_t glob, std::function<void(const Outcome&)> done);
  /// Tells every other proxy to drop everything.
  void tell_flush();
  void tick();

 private:
  /// RedisLink: one attempt at a time.
  struct End final : Link::Client {
    ModelBus& bus;
    Link* link = nullptr;
    bool up = false;
    uint64_t retry_ns = 0;
    uint64_t started_ns = 0;
    uint64_t backoff_ns = 0;
    explicit End(ModelBus& b) : bus(b) {}
    void on_readable(Link& from) override;
    void on_closed(Link& from) override;
  };
  struct Confirmation {
    uint64_t proof;
    uint64_t probe;
    std::function<void(bool)> done;
  };
  struct Request {
    uint8_t glob = 0;
    uint64_t deadline_ns = 0;
    Outcome outcome;
    std::function<void(const Outcome&)> done;
  };
  struct Proof {
    uint64_t number;
    uint64_t sent_ns;
  };

  void post(std::function<void()> task);
  void connect(End& end);
  void lose(End& end, const char* reason);
  void leave_up(const char* reason);
  void on_reply(End& end, const Reply& reply);
  void send_proof();
  void send_heartbeat();
  void send_request(uint64_t number, Request& request);
  void say_again();
  void acknowledged(const Note& note);
  void finish(uint64_t number, bool failed);
  void finish_late();
  void publish(Note note);
  void to_me(const Note& note);
  void to_all(const Note& note);
  void apply(const Note& note);
  void missed(const char* reason);
  void invalidate(Name name);
  void everything(const char* reason);
  void on_state();
  void on_proof();

  Process& process_;
  Engine& engine_;
  End subscriber_, publisher_;
  const uint64_t proxy_id_;
  AnnouncementLog announcements_;
  coherence::PeerTable peers_;
  bool up_ = false;
  bool subscribed_ = false;
  bool announcing_ = false;
  bool needed_ = false;
  bool proof_wanted_ = false;
  uint32_t id_ = 0;
  uint32_t server_ = 0;
  uint32_t subscriber_id_ = 0;
  uint64_t proof_ns_ = 0;
  uint64_t next_number_ = 1;
  uint64_t proof_due_ns_ = 0, heartbeat_due_ns_ = 0;
  std::deque<Proof> proofs_;
  std::vector<Confirmation> confirmations_;
  std::map<uint64_t, Request> requests_;
  std::vector<uint64_t> probes_seen_;
};

}  // namespace nearcached::sim
