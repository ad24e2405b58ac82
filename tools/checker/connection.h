// One connection of the checker, by hiredis.
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

class Connection {
 public:
  using Reply = std::unique_ptr<redisReply, void (*)(void*)>;

  /// `endpoint`: HOST:PORT. `timeout_ms` is for connecting and for each reply.
  Connection(const std::string& endpoint, unsigned timeout_ms);
  void append(const std::vector<std::string>& args);
  /// The next reply, which may be an error.
  Reply read();
  Reply ask(const std::vector<std::string>& args) {
    append(args);
    return read();
  }

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
