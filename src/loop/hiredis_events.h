// hiredis on our loop.
#pragma once
#include "loop/loop.h"

struct redisAsyncContext;

namespace nearcached {

/// From now on the loop tells `context` when its socket can be read or written, until hiredis frees
/// it. False: the socket cannot be watched.
bool attach_to_loop(redisAsyncContext& context, Loop& loop);

}  // namespace nearcached
