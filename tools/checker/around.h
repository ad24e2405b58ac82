// Writers around the caches have to find the right server themselves: in a cluster the node that
// owns the slot, behind Sentinel the present primary.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "connection.h"

namespace checker {

/// Follows a Redis Cluster as a client library does.
class Cluster final : public Link {
 public:
  /// `seeds`: HOST:PORT of some nodes.
  Cluster(std::vector<std::string> seeds, unsigned timeout_ms);
  /// One after the other, each to the owner of its key; MULTI … EXEC together to that of the
  /// second's key. What was certainly not executed is tried again until `timeout_ms` are over.
  std::vector<Reply> ask_all(const std::vector<Request>& requests) override;

 private:
  std::vector<Reply> ask_owner(const std::vector<Request>& requests, const std::string& key);
  /// Throws ConnectionLost only if nothing was sent.
  Connection& link(const std::string& node);
  void refresh();

  const std::vector<std::string> seeds_;
  const unsigned timeout_ms_;
  std::vector<std::string> owners_;  ///< by slot; empty: not known
  std::map<std::string, std::unique_ptr<Connection>> links_;
};

/// A connection to what one of the sentinels, HOST:PORT, calls the primary of `service`.
Connection connect_to_primary(const std::vector<std::string>& sentinels, const std::string& service,
                              unsigned timeout_ms);

}  // namespace checker
