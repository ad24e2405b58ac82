// CLUSTER SLOTS and not CLUSTER SHARDS: servers before 7.0 have only the former, and it says as
// much. One node that makes no sense makes the whole answer void: half a map would look like slots
// that have moved.
#include "discovery/answers.h"

#include <hiredis/hiredis.h>

#include <array>
#include <charconv>

namespace nearcached {
namespace {

bool is_text(const redisReply& reply) {
  return reply.type == REDIS_REPLY_STRING || reply.type == REDIS_REPLY_STATUS;
}

template <typename Number>
std::optional<Number> parse_number(Bytes text) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<uint16_t> parse_port(Bytes text) {
  const std::optional<uint16_t> port = parse_number<uint16_t>(text);
  return port && *port != 0 ? port : std::nullopt;
}

// The IP address in a node's metadata: pairs of names and values.
Bytes ip_of(const redisReply& node) {
  if (node.elements < 4 || node.element[3]->type != REDIS_REPLY_ARRAY) return {};
  const redisReply& metadata = *node.element[3];
  for (size_t i = 0; i + 1 < metadata.elements; i += 2)
    if (text_of(*metadata.element[i]) == "ip") return text_of(*metadata.element[i + 1]);
  return {};
}

// [host, port, id, [metadata…]]; servers before 4.0 leave the id out, before 7.0 the metadata.
Result<SlotRange::Node> parse_node(const redisReply& reply, const std::string& asked_host) {
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements < 2)
    return Error{"CLUSTER SLOTS: a node is not host and port"};
  const redisReply& host = *reply.element[0];
  const redisReply& port = *reply.element[1];
  if (host.type != REDIS_REPLY_NIL && !is_text(host))
    return Error{"CLUSTER SLOTS: a host is not a text"};
  if (port.type != REDIS_REPLY_INTEGER || port.integer < 0 || port.integer > UINT16_MAX)
    return Error{"CLUSTER SLOTS: a port is not 1 to 65535"};
  if (port.integer == 0) return Error{"CLUSTER SLOTS: a node listens with TLS only"};
  SlotRange::Node node;
  Bytes name = text_of(host);
  if (name == "?") name = ip_of(reply);
  node.address.host = name.empty() ? Bytes(asked_host) : name;
  node.address.port = static_cast<uint16_t>(port.integer);
  if (!is_announced_host(node.address.host)) return Error{"CLUSTER SLOTS: a host is malformed"};
  if (reply.elements > 2) node.id = text_of(*reply.element[2]);
  return node;
}

Result<SlotRange> parse_range(const redisReply& reply, const std::string& asked_host) {
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements < 3)
    return Error{"CLUSTER SLOTS: a range is not two slots and nodes"};
  std::array<uint16_t, 2> slots{};
  for (size_t i = 0; i < slots.size(); ++i) {
    const redisReply& slot = *reply.element[i];
    if (slot.type != REDIS_REPLY_INTEGER || slot.integer < 0 || slot.integer >= kSlots)
      return Error{"CLUSTER SLOTS: a slot is not 0 to 16383"};
    slots[i] = static_cast<uint16_t>(slot.integer);
  }
  SlotRange range{slots[0], slots[1], {}};
  for (size_t i = slots.size(); i < reply.elements; ++i) {
    Result<SlotRange::Node> node = parse_node(*reply.element[i], asked_host);
    if (!node) return node.error();
    range.nodes.push_back(std::move(node.value()));
  }
  return range;
}

// The value of `name` in the "name:value" lines of an INFO.
std::optional<Bytes> field_of(Bytes lines, Bytes name) {
  while (!lines.empty()) {
    const Bytes line = lines.substr(0, lines.find("\r\n"));
    if (line.starts_with(name) && line.substr(name.size()).starts_with(':'))
      return line.substr(name.size() + 1);
    lines.remove_prefix(std::min(line.size() + 2, lines.size()));
  }
  return std::nullopt;
}

}  // namespace

Bytes text_of(const redisReply& reply) {
  const bool has_text = is_text(reply) || reply.type == REDIS_REPLY_ERROR;
  return has_text && reply.str != nullptr ? Bytes(reply.str, reply.len) : Bytes();
}

Result<std::vector<SlotRange>> parse_cluster_slots(const redisReply& reply,
                                                   const std::string& asked_host) {
  if (reply.type == REDIS_REPLY_ERROR) return Error{std::string(text_of(reply))};
  if (reply.type != REDIS_REPLY_ARRAY) return Error{"CLUSTER SLOTS: no list of ranges"};
  if (reply.elements > kSlots) return Error{"CLUSTER SLOTS: more ranges than slots"};
  std::vector<SlotRange> ranges;
  for (size_t i = 0; i < reply.elements; ++i) {
    Result<SlotRange> range = parse_range(*reply.element[i], asked_host);
    if (!range) return range.error();
    ranges.push_back(std::move(range.value()));
  }
  return ranges;
}

ClusterState parse_cluster_info(const redisReply& reply) {
  ClusterState state;
  if (reply.type != REDIS_REPLY_STRING) return state;
  const Bytes lines = text_of(reply);
  state.failed = field_of(lines, "cluster_state").value_or("ok") != "ok";
  state.epoch = parse_number<uint64_t>(field_of(lines, "cluster_current_epoch").value_or(""));
  return state;
}

Result<Address> parse_primary_address(const redisReply& reply, Bytes service) {
  if (reply.type == REDIS_REPLY_ERROR) return Error{std::string(text_of(reply))};
  if (reply.type == REDIS_REPLY_NIL)
    return Error{"no service is known by the name \"" + std::string(service) + "\""};
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements != 2)
    return Error{"SENTINEL get-master-addr-by-name: no address"};
  const Bytes host = text_of(*reply.element[0]);
  const std::optional<uint16_t> port = parse_port(text_of(*reply.element[1]));
  if (host.empty() || !is_announced_host(host) || !port)
    return Error{"SENTINEL get-master-addr-by-name: a malformed address"};
  return Address{std::string(host), *port, {}};
}

Result<void> parse_primary_role(const redisReply& reply) {
  if (reply.type == REDIS_REPLY_ERROR) return Error{std::string(text_of(reply))};
  const bool has_role = reply.type == REDIS_REPLY_ARRAY && reply.elements > 0;
  const Bytes role = has_role ? text_of(*reply.element[0]) : Bytes();
  if (role == "master") return {};
  if (role == "slave") return Error{"it is a replica"};
  if (role == "sentinel") return Error{"it is a sentinel"};
  return Error{"its ROLE is no role"};
}

std::optional<Address> parse_switch_master(Bytes payload, Bytes service) {
  std::array<Bytes, 5> words;  // service, old host, old port, new host, new port
  for (Bytes& word : words) {
    word = payload.substr(0, payload.find(' '));
    payload.remove_prefix(std::min(word.size() + 1, payload.size()));
  }
  const std::optional<uint16_t> port = parse_port(words[4]);
  const bool valid = !words[3].empty() && is_announced_host(words[3]) && payload.empty() && port;
  if (!valid || words[0] != service) return std::nullopt;
  return Address{std::string(words[3]), *port, {}};
}

}  // namespace nearcached
