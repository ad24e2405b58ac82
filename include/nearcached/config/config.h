// Config: everything that can be set, in one immutable value. Every limit of the program lives
// here.
//
// Sources, later ones win: built-in defaults, the TOML file (-c), the command line, --set. Reading
// never connects to anything. Every error is one line that names file, line, key and what is
// accepted.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nearcached/base/l1_policy.h"
#include "nearcached/base/log_level.h"
#include "nearcached/base/result.h"

namespace nearcached {

/// Where to listen or to connect: TCP (host, port) or a Unix socket (path).
struct Address {
  std::string host;
  uint16_t port = 0;
  std::string unix_path;  ///< not empty: a Unix socket
  /// "127.0.0.1:6380", "[::1]:6380" or "unix:/path": what the configuration accepts.
  std::string to_string() const;
  bool operator==(const Address&) const = default;
};

/// What stands behind the cache.
enum class UpstreamKind : uint8_t { single, cluster, sentinel };

struct UpstreamUrl {
  UpstreamKind kind = UpstreamKind::single;
  Address address{"127.0.0.1", 6379, {}};  ///< of a cluster: the first seed; sentinel: not used
  std::vector<Address> seeds;              ///< cluster: nodes to ask first; sentinel: the sentinels
  std::string service;                     ///< sentinel: the name that the sentinels know it by
  std::string user;                        ///< empty: none given
  std::string password;                    ///< empty: none given
  uint32_t database = 0;
  bool operator==(const UpstreamUrl&) const = default;
};

/// How the writes of others are learned of. `automatic` is a wish only; a lane has one of the
/// others.
enum class CoherenceMode : uint8_t { automatic, resp3, redirect, publish, keyspace, ttl, off };

/// What clients take us for: one Redis, or a cluster of one node that owns every slot.
enum class PresentAs : uint8_t { redis, cluster };

/// Where keys of rules with replica_reads are read.
enum class ReadFrom : uint8_t { primary, prefer_replica, replica, nearest };

/// The first [[rule]] whose `keys` glob matches a key decides; unset fields keep [l1]'s value.
struct Rule {
  std::string keys;   ///< Redis glob
  bool cache = true;  ///< false: bypass L1
  std::optional<uint64_t> ttl_ms;
  std::optional<uint64_t> negative_ttl_ms;
  std::optional<uint64_t> value_bytes_max;
  /// Its own part of l1.memory: nothing else pushes its entries out.
  std::optional<uint64_t> memory_bytes;
  std::optional<L1Policy> policy;  ///< there
  /// While the upstream is unreachable, what is held is served for so long after it was last
  /// proven.
  std::optional<uint64_t> serve_stale_ms;
  bool replica_reads = false;        ///< may be read where upstream.read_from says
  bool replica_fill = false;         ///< … and what a replica answers is kept, for ttl_ms
  uint32_t wait_replicas = 0;        ///< a write is acknowledged when so many replicas have it
  uint64_t wait_timeout_ms = 1'000;  ///< or answers an error after this
  bool operator==(const Rule&) const = default;
};

enum class EventPayload : uint8_t { key, pattern };

/// A pub/sub channel that applications publish to: each message drops a key, or all that match.
struct EventSubscription {
  std::string channel;
  EventPayload payload = EventPayload::key;
  bool operator==(const EventSubscription&) const = default;
};

struct Config {
  struct Server {
    std::vector<Address> listen{{"127.0.0.1", 6380, {}}};
    uint32_t threads = 0;  ///< workers; 0: auto, one per core this process may use
    uint32_t backlog = 511;
    uint32_t tcp_keepalive_s = 300;      ///< 0: off
    uint64_t drain_timeout_ms = 10'000;  ///< SIGTERM: how long accepted requests may take
    PresentAs present_as = PresentAs::redis;
    bool operator==(const Server&) const = default;
  } server;

  struct Upstream {
    std::string url = "redis://127.0.0.1:6379";
    UpstreamUrl parsed;
    uint64_t connect_timeout_ms = 2'000;
    uint64_t timeout_ms = 5'000;     ///< no progress on an outstanding request: link is lost
    uint64_t reconnect_min_ms = 20;  ///< jittered, doubled up to …
    uint64_t reconnect_max_ms = 1'000;
    uint32_t private_idle_max = 16;          ///< idle private connections kept per worker
    uint64_t idle_timeout_ms = 60'000;       ///< idle lanes and private connections are closed
    uint64_t topology_refresh_ms = 10'000;   ///< a cluster is asked again who owns what
    uint64_t topology_refresh_min_ms = 100;  ///< but never more often than this
    uint32_t redirects_max = 16;             ///< MOVED and ASK followed for one request
    uint64_t retry_ms = 5;          ///< pause before a TRYAGAIN or CLUSTERDOWN is tried again
    uint32_t breaker_failures = 3;  ///< failed attempts after which a node's requests fail at once
    ReadFrom read_from = ReadFrom::primary;
    uint32_t replication_factor = 0;  ///< replicas that each shard should have; fewer is reported
    std::string sentinel_user, sentinel_password;  ///< for the sentinels themselves
    bool operator==(const Upstream&) const = default;
  } upstream;

  struct L1 {
    bool enabled = true;
    uint64_t memory_bytes = 64ull << 20;  ///< the whole process; divided among the workers
    uint64_t entries_max = 0;             ///< 0: bounded by memory alone
    L1Policy policy = L1Policy::automatic;
    uint64_t ttl_ms = 60'000;
    uint64_t negative_ttl_ms = 5'000;
    uint64_t value_bytes_max = 64 * 1024;  ///< longer replies are not kept
    bool scan_resistance = true;  ///< keys that do not come back are kept at their second miss
    bool operator==(const L1&) const = default;
  } l1;

  struct Coherence {
    CoherenceMode mode = CoherenceMode::automatic;
    uint64_t max_staleness_ms = 500;
    /// At most half of max_staleness. Not set: a fifth of max_staleness, between 1 and 100 ms.
    uint64_t heartbeat_ms = 100;
    uint64_t stamp_slots = 0;            ///< 0: sized to L1
    bool trust_script_keys = false;      ///< true: EVAL/FCALL write only the keys they declare
    std::string channel = "nearcached";  ///< pub/sub channels of the bus begin with it
    uint64_t ack_timeout_ms = 1'000;     ///< how long an explicit invalidation waits for the others
    uint64_t audit_every = 0;            ///< one in so many hits is read again; 0: none
    bool operator==(const Coherence&) const = default;
  } coherence;

  std::vector<Rule> rules;
  std::vector<EventSubscription> subscriptions;

  struct Limits {
    uint32_t clients = 10'000;
    uint32_t request_args = 1024 * 1024;
    uint64_t request_bytes = 1ull << 30;  ///< one request (client-query-buffer-limit)
    uint64_t bulk_bytes = 512ull << 20;   ///< one argument (proto-max-bulk-len)
    uint32_t client_inflight = 256;       ///< requests of one client waiting for upstream
    uint64_t client_output_pause_bytes = 1ull << 20;  ///< above: not read from any more
    uint64_t client_output_bytes = 256ull << 20;      ///< above, with more than one reply: closed
    uint64_t client_idle_s = 0;                       ///< Redis's `timeout`; 0: never
    uint64_t upstream_queue_bytes = 256ull << 20;     ///< unsent requests of one lane
    uint64_t upstream_reply_bytes = 1ull << 30;       ///< one bulk of a reply
    uint32_t lanes = 64;                    ///< (identity, database, protocol) lanes per worker
    uint32_t node_connections = 10'000;     ///< connections of the process to one node
    uint32_t private_connections = 10'000;  ///< pinned sessions per process
    uint32_t flights = 65'536;              ///< fills under way per worker
    uint32_t transaction_keys = 65'536;  ///< keys remembered for one MULTI; above: drop everything
    uint32_t patterns = 64;              ///< patterns being worked off; above: drop everything
    uint32_t pattern_jobs = 16;          ///< walks through the upstream at once, per worker
    uint32_t schedules = 10'000;         ///< stored schedules
    uint32_t bus_requests = 1'024;       ///< explicit invalidations waiting for acknowledgement
    uint32_t bus_queue = 8'192;          ///< messages that the upstream has not yet answered
    uint32_t bus_peers = 1'024;          ///< other proxies whose writes are followed
    uint32_t audits = 1'024;             ///< audits under way in one worker
    uint32_t nodes = 1'024;              ///< nodes of a cluster ever seen
    bool operator==(const Limits&) const = default;
  } limits;

  struct Security {
    bool require_auth = false;  ///< clients must AUTH before anything else
    /// Command names (lower case; "config|set" for a subcommand) that answer an error.
    std::vector<std::string> refuse{"shutdown", "debug", "replicaof", "slaveof",
                                    "failover", "sync",  "psync",     "replconf"};
    std::vector<std::string> allow;  ///< taken off `refuse`
    bool operator==(const Security&) const = default;
  } security;

  struct Log {
    LogLevel level = LogLevel::info;
    std::string file;  ///< empty: standard error
    bool operator==(const Log&) const = default;
  } log;

  bool operator==(const Config&) const = default;
};

/// What the command line asked for. --help and --version are already answered on standard output
/// (Action::exit); a wrong option is an Error like any other.
struct CommandLine {
  enum class Action : uint8_t { run, check, print_config, exit } action = Action::run;
  int exit_code = 0;  ///< for Action::exit
  Config config;
};

/// Parses argv with CLI11, reads the file, applies the overrides, validates the whole.
/// The error is one line, ready for standard error.
Result<CommandLine> parse_command_line(int argc, const char* const* argv);

/// Parses TOML text; `name` is used in errors. For tests and for -c.
Result<Config> parse_config(const std::string& text, const std::string& name);

/// The effective configuration as TOML that parse_config reads back to the same value;
/// passwords are replaced by "***".
std::string print_config(const Config& config);

}  // namespace nearcached
