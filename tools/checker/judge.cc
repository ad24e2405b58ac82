// Every key has one writer, and every writer numbers its writes 1, 2, 3… over all its keys; a key's
// value is the number of its last write. A writer waits for each answer, so Redis's history holds
// its writes in the order of their numbers. From that, and nothing else, each reply is judged:
//   read your writes  the value is not older than a write to this key that was acknowledged through
//                     the same proxy before the read was sent;
//   no going back     the value is not older than an earlier reply on this connection to the same
//                     key; and if that connection has seen number s of a writer, on whatever key,
//                     it is not older than this key's last write up to s (in a cluster: on
//                     whatever key of the same slot, since shards have no common history);
//   staleness         how long before the read was sent the next write to this key had been
//                     acknowledged, or read by somebody: the least age that the overwritten value
//                     can have had.
// Comparing with what Redis itself holds at the same moment would prove nothing: there is no same
// moment. Elements of one MGET are judged against earlier replies, not against each other: several
// keys at once are no snapshot, and none is promised.
//
// Every judgement is lenient where the checker cannot know: times are taken so that a value looks
// younger than it was, and of the erasures that a missing key may be due to the one that fits.
//
// Replication is asynchronous: when a primary fails, Redis loses what its replica had not yet got,
// although it was acknowledged and may have been read. Which writes those are becomes known
// exactly: each write asks for the value that it replaces (SET … GET), and whatever lies between
// the two is lost; and of the keys that are written no more, what is behind the number that the new
// primary holds when all is in order again ("settle", run.cc). So a read is judged at the end,
// against what was not lost; and a lost write counts as overwritten from the moment its loss was
// found, so that a cache must not keep it.
#include "judge.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace checker {
namespace {

/// More than anybody reads; what a broken cache does beyond is counted as it looks.
constexpr size_t kSuspectsMax = 100'000;

uint64_t writer_and_group(const Key& key) { return uint64_t{key.writer} << 32 | key.group; }

}  // namespace

void Results::add(const Results& other) {
  reads += other.reads;
  own_write_missed += other.own_write_missed;
  went_back += other.went_back;
  too_stale += other.too_stale;
  never_written += other.never_written;
  pardoned += other.pardoned;
  not_converged += other.not_converged;
  errors += other.errors;
  lost += other.lost;
  const bool never = converged_ns < 0 || other.converged_ns < 0;
  converged_ns = never ? -1 : std::max(converged_ns, other.converged_ns);
  for (size_t kind = 0; kind < kMissedKinds; ++kind)
    stale_ns[kind].insert(stale_ns[kind].end(), other.stale_ns[kind].begin(),
                          other.stale_ns[kind].end());
}

Judge::Judge(KeySpace& keys, const Promise& promise, size_t endpoint, std::string endpoint_name,
             bool certain_only, Results& results)
    : keys_(keys),
      promise_(promise),
      endpoint_(endpoint),
      endpoint_name_(std::move(endpoint_name)),
      certain_only_(certain_only),
      results_(results) {}

void Judge::expect(size_t key) {
  expected_.push_back({key, keys_[key].acknowledged[endpoint_].load(), now_ns()});
}

std::vector<uint64_t> Judge::judge(const std::vector<uint64_t>& values) {
  std::vector<Shown> shown;
  std::vector<uint64_t> last;
  for (size_t i = 0; i < values.size(); ++i) {
    shown.push_back(judge_one(expected_[i], values[i]));
    last.push_back(shown[i].last);
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const Key& key = keys_[expected_[i].key];
    const size_t place = key.history.place_of(shown[i].first);
    if (place == KeyHistory::nowhere || !promise_.ordered[place]) continue;
    uint64_t& here = seen_here_[expected_[i].key];
    here = std::max(here, shown[i].first);
    uint64_t& seen = seen_[writer_and_group(key)];
    seen = std::max(seen, shown[i].first);
  }
  skip(values.size());
  return last;
}

void Judge::skip(size_t reads) {
  expected_.erase(expected_.begin(), expected_.begin() + static_cast<std::ptrdiff_t>(reads));
}

void Judge::new_session() {
  expected_.clear();
  seen_here_.clear();
  seen_.clear();
}

Judge::Shown Judge::judge_one(const Expected& expected, uint64_t value) {
  Key& key = keys_[expected.key];
  ++results_.reads;
  if (value != 0 && key.history.place_of(value) == KeyHistory::nowhere) {
    ++results_.never_written;
    tell("never written", {Suspect::Kind::went_back, expected.key, value, 0, 0, now_ns()},
         key.history.last());
    return {0, 0};
  }
  if (value != 0) key.history.executed(value);
  const auto here = seen_here_.find(expected.key);
  const auto group = seen_.find(writer_and_group(key));
  const uint64_t seen = std::max(here == seen_here_.end() ? 0 : here->second,
                                 key.history.last_up_to(group == seen_.end() ? 0 : group->second,
                                                        promise_.ordered, certain_only_));
  const KeyHistory::Nil nil = key.history.nil(std::max(seen, expected.own_write));
  const Shown shown{value != 0 ? value : nil.first, value != 0 ? value : nil.last};
  const uint64_t number = shown.first;
  if (number < expected.own_write)
    suspect(Suspect::Kind::own_write_missed, expected, number, expected.own_write);
  if (number < seen) suspect(Suspect::Kind::went_back, expected, number, seen);
  if (too_stale(expected.key, expected.sent_ns, shown.last, false))
    suspect(Suspect::Kind::too_stale, expected, shown.last, 0);
  return shown;
}

void Judge::suspect(Suspect::Kind kind, const Expected& expected, uint64_t shown, uint64_t due) {
  suspects_.push_back({kind, expected.key, shown, due, expected.sent_ns, now_ns()});
  if (suspects_.size() == kSuspectsMax) conclude();
}

void Judge::conclude() {
  for (const Suspect& suspect : suspects_) {
    const KeyHistory& history = keys_[suspect.key].history;
    if (history.doubtful()) {
      ++results_.pardoned;
      continue;
    }
    const uint64_t due = history.standing(suspect.due);
    if (suspect.kind == Suspect::Kind::too_stale) {
      if (too_stale(suspect.key, suspect.sent_ns, suspect.shown, true)) {
        ++results_.too_stale;
        tell("too stale", suspect, history.last());
      } else {
        ++results_.pardoned;
      }
    } else if (suspect.shown >= due) {
      ++results_.pardoned;
    } else if (suspect.kind == Suspect::Kind::own_write_missed) {
      ++results_.own_write_missed;
      tell("own write missed", suspect, due);
    } else {
      ++results_.went_back;
      tell("went back", suspect, due);
    }
  }
  suspects_.clear();
}

bool Judge::too_stale(size_t key, int64_t sent_ns, uint64_t number, bool count_late) {
  bool late = false;
  for (const KeyHistory::Replaced& replaced : keys_[key].history.replaced(number)) {
    if (replaced.ns == 0 || replaced.ns >= sent_ns) continue;
    const int64_t stale_ns = sent_ns - replaced.ns;
    const bool this_late = stale_ns > promise_.staleness_ns[replaced.place];
    const bool around = replaced.place + 1 == promise_.ordered.size();
    const Missed missed = around ? Missed::around : Missed::through_a_cache;
    if (this_late == count_late) results_.stale_ns[static_cast<size_t>(missed)].push_back(stale_ns);
    late = late || this_late;
  }
  return late;
}

void Judge::tell(const char* what, const Suspect& suspect, uint64_t at_least) const {
  constexpr uint64_t kTold = 20;
  if (results_.violations() > kTold) return;
  std::fprintf(stderr, "%.3f %s: %s at %s read %llu, at least %llu was due\n",
               static_cast<double>(suspect.at_ns) / 1e9, what, keys_[suspect.key].name.c_str(),
               endpoint_name_.c_str(), static_cast<unsigned long long>(suspect.shown),
               static_cast<unsigned long long>(at_least));
}

}  // namespace checker
