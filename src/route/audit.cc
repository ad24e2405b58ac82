// The online audit: one in N hits is read again from the upstream and compared with what was
// served.
//
// A difference is excused by a write in between, and only by that: on one connection its
// invalidation comes before the second reply, so the stamp has moved by then; where invalidations
// come over the bus, the verdict waits until the bus has proven to be past that reply. The client
// has its answer long before.
#include "nearcached/base/clock.h"
#include "nearcached/base/hash.h"
#include "nearcached/base/log.h"
#include "route/pattern_job.h"
#include "route/router.h"

namespace nearcached {
namespace {

// Sets and hashes come in the order of a hash table, which Redis may rebuild at any time: the sum
// of their elements' hashes says whether they are the same.
enum class Order : uint8_t { kept, none, of_pairs };

Order order_of(Bytes command) {
  if (command == "hgetall") return Order::of_pairs;
  for (const Bytes name : {"smembers", "hkeys", "hvals", "sinter", "sunion", "sdiff"})
    if (command == name) return Order::none;
  return Order::kept;
}

uint64_t digest(Bytes reply, Order order) {
  const bool aggregate = !reply.empty() && (reply[0] == '~' || reply[0] == '%' || reply[0] == '*');
  if (!aggregate || order == Order::kept) return hash_key(reply, 0);
  const size_t width = order == Order::of_pairs ? 2 : 1;
  const size_t header = reply.find("\r\n") + 2;
  uint64_t sum = hash_key(reply.substr(0, header), 0);
  reply.remove_prefix(header);
  while (!reply.empty()) {
    size_t size = 0;
    for (size_t i = 0; i < width; ++i) {
      ReplyScanner scanner;
      const ReplyScanner::Step step = scanner.scan(reply.substr(size));
      if (step.status != ReplyScanner::Status::done) return hash_key(reply, sum);
      size += step.consumed;
    }
    sum += hash_key(reply.substr(0, size), 1);
    reply.remove_prefix(size);
  }
  return sum;
}

}  // namespace

struct Audit final : ReplyHandler {
  explicit Audit(Router& r) : router(r) {}
  void on_reply(Connection&, Bytes reply, Bytes failure) override {
    router.on_audit_reply(std::unique_ptr<Audit>(this), reply, failure);
  }

  Router& router;
  uint64_t serial = 0;  ///< the lane's, at the hit
  uint32_t space = 0;
  CoherenceMode mode = CoherenceMode::off;
  uint64_t hash = 0;
  uint16_t command = 0;
  Order order = Order::kept;
  std::string key;
  uint64_t stamp = 0;
  uint64_t filled_ms = 0, expires_ms = 0, served_ms = 0;
  uint64_t served_digest = 0;
};

void Router::begin_audit(Lane& lane, Bytes wire, const L1Key& key, const L1Hit& hit) {
  hits_until_audit_ = process_.config.coherence.audit_every;
  if (audits_ >= process_.config.limits.audits || !lane.connection->has_room(wire.size())) {
    stats_.limit_audits_hit.add();
    return;
  }
  auto audit = std::make_unique<Audit>(*this);
  audit->serial = lane.serial;
  audit->space = key.space;
  audit->mode = lane.mode;
  audit->hash = key.hash;
  audit->command = key.command;
  audit->order = order_of(command_name(key.command));
  audit->key.assign(key.key);
  audit->stamp = hit.stamp;
  audit->filled_ms = hit.filled_ms;
  audit->expires_ms = hit.expires_ms;
  audit->served_ms = now_ns_ / kNsPerMs;
  Buffer served;
  append_hit(served, hit);
  audit->served_digest = digest(served.readable(), audit->order);
  Pending pending;
  pending.kind = Pending::Kind::whole;
  pending.read_only = true;
  pending.sent_ns = now_ns_;
  pending.handler = audit.release();
  ++audits_;
  lane.connection->send(wire, std::move(pending));
}

void Router::on_audit_reply(std::unique_ptr<Audit> audit, Bytes reply, Bytes failure) {
  --audits_;
  if (!failure.empty() || reply.starts_with("-")) return;
  stats_.audit_checked.add();
  if (digest(reply, audit->order) == audit->served_digest || is_excused(*audit)) return;
  if (!via_bus(audit->mode)) return end_audit(*audit);
  ++audits_;
  std::shared_ptr<Audit> waiting = std::move(audit);
  process_.bus->confirm({}, [this, waiting](bool) {
    process_.post(index_, [this, waiting] {
      --audits_;
      now_ns();
      if (!is_excused(*waiting)) end_audit(*waiting);
    });
  });
}

// Has anything said since that what was served is no longer true?
bool Router::is_excused(const Audit& audit) {
  const Lane* const lane = find_lane(audit.serial);
  catch_up();
  return lane == nullptr || lane->proof.space != audit.space ||
         !coherence::stamp_holds(audit.stamp, process_.stamps.load(audit.hash)) ||
         patterns_.kills(audit.key, audit.filled_ms) || audit.expires_ms <= now_ns_ / kNsPerMs;
}

void Router::end_audit(const Audit& audit) {
  const uint64_t age_ms = audit.served_ms - std::min(audit.served_ms, audit.filled_ms);
  stats_.audit_stale.add();
  stats_.audit_stale_ms_max.set(std::max(stats_.audit_stale_ms_max.get(), age_ms));
  static log::EverySecond limiter;
  const Lane* const lane = find_lane(audit.serial);
  limiter.message(
      LogLevel::error,
      "audit: a stale hit of {}, {} ms after it was filled by {} over the {} lane of db "
      "{}, user {}",
      quoted(Bytes(audit.key).substr(0, 128)), age_ms, command_name(audit.command),
      mode_name(audit.mode), lane->database,
      lane->identity->user.empty() ? "default" : lane->identity->user);
}

}  // namespace nearcached
