// HELLO, AUTH, SELECT, RESET, QUIT: they change which lane a session is on, so they wait until its
// earlier replies are out. Whether credentials or a database number are good is the server's to
// say: the lane for them is opened (or, for AUTH on an open one, asked), and its answer is the
// answer.
#include <charconv>

#include "nearcached/resp/writer.h"
#include "route/router.h"

namespace nearcached {
namespace {

bool is_integer(Bytes text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// HELLO without credentials where the server demands them; its own words.
constexpr Bytes kHelloNoAuth =
    "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO "
    "<proto> "
    "AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol "
    "version at the same time\r\n";

}  // namespace

Session::Outcome Router::connection_command(Session& session, const Request& request,
                                            const Command& command) {
  if (command.route == Route::quit) {
    session.reply("+OK\r\n");
    session.close_when_done();
    return Outcome::done;
  }
  if (session.outstanding()) return Outcome::later;
  if (!command.arity_ok(request.args.size())) return relay(session, request, &command);
  switch (command.route) {
    case Route::select: return select(session, request, command);
    case Route::auth: return auth(session, request, command);
    case Route::hello: return hello(session, request.args);
    default: reset(session); return Outcome::done;
  }
}

// Until last_connection is set again, whatever follows waits. What the session has seen over
// another connection than its lane counts when it comes back.
void Router::leave(Session& session) {
  if (session.last_connection != nullptr && session.last_connection != session.lane)
    session.floor_ns = now_ns_;
  session.last_connection = &kNowhere;
}

Session::Outcome Router::select(Session& session, const Request& request, const Command& command) {
  int64_t number = 0;
  if (!is_integer(request.args[1], number)) return relay(session, request, &command);  // an error
  if (number < 0 || number > INT32_MAX) {
    session.reply("-ERR DB index is out of range\r\n");
    return Outcome::done;
  }
  // In a cluster no single node decides.
  if (number == session.database && (cluster_ || session.lane->connection->up())) {
    session.reply("+OK\r\n");
    return Outcome::done;
  }
  if (cluster_) {
    session.reply("-ERR SELECT is not allowed in cluster mode\r\n");
    return Outcome::done;
  }
  Lane* lane = lane_for(session.identity, static_cast<uint32_t>(number), 3, session.lane->node);
  if (lane == nullptr) {
    session.reply(kNoLane);
    return Outcome::done;
  }
  const SessionRef ref = session.ref;
  const ReplyQueue::Slot slot = session.reserve();
  leave(session);
  when_ready(*lane, [this, ref, slot, lane, number](bool up, Bytes refusal) {
    Session* waiting = find(ref);
    if (waiting == nullptr) return;
    if (up) {
      waiting->database = static_cast<uint32_t>(number);
      waiting->floor_ns = now_ns_;
      attach(*waiting, *lane);
    }
    waiting->last_connection = waiting->lane;
    waiting->deliver(slot,
                     up                ? Bytes("+OK\r\n")
                     : refusal.empty() ? Bytes(kUnreachable)
                                       : refusal,
                     true);
  });
  return Outcome::done;
}

// Takes the session to `identity`'s lane if the server accepts it; `then` gets the error, or
// nothing.
void Router::switch_identity(Session& session, std::shared_ptr<const Identity> identity,
                             std::function<void(Session& session, Bytes error)> then) {
  Lane* lane = lane_for(identity, session.database, 3, session.lane->node);
  if (lane == nullptr) return then(session, kNoLane);
  const SessionRef ref = session.ref;
  auto accepted = [this, ref, lane, identity, then](Bytes error) {
    Session* waiting = find(ref);
    if (waiting == nullptr) return;
    if (error.empty()) {
      attach(*waiting, *lane);
      waiting->identity = identity;
      waiting->authenticated = true;
      waiting->set_unauthenticated(false);
      waiting->floor_ns = now_ns_;
    }
    waiting->last_connection = waiting->lane;
    then(*waiting, error);
  };
  if (!lane->connection->up())
    return when_ready(*lane, [accepted](bool up, Bytes refusal) {
      accepted(up ? Bytes() : refusal.empty() ? Bytes(kUnreachable) : refusal);
    });
  // The lane is open, but the password may have been changed since: the server is asked again.
  const auto answer = [accepted](Bytes reply, Bytes failure) {
    accepted(!failure.empty() ? failure : reply.starts_with("-") ? reply : Bytes());
  };
  if (identity->with_user)
    lane->connection->send({"AUTH", identity->user, identity->password},
                           ReplyTask::pending(answer, now_ns_));
  else lane->connection->send({"AUTH", identity->password}, ReplyTask::pending(answer, now_ns_));
}

Session::Outcome Router::auth(Session& session, const Request& request, const Command& command) {
  const auto args = request.args;
  if (args.size() > 3) return relay(session, request, &command);  // a syntax error
  const bool with_user = args.size() == 3;
  auto identity = std::make_shared<const Identity>(
      Identity{with_user ? std::string(args[1]) : "", std::string(args.back()), true, with_user});
  const ReplyQueue::Slot slot = session.reserve();
  leave(session);
  switch_identity(session, std::move(identity), [slot](Session& done, Bytes error) {
    done.deliver(slot, error.empty() ? Bytes("+OK\r\n") : error, true);
  });
  return Outcome::done;
}

// HELLO [protover [AUTH username password] [SETNAME clientname]]
Session::Outcome Router::hello(Session& session, std::span<const Bytes> args) {
  int64_t version = session.resp;
  if (args.size() > 1) {
    if (!is_integer(args[1], version)) {
      session.reply("-ERR Protocol version is not an integer or out of range\r\n");
      return Outcome::done;
    }
    if (version < 2 || version > 3) {
      session.reply("-NOPROTO unsupported protocol version\r\n");
      return Outcome::done;
    }
  }
  std::shared_ptr<const Identity> identity;
  std::string name;
  bool named = false;
  for (size_t i = 2; i < args.size(); ++i) {
    const size_t left = args.size() - i - 1;
    if (equals_upper(args[i], "AUTH") && left >= 2) {
      identity = std::make_shared<const Identity>(
          Identity{std::string(args[i + 1]), std::string(args[i + 2]), true, true});
      i += 2;
    } else if (equals_upper(args[i], "SETNAME") && left >= 1) {
      name.assign(args[++i]);
      named = true;
      if (!valid_client_name(name)) {
        session.reply(kBadClientName);
        return Outcome::done;
      }
    } else {
      session.reply("-ERR Syntax error in HELLO option '" + std::string(args[i]) + "'\r\n");
      return Outcome::done;
    }
  }
  if (process_.config.security.require_auth && !session.authenticated && identity == nullptr) {
    session.reply(kHelloNoAuth);
    return Outcome::done;
  }
  const ReplyQueue::Slot slot = session.reserve();
  leave(session);
  auto finish = [this, slot, version, name, named](Session& done, Bytes error) {
    if (!error.empty()) return done.deliver(slot, error, true);
    if (named) done.set_name(name);
    done.resp = static_cast<uint8_t>(version);
    const std::string reply = hello_reply(done);
    done.deliver(slot, reply, true);
  };
  if (identity != nullptr) {
    switch_identity(session, std::move(identity), std::move(finish));
    return Outcome::done;
  }
  const SessionRef ref = session.ref;
  when_ready(*session.lane, [this, ref, finish](bool up, Bytes refusal) {
    Session* waiting = find(ref);
    if (waiting == nullptr) return;
    waiting->last_connection = waiting->lane;
    if (refusal.starts_with("-NOAUTH")) refusal = kHelloNoAuth;
    finish(*waiting, up ? Bytes() : refusal.empty() ? Bytes(kUnreachable) : refusal);
  });
  return Outcome::done;
}

// The server's own answer with the client's id and protocol in it.
std::string Router::hello_reply(const Session& session) const {
  const std::string& theirs = session.lane->connection->hello_reply();
  if (theirs.empty()) {
    if (session.resp == 3) return "-NOPROTO unsupported protocol version\r\n";
    return "-ERR unknown command `HELLO`, with args beginning with: \r\n";
  }
  std::string reply = theirs;
  const auto replace = [&](Bytes name, uint64_t value) {
    const size_t at = reply.find(name);
    if (at == std::string::npos) return;
    const size_t begin = at + name.size();
    reply.replace(begin, reply.find("\r\n", begin) - begin, std::to_string(value));
  };
  if (is_disguised()) {
    constexpr Bytes kMode = "$4\r\nmode\r\n";
    const Bytes mode = presents_cluster() ? "$7\r\ncluster\r\n" : "$10\r\nstandalone\r\n";
    const size_t begin = reply.find(kMode) + kMode.size();
    if (reply.find(kMode) != std::string::npos)
      reply.replace(begin, reply.find("\r\n", reply.find("\r\n", begin) + 2) + 2 - begin, mode);
  }
  replace("$5\r\nproto\r\n:", session.resp);
  replace("$2\r\nid\r\n:", session.id);
  if (session.resp == 3) return reply;
  Buffer out;
  Resp2Converter::append_converted(reply, Resp2Rule::null_bulk, out);
  return std::string(out.readable());
}

// As a new connection would be, its id kept.
void Router::reset(Session& session) {
  if (session.pin != nullptr) close_pin(*session.pin);
  session.multi_begun = false;
  session.resp = 2;
  session.reply_off = session.skip_next =
      false;  // a SKIP before RESET skips its reply, as in Redis
  session.set_name({});
  session.identity = default_identity_;
  session.authenticated = false;
  session.set_unauthenticated(process_.config.security.require_auth);
  session.database = static_cast<uint32_t>(default_database());
  leave(session);
  if (session.lane != main_lane_) session.floor_ns = now_ns_;
  attach(session, *main_lane_);
  session.last_connection = main_lane_;
  session.reply("+RESET\r\n");
}

}  // namespace nearcached
