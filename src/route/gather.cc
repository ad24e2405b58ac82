// Requests that are taken apart: several keys in several slots, or no key and every node.
//
// A cluster executes a command only if all its keys are in one slot, and knows nothing of commands
// over the whole data set. So MSET, DEL and the like go slot by slot, MGET key by key (each key is
// then a read like any other, with its hit, its flight and its fill), and the others to every
// primary. What Redis promises of one command, that it happens at one moment, is lost between
// slots; README says so. A pipeline keeps its order all the same: the parts take the place of the
// request on each lane.
#include "route/gather.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <random>

#include "nearcached/base/hash.h"
#include "nearcached/resp/writer.h"
#include "route/flight.h"
#include "route/router.h"

namespace nearcached {
namespace {

// A cursor of ours: the node's own above, then the version of the topology under which the scan
// began (never 0), then the node. Redis's cursors have as many bits as its tables' sizes.
constexpr unsigned kNodeBits = 12, kVersionBits = 8;
constexpr uint64_t kCursorMax = 1ull << (64 - kNodeBits - kVersionBits);

uint64_t version_bits(const Topology& topology) { return 1 + topology.version() % 255; }

uint64_t head_of(const Topology& topology, NodeIndex node) {
  return version_bits(topology) << kNodeBits | node;
}

bool to_number(Bytes text, uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

int64_t integer_of(Bytes reply) {
  int64_t value = 0;
  if (reply.starts_with(":")) std::from_chars(reply.data() + 1, reply.data() + reply.size(), value);
  return value;
}

std::string array_of(const std::vector<Bytes>& elements) {
  std::string text = "*" + std::to_string(elements.size()) + "\r\n";
  for (const Bytes element : elements) text += element;
  return text;
}

// By node, the first slot it owns.
std::vector<uint16_t> first_slots(const Topology& topology) {
  std::vector<uint16_t> first(topology.nodes().size(), kNoSlot);
  for (uint16_t slot = kSlots; slot-- > 0;)
    if (const NodeIndex owner = topology.owner(slot); owner != kNoNode) first[owner] = slot;
  return first;
}

std::string least_of(const std::vector<std::string>& parts) {
  std::vector<Bytes> least;
  if (!split_array(parts[0], SIZE_MAX, least)) return parts[0];
  for (const std::string& part : parts) {
    std::vector<Bytes> elements;
    if (!split_array(part, least.size(), elements)) return part;
    for (size_t i = 0; i < least.size(); ++i)
      if (integer_of(elements[i]) < integer_of(least[i])) least[i] = elements[i];
  }
  return array_of(least);
}

std::string picked(const std::vector<std::string>& parts) {
  thread_local std::minstd_rand random{std::random_device{}()};
  std::vector<const std::string*> candidates;
  for (const std::string& part : parts)
    if (!is_null(part)) candidates.push_back(&part);
  if (candidates.empty()) return parts[0];
  return *candidates[random() % candidates.size()];
}

}  // namespace

bool split_array(Bytes reply, size_t elements, std::vector<Bytes>& out) {
  if (reply.empty() || reply[0] != '*') return false;
  const size_t header = reply.find("\r\n") + 2;
  size_t n = 0;
  std::from_chars(reply.data() + 1, reply.data() + header, n);
  if (elements != SIZE_MAX && n != elements) return false;
  reply.remove_prefix(header);
  for (size_t i = 0; i < n; ++i) {
    ReplyScanner scanner;
    const ReplyScanner::Step step = scanner.scan(reply);
    if (step.status != ReplyScanner::Status::done) return false;
    out.push_back(reply.substr(0, step.consumed));
    reply.remove_prefix(step.consumed);
  }
  return true;
}

void Gather::know(uint32_t part, Bytes reply) {
  parts_[part].assign(reply);
  --left_;
}

void Gather::fail(uint32_t part, Bytes error) {
  parts_[part].clear();
  on_part(part, error, true);
}

void Gather::on_part(uint32_t part, Bytes bytes, bool last) {
  parts_[part].append(bytes);
  if (!last || --left_ > 0) return;
  router_.end_gather(*this);
  delete this;
}

NodeIndex Gather::successor(uint32_t part, const Topology& topology) const {
  const auto [node, slot] = nodes[part];
  const std::vector<NodeIndex> primaries = topology.primaries();
  if (std::binary_search(primaries.begin(), primaries.end(), node)) return node;
  const NodeIndex heir = slot == kNoSlot ? kNoNode : topology.owner(slot);
  const bool asked = std::any_of(nodes.begin(), nodes.end(),
                                 [&](const NodePart& other) { return other.node == heir; });
  return asked ? kNoNode : heir;
}

void Gather::skip_page(uint32_t part) {
  skipped_ = true;
  on_part(part, {}, true);
}

std::string Gather::merged() const {
  if (skipped_) {
    const std::string again = std::to_string(scan_from);
    return array_of({"$" + std::to_string(again.size()) + "\r\n" + again + "\r\n", "*0\r\n"});
  }
  const auto is_error = [](const std::string& part) {
    return part.starts_with("-") || part.starts_with("!");
  };
  if (merge_ == Merge::values) {
    std::vector<Bytes> elements;
    for (const std::string& part : parts_) {
      if (part.starts_with("-WRONGTYPE")) elements.push_back("_\r\n");
      else if (is_error(part)) return part;
      else elements.push_back(part);
    }
    return array_of(elements);
  }
  if (merge_ == Merge::first) {
    const auto good = std::find_if_not(parts_.begin(), parts_.end(), is_error);
    return good == parts_.end() ? parts_[0] : *good;
  }
  const auto bad = std::find_if(parts_.begin(), parts_.end(), is_error);
  if (bad != parts_.end()) return *bad;
  switch (merge_) {
    case Merge::sum: {
      int64_t sum = 0;
      for (const std::string& part : parts_) sum += integer_of(part);
      return ":" + std::to_string(sum) + "\r\n";
    }
    case Merge::concat: {
      std::vector<Bytes> elements;
      for (const std::string& part : parts_)
        if (!split_array(part, SIZE_MAX, elements)) return part;
      return array_of(elements);
    }
    case Merge::least: return least_of(parts_);
    case Merge::pick: return picked(parts_);
    case Merge::scan: {
      std::vector<Bytes> elements;
      if (!split_array(parts_[0], 2, elements)) return parts_[0];
      const size_t begin = elements[0].find("\r\n") + 2;
      uint64_t cursor = 0;
      if (!to_number(elements[0].substr(begin, elements[0].size() - begin - 2), cursor) ||
          cursor >= kCursorMax)
        return "-ERR nearcached cannot hand on a cursor as large as this server's\r\n";
      const std::string next =
          std::to_string(cursor == 0 ? scan_at : cursor << (kNodeBits + kVersionBits) | scan_here);
      const std::string bulk = "$" + std::to_string(next.size()) + "\r\n" + next + "\r\n";
      return array_of({bulk, elements[1]});
    }
    default: return parts_[0];
  }
}

void Router::end_gather(Gather& gather) {
  if (gather.done) return gather.done(gather.merged());
  Session* session = find(gather.session());
  if (session == nullptr) return;
  if (session->last_connection == &kNowhere) {
    came_back(*session, *session->lane);
    session->floor_ns = now_ns_;
  }
  const std::string reply = gather.merged();
  if (!gather.convert) {
    session->deliver(gather.slot(), reply, true);
  } else {
    Buffer resp2;
    Resp2Converter::append_converted(reply, Resp2Rule::null_bulk, resp2);
    session->deliver(gather.slot(), resp2.readable(), true);
  }
  if (gather.fence) await_fence(gather.session(), gather.slot());
}

void Router::send_part(Gather& gather, uint32_t part, Lane& lane, const Command* command,
                       std::span<const Bytes> args, bool has_key) {
  wire_.clear();
  resp::write_request(wire_, args);
  Pending pending;
  pending.kind = Pending::Kind::relay;
  pending.part = true;
  pending.gather = &gather;
  pending.slot = part;
  pending.sent_ns = now_ns_;
  pending.session = gather.session();
  mark_writes(pending, lane, command, args);
  note_waits(pending, args);
  if (has_key) pending.hash_slot = slot_of(args[1]);
  gather.fence = std::exchange(pending.fence, false) || gather.fence;
  lane.connection->send(wire_.readable(), std::move(pending));
  lane.idle_since_ns = now_ns_;
  stats_.upstream_requests.add();
}

// MSET, DEL, UNLINK, EXISTS, TOUCH: one request for each slot.
Session::Outcome Router::split(Session& session, const Request& request, const Command& command) {
  const auto args = request.args;
  const size_t step = command.split == Split::mset ? 2 : 1;
  if ((args.size() - 1) % step != 0) {
    session.reply("-ERR wrong number of arguments for '" + command.name + "' command\r\n");
    return Outcome::done;
  }
  std::map<uint16_t, std::vector<Bytes>> by_slot;
  for (size_t i = 1; i < args.size(); i += step) {
    std::vector<Bytes>& part = by_slot[slot_of(args[i])];
    if (part.empty()) part.push_back(args[0]);
    part.insert(part.end(), args.begin() + static_cast<ptrdiff_t>(i),
                args.begin() + static_cast<ptrdiff_t>(i + step));
  }
  std::vector<Lane*> lanes;
  size_t bytes = 0;
  for (const Bytes arg : args) bytes += arg.size() + 16;
  for (const auto& [slot, part] : by_slot) {
    Outcome outcome = Outcome::done;
    if (!aim(session, slot, outcome)) return outcome;
    if (must_wait(session, *session.lane)) return Outcome::later;
    if (!can_send(session, *session.lane, bytes)) return Outcome::done;
    lanes.push_back(session.lane);
  }
  auto gather = std::make_unique<Gather>(*this, session.ref, session.reserve(),
                                         command.split == Split::mset ? Merge::ok : Merge::sum,
                                         by_slot.size());
  uint32_t at = 0;
  for (const auto& [slot, part] : by_slot) {
    send_part(*gather, at, *lanes[at], &command, part, true);
    went_to(session, *lanes[at]);
    ++at;
  }
  if (gather->fence) session.hold(gather->slot());
  (void)gather.release();  // frees itself with its last part
  return Outcome::done;
}

// One key of an MGET: joins a read that is under way, or is one that fills, or just a read.
void Router::ask_value(Session& session, Gather& gather, uint32_t part, Lane& lane,
                       const L1Key& key, uint64_t stamp, bool settled) {
  stats_.l1_misses.add();
  const FlightWaiter waiter{session.ref, part, false, &gather};
  const bool fills = settled && lane.proof.tracking && may_fill(key, stamp) &&
                     stats_.flights.get() < process_.config.limits.flights;
  if (fills && join_flight(session, lane, key, stamp, waiter)) return;
  if (fills && admits(key.hash)) {
    wire_.clear();
    resp::write_request(wire_, {"GET", key.key});
    start_flight(lane, key, stamp, Resp2Rule::null_bulk, wire_.readable())
        .waiters.push_back(waiter);
  } else {
    const Bytes get[] = {"GET", key.key};
    send_part(gather, part, lane, get_command_, get, true);
  }
  went_to(session, lane);
}

// MGET: each key is a read of its own.
Session::Outcome Router::gather_values(Session& session, const Request& request) {
  const auto names = request.args.subspan(1);
  struct Wanted {
    Lane* lane;
    L1Key key;
    uint64_t stamp;
  };
  std::vector<Wanted> wanted;
  size_t held = 0;
  converted_.clear();
  resp::write_array(converted_, names.size());
  const bool settled = catch_up();
  for (const Bytes name : names) {
    Outcome outcome = Outcome::done;
    if (!aim(session, slot_of(name), outcome)) return outcome;
    Lane& lane = *session.lane;
    if (must_wait(session, lane)) return Outcome::later;
    const L1Key key{
        hash_key(name, process_.hash_seed), lane.proof.space, get_command_->id, name, {}};
    L1Hit hit;
    if (settled && serves_hits(session, lane) && find_valid(key, hit)) {
      ++held;
      if (held == wanted.size() + 1) append_hit(converted_, hit);
    }
    wanted.push_back({&lane, key, process_.stamps.load(key.hash)});
  }
  if (held == names.size()) {
    stats_.l1_hits.add(held);
    if (!session.muted())
      write_hit(session, {.reply = converted_.readable()}, Resp2Rule::null_bulk);
    return Outcome::done;
  }
  for (const Wanted& each : wanted)
    if (!can_send(session, *each.lane, request.wire.size() + 256)) return Outcome::done;
  // Hits are served at one moment with the asking, before anything of this request is outstanding.
  std::vector<bool> serves;
  for (const Wanted& each : wanted) serves.push_back(settled && serves_hits(session, *each.lane));
  auto gather =
      std::make_unique<Gather>(*this, session.ref, session.reserve(), Merge::values, names.size());
  gather->convert = session.resp == 2;
  // A hit behind something that was asked of the same shard would be older than its reply (G2).
  std::vector<const Lane*> asked;
  for (uint32_t i = 0; i < wanted.size(); ++i) {
    const auto& [lane, key, stamp] = wanted[i];
    L1Hit hit;
    const bool behind = std::find(asked.begin(), asked.end(), lane) != asked.end();
    if (serves[i] && !behind && find_valid(key, hit)) {
      stats_.l1_hits.add();
      converted_.clear();
      append_hit(converted_, hit);
      gather->know(i, converted_.readable());
      continue;
    }
    if (!behind) asked.push_back(lane);
    ask_value(session, *gather, i, *lane, key, stamp, settled);
  }
  (void)gather.release();
  return Outcome::done;
}

// Everything, or what no key says where: every primary is asked. Nothing else of this session is
// under way meanwhile, because a part has no place among the replies of its lane's other requests.
Session::Outcome Router::broadcast(Session& session, const Request& request,
                                   const Command& command) {
  if (session.outstanding()) return Outcome::later;
  if (topology_->slots_covered() == 0) return await_topology(session);
  const bool twin = session.resp == 2 && resp2_rule_of(command, request.args) == Resp2Rule::unknown;
  std::vector<Lane*> lanes;
  for (const NodeIndex node : topology_->primaries()) {
    Lane* const lane = lane_for(session.identity, 0, twin ? 2 : 3, node);
    if (lane == nullptr) {
      session.reply(kNoLane);
      return Outcome::done;
    }
    if (!can_send(session, *lane, wire_of(request).size())) return Outcome::done;
    lanes.push_back(lane);
  }
  const Merge merge = command.shards == Shards::sum      ? Merge::sum
                      : command.shards == Shards::concat ? Merge::concat
                      : command.shards == Shards::least  ? Merge::least
                      : command.shards == Shards::pick   ? Merge::pick
                      : command.shards == Shards::first  ? Merge::first
                                                         : Merge::ok;
  auto gather =
      std::make_unique<Gather>(*this, session.ref, session.reserve(), merge, lanes.size());
  gather->convert = session.resp == 2 && !twin;
  const std::vector<uint16_t> slots = first_slots(*topology_);
  for (uint32_t i = 0; i < lanes.size(); ++i) {
    gather->nodes.push_back({lanes[i]->node, slots[lanes[i]->node]});
    send_part(*gather, i, *lanes[i], &command, request.args, false);
  }
  if (gather->fence) session.hold(gather->slot());
  session.last_connection = &kNowhere;
  (void)gather.release();
  return Outcome::done;
}

// SCAN: node after node. If slots have moved since the scan began, a key may have gone from a node
// that was still to come to one that was done: then all are asked once more, which can show a key
// twice, as SCAN may.
Session::Outcome Router::scan(Session& session, const Request& request, const Command& command) {
  if (topology_->slots_covered() == 0) return await_topology(session);
  uint64_t cursor = 0;
  if (request.args.size() < 2 || !to_number(request.args[1], cursor)) {
    Lane* lane = any_lane(session);
    if (lane != session.lane) attach(session, *lane);
    return relay(session, request, &command);  // an error
  }
  const std::vector<NodeIndex> nodes = topology_->primaries();
  const uint64_t version =
      cursor == 0 ? version_bits(*topology_) : cursor >> kNodeBits & ((1ull << kVersionBits) - 1);
  uint64_t theirs = cursor >> (kNodeBits + kVersionBits);
  auto at = nodes.begin();
  if (cursor != 0) {
    const auto node = static_cast<NodeIndex>(cursor & ((1u << kNodeBits) - 1));
    at = std::lower_bound(nodes.begin(), nodes.end(), node);
    if (at == nodes.end() || *at != node) theirs = 0;  // it is no primary any more
    if (at == nodes.end()) at = nodes.begin();
  }
  Lane* const lane = lane_for(session.identity, 0, 3, *at);
  if (lane == nullptr) {
    session.reply(kNoLane);
    return Outcome::done;
  }
  if (must_wait(session, *lane)) return Outcome::later;
  if (!can_send(session, *lane, wire_of(request).size())) return Outcome::done;
  auto gather = std::make_unique<Gather>(*this, session.ref, session.reserve(), Merge::scan, 1);
  gather->convert = session.resp == 2;
  gather->nodes.push_back({*at, kNoSlot});
  gather->scan_here = version << kNodeBits | *at;
  gather->scan_from = theirs << (kNodeBits + kVersionBits) | gather->scan_here;
  const bool moved = version != version_bits(*topology_);
  if (at + 1 != nodes.end()) gather->scan_at = version << kNodeBits | *(at + 1);
  else if (moved) gather->scan_at = head_of(*topology_, nodes.front());
  const std::string number = std::to_string(theirs);
  std::vector<Bytes> args(request.args.begin(), request.args.end());
  args[1] = number;
  send_part(*gather, 0, *lane, &command, args, false);
  went_to(session, *lane);
  (void)gather.release();
  return Outcome::done;
}

}  // namespace nearcached
