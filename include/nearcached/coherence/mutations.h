// Switches that turn single coherence mechanisms off, so that a test can show it would notice.
//
// They exist only in a build with -Dmutations=true (set through the environment variable
// NEARCACHED_MUTATION, read once at start); in every other build they are constant false and the
// compiler removes them. tests/mutations.json names, for each, the test that then fails.
#pragma once
#include "nearcached/base/bytes.h"

namespace nearcached::mutation {

#ifdef NEARCACHED_MUTATIONS
#define NEARCACHED_SWITCH(name) inline bool name = false
#else
#define NEARCACHED_SWITCH(name) inline constexpr bool name = false
#endif

NEARCACHED_SWITCH(no_stamp_check);  ///< serve and store whatever the stamp says
NEARCACHED_SWITCH(no_in_flight);    ///< fill and serve while a write is under way
NEARCACHED_SWITCH(no_join_rule);    ///< join a flight from before a write
NEARCACHED_SWITCH(no_order_rule);   ///< serve a hit ahead of earlier requests' replies
NEARCACHED_SWITCH(no_ttl_clamp);    ///< ignore PTTL
NEARCACHED_SWITCH(no_watermark);    ///< serve however old the link's last proof is
NEARCACHED_SWITCH(no_push);         ///< ignore the server's invalidations
NEARCACHED_SWITCH(no_epoch);        ///< keep what was filled over a link that was lost
NEARCACHED_SWITCH(no_fence);        ///< acknowledge a script without waiting for its invalidations
NEARCACHED_SWITCH(no_gap);          ///< overlook lost messages and silent peers on the bus
NEARCACHED_SWITCH(no_bus_proof);    ///< serve without waiting for the separate invalidation link
NEARCACHED_SWITCH(no_announce);     ///< do not publish what is written
NEARCACHED_SWITCH(no_pattern);      ///< accept patterns and ignore them

#undef NEARCACHED_SWITCH

/// Turns one switch on by its name. False: no such switch, or not a mutation build.
bool enable(Bytes name);

}  // namespace nearcached::mutation
