// Firing is the transaction: WATCH, read the record again, and if it still is what we know, MULTI,
// move it on (or delete it), PUBLISH what is to be dropped, EXEC. Whoever comes second finds the
// record changed or its EXEC refused. A pattern that walks the upstream takes time, and a key of a
// cluster may be at another node: the record is moved on by a lease first, and by its real interval
// when the deletion is done, so that a proxy that dies on the way is followed by another.
//
// Rejected: a lock with a time-out (SET NX PX): either it expires under a slow proxy, which fires
// twice, or its holder dies after taking it, which fires never.
#include "bus/schedules.h"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <charconv>
#include <random>

#include "nearcached/base/clock.h"
#include "nearcached/base/log.h"

namespace nearcached {
namespace {

using coherence::BusMessage;
using coherence::Cause;
using coherence::Schedule;

constexpr uint64_t kReloadMs = 10'000;
constexpr uint64_t kHoldMs = 5'000;  // after a refused transaction
constexpr uint64_t kLeaseMs = 600'000;

std::string text_of(const redisReply& reply) {
  return reply.str == nullptr ? std::string() : std::string(reply.str, reply.len);
}

std::string new_id() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 12; ++i) id += "0123456789abcdef"[random() % 16];
  return id;
}

}  // namespace

Schedules::Schedules(Loop& loop, Mailbox& mailbox, const Config& config, Bus& bus, Walk walk)
    : mailbox_(mailbox), config_(config), bus_(bus), walk_(std::move(walk)), timer_(loop, [this] {
        on_timer();
      }) {}

uint64_t Schedules::server_now_ms() const {
  return static_cast<uint64_t>(static_cast<int64_t>(monotonic_ms()) + clock_offset_ms_);
}

void Schedules::reload() {
  bus_.publisher().command({"TIME"}, [this](redisReply& reply) {
    if (reply.type != REDIS_REPLY_ARRAY || reply.elements != 2) return;
    const std::string seconds = text_of(*reply.element[0]), micros = text_of(*reply.element[1]);
    int64_t s = 0, us = 0;
    std::from_chars(seconds.data(), seconds.data() + seconds.size(), s);
    std::from_chars(micros.data(), micros.data() + micros.size(), us);
    clock_offset_ms_ = s * 1000 + us / 1000 - static_cast<int64_t>(monotonic_ms());
    clock_known_ = true;
  });
  bus_.publisher().command({"HGETALL", kKey}, [this](redisReply& reply) {
    if (reply.type != REDIS_REPLY_ARRAY) return arm();
    texts_.clear();
    for (size_t i = 0; i + 1 < reply.elements && texts_.size() < config_.limits.schedules; i += 2)
      texts_[text_of(*reply.element[i])] = text_of(*reply.element[i + 1]);
    count_.store(texts_.size());
    arm();
  });
}

// Wakes at the next due time, or to look again: a message that said so may have been missed.
void Schedules::arm() {
  uint64_t wait_ms = walked_.empty() ? kReloadMs : 5;
  const uint64_t now = server_now_ms();
  for (const auto& [id, text] : texts_) {
    Schedule schedule;
    if (schedule.parse(text))
      wait_ms = std::min(wait_ms, schedule.due_ms > now ? schedule.due_ms - now : 0);
  }
  if (hold_until_ms_ > now) wait_ms = std::max(wait_ms, hold_until_ms_ - now);
  timer_.start(std::max<uint64_t>(wait_ms, 1), 0);
}

void Schedules::on_timer() {
  if (bus_.state() != Bus::State::up || !clock_known_) return;  // on_schedules comes when it is up
  if (firing_) return timer_.start(5, 0);
  if (!walked_.empty()) return end_walk();
  const uint64_t now = server_now_ms();
  for (const auto& [id, text] : texts_) {
    Schedule schedule;
    if (schedule.parse(text) && schedule.due_ms <= now) return try_fire(id);
  }
  reload();
}

void Schedules::try_fire(const std::string& id) {
  firing_ = true;
  RedisLink& link = bus_.publisher();
  link.command({"WATCH", kKey}, [](redisReply&) {});
  const bool asked = link.command({"HGET", kKey, id}, [this, id](redisReply& reply) {
    const auto known = texts_.find(id);
    const std::string text = text_of(reply);
    if (reply.type == REDIS_REPLY_STRING && known != texts_.end() && known->second == text)
      return fire(id, text);
    bus_.publisher().command({"UNWATCH"}, [](redisReply&) {});
    if (reply.type != REDIS_REPLY_ERROR) learn(id, text);  // another proxy was faster
    end_fire();
  });
  if (!asked) firing_ = false;
}

void Schedules::end_fire() {
  firing_ = false;
  arm();
}

/// What the record is now; empty: it is gone.
void Schedules::learn(const std::string& id, const std::string& text) {
  if (text.empty()) texts_.erase(id);
  else texts_[id] = text;
  count_.store(texts_.size());
}

/// Deleted by a worker, for it takes time or, in a cluster, is perhaps not at the bus's node.
bool Schedules::walked_through(const Schedule& schedule) const {
  return schedule.upstream && (schedule.kind == Schedule::Kind::pattern ||
                               config_.upstream.parsed.kind == UpstreamKind::cluster);
}

void Schedules::fire(const std::string& id, const std::string& text) {
  Schedule schedule;
  if (!schedule.parse(text)) return end_fire();
  const uint64_t now = server_now_ms();
  const bool pattern = schedule.kind == Schedule::Kind::pattern;
  const std::string message =
      bus_.unacknowledged(pattern ? BusMessage::Kind::pattern : BusMessage::Kind::invalidate,
                          Cause::scheduled, schedule.what);
  Schedule next = schedule;
  const bool walks = walked_through(schedule);
  if (walks) {
    next.base_ms = schedule.base_ms != 0 ? schedule.base_ms : schedule.due_ms;
    next.due_ms = now + kLeaseMs;
  } else {
    next.due_ms = schedule.next_ms(now);
  }
  const std::string next_text = next.due_ms == 0 ? std::string() : next.to_text();
  const Schedule* unlink = schedule.upstream && !walks ? &schedule : nullptr;
  replace(id, next_text, message, unlink, [this, id, next, next_text, walks](bool done) {
    if (!done) {
      firing_ = false;
      return reload();
    }
    fired_.fetch_add(1);
    learn(id, next_text);
    if (walks) start_walk(id, next);
    end_fire();
  });
}

// The rest of a transaction whose WATCH has been sent. `new_text` empty: the record goes.
void Schedules::replace(const std::string& id, const std::string& new_text,
                        const std::string& message, const Schedule* unlink,
                        std::function<void(bool)> then) {
  RedisLink& link = bus_.publisher();
  const auto ignore = [](redisReply&) {};
  link.command({"MULTI"}, ignore);
  if (new_text.empty()) link.command({"HDEL", kKey, id}, ignore);
  else link.command({"HSET", kKey, id, new_text}, ignore);
  const uint32_t home = config_.upstream.parsed.database;
  if (unlink != nullptr) {
    if (unlink->database != home)
      link.command({"SELECT", std::to_string(unlink->database)}, ignore);
    link.command({"UNLINK", unlink->what}, ignore);
    if (unlink->database != home) link.command({"SELECT", std::to_string(home)}, ignore);
  }
  if (!message.empty()) link.command({"PUBLISH", bus_.channel_of(home), message}, ignore);
  link.command({"EXEC"}, [this, id, then = std::move(then)](redisReply& reply) {
    if (reply.type == REDIS_REPLY_ERROR) {
      log::warn("schedule {}: {}", id, text_of(reply));
      hold_until_ms_ = server_now_ms() + kHoldMs;
    }
    then(reply.type == REDIS_REPLY_ARRAY);
  });
}

void Schedules::start_walk(const std::string& id, const Schedule& claimed) {
  walk_(claimed, [this, id, text = claimed.to_text()](bool ok) { walked(id, text, ok); });
}

// If it went wrong the record stays: its lease ends, and it is tried again.
void Schedules::walked(const std::string& id, const std::string& claimed_text, bool ok) {
  if (!ok) return;
  walked_.push_back({id, claimed_text});
  arm();
}

// Gives the record of a finished walk its next time; tried until it is done.
void Schedules::end_walk() {
  firing_ = true;
  RedisLink& link = bus_.publisher();
  const auto [id, claimed] = walked_.front();
  link.command({"WATCH", kKey}, [](redisReply&) {});
  const bool asked =
      link.command({"HGET", kKey, id}, [this, id = id, claimed = claimed](redisReply& reply) {
        Schedule schedule;
        const std::string text = text_of(reply);
        if (reply.type == REDIS_REPLY_ERROR) {
          hold_until_ms_ = server_now_ms() + kHoldMs;
          return end_fire();
        }
        if (text != claimed || !schedule.parse(text)) {
          bus_.publisher().command({"UNWATCH"}, [](redisReply&) {});
          walked_.pop_front();  // removed meanwhile, or another proxy took it on
          learn(id, text);
          return end_fire();
        }
        schedule.due_ms = schedule.next_ms(server_now_ms());
        schedule.base_ms = 0;
        const std::string next = schedule.due_ms == 0 ? std::string() : schedule.to_text();
        replace(id, next, {}, nullptr, [this, id, next](bool done) {
          if (done) walked_.pop_front();
          if (done) learn(id, next);
          end_fire();
        });
      });
  if (!asked) firing_ = false;
}

void Schedules::tell_others() {
  bus_.publisher().command({"PUBLISH", bus_.channel_of(config_.upstream.parsed.database),
                            bus_.unacknowledged(BusMessage::Kind::schedules, Cause::scheduled, {})},
                           [](redisReply&) {});
}

// Sends a command whose end somebody waits for: `then` gets the reply, or null if the bus was lost.
void Schedules::ask(std::initializer_list<Bytes> args, std::function<void(redisReply*)> then) {
  const uint64_t number = next_question_++;
  if (bus_.state() != Bus::State::up) return then(nullptr);
  open_[number] = then;
  const bool sent = bus_.publisher().command(args, [this, number, then](redisReply& reply) {
    open_.erase(number);
    then(&reply);
  });
  if (sent) return;
  open_.erase(number);
  then(nullptr);
}

void Schedules::on_bus_down() {
  firing_ = false;
  auto open = std::move(open_);
  open_.clear();
  for (const auto& [number, then] : open) then(nullptr);
}

std::string Schedules::error_of(const redisReply* reply) const {
  if (reply == nullptr) return "the bus is not up (" + bus_.down_reason() + ")";
  return reply->type == REDIS_REPLY_ERROR ? text_of(*reply) : std::string();
}

void Schedules::add(Schedule schedule, bool after,
                    std::function<void(const std::string&, const std::string&)> done) {
  mailbox_.post([this, schedule = std::move(schedule), after, done = std::move(done)]() mutable {
    if (!clock_known_) return done({}, error_of(nullptr));
    if (texts_.size() >= config_.limits.schedules) {
      refused_.fetch_add(1);
      return done({}, "there are limits.schedules already");
    }
    if (after) schedule.due_ms += server_now_ms();
    const std::string id = new_id();
    const std::string text = schedule.to_text();
    ask({"HSET", kKey, id, text}, [this, id, text, done](redisReply* reply) {
      if (const std::string error = error_of(reply); !error.empty()) return done({}, error);
      texts_[id] = text;
      count_.store(texts_.size());
      arm();
      tell_others();
      done(id, {});
    });
  });
}

void Schedules::list(std::function<void(const std::vector<Listed>&, const std::string&)> done) {
  mailbox_.post([this, done = std::move(done)] {
    ask({"HGETALL", kKey}, [this, done](redisReply* reply) {
      if (const std::string error = error_of(reply); !error.empty()) return done({}, error);
      std::vector<Listed> all;
      for (size_t i = 0; i + 1 < reply->elements; i += 2) {
        Listed listed{text_of(*reply->element[i]), {}};
        if (listed.schedule.parse(text_of(*reply->element[i + 1])))
          all.push_back(std::move(listed));
      }
      std::sort(all.begin(), all.end(), [](const Listed& a, const Listed& b) {
        return a.schedule.due_ms < b.schedule.due_ms;
      });
      done(all, {});
    });
  });
}

void Schedules::remove(std::string id, std::function<void(bool, const std::string&)> done) {
  mailbox_.post([this, id = std::move(id), done = std::move(done)] {
    ask({"HDEL", kKey, id}, [this, id, done](redisReply* reply) {
      if (const std::string error = error_of(reply); !error.empty()) return done(false, error);
      texts_.erase(id);
      count_.store(texts_.size());
      tell_others();
      done(reply->integer == 1, {});
    });
  });
}

}  // namespace nearcached
