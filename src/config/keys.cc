// The keys themselves. Defaults are not here: they are the initialisers of Config, read through the
// same accessors. The bounds keep every product of two limits far from overflow and refuse values
// under which the program could not work at all; they are no advice.
#include "config/keys.h"

#include <array>

namespace nearcached::config {
namespace {

constexpr uint64_t kKiB = 1ull << 10;
constexpr uint64_t kMiB = 1ull << 20;
constexpr uint64_t kGiB = 1ull << 30;
constexpr uint64_t kTiB = 1ull << 40;
constexpr uint64_t kSecond = 1'000;  // in ms
constexpr uint64_t kMinute = 60 * kSecond;
constexpr uint64_t kHour = 60 * kMinute;
constexpr uint64_t kDay = 24 * kHour;
constexpr uint64_t kKeepaliveMaxS = 9 * 3600;  // the kernel refuses TCP_KEEPIDLE above 32767 s

const std::array kConfigKeys{
    ConfigKey{{"server", "listen", Kind::addresses, 1, 64, "where clients connect"},
              [](Config& c) -> Field { return &c.server.listen; }},
    ConfigKey{{"server", "threads", Kind::threads, 1, 64,
               "worker threads; auto: one per core we may use"},
              [](Config& c) -> Field { return &c.server.threads; }},
    ConfigKey{{"server", "backlog", Kind::count, 1, 65'535,
               "connections the kernel queues before they are accepted"},
              [](Config& c) -> Field { return &c.server.backlog; }},
    ConfigKey{{"server", "tcp_keepalive", Kind::seconds, 0, kKeepaliveMaxS,
               "silence before TCP probes a connection; 0: never"},
              [](Config& c) -> Field { return &c.server.tcp_keepalive_s; }},
    ConfigKey{{"server", "drain_timeout", Kind::milliseconds, 0, kHour,
               "how long accepted requests may take after SIGTERM"},
              [](Config& c) -> Field { return &c.server.drain_timeout_ms; }},

    ConfigKey{{"upstream", "url", Kind::url, 0, 0, "the Redis behind the cache"},
              [](Config& c) -> Field { return &c.upstream; }},
    ConfigKey{{"upstream", "connect_timeout", Kind::milliseconds, 10, 10 * kMinute,
               "for connecting and the handshake"},
              [](Config& c) -> Field { return &c.upstream.connect_timeout_ms; }},
    ConfigKey{{"upstream", "timeout", Kind::milliseconds, 10, kHour,
               "without progress on an outstanding request: the link is lost"},
              [](Config& c) -> Field { return &c.upstream.timeout_ms; }},
    ConfigKey{{"upstream", "reconnect_min", Kind::milliseconds, 1, kMinute,
               "first pause before connecting again; doubled up to reconnect_max"},
              [](Config& c) -> Field { return &c.upstream.reconnect_min_ms; }},
    ConfigKey{{"upstream", "reconnect_max", Kind::milliseconds, 1, kHour,
               "longest pause before connecting again"},
              [](Config& c) -> Field { return &c.upstream.reconnect_max_ms; }},
    ConfigKey{{"upstream", "private_idle_max", Kind::count, 0, 10'000,
               "idle private connections kept by each worker"},
              [](Config& c) -> Field { return &c.upstream.private_idle_max; }},
    ConfigKey{{"upstream", "idle_timeout", Kind::milliseconds, kSecond, kDay,
               "unused upstream connections are closed after this"},
              [](Config& c) -> Field { return &c.upstream.idle_timeout_ms; }},

    ConfigKey{{"l1", "enabled", Kind::boolean, 0, 0, "false: pass everything through"},
              [](Config& c) -> Field { return &c.l1.enabled; }},
    ConfigKey{{"l1", "memory", Kind::size, kMiB, kTiB,
               "memory of all workers' caches, overhead included"},
              [](Config& c) -> Field { return &c.l1.memory_bytes; }},
    ConfigKey{{"l1", "entries_max", Kind::count, 0, 1ull << 32,
               "entries of all workers together; 0: as many as fit the memory"},
              [](Config& c) -> Field { return &c.l1.entries_max; }},
    ConfigKey{{"l1", "ttl", Kind::milliseconds, 1, 30 * kDay,
               "an entry lives no longer, even if its key does"},
              [](Config& c) -> Field { return &c.l1.ttl_ms; }},
    ConfigKey{{"l1", "negative_ttl", Kind::milliseconds, 0, 30 * kDay,
               "the same for keys that do not exist; 0: these are not cached"},
              [](Config& c) -> Field { return &c.l1.negative_ttl_ms; }},
    ConfigKey{{"l1", "value_max", Kind::size, 1, kGiB, "longer replies are not cached"},
              [](Config& c) -> Field { return &c.l1.value_bytes_max; }},

    ConfigKey{{"coherence", "mode", Kind::mode, 0, 0, "how others' writes are seen"},
              [](Config& c) -> Field { return &c.coherence.mode; }},
    ConfigKey{{"coherence", "max_staleness", Kind::milliseconds, 10, kHour,
               "the oldest a hit may be when the link hangs silently"},
              [](Config& c) -> Field { return &c.coherence.max_staleness_ms; }},
    ConfigKey{{"coherence", "heartbeat", Kind::milliseconds, 1, kHour / 2,
               "how often each lane proves its link"},
              [](Config& c) -> Field { return &c.coherence.heartbeat_ms; }},
    ConfigKey{{"coherence", "stamp_slots", Kind::count, 0, 1ull << 30,
               "8 bytes each, shared by all workers; 0: sized to the cache"},
              [](Config& c) -> Field { return &c.coherence.stamp_slots; }},
    ConfigKey{{"coherence", "trust_script_keys", Kind::boolean, 0, 0,
               "true: scripts write only the keys they declare"},
              [](Config& c) -> Field { return &c.coherence.trust_script_keys; }},
    ConfigKey{{"coherence", "channel", Kind::name, 1, 64,
               "pub/sub channels by which the proxies of one upstream speak begin with it"},
              [](Config& c) -> Field { return &c.coherence.channel; }},
    ConfigKey{{"coherence", "ack_timeout", Kind::milliseconds, 1, kMinute,
               "how long NEARCACHE INVALIDATE waits for the other proxies"},
              [](Config& c) -> Field { return &c.coherence.ack_timeout_ms; }},
    ConfigKey{{"coherence", "audit", Kind::fraction, 0, 1'000'000'000,
               "one in so many hits is read again from the upstream and compared"},
              [](Config& c) -> Field { return &c.coherence.audit_every; }},

    ConfigKey{{"limits", "clients", Kind::count, 1, 1'000'000, "connected clients"},
              [](Config& c) -> Field { return &c.limits.clients; }},
    ConfigKey{{"limits", "request_args", Kind::count, 16, 16 * kMiB, "arguments of one request"},
              [](Config& c) -> Field { return &c.limits.request_args; }},
    ConfigKey{{"limits", "request", Kind::size, 64 * kKiB, 16 * kGiB, "one request"},
              [](Config& c) -> Field { return &c.limits.request_bytes; }},
    ConfigKey{{"limits", "bulk", Kind::size, kKiB, 4 * kGiB, "one argument of a request"},
              [](Config& c) -> Field { return &c.limits.bulk_bytes; }},
    ConfigKey{{"limits", "client_inflight", Kind::count, 1, 65'536,
               "requests of one client that wait for the upstream"},
              [](Config& c) -> Field { return &c.limits.client_inflight; }},
    ConfigKey{{"limits", "client_output_pause", Kind::size, 16 * kKiB, kTiB,
               "unsent replies above which a client is not read from"},
              [](Config& c) -> Field { return &c.limits.client_output_pause_bytes; }},
    ConfigKey{{"limits", "client_output", Kind::size, 64 * kKiB, kTiB,
               "unsent replies above which a client is closed"},
              [](Config& c) -> Field { return &c.limits.client_output_bytes; }},
    ConfigKey{{"limits", "client_idle", Kind::seconds, 0, 30 * 86'400,
               "an idle client is closed after this; 0: never"},
              [](Config& c) -> Field { return &c.limits.client_idle_s; }},
    ConfigKey{
        {"limits", "upstream_queue", Kind::size, 64 * kKiB, kTiB, "unsent requests of one lane"},
        [](Config& c) -> Field { return &c.limits.upstream_queue_bytes; }},
    ConfigKey{{"limits", "upstream_reply", Kind::size, 64 * kKiB, kTiB, "one bulk of a reply"},
              [](Config& c) -> Field { return &c.limits.upstream_reply_bytes; }},
    ConfigKey{{"limits", "lanes", Kind::count, 1, 10'000,
               "lanes of one worker: one for each identity, database and protocol"},
              [](Config& c) -> Field { return &c.limits.lanes; }},
    ConfigKey{{"limits", "private_connections", Kind::count, 1, 1'000'000,
               "clients that need an upstream connection of their own"},
              [](Config& c) -> Field { return &c.limits.private_connections; }},
    ConfigKey{{"limits", "flights", Kind::count, 1, 1ull << 24, "fills under way in one worker"},
              [](Config& c) -> Field { return &c.limits.flights; }},
    ConfigKey{{"limits", "transaction_keys", Kind::count, 1, 1ull << 24,
               "written keys remembered for one MULTI; above: L1 is dropped"},
              [](Config& c) -> Field { return &c.limits.transaction_keys; }},
    ConfigKey{{"limits", "patterns", Kind::count, 1, 10'000,
               "NEARCACHE PATTERNs being worked off; above: L1 is dropped"},
              [](Config& c) -> Field { return &c.limits.patterns; }},
    ConfigKey{{"limits", "pattern_jobs", Kind::count, 1, 10'000,
               "NEARCACHE PATTERN … UPSTREAM under way in one worker"},
              [](Config& c) -> Field { return &c.limits.pattern_jobs; }},
    ConfigKey{{"limits", "schedules", Kind::count, 1, 1'000'000, "stored NEARCACHE SCHEDULEs"},
              [](Config& c) -> Field { return &c.limits.schedules; }},
    ConfigKey{{"limits", "bus_requests", Kind::count, 1, 1'000'000,
               "explicit invalidations waiting for acknowledgements"},
              [](Config& c) -> Field { return &c.limits.bus_requests; }},
    ConfigKey{{"limits", "bus_queue", Kind::count, 64, 1'000'000,
               "messages to the other proxies that the upstream has not answered"},
              [](Config& c) -> Field { return &c.limits.bus_queue; }},
    ConfigKey{{"limits", "bus_peers", Kind::count, 1, 1'000'000,
               "other proxies whose announced writes are followed"},
              [](Config& c) -> Field { return &c.limits.bus_peers; }},
    ConfigKey{{"limits", "audits", Kind::count, 1, 1'000'000, "audits under way in one worker"},
              [](Config& c) -> Field { return &c.limits.audits; }},

    ConfigKey{{"security", "require_auth", Kind::boolean, 0, 0,
               "true: clients must AUTH before anything else"},
              [](Config& c) -> Field { return &c.security.require_auth; }},
    ConfigKey{{"security", "refuse", Kind::commands, 0, 1'000, "commands that answer an error"},
              [](Config& c) -> Field { return &c.security.refuse; }},
    ConfigKey{{"security", "allow", Kind::commands, 0, 1'000, "commands taken off refuse"},
              [](Config& c) -> Field { return &c.security.allow; }},

    ConfigKey{{"log", "level", Kind::level, 0, 0, "the least that is logged"},
              [](Config& c) -> Field { return &c.log.level; }},
    ConfigKey{{"log", "file", Kind::file, 0, 0, "appended to; empty: standard error"},
              [](Config& c) -> Field { return &c.log.file; }},
};

const std::array kRuleKeys{
    RuleKey{{kRuleSection, "keys", Kind::glob, 0, 0, "the keys it is about"},
            [](Rule& r) -> Field { return &r.keys; }},
    RuleKey{{kRuleSection, "cache", Kind::boolean, 0, 0, "false: never cached"},
            [](Rule& r) -> Field { return &r.cache; }},
    RuleKey{{kRuleSection, "ttl", Kind::milliseconds, 1, 30 * kDay, "instead of l1.ttl"},
            [](Rule& r) -> Field { return &r.ttl_ms; }},
    RuleKey{{kRuleSection, "negative_ttl", Kind::milliseconds, 0, 30 * kDay,
             "instead of l1.negative_ttl"},
            [](Rule& r) -> Field { return &r.negative_ttl_ms; }},
    RuleKey{{kRuleSection, "value_max", Kind::size, 1, kGiB, "instead of l1.value_max"},
            [](Rule& r) -> Field { return &r.value_bytes_max; }},
    RuleKey{{kRuleSection, "serve_stale", Kind::milliseconds, 0, kDay,
             "how long hits go on while the upstream is unreachable; 0: not at all"},
            [](Rule& r) -> Field { return &r.serve_stale_ms; }},
};

const std::array kSubscribeKeys{
    SubscribeKey{{kSubscribeSection, "channel", Kind::channel, 0, 0, "the pub/sub channel"},
                 [](EventSubscription& s) -> Field { return &s.channel; }},
    SubscribeKey{{kSubscribeSection, "payload", Kind::payload, 0, 0, "what a message says"},
                 [](EventSubscription& s) -> Field { return &s.payload; }},
};

}  // namespace

std::span<const ConfigKey> config_keys() { return kConfigKeys; }
std::span<const RuleKey> rule_keys() { return kRuleKeys; }
std::span<const SubscribeKey> subscribe_keys() { return kSubscribeKeys; }

}  // namespace nearcached::config
