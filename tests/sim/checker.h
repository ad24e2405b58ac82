// What is promised, checked on every answer against the servers' histories. It knows nothing of
// stamps, spaces and proofs: only what a client was told, when, and what the servers held.
//
//   G1  a read sees what its process had acknowledged when it began, or something newer; likewise
//       what the server held when a pattern was asked for that has been answered: in the process
//       that was asked, and in those that have acknowledged it
//   G2  what a session is told is a non-decreasing prefix of the server's history, over all keys;
//       in mode publish, of each key's history
//   G3  nothing that was replaced more than max_staleness before the read began, or, for a hit,
//       before it was served; from a demoted server nothing more than max_staleness after that
//   G4  once faults have ended and a bounded time has passed, every read gives what the server
//       holds
//   G5  nothing past the end of its TTL, not by a nanosecond; but where news and data are in no
//       order (all modes but resp3) only until the key is written again: what is then served has
//       been replaced, and counts by G3
//       and no update is lost by WATCH, GET, MULTI, EXEC
//
// In mode publish nobody tells the proxies what is written around them. For G3 such a write counts
// from when a pattern has told of it; and before G4 the pattern of all is asked for.
//
// A promoted replica may lack writes. What a floor says of the old server is then said of the part
// of its history that the new one has (ModelRedis::carried_over); what it lacks Redis has lost. Of
// a server older than the one a floor speaks of (a primary that was demoted and still answers)
// nothing is demanded by G1 and G2: a client without a proxy would be told the same.
#pragma once
#include "sim/model_proxy.h"

namespace nearcached::sim {

struct Counts {
  uint64_t reads = 0;
  uint64_t hits = 0;
  uint64_t joined = 0;
  uint64_t writes = 0;
  uint64_t failed = 0;
  Counts& operator+=(const Counts& other);
};

/// Of what G3 is demanded beyond hits and reads of one's own.
struct Bounds {
  bool demoted = false;  ///< reads that go to a server after it has been demoted
};

class Checker {
 public:
  Checker(Engine& engine, ModelRedis& redis, const ProxyOptions& options, const Bounds& bounds)
      : engine_(engine), redis_(redis), options_(options), bounds_(bounds) {}

  /// Whatever may acknowledge a pattern, in the order of their numbers.
  void add(Process& process) { processes_.push_back(&process); }
  void on_start(const Session& session, ClientRequest& request);
  void on_answer(Session& session, const ClientRequest& request, const Answer& answer);
  /// EXEC went through: the change of `key` before the one at `written` must be what was read.
  void on_update(Key key, Version read, Version written);
  /// After all faults: `answer` must be what the primary holds now.
  void on_final_read(Session& session, const ClientRequest& request, const Answer& answer,
                     bool must_be_hit);

  const Counts& counts() const { return counts_; }

 private:
  struct Read {
    Session& session;
    const ClientRequest& request;
    Key key;
    Observed value;
    bool hit;
    bool joined;
  };
  void check(const Read& read);
  void check_age(const Read& read);
  uint64_t replaced_ns(Key key, const ModelServer& server, uint32_t position) const;
  void on_pattern(Process& process, const ClientRequest& request, const Answer& answer);
  void acknowledge(Session& session, Key key, Version version);
  static Version* shown(Session& session, Key key, ClientRequest::Op op);
  void show(Session& session, Key key, Version version, ClientRequest::Op op);
  Version newer(Version floor, Version other) const;
  [[noreturn]] void fail(const char* guarantee, const Read& read, const std::string& why) const;

  Engine& engine_;
  ModelRedis& redis_;
  const ProxyOptions& options_;
  const Bounds bounds_;
  Counts counts_;
  struct Told {
    uint64_t at_ns;
    Version held;
    Bytes glob;
  };
  std::vector<Told> told_;  ///< patterns that every proxy has got, or will get in its turn
  std::vector<Process*> processes_;
  uint64_t next_number_ = 1;
};

}  // namespace nearcached::sim
