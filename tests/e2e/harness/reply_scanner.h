// ReplyScanner: where one RESP reply ends, for the tests alone.
//
// On purpose not the proxy's own parser: a mistake that both would share must still be seen.
#pragma once
#include <cstddef>
#include <string_view>

namespace nearcached::e2e {

/// Give it the growing bytes of one reply until it knows the length. It remembers how far it got,
/// so that a reply of any size is looked at once.
class ReplyScanner {
 public:
  /// The length of the first reply in `bytes`, or 0 while it is not whole. `bytes` must begin with
  /// what the previous call was given. Throws std::runtime_error for what is not RESP.
  size_t length(std::string_view bytes);

 private:
  size_t position_ = 0;   ///< everything before is understood
  size_t remaining_ = 1;  ///< elements that are still to come
};

}  // namespace nearcached::e2e
