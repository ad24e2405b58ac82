// Every key has one writer, and every writer numbers its writes 1, 2, 3… over all its keys; a key's
// value is the number of its last write. A writer waits for each answer, so Redis's history holds
// its writes in the order of their numbers. From that, and nothing else, each reply is judged:
//   read your writes  the value is not older than a write to this key that was acknowledged through
//                     the same proxy before the read was sent;
//   no going back     the value is not older than an earlier reply on this connection to the same
//                     key; and if that connection has seen number s of a writer, on whatever key,
//                     it is not older than this key's last write up to s;
//   staleness         how long before the read was sent the next write to this key had been
//                     acknowledged, or read by somebody: the least age that the overwritten value
//                     can have had.
// Comparing with what Redis itself holds at the same moment would prove nothing: there is no same
// moment. Elements of one MGET are judged against earlier replies, not against each other: several
// keys at once are no snapshot, and none is promised.
//
// Every judgement is lenient where the checker cannot know: times are taken so that a value looks
// younger than it was, and of the erasures that a missing key may be due to the one that fits.
#include "judge.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace checker {

void Results::add(const Results& other) {
  reads += other.reads;
  own_write_missed += other.own_write_missed;
  went_back += other.went_back;
  too_stale += other.too_stale;
  never_written += other.never_written;
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
             size_t writers, bool certain_only, Results& results)
    : keys_(keys),
      promise_(promise),
      endpoint_(endpoint),
      endpoint_name_(std::move(endpoint_name)),
      certain_only_(certain_only),
      results_(results),
      seen_(writers, 0) {}

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
    seen_[key.writer] = std::max(seen_[key.writer], shown[i].first);
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
  std::fill(seen_.begin(), seen_.end(), 0);
}

Judge::Shown Judge::judge_one(const Expected& expected, uint64_t value) {
  Key& key = keys_[expected.key];
  ++results_.reads;
  if (value != 0 && key.history.place_of(value) == KeyHistory::nowhere) {
    ++results_.never_written;
    tell("never written", key, value, key.history.last());
    return {0, 0};
  }
  if (value != 0) key.history.executed(value);
  const auto here = seen_here_.find(expected.key);
  const uint64_t seen =
      std::max(here == seen_here_.end() ? 0 : here->second,
               key.history.last_up_to(seen_[key.writer], promise_.ordered, certain_only_));
  const KeyHistory::Nil nil = key.history.nil(std::max(seen, expected.own_write));
  const Shown shown{value != 0 ? value : nil.first, value != 0 ? value : nil.last};
  const uint64_t number = shown.first;
  if (number < expected.own_write) {
    ++results_.own_write_missed;
    tell("own write missed", key, number, expected.own_write);
  }
  if (number < seen) {
    ++results_.went_back;
    tell("went back", key, number, seen);
  }
  judge_staleness(expected, shown.last);
  return shown;
}

void Judge::judge_staleness(const Expected& expected, uint64_t number) {
  const Key& key = keys_[expected.key];
  bool late = false;
  for (const KeyHistory::Replaced& replaced : key.history.replaced(number)) {
    if (replaced.ns == 0 || replaced.ns >= expected.sent_ns) continue;
    const int64_t stale_ns = expected.sent_ns - replaced.ns;
    const bool around = replaced.place + 1 == promise_.ordered.size();
    const Missed missed = around ? Missed::around : Missed::through_a_cache;
    results_.stale_ns[static_cast<size_t>(missed)].push_back(stale_ns);
    late = late || stale_ns > promise_.staleness_ns[replaced.place];
  }
  if (!late) return;
  ++results_.too_stale;
  tell("too stale", key, number, key.history.last());
}

void Judge::tell(const char* what, const Key& key, uint64_t value, uint64_t at_least) const {
  constexpr uint64_t kTold = 20;
  if (results_.violations() > kTold) return;
  std::fprintf(stderr, "%.3f %s: %s at %s read %llu, at least %llu was due\n",
               static_cast<double>(now_ns()) / 1e9, what, key.name.c_str(), endpoint_name_.c_str(),
               static_cast<unsigned long long>(value), static_cast<unsigned long long>(at_least));
}

}  // namespace checker
