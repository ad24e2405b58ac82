// hiredis 0.14 speaks RESP2 only: what the tests say about RESP3 goes through RawClient.
#include "harness/client.h"

#include <stdexcept>
#include <vector>

namespace nearcached::e2e {

std::string to_text(const redisReply& reply) {
  switch (reply.type) {
    case REDIS_REPLY_NIL: return "(nil)";
    case REDIS_REPLY_INTEGER: return std::to_string(reply.integer);
    case REDIS_REPLY_ERROR: return "(error) " + std::string(reply.str, reply.len);
    case REDIS_REPLY_ARRAY: {
      std::string out = "[";
      for (size_t i = 0; i < reply.elements; ++i) {
        if (i > 0) out += ' ';
        out += to_text(*reply.element[i]);
      }
      return out + "]";
    }
    default: return std::string(reply.str, reply.len);
  }
}

Client::Client(uint16_t port) {
  const timeval limit{15, 0};
  context_.reset(redisConnectWithTimeout("127.0.0.1", port, limit));
  if (!context_ || context_->err) {
    throw std::runtime_error("connect to port " + std::to_string(port) + ": " +
                             (context_ ? context_->errstr : "out of memory"));
  }
  redisSetTimeout(context_.get(), limit);
}

std::string Client::operator()(const Args& args) {
  std::vector<const char*> data;
  std::vector<size_t> sizes;
  for (const std::string& arg : args) {
    data.push_back(arg.data());
    sizes.push_back(arg.size());
  }
  std::unique_ptr<void, void (*)(void*)> reply(
      redisCommandArgv(context_.get(), static_cast<int>(args.size()), data.data(), sizes.data()),
      freeReplyObject);
  if (!reply) throw std::runtime_error(std::string("connection lost: ") + context_->errstr);
  return to_text(*static_cast<redisReply*>(reply.get()));
}

}  // namespace nearcached::e2e
