// Hits: what is held, and whether it may be served.
//
// Two ways to one answer. serve() is asked about one request at its place in the request path.
// serve_hits() takes the run of requests at the front of what a client has sent that need nothing
// but L1: what holds for the session and the lane is looked at once for all of them, because every
// one of them had arrived before; what holds for one key (its stamp) is looked at for each. It
// stops at the first request that is anything else, which then takes the long way.
#include "nearcached/base/hash.h"
#include "route/router.h"

namespace nearcached {

// Takes over what has become void for everybody. False while something is that would void all.
bool Router::catch_up() {
  if (process_.patterns_version.load() != patterns_seen_) adopt_patterns();
  const uint64_t all = process_.stamps.load_all();
  if (all != seen_all_) {
    seen_all_ = all;
    renew_spaces();
  }
  return StampTable::settled(all);
}

bool Router::serves_hits(const Session& session, const Lane& lane) const {
  coherence::SessionView view{session.floor_ns, session.outstanding()};
  if (!follows(session, lane)) view.floor_ns = now_ns_;
  return coherence::may_serve(proof_of(lane), view, now_ns_, max_staleness_ns_);
}

// What can make it void beside its stamp. In a cluster a slot may have been elsewhere and have come
// back: what was filled before that is as good as from another server.
bool Router::is_spared(const L1Key& key, const L1Hit& hit) const {
  return (!cluster_ || hit.filled_ms > topology_->last_moved_ms() ||
          hit.filled_ms > topology_->moved_ms(slot_of(key.key))) &&
         !patterns_.kills(key.key, hit.filled_ms);
}

// What L1 holds, if nothing has declared it stale.
bool Router::find_valid(const L1Key& key, L1Hit& hit, L1Hint hint) {
  if (!l1_.find(key, now_ns_ / kNsPerMs, hit, hint)) return false;
  if (is_valid(key, hit)) {
    if (hit.first) admission_.on_return();
    return true;
  }
  l1_.erase(key);
  return false;
}

bool Router::is_held(const L1Key& key) const {
  L1Hit hit;
  return l1_.peek(key, now_ns_ / kNsPerMs, hit) && is_valid(key, hit);
}

bool Router::admits(uint64_t hash) {
  if (admission_.admits(hash)) return true;
  stats_.l1_not_admitted.add();
  return false;
}

bool Router::serve(Session& session, const Request& request, const L1Key& key, Resp2Rule rule) {
  L1Hit hit;
  if (!find_valid(key, hit)) return false;
  if (on_hit(session, hit)) begin_audit(*session.lane, wire_of(request), key, hit);
  if (!session.muted()) write_hit(session, hit, rule, request.behind.empty());
  return true;
}

// It is about to be served. True: and to be audited.
bool Router::on_hit(Session& session, const L1Hit& hit) {
  // In band everything from before the fill had been applied; the bus may not be that far yet, and
  // what else is held may be older than what this session has now seen.
  if (via_bus(session.lane->mode)) session.floor_ns = std::max(session.floor_ns, seen_ns(hit));
  return is_audit_due();
}

// `last`: nothing of what the client has sent stands behind it.
void Router::write_hit(Session& session, const L1Hit& hit, Resp2Rule rule, bool last) {
  if (session.outstanding()) {  // only with the order rule switched off
    Buffer reply;
    append_hit(reply, hit);
    return session.reply(reply.readable());
  }
  // A write that comes anyway need not wait for a copy.
  const size_t bytes = hit.reply.size();
  if (bytes >= kUncopiedBytes && (last || session.wants_flush(bytes)) &&
      (session.resp == 3 || (hit.plain && hit.reply[0] == '$')))
    return session.reply_uncopied(hit.reply);
  write_hit(session.direct_out(), session, hit, rule);
}

void Router::write_hit(Buffer& out, const Session& session, const L1Hit& hit, Resp2Rule rule) {
  if (session.resp == 3 || hit.bare) {
    append_hit(out, hit);
  } else if (hit.plain) {
    Resp2Converter::append_plain(hit.reply, out);
  } else {
    Resp2Converter::append_converted(hit.reply, rule, out);
  }
}

// What may come again as a hit is recognised by its first bytes then.
void Router::learn_shape(const Request& request, const Command& command, Resp2Rule rule) {
  if (request.wire.size() < RequestShape::kHashedBytes) return;
  KnownShape& known = shapes_[RequestShape::hash(request.wire, shapes_.size())];
  if (known.shape.learn(request.wire, request.args[0], request.args.size())) {
    known.rule = rule;
    known.command = command.id;
  }
}

// Nothing but its lane decides what it is answered.
bool Router::is_at_rest(const Session& session) const {
  return session.pin == nullptr && !session.multi_begun && !session.parked &&
         session.waiting_since_ns == 0 && !needs_auth(session) &&
         topology_->version() == process_.topology.version();
}

// The next requests of `in` that may be hits, as many as there is room for; the lines of memory
// that looking for them will touch first are on their way then. Only the first may have arguments
// behind its key (in variant_). Returns how many.
size_t Router::read_known(const Session& session, Bytes in, std::span<KnownRequest> requests) {
  const uint64_t bulk_bytes_max = process_.config.limits.bulk_bytes;
  std::array<Bytes, RequestShape::kArgsMax> args;
  size_t count = 0;
  while (count < requests.size() && in.size() >= RequestShape::kHashedBytes) {
    const KnownShape& known = shapes_[RequestShape::hash(in, shapes_.size())];
    const size_t bytes = known.shape.read(in, bulk_bytes_max, args);
    const bool bare = known.shape.args() == 1;
    if (bytes == 0 || (!bare && count > 0)) break;
    Lane* const lane = cluster_ ? lane_of_slot(session, slot_of(args[0])) : session.lane;
    if (lane == nullptr) break;
    const uint64_t hash = hash_key(args[0], process_.hash_seed);
    KnownRequest& request = requests[count++];
    request = {&known,
               lane,
               in.substr(0, bytes),
               {hash, lane->proof.space, known.command, args[0],
                bare ? Bytes() : variant_of(std::span(args).first(known.shape.args()))},
               {}};
    process_.stamps.prefetch(hash);
    l1_.prefetch(request.key);
    in.remove_prefix(bytes);
    if (!bare) break;
  }
  return count;
}

// What was read of several sessions is looked at before the first is answered, so that they wait
// for memory together: for a line of the index each, and for the items when all have been seen.
void Router::foresee(const Session& session, Bytes in, bool last) {
  if (foreseen_all_) foreseen_count_ = foreseen_next_ = 0;
  foreseen_all_ = last;
  const std::span room = std::span(foreseen_).subspan(foreseen_count_);
  // What is in variant_ will not stay there.
  if (!room.empty() && read_known(session, in, room.first(1)) > 0 && room[0].key.variant.empty())
    ++foreseen_count_;
  if (!last) return;
  for (size_t i = 0; i < foreseen_count_; ++i)
    foreseen_[i].hint = l1_.prefetch_item(foreseen_[i].key);
}

// Where its item has been seen, if it is one of those. They are asked for in their order, which is
// that of their places in the read buffer; what else may lie there by now is told by its hash.
L1Hint Router::hint_for(const KnownRequest& request) {
  const char* const at = request.wire.data();
  while (foreseen_next_ < foreseen_count_ && foreseen_[foreseen_next_].wire.data() < at)
    ++foreseen_next_;
  if (foreseen_next_ == foreseen_count_) return {};
  const KnownRequest& seen = foreseen_[foreseen_next_];
  return seen.wire.data() == at && seen.key.hash == request.key.hash ? seen.hint : L1Hint{};
}

// The next requests of `in` that may be hits, in run_; returns how many. Their memory is on its way
// to the cache: one after the other they would be waited for.
size_t Router::read_run(const Session& session, Bytes in, size_t requests_max) {
  const size_t count = read_known(session, in, std::span(run_).first(requests_max));
  if (count > 2)
    for (size_t i = 0; i < count; ++i) run_[i].hint = l1_.prefetch_item(run_[i].key);
  else if (count > 0) run_[0].hint = hint_for(run_[0]);
  return count;
}

bool Router::serve_known(Session& session, const KnownRequest& request, bool last) {
  if (session.wants_flush()) return false;
  // Of the session's lane it is known; over the bus, the hit before this one may have raised the
  // floor.
  const Lane& lane = *request.lane;
  if ((cluster_ || via_bus(lane.mode)) && !serves_hits(session, lane)) return false;
  if (request.known->rule == Resp2Rule::unknown && session.resp == 2) return false;
  L1Hit hit;
  if (!find_valid(request.key, hit, request.hint)) return false;
  if (on_hit(session, hit)) begin_audit(*request.lane, request.wire, request.key, hit);
  write_hit(session, hit, request.known->rule, last);
  session.last_command = request.key.command;
  return true;
}

size_t Router::serve_hits(Session& session, Bytes in) {
  if (in.size() < RequestShape::kHashedBytes || !is_at_rest(session)) return 0;
  if ((!cluster_ && !serves_hits(session, *session.lane)) || !catch_up()) return 0;
  size_t done = 0, hits = 0;
  for (bool more = true; more;) {
    if (session.lookahead != nullptr) done += serve_known_ahead(session, hits);
    if (session.lookahead != nullptr && session.lookahead->is_asked()) break;
    const size_t count =
        read_run(session, in.substr(done), session.lookahead != nullptr ? 1 : kRun);
    size_t served = 0;
    for (; served < count; ++served) {
      const size_t end = done + run_[served].wire.size();
      if (!serve_known(session, run_[served], end == in.size())) break;
      done = end;
    }
    hits += served;
    if (session.lookahead != nullptr) go_astray(session, served);
    more = served > 0 && served == count;
  }
  stats_.l1_hits.add(hits);
  stats_.commands_processed.add(hits);
  return done;
}

}  // namespace nearcached
