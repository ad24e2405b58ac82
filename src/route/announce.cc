// Modes publish and keyspace: what is written is made known to the other proxies.
//
// The keys of a turn's writes leave as one PUBLISH behind them, on the same connection: whoever
// receives it knows that the writes have been executed. A PUBLISH that was lost counts as executed
// in this process's heartbeat: who has seen it has lost nothing, and everybody else sees a gap and
// drops everything. In MULTI it waits for EXEC, and so is not queued.
#include "nearcached/base/clock.h"
#include "nearcached/coherence/mutations.h"
#include "route/router.h"

namespace nearcached {
namespace {

/// The answer to an announcement's PUBLISH.
struct Announced final : ReplyHandler {
  Announced(Process& p, std::string m, uint32_t d, uint64_t s)
      : process(p), message(std::move(m)), database(d), sequence(s) {}
  void on_reply(Connection&, Bytes reply, Bytes) override {
    // This user may not PUBLISH: the process's own does.
    if (reply.starts_with("-")) process.bus->announce(std::move(message), database, sequence);
    else process.bus->announcements().end(sequence);
    delete this;
  }
  Process& process;
  std::string message;
  const uint32_t database;
  const uint64_t sequence;
};

}  // namespace

void Router::announce_key(Link& link, Bytes key) {
  if (link.announced_everything) return;
  if (link.announced_keys.size() >= process_.config.limits.transaction_keys) {
    stats_.limit_transaction_keys_hit.add();
    return announce_everything(link);
  }
  link.announced_keys.emplace_back(key);
}

void Router::announce_everything(Link& link) {
  if (!announces_) return;
  link.announced_keys.clear();
  link.announced_everything = true;
}

void Router::send_announcement(Connection& connection) {
  Link& link = *static_cast<Link*>(connection.owner_data);
  if (link.announced_keys.empty() && !link.announced_everything) return;
  if (link.kind == Link::Kind::pin && static_cast<Pin&>(link).multi) return;
  coherence::BusMessage message;
  message.kind = link.announced_everything ? coherence::BusMessage::Kind::wrote_everything
                                           : coherence::BusMessage::Kind::wrote;
  message.proxy = process_.bus->proxy_id();
  message.number = process_.bus->announcements().begin();
  message.items.assign(link.announced_keys.begin(), link.announced_keys.end());
  std::string bytes;
  encode(message, bytes);
  link.announced_keys.clear();
  link.announced_everything = false;
  if (mutation::no_announce) return process_.bus->announcements().end(message.number);
  const uint32_t database = connection.options().database;
  Pending pending;
  pending.kind = Pending::Kind::whole;
  pending.sent_ns = now_ns_;
  pending.no_timeout = link.kind == Link::Kind::pin && static_cast<Pin&>(link).blocking > 0;
  pending.handler = new Announced(process_, bytes, database, message.number);
  connection.send({"PUBLISH", process_.bus->channel_of(database), bytes}, std::move(pending));
  stats_.announcements.add();
}

// Its link was cut: a server that hung may still run it. SWAPDB pushes nothing, and where nothing
// is pushed nobody would be told of any write: drop everything once that must be over.
void Router::write_was_lost(bool everything) {
  constexpr uint64_t kSettleNs = 200 * kNsPerMs;
  if (everything || announces_ || process_.blind_lanes.load() > 0)
    flush_again_ns_ = now_ns_ + kSettleNs;
}

}  // namespace nearcached
