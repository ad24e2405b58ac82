// `done_` is the state: whatever ends a conversation takes it, so it is called once, and a timer
// or a link that comes too late finds nobody.
#include "discovery/conversation.h"

#include <hiredis/hiredis.h>

#include <utility>

#include "discovery/answers.h"

namespace nearcached {

void authenticate(RedisLink& link, const Credentials& credentials) {
  if (credentials.password.empty()) return;
  const auto answered = [&link](redisReply& reply) {
    if (reply.type == REDIS_REPLY_ERROR) link.lose(text_of(reply));
  };
  if (credentials.user.empty()) link.command({"AUTH", credentials.password}, answered);
  else link.command({"AUTH", credentials.user, credentials.password}, answered);
}

Conversation::Conversation(Loop& loop, uint64_t timeout_ms)
    : timeout_ms_(timeout_ms), link_(loop, *this), deadline_(loop, [this] {
        finish(Error{"no answer within " + std::to_string(timeout_ms_) + " ms"});
      }) {}

void Conversation::start(const Address& address, unsigned attempt, Credentials credentials,
                         std::vector<Question> questions, Done done) {
  link_.close();
  credentials_ = std::move(credentials);
  questions_ = std::move(questions);
  unanswered_ = questions_.size();
  done_ = std::move(done);
  deadline_.start(timeout_ms_, 0);
  link_.connect(address, attempt);
}

void Conversation::close() {
  done_ = nullptr;
  link_.close();
  deadline_.close();
}

void Conversation::on_up(RedisLink& link) {
  authenticate(link, credentials_);
  for (const Question& question : questions_) {
    const std::vector<Bytes> words(question.words.begin(), question.words.end());
    link.command(words, [this, &question](redisReply& reply) {
      question.answered(reply);
      if (--unanswered_ == 0) finish({});
    });
  }
}

void Conversation::on_down(RedisLink&, Bytes reason) { finish(Error{std::string(reason)}); }

void Conversation::finish(const Result<void>& result) {
  const Done done = std::exchange(done_, nullptr);
  if (!done) return;
  link_.close();
  done(result);
}

}  // namespace nearcached
