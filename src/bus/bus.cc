// Up means: subscribed, and a proof published after that has come back. Anything that may have been
// missed before that moment, or was on its way when it ended, is answered by dropping everything,
// so nothing here needs to remember what was said; only that there was no gap.
//
// Rejected: one channel per proxy with a list of proxies kept in Redis. PUBLISH to a pattern tells
// how many it reached, which is all that is needed to know when the last one has acknowledged.
#include "bus/bus.h"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <charconv>
#include <random>

#include "nearcached/base/clock.h"
#include "nearcached/base/log.h"
#include "nearcached/coherence/mutations.h"

namespace nearcached {
namespace {

using coherence::BusMessage;
using coherence::Cause;
using Kind = BusMessage::Kind;

constexpr Bytes kRedirectChannel = "__redis__:invalidate";
constexpr Bytes kKeyspaceHead = "__keyspace@";
constexpr Bytes kKeyspacePattern = "__keyspace@*__:*";
constexpr uint64_t kIdleProofNs = 1'000 * kNsPerMs;
constexpr size_t kProofsMax = 64;
constexpr size_t kProbesMax = 1024;

uint64_t random_id() {
  std::random_device random;
  return (static_cast<uint64_t>(random()) << 32 | random()) | 1;
}

std::string hex(uint64_t value) {
  char text[17] = "0000000000000000";
  for (size_t i = 16; i-- > 0; value >>= 4) text[i] = "0123456789abcdef"[value & 15];
  return {text, 16};
}

Bytes text_of(const redisReply& reply) {
  return reply.str == nullptr ? Bytes() : Bytes(reply.str, reply.len);
}

// Tracking redirected from RESP3 to our RESP2 tells of FLUSHALL and FLUSHDB by a RESP3 null
// (redis_facts_test.cc), which hiredis 0.14 takes for a broken stream.
bool is_flush(Bytes reason) { return reason.starts_with("Protocol error, got \"_\""); }

// Why a PUBLISH was refused, without the server's echo of our binary message.
std::string without_echo(Bytes reason) {
  return std::string(reason.substr(0, reason.find(", with args beginning with")));
}

bool is_refusal(Bytes reason) {
  return reason.starts_with("NOPERM") || reason.starts_with("NOAUTH") ||
         reason.starts_with("WRONGPASS") || reason.starts_with("ERR unknown command") ||
         reason.starts_with("ERR invalid password") || reason.starts_with("ERR AUTH") ||
         reason.starts_with("ERR Client sent AUTH");
}

// Key events of every class: without one of them some writes would go unseen.
bool all_keyspace_events(Bytes flags) {
  if (flags.find('K') == Bytes::npos) return false;
  if (flags.find('A') != Bytes::npos) return true;
  return std::all_of(std::begin("g$lshzxetd"), std::end("g$lshzxetd") - 1,
                     [&](char c) { return flags.find(c) != Bytes::npos; });
}

}  // namespace

std::string probe_prefix(uint64_t proxy_id) {
  return std::string(kReservedPrefix) + "probe:" + std::to_string(proxy_id) + ":";
}

uint64_t AnnouncementLog::begin(uint64_t now_ns) {
  std::lock_guard lock(mutex_);
  under_way_.push_back({now_ns, false});
  return ++last_;
}

void AnnouncementLog::end(uint64_t sequence) {
  std::lock_guard lock(mutex_);
  const uint64_t first = last_ - under_way_.size() + 1;
  if (sequence < first || sequence > last_) return;
  under_way_[sequence - first].ended = true;
  while (!under_way_.empty() && under_way_.front().ended) under_way_.pop_front();
}

uint64_t AnnouncementLog::executed() const {
  std::lock_guard lock(mutex_);
  return last_ - under_way_.size();
}

uint64_t AnnouncementLog::oldest_ns() const {
  std::lock_guard lock(mutex_);
  return under_way_.empty() ? UINT64_MAX / 2 : under_way_[0].began_ns;
}

Bus::Bus(Loop& loop, Mailbox& mailbox, const Config& config, Owner& owner)
    : mailbox_(mailbox),
      config_(config),
      owner_(owner),
      subscriber_(loop, *this),
      publisher_(loop, *this),
      timer_(loop, [this] { tick(); }),
      address_(config.upstream.parsed.kind == UpstreamKind::single ? config.upstream.parsed.address
                                                                   : Address{"", 0, {}}),
      proxy_id_(random_id()),
      channel_(config.coherence.channel),
      // Found out, and everything dropped, within max_staleness of what was heard last.
      peers_(config.limits.bus_peers, config.coherence.max_staleness_ms * kNsPerMs * 3 / 4) {}

void Bus::start() {
  const uint64_t period_ms = std::clamp<uint64_t>(config_.coherence.heartbeat_ms / 2, 2, 50);
  timer_.start(0, period_ms);
}

void Bus::set_address(const Address& address) {
  if (address == address_) return;
  address_ = address;
  retry_ns_ = {};
  for (RedisLink* link : {&subscriber_, &publisher_}) link->lose("the bus is at another node");
  tick();
}

void Bus::close() {
  timer_.close();
  subscriber_.close();
  publisher_.close();
}

std::string Bus::down_reason() const {
  std::lock_guard lock(reason_mutex_);
  return down_reason_;
}

std::string Bus::direct_channel(uint64_t proxy) const { return channel_ + ".to." + hex(proxy); }

// ---- Links

void Bus::on_up(RedisLink& link) {
  const UpstreamUrl& url = config_.upstream.parsed;
  const auto authenticated = [this, &link](redisReply& reply) {
    if (reply.type != REDIS_REPLY_ERROR) return;
    refuse(text_of(reply));
    link.lose(text_of(reply));
  };
  if (!url.user.empty()) link.command({"AUTH", url.user, url.password}, authenticated);
  else if (!url.password.empty()) link.command({"AUTH", url.password}, authenticated);
  link.command({"CLIENT", "SETNAME", "nearcached-bus"}, [](redisReply&) {});
  if (&link == &publisher_) {
    // The schedules are kept in the database of upstream.url.
    if (url.database != 0) link.command({"SELECT", std::to_string(url.database)}, authenticated);
    if (subscribed_) send_proof();
    return;
  }
  link.command({"CLIENT", "ID"}, [this](redisReply& reply) {
    id_ = reply.type == REDIS_REPLY_INTEGER ? static_cast<uint64_t>(reply.integer) : 0;
    subscribe();
  });
}

// The bus's own channels first; of the others, what was refused before is left out: one channel
// that this user may not read must not cost the bus.
void Bus::subscribe() {
  awaited_.clear();
  listen_to("PSUBSCRIBE", channel_ + ":*");
  listen_to("SUBSCRIBE", direct_channel(proxy_id_));
  listen_to("SUBSCRIBE", std::string(kRedirectChannel));
  for (const EventSubscription& event : config_.subscriptions)
    listen_to("SUBSCRIBE", event.channel);
  keyspace_asked_ = want_keyspace_.load();
  if (keyspace_asked_) listen_to("PSUBSCRIBE", std::string(kKeyspacePattern));
}

void Bus::listen_to(Bytes command, const std::string& channel) {
  if (refused_channels_.contains(channel)) return;
  awaited_.push_back(channel);
  subscriber_.subscribe({command, channel});
}

// The server refuses a subscription by an error in its turn, for which hiredis gives up the link.
bool Bus::is_refused_channel(Bytes reason) {
  if (awaited_.empty() || !is_refusal(reason)) return false;
  const std::string channel = awaited_.front();
  if (channel == channel_ + ":*" || channel == direct_channel(proxy_id_)) return false;
  refused_channels_.insert(channel);
  log::warn("bus: may not subscribe to '{}': {}", channel, reason.substr(0, 200));
  return true;
}

void Bus::on_down(RedisLink& link, Bytes reason) {
  const size_t at = &link == &subscriber_ ? 0 : 1;
  const uint64_t max_ms = config_.upstream.reconnect_max_ms;
  backoff_ms_[at] = std::clamp(backoff_ms_[at] * 2, config_.upstream.reconnect_min_ms, max_ms);
  const bool optional = at == 0 && is_refused_channel(reason);
  if (is_refusal(reason) && !optional) backoff_ms_[at] = max_ms;
  retry_ns_[at] = monotonic_ns() + backoff_ms_[at] * kNsPerMs;
  if (at == 0 && subscribed_ && is_flush(reason)) {
    retry_ns_[at] = 0;
    mailbox_.post([this] { tick(); });
  } else {
    ++attempt_;
  }
  if (at == 0) subscribed_ = false;
  if (at == 1) {
    for (const uint64_t sequence : relayed_) announcements_.end(sequence);
    relayed_.clear();
  }
  proofs_.clear();
  if (is_refusal(reason) && !optional) refuse(reason);
  else leave_up(State::down, reason);
}

void Bus::refuse(Bytes reason) {
  const std::string why = without_echo(reason);
  if (state_.load() != State::refused)
    log::warn("the bus is not possible here: {}", Bytes(why).substr(0, 200));
  leave_up(State::refused, why);
  while (!requests_.empty()) finish(requests_.begin()->first, "the bus is refused (" + why + ")");
}

// Whatever was on its way is lost: everything held is dropped. Explicit invalidations are said
// again when the bus is up, if that is in their time: saying one twice does no harm.
void Bus::leave_up(State state, Bytes reason) {
  {
    std::lock_guard lock(reason_mutex_);
    down_reason_.assign(reason);
  }
  const State before = state_.exchange(state);
  proof_ns_.store(0);
  subscriber_id_.store(0);
  keyspace_.store(false);
  peers_.clear();
  peers_known_.store(0);
  probes_seen_.clear();
  proof_wanted_ = false;
  if (before == State::up) {
    log::warn("bus: {}; everything held is dropped", reason.substr(0, 200));
    owner_.on_everything(Cause::epoch, reason);
  }
  if (before != state) owner_.on_state();
  auto confirmations = std::move(confirmations_);
  confirmations_.clear();
  for (Confirmation& each : confirmations) each.done(false);
  if (before == State::up) owner_.on_proof();
}

void Bus::tick() {
  const uint64_t now = monotonic_ns();
  RedisLink* const links[] = {&subscriber_, &publisher_};
  for (size_t at = 0; at < 2; ++at) {
    RedisLink& link = *links[at];
    const bool known = !address_.host.empty() || !address_.unix_path.empty();
    if (link.idle() && known && now >= retry_ns_[at]) {
      started_ns_[at] = now;
      link.connect(address_, attempt_);
    } else if (!link.idle() && !link.up() &&
               now > started_ns_[at] + config_.upstream.connect_timeout_ms * kNsPerMs) {
      link.lose("connecting timed out");
    }
  }
  if (subscriber_.up() && !subscribed_ &&
      now > started_ns_[0] + config_.upstream.connect_timeout_ms * kNsPerMs)
    subscriber_.lose("subscribing timed out");
  if (!proofs_.empty() && now > proofs_.front().sent_ns + config_.upstream.timeout_ms * kNsPerMs) {
    subscriber_.lose("the bus is silent for upstream.timeout");
    publisher_.lose("the bus is silent for upstream.timeout");
  }
  if (subscribed_ && publisher_.up() && now >= proof_due_ns_) send_proof();
  // Even while nothing can be heard: what is written here must not go unnoticed.
  if (announcing_.load() && publisher_.up() && state_.load() != State::refused &&
      now >= heartbeat_due_ns_)
    send_heartbeat();
  if (state_.load() == State::up) {
    if (want_keyspace_.load() && now >= keyspace_due_ns_) check_keyspace();
    if (peers_.expire(now)) missed("another proxy fell silent");
    peers_known_.store(peers_.size());
  }
  while (!requests_.empty()) {
    const auto late = std::find_if(requests_.begin(), requests_.end(), [now](const auto& entry) {
      return entry.second.deadline_ns <= now;
    });
    if (late == requests_.end()) break;
    const bool lost = state_.load() != State::up && late->second.acknowledged == 0;
    finish(late->first, lost ? "the bus is down (" + down_reason() + ")" : "");
  }
}

// ---- Proofs

void Bus::set_announcing() {
  if (!announcing_.exchange(true)) request_proof();
}

void Bus::set_needed() {
  if (!needed_.exchange(true)) request_proof();  // the next one may be due much later
}

void Bus::request_proof() {
  mailbox_.post([this] {
    if (proof_wanted_ || state_.load() != State::up) return;
    proof_wanted_ = true;  // several workers in one turn: one proof
    mailbox_.post([this] {
      if (std::exchange(proof_wanted_, false)) send_proof();
    });
  });
}

void Bus::send_proof() {
  const bool often = needed_.load() || announcing_.load();
  const uint64_t now = monotonic_ns();
  proof_due_ns_ = now + (often ? config_.coherence.heartbeat_ms * kNsPerMs : kIdleProofNs);
  if (!publisher_.up() || !subscribed_ || proofs_.size() >= kProofsMax) return;
  BusMessage proof;
  proof.kind = Kind::proof;
  proof.number = next_number_++;
  proofs_.push_back({proof.number, now});
  publish(direct_channel(proxy_id_), proof, [this](redisReply& reply) {
    if (reply.type != REDIS_REPLY_ERROR) return;
    if (is_refusal(text_of(reply))) refuse(text_of(reply));
    publisher_.lose(text_of(reply));
  });
}

void Bus::confirm(std::string probe, std::function<void(bool)> done) {
  mailbox_.post([this, probe = std::move(probe), done = std::move(done)] {
    if (state_.load() != State::up) return done(false);
    confirmations_.push_back({next_number_, probe, done});
    send_proof();
  });
}

void Bus::announce(std::string message, uint32_t database, uint64_t sequence) {
  mailbox_.post([this, message = std::move(message), database, sequence] {
    const auto answered = [this, sequence](redisReply& reply) {
      relayed_.erase(sequence);
      announcements_.end(sequence);
      if (reply.type == REDIS_REPLY_ERROR) refuse(text_of(reply));
    };
    const bool sent = !is_queue_full() &&
                      publisher_.command({"PUBLISH", channel_of(database), message}, answered);
    if (sent) relayed_.insert(sequence);
    else announcements_.end(sequence);  // the others will see a gap
  });
}

void Bus::tell_flush() {
  mailbox_.post([this] {
    flush_owed_ = true;
    pay_flush();
  });
}

// The others hear of it when the bus is up again, if it is down now.
void Bus::pay_flush() {
  if (!flush_owed_ || state_.load() != State::up) return;
  BusMessage flush;
  flush.kind = Kind::flush;
  publish(channel_of(config_.upstream.parsed.database), flush,
          [this](redisReply&) { flush_owed_ = false; });
}

void Bus::want_keyspace() {
  if (want_keyspace_.exchange(true)) return;
  mailbox_.post([this] {
    if (!keyspace_asked_ && subscribed_) {
      keyspace_asked_ = true;
      listen_to("PSUBSCRIBE", std::string(kKeyspacePattern));
    }
    keyspace_due_ns_ = 0;
  });
}

void Bus::check_keyspace() {
  keyspace_due_ns_ = monotonic_ns() + kIdleProofNs;
  publisher_.command({"CONFIG", "GET", "notify-keyspace-events"}, [this](redisReply& reply) {
    const bool listening = keyspace_asked_ && awaited_.empty() &&
                           !refused_channels_.contains(std::string(kKeyspacePattern));
    const bool on = listening && reply.type == REDIS_REPLY_ARRAY && reply.elements == 2 &&
                    all_keyspace_events(text_of(*reply.element[1]));
    if (state_.load() != State::up || on == keyspace_.load()) return;
    // Events missed before they were on, or since they were off.
    keyspace_.store(on);
    owner_.on_everything(Cause::epoch, on ? "keyspace events are on" : "keyspace events are off");
    owner_.on_state();
  });
}

// ---- Sending

void Bus::publish(const std::string& channel, const BusMessage& message,
                  RedisLink::Callback callback) {
  BusMessage ours = message;
  ours.proxy = proxy_id_;
  std::string bytes;
  encode(ours, bytes);
  if (is_queue_full()) return;
  publisher_.command({"PUBLISH", channel, bytes}, std::move(callback));
}

// Redis does not answer: whatever is said now would only pile up.
bool Bus::is_queue_full() {
  if (publisher_.pending() < config_.limits.bus_queue) return false;
  queue_full_.fetch_add(1);
  return true;
}

void Bus::send_heartbeat() {
  heartbeat_due_ns_ = monotonic_ns() + config_.coherence.heartbeat_ms * kNsPerMs;
  BusMessage heartbeat;
  heartbeat.kind = Kind::heartbeat;
  heartbeat.number = announcements_.executed();
  // Executed or not, its PUBLISH is not through, perhaps behind a big value on its connection: the
  // others cannot wait for it any longer (max_staleness).
  const uint64_t patience_ns = config_.coherence.max_staleness_ms * kNsPerMs / 2;
  if (announcements_.oldest_ns() + patience_ns < monotonic_ns()) heartbeat.cause = Cause::epoch;
  publish(channel_of(config_.upstream.parsed.database), heartbeat, [](redisReply&) {});
}

std::string Bus::unacknowledged(Kind kind, Cause cause, Bytes item) {
  BusMessage message;
  message.kind = kind;
  message.cause = cause;
  message.proxy = 0;  // everybody applies it, this process too
  message.items = {item};
  std::string bytes;
  encode(message, bytes);
  return bytes;
}

void Bus::request(Kind kind, Cause cause, std::vector<std::string> items, uint32_t database,
                  std::function<void(const Outcome&)> done) {
  mailbox_.post([this, kind, cause, items = std::move(items), database, done = std::move(done)] {
    BusMessage message;
    message.kind = kind;
    message.cause = cause;
    message.items.assign(items.begin(), items.end());
    apply(message);
    if (state_.load() == State::refused)
      return done({0, 0, "the bus is refused (" + down_reason() + ")"});
    if (requests_.size() >= config_.limits.bus_requests) {
      requests_refused_.fetch_add(1);
      return done({0, 0, "too many at once (limits.bus_requests)"});
    }
    const uint64_t number = next_number_++;
    Request& request = requests_[number];
    request.deadline_ns = monotonic_ns() + config_.coherence.ack_timeout_ms * kNsPerMs;
    request.kind = kind;
    request.cause = cause;
    request.items = items;
    request.database = database;
    request.done = done;
    if (state_.load() == State::up) send_request(number, request);  // else it goes when it is up
  });
}

// Under new numbers: an acknowledgement that was on its way counts for the old one.
void Bus::say_again() {
  auto requests = std::exchange(requests_, {});
  for (auto& [old, request] : requests) {
    const uint64_t number = next_number_++;
    send_request(number, requests_[number] = std::move(request));
  }
}

void Bus::send_request(uint64_t number, Request& request) {
  BusMessage message;
  message.kind = request.kind;
  message.cause = request.cause;
  message.number = number;
  message.items.assign(request.items.begin(), request.items.end());
  request.receivers = request.acknowledged = 0;
  publish(channel_of(request.database), message, [this, number](redisReply& reply) {
    const auto at = requests_.find(number);
    if (at == requests_.end()) return;
    if (reply.type != REDIS_REPLY_INTEGER) return finish(number, without_echo(text_of(reply)));
    at->second.receivers = static_cast<uint64_t>(reply.integer);
    if (at->second.acknowledged >= at->second.receivers) finish(number, {});
  });
}

void Bus::finish(uint64_t number, Bytes error) {
  const auto at = requests_.find(number);
  const Request request = std::move(at->second);
  requests_.erase(at);
  request.done({request.receivers, request.acknowledged, std::string(error)});
}

// ---- Receiving

void Bus::on_message(RedisLink&, redisReply& reply) {
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements < 3) return;
  const Bytes kind = text_of(*reply.element[0]);
  if (kind == "message") {
    const Bytes channel = text_of(*reply.element[1]);
    if (channel == kRedirectChannel) return from_server(*reply.element[2]);
    return dispatch(channel, text_of(*reply.element[2]));
  }
  if (kind == "pmessage" && reply.elements == 4)
    return dispatch(text_of(*reply.element[2]), text_of(*reply.element[3]));
  if ((kind != "subscribe" && kind != "psubscribe") || awaited_.empty()) return;
  awaited_.pop_front();
  if (!awaited_.empty() || subscribed_) return;
  subscribed_ = true;
  send_proof();
}

void Bus::dispatch(Bytes channel, Bytes payload) {
  if (channel == direct_channel(proxy_id_)) return to_me(payload);
  if (channel.starts_with(channel_) && channel.substr(channel_.size()).starts_with(":"))
    return to_all(payload);
  if (channel.starts_with(kKeyspaceHead)) {
    const size_t at = channel.find("__:", kKeyspaceHead.size());
    if (at != Bytes::npos && !mutation::no_push)
      owner_.on_invalidate(channel.substr(at + 3), Cause::push);
    return;
  }
  for (const EventSubscription& event : config_.subscriptions) {
    if (channel != event.channel) continue;
    if (event.payload == EventPayload::pattern) owner_.on_pattern(payload, Cause::event);
    else owner_.on_invalidate(payload, Cause::event);
  }
}

// Tracking's invalidations: an array of keys, or null for everything.
void Bus::from_server(redisReply& payload) {
  if (mutation::no_push) return;
  if (payload.type != REDIS_REPLY_ARRAY)
    return owner_.on_everything(Cause::epoch, "FLUSHALL or FLUSHDB");
  for (size_t i = 0; i < payload.elements; ++i) {
    const Bytes key = text_of(*payload.element[i]);
    if (key.starts_with(probe_prefix(proxy_id_)) && probes_seen_.size() < kProbesMax)
      probes_seen_.emplace(key);
    owner_.on_invalidate(key, Cause::push);
  }
}

void Bus::to_me(Bytes payload) {
  BusMessage message;
  if (!decode(payload, message)) {
    bad_messages_.fetch_add(1);
    return;
  }
  if (message.kind == Kind::acknowledge) return acknowledged(message.number);
  if (message.kind != Kind::proof || message.proxy != proxy_id_) return;
  const auto at = std::find_if(proofs_.begin(), proofs_.end(),
                               [&](const Proof& proof) { return proof.number == message.number; });
  if (at == proofs_.end()) return;
  const uint64_t sent_ns = at->sent_ns;
  proofs_.erase(proofs_.begin(), at + 1);
  backoff_ms_ = {};
  proof_ns_.store(sent_ns);
  last_proof_ns_.store(sent_ns);
  if (state_.load() != State::up) {
    const bool may_redirect = !refused_channels_.contains(std::string(kRedirectChannel));
    subscriber_id_.store(may_redirect ? id_ : 0);
    state_.store(State::up);
    log::info("bus: up on channel {}", channel_of(config_.upstream.parsed.database));
    // What the others said before is unknown.
    owner_.on_everything(Cause::epoch, "the bus is connected");
    owner_.on_state();
    owner_.on_schedules();
    pay_flush();
    say_again();
    keyspace_due_ns_ = heartbeat_due_ns_ = 0;
  }
  std::vector<Confirmation> ready;
  std::erase_if(confirmations_, [&](Confirmation& each) {
    if (each.proof > message.number) return false;
    ready.push_back(std::move(each));
    return true;
  });
  for (Confirmation& each : ready) each.done(probes_seen_.erase(each.probe) > 0);
  owner_.on_proof();
}

void Bus::acknowledged(uint64_t number) {
  const auto at = requests_.find(number);
  if (at == requests_.end()) return;
  Request& request = at->second;
  ++request.acknowledged;
  if (request.receivers > 0 && request.acknowledged >= request.receivers) finish(number, {});
}

void Bus::to_all(Bytes payload) {
  BusMessage message;
  if (!decode(payload, message)) {
    bad_messages_.fetch_add(1);
    static log::EverySecond limiter;
    limiter.message(LogLevel::warn, "bus: {} bytes that are no message of ours are ignored",
                    payload.size());
    return;
  }
  const uint64_t now = monotonic_ns();
  const bool own = message.proxy == proxy_id_;
  switch (message.kind) {
    case Kind::wrote:
    case Kind::wrote_everything:
      if (own) return;  // its own stamps have said so already
      if (mutation::no_push) return;
      // Who is told by the server need not know whether a peer's message was lost.
      if (!announcing_.load()) return;
      if (peers_.on_message(message.proxy, message.number, now)) missed("a proxy is new");
      peers_refused_.store(peers_.refused());
      return apply(message);
    case Kind::heartbeat:
      if (own || !announcing_.load()) return;
      if (peers_.on_heartbeat(message.proxy, message.number, now))
        missed("a proxy is new or a message of its was lost");
      else if (message.cause == Cause::epoch && !mutation::no_gap)
        missed("a message of another proxy is overdue");
      peers_refused_.store(peers_.refused());
      return;
    case Kind::invalidate:
    case Kind::pattern:
    case Kind::flush:
      if (own) return acknowledged(message.number);  // applied when it was sent
      apply(message);
      if (message.number != 0) {
        BusMessage done;
        done.kind = Kind::acknowledge;
        done.number = message.number;
        publish(direct_channel(message.proxy), done, [](redisReply&) {});
      }
      return;
    case Kind::schedules: return owner_.on_schedules();
    case Kind::acknowledge:
    case Kind::proof: return;
  }
}

void Bus::apply(const BusMessage& message) {
  switch (message.kind) {
    case Kind::pattern:
      for (const Bytes glob : message.items) owner_.on_pattern(glob, message.cause);
      return;
    case Kind::flush:
    case Kind::wrote_everything:
      return owner_.on_everything(message.cause, "another proxy says so");
    default:
      for (const Bytes key : message.items) owner_.on_invalidate(key, message.cause);
  }
}

void Bus::missed(Bytes reason) {
  gaps_.fetch_add(1);
  owner_.on_everything(Cause::epoch, reason);
}

}  // namespace nearcached
