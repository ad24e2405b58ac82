// getaddrinfo runs on libuv's pool and cannot be taken back: its request lives until it has called
// back, and a Resolver that is gone by then has cleared `data`.
#include <netinet/in.h>

#include <cstring>

#include "loop/loop.h"

namespace nearcached {

Resolver::~Resolver() {
  if (request_ == nullptr) return;
  uv_cancel(reinterpret_cast<uv_req_t*>(request_));
  request_->data = nullptr;
}

void Resolver::start(const std::string& host, uint16_t port, unsigned n, Done done) {
  port_ = port;
  n_ = n;
  done_ = std::move(done);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  request_ = new uv_getaddrinfo_t;
  request_->data = this;
  const int status = uv_getaddrinfo(
      loop_.raw(), request_,
      [](uv_getaddrinfo_t* request, int result_status, addrinfo* result) {
        if (auto* self = static_cast<Resolver*>(request->data)) {
          self->request_ = nullptr;
          self->resolved(result_status, result);
        }
        uv_freeaddrinfo(result);
        delete request;
      },
      host.c_str(), nullptr, &hints);
  if (status == 0) return;
  delete request_;
  request_ = nullptr;
  resolved(status, nullptr);
}

void Resolver::resolved(int status, addrinfo* result) {
  const Done done = std::move(done_);  // the call may destroy this
  if (status != 0) return done(status, nullptr);
  unsigned addresses = 0;
  for (const addrinfo* at = result; at != nullptr; at = at->ai_next) ++addresses;
  for (unsigned skip = n_ % addresses; skip > 0; --skip) result = result->ai_next;
  sockaddr_storage target{};
  std::memcpy(&target, result->ai_addr, result->ai_addrlen);
  if (target.ss_family == AF_INET6)
    reinterpret_cast<sockaddr_in6&>(target).sin6_port = htons(port_);
  else reinterpret_cast<sockaddr_in&>(target).sin_port = htons(port_);
  done(0, reinterpret_cast<const sockaddr*>(&target));
}

}  // namespace nearcached
