// INFO and INSPECT: what this process says about itself.
//
// Counters are kept per worker and added up when asked. INFO goes to the upstream and comes back
// with our section behind its own; `INFO nearcached` alone is answered here, also while the
// upstream is away.
#include <algorithm>
#include <cstdio>

#include "bus/schedules.h"
#include "nearcached/base/clock.h"
#include "nearcached/base/hash.h"
#include "nearcached/resp/writer.h"
#include "route/router.h"

namespace nearcached {
namespace {

std::string ratio(uint64_t part, uint64_t whole) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f",
                whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole));
  return text;
}

// Puts `section` behind the (edited) text of a whole bulk or verbatim reply, in the client's
// protocol.
template <typename Edit>
std::string with_section(Bytes reply, const std::string& section, int resp, const Edit& edit) {
  if (reply.empty() || (reply[0] != '$' && reply[0] != '=')) return std::string(reply);
  const size_t header = reply.find("\r\n") + 2;
  std::string text(reply.substr(header, reply.size() - header - 2));
  if (reply[0] == '=') text.erase(0, 4);
  edit(text);
  if (!text.empty()) text += "\r\n";
  text += section;
  Buffer out;
  resp::write_verbatim(out, text, resp);
  return std::string(out.readable());
}

void add_line(std::string& text, Bytes name, const std::string& value) {
  text.append(name).append(":").append(value).append("\r\n");
}

}  // namespace

Bytes Router::command_name(uint16_t id) const {
  for (const Command& command : table_->commands())
    if (command.id == id) return command.name;
  return "NULL";
}

void Router::refresh_gauges() {
  const L1Stats l1 = l1_.stats();
  stats_.l1_items.set(l1.items);
  stats_.l1_used_bytes.set(l1.used_bytes);
  stats_.l1_budget_bytes.set(l1.budget_bytes);
  stats_.l1_evictions.set(l1.evictions);
  stats_.l1_expired.set(l1.expired);
  stats_.invalidations_expiry.set(l1.expired);
  stats_.l1_reclaimed.set(l1.reclaimed);
  for (size_t i = 0; i < l1_.own().size(); ++i) {
    const L1Stats& own = l1_.own()[i].table->stats();
    stats_.rule_memory[i].items.set(own.items);
    stats_.rule_memory[i].used_bytes.set(own.used_bytes);
    stats_.rule_memory[i].budget_bytes.set(own.budget_bytes);
    stats_.rule_memory[i].evictions.set(own.evictions);
  }
  uint64_t oldest = UINT64_MAX;
  uint64_t tracking = 0, up = 0;
  for (const auto& lane : lanes_) {
    up += lane->connection->up();
    if (!lane->proof.tracking) continue;
    ++tracking;
    oldest = std::min(oldest, proof_of(*lane).master_ns);
  }
  stats_.lanes_tracking.set(tracking);
  stats_.lanes_up.set(up);
  stats_.oldest_proof_ns.set(tracking > 0 ? oldest : 0);
}

// One line for each rule with memory of its own, by the rule's place in the file.
void Router::add_rule_memory(std::string& text) const {
  for (size_t i = 0; i < l1_.own().size(); ++i) {
    const auto sum = [&](Counter Stats::RuleMemory::*counter) {
      uint64_t total = 0;
      for (const Stats* stats : process_.stats)
        if (i < stats->rule_memory.size()) total += (stats->rule_memory[i].*counter).get();
      return std::to_string(total);
    };
    using Own = Stats::RuleMemory;
    add_line(text, "l1_rule" + std::to_string(l1_.own()[i].rule + 1),
             "items=" + sum(&Own::items) + ",used_bytes=" + sum(&Own::used_bytes) +
                 ",budget_bytes=" + sum(&Own::budget_bytes) + ",evictions=" + sum(&Own::evictions));
  }
}

void Router::add_bus_info(std::string& text, uint64_t now) const {
  const auto line = [&](Bytes name, const std::string& value) { add_line(text, name, value); };
  const Bus& bus = *process_.bus;
  line("bus", bus.state() == Bus::State::up        ? "up"
              : bus.state() == Bus::State::refused ? "refused"
                                                   : "down");
  const uint64_t bus_proof = bus.proof_ns();
  line("bus_link_ms",
       bus_proof == 0 ? "-1" : std::to_string((now - std::min(now, bus_proof)) / kNsPerMs));
  line("bus_peers", std::to_string(bus.peers()));
  line("bus_gaps", std::to_string(bus.gaps()));
  line("bus_bad_messages", std::to_string(bus.bad_messages()));
  line("limit_bus_peers_hit", std::to_string(bus.peers_refused()));
  line("limit_bus_requests_hit", std::to_string(bus.requests_refused()));
  line("limit_bus_queue_hit", std::to_string(bus.queue_full()));
  line("limit_schedules_hit", std::to_string(process_.schedules->refused()));
  line("schedules", std::to_string(process_.schedules->count()));
  line("schedules_fired", std::to_string(process_.schedules->fired()));
}

void Router::add_topology_info(std::string& text, uint64_t now) const {
  const auto line = [&](Bytes name, const std::string& value) { add_line(text, name, value); };
  const auto topology = process_.topology.get();
  const auto& nodes = topology->nodes();
  line("upstream_kind", std::string(kind_name(process_.config.upstream.parsed.kind)));
  line("topology_version", std::to_string(topology->version()));
  line("topology_slots_covered", std::to_string(topology->slots_covered()));
  line("topology_nodes",
       std::to_string(
           std::count_if(nodes.begin(), nodes.end(), [](const auto& node) { return !node.gone; })));
  line("topology_refreshes", std::to_string(process_.discovery->refreshes()));
  line("topology_failures", std::to_string(process_.discovery->failures()));
  line("shards_short_of_replicas", std::to_string(process_.shards_short.load()));
  uint64_t open = 0;
  for (NodeIndex node = 0; node < nodes.size(); ++node)
    if (process_.is_broken(node, now)) ++open;
  line("breakers_open", std::to_string(open));
}

std::string Router::info_section() const {
  std::string text = "# Nearcached\r\n";
  const auto line = [&](Bytes name, const std::string& value) { add_line(text, name, value); };
  const auto sum = [&](Counter Stats::*counter) {
    uint64_t total = 0;
    for (const Stats* stats : process_.stats) total += (stats->*counter).get();
    return total;
  };
  const uint64_t now = monotonic_ns();
  line("version", NEARCACHED_VERSION);
  line("uptime_s", std::to_string((now - process_.started_ns) / 1'000'000'000));
  line("workers", std::to_string(process_.routers.size()));
#define X(name)                                   \
  line(#name, std::to_string(sum(&Stats::name))); \
  if (Bytes(#name) == "l1_misses")                \
    line("l1_hit_ratio",                          \
         ratio(sum(&Stats::l1_hits), sum(&Stats::l1_hits) + sum(&Stats::l1_misses)));
  NEARCACHED_COUNTERS(X)
#undef X
  add_rule_memory(text);
  line("invalidations_total",
       std::to_string(sum(&Stats::invalidations_write) + sum(&Stats::invalidations_push) +
                      sum(&Stats::invalidations_bus) + sum(&Stats::invalidations_pattern) +
                      sum(&Stats::invalidations_scheduled) + sum(&Stats::invalidations_event) +
                      sum(&Stats::invalidations_expiry) + sum(&Stats::invalidations_epoch)));
  std::string reasons;
  for (const auto& [reason, count] : process_.epoch_reasons())
    reasons.append(reasons.empty() ? "" : ";")
        .append(reason)
        .append("=")
        .append(std::to_string(count));
  line("epoch_reasons", reasons);
  uint64_t stale_ms = 0;
  for (const Stats* stats : process_.stats)
    stale_ms = std::max(stale_ms, stats->audit_stale_ms_max.get());
  line("audit_stale_ms_max", std::to_string(stale_ms));
  add_bus_info(text, now);
  line("limit_clients_hit", std::to_string(process_.clients_refused.load()));
  // The age of the oldest proof: what a hit can be older than now, at most, on any lane.
  uint64_t oldest = UINT64_MAX;
  for (const Stats* stats : process_.stats)
    if (stats->lanes_tracking.get() > 0) oldest = std::min(oldest, stats->oldest_proof_ns.get());
  const bool tracking = oldest != UINT64_MAX;
  line("coherence_mode", mode_name(process_.mode.load()));
  line("coherence_link_ms",
       !tracking || oldest == 0 ? "-1" : std::to_string((now - std::min(now, oldest)) / kNsPerMs));
  line("coherence_max_staleness_ms", std::to_string(process_.config.coherence.max_staleness_ms));
  add_topology_info(text, now);
  line("upstream_link", sum(&Stats::lanes_up) > 0 ? "up" : "down");
  return text;
}

Session::Outcome Router::info(Session& session, const Request& request, const Command& command) {
  const auto sections = request.args.subspan(1);
  if (sections.size() == 1 && equals_upper(sections[0], "NEARCACHED")) {
    refresh_gauges();
    Buffer out;
    resp::write_verbatim(out, info_section(), session.resp);
    session.reply(out.readable());
    return Outcome::done;
  }
  const bool ours =
      sections.empty() || std::any_of(sections.begin(), sections.end(), [](Bytes section) {
        return equals_upper(section, "NEARCACHED") || equals_upper(section, "ALL") ||
               equals_upper(section, "DEFAULT") || equals_upper(section, "EVERYTHING");
      });
  if (session.pin != nullptr) {
    if (session.outstanding()) return Outcome::later;
  } else if (!ours && !is_disguised()) {
    return relay(session, request, &command);
  }
  if (must_wait(session, *session.lane)) return Outcome::later;
  if (!can_send(session, *session.lane, wire_of(request).size())) return Outcome::done;
  const SessionRef ref = session.ref;
  const ReplyQueue::Slot slot = session.reserve();
  session.lane->connection->send(
      wire_of(request),
      ReplyTask::pending(
          [this, ref, slot, ours, resp = session.resp](Bytes reply, Bytes failure) {
            Session* waiting = find(ref);
            if (waiting == nullptr) return;
            refresh_gauges();
            if (!failure.empty()) return waiting->deliver(slot, failure, true);
            const auto edit = [this](std::string& text) {
              if (is_disguised()) text = disguised_info(std::move(text));
            };
            waiting->deliver(slot, with_section(reply, ours ? info_section() : "", resp, edit),
                             true);
          },
          now_ns_));
  went_to(session, *session.lane);
  return Outcome::done;
}

// One line per item of the key, and what decides over it now.
void Router::inspect(Bytes key, std::string& text) {
  now_ns();
  const uint64_t hash = hash_key(key, process_.hash_seed);
  const uint64_t stamp = process_.stamps.load(hash);
  const uint64_t now_ms = now_ns_ / kNsPerMs;
  const Rule* const rule = rule_for(key);
  catch_up();
  l1_.inspect(key, [&](const L1Entry& entry) {
    const Lane* lane = nullptr;
    for (const auto& candidate : lanes_)
      if (candidate->proof.space == entry.space) lane = candidate.get();
    const bool kept = std::any_of(lanes_.begin(), lanes_.end(), [&](const auto& candidate) {
      return candidate->stale_space == entry.space;
    });
    const char* state = lane == nullptr && kept ? "kept for serve_stale"
                        : lane == nullptr       ? "dead (its link's epoch is over)"
                        : !coherence::stamp_holds(entry.stamp, stamp) ? "dead (invalidated)"
                        : entry.expires_ms <= now_ms                  ? "expired"
                        : patterns_.kills(entry.key, entry.filled_ms) ? "dead (a pattern)"
                        : lane->replica                               ? "cached (from a replica)"
                        : proof_of(*lane).master_ns + max_staleness_ns_ <= now_ns_
                            ? "held back (link not proven)"
                            : "cached";
    text += "worker=" + std::to_string(index_) +
            " command=" + std::string(command_name(entry.command)) + " state=" + state;
    if (lane != nullptr)
      text += " db=" + std::to_string(lane->database) +
              " user=" + (lane->identity->user.empty() ? "default" : lane->identity->user);
    text +=
        " bytes=" + std::to_string(entry.bytes) +
        " reply_bytes=" + std::to_string(entry.reply_bytes) +
        " accesses=" + std::to_string(entry.accesses) +
        " age_ms=" + std::to_string(now_ms - std::min(now_ms, entry.filled_ms)) +
        " expires_in_ms=" + std::to_string(entry.expires_ms - std::min(entry.expires_ms, now_ms)) +
        (entry.negative ? " negative=1" : "") +
        (rule != nullptr && rule->memory_bytes ? " memory_of=" + rule->keys : "") + "\n";
  });
}

// Why a key is not cached, as far as configuration and state can tell.
std::string Router::verdict_on(Bytes key) const {
  const Rule* rule = rule_for(key);
  if (!process_.config.l1.enabled) return "not cached: L1 is off (l1.enabled)";
  if (rule != nullptr && !rule->cache) return "not cached: rule '" + rule->keys + "' says bypass";
  if (!main_lane_->connection->up())
    return "not cached: the upstream is down (" +
           std::string(main_lane_->connection->down_reason()) + ")";
  if (!main_lane_->proof.tracking)
    return "not cached: no news of others' writes (" + main_lane_->no_resp3 + ")";
  if (!StampTable::settled(process_.stamps.load(hash_key(key, process_.hash_seed))))
    return "not cached now: a write to it is under way";
  return "not cached: not read since it was last dropped";
}

}  // namespace nearcached
