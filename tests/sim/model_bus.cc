// See model_bus.h; the functions have the names they have in src/bus/bus.cc.
#include "sim/model_bus.h"

#include "nearcached/coherence/mutations.h"
#include "sim/model_proxy.h"

namespace nearcached::sim {
namespace {

using Kind = Note::Kind;

constexpr size_t kProofsMax = 64;

}  // namespace

ModelBus::ModelBus(Process& process)
    : process_(process),
      engine_(process.engine),
      subscriber_(*this),
      publisher_(*this),
      proxy_id_(process.number + 1),
      peers_(1024, process.options.max_staleness_ns) {}

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
  if (!up_) return;
  if (announcing_ && now_ns >= heartbeat_due_ns_) send_heartbeat();
  if (peers_.expire(now_ns)) missed("another proxy fell silent");
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
  note.direct = true;
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

void ModelBus::on_reply(End& end, const Reply& reply) {
  if (&end == &publisher_) return;  // nothing is refused here
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
  if (reply.note.direct) to_me(reply.note);
  else to_all(reply.note);
}

void ModelBus::to_me(const Note& note) {
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
  const bool own = note.proxy == proxy_id_;
  if (own) return;
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
