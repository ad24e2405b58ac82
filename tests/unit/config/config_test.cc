#include <catch2/catch.hpp>

#include <random>

#include "config/keys.h"
#include "config/units.h"
#include "nearcached/config/config.h"

using namespace nearcached;

namespace {

Config parsed(const std::string& text) {
  Result<Config> config = parse_config(text, "n.toml");
  INFO(text);
  REQUIRE(config.ok());
  return config.value();
}

std::string error_of(const std::string& text) {
  const Result<Config> config = parse_config(text, "n.toml");
  return config.ok() ? "accepted" : config.error().detail;
}

// Differs from the default in every key.
Config everything_changed() {
  Config c;
  c.server = {{{"::1", 7000, {}}, {{}, 0, "/tmp/a \"quoted\" \\ name.sock"}},
              3,
              1,
              0,
              1'500,
              PresentAs::cluster};
  c.upstream.url = "redis://10.1.2.3:7001/4";
  c.upstream.parsed.address = {"10.1.2.3", 7001, {}};
  c.upstream.parsed.database = 4;
  c.upstream.connect_timeout_ms = 10;
  c.upstream.timeout_ms = 61'000;
  c.upstream.reconnect_min_ms = 1;
  c.upstream.reconnect_max_ms = 3'600'000;
  c.upstream.private_idle_max = 0;
  c.upstream.idle_timeout_ms = 7'200'000;
  c.upstream.topology_refresh_ms = 2'001;
  c.upstream.topology_refresh_min_ms = 2'000;
  c.upstream.redirects_max = 1;
  c.upstream.retry_ms = 60'000;
  c.upstream.breaker_failures = 1'000'000;
  c.upstream.read_from = ReadFrom::nearest;
  c.upstream.replication_factor = 2;
  c.upstream.sentinel_user = "a \"quoted\" user";
  c.upstream.sentinel_password = "***";  // as every password is printed
  c.l1 = {false, (5ull << 40) / 8, 1ull << 32, L1Policy::random, 1, 0, 1, false};
  c.coherence = {CoherenceMode::off, 1'001, 500, 1ull << 30, true, "other.1", 2, 3};
  c.subscriptions = {{"changed:a", EventPayload::pattern}, {"b", EventPayload::key}};
  c.rules = {{"a\tb\"\\:*", false, 1, 0, 12'345, {}, {}, 7, true, false, 2, 1},
             {"*", true, 5, {}, {}, 1 << 20, L1Policy::gdsf, {}, true, true, 0, 1'000}};
  c.limits = {1, 17, 65'537, 1'025, 2,  16'385, 65'538, 3'601, 65'539, 65'540, 5, 66,
              6, 7,  8,      9,     10, 11,     12,     65,    13,     14,     15};
  c.security = {true, {"config|set"}, {"json.set", "debug"}};
  c.log = {LogLevel::trace, "/var/log/n.log"};
  return c;
}

}  // namespace

TEST_CASE("what print_config prints reads back to the same configuration", "[config]") {
  const Config changed = everything_changed();
  CHECK(parsed(print_config(Config{})) == Config{});
  CHECK(parsed(print_config(changed)) == changed);
  // So that a new key cannot be forgotten above: no line but the sections and rules is a default.
  Config a = changed, b;
  for (const config::ConfigKey& key : config::config_keys()) {
    INFO(key.full_name());
    CHECK(config::format(key, key.field(a)) != config::format(key, key.field(b)));
  }
}

TEST_CASE("an empty file is the default", "[config]") { CHECK(parsed("") == Config{}); }

TEST_CASE("the default of every key is within its own bounds", "[config]") {
  Config c;
  for (const config::ConfigKey& key : config::config_keys()) {
    // A dotted key says the same as a section.
    CHECK(parsed(key.full_name() + " = " + config::format(key, key.field(c))) == Config{});
  }
}

TEST_CASE("a size has Redis's units or binary ones, in any case", "[config]") {
  const auto memory = [](const std::string& v) {
    return parsed("[l1]\nmemory = " + v).l1.memory_bytes;
  };
  CHECK(memory("1048576") == 1048576);
  CHECK(memory("\"1048576\"") == 1048576);
  CHECK(memory("\"2000k\"") == 2'000'000);
  CHECK(memory("\"2000kb\"") == 2'048'000);
  CHECK(memory("\"2m\"") == 2'000'000);
  CHECK(memory("\"2MB\"") == 2'097'152);
  CHECK(memory("\"2g\"") == 2'000'000'000);
  CHECK(memory("\"2Gb\"") == 2ull << 30);
  CHECK(memory("\"2048kIb\"") == 2ull << 20);
  CHECK(memory("\"2MiB\"") == 2ull << 20);
  CHECK(memory("\"2GiB\"") == 2ull << 30);
  CHECK(memory("\"1TiB\"") == 1ull << 40);
  CHECK(memory("\"1048576b\"") == 1048576);
}

TEST_CASE("a duration has a unit, or means the unit of its key", "[config]") {
  CHECK(parsed("[l1]\nttl = 1500").l1.ttl_ms == 1'500);
  CHECK(parsed("[l1]\nttl = \"1500ms\"").l1.ttl_ms == 1'500);
  CHECK(parsed("[l1]\nttl = \"5s\"").l1.ttl_ms == 5'000);
  CHECK(parsed("[l1]\nttl = \"2M\"").l1.ttl_ms == 120'000);
  CHECK(parsed("[l1]\nttl = \"2h\"").l1.ttl_ms == 7'200'000);
  CHECK(parsed("[limits]\nclient_idle = 90").limits.client_idle_s == 90);
  CHECK(parsed("[limits]\nclient_idle = \"2m\"").limits.client_idle_s == 120);
  CHECK(parsed("[limits]\nclient_idle = \"3000ms\"").limits.client_idle_s == 3);
  CHECK(error_of("[limits]\nclient_idle = \"1500ms\"") ==
        "n.toml:2: limits.client_idle = \"1500ms\": a duration in whole seconds such as 30s, 5m or "
        "1h "
        "(0s to 720h)");
}

TEST_CASE("sizes and durations are printed as they can be read", "[config]") {
  CHECK(config::format_size(0) == "0");
  CHECK(config::format_size(1023) == "1023");
  CHECK(config::format_size(1536) == "1536");
  CHECK(config::format_size(3 << 10) == "3KiB");
  CHECK(config::format_size(1ull << 40) == "1TiB");
  CHECK(config::format_duration_ms(0) == "0s");
  CHECK(config::format_duration_ms(90'000) == "90s");
  CHECK(config::format_duration_ms(60'001) == "60001ms");
  std::mt19937_64 random(1);
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t number = random() >> (random() % 64) << (random() % 20);
    CHECK(config::parse_size(config::format_size(number)) == number);
    CHECK(config::parse_duration_ms(config::format_duration_ms(number), 1) == number);
  }
}

TEST_CASE("a number that does not fit 64 bits is refused, not wrapped", "[config]") {
  CHECK(!config::parse_size("18446744073709551616"));
  CHECK(!config::parse_size("18014398509481984KiB"));
  CHECK(config::parse_size("18014398509481983KiB") == 18446744073709550592ull);
  CHECK(!config::parse_duration_ms("99999999999999999h", 1));
  for (const char* text : {"", "k", "-1", "+1", "1.5MiB", " 1", "1 MiB", "0x10", "1e3"})
    CHECK(!config::parse_size(text));
}

TEST_CASE("a wrong value is named with its file, line, key and what is accepted", "[config]") {
  CHECK(error_of("[server]\n\n[l1]\nmemory = \"64XB\"\n") ==
        "n.toml:4: l1.memory = \"64XB\": a size such as 64MiB or 1048576 (1MiB to 1TiB)");
  CHECK(error_of("[l1]\nmemory = 1048575") ==
        "n.toml:2: l1.memory = 1048575: a size such as 64MiB or 1048576 (1MiB to 1TiB)");
  CHECK(error_of("[server]\nbacklog = \"5\"") ==
        "n.toml:2: server.backlog = \"5\": an integer (1 to 65535)");
  CHECK(error_of("[server]\nbacklog = 4294967297") ==
        "n.toml:2: server.backlog = 4294967297: an integer (1 to 65535)");
  CHECK(error_of("[server]\nthreads = 65") ==
        "n.toml:2: server.threads = 65: \"auto\" or an integer (1 to 64)");
  CHECK(error_of("[server]\nthreads = 0") ==
        "n.toml:2: server.threads = 0: \"auto\" or an integer (1 to 64)");
  CHECK(error_of("[l1]\nenabled = 1") == "n.toml:2: l1.enabled = 1: true or false");
  CHECK(error_of("[l1]\nenabled = \"true\"") == "n.toml:2: l1.enabled = \"true\": true or false");
  CHECK(error_of("[l1]\nttl = 1.5") ==
        "n.toml:2: l1.ttl = 1.5: a duration such as 500ms, 5s, 1m or 1h (1ms to 720h)");
  CHECK(error_of("[l1]\nttl = [1]") ==
        "n.toml:2: l1.ttl = [...]: a duration such as 500ms, 5s, 1m or 1h (1ms to 720h)");
  CHECK(error_of("[coherence]\nmode = \"Auto\"") ==
        "n.toml:2: coherence.mode = \"Auto\": \"auto\", \"resp3\", \"redirect\", \"publish\", "
        "\"keyspace\", \"ttl\" or \"off\"");
  CHECK(error_of("[log]\nlevel = \"warning\"") ==
        "n.toml:2: log.level = \"warning\": \"trace\", \"debug\", \"info\", \"warn\" or \"error\"");
  CHECK(
      error_of("[security]\nrefuse = [\"flush all\"]") ==
      "n.toml:2: security.refuse = \"flush all\": a list of command names such as \"shutdown\" or "
      "\"config|set\"");
}

TEST_CASE("an error is one line even if the value is not", "[config]") {
  CHECK(error_of("[log]\nlevel = \"a\\nb\\u001b\"") ==
        "n.toml:2: log.level = \"a\\u000Ab\\u001B\": \"trace\", \"debug\", \"info\", \"warn\" or "
        "\"error\"");
}

TEST_CASE("of several errors the one in the first line is reported", "[config]") {
  CHECK(error_of("[log]\nlevel = 1\n[l1]\nttl = 0\n").starts_with("n.toml:2: "));
  CHECK(error_of("[l1]\nvalue_max = 0\nttl = 0\n").starts_with("n.toml:2: "));
}

TEST_CASE("an unknown key is answered with the nearest one", "[config]") {
  CHECK(error_of("[l1]\nmemry = 1") == "n.toml:2: l1.memry: unknown key; did you mean l1.memory?");
  CHECK(error_of("[l1]\nmax_staleness = 1") ==
        "n.toml:2: l1.max_staleness: unknown key; did you mean coherence.max_staleness?");
  CHECK(error_of("listen = []") == "n.toml:1: listen: unknown key; did you mean server.listen?");
  CHECK(error_of("[l1]\nxyzzy = 1") ==
        "n.toml:2: l1.xyzzy: unknown key; [l1] has enabled, memory, entries_max, policy, ttl, "
        "negative_ttl, "
        "value_max, scan_resistance");
  CHECK(error_of("[[rule]]\nkeys = \"*\"\ntl = 1") ==
        "n.toml:3: rule.tl: unknown key; did you mean rule.ttl?");
}

TEST_CASE("an unknown section is answered with the nearest one", "[config]") {
  CHECK(error_of("[limit]") == "n.toml:1: [limit]: unknown section; did you mean [limits]?");
  CHECK(
      error_of("[frobnicate]") ==
      "n.toml:1: [frobnicate]: unknown section; the sections are server, upstream, l1, coherence, "
      "limits, security, log, rule, subscribe");
  CHECK(error_of("l1 = 5") == "n.toml:1: l1: a section, written [l1]");
  CHECK(error_of("[[l1]]") == "n.toml:1: l1: a section, written [l1]");
  CHECK(error_of("[rule]\nkeys = \"*\"") == "n.toml:1: rule: written [[rule]], one block for each");
}

TEST_CASE("what is not TOML is named with its line", "[config]") {
  CHECK(error_of("\n[l1\n").starts_with("n.toml:2: not TOML: "));
  CHECK(error_of("[l1]\nttl = 1\nttl = 2").starts_with("n.toml:3: not TOML: "));
  CHECK(error_of("[l1]\nmemory = 64MiB").ends_with("; text, sizes and durations stand in quotes"));
  CHECK(error_of("[coherence]\nmode = auto")
            .ends_with("; text, sizes and durations stand in quotes"));
}

TEST_CASE("a key that contradicts another is blamed where it was set", "[config]") {
  CHECK(error_of("[coherence]\nmax_staleness = \"500ms\"\nheartbeat = \"251ms\"") ==
        "n.toml:3: coherence.heartbeat = \"251ms\": at most half of coherence.max_staleness "
        "(\"500ms\")");
  CHECK(parsed("[coherence]\nheartbeat = \"250ms\"").coherence.heartbeat_ms == 250);
  CHECK(error_of("[upstream]\nreconnect_max = \"10ms\"") ==
        "n.toml:2: upstream.reconnect_max = \"10ms\": at least upstream.reconnect_min (\"20ms\")");
  CHECK(error_of("[upstream]\nreconnect_min = \"2s\"") ==
        "n.toml:2: upstream.reconnect_min = \"2s\": at most upstream.reconnect_max (\"1s\")");
  CHECK(error_of("[upstream]\ntopology_refresh = \"99ms\"") ==
        "n.toml:2: upstream.topology_refresh = \"99ms\": at least upstream.topology_refresh_min "
        "(\"100ms\")");
  CHECK(error_of("[limits]\nbulk = \"2GiB\"") ==
        "n.toml:2: limits.bulk = \"2GiB\": at most limits.request (\"1GiB\")");
  CHECK(
      error_of("[limits]\nclient_output = \"64KiB\"") ==
      "n.toml:2: limits.client_output = \"64KiB\": at least limits.client_output_pause (\"1MiB\")");
}

TEST_CASE("in a cluster only the modes that need no bus are possible", "[config]") {
  const auto with_mode = [](const std::string& mode, const std::string& url) {
    return "[upstream]\nurl = \"" + url + "\"\n[coherence]\nmode = \"" + mode + "\"\n";
  };
  const std::string cluster = "redis+cluster://h:1";
  for (const std::string mode : {"auto", "resp3", "ttl", "off"})
    CHECK(parsed(with_mode(mode, cluster)).upstream.parsed.kind == UpstreamKind::cluster);
  for (const std::string mode : {"redirect", "publish", "keyspace"}) {
    CHECK(error_of(with_mode(mode, cluster)) ==
          "n.toml:4: coherence.mode = \"" + mode +
              "\": not with redis+cluster://, whose bus and data are at different nodes; "
              "accepted: \"auto\", \"resp3\", \"ttl\" or \"off\"");
    CHECK(error_of(with_mode(mode, "redis+sentinel://h/s")) == "accepted");
    CHECK(error_of(with_mode(mode, "redis://h")) == "accepted");
  }
}

TEST_CASE("a user at the sentinels needs a password, a password needs no user", "[config]") {
  CHECK(error_of("[upstream]\nsentinel_user = \"u\"") ==
        "n.toml:2: upstream.sentinel_user = \"u\": needs upstream.sentinel_password");
  CHECK(error_of("[upstream]\nsentinel_user = 5") ==
        "n.toml:2: upstream.sentinel_user = 5: a user's name, or an empty string for the default "
        "user");
  const Config c = parsed("[upstream]\nsentinel_password = \"hunter2\"");
  CHECK(c.upstream.sentinel_password == "hunter2");
  CHECK(print_config(c).find("hunter2") == std::string::npos);
  CHECK(print_config(c).find("sentinel_password = \"***\"") != std::string::npos);
  CHECK(print_config(Config{}).find("sentinel_password = \"\"") != std::string::npos);
}

TEST_CASE("the heartbeat follows max_staleness unless it is set", "[config]") {
  const auto heartbeat = [](const std::string& v) {
    return parsed("[coherence]\nmax_staleness = " + v).coherence.heartbeat_ms;
  };
  CHECK(heartbeat("100") == 20);
  CHECK(heartbeat("10") == 2);
  CHECK(heartbeat("\"1h\"") == 100);
}

TEST_CASE("rules keep their order and leave open what they do not set", "[config]") {
  const Config c = parsed(
      "[[rule]]\nkeys = \"z:*\"\ncache = false\n"
      "[[rule]]\nkeys = \"a:*\"\nttl = \"5s\"\nnegative_ttl = 0\nvalue_max = \"1kb\"\n");
  REQUIRE(c.rules.size() == 2);
  Rule live, kept;
  live.keys = "z:*";
  live.cache = false;
  kept.keys = "a:*";
  kept.ttl_ms = 5'000;
  kept.negative_ttl_ms = 0;
  kept.value_bytes_max = 1'024;
  CHECK(c.rules == std::vector<Rule>{live, kept});
  CHECK(error_of("[[rule]]\ncache = true") ==
        "n.toml:1: [[rule]]: rule.keys is missing: a Redis glob such as \"user:*\"");
  CHECK(error_of("[[rule]]\nkeys = \"\"") ==
        "n.toml:2: rule.keys = \"\": a Redis glob such as \"user:*\"");
}

TEST_CASE("what replicas answer is kept only for a time that the rule says", "[config]") {
  const std::string rule = "[[rule]]\nkeys = \"r:*\"\nreplica_fill = true\n";
  const std::string refused =
      "[[rule]] of \"r:*\": rule.replica_fill = true: needs rule.replica_reads = true, rule.ttl, "
      "and "
      "no rule.cache = false";
  CHECK(error_of(rule) == refused);
  CHECK(error_of(rule + "replica_reads = true\n") == refused);
  CHECK(error_of(rule + "ttl = \"5s\"\n") == refused);
  CHECK(error_of(rule + "replica_reads = true\nttl = \"5s\"\ncache = false\n") == refused);
  CHECK(parsed(rule + "replica_reads = true\nttl = \"5s\"\n").rules[0].replica_fill);
}

TEST_CASE("rules have memory of their own out of l1.memory, which keeps some", "[config]") {
  const auto rule = [](const std::string& keys, const std::string& text) {
    return "[[rule]]\nkeys = \"" + keys + "\"\n" + text;
  };
  const std::string memory = "memory = \"32MiB\"\n", policy = "policy = \"lru\"\n";
  const Config c = parsed(rule("a", memory + policy) + rule("b", "memory = \"31MiB\"\n"));
  CHECK(c.rules[0].memory_bytes == 32u << 20);
  CHECK(c.rules[0].policy == L1Policy::lru);
  CHECK(c.rules[1].policy == std::nullopt);
  CHECK(error_of(rule("a", memory) + rule("b", memory)) ==
        "[[rule]] of \"b\": rule.memory = \"32MiB\": leaves less than 1MiB of l1.memory = "
        "\"64MiB\" to all other keys");
  CHECK(error_of(rule("a", policy)) ==
        "[[rule]] of \"a\": rule.policy: needs rule.memory, the entries it decides about");
  CHECK(error_of(rule("a", memory + "cache = false\n")) ==
        "[[rule]] of \"a\": rule.memory: not with rule.cache = false, which keeps nothing");
  CHECK(error_of(rule("a", "policy = \"best\"\n")) ==
        "n.toml:3: rule.policy = \"best\": \"auto\", \"lru\", \"lfu\", \"random\", \"s3fifo\" or "
        "\"gdsf\"");
}

TEST_CASE("there are at most 256 rules", "[config]") {
  std::string text;
  for (int i = 0; i < 256; ++i) text += "[[rule]]\nkeys = \"*\"\n";
  CHECK(parsed(text).rules.size() == 256);
  CHECK(error_of(text + "[[rule]]\nkeys = \"*\"\n") ==
        "n.toml:1: rule: at most 256 [[rule]] blocks");
}

TEST_CASE("subscriptions keep their order, and a payload is a key unless it says otherwise",
          "[config]") {
  const Config c = parsed(
      "[[subscribe]]\nchannel = \"b\"\npayload = \"pattern\"\n[[subscribe]]\nchannel = \"a\"\n");
  REQUIRE(c.subscriptions.size() == 2);
  CHECK(c.subscriptions[0] == EventSubscription{"b", EventPayload::pattern});
  CHECK(c.subscriptions[1] == EventSubscription{"a", EventPayload::key});
}

TEST_CASE("a wrong subscription is named with its line and what is accepted", "[config]") {
  CHECK(error_of("[[subscribe]]\npayload = \"key\"")
            .starts_with("n.toml:1: [[subscribe]]: subscribe.channel is missing"));
  CHECK(error_of("[[subscribe]]\nchannel = \"\"")
            .starts_with("n.toml:2: subscribe.channel = \"\": "));
  CHECK(error_of("[[subscribe]]\nchannel = \"c\"\npayload = \"keys\"") ==
        "n.toml:3: subscribe.payload = \"keys\": \"key\" or \"pattern\"");
  CHECK(error_of("[[subscribe]]\nchannel = \"c\"\npayload = 1")
            .starts_with("n.toml:3: subscribe.payload = 1: "));
  CHECK(error_of("[[subscribe]]\nchannel = \"c\"\nchanel = \"c\"") ==
        "n.toml:3: subscribe.chanel: unknown key; did you mean subscribe.channel?");
  CHECK(error_of("[subscribe]\nchannel = \"c\"") ==
        "n.toml:1: subscribe: written [[subscribe]], one block for each");
  std::string text;
  for (int i = 0; i < 256; ++i) text += "[[subscribe]]\nchannel = \"c\"\n";
  CHECK(parsed(text).subscriptions.size() == 256);
  CHECK(error_of(text + "[[subscribe]]\nchannel = \"c\"\n") ==
        "n.toml:1: subscribe: at most 256 [[subscribe]] blocks");
}

TEST_CASE("a channel's name is a short word that means nothing to a glob or to PUBLISH",
          "[config]") {
  const auto channel = [](const std::string& v) { return "[coherence]\nchannel = \"" + v + "\""; };
  CHECK(parsed(channel("a.B-9_:x")).coherence.channel == "a.B-9_:x");
  CHECK(parsed(channel(std::string(64, 'x'))).coherence.channel == std::string(64, 'x'));
  for (const std::string& bad :
       {std::string(), std::string(65, 'x'), std::string("a b"), std::string("a*"),
        std::string("a?"), std::string("[a]"), std::string("a\\n"), std::string("\u00e4")}) {
    INFO(bad);
    CHECK(error_of(channel(bad)).ends_with(": a word of letters, digits and \"._:-\", at most 64"));
  }
  CHECK(error_of("[coherence]\nchannel = 5") ==
        "n.toml:2: coherence.channel = 5: a word of letters, digits and \"._:-\", at most 64");
}

TEST_CASE("a fraction is one in a number, or never", "[config]") {
  const auto every = [](const std::string& v) {
    return parsed("[coherence]\naudit = " + v).coherence.audit_every;
  };
  CHECK(every("\"0\"") == 0);
  CHECK(every("0") == 0);
  CHECK(every("\"1/1\"") == 1);
  CHECK(every("\"1/1000\"") == 1'000);
  CHECK(every("\"1/1000000000\"") == 1'000'000'000);
  for (const std::string bad :
       {"\"1/0\"", "\"1/1000000001\"", "\"2/3\"", "\"1/\"", "\"1/x\"", "\"1/-1\"", "\"1/ 2\"",
        "\"\"", "1", "0.5", "\"0.5\"", "\"1\"", "true", "\"1/18446744073709551617\""}) {
    INFO(bad);
    CHECK(error_of("[coherence]\naudit = " + bad) ==
          "n.toml:2: coherence.audit = " + bad + ": \"0\", or \"1/N\" such as \"1/1000\"");
  }
}

TEST_CASE("command names are kept in lower case", "[config]") {
  const Config c = parsed("[security]\nrefuse = [\"FLUSHALL\", \"Config|Set\"]\nallow = []");
  CHECK(c.security.refuse == std::vector<std::string>{"flushall", "config|set"});
}
