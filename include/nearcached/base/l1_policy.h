// Who leaves L1 when memory is needed. Here, because both the configuration and the table speak of
// it.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace nearcached {

enum class L1Policy : uint8_t {
  automatic,  ///< by use, size and age, with a trial for what is new (src/README.md compares them)
  lru,        ///< exact
  lfu,        ///< least frequently used, with ageing
  random,
  s3fifo,
  gdsf,  ///< greedy dual: frequency over size, with ageing
};

/// In the order of the enumerators.
inline constexpr std::array<std::string_view, 6> kL1PolicyNames = {"auto",   "lru",    "lfu",
                                                                   "random", "s3fifo", "gdsf"};

}  // namespace nearcached
