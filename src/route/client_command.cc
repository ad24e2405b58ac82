// CLIENT: about the client's own connection to this proxy, and about the proxy's other clients.
//
// What belongs to the server's side of a connection (TRACKING, CACHING, NO-EVICT …) pins the
// session, so that it means what it says. What speaks of other clients asks every worker.
#include <charconv>

#include "nearcached/base/clock.h"
#include "nearcached/resp/writer.h"
#include "route/router.h"

namespace nearcached {
namespace {

constexpr Bytes kKillProbe[] = {"CLIENT", "KILL", "ID", "0"};
constexpr Bytes kUnblockProbe[] = {"CLIENT", "UNBLOCK", "0"};
constexpr Bytes kListProbe[] = {"CLIENT", "LIST", "ID", "0"};

constexpr uint64_t kNsPerSecond = 1'000'000'000;

bool to_id(Bytes text, uint64_t& id) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  return error == std::errc() && end == text.data() + text.size() && id > 0;
}

Bytes type_of(const Session& session) {
  return session.pin != nullptr && session.pin->subscribed() ? "pubsub" : "normal";
}

Bytes user_of(const Session& session) {
  return session.identity->user.empty() ? Bytes("default") : Bytes(session.identity->user);
}

// CLIENT KILL's and CLIENT LIST's filters. All must hold.
struct Filter {
  std::vector<uint64_t> ids;
  std::string type, user, address, local_address;
  bool skip_me = true;

  bool matches(const Session& session) const {
    if (!ids.empty() && std::find(ids.begin(), ids.end(), session.id) == ids.end()) return false;
    if (!type.empty() && type != type_of(session)) return false;
    if (!user.empty() && user != user_of(session)) return false;
    if (!address.empty() && address != session.peer_name()) return false;
    return local_address.empty() || local_address == session.local_name();
  }
};

bool known_type(Bytes type) {
  return equals_upper(type, "NORMAL") || equals_upper(type, "PUBSUB") ||
         equals_upper(type, "MASTER") || equals_upper(type, "REPLICA") ||
         equals_upper(type, "SLAVE");
}

std::string lower(Bytes text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

}  // namespace

bool valid_client_name(Bytes name) {
  for (const char c : name)
    if (c < '!' || c > '~') return false;
  return true;
}

bool is_local_client_command(const Command& command, size_t args) {
  if (!command.arity_ok(args)) return false;
  for (const Bytes name :
       {Bytes("client|id"), Bytes("client|getname"), Bytes("client|setname"), Bytes("client|info"),
        Bytes("client|list"), Bytes("client|kill"), Bytes("client|unblock"), Bytes("client|reply")})
    if (command.name == name) return true;
  return false;
}

std::string Router::client_line(const Session& session) const {
  const Pin* pin = session.pin;
  std::string flags;
  if (pin != nullptr && pin->monitor) flags += 'O';
  if (pin != nullptr && pin->subscribed()) flags += 'P';
  if (pin != nullptr && pin->multi) flags += 'x';
  if (pin != nullptr && pin->blocking > 0) flags += 'b';
  if (flags.empty()) flags = "N";
  const Bytes command = session.last_command < table_->commands().size() + 1
                            ? command_name(session.last_command)
                            : Bytes("NULL");
  std::string line = "id=" + std::to_string(session.id);
  const auto field = [&](const char* name, const auto& value) {
    line += ' ';
    line += name;
    line += '=';
    if constexpr (std::is_integral_v<std::decay_t<decltype(value)>>) line += std::to_string(value);
    else line += value;
  };
  field("addr", session.peer_name());
  field("laddr", session.local_name());
  field("fd", session.fd());
  field("name", session.name());
  field("age", (now_ns_ - session.created_ns) / kNsPerSecond);
  field("idle", (now_ns_ - session.active_ns) / kNsPerSecond);
  field("flags", flags);
  field("db", session.database);
  field("sub", pin == nullptr ? 0 : pin->channels);
  field("psub", 0);
  field("ssub", pin == nullptr ? 0 : pin->shard_channels);
  field("multi", pin != nullptr && pin->multi ? 0 : -1);
  field("qbuf", session.input_bytes());
  field("omem", session.output_bytes());
  field("cmd", command);
  field("user", user_of(session));
  field("redir", -1);
  field("resp", static_cast<int>(session.resp));
  return line;
}

std::string Router::client_list(const std::function<bool(const Session&)>& wanted) {
  std::string text;
  now_ns();
  for (const Place& place : sessions_)
    if (place.session != nullptr && wanted(*place.session))
      text += client_line(*place.session) + "\n";
  return text;
}

uint64_t Router::kill_clients(const std::function<bool(const Session&)>& wanted,
                              uint64_t spare_id) {
  uint64_t killed = 0;
  for (size_t i = 0; i < sessions_.size(); ++i) {
    Session* session = sessions_[i].session.get();
    if (session == nullptr || !wanted(*session)) continue;
    ++killed;
    if (session->id == spare_id) session->close_when_done();  // it still gets the answer
    else session->close();
  }
  return killed;
}

// Answers when every worker has added its part to a text or a number, if the server grants the
// session's user what `probe` asks for: a harmless request of the same right, whose answer is not
// looked at unless it denies that right.
// Goes on if the server lets this user do something comparable.
void Router::if_allowed(Session& session, std::span<const Bytes> probe,
                        std::function<void(SessionRef, ReplyQueue::Slot)> then) {
  const SessionRef ref = session.ref;
  const ReplyQueue::Slot slot = session.reserve();
  Connection& connection = *session.lane->connection;
  if (!connection.up()) {
    // Nobody can say. Those who never authenticated have the rights of the proxy itself.
    if (!session.authenticated) return then(ref, slot);
    return session.deliver(slot, kUnreachable, true);
  }
  wire_.clear();
  resp::write_request(wire_, probe);
  connection.send(wire_.readable(),
                  ReplyTask::pending(
                      [this, ref, slot, then = std::move(then)](Bytes reply, Bytes failure) {
                        const bool denied = reply.starts_with("-NOPERM") ||
                                            reply.starts_with("-NOAUTH") || !failure.empty();
                        if (!denied) return then(ref, slot);
                        if (Session* waiting = find(ref))
                          waiting->deliver(slot, failure.empty() ? reply : failure, true);
                      },
                      now_ns_));
}

void Router::gather(Session& session, std::span<const Bytes> probe, Each each, Answer answer) {
  if_allowed(session, probe,
             [this, each = std::move(each), answer = std::move(answer)](
                 SessionRef ref, ReplyQueue::Slot slot) { gather_parts(ref, slot, each, answer); });
}

void Router::gather_parts(SessionRef ref, ReplyQueue::Slot slot, Each each, Answer answer) {
  auto parts = std::make_shared<std::vector<std::string>>(process_.routers.size());
  process_.on_every_worker(
      index_,
      [each = std::move(each), parts](Router& router, std::function<void()> finished) {
        each(router, (*parts)[router.index()]);
        finished();
      },
      [this, ref, slot, parts, answer = std::move(answer)] {
        if (Session* waiting = find(ref)) waiting->deliver(slot, answer(*parts), true);
      });
}

Session::Outcome Router::client_kill(Session& session, std::span<const Bytes> args) {
  Filter filter;
  const bool old_form = args.size() == 3;
  if (old_form) {
    filter.address.assign(args[2]);
    filter.skip_me = false;
  } else {
    if (args.size() % 2 != 0) {
      session.reply("-ERR syntax error\r\n");
      return Outcome::done;
    }
    for (size_t i = 2; i + 1 < args.size(); i += 2) {
      const Bytes value = args[i + 1];
      uint64_t id = 0;
      if (equals_upper(args[i], "ID")) {
        if (!to_id(value, id)) {
          session.reply("-ERR client-id should be greater than 0\r\n");
          return Outcome::done;
        }
        filter.ids.push_back(id);
      } else if (equals_upper(args[i], "TYPE")) {
        if (!known_type(value)) {
          session.reply("-ERR Unknown client type '" + std::string(value) + "'\r\n");
          return Outcome::done;
        }
        filter.type = lower(value);
      } else if (equals_upper(args[i], "USER")) {
        filter.user.assign(value);
      } else if (equals_upper(args[i], "ADDR")) {
        filter.address.assign(value);
      } else if (equals_upper(args[i], "LADDR")) {
        filter.local_address.assign(value);
      } else if (equals_upper(args[i], "SKIPME") &&
                 (equals_upper(value, "YES") || equals_upper(value, "NO"))) {
        filter.skip_me = equals_upper(value, "YES");
      } else {
        session.reply("-ERR syntax error\r\n");
        return Outcome::done;
      }
    }
  }
  const uint64_t self = session.id;
  gather(
      session, kKillProbe,
      [filter, self](Router& router, std::string& part) {
        part = std::to_string(router.kill_clients(
            [&](const Session& other) {
              return filter.matches(other) && !(filter.skip_me && other.id == self);
            },
            self));
      },
      [old_form](const std::vector<std::string>& parts) -> std::string {
        uint64_t killed = 0;
        for (const std::string& part : parts) killed += std::stoull(part);
        if (!old_form) return ":" + std::to_string(killed) + "\r\n";
        return killed > 0 ? "+OK\r\n" : "-ERR No such client\r\n";
      });
  return Outcome::done;
}

bool Router::unblock_client(uint64_t id, bool error) {
  for (Place& place : sessions_) {
    Session* session = place.session.get();
    if (session == nullptr || session->id != id) continue;
    if (session->pin == nullptr || session->pin->blocking == 0) return false;
    const uint64_t theirs = session->pin->connection->upstream_id();
    if (theirs == 0 || !main_lane_->connection->up()) return false;
    main_lane_->connection->send(
        {"CLIENT", "UNBLOCK", std::to_string(theirs), error ? "ERROR" : "TIMEOUT"},
        ReplyTask::pending([](Bytes, Bytes) {}, now_ns_));
    return true;
  }
  return false;
}

Session::Outcome Router::client_command(Session& session, const Request& request,
                                        const Command& command) {
  const auto args = request.args;
  const Bytes name = command.name;
  if (!is_local_client_command(command, args.size()))
    return command.arity_ok(args.size()) && name.starts_with("client|") && name != "client|help"
               ? pinned(session, request, &command)
               : relay(session, request, &command);
  if (name == "client|id") {
    session.reply(":" + std::to_string(session.id) + "\r\n");
  } else if (name == "client|getname") {
    Buffer out;
    if (session.name().empty()) resp::write_null(out, session.resp);
    else resp::write_bulk(out, session.name());
    session.reply(out.readable());
  } else if (name == "client|setname") {
    if (!valid_client_name(args[2])) {
      session.reply(kBadClientName);
    } else {
      session.set_name(args[2]);
      session.reply("+OK\r\n");
    }
  } else if (name == "client|info") {
    Buffer out;
    now_ns();
    resp::write_verbatim(out, client_line(session) + "\n", session.resp);
    session.reply(out.readable());
  } else if (name == "client|list") {
    return client_list_command(session, args);
  } else if (name == "client|kill") {
    return client_kill(session, args);
  } else if (name == "client|unblock") {
    return client_unblock(session, args);
  } else if (name == "client|reply") {
    return client_reply(session, args[2]);
  }
  return Outcome::done;
}

Session::Outcome Router::client_reply(Session& session, Bytes mode) {
  if (equals_upper(mode, "ON")) {
    session.reply_off = session.skip_this = false;
    session.reply("+OK\r\n");
  } else if (equals_upper(mode, "OFF")) {
    session.reply_off = true;
  } else if (equals_upper(mode, "SKIP")) {
    if (!session.reply_off) session.skip_next = true;
  } else {
    session.reply("-ERR syntax error\r\n");
  }
  return Outcome::done;
}

Session::Outcome Router::client_list_command(Session& session, std::span<const Bytes> args) {
  Filter filter;
  if (args.size() == 4 && equals_upper(args[2], "TYPE")) {
    if (!known_type(args[3])) {
      session.reply("-ERR Unknown client type '" + std::string(args[3]) + "'\r\n");
      return Outcome::done;
    }
    filter.type = lower(args[3]);
  } else if (args.size() > 3 && equals_upper(args[2], "ID")) {
    for (const Bytes arg : args.subspan(3)) {
      uint64_t id = 0;
      if (!to_id(arg, id)) {
        session.reply("-ERR Invalid client ID\r\n");
        return Outcome::done;
      }
      filter.ids.push_back(id);
    }
  } else if (args.size() != 2) {
    session.reply("-ERR syntax error\r\n");
    return Outcome::done;
  }
  gather(
      session, kListProbe,
      [filter](Router& router, std::string& part) {
        part = router.client_list([&](const Session& other) { return filter.matches(other); });
      },
      [resp = session.resp](const std::vector<std::string>& parts) {
        std::string text;
        for (const std::string& part : parts) text += part;
        Buffer out;
        resp::write_verbatim(out, text, resp);
        return std::string(out.readable());
      });
  return Outcome::done;
}

Session::Outcome Router::client_unblock(Session& session, std::span<const Bytes> args) {
  uint64_t id = 0;
  const bool error = args.size() == 4 && equals_upper(args[3], "ERROR");
  if (args.size() == 4 && !error && !equals_upper(args[3], "TIMEOUT")) {
    session.reply("-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n");
    return Outcome::done;
  }
  if (!to_id(args[2], id)) {
    session.reply("-ERR value is not an integer or out of range\r\n");
    return Outcome::done;
  }
  gather(
      session, kUnblockProbe,
      [id, error](Router& router, std::string& part) {
        part = router.unblock_client(id, error) ? "1" : "";
      },
      [](const std::vector<std::string>& parts) -> std::string {
        for (const std::string& part : parts)
          if (!part.empty()) return ":1\r\n";
        return ":0\r\n";
      });
  return Outcome::done;
}

}  // namespace nearcached
