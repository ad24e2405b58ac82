// A cluster takes about 2 s to come up, because Redis lets a primary that has just started wait so
// long before it takes writes (CLUSTER_WRITABLE_DELAY); so tests share one, and restore() puts
// right what they did to it.
//
// redis-cli --cluster create waits a second between its steps. Here every pair meets by command,
// which needs no gossip, and each primary is given its config epoch: nodes that all begin with
// epoch 0 would first have to sort that out among themselves.
//
// For a partition each node's bus is behind a forwarder, which tells the others apart by the
// loopback address that each of them connects from; its replicas are kept off by its ACL.
//
// Each node has a bus port of its own (--cluster-port) instead of port + 10000, which may be taken,
// or in the range that outgoing connections get.
#include "harness/cluster.h"

#include <signal.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <stdexcept>

namespace nearcached::e2e {
namespace {

void must(const std::string& reply, const std::string& what) {
  if (reply.rfind("(error)", 0) == 0) throw std::runtime_error(what + ": " + reply);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) out.push_back(line);
  }
  return out;
}

/// "5", "0-5460", or "[7->-id]" and "[7-<-id]" for a slot on the move.
void add_slots(ClusterNodeView& view, const std::string& word) {
  if (word[0] == '[') {
    view.open.push_back(static_cast<unsigned>(std::stoul(word.substr(1))));
    return;
  }
  const auto first = static_cast<unsigned>(std::stoul(word));
  const size_t dash = word.find('-');
  const auto last =
      dash == std::string::npos ? first : static_cast<unsigned>(std::stoul(word.substr(dash + 1)));
  view.ranges.emplace_back(first, last);
}

ClusterNodeView parse_view(const std::string& line) {
  const Args fields = words(line);
  ClusterNodeView view;
  view.id = fields.at(0);
  view.port = static_cast<uint16_t>(std::stoul(fields.at(1).substr(fields[1].find(':') + 1)));
  view.flags = fields.at(2);
  view.primary_id = fields.at(3);
  for (size_t i = 8; i < fields.size(); ++i) add_slots(view, fields[i]);
  return view;
}

}  // namespace

bool ClusterNodeView::has(const std::string& flag) const {
  return ("," + flags + ",").find("," + flag + ",") != std::string::npos;
}

unsigned ClusterNodeView::slots() const {
  unsigned count = 0;
  for (const auto& [first, last] : ranges) count += last - first + 1;
  return count;
}

// ---- starting

RedisCluster::RedisCluster(Options options) : options_(std::move(options)) {
  for (unsigned i = 0; i < options_.primaries + options_.replicas; ++i) {
    nodes_.push_back(std::make_unique<Server>());
    nodes_.back()->source = "127.0.0." + std::to_string(i + 10);
    launch(*nodes_.back());
  }
  for (const auto& node : nodes_) wait_launched(*node);
  wire();
  if (!wait_ok()) throw std::runtime_error("the cluster did not come up");
}

void RedisCluster::launch(Server& server) {
  if (server.port == 0) {
    server.port = free_port();
    server.bus_port = free_port();
    if (options_.may_part) server.bus = std::make_unique<Forwarder>(server.bus_port, 0);
  }
  std::vector<std::string> argv{"redis-server",
                                "--port",
                                std::to_string(server.port),
                                "--cluster-port",
                                std::to_string(server.bus_port),
                                "--bind",
                                "127.0.0.1",
                                "--dir",
                                server.dir.path(),
                                "--save",
                                "",
                                "--appendonly",
                                options_.append_only ? "yes" : "no",
                                "--appendfsync",
                                "no",
                                "--enable-debug-command",
                                "yes",
                                "--cluster-enabled",
                                "yes",
                                "--cluster-node-timeout",
                                std::to_string(options_.node_timeout_ms),
                                "--cluster-replica-validity-factor",
                                "0",
                                "--cluster-require-full-coverage",
                                "no",
                                "--cluster-allow-replica-migration",
                                "no",
                                "--repl-diskless-sync-delay",
                                "0",
                                "--repl-ping-replica-period",
                                "1"};
  if (server.bus)
    argv.insert(argv.end(), {"--cluster-announce-bus-port", std::to_string(server.bus->port()),
                             "--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port",
                             std::to_string(server.port), "--bind-source-addr", server.source,
                             "--protected-mode", "no"});  // which knows only 127.0.0.1
  argv.insert(argv.end(), options_.redis.begin(), options_.redis.end());
  server.process.start(argv, server.dir.path() + "/log");
}

void RedisCluster::wait_launched(Server& server) {
  for (int tries = 1;; ++tries) {
    const bool answers = wait_until([&] {
      if (!server.process.running()) return true;
      try {
        return Client(server.port)("PING") == "PONG";
      } catch (const std::runtime_error&) {
        return false;
      }
    });
    if (answers && server.process.running()) break;
    if (tries == kLaunchTries)
      throw std::runtime_error("redis-server did not start: " +
                               read_file(server.dir.path() + "/log"));
    server.process.kill();
    server.port = 0;
    launch(server);
  }
  server.id = Client(server.port)("CLUSTER MYID");
}

void RedisCluster::wire() {
  const unsigned primaries = options_.primaries;
  for (Node node = 0; node < size(); ++node) {
    Client& ask = link(node);
    must(ask({"CLUSTER", "SET-CONFIG-EPOCH", std::to_string(node + 1)}), "SET-CONFIG-EPOCH");
    if (node < primaries) {
      const size_t first = node * kSlots / primaries, next = (node + 1) * kSlots / primaries;
      must(ask({"CLUSTER", "ADDSLOTSRANGE", std::to_string(first), std::to_string(next - 1)}),
           "ADDSLOTSRANGE");
    }
    for (Node other = 0; other < node; ++other) meet(node, other);
  }
  for (Node node = primaries; node < size(); ++node)
    replicate(node, (node - primaries) % primaries);
}

void RedisCluster::meet(Node a, Node b) {
  const Server& other = *nodes_[b];
  must(link(a)({"CLUSTER", "MEET", "127.0.0.1", std::to_string(other.port),
                std::to_string(other.bus ? other.bus->port() : other.bus_port)}),
       "CLUSTER MEET");
}

/// A node can only follow one that it knows and that it has heard calling itself a primary.
void RedisCluster::replicate(Node replica, Node primary) {
  Client& ask = link(replica);
  std::string reply;
  if (!wait_until([&] {
        reply = ask({"CLUSTER", "REPLICATE", id(primary)});
        return reply == "OK";
      }))
    throw std::runtime_error("CLUSTER REPLICATE: " + reply);
}

RedisCluster::Node RedisCluster::add_node() {
  nodes_.push_back(std::make_unique<Server>());
  launch(*nodes_.back());
  wait_launched(*nodes_.back());
  const Node added = size() - 1;
  for (Node node = 0; node < added; ++node)
    if (alive(node)) meet(added, node);
  if (!wait_ok()) throw std::runtime_error("the cluster did not take the node in");
  return added;
}

// ---- what the nodes say

std::vector<std::string> RedisCluster::upstream(std::vector<std::string> more) const {
  more.insert(more.end(), {"--upstream", url()});
  return more;
}

std::string RedisCluster::seeds() const {
  std::string out;
  for (Node node = 0; node < size(); ++node) out += (node > 0 ? "," : "") + address(node);
  return out;
}

Client& RedisCluster::link(Node node) const {
  std::optional<Client>& link = nodes_.at(node)->link;
  if (!link) link.emplace(port(node));
  return *link;
}

bool RedisCluster::alive(Node node) const {
  return nodes_.at(node)->process.pid() > 0 && !nodes_[node]->frozen;
}

RedisCluster::Node RedisCluster::any() const {
  for (Node node = 0; node < size(); ++node)
    if (alive(node)) return node;
  throw std::runtime_error("no node of the cluster lives");
}

RedisCluster::Node RedisCluster::node_of(uint16_t port) const {
  for (Node node = 0; node < size(); ++node)
    if (nodes_[node]->port == port) return node;
  throw std::runtime_error("no node has port " + std::to_string(port));
}

std::vector<ClusterNodeView> RedisCluster::view_of(Node node) const {
  std::vector<ClusterNodeView> out;
  for (const std::string& line : lines_of(link(node)("CLUSTER NODES")))
    out.push_back(parse_view(line));
  return out;
}

RedisCluster::Node RedisCluster::owner_of(unsigned slot) const {
  for (const ClusterNodeView& view : view_of(any()))
    for (const auto& [first, last] : view.ranges)
      if (first <= slot && slot <= last) return node_of(view.port);
  throw std::runtime_error("nobody owns slot " + std::to_string(slot));
}

std::vector<RedisCluster::Node> RedisCluster::primaries() const {
  std::vector<Node> out;
  for (const ClusterNodeView& view : view_of(any()))
    if (view.slots() > 0) out.push_back(node_of(view.port));
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<RedisCluster::Node> RedisCluster::replicas_of(Node primary) const {
  std::vector<Node> out;
  for (const ClusterNodeView& view : view_of(any()))
    if (view.primary_id == id(primary)) out.push_back(node_of(view.port));
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<unsigned> RedisCluster::slots_of(Node node, size_t count) const {
  std::vector<unsigned> out;
  for (const ClusterNodeView& view : view_of(any()))
    if (view.port == port(node))
      for (const auto& [first, last] : view.ranges)
        for (unsigned slot = first; slot <= last && out.size() < count; ++slot) out.push_back(slot);
  return out;
}

/// CRC16 (XMODEM), as the cluster's specification says; the proxy has its own.
unsigned RedisCluster::slot_of(const std::string& key) {
  std::string hashed = key;
  if (const size_t open = key.find('{'); open != std::string::npos) {
    const size_t close = key.find('}', open);
    if (close != std::string::npos && close > open + 1)
      hashed = key.substr(open + 1, close - open - 1);
  }
  unsigned crc = 0;
  for (const char c : hashed) {
    crc ^= static_cast<unsigned>(static_cast<unsigned char>(c)) << 8;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x8000) != 0 ? crc << 1 ^ 0x1021 : crc << 1;
  }
  return (crc & 0xffff) % kSlots;
}

std::string RedisCluster::key_in(unsigned slot, const std::string& prefix, unsigned n) const {
  static std::map<unsigned, std::string> tags;
  if (tags.empty())
    for (unsigned i = 0; tags.size() < kSlots; ++i)
      tags.emplace(slot_of(std::to_string(i)), std::to_string(i));
  return prefix + std::to_string(n) + "{" + tags.at(slot) + "}";
}

std::string RedisCluster::key_at(Node node, const std::string& prefix, unsigned n) const {
  const std::vector<unsigned> slots = slots_of(node);
  return prefix + std::to_string(n) +
         key_in(slots.at(n * 769 % slots.size()), "", 0).substr(1);  // 769: spread, not in a row
}

// ---- slots on the move

void RedisCluster::open_slot(unsigned slot, Node from, Node to) {
  const std::string number = std::to_string(slot);
  must(link(to)({"CLUSTER", "SETSLOT", number, "IMPORTING", id(from)}), "IMPORTING");
  must(link(from)({"CLUSTER", "SETSLOT", number, "MIGRATING", id(to)}), "MIGRATING");
}

size_t RedisCluster::move_keys(unsigned slot, Node from, Node to, size_t most) {
  constexpr size_t kAtOnce = 100;
  Client& source = link(from);
  size_t moved = 0;
  while (moved < most) {
    const std::string count = std::to_string(std::min(kAtOnce, most - moved));
    const std::string reply = source({"CLUSTER", "GETKEYSINSLOT", std::to_string(slot), count});
    must(reply, "GETKEYSINSLOT");
    const Args keys = words(reply.substr(1, reply.size() - 2));
    if (keys.empty()) break;
    Args migrate{"MIGRATE", "127.0.0.1", std::to_string(port(to)), "", "0", "5000", "KEYS"};
    migrate.insert(migrate.end(), keys.begin(), keys.end());
    must(source(migrate), "MIGRATE");
    moved += keys.size();
  }
  return moved;
}

void RedisCluster::close_slot(unsigned slot, Node from, Node to, const std::vector<Node>& others) {
  const Args set{"CLUSTER", "SETSLOT", std::to_string(slot), "NODE", id(to)};
  must(link(to)(set), "SETSLOT NODE at the target");
  must(link(from)(set), "SETSLOT NODE at the source");
  for (const Node node : others)
    if (node != to && node != from && alive(node)) must(link(node)(set), "SETSLOT NODE");
}

void RedisCluster::close_slot(unsigned slot, Node from, Node to) {
  close_slot(slot, from, to, primaries());
}

void RedisCluster::migrate_slots(const std::vector<unsigned>& slots, Node from, Node to) {
  const std::vector<Node> others = primaries();
  for (const unsigned slot : slots) {
    open_slot(slot, from, to);
    move_keys(slot, from, to);
    close_slot(slot, from, to, others);
  }
}

// ---- faults

void RedisCluster::make_circle(unsigned slot, Node owner, Node other) {
  const std::string number = std::to_string(slot);
  must(link(owner)({"CLUSTER", "SETSLOT", number, "NODE", id(other)}), "SETSLOT NODE");
  must(link(other)({"CLUSTER", "SETSLOT", number, "NODE", id(owner)}), "SETSLOT NODE");
}

void RedisCluster::break_circle(unsigned slot, Node owner, Node other) {
  const Args set{"CLUSTER", "SETSLOT", std::to_string(slot), "NODE", id(owner)};
  must(link(owner)(set), "SETSLOT NODE");
  must(link(other)(set), "SETSLOT NODE");
}

void RedisCluster::failover(Node replica, const std::string& how) {
  Args request{"CLUSTER", "FAILOVER"};
  if (!how.empty()) request.push_back(how);
  must(link(replica)(request), "CLUSTER FAILOVER");
  const bool done = wait_until([&] {
    for (Node node = 0; node < size(); ++node) {
      if (!alive(node)) continue;
      const auto views = view_of(node);
      const bool knows = std::any_of(views.begin(), views.end(), [&](const ClusterNodeView& view) {
        return view.port == port(replica) && view.has("master") && view.slots() > 0;
      });
      if (!knows) return false;
    }
    return true;
  });
  if (!done) throw std::runtime_error("the replica was not promoted");
}

void RedisCluster::kill(Node node) {
  nodes_.at(node)->link.reset();
  nodes_.at(node)->process.kill();
  nodes_[node]->frozen = false;
}

void RedisCluster::start(Node node) { launch(*nodes_.at(node)); }

void RedisCluster::freeze(Node node) {
  nodes_.at(node)->process.signal(SIGSTOP);
  nodes_[node]->frozen = true;
}

void RedisCluster::thaw(Node node) {
  nodes_.at(node)->process.signal(SIGCONT);
  nodes_[node]->frozen = false;
}

void RedisCluster::cut_off(Node replica, Node primary) {
  freeze(replica);
  must(link(primary)("CLIENT KILL TYPE replica"), "CLIENT KILL");
}

void RedisCluster::partition(Node node) {
  Forwarder::Weather cut;
  cut.hold = {true, true};
  nodes_.at(node)->bus->set_weather(cut);
  cut.from = nodes_[node]->source;
  for (const auto& other : nodes_)
    if (other != nodes_[node]) other->bus->set_weather(cut);
  must(link(node)("ACL SETUSER default -psync -sync"), "ACL SETUSER");
  must(link(node)("CLIENT KILL TYPE replica"), "CLIENT KILL");
}

void RedisCluster::rejoin(Node node) {
  for (const auto& server : nodes_) {
    Forwarder::Weather cut;
    if (server != nodes_.at(node)) cut.from = nodes_[node]->source;
    server->bus->reset_all(cut);  // what was said meanwhile is not heard later
    server->bus->set_weather({});
  }
  must(link(node)("ACL SETUSER default +psync +sync"), "ACL SETUSER");
}

std::string RedisCluster::ownership(Node node) const {
  std::vector<std::string> rows;
  for (const ClusterNodeView& view : view_of(node)) {
    std::string row = view.id + " " + view.primary_id;
    for (const auto& [first, last] : view.ranges)
      row += " " + std::to_string(first) + "-" + std::to_string(last);
    rows.push_back(row);
  }
  std::sort(rows.begin(), rows.end());
  std::string out;
  for (const std::string& row : rows) out += row + "\n";
  return out;
}

bool RedisCluster::settled(Node node, bool all_slots) const {
  Client& ask = link(node);
  const std::string info = ask("CLUSTER INFO");
  if (info.find("cluster_state:ok") == std::string::npos) return false;
  if (all_slots && info_field(info, "cluster_slots_assigned") != std::to_string(kSlots))
    return false;
  const std::vector<ClusterNodeView> views = view_of(node);
  if (views.size() != size()) return false;
  for (const ClusterNodeView& view : views) {
    if (view.has("handshake")) return false;
    if (alive(node_of(view.port)) && (view.has("fail") || view.has("fail?"))) return false;
  }
  const std::string replication = ask("INFO replication");
  return info_field(replication, "role") == "master" ||
         info_field(replication, "master_link_status") == "up";
}

bool RedisCluster::wait_ok(bool all_slots) {
  return wait_until([&] {
    try {
      const std::string agreed = ownership(any());
      for (Node node = 0; node < size(); ++node)
        if (alive(node) && (!settled(node, all_slots) || ownership(node) != agreed)) return false;
      return true;
    } catch (const std::runtime_error&) {
      return false;  // one that is starting does not answer yet
    }
  });
}

bool RedisCluster::restore() {
  for (Node node = 0; node < size(); ++node) {
    if (nodes_[node]->frozen) thaw(node);
    if (!nodes_[node]->process.running()) start(node);
  }
  if (!wait_ok()) return false;
  for (const Node node : primaries()) {
    Client& ask = link(node);
    for (const char* clean : {"FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH", "CONFIG RESETSTAT"})
      must(ask(clean), clean);
    for (const ClusterNodeView& view : view_of(node))
      for (const unsigned slot : view.open)
        must(ask({"CLUSTER", "SETSLOT", std::to_string(slot), "STABLE"}), "STABLE");
  }
  return true;
}

ClusterStack::ClusterStack(std::vector<std::string> proxy_options)
    : cluster(shared_cluster()),
      proxy(cluster.port(0), cluster.upstream(std::move(proxy_options))) {}

RedisCluster& shared_cluster() {
  static std::unique_ptr<RedisCluster> shared;
  if (shared && !shared->restore()) shared.reset();
  if (!shared) shared = std::make_unique<RedisCluster>();
  return *shared;
}

}  // namespace nearcached::e2e
