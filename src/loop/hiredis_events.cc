// Instead of hiredis 0.14's own adapter for libuv, which ignores errors: libuv reports a socket's
// POLLERR as an error and stops watching it, so with that adapter a refused connection and a reset
// one look like a server that is silent, until somebody's timeout. Here an error counts as readable
// and writable: hiredis tries, and finds out itself.
#include "loop/hiredis_events.h"

#include <hiredis/async.h>

namespace nearcached {
namespace {

struct Watch {
  redisAsyncContext* context;  ///< null: freed by hiredis
  int wanted = 0;
  uv_poll_t poll;

  void want(int events) {
    wanted = events;
    if (wanted != 0) uv_poll_start(&poll, wanted, on_event);
    else uv_poll_stop(&poll);
  }

  static void on_event(uv_poll_t* poll, int status, int events) {
    auto* const self = static_cast<Watch*>(poll->data);
    if (status != 0) events = UV_READABLE | UV_WRITABLE;
    // Each of the two may free the context.
    if (self->context != nullptr && (events & UV_READABLE) != 0)
      redisAsyncHandleRead(self->context);
    if (self->context != nullptr && (events & UV_WRITABLE) != 0)
      redisAsyncHandleWrite(self->context);
    if (self->context != nullptr && status != 0) self->want(self->wanted);
  }
};

template <int kSet, int kClear>
void change(void* watch) {
  auto* const self = static_cast<Watch*>(watch);
  self->want((self->wanted | kSet) & ~kClear);
}

void cleanup(void* watch) {
  auto* const self = static_cast<Watch*>(watch);
  self->context = nullptr;
  uv_close(reinterpret_cast<uv_handle_t*>(&self->poll),
           [](uv_handle_t* handle) { delete static_cast<Watch*>(handle->data); });
}

}  // namespace

bool attach_to_loop(redisAsyncContext& context, Loop& loop) {
  auto watch = std::make_unique<Watch>(Watch{&context, 0, {}});
  if (uv_poll_init(loop.raw(), &watch->poll, context.c.fd) != 0) return false;
  watch->poll.data = watch.get();
  context.ev.addRead = change<UV_READABLE, 0>;
  context.ev.delRead = change<0, UV_READABLE>;
  context.ev.addWrite = change<UV_WRITABLE, 0>;
  context.ev.delWrite = change<0, UV_WRITABLE>;
  context.ev.cleanup = cleanup;
  context.ev.data = watch.release();
  return true;
}

}  // namespace nearcached
