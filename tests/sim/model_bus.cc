// See model_bus.h; the functions have the names they have in src/bus/bus.cc.
#include "sim/model_bus.h"

#include <bit>

#include "nearcached/coherence/mutations.h"
#include "sim/model_proxy.h"

namespace nearcached::sim {
namespace {

using Kind = Note::Kind;

constexpr size_t kProofsMax = 64;

uint64_t silence_ns(const ProxyOptions& options) {
  return options.measures.early_silence ? options.max_staleness_ns * 3 / 4
                                        : options.max_staleness_ns;
}

}  // namespace

ModelBus::ModelBus(Process& process)
    : process_(process),
      engine_(process.engine),
      subscriber_(*this),
      publisher_(*this),
      proxy_id_(process.number + 1),
      peers_(1024, silence_ns(process.options)) {}

void ModelBus::start() {
  const uint64_t period_ns =
      std::clamp(process_.options.heartbeat_ns / 2, 2 * kNsPerMs, 50 * kNsPerMs);
  tick();
  engine_.after(period_ns, [this] { start(); });
}

void ModelBus::post(std::function<void()> task) {
  engine_.after(engine_.random.skewed(200 * kNsPerUs), std::move(task));
}

void ModelBus::connect(End& end) {
  end.started_ns = engine_.now_ns();
  end.link = process_.redis.connect(end);
  if (end.link == nullptr) return lose(end, "refused");
  end.up = true;
  Command command;
  command.kind = Command::Kind::introduce;
  if (&end == &subscriber_) {
    command.kind = Command::Kind::subscribe;
    command.note.proxy = proxy_id_;
  }
  end.link->send(command);
  if (&end == &publisher_ && subscribed_) send_proof();
}

void ModelBus::lose(End& end, const char* reason) {
  engine_.trace("proxy ", process_.number, ": bus loses its ",
                &end == &subscriber_ ? "subscriber: " : "publisher: ", reason);
  if (end.link != nullptr) end.link->close();
  end.link = nullptr;
  end.up = false;
  end.backoff_ns = std::clamp(end.backoff_ns * 2, process_.options.reconnect_min_ns,
                              process_.options.reconnect_max_ns);
  end.retry_ns = engine_.now_ns() + end.backoff_ns;
  if (&end == &subscriber_) subscribed_ = false;
  proofs_.clear();
  leave_up(reason);
}

void ModelBus::leave_up(const char* reason) {
  const bool before = up_;
  up_ = false;
  proof_ns_ = 0;
  subscriber_id_ = 0;
  peers_.clear();
  proof_wanted_ = false;
  if (before) {
    everything(reason);
    on_state();
  }
  const auto confirmations = std::move(confirmations_);
  confirmations_.clear();
  for (const Confirmation& each : confirmations) each.done(false);
  if (before) on_proof();
}

void ModelBus::End::on_readable(Link& from) {
  Reply reply;
  while (&from == link && link->take(reply)) bus.on_reply(*this, reply);
}

void ModelBus::End::on_closed(Link& from) {
  if (&from == link) bus.lose(*this, "closed by the server");
}

void ModelBus::tick() {
  const uint64_t now_ns = engine_.now_ns();
  for (End* end : {&subscriber_, &publisher_})
    if (end->link == nullptr && now_ns >= end->retry_ns) connect(*end);
  if (subscriber_.up && !subscribed_ &&
      now_ns > subscriber_.started_ns + process_.options.connect_timeout_ns)
    lose(subscriber_, "subscribing timed out");
  if (!proofs_.empty() && now_ns > proofs_.front().sent_ns + process_.options.timeout_ns) {
    if (subscriber_.link != nullptr) lose(subscriber_, "silent");
    if (publisher_.link != nullptr) lose(publisher_, "silent");
  }
  if (subscribed_ && publisher_.up && now_ns >= proof_due_ns_) send_proof();
  const bool heard = up_ || process_.options.measures.deaf_heartbeats;
  if (announcing_ && publisher_.up && heard && now_ns >= heartbeat_due_ns_) send_heartbeat();
  if (up_ && peers_.expire(now_ns)) missed("another proxy fell silent");
  finish_late();
}

void ModelBus::set_announcing() {
  if (!std::exchange(announcing_, true)) request_proof();
}

void ModelBus::set_needed() {
  if (!std::exchange(needed_, true)) request_proof();
}

void ModelBus::request_proof() {
  post([this] {
    if (proof_wanted_ || !up_) return;
    proof_wanted_ = true;
    post([this] {
      if (std::exchange(proof_wanted_, false)) send_proof();
    });
  });
}

void ModelBus::send_proof() {
  const uint64_t now_ns = engine_.now_ns();
  const bool often = needed_ || announcing_;
  proof_due_ns_ = now_ns + (often ? process_.options.heartbeat_ns : process_.options.idle_proof_ns);
  if (!publisher_.up || !subscribed_ || proofs_.size() >= kProofsMax) return;
  Note note;
  note.kind = Kind::proof;
  note.to = static_cast<uint32_t>(proxy_id_);
  note.number = next_number_++;
  proofs_.push_back({note.number, now_ns});
  publish(note);
}

void ModelBus::send_heartbeat() {
  heartbeat_due_ns_ = engine_.now_ns() + process_.options.heartbeat_ns;
  Note note;
  note.kind = Kind::heartbeat;
  note.number = announcements_.executed();
  const uint64_t patience_ns = process_.options.max_staleness_ns / 2;
  note.overdue = announcements_.oldest_ns() + patience_ns < engine_.now_ns();
  publish(note);
}

void ModelBus::publish(Note note) {
  if (!publisher_.up) return;
  Command command;
  command.kind = Command::Kind::publish;
  command.note = note;
  command.note.proxy = proxy_id_;
  publisher_.link->send(command);
}

void ModelBus::confirm(uint64_t probe, std::function<void(bool saw)> done) {
  post([this, probe, done = std::move(done)] {
    if (!up_) return done(false);
    confirmations_.push_back({next_number_, probe, done});
    send_proof();
  });
}

void ModelBus::look_again() {
  post([this] {
    if (!up_) return;
    lose(subscriber_, "another server");
    lose(publisher_, "another server");
  });
}

void ModelBus::tell_flush() {
  post([this] {
    if (!up_) return;
    Note note;
    note.kind = Kind::flush;
    publish(note);
  });
}

void ModelBus::request(uint8_t glob, std::function<void(const Outcome&)> done) {
  post([this, glob, done = std::move(done)] {
    process_.accept_pattern(kGlobs[glob]);
    const uint64_t number = next_number_++;
    Request& request = requests_[number];
    request.glob = glob;
    request.deadline_ns = engine_.now_ns() + process_.options.ack_timeout_ns;
    request.done = done;
    if (up_) send_request(number, request);
  });
}

void ModelBus::say_again() {
  auto requests = std::exchange(requests_, {});
  for (auto& [old, request] : requests) {
    const uint64_t number = next_number_++;
    send_request(number, requests_[number] = std::move(request));
  }
}

void ModelBus::send_request(uint64_t number, Request& request) {
  request.outcome = {};
  Note note;
  note.kind = Kind::pattern;
  note.glob = request.glob;
  note.number = number;
  publish(note);
}

// `note.proxy`: who has acknowledged, or, if it is the pattern itself, whose it was.
void ModelBus::acknowledged(const Note& note) {
  const auto at = requests_.find(note.number);
  if (at == requests_.end()) return;
  Outcome& outcome = at->second.outcome;
  outcome.acknowledged |= static_cast<uint8_t>(1u << (note.proxy - 1));
  if (outcome.receivers > 0 && std::popcount(outcome.acknowledged) >= outcome.receivers)
    finish(note.number, false);
}

void ModelBus::finish(uint64_t number, bool failed) {
  const auto at = requests_.find(number);
  Request request = std::move(at->second);
  requests_.erase(at);
  request.outcome.failed = failed;
  request.done(request.outcome);
}

void ModelBus::finish_late() {
  std::vector<uint64_t> late;
  for (const auto& [number, request] : requests_)
    if (request.deadline_ns <= engine_.now_ns()) late.push_back(number);
  for (const uint64_t number : late)
    finish(number, !up_ && requests_[number].outcome.acknowledged == 0);
}

void ModelBus::on_reply(End& end, const Reply& reply) {
  if (&end == &publisher_) {  // nothing is refused here
    const auto at = requests_.find(reply.note.number);
    if (reply.note.kind != Kind::pattern || at == requests_.end()) return;
    Outcome& outcome = at->second.outcome;
    outcome.receivers = reply.receivers;
    if (std::popcount(outcome.acknowledged) >= outcome.receivers) finish(at->first, false);
    return;
  }
  switch (reply.kind) {
    case Reply::Kind::ok:
      id_ = end.link->id();
      server_ = end.link->server().id();
      subscribed_ = true;
      return send_proof();
    case Reply::Kind::push_probe: probes_seen_.push_back(reply.note.number); return;
    case Reply::Kind::push_keys:
      if (!mutation::no_push) invalidate(reply.name);
      return;
    case Reply::Kind::push_all:
      if (!mutation::no_push) everything("FLUSHALL");
      return;
    default: break;
  }
  if (reply.note.to != 0) to_me(reply.note);
  else to_all(reply.note);
}

void ModelBus::to_me(const Note& note) {
  if (note.kind == Kind::acknowledge) return acknowledged(note);
  const auto at = std::find_if(proofs_.begin(), proofs_.end(),
                               [&](const Proof& proof) { return proof.number == note.number; });
  if (at == proofs_.end()) return;
  const uint64_t sent_ns = at->sent_ns;
  proofs_.erase(proofs_.begin(), at + 1);
  subscriber_.backoff_ns = publisher_.backoff_ns = 0;
  proof_ns_ = sent_ns;
  if (!up_) {
    subscriber_id_ = id_;
    up_ = true;
    engine_.trace("proxy ", process_.number, ": bus is up");
    everything("the bus is connected");
    on_state();
    say_again();
    heartbeat_due_ns_ = 0;
  }
  std::vector<Confirmation> ready;
  std::erase_if(confirmations_, [&](const Confirmation& each) {
    if (each.proof > note.number) return false;
    ready.push_back(each);
    return true;
  });
  for (const Confirmation& each : ready) each.done(std::erase(probes_seen_, each.probe) > 0);
  on_proof();
}

void ModelBus::to_all(const Note& note) {
  const uint64_t now_ns = engine_.now_ns();
  if (note.proxy == proxy_id_) {
    if (note.kind == Kind::pattern) acknowledged(note);
    return;
  }
  switch (note.kind) {
    case Kind::wrote:
    case Kind::wrote_everything:
      if (mutation::no_push || !announcing_) return;
      if (peers_.on_message(note.proxy, note.number, now_ns)) missed("a proxy is new");
      return apply(note);
    case Kind::heartbeat:
      if (!announcing_) return;
      if (peers_.on_heartbeat(note.proxy, note.number, now_ns))
        missed("a proxy is new or a message of its was lost");
      else if (note.overdue && !mutation::no_gap) missed("a message of another proxy is overdue");
      return;
    case Kind::pattern: {
      process_.accept_pattern(kGlobs[note.glob]);
      Note done;
      done.kind = Kind::acknowledge;
      done.number = note.number;
      done.to = static_cast<uint32_t>(note.proxy);
      return publish(done);
    }
    default: return apply(note);
  }
}

void ModelBus::apply(const Note& note) {
  if (note.kind != Kind::wrote) return everything("another proxy says so");
  for (Name name = 0; name < kNames; ++name)
    if ((note.names >> name & 1) != 0) invalidate(name);
}

void ModelBus::missed(const char* reason) { everything(reason); }

// Process::on_invalidate, on_everything, on_state, on_proof.
void ModelBus::invalidate(Name name) {
  engine_.trace("proxy ", process_.number, ": bus says that ", text_of(name), " has changed");
  process_.stamps.invalidate(process_.hash_of(name));
}

void ModelBus::everything(const char* reason) {
  engine_.trace("proxy ", process_.number, ": drops everything: ", reason);
  process_.stamps.invalidate_all();
}

void ModelBus::on_state() {
  for (const auto& router : process_.routers)
    process_.post(*router, [worker = router.get()] { worker->on_bus_state(); });
}

void ModelBus::on_proof() {
  for (const auto& router : process_.routers)
    if (router->waits_for_proof())
      process_.post(*router, [worker = router.get()] { worker->on_bus_proof(); });
}

}  // namespace nearcached::sim
