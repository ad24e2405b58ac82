// Giving memory back to the kernel.
#pragma once

namespace nearcached {

/// What this thread has freed and the allocator keeps goes back as far as it is old enough
/// (malloc_conf's decay). jemalloc sees to that only when it is called, so a thread that has
/// nothing more to do would keep the peak of its last busy moment for ever: 6 MB after 10,000
/// clients had asked once. A few µs; nothing with another allocator.
void give_back_freed_memory();

}  // namespace nearcached
