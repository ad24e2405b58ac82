// Schedules: invalidations that are due later, or again and again. They live in L2, in the hash
// kKey of the upstream's default database, so that they survive every proxy; each proxy knows them
// and tries to fire what is due. One transaction (WATCH, then the change of the record and the
// PUBLISH together) lets exactly one of them succeed.
// Thread: the control loop's, except add(), list() and remove().
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "bus/bus.h"
#include "nearcached/coherence/schedule.h"

namespace nearcached {

class Schedules {
 public:
  static constexpr Bytes kKey = "__nearcached:schedules";
  /// A walk through the upstream, by a worker: calls `done` on the control loop.
  using Walk =
      std::function<void(const coherence::Schedule& schedule, std::function<void(bool ok)> done)>;
  struct Listed {
    std::string id;
    coherence::Schedule schedule;
  };

  Schedules(Loop& loop, Mailbox& mailbox, const Config& config, Bus& bus, Walk walk);
  void close() { timer_.close(); }

  // Any thread. The callbacks come on the control loop; `error` is empty if it went well.
  /// `after`: schedule.due_ms counts from now.
  void add(coherence::Schedule schedule, bool after,
           std::function<void(const std::string& id, const std::string& error)> done);
  void list(std::function<void(const std::vector<Listed>& all, const std::string& error)> done);
  void remove(std::string id, std::function<void(bool was_there, const std::string& error)> done);

  /// They may have changed in L2.
  void reload();
  /// The bus is gone, and with it the transaction that was under way.
  void on_bus_down();
  uint64_t count() const { return count_.load(); }      ///< any thread
  uint64_t fired() const { return fired_.load(); }      ///< by this process; any thread
  uint64_t refused() const { return refused_.load(); }  ///< limits.schedules was hit; any thread

 private:
  void arm();
  void on_timer();
  void try_fire(const std::string& id);
  void fire(const std::string& id, const std::string& text);
  void end_fire();
  bool walked_through(const coherence::Schedule& schedule) const;
  void start_walk(const std::string& id, const coherence::Schedule& claimed);
  void walked(const std::string& id, const std::string& claimed_text, bool ok);
  void end_walk();
  void learn(const std::string& id, const std::string& text);
  void replace(const std::string& id, const std::string& new_text, const std::string& message,
               const coherence::Schedule* unlink, std::function<void(bool done)> then);
  void tell_others();
  void ask(std::initializer_list<Bytes> args, std::function<void(redisReply* reply)> then);
  std::string error_of(const redisReply* reply) const;
  uint64_t server_now_ms() const;

  Mailbox& mailbox_;
  const Config& config_;
  Bus& bus_;
  Walk walk_;
  Timer timer_;
  std::map<std::string, std::string> texts_;  ///< id → record, as last read
  int64_t clock_offset_ms_ = 0;               ///< the upstream's clock − ours (monotonic)
  bool clock_known_ = false;
  std::deque<std::pair<std::string, std::string>> walked_;  ///< id, record: to be moved on
  bool firing_ = false;         ///< a transaction is under way: WATCH belongs to the connection
  uint64_t hold_until_ms_ = 0;  ///< nothing is tried before, after a transaction was refused
  uint64_t next_question_ = 1;
  std::map<uint64_t, std::function<void(redisReply*)>> open_;  ///< who waits for an answer
  std::atomic<uint64_t> count_{0}, fired_{0}, refused_{0};
};

}  // namespace nearcached
