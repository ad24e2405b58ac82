// Sentinels find each other by what they publish at the primary, every two seconds, and its
// replicas by INFO, every ten. Here each is told of all in its configuration file, and SENTINEL
// DEBUG shortens their periods; so a group is up in half a second and fails over in about one.
//
// Not shortened as much are the pings: a replica whose last INFO is older than five of their
// periods is not promoted, and a busy machine can take half a second to answer. Nor is the
// publishing: a sentinel that has not heard of a failover for four such periods makes the new
// primary a replica again, and the one that leads the failover looks at it only once a second.
#include "harness/sentinel.h"

#include <algorithm>
#include <stdexcept>

namespace nearcached::e2e {
namespace {

constexpr size_t kSentinels = 3;
constexpr size_t kIdLength = 40;

}  // namespace

SentinelGroup::SentinelGroup(unsigned replicas) {
  const std::vector<std::string> quick{"--repl-diskless-sync-delay", "0",
                                       "--repl-ping-replica-period", "1"};
  servers_.push_back(std::make_unique<RedisServer>(quick));
  for (unsigned i = 0; i < replicas; ++i) {
    std::vector<std::string> options = quick;
    options.insert(options.end(),
                   {"--replicaof", "127.0.0.1", std::to_string(servers_[0]->port())});
    servers_.push_back(std::make_unique<RedisServer>(options));
  }
  for (size_t i = 0; i < kSentinels; ++i) {
    sentinels_.push_back(std::make_unique<Sentinel>());
    const std::string number = std::to_string(i + 1);
    sentinels_.back()->id = std::string(kIdLength - number.size(), '0') + number;
  }
  for (const auto& sentinel : sentinels_) configure(*sentinel);
  for (const auto& sentinel : sentinels_)
    if (!wait_until([&] { return ready(*sentinel); }))
      throw std::runtime_error("a sentinel does not get ready: " +
                               read_file(sentinel->dir.path() + "/log"));
}

void SentinelGroup::configure(Sentinel& sentinel) {
  const std::string service = std::string(" ") + kService + " ";
  std::string text = "port " + std::to_string(sentinel.port) + "\nbind 127.0.0.1\ndir " +
                     sentinel.dir.path() + "\nsentinel myid " + sentinel.id + "\nsentinel monitor" +
                     service + "127.0.0.1 " + std::to_string(servers_[0]->port()) +
                     " 2\nsentinel down-after-milliseconds" + service +
                     "500\nsentinel failover-timeout" + service + "3000\n";
  for (size_t i = 1; i < servers_.size(); ++i)
    text += "sentinel known-replica" + service + "127.0.0.1 " +
            std::to_string(servers_[i]->port()) + "\n";
  for (const auto& other : sentinels_)
    if (other->id != sentinel.id)
      text += "sentinel known-sentinel" + service + "127.0.0.1 " + std::to_string(other->port) +
              " " + other->id + "\n";
  const std::string path = sentinel.dir.path() + "/sentinel.conf";
  write_file(path, text);
  sentinel.process.start({"redis-server", path, "--sentinel"}, sentinel.dir.path() + "/log");
  const Args periods = words(
      "SENTINEL DEBUG info-period 100 ping-period 400 ask-period 100 publish-period 500 "
      "election-timeout 1000 min-link-reconnect-period 100");
  if (!wait_until([&] {
        try {
          return Client(sentinel.port)(periods) == "OK";
        } catch (const std::runtime_error&) {
          return false;
        }
      }))
    throw std::runtime_error("a sentinel did not start: " +
                             read_file(sentinel.dir.path() + "/log"));
}

bool SentinelGroup::ready(const Sentinel& sentinel) const {
  Client ask(sentinel.port);
  if (ask({"SENTINEL", "CKQUORUM", kService}).rfind("OK 3 usable", 0) != 0) return false;
  const std::string replicas = ask({"SENTINEL", "REPLICAS", kService});
  size_t up = 0;
  for (size_t at = 0; (at = replicas.find("master-link-status ok", at)) != std::string::npos; ++at)
    ++up;
  return up + 1 == servers_.size();
}

std::string SentinelGroup::sentinels() const {
  std::string out;
  for (const auto& sentinel : sentinels_)
    out += (out.empty() ? "" : ",") + ("127.0.0.1:" + std::to_string(sentinel->port));
  return out;
}

std::vector<std::string> SentinelGroup::upstream(std::vector<std::string> more) const {
  more.insert(more.end(), {"--upstream", url()});
  return more;
}

size_t SentinelGroup::primary() const {
  std::string named;
  for (const auto& sentinel : sentinels_) {
    if (sentinel->process.pid() <= 0) continue;
    const std::string address =
        Client(sentinel->port)({"SENTINEL", "GET-MASTER-ADDR-BY-NAME", kService});
    if (!named.empty() && named != address) return servers();
    named = address;
  }
  for (size_t n = 0; n < servers(); ++n)
    if (named == "[127.0.0.1 " + std::to_string(servers_[n]->port()) + "]") return n;
  throw std::runtime_error("the sentinels name " + named);
}

void SentinelGroup::failover() {
  const size_t old = primary();
  // Refused while the sentinel has not yet looked at the replica often enough.
  if (!wait_until([&] {
        return Client(sentinels_[0]->port)({"SENTINEL", "FAILOVER", kService}) == "OK";
      }))
    throw std::runtime_error("SENTINEL FAILOVER is refused");
  wait_primary_other_than(old);
}

void SentinelGroup::kill_primary() {
  const size_t old = primary();
  // A replica that a sentinel has not looked at since it had its copy is none that it promotes, and
  // the next attempt is a failover-timeout later.
  const bool known = wait_until([&] {
    return std::all_of(sentinels_.begin(), sentinels_.end(), [](const auto& sentinel) {
      const std::string replicas = Client(sentinel->port)({"SENTINEL", "REPLICAS", kService});
      return replicas.find("master-link-status ok") != std::string::npos &&
             replicas.find("s_down") == std::string::npos;
    });
  });
  if (!known) throw std::runtime_error("a sentinel does not know the replicas");
  server(old).kill();
  wait_primary_other_than(old);
}

void SentinelGroup::wait_primary_other_than(size_t old) {
  if (!wait_until([&] {
        const size_t now = primary();
        return now != old && now != servers();
      }))
    throw std::runtime_error("the sentinels named no other primary: " +
                             read_file(sentinels_[0]->dir.path() + "/log"));
}

bool SentinelGroup::wait_replicas() {
  return wait_until([&] {
    const size_t now = primary();
    if (now == servers()) return false;
    for (size_t n = 0; n < servers(); ++n) {
      if (n == now) continue;
      try {
        const std::string info = servers_[n]->client()("INFO replication");
        if (info_field(info, "role") != "slave" || info_field(info, "master_link_status") != "up" ||
            info_field(info, "master_port") != std::to_string(servers_[now]->port()))
          return false;
      } catch (const std::runtime_error&) {
        return false;  // a server that changes its role closes its connections
      }
    }
    return true;
  });
}

}  // namespace nearcached::e2e
