// What a proxy knows of the others while writes are made known over the bus: whose messages have
// all arrived, and who has fallen silent.
//
// A proxy numbers its messages 1, 2, 3… but publishes them over several connections, so they arrive
// out of order; a heartbeat says up to which number all have been executed by Redis. Whoever has
// not seen one of those by then has missed it: a gap. Redis delivers what it executes in order to
// each subscriber, so a message that is late but not lost is never taken for a gap.
#pragma once
#include <cstddef>
#include <cstdint>
#include <set>
#include <unordered_map>

namespace nearcached::coherence {

class PeerTable {
 public:
  /// `peers_max`: more than that are not remembered, so each of their messages is a gap.
  /// `silence_ns`: after this without a heartbeat a peer counts as lost.
  PeerTable(size_t peers_max, uint64_t silence_ns)
      : peers_max_(peers_max), silence_ns_(silence_ns) {}

  /// All three return true if something may have been missed: everything held must be dropped. The
  /// first message of a peer always may: what it sent before is unknown.
  [[nodiscard]] bool on_message(uint64_t proxy, uint64_t sequence, uint64_t now_ns);
  [[nodiscard]] bool on_heartbeat(uint64_t proxy, uint64_t executed, uint64_t now_ns);
  /// Forgets the peers that have been silent for too long.
  [[nodiscard]] bool expire(uint64_t now_ns);
  /// The subscription is new: nothing is known of anybody.
  void clear() { peers_.clear(); }
  size_t size() const { return peers_.size(); }
  uint64_t refused() const { return refused_; }  ///< peers_max was hit

 private:
  struct Peer {
    uint64_t all_up_to = 0;    ///< every message up to this one has been seen
    std::set<uint64_t> ahead;  ///< seen beyond it
    uint64_t heard_ns = 0;
  };
  Peer* find(uint64_t proxy, uint64_t all_up_to, uint64_t now_ns, bool& is_new);
  static void advance(Peer& peer);

  size_t peers_max_;
  uint64_t silence_ns_;
  uint64_t refused_ = 0;
  std::unordered_map<uint64_t, Peer> peers_;
};

}  // namespace nearcached::coherence
