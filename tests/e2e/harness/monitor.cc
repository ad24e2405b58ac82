// MONITOR's lines come in the order in which the server ran the commands, so a mark by a connection
// of our own tells when everything before has been seen, without waiting for silence.
#include "harness/monitor.h"

#include <algorithm>

namespace nearcached::e2e {

Monitor::Monitor(const RedisServer& server) : client_(server.port()), monitor_(server.port()) {
  monitor_.ask("MONITOR");
}

std::vector<std::string> Monitor::take() {
  const std::string mark = "mark-" + std::to_string(++marks_);
  client_({"ECHO", mark});
  std::vector<std::string> lines;
  while (true) {
    // +1700000000.123456 [0 127.0.0.1:5000] "GET" "k"
    const std::string line = monitor_.read_reply();
    if (line.find(mark) != std::string::npos) return lines;
    lines.push_back(line.substr(line.find("] ") + 2));
  }
}

size_t Monitor::count(const std::string& text) {
  const std::vector<std::string> lines = take();
  return static_cast<size_t>(
      std::count_if(lines.begin(), lines.end(),
                    [&](const std::string& line) { return line.find(text) != std::string::npos; }));
}

}  // namespace nearcached::e2e
