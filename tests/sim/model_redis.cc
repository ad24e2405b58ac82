// One server runs one command at a time, when it arrives. What a command makes known goes into the
// connections' streams at that moment: to the others at once, to the one that sent it behind its
// reply (behind EXEC's whole reply).
#include "sim/model_redis.h"

namespace nearcached::sim {
namespace {

bool is_write(Command::Kind kind) {
  switch (kind) {
    case Command::Kind::set:
    case Command::Kind::del:
    case Command::Kind::script:
    case Command::Kind::flush_all:
    case Command::Kind::swap_db: return true;
    default: return false;
  }
}

}  // namespace

std::string text_of(Key key) {
  return std::string(1, static_cast<char>('a' + name_of(key))) + std::to_string(key / kNames);
}

std::string text_of(Version version) {
  return "s" + std::to_string(version.server) + "@" + std::to_string(version.position);
}

std::string text_of(const Command& command) {
  static constexpr const char* kText[] = {"introduce", "CACHING YES", "GET",      "PTTL",  "MGET",
                                          "SET",       "DEL",         "EVAL",     "WATCH", "MULTI",
                                          "EXEC",      "FLUSHALL",    "SWAPDB",   "ROLE",  "PING",
                                          "SUBSCRIBE", "PUBLISH",     "REDIRECT", "probe"};
  std::string text = kText[static_cast<size_t>(command.kind)];
  for (unsigned i = 0; i < command.count; ++i) text += " " + text_of(command.keys[i]);
  if (command.px_ms != 0) text += " PX " + std::to_string(command.px_ms);
  return text;
}

ModelServer::ModelServer(ModelRedis& redis, uint32_t id)
    : redis_(redis),
      engine_(redis.engine()),
      id_(id),
      parent_(id),
      forked_at_(0),
      wall_phase_ns_(engine_.random.below(kNsPerMs)) {
  for (Key key = 0; key < kKeys; ++key) append(key, false, kNever, false);
}

ModelServer::ModelServer(ModelRedis& redis, uint32_t id, const ModelServer& parent,
                         uint32_t position)
    : redis_(redis),
      engine_(redis.engine()),
      id_(id),
      parent_(parent.id_),
      forked_at_(position),
      position_(position),
      wall_phase_ns_(engine_.random.below(kNsPerMs)),
      history_(parent.history_) {
  for (Key key = 0; key < kKeys; ++key) {
    while (history_[key].back().position > position) history_[key].pop_back();
    if (history_[key].back().exists) watch_expiry(key);
  }
}

uint64_t ModelServer::wall_ms() const { return (engine_.now_ns() + wall_phase_ns_) / kNsPerMs; }

const ModelServer::Change* ModelServer::successor(Key key, uint32_t position) const {
  const auto& changes = history_[key];
  const Change* next = nullptr;
  for (size_t i = changes.size(); i-- > 0 && changes[i].position > position;) next = &changes[i];
  return next;
}

const ModelServer::Change& ModelServer::change(Key key, uint32_t position) const {
  const auto& changes = history_[key];
  size_t i = changes.size() - 1;
  while (i > 0 && changes[i].position > position) --i;
  return changes[i];
}

void ModelServer::append(Key key, bool exists, uint64_t expires_ns, bool untold) {
  history_[key].push_back({position_, exists, untold, engine_.now_ns(), expires_ns});
  unreaped_[key] = false;
  if (exists) watch_expiry(key);
}

void ModelServer::watch_expiry(Key key) {
  const Change& last = history_[key].back();
  if (last.expires_ns == kNever) return;
  engine_.at(last.expires_ns, [this, key, position = last.position] { expire(key, position); });
}

// The key's time is over: from now on nobody is answered with it. That it is deleted, and a push
// sent, comes later, or when somebody asks for it.
void ModelServer::expire(Key key, uint32_t position) {
  const Change last = history_[key].back();
  if (last.position != position) return;
  ++position_;
  append(key, false, kNever, last.untold);
  unreaped_[key] = true;
  engine_.trace("server ", id_, ": ", text_of(key), " has expired, now @", position_);
  reap_later(key);
}

void ModelServer::reap_later(Key key) {
  engine_.after(engine_.random.skewed(redis_.options().reap_max_ns), [this, key] {
    if (running()) reap(nullptr, key);
    else if (unreaped_[key]) reap_later(key);
  });
}

void ModelServer::reap(Link* by, Key key) {
  if (!unreaped_[key]) return;
  unreaped_[key] = false;
  invalidate(name_of(key), by);
}

// A push takes the entry with it: the next write says nothing, unless somebody reads before.
void ModelServer::invalidate(Name name, const Link* by) {
  std::vector<Link*> told;
  told.swap(tracked_[name]);
  Reply push;
  push.kind = Reply::Kind::push_keys;
  push.name = name;
  for (Link* link : told) {
    Link* const to = link->redirect_ != nullptr ? link->redirect_ : link;
    if (to == by) own_pushes_.push_back(push);
    else to->reply(push);
  }
}

// If the one who is told instead goes away later, nobody says so.
bool ModelServer::redirect(Link& link, uint32_t subscriber) {
  for (Link& other : redis_.links()) {
    const bool found = other.id_ == subscriber && &other.server_ == this && other.served_;
    if (!found) continue;
    link.tracking_ = true;
    link.redirect_ = &other;
    return true;
  }
  return false;
}

// Returns how many it reached.
uint8_t ModelServer::publish(const Note& note) {
  const bool of_writes =
      note.kind == Note::Kind::wrote || note.kind == Note::Kind::wrote_everything;
  if (of_writes && engine_.now_ns() < muted_ns_) {
    engine_.trace("server ", id_, ": a message of proxy ", note.proxy - 1, " reaches nobody");
    return 0;
  }
  Reply message;
  message.kind = Reply::Kind::note;
  message.note = note;
  uint8_t receivers = 0;
  for (Link& each : redis_.links()) {
    if (&each.server_ != this || !each.subscribed_) continue;
    if (note.to != 0 && each.proxy_ != note.to) continue;
    if (each.served_ && each.client_ != nullptr) ++receivers;
    each.reply(message);
  }
  return receivers;
}

void ModelServer::evict_tracked(Name name) {
  if (!running() || tracked_[name].empty()) return;
  engine_.trace("server ", id_, ": evicts ", text_of(Key(name)), " from its tracking table");
  invalidate(name, nullptr);
}

void ModelServer::on_readable(Link& link) {
  if (!running()) return;
  while (!link.to_server_.sent.empty() &&
         link.to_server_.sent.front().arrives_ns <= engine_.now_ns())
    execute_next(link);
}

void ModelServer::execute_next(Link& link) {
  const Command command = link.to_server_.sent.front().message;
  link.to_server_.sent.pop_front();
  execute(link, command);
}

void ModelServer::execute(Link& link, const Command& command) {
  if (link.client_ == nullptr && !redis_.options().late_untold && is_untold(command.kind)) return;
  const bool caching = link.caching_;
  const Reply reply = run(&link, command);
  if (caching) link.caching_ = false;  // it was for this command only
  if (command.kind == Command::Kind::caching) link.caching_ = true;
  if (command.kind != Command::Kind::ping && command.kind != Command::Kind::role &&
      command.kind != Command::Kind::caching)
    engine_.trace("server ", id_, ": link ", link.id_, " ", text_of(command), " at @", position_);
  link.reply(reply);
  std::vector<Reply> pushes;
  pushes.swap(own_pushes_);
  for (const Reply& push : pushes) link.reply(push);
}

bool ModelServer::is_untold(Command::Kind kind) const {
  if (kind == Command::Kind::swap_db) return true;
  return redis_.options().nothing_tracked && (is_write(kind) || kind == Command::Kind::exec);
}

Observed ModelServer::read(Link* link, Key key) {
  reap(link, key);
  const Change& last = history_[key].back();
  if (link != nullptr && link->tracking_ && link->caching_) {
    auto& readers = tracked_[name_of(key)];
    if (std::find(readers.begin(), readers.end(), link) == readers.end()) readers.push_back(link);
  }
  return {{id_, last.position}, !last.exists};
}

int64_t ModelServer::pttl(Link* link, Key key) {
  reap(link, key);
  const Change& last = history_[key].back();
  if (!last.exists) return -2;
  if (last.expires_ns == kNever) return -1;
  // The last millisecond counts as 0, as in Redis.
  const uint64_t end_ms = (last.expires_ns + wall_phase_ns_) / kNsPerMs - 1;
  return static_cast<int64_t>(end_ms - std::min(end_ms, wall_ms()));
}

// One place in the history for all keys of the command. Returns that place. To delete what is not
// there is no change.
uint32_t ModelServer::write(Link* link, const Command& command) {
  const bool exists = command.kind != Command::Kind::del;
  const auto changes = [&](Key key) { return exists || history_[key].back().exists; };
  const auto* const end = command.keys.begin() + command.count;
  if (std::any_of(command.keys.begin(), end, changes)) ++position_;
  uint64_t expires_ns = kNever;
  if (command.px_ms != 0) expires_ns = (wall_ms() + command.px_ms + 1) * kNsPerMs - wall_phase_ns_;
  for (unsigned i = 0; i < command.count; ++i) {
    const Key key = command.keys[i];
    reap(link, key);
    if (!changes(key)) continue;
    append(key, exists, expires_ns, around_);
    invalidate(name_of(key), link);
  }
  return position_;
}

uint32_t ModelServer::write_all(Link* link, const Command& command) {
  ++position_;
  if (command.kind == Command::Kind::flush_all) {
    for (Key key = 0; key < kKeys; ++key) append(key, false, kNever, around_);
    for (auto& readers : tracked_) readers.clear();
    Reply push;
    push.kind = Reply::Kind::push_all;
    for (Link& each : redis_.links()) {
      if (&each.server_ != this || !each.tracking_) continue;
      Link& to = each.redirect_ != nullptr ? *each.redirect_ : each;
      if (&to == link) own_pushes_.push_back(push);
      else to.reply(push);
    }
    return position_;
  }
  // SWAPDB pushes nothing.
  for (unsigned name = 0; name < kNames; ++name) {
    const Change first = history_[key_of(0, name)].back();
    const Change second = history_[key_of(1, name)].back();
    append(key_of(0, name), second.exists, second.expires_ns, around_);
    append(key_of(1, name), first.exists, first.expires_ns, around_);
  }
  return position_;
}

Reply ModelServer::run(Link* link, const Command& command) {
  Reply reply;
  if (link != nullptr && link->multi_ && command.kind != Command::Kind::exec) {
    link->queued_.push_back(command);
    reply.kind = Reply::Kind::queued;
    return reply;
  }
  if (is_write(command.kind) && demoted_ns_ <= engine_.now_ns()) {
    reply.kind = Reply::Kind::error;  // READONLY
    return reply;
  }
  switch (command.kind) {
    case Command::Kind::introduce: link->tracking_ = command.tracking; break;
    case Command::Kind::subscribe:
      link->subscribed_ = true;
      link->proxy_ = command.note.proxy;
      break;
    case Command::Kind::publish:
      reply.receivers = publish(command.note);
      reply.note = command.note;
      break;
    case Command::Kind::redirect:
      if (!redirect(*link, command.subscriber)) reply.kind = Reply::Kind::error;
      break;
    case Command::Kind::probe:
      if (link->redirect_ == nullptr) break;
      {
        Reply push;
        push.kind = Reply::Kind::push_probe;
        push.note = command.note;
        link->redirect_->reply(push);
      }
      break;
    case Command::Kind::caching:
    case Command::Kind::ping: break;
    case Command::Kind::multi: link->multi_ = true; break;
    case Command::Kind::exec: return run_exec(*link);
    case Command::Kind::watch:
      link->watched_.push_back({command.keys[0], read(link, command.keys[0]).version.position});
      break;
    case Command::Kind::role:
      reply.kind = demoted_ns_ <= engine_.now_ns() ? Reply::Kind::slave : Reply::Kind::master;
      break;
    case Command::Kind::pttl:
      reply.kind = Reply::Kind::pttl;
      reply.pttl = pttl(link, command.keys[0]);
      break;
    case Command::Kind::get:
    case Command::Kind::mget:
      reply.kind = Reply::Kind::values;
      reply.count = command.count;
      for (unsigned i = 0; i < command.count; ++i) reply.values[i] = read(link, command.keys[i]);
      break;
    case Command::Kind::set:
    case Command::Kind::del:
    case Command::Kind::script: reply.values[0] = {{id_, write(link, command)}, false}; break;
    case Command::Kind::flush_all:
    case Command::Kind::swap_db: reply.values[0] = {{id_, write_all(link, command)}, false}; break;
  }
  return reply;
}

Reply ModelServer::run_exec(Link& link) {
  link.multi_ = false;
  const std::vector<Command> queued = std::move(link.queued_);
  const std::vector<Link::Watched> watched = std::move(link.watched_);
  link.queued_.clear();
  link.watched_.clear();
  Reply reply;
  for (const Link::Watched& watch : watched)
    if (history_[watch.key].back().position != watch.position) {
      reply.kind = Reply::Kind::aborted;
      return reply;
    }
  reply.kind = Reply::Kind::values;
  for (const Command& command : queued) {
    const Reply one = run(&link, command);
    if (one.kind == Reply::Kind::error) return one;
    reply.values[reply.count++] = one.values[0];
  }
  return reply;
}

void ModelServer::write_directly(const Command& command) {
  if (!running() || demoted_ns_ <= engine_.now_ns()) return;
  around_ = redis_.options().nothing_tracked;
  run(nullptr, command);
  around_ = false;
  own_pushes_.clear();
  engine_.trace("server ", id_, ": a writer around the proxies: ", text_of(command), " at @",
                position_);
}

// What was buffered meanwhile is run in an order that only each connection's own order restricts.
void ModelServer::resume() {
  if (!stopped_) return;
  stopped_ = false;
  engine_.trace("server ", id_, ": goes on");
  std::vector<Link*> readable;
  const auto arrived = [&](const Link& link) {
    const auto& sent = link.to_server_.sent;
    return &link.server_ == this && !sent.empty() && sent[0].arrives_ns <= engine_.now_ns();
  };
  for (Link& link : redis_.links())
    if (arrived(link)) readable.push_back(&link);
  while (!readable.empty()) {
    const size_t chosen = engine_.random.below(readable.size());
    execute_next(*readable[chosen]);
    if (!arrived(*readable[chosen])) {
      readable[chosen] = readable.back();
      readable.pop_back();
    }
  }
}

void ModelServer::restart(uint64_t down_ns) {
  down_ = true;
  stopped_ = false;
  for (Link& link : redis_.links())
    if (&link.server_ == this) link.cut(false);
  for (auto& readers : tracked_) readers.clear();
  engine_.after(down_ns, [this] {
    down_ = false;
    engine_.trace("server ", id_, ": is up again");
  });
}

void ModelServer::demote() {
  demoted_ns_ = std::min(demoted_ns_, engine_.now_ns());
  engine_.trace("server ", id_, ": knows that it is a replica");
}

ModelRedis::ModelRedis(Engine& engine, const NetworkOptions& options)
    : engine_(engine), options_(options) {
  servers_.push_back(std::make_unique<ModelServer>(*this, 0));
}

Link* ModelRedis::connect(Link::Client& client) {
  if (!primary().reachable()) return nullptr;
  return &links_.emplace_back(*this, primary(), client, static_cast<uint32_t>(links_.size()));
}

uint32_t ModelRedis::carried_over(Version floor, uint32_t to) const {
  uint32_t position = UINT32_MAX;
  for (uint32_t at = to;; at = servers_[at]->parent()) {
    if (at == floor.server) return std::min(floor.position, position);
    if (at == 0) return 0;
    position = std::min(position, servers_[at]->forked_at());
  }
}

void ModelRedis::fail_over(uint32_t lost_writes, uint64_t split_ns) {
  ModelServer& old = primary();
  const uint32_t position = old.position() - std::min(old.position(), lost_writes);
  servers_.push_back(
      std::make_unique<ModelServer>(*this, static_cast<uint32_t>(servers_.size()), old, position));
  engine_.trace("server ", primary().id(), ": is promoted with all up to @", position);
  engine_.after(split_ns, [&old] { old.demote(); });
}

// Servers go on, links let everything through, and who still talks to a demoted server is cut off,
// as Sentinel does.
void ModelRedis::end_faults() {
  for (auto& server : servers_) {
    if (server.get() != &primary()) server->demote();
    server->resume();
  }
  for (Link& link : links_)
    if (&link.server() != &primary() && link.open()) link.cut(false);
}

}  // namespace nearcached::sim
