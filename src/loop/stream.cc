// Stream and Listener: sockets on the loop.
//
// Writing: what the kernel takes at once costs one system call and no request object; only a rest
// goes through uv_write, whose buffer is moved in (never copied) and belongs to it until it is
// done. Reading: into the loop's one buffer, unless the owner offers room of its own for a big
// value.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "loop/loop.h"

namespace nearcached {
namespace {

constexpr size_t kWriteBytesMax = 1u << 30;  // of one write: uv_buf_t's length is 32 bits

std::string name_of(const sockaddr_storage& storage) {
  char text[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(storage);
    inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(ntohs(in.sin_port));
  }
  if (storage.ss_family == AF_INET6) {
    const auto& in = reinterpret_cast<const sockaddr_in6&>(storage);
    inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof text);
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(in.sin6_port));
  }
  return "unix";
}

}  // namespace

struct Stream::Outgoing {
  uv_connect_t request;
  unsigned keepalive_s;
  std::unique_ptr<Resolver> resolver;
};

Stream::Stream(Loop& loop, Handler& handler, size_t gathered_bytes)
    : loop_(loop), handler_(handler), gathered_bytes_(static_cast<uint16_t>(gathered_bytes)) {}
Stream::~Stream() = default;

void Stream::init(bool is_unix) {
  is_unix_ = is_unix;
  if (is_unix) pipe_ = std::make_unique<uv_pipe_t>();
  if (is_unix) uv_pipe_init(loop_.raw(), pipe_.get(), 0);
  else uv_tcp_init(loop_.raw(), &tcp_);
  handle()->data = this;
}

bool Stream::open(int fd, bool is_unix, unsigned keepalive_s) {
  init(is_unix);
  if (is_unix) return uv_pipe_open(pipe_.get(), fd) == 0;
  if (uv_tcp_open(&tcp_, fd) != 0) return false;
  uv_tcp_nodelay(&tcp_, 1);
  if (keepalive_s > 0) uv_tcp_keepalive(&tcp_, 1, keepalive_s);
  return true;
}

void Stream::connect(const Address& address, unsigned attempt, unsigned keepalive_s) {
  outgoing_ = std::make_unique<Outgoing>();
  outgoing_->keepalive_s = keepalive_s;
  outgoing_->request.data = this;
  if (!address.unix_path.empty()) {
    init(true);
    uv_pipe_connect(&outgoing_->request, pipe_.get(), address.unix_path.c_str(),
                    [](uv_connect_t* request, int status) {
                      auto* self = static_cast<Stream*>(request->data);
                      if (!self->closing_) self->handler_.on_connected(status);
                    });
    return;
  }
  init(false);
  outgoing_->resolver = std::make_unique<Resolver>(loop_);
  outgoing_->resolver->start(
      address.host, address.port, attempt,
      [this](int status, const sockaddr* resolved_address) { resolved(status, resolved_address); });
}

void Stream::resolved(int status, const sockaddr* address) {
  if (closing_) return;
  if (status != 0) return handler_.on_connected(status);
  uv_tcp_nodelay(&tcp_, 1);
  status = uv_tcp_connect(&outgoing_->request, &tcp_, address,
                          [](uv_connect_t* request, int connect_status) {
                            auto* self = static_cast<Stream*>(request->data);
                            if (self->closing_) return;
                            if (connect_status == 0) {
                              uv_tcp_nodelay(&self->tcp_, 1);
                              if (const unsigned s = self->outgoing_->keepalive_s; s > 0)
                                uv_tcp_keepalive(&self->tcp_, 1, s);
                            }
                            self->handler_.on_connected(connect_status);
                          });
  if (status != 0) handler_.on_connected(status);
}

void Stream::start_reading() {
  if (reading_ || closing_) return;
  reading_ = true;
  uv_read_start(
      stream(),
      [](uv_handle_t* handle, size_t, uv_buf_t* buf) {
        auto* self = static_cast<Stream*>(handle->data);
        // Where a stream's next bytes belong is only known once the ones before are handled.
        std::span<char> space;
        if (!self->waits_) space = self->handler_.read_space();
        if (space.empty()) space = self->loop_.read_buffer();
        *buf = uv_buf_init(space.data(), static_cast<unsigned>(space.size()));
      },
      [](uv_stream_t* stream, ssize_t n, const uv_buf_t* buf) {
        auto* self = static_cast<Stream*>(stream->data);
        if (n > 0) self->take({buf->base, static_cast<size_t>(n)});
        else if (n < 0) self->end(static_cast<int>(n));
      });
}

void Stream::take(Bytes bytes) {
  if (gathered_bytes_ > 0 && bytes.size() <= Loop::kGatheredBytes &&
      bytes.data() == loop_.read_buffer().data())
    return loop_.gather(*this, bytes);
  if (waits_) loop_.deliver();
  if (!closing_) handler_.on_read(bytes);
}

void Stream::end(int status) {
  if (waits_) loop_.deliver();
  if (closing_) return;
  stop_reading();
  if (status == UV_EOF) handler_.on_eof();
  else handler_.on_error(status);
}

void Stream::stop_reading() {
  if (!reading_) return;
  reading_ = false;
  uv_read_stop(stream());
}

bool Stream::flush(Buffer& out) {
  if (closing_ || rest_ != nullptr || out.empty()) return !closing_;
  const auto as_buf = [](Buffer& bytes) {
    return uv_buf_init(bytes.data(),
                       static_cast<unsigned>(std::min<size_t>(bytes.size(), kWriteBytesMax)));
  };
  uv_buf_t buf = as_buf(out);
  const int n = uv_try_write(stream(), &buf, 1);
  if (n > 0) out.consume(static_cast<size_t>(n));
  if (n < 0 && n != UV_EAGAIN) return false;
  if (out.empty()) return true;
  rest_ = std::make_unique<Rest>();
  rest_->bytes = std::move(out);
  rest_->request.data = this;
  buf = as_buf(rest_->bytes);
  const int status =
      uv_write(&rest_->request, stream(), &buf, 1, [](uv_write_t* request, int write_status) {
        auto* self = static_cast<Stream*>(request->data);
        Buffer done = std::move(self->rest_->bytes);
        self->rest_.reset();
        done.consume(std::min<size_t>(done.size(), kWriteBytesMax));
        if (self->closing_) return;
        if (write_status != 0) return self->handler_.on_error(write_status);
        if (!done.empty() && !self->flush(done)) return self->handler_.on_error(UV_EPIPE);
        if (self->rest_ == nullptr) self->handler_.on_drained();
      });
  if (status != 0) rest_.reset();
  return status == 0;
}

bool Stream::flush_with(Buffer& out, Bytes bytes) {
  if (closing_ || rest_ != nullptr) {
    out.append(bytes);
    return !closing_;
  }
  const uv_buf_t bufs[] = {
      uv_buf_init(out.data(), static_cast<unsigned>(std::min(out.size(), kWriteBytesMax))),
      uv_buf_init(const_cast<char*>(bytes.data()),
                  static_cast<unsigned>(std::min(bytes.size(), kWriteBytesMax)))};
  const bool only_bytes = out.empty();
  const int n =
      out.size() > kWriteBytesMax ? 0 : uv_try_write(stream(), bufs + only_bytes, 2u - only_bytes);
  if (n > 0) {
    const size_t of_out = std::min(out.size(), static_cast<size_t>(n));
    out.consume(of_out);
    bytes.remove_prefix(static_cast<size_t>(n) - of_out);
  }
  out.append(bytes);
  return n >= 0 || n == UV_EAGAIN;
}

void Stream::shutdown_write() {
  if (shutdown_ || closing_) return;
  shutdown_ = true;
  auto* request = new uv_shutdown_t;
  if (uv_shutdown(request, stream(), [](uv_shutdown_t* done, int) { delete done; }) != 0)
    delete request;
}

void Stream::close() {
  if (closing_) return;
  closing_ = true;
  reading_ = false;
  if (outgoing_ != nullptr) outgoing_->resolver.reset();
  uv_close(handle(), [](uv_handle_t* handle) {
    auto* self = static_cast<Stream*>(handle->data);
    self->handler_.on_closed(*self);
  });
}

int Stream::fd() const {
  uv_os_fd_t fd = -1;
  uv_fileno(is_unix_ ? reinterpret_cast<const uv_handle_t*>(pipe_.get())
                     : reinterpret_cast<const uv_handle_t*>(&tcp_),
            &fd);
  return fd;
}

std::string Stream::peer_name() const {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (is_unix_ || getpeername(fd(), reinterpret_cast<sockaddr*>(&storage), &size) != 0)
    return "unix:0";
  return name_of(storage);
}

std::string Stream::local_name() const {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (is_unix_ || getsockname(fd(), reinterpret_cast<sockaddr*>(&storage), &size) != 0)
    return "unix:0";
  return name_of(storage);
}

// A plain listening socket watched by uv_poll: the accepted descriptor then belongs to no loop yet
// and can be given to any worker (uv_accept would tie it to the listener's loop).
struct Listener::Handle {
  uv_poll_t poll;
  int fd;
  int spare;  ///< given up for a moment when descriptors run out, to tell a client so by closing
  Listener* owner;
  bool is_unix;
};

Listener::Listener(Loop& loop, OnAccept on_accept)
    : loop_(loop), on_accept_(std::move(on_accept)) {}

Result<void> Listener::listen(const Address& address, unsigned backlog) {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const bool is_unix = !address.unix_path.empty();
  if (is_unix) {
    auto& un = reinterpret_cast<sockaddr_un&>(storage);
    un.sun_family = AF_UNIX;
    if (address.unix_path.size() >= sizeof un.sun_path)
      return Error{"cannot listen on " + address.to_string() + ": the path is too long"};
    std::memcpy(un.sun_path, address.unix_path.c_str(), address.unix_path.size() + 1);
    size = sizeof un;
  } else if (uv_ip4_addr(address.host.c_str(), address.port,
                         reinterpret_cast<sockaddr_in*>(&storage)) == 0) {
    size = sizeof(sockaddr_in);
  } else if (uv_ip6_addr(address.host.c_str(), address.port,
                         reinterpret_cast<sockaddr_in6*>(&storage)) == 0) {
    size = sizeof(sockaddr_in6);
  } else {
    return Error{"cannot listen on " + address.to_string() + ": not an IP address"};
  }
  const int fd = socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return Error{"cannot listen on " + address.to_string() + ": " + std::strerror(errno)};
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (storage.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (is_unix) {
    // A socket file that nobody answers on is left over from a crash; a live one is somebody's.
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(probe, reinterpret_cast<sockaddr*>(&storage), size) != 0 && errno == ECONNREFUSED)
      unlink(address.unix_path.c_str());
    ::close(probe);
  }
  if (bind(fd, reinterpret_cast<sockaddr*>(&storage), size) != 0 ||
      ::listen(fd, static_cast<int>(backlog)) != 0) {
    const int code = errno;
    ::close(fd);
    return Error{"cannot listen on " + address.to_string() + ": " + std::strerror(code)};
  }
  if (is_unix) unix_path_ = address.unix_path;
  handle_ = new Handle{{}, fd, ::open("/dev/null", O_RDONLY | O_CLOEXEC), this, is_unix};
  uv_poll_init(loop_.raw(), &handle_->poll, fd);
  handle_->poll.data = handle_;
  uv_poll_start(&handle_->poll, UV_READABLE, [](uv_poll_t* poll, int, int) {
    auto* handle = static_cast<Handle*>(poll->data);
    for (int i = 0; i < 64; ++i) {
      const int client = accept4(handle->fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (client < 0 && (errno == EMFILE || errno == ENFILE)) {
        // Left in the queue it would wake the loop for ever.
        ::close(handle->spare);
        ::close(accept4(handle->fd, nullptr, nullptr, SOCK_CLOEXEC));
        handle->spare = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (handle->spare < 0) uv_sleep(10);  // not even that one: others may be closing theirs
        return;
      }
      if (client < 0) return;
      handle->owner->on_accept_(client, handle->is_unix);
    }
  });
  return {};
}

void Listener::close() {
  if (handle_ == nullptr) return;
  const auto [fd, spare] = std::pair(handle_->fd, handle_->spare);
  // Before its descriptor: libuv names it to the kernel once more, and by then a worker's could
  // have its number.
  uv_close(reinterpret_cast<uv_handle_t*>(&handle_->poll),
           [](uv_handle_t* handle) { delete static_cast<Handle*>(handle->data); });
  handle_ = nullptr;
  ::close(fd);
  ::close(spare);
  if (!unix_path_.empty()) unlink(unix_path_.c_str());
}

}  // namespace nearcached
