// What clusters and sentinels answer about who serves what, checked before anything is done with
// it. Functions of the reply alone: a server that is wrong or hostile costs an error, no more.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "nearcached/base/bytes.h"
#include "nearcached/base/result.h"
#include "nearcached/topology/topology.h"

struct redisReply;

namespace nearcached {

/// The text of a status, bulk or error; empty for any other reply.
Bytes text_of(const redisReply& reply);

/// CLUSTER SLOTS as answered by `asked_host`. A node that does not know its own host, or must not
/// tell, is at `asked_host`; one that is to be called by a name but has none is at its IP address.
Result<std::vector<SlotRange>> parse_cluster_slots(const redisReply& reply,
                                                   const std::string& asked_host);

/// CLUSTER INFO. A user may lack the right to ask: then nothing is known, and nothing is wrong.
struct ClusterState {
  bool failed = false;            ///< cluster_state is not ok: some keys are not served
  std::optional<uint64_t> epoch;  ///< cluster_current_epoch: who has the higher one knows more
};
ClusterState parse_cluster_info(const redisReply& reply);

/// SENTINEL get-master-addr-by-name `service`.
Result<Address> parse_primary_address(const redisReply& reply, Bytes service);

/// ROLE. An error that says which role it is, unless it is a primary's.
Result<void> parse_primary_role(const redisReply& reply);

/// The payload of +switch-master. Nothing if it is about another service, or malformed.
std::optional<Address> parse_switch_master(Bytes payload, Bytes service);

}  // namespace nearcached
