// Conversation: asks one server a few things, and is over. Connecting, authenticating and all
// answers together take upstream.connect_timeout at most.
//
// A connection is made for each conversation: they are rare (upstream.topology_refresh_min), and a
// connection that is kept would have to be watched, to know a server that has hung from one that
// has nothing to say.
// Thread: its loop's.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "loop/redis_link.h"
#include "nearcached/base/result.h"

namespace nearcached {

struct Credentials {
  std::string user;      ///< empty: the default user
  std::string password;  ///< empty: no AUTH
};
/// Sends AUTH if there is a password; a refusal loses the link.
void authenticate(RedisLink& link, const Credentials& credentials);

class Conversation final : private RedisLink::Handler {
 public:
  struct Question {
    std::vector<std::string> words;
    RedisLink::Callback answered;  ///< also with an error
  };
  /// Called once, when all questions have been answered or that will not happen any more. May
  /// start the next conversation.
  using Done = std::function<void(const Result<void>& result)>;

  Conversation(Loop& loop, uint64_t timeout_ms);
  /// Gives up what is under way, without a call. `attempt`: see RedisLink::connect.
  void start(const Address& address, unsigned attempt, Credentials credentials,
             std::vector<Question> questions, Done done);
  void close();

 private:
  void on_up(RedisLink& link) override;
  void on_down(RedisLink& link, Bytes reason) override;
  void on_message(RedisLink&, redisReply&) override {}
  void finish(const Result<void>& result);

  const uint64_t timeout_ms_;
  RedisLink link_;
  Timer deadline_;
  Credentials credentials_;
  std::vector<Question> questions_;
  size_t unanswered_ = 0;
  Done done_;  ///< empty: nothing is under way
};

}  // namespace nearcached
