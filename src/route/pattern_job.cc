// Each step: SCAN cursor MATCH glob COUNT n; UNLINK what it gave, marked as a write like any
// other; then the next SCAN. At the end the pattern goes over the bus once more, for whatever was
// filled between the first word and the deletion.
#include "route/pattern_job.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "nearcached/base/clock.h"
#include "nearcached/base/hash.h"
#include "nearcached/resp/reply_scanner.h"
#include "nearcached/resp/writer.h"
#include "route/gather.h"
#include "route/router.h"

namespace nearcached {
namespace {

constexpr size_t kFinishedKept = 16;
constexpr uint32_t kFailuresMax = 100;
constexpr uint32_t kRoundsMax = 100;
constexpr uint64_t kRetryNs = 100 * kNsPerMs;

bool moved_since(const Topology& topology, uint64_t since_ms) {
  for (uint16_t slot = 0; slot < kSlots; ++slot)
    if (topology.moved_ms(slot) >= since_ms) return true;
  return false;
}

// An error that another try may not meet.
bool passes(Bytes error) { return parse_redirect(error).kind != Redirect::Kind::none; }

// The bulk at the beginning of `reply`, which is cut off it. False: there is none.
bool take_bulk(Bytes& reply, Bytes& out) {
  ReplyScanner scanner;
  if (reply.empty() || reply[0] != '$') return false;
  const ReplyScanner::Step step = scanner.scan(reply);
  if (step.status != ReplyScanner::Status::done) return false;
  const size_t begin = reply.find("\r\n") + 2;
  if (begin + 2 > step.consumed) return false;  // a null
  out = reply.substr(begin, step.consumed - begin - 2);
  reply.remove_prefix(step.consumed);
  return true;
}

// *2, the cursor, *n, the keys. False: not SCAN's reply.
bool parse_scan(Bytes reply, std::string& cursor, std::vector<std::string>& keys) {
  constexpr Bytes kHead = "*2\r\n";
  if (!reply.starts_with(kHead)) return false;
  reply.remove_prefix(kHead.size());
  Bytes item;
  if (!take_bulk(reply, item)) return false;
  cursor.assign(item);
  if (reply.empty() || reply[0] != '*') return false;
  reply.remove_prefix(reply.find("\r\n") + 2);
  while (take_bulk(reply, item)) keys.emplace_back(item);
  return reply.empty();
}

}  // namespace

std::string quoted(Bytes bytes) {
  std::string out = "\"";
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') out.append("\\").append(1, c);
    else if (byte >= ' ' && byte <= '~') out += c;
    else
      out.append("\\x")
          .append(1, "0123456789abcdef"[byte >> 4])
          .append(1, "0123456789abcdef"[byte & 15]);
  }
  return out += '"';
}

std::string PatternJob::to_line() const {
  static constexpr const char* kStates[] = {"running", "done", "failed"};
  std::string line = "id=" + std::to_string(id) + " state=" + kStates[static_cast<size_t>(state)] +
                     " db=" + std::to_string(database) + " matched=" + std::to_string(scanned) +
                     " deleted=" + std::to_string(deleted) + " pattern=" + quoted(glob);
  if (!error.empty()) line += " error=" + quoted(error);
  return line + "\n";
}

PatternJob* Router::start_job(std::shared_ptr<const Identity> identity, uint32_t database,
                              Bytes glob, std::function<void(bool ok)> done) {
  size_t running = 0;
  for (const auto& job : jobs_) running += job->state == PatternJob::State::running;
  if (running >= process_.config.limits.pattern_jobs) {
    stats_.limit_pattern_jobs_hit.add();
    return nullptr;
  }
  while (jobs_.size() - running >= kFinishedKept)
    jobs_.erase(std::find_if(jobs_.begin(), jobs_.end(), [](const auto& job) {
      return job->state != PatternJob::State::running;
    }));
  jobs_.push_back(std::make_unique<PatternJob>());
  PatternJob& job = *jobs_.back();
  job.id = process_.next_job_id.fetch_add(1);
  job.glob.assign(glob);
  job.identity = std::move(identity);
  job.database = database;
  job.done = std::move(done);
  begin_round(job);
  scan_step(job);
  return &job;
}

PatternJob* Router::find_job(uint64_t id) {
  for (const auto& job : jobs_)
    if (job->id == id) return job.get();
  return nullptr;
}

void Router::begin_round(PatternJob& job) {
  job.nodes = cluster_ ? topology_->primaries() : std::vector<NodeIndex>{0};
  job.round_ms = monotonic_ms();
  ++job.rounds;
}

// The present node is done with, or is no primary any more. Slots that have moved since the round
// began may have taken keys from a node that was still to come to one that was not.
void Router::leave_node(PatternJob& job) {
  job.cursor = "0";
  job.nodes.pop_back();
  if (!job.nodes.empty()) return scan_step(job);
  if (!cluster_ || !moved_since(*topology_, job.round_ms)) return end_job(job, {});
  if (job.rounds == kRoundsMax) return end_job(job, "the cluster's slots do not come to rest");
  begin_round(job);
  job.retry_ns = now_ns() + kRetryNs;  // more of them may be on their way
}

void Router::scan_step(PatternJob& job) {
  job.retry_ns = 0;
  if (job.nodes.empty()) return end_job(job, "no node of the cluster is known");
  const std::vector<NodeIndex> primaries = topology_->primaries();
  if (cluster_ && !std::binary_search(primaries.begin(), primaries.end(), job.nodes.back()))
    return leave_node(job);
  Lane* const lane = lane_for(job.identity, job.database, 3, job.nodes.back());
  if (lane == nullptr) return retry_job(job, "limits.lanes");
  lane->idle_since_ns = now_ns_;
  lane->connection->send(
      {"SCAN", job.cursor, "MATCH", job.glob, "COUNT", "1000"},
      ReplyTask::pending(
          [this, id = job.id](Bytes reply, Bytes failure) {
            PatternJob* const running = find_job(id);
            if (running == nullptr) return;
            if (!failure.empty()) return retry_job(*running, failure);
            std::vector<std::string> keys;
            std::string cursor;
            if (!parse_scan(reply, cursor, keys))
              return passes(reply) ? retry_job(*running, reply) : end_job(*running, reply);
            std::erase_if(keys,
                          [](const std::string& key) { return key.starts_with(kReservedPrefix); });
            delete_step(*running, std::move(cursor), keys);
          },
          now_ns_));
}

void Router::delete_step(PatternJob& job, std::string cursor,
                         const std::vector<std::string>& keys) {
  const auto go_on = [this](PatternJob& running, const std::string& next) {
    running.failures = 0;
    running.cursor = next;
    if (next == "0") leave_node(running);
    else scan_step(running);
  };
  if (keys.empty()) return go_on(job, cursor);
  Lane* const lane = lane_for(job.identity, job.database, 3, job.nodes.back());
  if (lane == nullptr) return retry_job(job, "limits.lanes");
  unlink_keys(*lane, keys, [this, id = job.id, cursor, go_on, matched = keys.size()](Bytes reply) {
    PatternJob* const running = find_job(id);
    if (running == nullptr) return;
    if (reply.starts_with("-NOPERM")) return end_job(*running, reply);
    if (!reply.starts_with(":")) return retry_job(*running, reply);
    running->scanned += matched;
    uint64_t deleted = 0;
    std::from_chars(reply.data() + 1, reply.data() + reply.size(), deleted);
    running->deleted += deleted;
    go_on(*running, cursor);
  });
}

// In a cluster slot by slot. Marked, redirected and tried again like a client's; the answer is the
// sum, or what went wrong first.
void Router::unlink_keys(Lane& lane, const std::vector<std::string>& keys,
                         std::function<void(Bytes reply)> done) {
  std::map<uint16_t, std::vector<Bytes>> by_slot;
  for (const std::string& key : keys) {
    std::vector<Bytes>& part = by_slot[cluster_ ? slot_of(key) : kNoSlot];
    if (part.empty()) part.push_back("UNLINK");
    part.push_back(key);
  }
  const Command* const unlink = table_->find_name("unlink");
  const std::shared_ptr<const Identity> identity = lane.identity;
  // Frees itself with its last part.
  auto* const gather = new Gather(*this, SessionRef{}, 0, Merge::sum, by_slot.size());
  gather->done = std::move(done);
  uint32_t at = 0;
  for (const auto& [slot, part] : by_slot) {
    const NodeIndex node = cluster_ ? topology_->owner(slot) : lane.node;
    Lane* const owner = !cluster_         ? &lane
                        : node == kNoNode ? nullptr
                                          : lane_for(identity, 0, 3, node);
    if (owner == nullptr) gather->fail(at, "-CLUSTERDOWN Hash slot not served\r\n");
    else send_part(*gather, at, *owner, unlink, part, cluster_);
    ++at;
  }
}

void Router::delete_key(const std::string& key, uint32_t database,
                        std::function<void(bool ok)> done) {
  unlink_keys(*main_lane_, {key}, [this, key, database, done = std::move(done)](Bytes reply) {
    // Once more, for whatever was filled before it was deleted.
    process_.bus->request(coherence::BusMessage::Kind::invalidate, coherence::Cause::scheduled,
                          {key}, database, [](const Bus::Outcome&) {});
    done(reply.starts_with(":"));
  });
}

void Router::retry_job(PatternJob& job, Bytes why) {
  job.error.assign(why.substr(0, why.find('\r')));
  if (++job.failures > kFailuresMax) return end_job(job, why);
  job.retry_ns = now_ns() + kRetryNs;
}

void Router::end_job(PatternJob& job, Bytes error) {
  job.state = error.empty() ? PatternJob::State::done : PatternJob::State::failed;
  job.error.assign(error.substr(0, error.find('\r')));
  process_.bus->request(coherence::BusMessage::Kind::pattern, coherence::Cause::pattern, {job.glob},
                        job.database, [](const Bus::Outcome&) {});
  if (job.done) job.done(error.empty());
  job.done = nullptr;
}

void Router::tick_jobs() {
  for (size_t i = 0; i < jobs_.size(); ++i) {
    PatternJob& job = *jobs_[i];
    if (job.state == PatternJob::State::running && job.retry_ns != 0 && now_ns_ >= job.retry_ns)
      scan_step(job);
  }
}

}  // namespace nearcached
