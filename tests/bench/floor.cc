// nearcached-floor: the least that a server of nearcached-loadgen's GETs can do, for tools/bench.
//
// Problem: "faster than Redis" does not say how much is left to gain. What every server on libuv
// pays is the kernel's part (epoll, read, write) and libuv's own; this program pays that and next
// to nothing else, so its CPU per request is the floor that a hit is compared with. Approach: one
// uv_tcp per client, one read buffer for all, one uv_try_write per read. A request is five lines
// that end with the key's number; nothing but its line ends is looked at, and the value follows
// from the number as tests/bench/dataset.h has it, so the load generator verifies these replies as
// it does all others. Invariant: what is carried over from a read is less than one request.
// Rejected: a fixed request length instead of scanning for line ends; cheaper still, but no longer
// a server of a protocol, and 16 requests of 37 bytes differ by less than a percent.
#include <uv.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr size_t kReadBytes = 64 * 1024;
constexpr size_t kNumberDigits = 12;
constexpr int kLinesOfGet = 5;  // *2, $3, GET, $16, key:<number>
constexpr int kBacklog = 1024;

[[noreturn]] void die(const std::string& message) {
  std::fprintf(stderr, "nearcached-floor: %s\n", message.c_str());
  std::exit(1);
}

void check(int status, const char* what) {
  if (status < 0) die(std::string(what) + ": " + uv_strerror(status));
}

// What all clients share: nothing here belongs to one of them between two callbacks.
struct Responder {
  explicit Responder(size_t value_bytes) : read_buffer(kReadBytes) {
    reply = "$" + std::to_string(value_bytes) + "\r\n";
    number_at = reply.size();
    reply +=
        std::string(kNumberDigits, '0') + std::string(value_bytes - kNumberDigits, 'v') + "\r\n";
  }

  // Appends a reply for each complete request of `bytes`; returns how many bytes they took.
  size_t answer(std::string_view bytes) {
    size_t taken = 0, at = 0;
    int lines = 0;
    replies.clear();
    while (at < bytes.size()) {
      const void* end = std::memchr(bytes.data() + at, '\n', bytes.size() - at);
      if (!end) break;
      at = static_cast<size_t>(static_cast<const char*>(end) - bytes.data()) + 1;
      if (++lines < kLinesOfGet) continue;
      if (at - taken < kNumberDigits + 2) die("this is not a request of nearcached-loadgen");
      const size_t begin = replies.size();
      replies += reply;
      std::memcpy(&replies[begin + number_at], bytes.data() + at - 2 - kNumberDigits,
                  kNumberDigits);
      lines = 0;
      taken = at;
    }
    return taken;
  }

  std::string reply;
  size_t number_at = 0;
  std::vector<char> read_buffer;
  std::string replies;
};

struct Client {
  uv_tcp_t handle{};
  Responder* responder = nullptr;
  std::string carried;  // the beginning of a request whose rest has not come yet
};

void provide_buffer(uv_handle_t* handle, size_t, uv_buf_t* buffer) {
  std::vector<char>& shared = static_cast<Client*>(handle->data)->responder->read_buffer;
  *buffer = uv_buf_init(shared.data(), static_cast<unsigned>(shared.size()));
}

void on_read(uv_stream_t* stream, ssize_t got, const uv_buf_t* buffer) {
  auto* client = static_cast<Client*>(stream->data);
  if (got < 0) {
    uv_close(reinterpret_cast<uv_handle_t*>(stream), [](uv_handle_t* closed) {
      std::unique_ptr<Client>(static_cast<Client*>(closed->data)).reset();
    });
    return;
  }
  Responder& responder = *client->responder;
  std::string_view bytes(buffer->base, static_cast<size_t>(got));
  if (!client->carried.empty()) {
    client->carried += bytes;
    bytes = client->carried;
  }
  const size_t taken = responder.answer(bytes);
  client->carried = std::string(bytes.substr(taken));
  if (responder.replies.empty()) return;
  const uv_buf_t out =
      uv_buf_init(responder.replies.data(), static_cast<unsigned>(responder.replies.size()));
  // The load reads all replies before it asks again, so they always fit the socket's buffer.
  if (uv_try_write(stream, &out, 1) != static_cast<int>(responder.replies.size())) {
    die("the replies to one batch do not fit the socket");
  }
}

void on_connection(uv_stream_t* listener, int status) {
  check(status, "listen");
  auto client = std::make_unique<Client>();
  client->responder = static_cast<Responder*>(listener->data);
  check(uv_tcp_init(listener->loop, &client->handle), "uv_tcp_init");
  client->handle.data = client.get();
  auto* stream = reinterpret_cast<uv_stream_t*>(&client->handle);
  check(uv_accept(listener, stream), "accept");
  check(uv_tcp_nodelay(&client->handle, 1), "TCP_NODELAY");
  check(uv_read_start(stream, provide_buffer, on_read), "uv_read_start");
  client.release();  // freed by its close callback
}

}  // namespace

int main(int argc, char** argv) {
  int port = 0;
  size_t value_bytes = 64;
  CLI::App app{"Answers nearcached-loadgen's GETs and does nothing else, for tools/bench"};
  app.add_option("--port", port, "on 127.0.0.1")->required();
  app.add_option("--value-bytes", value_bytes)->check(CLI::Range(kNumberDigits, size_t{4096}));
  CLI11_PARSE(app, argc, argv);

  Responder responder(value_bytes);
  uv_loop_t* loop = uv_default_loop();
  uv_tcp_t listener{};
  sockaddr_in address{};
  check(uv_ip4_addr("127.0.0.1", port, &address), "--port");
  check(uv_tcp_init(loop, &listener), "uv_tcp_init");
  listener.data = &responder;
  check(uv_tcp_bind(&listener, reinterpret_cast<const sockaddr*>(&address), 0), "bind");
  check(uv_listen(reinterpret_cast<uv_stream_t*>(&listener), kBacklog, on_connection), "listen");
  return uv_run(loop, UV_RUN_DEFAULT);
}
