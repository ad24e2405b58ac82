// What a heap block really costs: the allocator's size class, not the size that was asked for.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nearcached::l1 {

/// The cost of a block of `bytes` that is not allocated yet: exact with jemalloc, a close guess
/// with the system's allocator.
uint64_t heap_cost_expected(size_t bytes);
/// The cost of `block`, which was allocated with `bytes`.
uint64_t heap_cost(const void* block, size_t bytes);
/// Never returns nullptr.
void* heap_alloc(size_t bytes);
void heap_free(void* block);

}  // namespace nearcached::l1
