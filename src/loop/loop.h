// The event loop and what lives on it: the only module that includes <uv.h>.
//
// Thread: everything here belongs to the thread that runs its Loop, except Mailbox::post().
// Lifetime: a handle's memory may go only after its close callback; so Stream, Timer and Mailbox
// are closed with close(), and say when they are done. Nothing is destroyed from inside its own
// callback.
#pragma once
#include <uv.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "nearcached/base/buffer.h"
#include "nearcached/base/bytes.h"
#include "nearcached/base/result.h"
#include "nearcached/config/config.h"

namespace nearcached {

class Stream;

class Loop {
 public:
  static constexpr size_t kReadBytes = 128 * 1024;
  /// Reads as small as a few requests are gathered, if their streams want that: first all of them
  /// are made, then all are looked at, then they are handled one by one. A system call leaves
  /// little of what the handlers need in the caches; this way it is waited for once, not each time.
  static constexpr size_t kGatheredBytes = 512;
  static constexpr size_t kGatheredMax = 32;  ///< 16 and 64 are no better at 50 and 1,000 clients

  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  void run();
  /// Called once per turn, when everything the turn brought (reads, timers, tasks) has been handled
  /// and before the loop sleeps: the place to flush.
  void on_turn_end(std::function<void()> callback);
  /// At a turn's end: the next begins at once, with what has come by then or with nothing.
  void turn_again();
  /// Closes the loop's own handles; run() then returns when the others are closed too.
  void close();

  uv_loop_t* raw() { return &loop_; }
  /// Room for one read: kReadBytes behind what is gathered.
  std::span<char> read_buffer() { return {read_buffer_.data() + gathered_bytes_, kReadBytes}; }

  /// Keeps what `stream` has read into read_buffer() until deliver().
  void gather(Stream& stream, Bytes bytes);
  /// Gives what is gathered to its streams, in the order in which it came. Called at the end of
  /// every turn's reads, and before when kGatheredMax are waiting.
  void deliver();

 private:
  struct Arrival {
    Stream* stream;
    Bytes bytes;
  };

  uv_loop_t loop_;
  uv_prepare_t prepare_;
  uv_check_t check_;
  uv_idle_t idle_;  ///< active: the loop does not sleep
  std::function<void()> turn_end_;
  std::vector<char> read_buffer_;
  std::array<Arrival, kGatheredMax> arrivals_;
  size_t arrivals_count_ = 0;
  size_t gathered_bytes_ = 0;
};

/// A repeating timer. Must be closed before it is destroyed; destruction before the close callback
/// is safe because the uv handle is owned separately.
class Timer {
 public:
  Timer(Loop& loop, std::function<void()> callback);
  ~Timer() { close(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  void start(uint64_t first_ms, uint64_t repeat_ms);
  void close();

 private:
  struct Handle {
    uv_timer_t timer;
    std::function<void()> callback;
  };
  Handle* handle_;
};

/// Tasks from other threads, run on the loop in the order posted. For control work only: it locks.
class Mailbox {
 public:
  using Task = std::function<void()>;
  explicit Mailbox(Loop& loop);
  /// Any thread. False: the mailbox is closed and the task will never run.
  bool post(Task task);
  void close();

 private:
  void drain();
  uv_async_t async_;
  std::mutex mutex_;
  std::vector<Task> tasks_;
  bool closed_ = false;
};

/// Resolves host names without blocking the loop. Destruction forgets what is under way.
class Resolver {
 public:
  /// `address`: the n-th of the host's, modulo their number, with the port; valid for the call.
  using Done = std::function<void(int status, const sockaddr* address)>;
  explicit Resolver(Loop& loop) : loop_(loop) {}
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;
  void start(const std::string& host, uint16_t port, unsigned n, Done done);

 private:
  void resolved(int status, addrinfo* result);
  Loop& loop_;
  uv_getaddrinfo_t* request_ = nullptr;  ///< may outlive this: freed by its own callback
  uint16_t port_ = 0;
  unsigned n_ = 0;
  Done done_;
};

/// A connected byte stream, TCP or Unix socket.
class Stream {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    /// `bytes` lie in the loop's read buffer (or in what read_space() gave) until the call returns.
    virtual void on_read(Bytes bytes) = 0;
    /// Gathered streams only, unless nothing else is gathered: on_read() is called with these bytes
    /// soon, when the same has been said to others, too. Time to fetch from memory what it will
    /// need. `last`: all others have been told.
    virtual void foresee(Bytes, bool /*last*/) {}
    /// Where to read to; default: the loop's buffer.
    virtual std::span<char> read_space() { return {}; }
    virtual void on_eof() = 0;                   ///< the peer sends no more; writing still works
    virtual void on_connected(int status) = 0;   ///< connect() finished: 0 or a uv error
    virtual void on_error(int status) = 0;       ///< broken; the owner closes
    virtual void on_drained() = 0;               ///< an earlier partial write is complete
    virtual void on_closed(Stream& stream) = 0;  ///< it may be destroyed now
  };

  /// `gathered_bytes`: the size of a handler whose small reads are gathered: handed over when all
  /// of a turn, or many, have been read, and its memory is on its way meanwhile. 0: at once.
  Stream(Loop& loop, Handler& handler, size_t gathered_bytes = 0);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Takes over an accepted socket. False: it is broken (and closed by the caller).
  bool open(int fd, bool is_unix, unsigned keepalive_s);
  /// Starts connecting; the end is on_connected(). A host name is resolved anew each time, and
  /// attempt number n goes to its n-th address (localhost can be ::1 where Redis listens on
  /// 127.0.0.1 only).
  void connect(const Address& address, unsigned attempt, unsigned keepalive_s);
  void start_reading();
  void stop_reading();
  bool reading() const { return reading_; }
  /// Writes what it can now; what is left is sent when the socket takes it (on_drained tells).
  /// While such a rest is under way nothing is taken from `out`. False: the stream is broken.
  bool flush(Buffer& out);
  /// The same for `out` and, behind it, `bytes`, which are not copied as far as the socket takes
  /// them now; the rest of them is appended to `out`.
  bool flush_with(Buffer& out, Bytes bytes);
  /// Bytes handed over and not yet taken by the kernel.
  size_t unsent_bytes() const { return rest_ != nullptr ? rest_->bytes.size() : 0; }
  /// Sends FIN once everything is written. Nothing may be written after it.
  void shutdown_write();
  void close();
  bool closing() const { return closing_; }
  int fd() const;
  std::string peer_name() const;
  std::string local_name() const;

 private:
  uv_stream_t* stream() {
    return is_unix_ ? reinterpret_cast<uv_stream_t*>(pipe_.get())
                    : reinterpret_cast<uv_stream_t*>(&tcp_);
  }
  uv_handle_t* handle() { return reinterpret_cast<uv_handle_t*>(stream()); }
  friend class Loop;
  void init(bool is_unix);
  void resolved(int status, const sockaddr* address);
  void take(Bytes bytes);
  void end(int status);

  Loop& loop_;
  Handler& handler_;
  struct Outgoing;  ///< of a connection that we make
  struct Rest {     ///< what the kernel did not take at once; belongs to the write under way
    uv_write_t request;
    Buffer bytes;
  };
  // Most streams are clients that are idle: what not all need is not part of them.
  std::unique_ptr<Outgoing> outgoing_;
  std::unique_ptr<Rest> rest_;
  std::unique_ptr<uv_pipe_t> pipe_;  ///< if is_unix_
  uv_tcp_t tcp_;                     ///< else
  const uint16_t gathered_bytes_;
  bool waits_ = false;  ///< something that it has read is gathered
  bool is_unix_ = false;
  bool reading_ = false;
  bool closing_ = false;
  bool shutdown_ = false;
};

/// A listening socket; every accepted connection is handed over as a file descriptor.
class Listener {
 public:
  using OnAccept = std::function<void(int fd, bool is_unix)>;
  Listener(Loop& loop, OnAccept on_accept);
  /// The error names the address and the reason.
  Result<void> listen(const Address& address, unsigned backlog);
  void close();
  ~Listener() { close(); }

 private:
  struct Handle;
  Loop& loop_;
  OnAccept on_accept_;
  Handle* handle_ = nullptr;
  std::string unix_path_;
};

/// Calls back on the loop when the process receives the signal. Closed on destruction.
class Signal {
 public:
  Signal(Loop& loop, int number, std::function<void()> callback);
  ~Signal();

 private:
  struct Handle {
    uv_signal_t signal;
    std::function<void()> callback;
  };
  Handle* handle_;
};

}  // namespace nearcached
