// SentinelInquiry: asks the sentinels, one at a time, who the primary of the service is, and the
// primary whether it agrees; and listens to one sentinel for +switch-master in between.
#pragma once
#include <optional>
#include <string>

#include "discovery/backoff.h"
#include "discovery/conversation.h"
#include "discovery/inquiry.h"
#include "nearcached/config/config.h"

namespace nearcached {

class SentinelInquiry final : public Inquiry, private RedisLink::Handler {
 public:
  SentinelInquiry(Loop& loop, const Config& config, Owner& owner);
  void ask() override;
  void prefer(const Address&) override {}
  void close() override;

 private:
  void on_up(RedisLink& link) override;
  void on_down(RedisLink& link, Bytes reason) override;
  void on_message(RedisLink& link, redisReply& reply) override;

  const Address& sentinel(size_t index) const { return seeds()[index % seeds().size()]; }
  const std::vector<Address>& seeds() const { return config_.upstream.parsed.seeds; }
  void ask_next();
  /// `announced`: by +switch-master.
  void verify(const Address& address, bool announced);
  void on_confirmed(const Address& address, bool announced);
  void on_failure(const std::string& reason);
  void listen();
  void on_listen_timer();

  const Config& config_;
  Owner& owner_;
  const Credentials credentials_;  ///< at the sentinels
  Conversation conversation_;
  size_t current_ = 0;  ///< the sentinel that is asked first
  unsigned round_ = 0;
  std::optional<Address> primary_;  ///< the one confirmed last

  // The round under way.
  bool asking_ = false;
  size_t asked_ = 0;                ///< sentinels
  std::optional<Address> refuted_;  ///< named as primary, but it is not, or does not answer
  std::string reason_;              ///< of all that failed
  Result<Address> named_ = Error{"no answer"};
  Result<void> role_;

  RedisLink listener_;
  Timer listen_timer_;  ///< its deadline while connecting, the pause when it is down
  Backoff listen_backoff_;
  size_t listens_to_ = 0;
  bool subscribed_ = false;
  uint64_t subscribed_ms_ = 0;
};

}  // namespace nearcached
