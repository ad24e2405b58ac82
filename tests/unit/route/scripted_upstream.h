// A whole worker with both its ends in the test's hand: the client, and the server upstream.
//
// What only the router does (apply a push, renew an epoch, fence) cannot be asked of a pure
// function, and a real server does not stop in the middle. Here the test is the server: it answers
// each request when it likes, or not at all, so that the order of events is the test's and not the
// scheduler's.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bus/schedules.h"
#include "nearcached/config/config.h"
#include "nearcached/resp/request_parser.h"
#include "server/server.h"

namespace nearcached::test {

/// A socket of the test's own. Every wait has a deadline and throws at it.
class Peer {
 public:
  explicit Peer(int fd) : fd_(fd) {}
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  void send(Bytes bytes) const;
  void send_request(std::initializer_list<Bytes> args) const;
  /// One whole reply.
  std::string reply();
  /// Waits until this or `other` has something to read; true: this.
  bool readable_before(const Peer& other) const;
  /// Adds what has come to received(); waits for at least one byte.
  void receive();
  std::string& received() { return received_; }

 private:
  const int fd_;
  std::string received_;
};

/// The server's end. What every connection asks on its own (HELLO, CLIENT, COMMAND, ROLE, the probe
/// of its tracking) is answered in passing; everything else is for the test.
class ScriptedUpstream {
 public:
  ScriptedUpstream();
  ~ScriptedUpstream();

  uint16_t port() const { return port_; }
  /// Takes the next connection; the one before it is closed first.
  void accept();
  /// The next request that is not answered in passing, as "NAME arg arg".
  std::string request();
  /// The same, unless `other` has something to read first.
  std::optional<std::string> request_before(const Peer& other);
  void send(Bytes bytes) const { peer_->send(bytes); }
  /// Waits until `text` has come, and takes nothing.
  void await(Bytes text) {
    while (peer_->received().find(text) == std::string::npos) peer_->receive();
  }

 private:
  std::optional<std::string> next_parsed();
  bool answered_in_passing(const std::string& request);

  int listener_ = -1;
  uint16_t port_ = 0;
  std::unique_ptr<Peer> peer_;
};

/// One worker between a client and a scripted upstream, connected and ready. Nothing in it happens
/// by time: no proof grows old, no heartbeat comes but those at the start of a link.
class WorkerUnderTest {
 public:
  explicit WorkerUnderTest(CoherenceMode mode = CoherenceMode::automatic);
  ~WorkerUnderTest();

  /// The client reads `key`; if that comes upstream, the answer is `value` (a key without expiry).
  /// Returns what the client got, and only when all the worker has to do for it is done.
  std::string read(const std::string& key, const std::string& value);

  /// One more client, ready.
  std::unique_ptr<Peer> connect();
  /// Another proxy's NEARCACHE PATTERN has come.
  void accept_pattern(Bytes glob) { process_.on_pattern(glob, coherence::Cause::pattern); }

  ScriptedUpstream upstream;
  std::unique_ptr<Peer> client;

 private:
  const Config config_;
  Process process_;
  Loop control_loop_;
  Mailbox control_;
  Bus bus_;  ///< never started: it is down
  Schedules schedules_;
  std::unique_ptr<Worker> worker_;
  LogLevel level_before_;
};

std::string bulk(const std::string& value);

}  // namespace nearcached::test
