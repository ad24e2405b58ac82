// A stored schedule: an invalidation that is due once or again and again. Times are Unix
// milliseconds of the upstream's clock, which is the same for all proxies.
//
// As text, in a field of the hash: "1 <kind> <due> <every> <upstream> <database> <base> <what>".
#pragma once
#include <cstdint>
#include <string>

#include "nearcached/base/bytes.h"

namespace nearcached::coherence {

struct Schedule {
  enum class Kind : uint8_t { invalidate, pattern };
  Kind kind = Kind::invalidate;
  uint64_t due_ms = 0;
  uint64_t every_ms = 0;  ///< 0: once
  bool upstream = false;  ///< deletes in the upstream too
  uint32_t database = 0;
  /// Not 0: it was due then, and a proxy has taken it on until due_ms (a walk through the upstream
  /// that takes time); after that another may.
  uint64_t base_ms = 0;
  std::string what;  ///< a key or a glob

  std::string to_text() const;
  /// False: not one of ours.
  [[nodiscard]] bool parse(Bytes text);
  /// When it is due after this time; times that have passed meanwhile are skipped. 0: never again.
  uint64_t next_ms(uint64_t now_ms) const;
};

}  // namespace nearcached::coherence
