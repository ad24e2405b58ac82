// One item as it lies in the log: a packed head of 11 bytes, the lengths in as few bytes as they
// need, then key, variant and reply; or, if that is large, a pointer to a heap block with them.
//
//   flags 2 | use 2 | expires 4 | context 2 | key length 1 | rank 0 or 16 | longer key length 0 or
//   4 | reply length 1, 2 or 4 | lifetime 2, 3 or 4 | stamp 1, 2, 5 or 8 | variant length 0 or 4 |
//   key, variant, reply  or  address of an External
//
// Nothing is rounded: lifetime and stamp are whole, in the shortest form that holds them. Only the
// expiry is kept modulo 2^32 ms: see L1Table::Impl::advance() for why that is never ambiguous.
// A stamp that is a version with nothing in flight (stamp_table.h) has 24 zero bits, which the
// short forms leave out; for any other there is the form of eight bytes.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "nearcached/base/bytes.h"

namespace nearcached::l1 {

/// How an item was used. f counts up to 31 and is the policy's; accesses is for INSPECT.
struct Use {
  static constexpr unsigned kFrequencyMax = 31;
  static constexpr unsigned kHit = 32;
  static constexpr unsigned kAccessesOne = 64;
  static constexpr unsigned kAccessesMax = 1023;

  uint16_t bits = 0;

  unsigned frequency() const { return bits & kFrequencyMax; }
  bool hit() const { return (bits & kHit) != 0; }
  unsigned accesses() const { return bits / kAccessesOne; }
  void set(unsigned frequency, bool hit) {
    bits = static_cast<uint16_t>((bits & ~(kFrequencyMax | kHit)) | frequency | (hit ? kHit : 0));
  }
  void touch() {
    unsigned next = bits | kHit;
    if ((next & kFrequencyMax) != kFrequencyMax) ++next;
    if (next / kAccessesOne != kAccessesMax) next += kAccessesOne;
    bits = static_cast<uint16_t>(next);
  }
};

/// Key, variant and reply of a large item, behind this head in one heap block.
struct External {
  External* newer;  ///< all of them, so that clear() finds them without reading the log
  External* older;
  char* data() { return reinterpret_cast<char*>(this + 1); }
};

/// A number in one of four widths; the code of the width is two bits of the item's flags.
template <unsigned A, unsigned B, unsigned C, unsigned D>
struct Packed {
  static constexpr std::array<uint8_t, 4> kWidth = {A, B, C, D};
  static unsigned code_of(uint64_t value) {
    unsigned code = 0;
    while (code < 3 && value >> (8 * kWidth[code]) != 0) ++code;
    return code;
  }
  static void store(char* to, unsigned code, uint64_t value) {
    std::memcpy(to, &value, kWidth[code]);
  }
};
using PackedLength = Packed<1, 2, 4, 4>;
using PackedLifetime = Packed<2, 3, 4, 4>;
using PackedVersion = Packed<1, 2, 5, 8>;

/// What is to be stored.
struct ItemFields {
  Bytes key, variant, reply;
  uint64_t stamp = 0;
  uint64_t expires_ms = 0;
  uint64_t lifetime_ms = 0;
  uint16_t context = 0;
  bool plain = false;
  bool bare = false;
  bool negative = false;
  Use use;
};

/// An item in place; a view as cheap as the pointer it is. `rank` is the table's constant number of
/// bytes that a ranked policy keeps in each item.
class Item {
 public:
  static constexpr unsigned kPlain = 1, kNegative = 2, kDead = 4, kVariant = 8, kExternal = 16;
  static constexpr unsigned kLengthShift = 5, kLifetimeShift = 7, kStampShift = 9;
  static constexpr unsigned kBare = 1u << 11;
  static constexpr unsigned kRankAt = 11;

  Item(char* at, unsigned rank) : at_(at), rank_(rank) {}

  char* at() const { return at_; }
  unsigned flags() const { return load<uint16_t>(0); }
  bool dead() const { return (flags() & kDead) != 0; }
  bool plain() const { return (flags() & kPlain) != 0; }
  bool bare() const { return (flags() & kBare) != 0; }
  bool negative() const { return (flags() & kNegative) != 0; }
  bool external() const { return (flags() & kExternal) != 0; }
  void mark_dead() { save<uint16_t>(0, static_cast<uint16_t>(flags() | kDead)); }
  Use use() const { return Use{load<uint16_t>(2)}; }
  void set_use(Use use) { save<uint16_t>(2, use.bits); }
  uint32_t expires_low() const { return load<uint32_t>(4); }
  uint16_t context() const { return load<uint16_t>(8); }
  char* rank() const { return at_ + kRankAt; }

  /// Where everything is; read once per use.
  struct Parts {
    Bytes key, variant, reply;
    uint64_t stamp = 0;
    uint64_t lifetime_ms = 0;
    External* block = nullptr;
    uint32_t bytes = 0;  ///< in the log
    uint64_t payload() const { return key.size() + variant.size() + reply.size(); }
  };
  Parts parts() const {
    const unsigned f = flags();
    Parts parts;
    const char* p = at_ + kRankAt + rank_;
    uint32_t key_bytes = static_cast<uint8_t>(at_[10]);
    if (key_bytes == 255) key_bytes = take<uint32_t>(p);
    const Layout& layout = kLayouts[f >> kLengthShift & 63];
    const uint64_t reply_bytes = load_masked(p, layout.length_mask);
    parts.lifetime_ms = load_masked(p + layout.lifetime_at, layout.lifetime_mask);
    parts.stamp = load_masked(p + layout.stamp_at, layout.stamp_mask) << layout.stamp_shift;
    p += layout.end;
    const uint32_t variant_bytes = (f & kVariant) != 0 ? take<uint32_t>(p) : 0;
    const char* data = p;
    if ((f & kExternal) != 0) {
      parts.block = take<External*>(p);
      data = parts.block->data();
    } else {
      p += key_bytes + variant_bytes + reply_bytes;
    }
    parts.bytes = static_cast<uint32_t>(p - at_);
    parts.key = {data, key_bytes};
    parts.variant = {data + key_bytes, variant_bytes};
    parts.reply = {data + key_bytes + variant_bytes, reply_bytes};
    return parts;
  }
  uint32_t bytes() const { return parts().bytes; }
  /// Whether these are its key and variant. Reads no more than it needs: a look-up asks it first,
  /// and parts() costs as much as all the rest of a look-up.
  bool is_of(Bytes key, Bytes variant) const {
    const unsigned f = flags();
    const char* p = at_ + kRankAt + rank_;
    uint32_t key_bytes = static_cast<uint8_t>(at_[10]);
    if (key_bytes == 255) key_bytes = take<uint32_t>(p);
    if (key_bytes != key.size()) return false;
    p += kLayouts[f >> kLengthShift & 63].end;
    const uint32_t variant_bytes = (f & kVariant) != 0 ? take<uint32_t>(p) : 0;
    if (variant_bytes != variant.size()) return false;
    if ((f & kExternal) != 0) p = take<External*>(p)->data();
    return same(p, key) && (variant_bytes == 0 || same(p + key_bytes, variant));
  }
  /// Whether it is the key's, without a variant, and in the form that most items have: a short key
  /// that lies in the log. False says nothing.
  bool is_common_of(Bytes key) const {
    const unsigned f = flags();
    if ((f & (kVariant | kExternal)) != 0 || key.size() >= 255) return false;
    if (static_cast<uint8_t>(at_[10]) != key.size()) return false;
    return same(at_ + kRankAt + rank_ + kLayouts[f >> kLengthShift & 63].end, key);
  }

  /// Bytes in the log that write() will need.
  static uint32_t bytes_of(const ItemFields& f, unsigned rank, bool external) {
    const Codes codes = codes_of(f);
    uint64_t bytes = kRankAt + rank + (f.key.size() >= 255 ? 4u : 0u) +
                     PackedLength::kWidth[codes.length] + PackedLifetime::kWidth[codes.lifetime] +
                     PackedVersion::kWidth[codes.stamp] + (f.variant.empty() ? 0u : 4u);
    bytes += external ? sizeof(External*) : f.key.size() + f.variant.size() + f.reply.size();
    return static_cast<uint32_t>(bytes);
  }
  /// Writes a whole item at `at`; `block` holds the payload of an external one, else nullptr.
  static void write(char* at, const ItemFields& f, unsigned rank, External* block) {
    const Codes codes = codes_of(f);
    Item item(at, rank);
    item.save<uint16_t>(
        0, static_cast<uint16_t>((f.plain ? kPlain : 0) | (f.bare ? kBare : 0) |
                                 (f.negative ? kNegative : 0) | (f.variant.empty() ? 0 : kVariant) |
                                 (block ? kExternal : 0) | codes.length << kLengthShift |
                                 codes.lifetime << kLifetimeShift | codes.stamp << kStampShift));
    item.set_use(f.use);
    item.save<uint32_t>(4, static_cast<uint32_t>(f.expires_ms));
    item.save<uint16_t>(8, f.context);
    at[10] = static_cast<char>(std::min<size_t>(f.key.size(), 255));
    char* p = at + kRankAt + rank;
    if (f.key.size() >= 255) put<uint32_t>(p, static_cast<uint32_t>(f.key.size()));
    PackedLength::store(p, codes.length, f.reply.size());
    p += PackedLength::kWidth[codes.length];
    PackedLifetime::store(p, codes.lifetime, f.lifetime_ms);
    p += PackedLifetime::kWidth[codes.lifetime];
    PackedVersion::store(p, codes.stamp, codes.stamp == 3 ? f.stamp : f.stamp >> kStampZeros);
    p += PackedVersion::kWidth[codes.stamp];
    if (!f.variant.empty()) put<uint32_t>(p, static_cast<uint32_t>(f.variant.size()));
    if (block != nullptr) {
      put<External*>(p, block);
      p = block->data();
    }
    for (const Bytes part : {f.key, f.variant, f.reply}) p = std::copy(part.begin(), part.end(), p);
  }

 private:
  static constexpr unsigned kStampZeros = 24;
  struct Codes {
    unsigned length, lifetime, stamp;
  };
  /// Where the numbers of an item are, by the six bits of their codes: one read instead of three
  /// that wait for each other.
  struct Layout {
    uint64_t length_mask, lifetime_mask, stamp_mask;
    uint8_t lifetime_at, stamp_at, end, stamp_shift;
  };
  static constexpr uint64_t mask_of(unsigned width) { return ~uint64_t{0} >> (64 - 8 * width); }
  static constexpr std::array<Layout, 64> make_layouts() {
    std::array<Layout, 64> layouts{};
    for (unsigned code = 0; code < 64; ++code) {
      const uint8_t length = PackedLength::kWidth[code & 3];
      const uint8_t lifetime = PackedLifetime::kWidth[code >> 2 & 3];
      const uint8_t stamp = PackedVersion::kWidth[code >> 4];
      layouts[code] = {mask_of(length),
                       mask_of(lifetime),
                       mask_of(stamp),
                       length,
                       static_cast<uint8_t>(length + lifetime),
                       static_cast<uint8_t>(length + lifetime + stamp),
                       static_cast<uint8_t>(code >> 4 == 3 ? 0 : kStampZeros)};
    }
    return layouts;
  }
  static const std::array<Layout, 64> kLayouts;
  /// Reads eight bytes whatever the width: the log has room behind its last item.
  static uint64_t load_masked(const char* from, uint64_t mask) {
    uint64_t value;
    std::memcpy(&value, from, sizeof(value));
    return value & mask;
  }
  /// What memcmp() would say; most keys are short, and calling it costs more than comparing them.
  static bool same(const char* at, Bytes text) {
    const size_t size = text.size();
    if (size < 8 || size > 32) return std::memcmp(at, text.data(), size) == 0;
    const auto word = [](const char* from) {
      uint64_t value;
      std::memcpy(&value, from, sizeof(value));
      return value;
    };
    for (size_t i = 0; i + 8 < size; i += 8)
      if (word(at + i) != word(text.data() + i)) return false;
    return word(at + size - 8) == word(text.data() + size - 8);
  }
  static Codes codes_of(const ItemFields& f) {
    const uint64_t version = f.stamp >> kStampZeros;
    const bool settled = version << kStampZeros == f.stamp;
    return {PackedLength::code_of(f.reply.size()), PackedLifetime::code_of(f.lifetime_ms),
            settled ? PackedVersion::code_of(version) : 3};
  }
  template <typename T>
  T load(unsigned offset) const {
    T value;
    std::memcpy(&value, at_ + offset, sizeof(T));
    return value;
  }
  template <typename T>
  void save(unsigned offset, T value) {
    std::memcpy(at_ + offset, &value, sizeof(T));
  }
  template <typename T>
  static T take(const char*& p) {
    T value;
    std::memcpy(&value, p, sizeof(T));
    p += sizeof(T);
    return value;
  }
  template <typename T>
  static void put(char*& p, T value) {
    std::memcpy(p, &value, sizeof(T));
    p += sizeof(T);
  }

  char* at_;
  unsigned rank_;
};

inline constexpr std::array<Item::Layout, 64> Item::kLayouts = Item::make_layouts();

}  // namespace nearcached::l1
