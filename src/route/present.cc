// What clients are told of the upstream: one Redis, or (server.present_as = "cluster") a cluster of
// one node, this proxy, that owns every slot. Clients that only speak to clusters ask CLUSTER
// SLOTS, find that one node, and from then on use it like any Redis.
#include "nearcached/resp/writer.h"
#include "route/router.h"

namespace nearcached {
namespace {

constexpr Bytes kNoCluster = "-ERR This instance has cluster support disabled\r\n";

struct Self {
  std::string host;
  uint64_t port;
  std::string id;  ///< 40 hexadecimal digits, as nodes have them
};

// Where the client has reached us: an address that it can reach again.
Self self_of(const Session& session, uint64_t proxy_id) {
  const std::string name = session.local_name();
  const size_t colon = name.rfind(':');
  Self self{"127.0.0.1", 0, {}};
  if (colon != std::string::npos && !name.starts_with("unix") && !name.starts_with("/")) {
    self.host = name.substr(0, colon);
    if (self.host.starts_with("[")) self.host = self.host.substr(1, self.host.size() - 2);
    self.port = std::stoul(name.substr(colon + 1));
  }
  constexpr size_t kIdDigits = 40;
  for (uint64_t rest = proxy_id; self.id.size() < kIdDigits; rest = rest >> 4 | rest << 60)
    self.id += "0123456789abcdef"[rest & 15];
  return self;
}

void write_slots(Buffer& out, const Self& self, int resp) {
  resp::write_array(out, 1);
  resp::write_array(out, 3);
  resp::write_integer(out, 0);
  resp::write_integer(out, kSlots - 1);
  resp::write_array(out, 4);
  resp::write_bulk(out, self.host);
  resp::write_integer(out, static_cast<int64_t>(self.port));
  resp::write_bulk(out, self.id);
  resp::write_map(out, 0, resp);
}

void write_shards(Buffer& out, const Self& self, int resp) {
  const auto text = [&](Bytes name, Bytes value) {
    resp::write_bulk(out, name);
    resp::write_bulk(out, value);
  };
  const auto number = [&](Bytes name, uint64_t value) {
    resp::write_bulk(out, name);
    resp::write_integer(out, static_cast<int64_t>(value));
  };
  resp::write_array(out, 1);
  resp::write_map(out, 2, resp);
  resp::write_bulk(out, "slots");
  resp::write_array(out, 2);
  resp::write_integer(out, 0);
  resp::write_integer(out, kSlots - 1);
  resp::write_bulk(out, "nodes");
  resp::write_array(out, 1);
  resp::write_map(out, 7, resp);
  text("id", self.id);
  number("port", self.port);
  text("ip", self.host);
  text("endpoint", self.host);
  text("role", "master");
  number("replication-offset", 0);
  text("health", "online");
}

constexpr Bytes kInfo =
    "cluster_enabled:1\r\ncluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:"
    "16384\r\n"
    "cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\n"
    "cluster_current_epoch:1\r\ncluster_my_epoch:1\r\n";

void replace_field(std::string& text, Bytes field, Bytes value) {
  const size_t at = text.find(field);
  if (at == std::string::npos || (at > 0 && text[at - 1] != '\n')) return;
  const size_t begin = at + field.size();
  text.replace(begin, text.find("\r\n", begin) - begin, value);
}

}  // namespace

bool Router::presents_cluster() const {
  return process_.config.server.present_as == PresentAs::cluster;
}

// Does INFO or HELLO say something of the upstream that the client must not go by?
bool Router::is_disguised() const { return cluster_ || presents_cluster(); }

std::string Router::disguised_info(std::string text) const {
  replace_field(text, "redis_mode:", presents_cluster() ? "cluster" : "standalone");
  replace_field(text, "cluster_enabled:", presents_cluster() ? "1" : "0");
  return text;
}

// CLUSTER …, READONLY, READWRITE, ASKING.
Session::Outcome Router::cluster_command(Session& session, const Request& request,
                                         const Command& command) {
  if (!presents_cluster()) {
    session.reply(kNoCluster);
    return Outcome::done;
  }
  const auto is = [&](Bytes name, size_t args) {
    return command.name == name && request.args.size() == args;
  };
  const Self self = self_of(session, process_.bus->proxy_id());
  Buffer out;
  if (!command.name.starts_with("cluster")) {
    resp::write_simple(out, "OK");
  } else if (is("cluster|slots", 2)) {
    write_slots(out, self, session.resp);
  } else if (is("cluster|shards", 2)) {
    write_shards(out, self, session.resp);
  } else if (is("cluster|nodes", 2)) {
    const std::string at = self.host + ":" + std::to_string(self.port);
    resp::write_verbatim(out,
                         self.id + " " + at + "@" + std::to_string(self.port) +
                             " myself,master - 0 0 1 connected 0-16383\n",
                         session.resp);
  } else if (is("cluster|info", 2)) {
    resp::write_verbatim(out, kInfo, session.resp);
  } else if (is("cluster|myid", 2)) {
    resp::write_bulk(out, self.id);
  } else if (is("cluster|keyslot", 3)) {
    resp::write_integer(out, slot_of(request.args[2]));
  } else {
    resp::write_error(
        out, "ERR nearcached answers CLUSTER SLOTS, SHARDS, NODES, INFO, MYID and KEYSLOT");
  }
  session.reply(out.readable());
  return Outcome::done;
}

}  // namespace nearcached
