// RedisLink: one hiredis connection on the loop, for control work: the bus, probes, schedules.
// RESP2 only, no TLS (hiredis 0.14). The data path has its own Connection (upstream/connection.h).
//
// Thread: its loop's. One attempt at a time: connect(), then on_up or on_down; after on_down it may
// be connected again. Nothing is called back after close().
#pragma once
#include <functional>
#include <span>
#include <string>

#include "loop/loop.h"

struct redisAsyncContext;
struct redisReply;

namespace nearcached {

class RedisLink {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void on_up(RedisLink& link) = 0;
    /// `reason`: hiredis's, or the server's own words if it refused a subscription.
    virtual void on_down(RedisLink& link, Bytes reason) = 0;
    /// A message or confirmation on a subscribed connection.
    virtual void on_message(RedisLink& link, redisReply& reply) = 0;
  };
  /// The reply, valid for the call. Not called if the link is lost first: on_down tells.
  using Callback = std::function<void(redisReply& reply)>;

  RedisLink(Loop& loop, Handler& handler) : loop_(loop), handler_(handler) {}
  ~RedisLink() { close(); }
  RedisLink(const RedisLink&) = delete;
  RedisLink& operator=(const RedisLink&) = delete;

  void connect(const Address& address, unsigned attempt);
  /// False: there is no link.
  bool command(std::span<const Bytes> args, Callback callback);
  bool command(std::initializer_list<Bytes> args, Callback callback) {
    return command(std::span<const Bytes>(args.begin(), args.size()), std::move(callback));
  }
  /// (P)SUBSCRIBE: what comes of it goes to on_message. A refusal loses the link.
  bool subscribe(std::initializer_list<Bytes> args);
  /// Gives up the link; on_down follows from the call itself.
  void lose(Bytes reason);
  void close();
  bool up() const { return up_; }
  bool idle() const { return context_ == nullptr && resolver_ == nullptr; }
  size_t pending() const { return pending_; }

 private:
  struct Request;
  void attach(redisAsyncContext* context);
  void down(Bytes reason);
  static void on_reply(redisAsyncContext* context, void* reply, void* request);
  static void on_subscribed(redisAsyncContext* context, void* reply, void*);

  Loop& loop_;
  Handler& handler_;
  std::unique_ptr<Resolver> resolver_;
  redisAsyncContext* context_ = nullptr;
  size_t pending_ = 0;
  bool up_ = false;
};

}  // namespace nearcached
