// Monitor: what a redis-server really ran, by its own MONITOR.
#pragma once
#include <string>
#include <vector>

#include "harness/servers.h"

namespace nearcached::e2e {

class Monitor {
 public:
  explicit Monitor(const RedisServer& server);
  /// The commands run since the last call, as MONITOR prints them: `"GET" "k"`. Heartbeats
  /// included.
  std::vector<std::string> take();
  /// How many of take()'s commands contain `text`.
  size_t count(const std::string& text);

 private:
  Client client_;
  RawClient monitor_;
  int marks_ = 0;
};

}  // namespace nearcached::e2e
