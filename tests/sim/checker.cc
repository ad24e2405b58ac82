#include "sim/checker.h"

#include "nearcached/base/glob.h"

namespace nearcached::sim {
namespace {

std::string ms(uint64_t ns) {
  const std::string micros = std::to_string(ns / kNsPerUs % 1000);
  return std::to_string(ns / kNsPerMs) + "." + std::string(3 - micros.size(), '0') + micros + " ms";
}

bool told_values(const Answer& answer) {
  return answer.reply.kind == Reply::Kind::values || answer.reply.kind == Reply::Kind::ok;
}

}  // namespace

Counts& Counts::operator+=(const Counts& other) {
  reads += other.reads;
  hits += other.hits;
  joined += other.joined;
  writes += other.writes;
  failed += other.failed;
  return *this;
}

void Checker::on_start(const Session& session, ClientRequest& request) {
  request.number = next_number_++;
  request.started_ns = engine_.now_ns();
  request.acknowledged = session.router->process.acknowledged;
  request.held = {redis_.primary().id(), redis_.primary().position()};
}

Version Checker::newer(Version floor, Version other) const {
  if (other.server < floor.server) return floor;
  return {other.server, std::max(other.position, redis_.carried_over(floor, other.server))};
}

void Checker::acknowledge(Session& session, Key key, Version version) {
  Version& floor = session.router->process.acknowledged[key];
  floor = newer(floor, version);
  session.seen = newer(session.seen, version);
}

// Of each key by what L1 could have answered: its shape (GET and MGET, or another command).
Version* Checker::shown(Session& session, Key key, ClientRequest::Op op) {
  using Op = ClientRequest::Op;
  if (op == Op::get || op == Op::mget) return &session.seen_of[key];
  return op == Op::strlen ? &session.seen_of[kKeys + key] : nullptr;
}

void Checker::show(Session& session, Key key, Version version, ClientRequest::Op op) {
  session.seen = newer(session.seen, version);
  if (Version* floor = shown(session, key, op)) *floor = newer(*floor, version);
}

// Even where it does not know of all others, the process itself has accepted the pattern.
void Checker::on_pattern(Process& own, const ClientRequest& request, const Answer& answer) {
  const Bytes glob = kGlobs[request.glob];
  for (Process* process : processes_) {
    if (process != &own && (answer.acknowledged >> process->number & 1) == 0) continue;
    for (Key key = 0; key < kKeys; ++key)
      if (glob_match(glob, kNameText[name_of(key)]))
        process->acknowledged[key] = newer(process->acknowledged[key], request.held);
  }
  if (answer.published) told_.push_back({engine_.now_ns(), request.held, glob});
}

void Checker::on_answer(Session& session, const ClientRequest& request, const Answer& answer) {
  using Op = ClientRequest::Op;
  if (request.op == Op::pattern && answer.reply.kind != Reply::Kind::lost)
    on_pattern(session.router->process, request, answer);
  if (!told_values(answer)) {
    ++counts_.failed;
    engine_.trace(session.router->name(), ": session ", uint64_t{session.ref}, " request ",
                  request.number, " fails");
    return;
  }
  if (request.op == Op::flush_all || request.op == Op::swap_db) {
    ++counts_.writes;
    for (Key key = 0; key < kKeys; ++key) acknowledge(session, key, answer.reply.values[0].version);
    return;
  }
  for (unsigned i = 0; i < answer.reply.count; ++i) {
    const Observed& value = answer.reply.values[i];
    if (answer.wrote[i]) {
      ++counts_.writes;
      engine_.trace(session.router->name(), ": session ", uint64_t{session.ref}, " request ",
                    request.number, " wrote ", text_of(answer.keys[i]), " = ",
                    text_of(value.version));
      acknowledge(session, answer.keys[i], value.version);
      continue;
    }
    ++counts_.reads;
    counts_.hits += answer.hit ? 1 : 0;
    engine_.trace(session.router->name(), ": session ", uint64_t{session.ref}, " request ",
                  request.number, answer.hit ? " hit " : " read ", text_of(answer.keys[i]), " = ",
                  text_of(value.version), value.missing ? " (missing)" : "");
    check({session, request, answer.keys[i], value, answer.hit, answer.joined});
    show(session, answer.keys[i], value.version, request.op);
  }
}

void Checker::check(const Read& read) {
  const ModelServer& server = redis_.server(read.value.version.server);
  check_age(read);
  const ModelServer::Change* next = server.successor(read.key, read.value.version.position);
  if (next == nullptr) return;
  const uint32_t acknowledged =
      redis_.carried_over(read.request.acknowledged[read.key], server.id());
  if (next->position <= acknowledged)
    fail("G1", read,
         "its process had acknowledged @" + std::to_string(acknowledged) +
             ", or that what is older has been dropped");
  Version floor = read.session.seen;
  if (options_.mode == CoherenceMode::publish) {
    const Version* of_key = shown(read.session, read.key, read.request.op);
    floor = of_key == nullptr ? Version{} : *of_key;
  }
  const uint32_t seen = redis_.carried_over(floor, server.id());
  if (next->position <= seen)
    fail("G2", read,
         "replaced at @" + std::to_string(next->position) + ", and the session had been shown @" +
             std::to_string(seen));
}

// When proxies could know that this version of the key is no more; kNever: it is the last.
uint64_t Checker::replaced_ns(Key key, const ModelServer& server, uint32_t position) const {
  const ModelServer::Change* const next = server.successor(key, position);
  if (next == nullptr) return kNever;
  if (!next->untold) return next->at_ns;
  const auto& changes = server.history(key);
  const auto announced = std::find_if(changes.begin(), changes.end(), [&](const auto& change) {
    return change.position > position && !change.untold;
  });
  const auto told = std::find_if(told_.begin(), told_.end(), [&](const Told& each) {
    return glob_match(each.glob, kNameText[name_of(key)]) &&
           redis_.carried_over(each.held, server.id()) >= next->position;
  });
  return std::min(announced == changes.end() ? kNever : announced->at_ns,
                  told == told_.end() ? kNever : told->at_ns);
}

void Checker::check_age(const Read& read) {
  const ModelServer& server = redis_.server(read.value.version.server);
  const ModelServer::Change& change = server.change(read.key, read.value.version.position);
  const uint64_t from_ns = read.hit ? engine_.now_ns() : read.request.started_ns;
  // Without order between news and data, PTTL may be that of a value written since GET.
  const auto& changes = server.history(read.key);
  const bool rewritten =
      options_.mode != CoherenceMode::resp3 &&
      std::any_of(changes.begin(), changes.end(), [&](const ModelServer::Change& later) {
        return later.position > change.position && later.exists;
      });
  if (read.hit && change.expires_ns <= from_ns && !rewritten)
    fail("G5", read, "its TTL ended " + ms(from_ns - change.expires_ns) + " ago");
  uint64_t since_ns = replaced_ns(read.key, server, change.position);
  if (read.hit || bounds_.demoted) since_ns = std::min(since_ns, server.demoted_ns());
  if (since_ns != kNever && since_ns + options_.max_staleness_ns <= from_ns)
    fail("G3", read, "it is stale since " + ms(from_ns - since_ns));
}

void Checker::on_update(Key key, Version read, Version written) {
  const auto& history = redis_.server(written.server).history(key);
  uint32_t before = 0;
  for (const ModelServer::Change& change : history)
    if (change.position < written.position) before = change.position;
  if (read.server == written.server && read.position == before) return;
  throw Violation{"lost update", text_of(key) + " was read as " + text_of(read) + ", written as " +
                                     text_of(written) + ", and was @" + std::to_string(before) +
                                     " in between"};
}

void Checker::on_final_read(Session& session, const ClientRequest& request, const Answer& answer,
                            bool must_be_hit) {
  if (!told_values(answer))
    throw Violation{"G4", session.router->name() + " does not answer after the faults"};
  const Key key = answer.keys[0];
  const Read read{session, request, key, answer.reply.values[0], answer.hit, answer.joined};
  const Version held{redis_.primary().id(), redis_.primary().history(key).back().position};
  if (read.value.version != held) fail("G4", read, "the server holds " + text_of(held));
  if (must_be_hit && !answer.hit) fail("G4", read, "L1 does not serve again");
}

void Checker::fail(const char* guarantee, const Read& read, const std::string& why) const {
  throw Violation{guarantee, read.session.router->name() + " told session " +
                                 std::to_string(read.session.ref) + " (request " +
                                 std::to_string(read.request.number) +
                                 (read.hit ? ", hit) " : ") ") + text_of(read.key) + " = " +
                                 text_of(read.value.version) + ": " + why};
}

}  // namespace nearcached::sim
