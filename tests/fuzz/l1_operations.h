// Operations on a tiny L1 table, read from bytes, next to a map that forgets nothing. A hit must be
// what was stored last under that key, within its time, whatever hint was given, of this key or
// another, from just now or long ago; after each operation every invariant is verified. The budgets
// are so small that eviction and compaction never stop.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include "nearcached/base/check.h"
#include "nearcached/base/hash.h"
#include "nearcached/l1/table.h"

namespace nearcached::test {

class L1Operations {
 public:
  L1Operations(const uint8_t* data, size_t size)
      : at_(data), end_(data + size), options_(options()), table_(options_) {}

  void run() {
    while (at_ < end_) {
      step();
      table_.check_invariants();
    }
  }
  uint64_t hits() const { return hits_; }
  const L1Stats& stats() const { return table_.stats(); }

 private:
  using Key = std::tuple<uint32_t, uint16_t, std::string, std::string>;
  struct Stored {
    std::string reply;
    uint64_t stamp, filled_ms, expires_ms;
    bool plain, negative, bare;
  };

  unsigned next() { return at_ < end_ ? *at_++ : 0; }

  L1Options options() {
    constexpr std::array<uint64_t, 4> kBudgets = {9'000, 24'000, 70'000, 1u << 20};
    L1Options options;
    options.memory_bytes = kBudgets[next() % kBudgets.size()];
    options.policy = static_cast<L1Policy>(next() % kL1PolicyNames.size());
    const unsigned limit = next();
    options.entries_max = limit < 128 ? 0 : limit - 100;
    options.charge_overhead = limit % 8 != 0;
    // Some keys share a bucket, and some their hash.
    options.hash_of = [](Bytes key) {
      const uint64_t hash = hash_key(key, 7);
      return key.size() % 5 == 0 ? hash % 3 : hash;
    };
    options.is_dead = [](uint64_t, uint32_t, uint64_t stamp) { return stamp % 16 == 5; };
    return options;
  }

  Key pick_key() {
    const unsigned which = next();
    const unsigned variant = next();
    std::string name = "k" + std::to_string(which % 32);
    if (which % 32 == 31) name.append(300, 'k');
    return {which / 128, static_cast<uint16_t>(variant / 128), std::move(name),
            variant % 128 < 96 ? "" : std::to_string(variant % 32)};
  }
  L1Key l1(const Key& key) const {
    const auto& [space, command, name, variant] = key;
    return {options_.hash_of(name), space, command, name, variant};
  }

  void step() {
    const unsigned what = next();
    if (what < 110) put();
    else if (what < 220) find();
    else if (what < 230) erase();
    else if (what < 240) now_ms_ += next();
    else if (what < 248) table_.sweep(now_ms_);
    else if (what < 252) erase_key();
    else if (what < 254) walk();
    else if (what == 254) now_ms_ += uint64_t{next()} << 24;
    else clear();
  }

  void put() {
    const Key key = pick_key();
    const unsigned size = next();
    const size_t bytes = size < 200 ? size : size < 250 ? size * 8 : size * 80;
    const uint64_t version = next();
    const uint64_t stamp = version < 8 ? ~version : version < 64 ? version << 40 : version << 24;
    Stored stored{.reply = std::string(bytes, static_cast<char>(version)),
                  .stamp = stamp,
                  .filled_ms = now_ms_,
                  .expires_ms = now_ms_,
                  .plain = version % 2 == 0,
                  .negative = version % 3 == 0,
                  .bare = version % 5 == 0};
    stored.expires_ms += uint64_t{next()} << version % 24;
    const L1Fill fill{stored.reply, stored.stamp,    stored.filled_ms, stored.expires_ms,
                      stored.plain, stored.negative, stored.bare};
    const bool kept = table_.put(l1(key), fill, now_ms_);
    NC_CHECK(!kept || stored.expires_ms > now_ms_);
    model_.erase(key);
    if (kept) model_.emplace(key, std::move(stored));
  }

  void find() {
    const Key key = pick_key();
    const unsigned which = next();
    L1Hint& hint = hints_[which % hints_.size()];
    if (which >= 128) hint = table_.prefetch_item(l1(key));
    L1Hit hit;
    if (!table_.find(l1(key), now_ms_, hit, hint)) return;
    const auto it = model_.find(key);
    NC_CHECK(it != model_.end());
    const Stored& stored = it->second;
    NC_CHECK(now_ms_ < stored.expires_ms);
    NC_CHECK(hit.reply == stored.reply && hit.stamp == stored.stamp);
    NC_CHECK(hit.filled_ms == stored.filled_ms && hit.expires_ms == stored.expires_ms);
    NC_CHECK(hit.plain == stored.plain && hit.bare == stored.bare);
    NC_CHECK(hit.negative == stored.negative);
    ++hits_;
  }

  void erase() {
    const Key key = pick_key();
    hints_[0] = table_.prefetch_item(l1(key));
    table_.erase(l1(key));
    model_.erase(key);
    L1Hit hit;
    for (const L1Hint& hint : hints_) NC_CHECK(!table_.find(l1(key), now_ms_, hit, hint));
  }

  void erase_key() {
    const std::string name = std::get<2>(pick_key());
    table_.erase_key(options_.hash_of(name), name);
    std::erase_if(model_, [&](const auto& entry) { return std::get<2>(entry.first) == name; });
    table_.inspect(name, [](const L1Entry&) { NC_CHECK(false); });
  }

  void walk() {
    L1Table::Walk walk;
    const char digit = static_cast<char>('0' + next() % 10);
    const auto dead = [digit](Bytes key, uint64_t) { return key.back() == digit; };
    while (!table_.erase_if(walk, 1 + next(), dead)) {
    }
    std::erase_if(model_,
                  [&](const auto& entry) { return std::get<2>(entry.first).back() == digit; });
  }

  void clear() {
    table_.clear();
    model_.clear();
    NC_CHECK(table_.stats().items == 0);
  }

  const uint8_t* at_;
  const uint8_t* end_;
  const L1Options options_;
  L1Table table_;
  std::map<Key, Stored> model_;
  std::array<L1Hint, 8> hints_;
  uint64_t now_ms_ = 1'000'000;
  uint64_t hits_ = 0;
};

}  // namespace nearcached::test
