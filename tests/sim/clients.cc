#include "sim/clients.h"

namespace nearcached::sim {
namespace {

using Op = ClientRequest::Op;

constexpr unsigned kRounds = 3;  // of verify()

ClientRequest request_of(Op op, std::initializer_list<unsigned> names) {
  ClientRequest request;
  request.op = op;
  for (const unsigned name : names) request.names[request.count++] = static_cast<Name>(name);
  return request;
}

ClientRequest again(ClientRequest request) {
  request.number = 0;
  return request;
}

}  // namespace

ClientOptions draw_client_options(Random& random, uint64_t active_ns, bool alone) {
  const auto sometimes = [&](unsigned percent, uint64_t most) {
    return random.percent(percent) ? static_cast<unsigned>(random.between(1, most)) : 0;
  };
  ClientOptions options;
  // A skewed pause is an eighth of the longest in the mean, and every fourth is one of these.
  options.think_max_ns = active_ns * 8 * 4 / random.between(3, 12ull << random.below(4));
  options.ttl_max_ms = std::max<uint64_t>(2, active_ns / kNsPerMs / random.between(1, 20));
  options.batch_max = static_cast<unsigned>(random.between(1, 6));
  options.names = static_cast<unsigned>(random.between(1, random.between(1, kNames)));
  options.writes = sometimes(85, 50);
  options.expiring = sometimes(30, 80);
  options.twins = sometimes(30, 20);
  options.mgets = sometimes(50, 40);
  options.scripts = sometimes(30, 15);
  options.transactions = sometimes(30, 30);
  options.selects = sometimes(25, 10);
  options.flushes = sometimes(15, 5);
  options.swaps = alone ? sometimes(15, 5) : 0;
  return options;
}

Command draw_direct_write(Random& random, const ClientOptions& options) {
  Command command;
  command.kind = Command::Kind::set;
  if (random.percent(15)) command.kind = Command::Kind::del;
  if (options.flushes > 0 && random.percent(5)) command.kind = Command::Kind::flush_all;
  const unsigned database = options.selects > 0 ? static_cast<unsigned>(random.below(2)) : 0;
  const unsigned first = static_cast<unsigned>(random.below(options.names));
  command.count = command.kind == Command::Kind::flush_all ? 0 : 1;
  command.keys[0] = key_of(database, first);
  if (command.kind == Command::Kind::set && random.percent(options.expiring))
    command.px_ms = static_cast<uint32_t>(random.between(1, options.ttl_max_ms));
  return command;
}

void Clients::add(Router& router) {
  Client& client = *clients_.emplace_back(std::make_unique<Client>());
  client.router = &router;
  client.number = static_cast<unsigned>(clients_.size() - 1);
}

void Clients::start(size_t first) {
  for (size_t i = first; i < clients_.size(); ++i) {
    clients_[i]->session = clients_[i]->router->accept(clients_[i]->number).ref;
    next_batch_later(*clients_[i]);
  }
}

void Clients::next_batch_later(Client& client) {
  // Bursts: what races, races within a few round trips.
  Random& random = engine_.random;
  uint64_t think_ns = random.skewed(2 * redis_.options().delay_max_ns);
  if (random.percent(25)) think_ns = random.skewed(options_.think_max_ns);
  if (client.verifying) {
    think_ns = 4 * redis_.options().delay_max_ns;
    // Before the read that fills, so that the last one is a hit: the lane may only just have come
    // up, its last link having been lost without a sign, and has to be proven first.
    if (client.verified % kRounds == kRounds - 2) think_ns += options_.proof_ns;
  }
  engine_.after(think_ns, [this, &client] { next_batch(client); });
}

void Clients::next_batch(Client& client) {
  if (client.outstanding > 0 || client.router->find(client.session) == nullptr) return;
  if (client.verifying) {
    if (client.to_verify.empty()) return;
    const ClientRequest request = client.to_verify.back();
    client.to_verify.pop_back();
    return send(client, {request});
  }
  if (!stopped_) send(client, draw_batch(client));
}

void Clients::send(Client& client, std::vector<ClientRequest> requests) {
  client.outstanding += requests.size();
  client.router->turn([&] { client.router->on_read(client.session, std::move(requests)); });
}

std::vector<ClientRequest> Clients::draw_batch(Client& client) {
  Random& random = engine_.random;
  if (client.phase == Phase::watched || random.percent(options_.transactions))
    return draw_transaction(client);
  std::vector<ClientRequest> batch;
  for (uint64_t left = random.between(1, options_.batch_max); left > 0; --left)
    batch.push_back(draw_request());
  return batch;
}

// WATCH and GET first; when they are answered, MULTI, SET, EXEC. Or a MULTI without WATCH.
std::vector<ClientRequest> Clients::draw_transaction(Client& client) {
  Random& random = engine_.random;
  const auto name = static_cast<unsigned>(random.below(options_.names));
  const auto other = static_cast<unsigned>(random.below(options_.names));
  if (client.phase == Phase::plain && random.percent(60)) {
    client.phase = Phase::watching;
    const unsigned database = client.router->find(client.session)->database;
    client.key = key_of(database, name);
    return {request_of(Op::watch, {name}), request_of(Op::get, {name})};
  }
  const bool watched = client.phase == Phase::watched;
  if (watched) client.phase = Phase::executing;
  const Op second = random.percent(20) && options_.scripts > 0 ? Op::script : Op::get;
  return {request_of(Op::multi, {}), request_of(Op::set, {watched ? name_of(client.key) : name}),
          request_of(second, {other}), request_of(Op::exec, {})};
}

ClientRequest Clients::draw_request() {
  Random& random = engine_.random;
  const auto name = [&] { return static_cast<unsigned>(random.below(options_.names)); };
  if (random.percent(options_.selects)) {
    ClientRequest request = request_of(Op::select, {});
    request.database = static_cast<unsigned>(random.below(kDatabases));
    return request;
  }
  if (random.percent(options_.flushes)) return request_of(Op::flush_all, {});
  if (random.percent(options_.swaps)) return request_of(Op::swap_db, {});
  if (random.percent(options_.scripts)) return request_of(Op::script, {name()});
  if (options_.patterns > 0 && random.percent(options_.patterns)) {
    ClientRequest request = request_of(Op::pattern, {});
    request.glob = static_cast<uint8_t>(random.below(std::size(kGlobs)));
    return request;
  }
  const bool twin = random.percent(options_.twins);
  if (random.percent(options_.writes)) {
    if (random.percent(15)) return request_of(Op::del, {name()});
    ClientRequest request = request_of(twin ? Op::set_twin : Op::set, {name()});
    if (random.percent(20)) {  // MSET; a key twice is still one
      const unsigned second = name();
      if (second != request.names[0]) request.names[request.count++] = static_cast<Name>(second);
    }
    if (random.percent(options_.expiring))
      request.px_ms = static_cast<uint32_t>(random.between(1, options_.ttl_max_ms));
    return request;
  }
  if (twin) return request_of(Op::read_twin, {name()});
  if (random.percent(options_.mgets)) {
    ClientRequest request = request_of(Op::mget, {});
    const unsigned first = name();
    for (unsigned i = 0; i < options_.names; ++i)
      if (i == first || random.percent(50)) request.names[request.count++] = static_cast<Name>(i);
    return request;
  }
  const unsigned of =
      name();  // a draw a statement: compilers order a call's arguments as they like
  return request_of(random.percent(15) ? Op::strlen : Op::get, {of});
}

void Clients::on_start(Session& session, ClientRequest& request) {
  checker_.on_start(session, request);
}

void Clients::on_answer(Session& session, const ClientRequest& request, const Answer& answer) {
  Client& client = *clients_[session.client];
  checker_.on_answer(session, request, answer);
  if (client.session != session.ref) return;
  --client.outstanding;
  if (client.verifying && answer.reply.kind == Reply::Kind::lost) {
    client.to_verify.push_back(again(request));  // over a link that was lost without a sign
  } else if (client.verifying && request.op != Op::select && request.op != Op::pattern) {
    checker_.on_final_read(session, request, answer, ++client.verified % kRounds == 0);
  }
  if (client.phase != Phase::plain) on_transaction(client, request, answer);
  if (client.outstanding == 0) next_batch_later(client);
}

void Clients::on_transaction(Client& client, const ClientRequest& request, const Answer& answer) {
  const bool values = answer.reply.kind == Reply::Kind::values;
  if (client.phase == Phase::watching && request.op == Op::get) {
    if (values) client.read = answer.reply.values[0];
    client.phase = values ? Phase::watched : Phase::plain;
  } else if (request.op == Op::watch && answer.reply.kind != Reply::Kind::ok) {
    client.phase = Phase::plain;
  } else if (client.phase == Phase::executing && request.op == Op::exec) {
    if (values) checker_.on_update(client.key, client.read.version, answer.reply.values[0].version);
    client.phase = Phase::plain;
  }
}

void Clients::on_session_closed(Session& session) {
  Client& client = *clients_[session.client];
  if (client.session != session.ref) return;
  client.phase = Phase::plain;
  client.outstanding = 0;
  engine_.after(engine_.random.skewed(options_.think_max_ns), [this, &client] {
    if (stopped_) return;
    client.session = client.router->accept(client.number).ref;
    next_batch(client);
  });
}

void Clients::close_one() {
  Client& client = *clients_[engine_.random.below(clients_.size())];
  Session* session = client.router->find(client.session);
  if (session == nullptr) return;
  engine_.trace(client.router->name(), ": session ", uint64_t{session->ref}, " hangs up");
  client.router->turn([&] { client.router->close_session(*session); });
}

void Clients::check_idle() const {
  for (const auto& client : clients_)
    if (client->outstanding > 0 || !client->to_verify.empty())
      throw Violation{"G4", client->router->name() + " leaves session " +
                                std::to_string(client->session) + " without an answer"};
}

void Clients::begin_verifying(Client& client) {
  client.verifying = true;
  client.phase = Phase::plain;
  client.session = client.router->accept(client.number).ref;
}

void Clients::ask_pattern() {
  begin_verifying(*clients_[0]);
  clients_[0]->to_verify.push_back(request_of(Op::pattern, {}));
  next_batch(*clients_[0]);
}

void Clients::verify() {
  const Router* last = nullptr;
  for (const auto& client : clients_) {
    if (client->router == last) continue;  // one a worker is enough
    last = client->router;
    begin_verifying(*client);
    for (unsigned database = options_.selects > 0 ? kDatabases : 1; database-- > 0;) {
      for (unsigned name = 0; name < options_.names; ++name)
        for (unsigned round = 0; round < kRounds; ++round)
          client->to_verify.push_back(request_of(Op::get, {name}));
      if (database == 0) continue;
      ClientRequest request = request_of(Op::select, {});
      request.database = database;
      client->to_verify.push_back(request);
    }
    next_batch(*client);
  }
}

}  // namespace nearcached::sim
