// Reading the upstream's own description of its commands.
#pragma once
#include <vector>

#include "nearcached/command/table.h"

namespace nearcached {

/// The commands and subcommands in `reply`, a whole reply to COMMAND (RESP3 or RESP2, of Redis 6.0
/// or newer), as CommandTable::extended() describes them. An Error if anything in it is malformed.
Result<std::vector<Command>> parse_command_reply(Bytes reply);

}  // namespace nearcached
