// Comparison: one redis-server asked directly, and a proxy asked in the same words, in the same
// state. Every request goes twice in a row, so that what the proxy remembers is compared as well.
#pragma once
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "differential_table.h"
#include "harness/servers.h"

namespace nearcached::e2e {

/// What may differ when the proxy stands before a cluster, and why: differential/cluster.txt.
struct ExpectedDifferences {
  std::map<std::string, std::string> reasons;  ///< row → reason
  std::set<std::string> used;                  ///< rows
  /// Every key gets the same hash tag, on both sides, so that all are in one slot.
  bool tagged = false;
};

class Comparison {
 public:
  /// `differences`: none if it is null. All must outlive it.
  Comparison(int protocol, const Proxy& proxy, ExpectedDifferences* differences = nullptr);

  /// One paragraph of a table, then each of its cases in other forms. An expected difference ends
  /// the paragraph: the two sides hold different things then.
  void run(const Paragraph& paragraph);

 private:
  void start_over();
  void load_fixture();
  /// False: they differ, and that was expected.
  bool compare(const Case& c);
  bool compare_twice(const Case& c) { return compare(c) && (c.once || compare(c)); }
  bool is_expected(const Args& args, const std::string& direct, const std::string& through);
  /// CROSSSLOT is right: keys of several slots, in one request or in a transaction.
  bool crosses_slots(const Args& args, const std::string& direct);
  /// The case with a missing key, a key of a wrong type, one argument too many and one too few.
  std::vector<Case> other_forms(const Case& c);
  /// By COMMAND GETKEYS; none for a request that is not valid, and for commands without.
  const Args& keys_of(const Args& request);
  Args tag(Args args);

  const int protocol_;
  const Proxy& proxy_;
  ExpectedDifferences* differences_;
  RedisServer plain_;
  Client keys_;
  std::map<Args, Args> known_keys_;
  std::string fixture_requests_;
  int fixture_replies_ = 0;
  std::optional<RawClient> direct_;
  std::optional<RawClient> through_;
  Args last_;
};

}  // namespace nearcached::e2e
