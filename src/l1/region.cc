// Reserving costs nothing but addresses (MAP_NORESERVE). Rejected: a vector of pages, one more
// dependent read on every lookup; and realloc, which moves everything in one pause.
#include "l1/region.h"

#include <sys/mman.h>

#include "nearcached/base/check.h"

namespace nearcached::l1 {
namespace {

// A range is filled from its beginning. So much of it lies on small pages: the unused rest of a
// huge one would be more than a few per cent of what is used.
constexpr uint64_t kHugeFrom = 16u << 20;
constexpr uint64_t kHugeBytes = 2u << 20;

constexpr uint64_t round_up(uint64_t bytes) {
  return (bytes + Region::kPageBytes - 1) & ~(Region::kPageBytes - 1);
}

}  // namespace

Region::Region(uint64_t bytes) : bytes_(round_up(bytes == 0 ? 1 : bytes)) {
  void* at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  NC_CHECK(at != MAP_FAILED);
  base_ = static_cast<char*>(at);
  // Advice: refusal is no error.
  if (bytes_ >= kHugeFrom + kHugeBytes)
    madvise(base_ + kHugeFrom, bytes_ - kHugeFrom, MADV_HUGEPAGE);
}

Region::~Region() { munmap(base_, bytes_); }

void Region::release(uint64_t from, uint64_t to) {
  from = round_up(from);
  to &= ~(kPageBytes - 1);
  if (from < to) NC_CHECK(madvise(base_ + from, to - from, MADV_DONTNEED) == 0);
}

}  // namespace nearcached::l1
