#include "connection.h"

namespace checker {

Connection::Connection(const std::string& endpoint, unsigned timeout_ms) : endpoint_(endpoint) {
  const size_t colon = endpoint.rfind(':');
  if (colon == std::string::npos) throw std::runtime_error(endpoint + ": HOST:PORT expected");
  const timeval limit{timeout_ms / 1000, static_cast<suseconds_t>(timeout_ms % 1000) * 1000};
  context_.reset(redisConnectWithTimeout(endpoint.substr(0, colon).c_str(),
                                         std::stoi(endpoint.substr(colon + 1)), limit));
  if (!context_ || context_->err != 0) throw ConnectionLost(endpoint + ": cannot connect");
  redisSetTimeout(context_.get(), limit);
}

void Connection::append(const Request& args) {
  std::vector<const char*> data;
  std::vector<size_t> sizes;
  for (const std::string& arg : args) {
    data.push_back(arg.data());
    sizes.push_back(arg.size());
  }
  redisAppendCommandArgv(context_.get(), static_cast<int>(args.size()), data.data(), sizes.data());
}

Reply Connection::read() {
  void* raw = nullptr;
  if (redisGetReply(context_.get(), &raw) != REDIS_OK)
    throw ConnectionLost(endpoint_ + ": " + context_->errstr);
  return Reply(static_cast<redisReply*>(raw), freeReplyObject);
}

std::vector<Reply> Connection::ask_all(const std::vector<Request>& requests) {
  for (const Request& request : requests) append(request);
  std::vector<Reply> replies;
  while (replies.size() < requests.size()) replies.push_back(read());
  return replies;
}

std::string error_in(const redisReply& reply) {
  if (reply.type == REDIS_REPLY_ERROR) return std::string(reply.str, reply.len);
  for (size_t i = 0; reply.type == REDIS_REPLY_ARRAY && i < reply.elements; ++i) {
    std::string error = error_in(*reply.element[i]);
    if (!error.empty()) return error;
  }
  return {};
}

uint64_t value_of(const redisReply& reply) {
  return reply.type == REDIS_REPLY_NIL ? 0 : std::stoull(std::string(reply.str, reply.len));
}

}  // namespace checker
