// The table as others see it; the work is done in store.h and reclaim.cc.
#include "nearcached/l1/table.h"

#include "l1/store.h"

namespace nearcached {

using l1::Cause;
using l1::Item;
using l1::Store;

struct L1Table::Impl : Store {
  using Store::Store;
};

L1Table::L1Table(L1Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}

L1Table::~L1Table() = default;

namespace {

// The parts stay in registers: a hit that writes them to memory and reads them back at once waits.
// All is read before anything is written, which might be the item for all that the compiler knows.
void fill_in(L1Hit& hit, const Store& t, const Item& item) {
  const Item::Parts parts = item.parts();
  const uint64_t expires_ms = t.expires_ms(item);
  const bool plain = item.plain(), bare = item.bare(), negative = item.negative();
  const bool first = item.use().accesses() == 0;
  hit.reply = Bytes(parts.reply.data(), parts.reply.size());
  hit.stamp = parts.stamp;
  hit.expires_ms = expires_ms;
  hit.filled_ms = expires_ms - parts.lifetime_ms;
  hit.plain = plain;
  hit.bare = bare;
  hit.negative = negative;
  hit.first = first;
}

// What has been found, if it is not past its time. Inline, so that what was read of the item to
// compare it is not read again.
inline bool take(Store& t, Store::Place place, uint64_t now_ms, L1Hit& hit) {
  const Item item = t.log.item(place);
  if (t.expired(item, now_ms)) {
    t.drop(place, Cause::expired);
    return false;
  }
  fill_in(hit, t, item);
  t.count_access(item);
  return true;
}

}  // namespace

bool L1Table::find(const L1Key& key, uint64_t now_ms, L1Hit& hit, L1Hint hint) {
  Store& t = *impl_;
  t.advance(now_ms);
  if (t.is_at(hint, key)) return take(t, hint.place, now_ms, hit);
  const Store::Place place = t.look_up(key);
  return place != 0 && take(t, place, now_ms, hit);
}

bool L1Table::peek(const L1Key& key, uint64_t now_ms, L1Hit& hit) const {
  const Store& t = *impl_;
  const Store::Place place = t.look_up(key);
  if (place == 0) return false;
  const Item item = t.log.item(place);
  if (t.expired(item, now_ms)) return false;
  fill_in(hit, t, item);
  return true;
}

void L1Table::prefetch(const L1Key& key) const {
  impl_->index.prefetch_bucket(Store::mix_of(key.hash));
}

L1Hint L1Table::prefetch_item(const L1Key& key) const {
  const Store& t = *impl_;
  const uint16_t context = t.contexts.find(key.space, key.command);
  if (context == l1::Contexts::kNone) return {};
  const Store::Place place = t.index.guess(t.address_of(key, context));
  if (place == 0) return {};
  // Head, key and a short reply: two lines, or three, for an item begins anywhere.
  const char* at = t.log.item(place).at();
  for (const int offset : {0, 64, 112}) __builtin_prefetch(at + offset);
  return {place, t.index.departures()};
}

bool L1Table::put(const L1Key& key, const L1Fill& fill, uint64_t now_ms) {
  return impl_->put(key, fill, now_ms);
}

bool L1Table::erase(const L1Key& key) {
  const Store::Place place = impl_->look_up(key);
  if (place == 0) return false;
  impl_->drop(place, Cause::superseded);
  return true;
}

uint64_t L1Table::erase_key(uint64_t hash, Bytes key) {
  Store& t = *impl_;
  std::vector<Store::Place> doomed;
  t.index.for_each_of_key(Store::mix_of(hash), [&](Store::Place place) {
    if (t.log.item(place).parts().key == key) doomed.push_back(place);
  });
  for (const Store::Place place : doomed) t.drop(place, Cause::superseded);
  return doomed.size();
}

void L1Table::clear() { impl_->clear(); }

void L1Table::inspect(Bytes key, const std::function<void(const L1Entry&)>& visit) const {
  const Store& t = *impl_;
  if (t.index.items() == 0) return;
  const uint64_t mix = Store::mix_of(t.options.hash_of(key));
  t.index.for_each_of_key(mix, [&](Store::Place place) {
    const Item item = t.log.item(place);
    const Item::Parts parts = item.parts();
    if (parts.key != key) return;
    const uint64_t expires_ms = t.expires_ms(item);
    visit(L1Entry{.space = t.contexts.space(item.context()),
                  .command = t.contexts.command(item.context()),
                  .key = parts.key,
                  .variant = parts.variant,
                  .reply_bytes = static_cast<uint32_t>(parts.reply.size()),
                  .bytes = static_cast<uint32_t>(t.bytes_of(parts)),
                  .accesses = item.use().accesses(),
                  .stamp = parts.stamp,
                  .filled_ms = expires_ms - parts.lifetime_ms,
                  .expires_ms = expires_ms,
                  .negative = item.negative()});
  });
}

void L1Table::sweep(uint64_t now_ms) { impl_->sweep(now_ms); }

// The index grows by splitting buckets into higher numbers, which the walk comes to later; when it
// has shrunk, items may have moved behind the walk, which then begins again.
bool L1Table::erase_if(Walk& walk, uint64_t buckets,
                       const std::function<bool(Bytes key, uint64_t filled_ms)>& dead) {
  Store& t = *impl_;
  if (t.index.bucket_count() < walk.bucket_count) walk.bucket = 0;
  walk.bucket_count = t.index.bucket_count();
  std::vector<Store::Place> doomed;
  for (; buckets > 0 && walk.bucket < t.index.bucket_count(); --buckets, ++walk.bucket)
    t.index.for_each(walk.bucket, [&](Store::Place place) {
      const Item item = t.log.item(place);
      const Item::Parts parts = item.parts();
      if (dead(parts.key, t.expires_ms(item) - parts.lifetime_ms)) doomed.push_back(place);
    });
  for (const Store::Place place : doomed) t.drop(place, Cause::dead);
  return walk.bucket >= t.index.bucket_count();
}

const L1Stats& L1Table::stats() const {
  impl_->stats.items = impl_->index.items();
  impl_->stats.used_bytes = impl_->used();
  return impl_->stats;
}

void L1Table::check_invariants() const { impl_->check_invariants(); }

}  // namespace nearcached
