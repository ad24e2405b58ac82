// Counts what a program takes from its allocator: a library that is preloaded into the program
// under test, whose allocations pass through here to the allocator it is linked with, whichever
// that is.
//
// The counts are two numbers in a file that NEARCACHED_ALLOCATIONS names, mapped and shared, so
// that a test reads them at any time and from outside: first those of the main thread, which does
// what is timed (the bus, discovery, logs), then those of all others, which serve clients.
//
// Operator new is counted here as well, for jemalloc's does not call malloc. What is given back is
// not counted: in steady state it was taken before.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

using Count = std::atomic<uint64_t>;

// Until the library is initialised, what is counted is of no interest.
Count before_start[2];
std::atomic<Count*> counts{before_start};

__attribute__((constructor)) void share_counts() {
  const char* path = std::getenv("NEARCACHED_ALLOCATIONS");
  if (path == nullptr) return;
  const int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  void* const page =
      mmap(nullptr, sizeof before_start, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (page != MAP_FAILED) counts = static_cast<Count*>(page);
}

void count() {
  // In the thread's own block: memory for it would be taken by malloc.
  static thread_local int role __attribute__((tls_model("initial-exec"))) = -1;
  if (role < 0) role = gettid() == getpid() ? 0 : 1;
  counts.load(std::memory_order_relaxed)[role].fetch_add(1, std::memory_order_relaxed);
}

template <typename Function>
Function* next(Function*, const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

void* take(size_t bytes) {
  static const auto real = next(&std::malloc, "malloc");
  count();
  return real(bytes);
}

void* take(size_t bytes, std::align_val_t alignment) {
  static const auto real = next(&std::aligned_alloc, "aligned_alloc");
  count();
  return real(static_cast<size_t>(alignment), bytes);
}

void* or_throw(void* block) {
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

}  // namespace

extern "C" {

void* malloc(size_t bytes) { return take(bytes); }

void* calloc(size_t n, size_t bytes) {
  static const auto real = next(&std::calloc, "calloc");
  count();
  return real(n, bytes);
}

void* realloc(void* block, size_t bytes) {
  static const auto real = next(&std::realloc, "realloc");
  count();
  return real(block, bytes);
}

void* aligned_alloc(size_t alignment, size_t bytes) {
  return take(bytes, std::align_val_t{alignment});
}

int posix_memalign(void** block, size_t alignment, size_t bytes) {
  *block = take(bytes, std::align_val_t{alignment});
  return *block != nullptr ? 0 : ENOMEM;
}

/// jemalloc's own.
void* mallocx(size_t bytes, int flags) {
  static const auto real = next(&mallocx, "mallocx");
  count();
  return real(bytes, flags);
}
}

void* operator new(size_t bytes) { return or_throw(take(bytes)); }
void* operator new[](size_t bytes) { return or_throw(take(bytes)); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return take(bytes); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return take(bytes); }
void* operator new(size_t bytes, std::align_val_t alignment) {
  return or_throw(take(bytes, alignment));
}
void* operator new[](size_t bytes, std::align_val_t alignment) {
  return or_throw(take(bytes, alignment));
}
