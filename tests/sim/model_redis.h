// Redis as the coherence protocol sees it: one ordered history per server, what each connection is
// told and in what order, and every way in which it is not told. The facts behind it are those of
// src/README.md and tests/e2e/redis_facts_test.cc.
//
// Every change of a server's data has a position in its history; a value is known by the position
// that wrote it, so a checker can say exactly what a reply was older than. A promoted replica is a
// new server whose history begins as a prefix of the old one's: what it lacks, Redis has lost.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "nearcached/base/ring_queue.h"
#include "nearcached/coherence/bus_message.h"
#include "sim/engine.h"

namespace nearcached::sim {

constexpr unsigned kDatabases = 2;
constexpr unsigned kNames = 4;
constexpr unsigned kKeys = kDatabases * kNames;
using Key = uint8_t;   ///< database * kNames + name
using Name = uint8_t;  ///< pushes carry no database
constexpr Key key_of(unsigned database, unsigned name) {
  return static_cast<Key>(database * kNames + name);
}
constexpr Name name_of(Key key) { return key % kNames; }
std::string text_of(Key key);

struct Version {
  uint32_t server = 0;
  uint32_t position = 0;
  bool operator==(const Version&) const = default;
};
std::string text_of(Version version);

struct Observed {
  Version version;
  bool missing = false;
};

/// What patterns are drawn from; of names, which are "a" and so on.
constexpr Bytes kGlobs[] = {"*", "a", "[ab]", "[^a]", "b*", "?", "[b-d]", "\\c"};
constexpr Bytes kNameText[kNames] = {"a", "b", "c", "d"};

/// A message of the bus, as far as the protocol goes.
struct Note {
  using Kind = coherence::BusMessage::Kind;
  Kind kind = Kind::heartbeat;
  bool overdue = false;  ///< heartbeat: what it has under way takes too long
  uint8_t names = 0;     ///< a bit for each
  uint8_t glob = 0;      ///< of kGlobs
  uint32_t to = 0;       ///< the only proxy it is for; 0: all
  uint64_t proxy = 0;    ///< who sends
  uint64_t number = 0;
};

struct Command {
  enum class Kind : uint8_t {
    introduce,  ///< HELLO, SELECT, CLIENT TRACKING: all a connection says first
    caching,
    get,
    pttl,
    mget,
    set,  ///< of all `keys`, at once; with `px_ms` if not 0
    del,
    script,  ///< writes `keys` without declaring them
    watch,
    multi,
    exec,
    flush_all,
    swap_db,
    role,
    ping,
    subscribe,  ///< all that the bus subscribes to, as proxy `note.proxy`
    publish,    ///< `note`
    redirect,   ///< CLIENT TRACKING ON REDIRECT `subscriber` OPTIN
    probe,      ///< a reserved key is tracked, written and deleted; it is called `note.number`
  };
  Kind kind = Kind::ping;
  bool tracking = false;  ///< introduce: CLIENT TRACKING ON OPTIN
  uint8_t count = 0;
  std::array<Key, kNames> keys{};
  uint32_t px_ms = 0;
  uint32_t subscriber = 0;  ///< redirect: the id of its connection
  Note note;
};
std::string text_of(const Command& command);

struct Reply {
  enum class Kind : uint8_t {
    ok,
    queued,
    values,   ///< of reads; of EXEC: what each command saw or wrote
    aborted,  ///< EXEC: a watched key was changed
    pttl,
    master,
    slave,
    error,
    push_keys,
    push_all,
    push_probe,  ///< the probe's invalidation; note.number
    note,        ///< to a subscriber
    lost,        ///< made by the proxy: the link was lost first
  };
  Kind kind = Kind::ok;
  uint8_t count = 0;
  std::array<Observed, kNames> values{};  ///< of a write: values[0] is what it made
  int64_t pttl = 0;
  Name name = 0;          ///< push_keys
  uint8_t receivers = 0;  ///< of PUBLISH, whose message is `note`
  Note note;
};

class ModelServer;
class ModelRedis;

/// One TCP connection, both directions: what was sent arrives in order, late, or not at all.
class Link {
 public:
  /// The end in the proxy.
  class Client {
   public:
    virtual ~Client() = default;
    virtual void on_readable(Link& link) = 0;
    virtual void on_closed(Link& link) = 0;
  };

  Link(ModelRedis& redis, ModelServer& server, Client& client, uint32_t id)
      : redis_(redis), server_(server), client_(&client), id_(id) {}

  void send(const Command& command);
  /// The next reply or push that has arrived. False: none.
  bool take(Reply& reply);
  /// The proxy lets go. What it had sent may still arrive, even much later, or may not.
  void close();

  uint32_t id() const { return id_; }
  bool open() const { return client_ != nullptr; }
  ModelServer& server() { return server_; }

  // Faults.
  /// Nothing arrives any more, and nobody is told: the net has lost it.
  void vanish() { vanished_ = true; }
  /// Nothing arrives in the given directions until then; nothing closes.
  void hang(uint64_t until_ns, bool to_server, bool to_client);
  /// The server, or the net, cuts it; the proxy is told once it has read what still comes.
  void cut(bool server_reads_the_rest);

 private:
  friend class ModelServer;
  friend class ModelRedis;
  template <typename Message>
  struct Direction {
    struct Sent {
      uint64_t arrives_ns;
      Message message;
    };
    RingQueue<Sent> sent;
    uint64_t left_ns = 0;     ///< when the last of them was sent
    uint64_t last_ns = 0;     ///< when it arrives
    uint64_t blocked_ns = 0;  ///< a hang ends then
  };
  template <typename Message>
  uint64_t put(Direction<Message>& direction, const Message& message);
  void reply(const Reply& reply);

  ModelRedis& redis_;
  ModelServer& server_;
  Client* client_;
  const uint32_t id_;
  Direction<Command> to_server_;
  Direction<Reply> to_client_;
  bool served_ = true;  ///< the server still has it
  bool vanished_ = false;
  bool tracking_ = false;
  Link* redirect_ = nullptr;  ///< who is told instead
  bool subscribed_ = false;
  uint64_t proxy_ = 0;    ///< of a subscriber
  bool caching_ = false;  ///< CLIENT CACHING YES came just before
  bool multi_ = false;
  std::vector<Command> queued_;
  struct Watched {
    Key key;
    uint32_t position;
  };
  std::vector<Watched> watched_;
};

class ModelServer {
 public:
  struct Change {
    uint32_t position = 0;
    bool exists = false;
    bool untold = false;  ///< no proxy made it, and the server tells nobody
    uint64_t at_ns = 0;
    uint64_t expires_ns = kNever;  ///< when what was written is over, if nothing comes before
  };

  ModelServer(ModelRedis& redis, uint32_t id);
  /// A replica of `parent` that has all up to `position`, promoted now.
  ModelServer(ModelRedis& redis, uint32_t id, const ModelServer& parent, uint32_t position);

  uint32_t id() const { return id_; }
  uint32_t position() const { return position_; }
  uint32_t parent() const { return parent_; }
  uint32_t forked_at() const { return forked_at_; }
  uint64_t demoted_ns() const { return demoted_ns_; }
  bool reachable() const { return !down_; }
  const std::vector<Change>& history(Key key) const { return history_[key]; }
  /// What replaced this version of the key; null if nothing has.
  const Change* successor(Key key, uint32_t position) const;
  const Change& change(Key key, uint32_t position) const;

  // Faults and writers around the proxies.
  void write_directly(const Command& command);
  void stop() { stopped_ = true; }
  void resume();
  void restart(uint64_t down_ns);
  void demote();
  void evict_tracked(Name name);
  /// Until then what is published about writes reaches nobody: in a cluster messages go from node
  /// to node, and the link between two of them can be down while every proxy's links are fine. What
  /// a bus publishes itself goes on, because it subscribes at the same node.
  void mute(uint64_t until_ns) { muted_ns_ = std::max(muted_ns_, until_ns); }
  bool running() const { return !stopped_ && !down_; }

 private:
  friend class Link;
  void on_readable(Link& link);
  void execute_next(Link& link);
  void execute(Link& link, const Command& command);
  Reply run(Link* link, const Command& command);
  Reply run_exec(Link& link);
  bool is_untold(Command::Kind kind) const;
  Observed read(Link* link, Key key);
  int64_t pttl(Link* link, Key key);
  uint32_t write(Link* link, const Command& command);
  uint32_t write_all(Link* link, const Command& command);
  void append(Key key, bool exists, uint64_t expires_ns, bool untold);
  void watch_expiry(Key key);
  void expire(Key key, uint32_t position);
  void reap(Link* by, Key key);
  void reap_later(Key key);
  void invalidate(Name name, const Link* by);
  bool redirect(Link& link, uint32_t subscriber);
  uint8_t publish(const Note& note);
  uint64_t wall_ms() const;

  ModelRedis& redis_;
  Engine& engine_;
  const uint32_t id_;
  const uint32_t parent_;
  const uint32_t forked_at_;
  uint32_t position_ = 0;
  uint64_t demoted_ns_ = kNever;
  uint64_t wall_phase_ns_;  ///< its clock's milliseconds do not begin when ours do
  uint64_t muted_ns_ = 0;   ///< mute() ends then
  bool around_ = false;     ///< write_directly is under way, and the server tells nobody
  bool stopped_ = false;
  bool down_ = false;
  std::array<std::vector<Change>, kKeys> history_;
  std::array<bool, kKeys> unreaped_{};  ///< over by its TTL, but not deleted and told yet
  std::array<std::vector<Link*>, kNames> tracked_;
  std::vector<Reply> own_pushes_;  ///< of the command being run: they follow its reply
};

/// What the network does while no link is singled out.
struct NetworkOptions {
  uint64_t delay_max_ns = 2 * kNsPerMs;
  uint64_t reap_max_ns = 100 * kNsPerMs;
  /// A write that the proxy has given up may still be run when it pushes nothing, too: a SWAPDB,
  /// and any write while nothing is tracked. The proxy can only guess when that is over
  /// (Router::flush_again_ns_), and is not held to it.
  bool late_untold = false;
  bool nothing_tracked = false;
};

class ModelRedis {
 public:
  ModelRedis(Engine& engine, const NetworkOptions& options);

  Engine& engine() { return engine_; }
  const NetworkOptions& options() const { return options_; }
  /// To whoever is at the address now. Null: refused.
  Link* connect(Link::Client& client);
  ModelServer& primary() { return *servers_.back(); }
  ModelServer& server(uint32_t id) { return *servers_[id]; }
  size_t servers() const { return servers_.size(); }
  std::deque<Link>& links() { return links_; }
  /// What is known on `from` at `position`, said of `to`: the same if `to` is that server, what was
  /// replicated if it descends from it, nothing (0) if it is another or an older one.
  uint32_t carried_over(Version floor, uint32_t to) const;

  void fail_over(uint32_t lost_writes, uint64_t split_ns);
  void end_faults();

 private:
  Engine& engine_;
  const NetworkOptions options_;
  std::vector<std::unique_ptr<ModelServer>> servers_;
  std::deque<Link> links_;
};

}  // namespace nearcached::sim
