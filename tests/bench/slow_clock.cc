// Preloaded into nearcached by instructions.py: the monotonic clock at a hundredth of its speed,
// and waits for events a hundred times as long, so that the two agree.
//
// Under callgrind everything but the clock is slower by a factor of thirty to a hundred, so what
// the clock drives (sweeps, gauges, proofs) weighs as much more in the instructions of a request,
// and the more the busier the machine is. With the clock slowed down as well, it weighs what it
// weighs in life. The first seconds pass as usual: start-up waits for timers and is not measured.
// Rejected: leaving the functions that the clock drives out of the sum, by name; names change.
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>

namespace {

constexpr int kSlowness = 100;
constexpr int kKernelSignalBytes = 8;  // of a sigset_t, as the kernel has it
constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr int64_t kUsualNs = 3 * kNsPerSecond;  // instructions.py waits for longer

int64_t monotonic_ns() {
  timespec now{};
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

// When the clock begins to be slow: some time after it was asked for the first time.
int64_t slow_from_ns() {
  static const int64_t from = monotonic_ns() + kUsualNs;
  return from;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int clock_gettime(clockid_t id, timespec* out) {
  const auto status = static_cast<int>(syscall(SYS_clock_gettime, id, out));
  if (status == 0 && (id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE)) {
    int64_t ns = out->tv_sec * kNsPerSecond + out->tv_nsec;
    if (ns > slow_from_ns()) ns = slow_from_ns() + (ns - slow_from_ns()) / kSlowness;
    *out = {static_cast<time_t>(ns / kNsPerSecond), static_cast<long>(ns % kNsPerSecond)};
  }
  return status;
}

extern "C" __attribute__((visibility("default"))) int epoll_pwait(int epoll, epoll_event* events,
                                                                  int events_max, int timeout_ms,
                                                                  const sigset_t* signals) {
  const bool slow = timeout_ms > 0 && monotonic_ns() > slow_from_ns();
  const int slow_ms = slow ? timeout_ms * kSlowness : timeout_ms;
  return static_cast<int>(
      syscall(SYS_epoll_pwait, epoll, events, events_max, slow_ms, signals, kKernelSignalBytes));
}

extern "C" __attribute__((visibility("default"))) int epoll_wait(int epoll, epoll_event* events,
                                                                 int events_max, int timeout_ms) {
  return epoll_pwait(epoll, events, events_max, timeout_ms, nullptr);
}
