// Client: an ordinary client, by hiredis, with replies as text that reads well in a test.
#pragma once
#include <hiredis/hiredis.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "harness/raw_client.h"

namespace nearcached::e2e {

/// How a reply reads: bulk and status as they are, integers in digits, "(nil)", "(error) …", and
/// arrays as "[a b [c]]".
std::string to_text(const redisReply& reply);

class Client {
 public:
  explicit Client(uint16_t port);
  /// Throws std::runtime_error when the connection fails.
  std::string operator()(const Args& args);
  std::string operator()(std::string_view line) { return (*this)(words(line)); }

 private:
  struct Free {
    void operator()(redisContext* context) const { redisFree(context); }
  };
  std::unique_ptr<redisContext, Free> context_;
};

}  // namespace nearcached::e2e
