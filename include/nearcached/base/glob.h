// Redis's glob (util.c stringmatchlen): * ? [set] [^set] [a-z] and \ to quote. Bytes, not
// characters.
#pragma once
#include "nearcached/base/bytes.h"

namespace nearcached {

/// True if `text` matches `pattern`. Linear in pattern × text even for hostile patterns such as
/// "a*a*a*a*b" (Redis bounds its recursion; this one backtracks to the last star only).
bool glob_match(Bytes pattern, Bytes text);

}  // namespace nearcached
