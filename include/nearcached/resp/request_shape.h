// RequestShape: the part of a request that is the same for the next one: `*2 $3 GET $`.
//
// Most requests of a connection, and of a worker, differ from one before them in nothing but the
// arguments. Who has once understood such a request keeps its head; the next one that begins with
// the same bytes is the same command with as many arguments, and only those are read. A shape takes
// whole, canonical requests only; whatever else comes is left to the RequestParser, so a shape can
// refuse but never misread. Pure.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>

#include "nearcached/base/bytes.h"

namespace nearcached {

class RequestShape {
 public:
  static constexpr size_t kHeadBytesMax = 24;
  static constexpr size_t kArgsMax = 8;

  /// Takes the shape of `wire`, a whole canonical request of `args` arguments (Request::wire), the
  /// first of which is `name`. False: it has none (too long a name, no or too many arguments
  /// behind it), and this shape is as it was.
  bool learn(Bytes wire, Bytes name, size_t args);

  /// If `in` begins with a whole request of this shape: the arguments behind the name, and the
  /// bytes that the request takes; else 0. `bulk_bytes_max`: a longer argument is refused.
  size_t read(Bytes in, uint64_t bulk_bytes_max, std::array<Bytes, kArgsMax>& args) const;
  /// Does `in` begin as a request of this shape does, whole or not?
  bool begins(Bytes in) const;
  size_t args() const { return args_; }  ///< behind the name
  /// A number below `kinds` that is the same for all requests of one shape; `in` has at least
  /// kHashedBytes bytes.
  static size_t hash(Bytes in, size_t kinds) {
    uint64_t name;  // `$n\r\n` and the first letters; behind them, at most, more that is the same
    std::memcpy(&name, in.data() + 4, sizeof name);
    const uint64_t folded = (name ^ name >> 32) + static_cast<unsigned char>(in[1]);
    return (folded * 0x9E3779B97F4A7C15u >> 52) % kinds;
  }
  static constexpr size_t kHashedBytes = 16;  ///< no request with an argument is shorter

 private:
  std::array<char, kHeadBytesMax> head_{};  ///< to the `$` of the first argument
  uint8_t head_bytes_ = 0;                  ///< 0: nothing is of this shape
  uint8_t args_ = 0;
};

}  // namespace nearcached
