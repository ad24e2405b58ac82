// One atomic word per slot and nothing else: a write is one fetch_add before it is sent and one
// fetch_sub when its reply is here. All operations are seq_cst, so that a reader that could see a
// write's effect (an ack, another connection's reply) also sees its stamp; on x86 a seq_cst load is
// a plain load and the fetch_add is locked anyway, so a weaker order would win nothing.
//
// The array comes from calloc: untouched slots are the kernel's zero page and cost an idle proxy no
// memory, where an array of std::atomic would write all of it. Hence words behind std::atomic_ref.
// Rejected: padding each slot to a cache line; the table is sized to L1's capacity and false
// sharing needs two workers writing neighbours in the same nanoseconds.
#include "nearcached/coherence/stamp_table.h"

#include <algorithm>
#include <bit>

#include "nearcached/base/check.h"

namespace nearcached {
namespace {

constexpr uint64_t kSlotsMin = 1024;

// A count below zero would borrow from the version and look like 16 million writes in flight: the
// slot could never be filled again. The old value is in a register anyway.
void check_was_in_flight(uint64_t old_stamp) { NC_CHECK(!StampTable::settled(old_stamp)); }

}  // namespace

StampTable::StampTable(uint64_t slots) : mask_(std::bit_ceil(std::max(slots, kSlotsMin)) - 1) {
  table_.reset(static_cast<uint64_t*>(std::calloc(mask_ + 1, sizeof(uint64_t))));
  NC_CHECK(table_ != nullptr);
}

void StampTable::begin_write(uint64_t hash) { slot(hash).fetch_add(kVersion + kInFlight); }
void StampTable::end_write(uint64_t hash) { check_was_in_flight(slot(hash).fetch_sub(kInFlight)); }
void StampTable::invalidate(uint64_t hash) { slot(hash).fetch_add(kVersion); }

void StampTable::begin_write_all() { all_.fetch_add(kVersion + kInFlight); }
void StampTable::end_write_all() { check_was_in_flight(all_.fetch_sub(kInFlight)); }
void StampTable::invalidate_all() { all_.fetch_add(kVersion); }

}  // namespace nearcached
