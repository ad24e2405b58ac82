// Gather: one request of a client that has become several, at one or more nodes of a cluster, and
// whose replies become one again.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "nearcached/topology/topology.h"
#include "upstream/connection.h"

namespace nearcached {

class Router;

/// What becomes of the parts' replies. The first error among them is the answer, unless it says
/// otherwise; what other parts have done stays done.
enum class Merge : uint8_t {
  ok,      ///< the first reply
  first,   ///< the first that is no error; if all are, the first
  sum,     ///< the sum of the integers
  concat,  ///< one array of all their elements
  least,   ///< arrays of integers: of each element the least
  pick,    ///< one of those that are not null, at random
  values,  ///< MGET: the elements in their order; one of another type is null
  scan,    ///< SCAN: the cursor with the node in it
};

/// Owned by itself, until it has all its parts. Thread: its router's.
class Gather {
 public:
  Gather(Router& router, SessionRef session, uint32_t slot, Merge merge, size_t parts)
      : router_(router),
        session_(session),
        slot_(slot),
        merge_(merge),
        parts_(parts),
        left_(parts) {}

  /// A piece of the part's reply, `last` completes it. May delete this.
  void on_part(uint32_t part, Bytes bytes, bool last);
  /// The part's link was lost, whatever of its reply has come. May delete this.
  void fail(uint32_t part, Bytes error);
  /// A part of which the reply is known: it is not asked for. Does not delete this.
  void know(uint32_t part, Bytes reply);
  /// What has come of the part's reply is of a link that was lost: it is asked for again.
  void restart(uint32_t part) { parts_[part].clear(); }
  /// Of parts that are about all that a node has: where one is to be asked for again. That is the
  /// node itself, or who has taken over from it; kNoNode: nobody, or one that is asked anyway.
  NodeIndex successor(uint32_t part, const Topology& topology) const;
  /// The part's SCAN has no node to go on at: an empty page, and the same place again. Deletes
  /// this.
  void skip_page(uint32_t part);
  bool is_scan() const { return merge_ == Merge::scan; }

  size_t left() const { return left_; }
  SessionRef session() const { return session_; }
  uint32_t slot() const { return slot_; }
  /// The one reply; all parts are here.
  std::string merged() const;

  std::function<void(Bytes reply)> done;  ///< who is answered, if it is no session
  bool convert = false;                   ///< into RESP2
  bool fence = false;  ///< a part's keys are not known: to be acknowledged behind a fence
  struct NodePart {
    NodeIndex node;
    uint16_t slot;  ///< one that it owned; kNoSlot: nobody can take over
  };
  std::vector<NodePart> nodes;  ///< by part, of parts that name no key
  // Merge::scan.
  uint64_t scan_at = 0;    ///< the next primary, as a cursor; 0: this was the last
  uint64_t scan_here = 0;  ///< the cursor's part that names this node
  uint64_t scan_from = 0;  ///< the cursor of this page

 private:
  Router& router_;
  const SessionRef session_;
  const uint32_t slot_;
  const Merge merge_;
  std::vector<std::string> parts_;
  size_t left_;
  bool skipped_ = false;
};

/// Splits a whole array reply into its elements. False: no array, or not of `elements` many
/// (SIZE_MAX: any number).
bool split_array(Bytes reply, size_t elements, std::vector<Bytes>& out);
/// A whole reply that is a null of either protocol.
inline bool is_null(Bytes reply) {
  return reply == "_\r\n" || reply == "$-1\r\n" || reply == "*-1\r\n";
}

}  // namespace nearcached
