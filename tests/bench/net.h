// What nearcached-loadgen needs of the system: blocking sockets, a clock, CPU time of a process.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace nearcached::bench {

constexpr int kStallTimeoutMs = 10'000;  // no reply at all for this long: the server is stuck

// Ends the program with status 1: a benchmark goes on after nothing that is wrong.
[[noreturn]] void die(const std::string& message);
[[noreturn]] void die_errno(const std::string& what);

uint64_t now_ns();

int connect_to(uint16_t port);  // 127.0.0.1; the caller closes
void send_all(int fd, std::string_view bytes);
void receive_exactly(int fd, std::string& into);  // fills the string as long as it is
void say_hello_3(int fd);
std::string printable(std::string_view bytes);  // the first 80 bytes

struct CpuTime {
  uint64_t running_ns = 0;
  uint64_t waiting_ns = 0;  // runnable, but another process had the core
};
// Sums over the threads that are alive: none of the servers ends one while it serves.
CpuTime cpu_time_of(int pid);

}  // namespace nearcached::bench
