// `ahead` holds what arrived before its turn; it is emptied from its beginning as the gaps close
// and, at the latest, by the next heartbeat, so it is as long as the messages of one heartbeat
// interval. The alternative, a sequence for each connection, detects a gap at once but knows
// nothing of a connection that published its last message into the void.
#include "nearcached/coherence/peers.h"

#include "nearcached/coherence/mutations.h"

namespace nearcached::coherence {
namespace {
// More out-of-order messages than any number of connections produce between two heartbeats.
constexpr size_t kAheadMax = 65'536;
}  // namespace

void PeerTable::advance(Peer& peer) {
  while (!peer.ahead.empty() && *peer.ahead.begin() <= peer.all_up_to + 1) {
    if (*peer.ahead.begin() == peer.all_up_to + 1) ++peer.all_up_to;
    peer.ahead.erase(peer.ahead.begin());
  }
}

PeerTable::Peer* PeerTable::find(uint64_t proxy, uint64_t all_up_to, uint64_t now_ns,
                                 bool& is_new) {
  const auto at = peers_.find(proxy);
  is_new = at == peers_.end();
  if (!is_new) return &at->second;
  if (peers_.size() >= peers_max_) {
    ++refused_;
    return nullptr;
  }
  Peer& peer = peers_[proxy];
  peer.all_up_to = all_up_to;
  peer.heard_ns = now_ns;
  return &peer;
}

bool PeerTable::on_message(uint64_t proxy, uint64_t sequence, uint64_t now_ns) {
  bool is_new = false;
  Peer* const peer = find(proxy, sequence == 0 ? 0 : sequence - 1, now_ns, is_new);
  if (peer == nullptr) return true;
  peer->ahead.insert(sequence);
  advance(*peer);
  if (peer->ahead.size() <= kAheadMax) return is_new && !mutation::no_gap;
  peer->all_up_to = *peer->ahead.rbegin();
  peer->ahead.clear();
  return true;
}

bool PeerTable::on_heartbeat(uint64_t proxy, uint64_t executed, uint64_t now_ns) {
  bool is_new = false;
  Peer* const peer = find(proxy, executed, now_ns, is_new);
  if (peer == nullptr) return true;
  peer->heard_ns = now_ns;
  const bool missed = peer->all_up_to < executed;
  if (missed) {
    peer->all_up_to = executed;
    advance(*peer);
  }
  return (is_new || missed) && !mutation::no_gap;
}

bool PeerTable::expire(uint64_t now_ns) {
  return std::erase_if(peers_,
                       [&](const auto& entry) {
                         return entry.second.heard_ns + silence_ns_ <= now_ns;
                       }) > 0 &&
         !mutation::no_gap;
}

}  // namespace nearcached::coherence
