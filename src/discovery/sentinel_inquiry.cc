// A sentinel's word is not enough: one that was cut off, or a failover that has just begun, names a
// node that is no primary. So the node is asked for its ROLE before anything is sent to it, both
// when we asked and when +switch-master told us. What is not confirmed is asked for again, and what
// was known stays until then.
//
// The subscription makes the news fast, the questions make them sure: a subscriber cannot tell a
// silent sentinel from one that has hung. A question that finds what the subscription has not said
// therefore moves it to another sentinel.
#include "discovery/sentinel_inquiry.h"

#include <hiredis/hiredis.h>

#include "discovery/answers.h"
#include "nearcached/base/clock.h"
#include "nearcached/base/log.h"

namespace nearcached {
namespace {

constexpr Bytes kSwitchChannel = "+switch-master";

}  // namespace

SentinelInquiry::SentinelInquiry(Loop& loop, const Config& config, Owner& owner)
    : config_(config),
      owner_(owner),
      credentials_{config.upstream.sentinel_user, config.upstream.sentinel_password},
      conversation_(loop, config.upstream.connect_timeout_ms),
      listener_(loop, *this),
      listen_timer_(loop, [this] { on_listen_timer(); }),
      listen_backoff_(config.upstream.reconnect_min_ms, config.upstream.reconnect_max_ms) {}

void SentinelInquiry::close() {
  conversation_.close();
  listener_.close();
  listen_timer_.close();
}

// ---- Questions

void SentinelInquiry::ask() {
  if (asking_) return;
  if (round_++ == 0) listen();
  asking_ = true;
  asked_ = 0;
  refuted_.reset();
  reason_.clear();
  ask_next();
}

void SentinelInquiry::ask_next() {
  if (asked_ == seeds().size()) {
    asking_ = false;
    return owner_.on_nothing(reason_);
  }
  if (asked_++ > 0) ++current_;  // whoever was useful is asked first the next time
  const std::string& service = config_.upstream.parsed.service;
  named_ = Error{"no answer"};
  conversation_.start(sentinel(current_), round_, credentials_,
                      {{{"SENTINEL", "get-master-addr-by-name", service},
                        [this](redisReply& reply) {
                          named_ = parse_primary_address(reply, config_.upstream.parsed.service);
                        }}},
                      [this](const Result<void>& result) {
                        const std::string who = sentinel(current_).to_string() + ": ";
                        if (!result) return on_failure(who + result.error().detail);
                        if (!named_) return on_failure(who + named_.error().detail);
                        if (refuted_ == named_.value()) return ask_next();
                        verify(named_.value(), false);
                      });
}

void SentinelInquiry::on_failure(const std::string& reason) {
  reason_ += (reason_.empty() ? "" : "; ") + reason;
  ask_next();
}

void SentinelInquiry::verify(const Address& address, bool announced) {
  const UpstreamUrl& url = config_.upstream.parsed;
  role_ = Error{"no answer"};
  conversation_.start(
      address, round_, {url.user, url.password},
      {{{"ROLE"}, [this](redisReply& reply) { role_ = parse_primary_role(reply); }}},
      [this, address, announced](const Result<void>& result) {
        const Result<void>& checked = result ? role_ : result;
        if (checked) return on_confirmed(address, announced);
        refuted_ = address;
        on_failure(address.to_string() + ", named as the primary: " + checked.error().detail);
      });
}

void SentinelInquiry::on_confirmed(const Address& address, bool announced) {
  asking_ = false;
  const bool missed = primary_ && *primary_ != address && !announced;
  primary_ = address;
  if (missed && subscribed_) listener_.lose("it did not tell of a failover");
  owner_.on_primary(address);
}

// ---- The subscription

void SentinelInquiry::listen() {
  listener_.connect(sentinel(listens_to_), round_);
  listen_timer_.start(config_.upstream.connect_timeout_ms, 0);
}

void SentinelInquiry::on_listen_timer() {
  if (listener_.idle()) listen();
  else if (!subscribed_) listener_.lose("subscribing timed out");
}

void SentinelInquiry::on_up(RedisLink& link) {
  authenticate(link, credentials_);
  link.subscribe({"SUBSCRIBE", kSwitchChannel});
}

void SentinelInquiry::on_down(RedisLink&, Bytes reason) {
  log::debug("sentinel {}: subscription lost: {}", sentinel(listens_to_).to_string(), reason);
  // One that drops us as soon as we are subscribed must not be asked without a pause.
  const uint64_t lasted_ms = subscribed_ ? monotonic_ms() - subscribed_ms_ : 0;
  if (lasted_ms > config_.upstream.reconnect_max_ms) listen_backoff_.reset();
  subscribed_ = false;
  ++listens_to_;
  listen_timer_.start(listen_backoff_.next_ms(), 0);
}

void SentinelInquiry::on_message(RedisLink&, redisReply& reply) {
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements != 3) return;
  const Bytes kind = text_of(*reply.element[0]);
  if (kind == "subscribe") {
    subscribed_ = true;
    subscribed_ms_ = monotonic_ms();
    return ask();  // for what was said before
  }
  const std::optional<Address> primary =
      parse_switch_master(text_of(*reply.element[2]), config_.upstream.parsed.service);
  if (kind != "message" || !primary) return;
  log::info("sentinel {} says that {} is the primary now", sentinel(listens_to_).to_string(),
            primary->to_string());
  // Whatever is being asked now is older than this.
  asking_ = true;
  asked_ = 0;
  refuted_.reset();
  reason_.clear();
  verify(*primary, true);
}

}  // namespace nearcached
