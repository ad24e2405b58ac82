// ClusterInquiry: asks the nodes of a cluster, one at a time, until one gives an answer that
// nothing speaks against.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "discovery/answers.h"
#include "discovery/conversation.h"
#include "discovery/discovery.h"
#include "discovery/inquiry.h"

namespace nearcached {

class ClusterInquiry final : public Inquiry {
 public:
  ClusterInquiry(Loop& loop, const Config& config, const TopologyStore& store, Owner& owner);
  void ask() override;
  void prefer(const Address& address) override { first_ = address; }
  void close() override { conversation_.close(); }

 private:
  struct Answer {
    Address from;
    ClusterState state;
    Result<std::vector<SlotRange>> ranges = Error{"no answer"};
    bool serves() const { return !ranges.value().empty(); }
  };
  std::vector<Address> candidates() const;
  void ask_next();
  void on_answer(Answer answer);
  void on_failure(const Address& address, const std::string& reason);
  std::string doubt(const Answer& answer) const;
  void conclude();

  const Config& config_;
  const TopologyStore& store_;
  Owner& owner_;
  Conversation conversation_;
  std::optional<Address> first_;  ///< who is asked first
  uint64_t epoch_ = 0;            ///< of the answer that was last believed
  unsigned round_ = 0;

  // The round under way.
  bool asking_ = false;
  std::vector<Address> candidates_;
  size_t next_ = 0;
  Answer answer_;                     ///< of the node that is being asked
  std::optional<Answer> best_;        ///< of those there is a doubt about
  size_t doubtful_ = 0, failed_ = 0;  ///< nodes so far
  std::string reason_;                ///< of the last that failed
};

}  // namespace nearcached
