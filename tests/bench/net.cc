// Sends and receives block, with a time limit: the load waits for nothing else meanwhile, and a
// server that stands still must end the run. CPU time comes from /proc/PID/task/*/schedstat, which
// counts nanoseconds; /proc/PID/stat and getrusage of another process count ticks of 10 ms.
#include "net.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace nearcached::bench {

void die(const std::string& message) {
  std::fprintf(stderr, "nearcached-loadgen: %s\n", message.c_str());
  std::exit(1);
}

void die_errno(const std::string& what) { die(what + ": " + std::strerror(errno)); }

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

int connect_to(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die_errno("socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    die_errno("connect to 127.0.0.1:" + std::to_string(port));
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const timeval timeout{kStallTimeoutMs / 1000, 0};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  return fd;
}

void send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) die_errno("send");
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

void receive_exactly(int fd, std::string& into) {
  const ssize_t got = recv(fd, into.data(), into.size(), MSG_WAITALL);
  if (got != static_cast<ssize_t>(into.size())) die("connection closed or no reply for 10 s");
}

void say_hello_3(int fd) {
  // The PING behind it marks the end of HELLO's reply, whose length is the server's affair.
  send_all(fd, "HELLO 3\r\nPING\r\n");
  std::string reply;
  while (!reply.ends_with("+PONG\r\n")) {
    char bytes[4096];
    const ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    if (got <= 0) die("HELLO 3: connection closed or no reply for 10 s");
    reply.append(bytes, static_cast<size_t>(got));
  }
  if (reply.front() != '%') die("HELLO 3 answers " + printable(reply));
}

std::string printable(std::string_view bytes) {
  std::string out;
  for (const char c : bytes.substr(0, 80)) {
    if (c >= ' ' && c <= '~') out += c;
    else out += '.';
  }
  return out;
}

CpuTime cpu_time_of(int pid) {
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(tasks.c_str()), closedir);
  if (!directory) die_errno(tasks);
  CpuTime sum;
  while (const dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] == '.') continue;
    const std::string path = tasks + "/" + entry->d_name + "/schedstat";
    std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "r"), std::fclose);
    unsigned long long running = 0, waiting = 0;
    if (!file || std::fscanf(file.get(), "%llu %llu", &running, &waiting) != 2) {
      die("cannot read " + path + " (the kernel needs CONFIG_SCHED_INFO)");
    }
    sum.running_ns += running;
    sum.waiting_ns += waiting;
  }
  return sum;
}

}  // namespace nearcached::bench
