// Modes publish and keyspace: what is written is made known to the other proxies.
//
// The keys that a turn wrote over a lane leave as one PUBLISH behind the writes, on the same
// connection: whoever receives it knows that they have been executed. A private connection may be
// in MULTI, or blocked for minutes: what it wrote goes over the main lane once its reply is here. A
// PUBLISH that was lost counts as executed in this process's heartbeat: who has seen it has lost
// nothing, and everybody else sees a gap and drops everything.
#include "nearcached/base/clock.h"
#include "nearcached/coherence/mutations.h"
#include "route/router.h"

namespace nearcached {
namespace {

constexpr size_t kFreeAnnouncementsMax = 64;
constexpr size_t kFreeAnnouncementBytes = 16 * 1024;  // of one that is kept for the next

}  // namespace

/// What a PUBLISH says, until its answer is here.
struct Announcement final : ReplyHandler {
  explicit Announcement(Router& r) : router(r) {}
  void on_reply(Connection&, Bytes reply, Bytes) override {
    Bus& bus = *router.process_.bus;
    // This user may not PUBLISH: the process's own does.
    if (reply.starts_with("-")) bus.announce(std::move(message), database, sequence);
    else bus.announcements().end(sequence);
    router.release_announcement(*this);
  }
  Router& router;
  std::string message;
  uint32_t database = 0;
  uint64_t sequence = 0;
};

void Router::announce_key(Link& link, Pending& pending, Bytes key) {
  if (link.kind == Link::Kind::lane) return announce_key(static_cast<Lane&>(link), key);
  if (pending.writes == nullptr) pending.writes = std::make_unique<WriteMarks>();
  pending.writes->announced_keys.emplace_back(key);
}

void Router::announce_key(Lane& lane, Bytes key) {
  if (lane.announced_everything) return;
  if (lane.announced_keys.size() < process_.config.limits.transaction_keys) {
    lane.announced_keys.add(key);
    return;
  }
  stats_.limit_transaction_keys_hit.add();
  lane.announced_keys.clear();
  lane.announced_everything = true;
}

/// `pending.writes` is there already.
void Router::announce_everything(Link& link, Pending& pending) {
  if (!records_writes_) return;
  if (link.kind == Link::Kind::pin) pending.writes->announced_everything = true;
  else static_cast<Lane&>(link).announced_everything = true;
}

void Router::announce_late(const WriteMarks& marks) {
  if (main_lane_ == nullptr || shutting_down_) return;
  if (marks.announced_everything) main_lane_->announced_everything = true;
  for (const std::string& key : marks.announced_keys) announce_key(*main_lane_, key);
}

void Router::send_announcements() {
  for (const auto& lane : lanes_)
    if (lane->announced_everything || !lane->announced_keys.empty()) send_announcement(*lane);
}

// The mode turned out to be one in which the server tells.
void Router::forget_announcements() {
  for (const auto& lane : lanes_) {
    lane->announced_keys.clear();
    lane->announced_everything = false;
  }
}

void Router::send_announcement(Lane& lane) {
  coherence::BusMessage& message = announced_;
  message.kind = lane.announced_everything ? coherence::BusMessage::Kind::wrote_everything
                                           : coherence::BusMessage::Kind::wrote;
  message.proxy = process_.bus->proxy_id();
  message.number = process_.bus->announcements().begin(now_ns_);
  lane.announced_keys.views(message.items);
  if (lane.announced_everything) message.items.clear();
  Announcement& announcement = new_announcement();
  std::string& bytes = announcement.message;
  encode(message, bytes);
  // Redis closes a subscriber that has 32 MB of messages to take (client-output-buffer-limit).
  if (bytes.size() > coherence::kMessageBytesMax) {
    message.kind = coherence::BusMessage::Kind::wrote_everything;
    message.items.clear();
    bytes.clear();
    encode(message, bytes);
  }
  lane.announced_keys.clear();
  lane.announced_everything = false;
  announcement.database = lane.database;
  announcement.sequence = message.number;
  if (mutation::no_announce) {
    process_.bus->announcements().end(message.number);
    return release_announcement(announcement);
  }
  Pending pending;
  pending.kind = Pending::Kind::whole;
  pending.sent_ns = now_ns_;
  pending.handler = &announcement;
  lane.connection->send({"PUBLISH", process_.bus->channel_of(lane.database), bytes},
                        std::move(pending));
  stats_.announcements.add();
}

Announcement& Router::new_announcement() {
  if (free_announcements_.empty()) free_announcements_.push_back(new Announcement(*this));
  Announcement& announcement = *free_announcements_.back();
  free_announcements_.pop_back();
  return announcement;
}

void Router::release_announcement(Announcement& announcement) {
  announcement.message.clear();
  if (announcement.message.capacity() <= kFreeAnnouncementBytes &&
      free_announcements_.size() < kFreeAnnouncementsMax)
    free_announcements_.push_back(&announcement);
  else delete &announcement;
}

void Router::delete_free_announcements() {
  for (Announcement* announcement : free_announcements_) delete announcement;
}

// Its link was cut: a server that hung may still run it. SWAPDB pushes nothing, and where nothing
// is pushed nobody would be told of any write: drop everything once that must be over.
void Router::write_was_lost(bool everything) {
  constexpr uint64_t kSettleNs = 200 * kNsPerMs;
  if (everything || announces_ || process_.blind_lanes.load() > 0)
    flush_again_ns_ = now_ns_ + kSettleNs;
}

}  // namespace nearcached
