// The levels of the log, apart from log.h so that the configuration need not know the log.
#pragma once
#include <cstdint>

namespace nearcached {

enum class LogLevel : uint8_t { trace, debug, info, warn, error };

}  // namespace nearcached
