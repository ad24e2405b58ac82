// hiredis frees a context by itself when connecting fails or the link is lost, and calls every
// callback that is still owed with a null reply. `data` of the context points here as long as this
// object wants to hear of it; a context that is being given up has it cleared first, so that its
// last callbacks find nobody. hiredis resolves host names with a blocking call, hence our Resolver.
#include "loop/redis_link.h"

#include <arpa/inet.h>
#include <hiredis/async.h>
#include <netinet/in.h>

#include <array>
#include <vector>

#include "loop/hiredis_events.h"

namespace nearcached {

struct RedisLink::Request {
  Callback callback;
};

void RedisLink::connect(const Address& address, unsigned attempt) {
  if (!idle()) return;
  if (!address.unix_path.empty()) return attach(redisAsyncConnectUnix(address.unix_path.c_str()));
  resolver_ = std::make_unique<Resolver>(loop_);
  resolver_->start(
      address.host, address.port, attempt,
      [this, port = address.port](int status, const sockaddr* found) {
        resolver_.reset();
        if (status != 0) return down(uv_strerror(status));
        std::array<char, INET6_ADDRSTRLEN> text{};
        if (found->sa_family == AF_INET6)
          uv_ip6_name(reinterpret_cast<const sockaddr_in6*>(found), text.data(), text.size());
        else uv_ip4_name(reinterpret_cast<const sockaddr_in*>(found), text.data(), text.size());
        attach(redisAsyncConnect(text.data(), port));
      });
}

void RedisLink::attach(redisAsyncContext* context) {
  if (context == nullptr) return down("out of memory");
  if (context->err != 0) {
    const std::string reason = context->errstr;
    redisAsyncFree(context);
    return down(reason);
  }
  if (!attach_to_loop(*context, loop_)) {
    redisAsyncFree(context);
    return down("the socket cannot be watched");
  }
  context_ = context;
  context->data = this;
  redisAsyncSetConnectCallback(context, [](const redisAsyncContext* c, int status) {
    auto* self = static_cast<RedisLink*>(c->data);
    if (self == nullptr) return;
    if (status == REDIS_OK) {
      self->up_ = true;
      return self->handler_.on_up(*self);
    }
    self->context_ = nullptr;  // hiredis frees it after this call
    const_cast<redisAsyncContext*>(c)->data = nullptr;
    self->down(c->errstr);
  });
  redisAsyncSetDisconnectCallback(context, [](const redisAsyncContext* c, int) {
    auto* self = static_cast<RedisLink*>(c->data);
    if (self == nullptr) return;
    self->context_ = nullptr;
    self->down(c->err != 0 ? c->errstr : "connection lost");
  });
}

void RedisLink::down(Bytes reason) {
  up_ = false;
  pending_ = 0;
  handler_.on_down(*this, reason);
}

void RedisLink::on_reply(redisAsyncContext* context, void* reply, void* request) {
  const std::unique_ptr<Request> owned(static_cast<Request*>(request));
  auto* self = static_cast<RedisLink*>(context->data);
  if (self == nullptr || reply == nullptr) return;
  --self->pending_;
  owned->callback(*static_cast<redisReply*>(reply));
}

void RedisLink::on_subscribed(redisAsyncContext* context, void* reply, void*) {
  auto* self = static_cast<RedisLink*>(context->data);
  if (self != nullptr && reply != nullptr)
    self->handler_.on_message(*self, *static_cast<redisReply*>(reply));
}

namespace {
struct Argv {
  explicit Argv(std::span<const Bytes> args) {
    for (const Bytes arg : args) {
      data.push_back(arg.data() == nullptr ? "" : arg.data());
      sizes.push_back(arg.size());
    }
  }
  std::vector<const char*> data;
  std::vector<size_t> sizes;
};
}  // namespace

bool RedisLink::command(std::span<const Bytes> args, Callback callback) {
  if (!up_) return false;
  Argv argv(args);
  auto request = std::make_unique<Request>(Request{std::move(callback)});
  if (redisAsyncCommandArgv(context_, on_reply, request.get(), static_cast<int>(args.size()),
                            argv.data.data(), argv.sizes.data()) != REDIS_OK)
    return false;
  (void)request.release();  // on_reply's
  ++pending_;
  return true;
}

bool RedisLink::subscribe(std::initializer_list<Bytes> args) {
  if (!up_) return false;
  Argv argv({args.begin(), args.size()});
  return redisAsyncCommandArgv(context_, on_subscribed, nullptr, static_cast<int>(args.size()),
                               argv.data.data(), argv.sizes.data()) == REDIS_OK;
}

void RedisLink::lose(Bytes reason) {
  if (idle()) return;
  const std::string why(reason);
  close();
  down(why);
}

void RedisLink::close() {
  resolver_.reset();
  up_ = false;
  if (context_ == nullptr) return;
  redisAsyncContext* const context = std::exchange(context_, nullptr);
  context->data = nullptr;
  redisAsyncFree(context);
}

}  // namespace nearcached
