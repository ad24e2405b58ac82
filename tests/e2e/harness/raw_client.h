// RawClient: a blocking socket that sees every byte.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearcached::e2e {

using Args = std::vector<std::string>;

/// A request as clients send it: an array of bulk strings.
std::string encode(const Args& args);
/// Splits at spaces: "SET k v" → {"SET", "k", "v"}.
Args words(std::string_view line);

/// Sends bytes and reads replies as raw bytes, each wait under a deadline. Every failure throws
/// std::runtime_error, which fails the test. Not for use from two threads, but for one that sends
/// and one that reads.
class RawClient {
 public:
  explicit RawClient(uint16_t port);
  ~RawClient();
  RawClient(RawClient&& other) noexcept;
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void send(std::string_view bytes);
  /// Sends what the socket takes now; returns how much that was.
  size_t send_some(std::string_view bytes);
  /// The bytes of exactly one reply (a push counts as one).
  std::string read_reply();
  /// One request, one reply.
  std::string ask(const Args& args);
  std::string ask(std::string_view line) { return ask(words(line)); }
  /// The reply to each of `requests`, sent as one pipeline.
  std::vector<std::string> ask_all(const std::vector<Args>& requests);
  /// Reads until the peer closes; returns all the bytes. Throws if it does not close.
  std::string read_to_end();
  /// True when nothing arrives for that long.
  bool silent_for(std::chrono::milliseconds time);
  /// No more requests will come (FIN), but replies are still read.
  void half_close();
  /// Closes with RST: what is in flight is lost, as when the client's machine fails.
  void abort();

  void set_deadline(std::chrono::milliseconds deadline) { deadline_ = deadline; }
  int fd() const { return fd_; }

 private:
  /// Receives at least one byte; false: the peer closed.
  bool receive();

  int fd_ = -1;
  std::string received_;
  size_t consumed_ = 0;
  std::chrono::milliseconds deadline_{15'000};
};

}  // namespace nearcached::e2e
