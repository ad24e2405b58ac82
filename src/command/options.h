// Walking the options behind a command's fixed arguments, for the few commands whose keys or whose
// nature depend on an option that may stand anywhere (SORT … STORE, XREAD … BLOCK).
//
// Walking option by option, as the server does, is what keeps an operand that looks like an option
// (SORT list BY store) from being taken for one. An unknown word is stepped over: the server
// refuses it, or it is newer than this list and then what follows must still be found.
#pragma once
#include <span>

#include "nearcached/base/bytes.h"

namespace nearcached {

struct Option {
  Bytes upper;       ///< the option's name in upper case
  uint8_t operands;  ///< arguments that belong to it
};

/// Calls visit(option, index of its word) for each known option in args[from…] until it returns
/// false.
template <typename Visit>
void for_each_option(std::span<const Bytes> args, size_t from, std::span<const Option> options,
                     Visit visit) {
  for (size_t i = from; i < args.size(); ++i) {
    for (const Option& option : options) {
      if (!equals_upper(args[i], option.upper)) continue;
      if (!visit(option, i)) return;
      i += option.operands;
      break;
    }
  }
}

}  // namespace nearcached
