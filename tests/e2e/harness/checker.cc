#include "harness/checker.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

#include "harness/servers.h"

namespace nearcached::e2e {

Checker::Checker(const std::vector<std::string>& options) {
  const char* program = std::getenv("NEARCACHED_CHECKER");
  if (program == nullptr) throw std::runtime_error("NEARCACHED_CHECKER is not set");
  std::vector<std::string> argv{program};
  argv.insert(argv.end(), options.begin(), options.end());
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
  process_.start(argv, dir_.path() + "/log", ends[0]);
  close(ends[0]);
  control_ = ends[1];
}

Checker::~Checker() { close(control_); }

void Checker::wait_working(Client client, size_t writers) {
  const auto work = [&] {
    for (size_t writer = 0; writer < writers; ++writer)
      if (client({"EXISTS", "coherence-checker:1:probe:" + std::to_string(writer)}) != "1")
        return false;
    return true;
  };
  if (!wait_until(work)) throw std::runtime_error("the checker does not begin");
}

void Checker::tell(const std::string& line) const {
  const std::string bytes = line + "\n";
  if (write(control_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
    throw std::runtime_error("the checker has ended: " + read_file(dir_.path() + "/log"));
}

Checker::Verdict Checker::finish() {
  const auto status = process_.wait_exit(std::chrono::seconds(120));
  return {status.value_or(-1), read_file(dir_.path() + "/log")};
}

}  // namespace nearcached::e2e
