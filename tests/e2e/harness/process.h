// Process: a server under test, run as a child and stopped by its own pid.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nearcached::e2e {

/// A directory under /tmp that is removed, with what is in it, at the end of its life.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// A TCP port of 127.0.0.1 that nobody listens on now, below the range that the kernel gives to
/// outgoing connections, so that none of those can take it before the server does.
uint16_t free_port();
/// How often a server is started on other ports before its test fails: between a port's choice and
/// its use another process may take it.
constexpr int kLaunchTries = 5;

/// One child process. Its standard output and error go to one file, shown when a test fails.
/// The kernel kills the child if the thread that started it ends: start it on the main thread.
class Process {
 public:
  Process() = default;
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// Requires: not running. `argv[0]` is looked up in PATH. `input`: its standard input; −1: ours.
  void start(const std::vector<std::string>& argv, const std::string& log_path, int input = -1);
  void signal(int number) const;
  /// SIGKILL, and waits for the end. Harmless when it is not running.
  void kill();
  /// Waits for the end by itself: the exit status, or 128 + the signal; nothing at the deadline.
  std::optional<int> wait_exit(std::chrono::milliseconds within);
  bool running();
  pid_t pid() const { return pid_; }
  /// Resident memory in bytes, from /proc.
  uint64_t resident_bytes() const;

 private:
  pid_t pid_ = -1;
  std::optional<int> exit_status_;
};

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& text);

}  // namespace nearcached::e2e
