// The checker's connections, by hiredis.
#pragma once
#include <hiredis/hiredis.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace checker {

/// The connection cannot be made, has ended, or did not answer in time. It is of no further use.
struct ConnectionLost : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Request = std::vector<std::string>;
using Reply = std::unique_ptr<redisReply, void (*)(void*)>;

/// Where a writer's requests go.
class Link {
 public:
  virtual ~Link() = default;
  /// In this order; one reply for each, errors too. Throws ConnectionLost, and then any of them may
  /// have been executed.
  virtual std::vector<Reply> ask_all(const std::vector<Request>& requests) = 0;
  Reply ask(const Request& request) { return std::move(ask_all({request})[0]); }
};

/// One connection to one server.
class Connection final : public Link {
 public:
  /// `endpoint`: HOST:PORT. `timeout_ms` is for connecting and for each reply.
  Connection(const std::string& endpoint, unsigned timeout_ms);
  void append(const Request& request);
  /// The next reply, which may be an error.
  Reply read();
  /// In one pipeline.
  std::vector<Reply> ask_all(const std::vector<Request>& requests) override;

 private:
  struct Free {
    void operator()(redisContext* context) const { redisFree(context); }
  };
  std::string endpoint_;
  std::unique_ptr<redisContext, Free> context_;
};

/// The text of an error in the reply or in one of its elements; empty if there is none.
std::string error_in(const redisReply& reply);

/// The number that a value of the checker is; 0 for a key that does not exist.
uint64_t value_of(const redisReply& reply);

}  // namespace checker
