// Inquiry: one way of finding out who serves what. There are two: a cluster's nodes are asked for
// its slots, sentinels for the primary of a service.
// Thread: its loop's.
#pragma once
#include <vector>

#include "nearcached/base/bytes.h"
#include "nearcached/topology/topology.h"

namespace nearcached {

class Inquiry {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    /// A cluster has answered. `doubt`: why it should be asked again soon; mostly empty.
    virtual void on_ranges(const std::vector<SlotRange>& ranges, Bytes doubt) = 0;
    /// The service's primary, which says itself that it is one. Also unasked.
    virtual void on_primary(const Address& address) = 0;
    /// Everybody was asked, and nobody had a usable answer; `reason` is the last one's.
    virtual void on_nothing(Bytes reason) = 0;
  };

  virtual ~Inquiry() = default;
  /// Leads to one call of the owner; while one is under way it does nothing.
  virtual void ask() = 0;
  /// `address` is likely to know most: it is asked first.
  virtual void prefer(const Address& address) = 0;
  /// Nothing is called back after this.
  virtual void close() = 0;
};

}  // namespace nearcached
