// Transactions: a session in WATCH or MULTI has a private connection. See model_proxy.h for what
// stands for what.
#include "sim/model_proxy.h"

namespace nearcached::sim {

void Router::acquire_pin(Session& session) {
  Pin* pin = nullptr;
  for (const auto& idle : pins_)
    if (idle->idle && idle->database == session.database && idle->connection.up()) pin = idle.get();
  if (pin == nullptr) {
    pin = pins_.emplace_back(std::make_unique<Pin>(*this)).get();
    pin->database = session.database;
    session.pin = pin;
    pin->session = session.ref;
    pin->connection.connect();
    return;
  }
  pin->session = session.ref;
  pin->idle = false;
  session.pin = pin;
}

void Router::close_pin(Pin& pin) {
  if (Session* session = find(pin.session)) session->pin = nullptr;
  pin.session = kNobody;
  pin.idle = false;
  pin.multi = pin.watch = false;
  std::erase(unflushed_, &pin.connection);
  pin.connection.close();
}

void Router::maybe_unpin(Session& session) {
  Pin* pin = session.pin;
  if (pin == nullptr || pin->has_state() || !pin->connection.pending.empty() ||
      session.outstanding())
    return;
  attach(session, *lane_for(session.database, false));
  if (!pin->connection.up()) return close_pin(*pin);
  session.pin = nullptr;
  pin->session = kNobody;
  pin->idle = true;
}

Session::Outcome Router::pinned(Session& session, const ClientRequest& request) {
  using Op = ClientRequest::Op;
  maybe_unpin(session);
  if (session.pin == nullptr) {
    if (request.op != Op::multi && request.op != Op::watch) return route(session, request);
    if (session.outstanding()) return Outcome::later;
    acquire_pin(session);
  }
  if (must_wait(session, session.pin->connection)) return Outcome::later;
  if (request.op == Op::pattern && !session.pin->multi) return pattern(session, request);
  if (request.op == Op::select) {  // followed by the real one; here clients do not do it
    session.reply(request, failure());
    return Outcome::done;
  }
  forward_pinned(session, request);
  return Outcome::done;
}

void Router::end_transaction(Pin& pin, Pending& pending) {
  pending.queued = std::move(pin.queued);
  pin.queued.clear();
  const bool everything = pin.writes_unknown && writes_unseen();
  pending.fence = pin.writes_unknown && !everything;
  pin.writes_unknown = false;
  if (everything) process.stamps.begin_write_all();
  pending.writes_all = everything;
  if (everything) announce_everything(pin.connection, pending);
  for (const Command& command : pending.queued) {
    if (command.kind != Command::Kind::set && command.kind != Command::Kind::del) continue;
    for (unsigned i = 0; i < command.count; ++i) {
      process.stamps.begin_write(process.hash_of(command.keys[i]));
      pending.writes.push_back(command.keys[i]);
      announce_key(pin.connection, pending, command.keys[i]);
    }
  }
  pin.multi = pin.watch = false;
}

void Router::forward_pinned(Session& session, const ClientRequest& request) {
  using Op = ClientRequest::Op;
  Pin& pin = *session.pin;
  const Command command = command_of(session, request);
  Pending pending;
  pending.kind = Pending::Kind::relay;
  pending.session = session.ref;
  pending.sent_ns = now_ns;
  mark_writes(pending, pin.connection, request, session);
  const bool queued =
      pin.multi && request.op != Op::exec && request.op != Op::multi && request.op != Op::watch;
  if (queued) {
    pin.queued.push_back(command);
    if (command.kind == Command::Kind::script) pin.writes_unknown = true;
    pending.fence = false;
  } else if (request.op == Op::multi) {
    pin.multi = true;
  } else if (request.op == Op::watch) {
    if (!pin.multi) pin.watch = true;
  } else if (request.op == Op::exec && pin.multi) {
    end_transaction(pin, pending);
  }
  went_to(session, pin.connection);
  pending.slot = session.reserve(request);
  if (pending.fence) session.hold(pending.slot);
  pin.connection.send(command, std::move(pending));
}

void Router::on_pin_reply(Pin& pin, Pending& pending, const Reply& reply) {
  Session* session = find(pin.session);
  if (session == nullptr || session->ref != pending.session) return;
  const ClientRequest& request = session->request_of(pending.slot);
  Answer answer = answer_of(reply, command_of(*session, request));
  if (reply.kind == Reply::Kind::queued) answer.wrote = {};
  if (reply.kind == Reply::Kind::values && request.op == ClientRequest::Op::exec) {
    for (unsigned i = 0; i < reply.count; ++i) {
      answer.keys[i] = pending.queued[i].keys[0];
      answer.wrote[i] = pending.queued[i].kind != Command::Kind::get;
    }
  }
  session->deliver(pending.slot, answer);
  if (session->closing) return;
  if (pending.fence) await_fence(pending.session, pending.slot);
  maybe_unpin(*session);
}

}  // namespace nearcached::sim
