// What clusters and sentinels answer, as RESP text: right, unusual, and hostile.
#include "discovery/answers.h"

#include <hiredis/hiredis.h>

#include <catch2/catch.hpp>
#include <memory>
#include <random>

using namespace nearcached;

namespace {

struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

/// Null if it is no complete reply.
Reply try_reply(const std::string& resp) {
  redisReader* const reader = redisReaderCreate();
  void* reply = nullptr;
  redisReaderFeed(reader, resp.data(), resp.size());
  if (redisReaderGetReply(reader, &reply) != REDIS_OK) reply = nullptr;
  redisReaderFree(reader);
  return Reply(static_cast<redisReply*>(reply));
}

Reply reply_of(const std::string& resp) {
  Reply reply = try_reply(resp);
  INFO(resp);
  REQUIRE(reply != nullptr);
  return reply;
}

std::string bulk(const std::string& text) {
  return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}
std::string integer(long long number) { return ":" + std::to_string(number) + "\r\n"; }
std::string array(const std::vector<std::string>& items) {
  std::string out = "*" + std::to_string(items.size()) + "\r\n";
  for (const std::string& item : items) out += item;
  return out;
}
const std::string kNil = "$-1\r\n";

std::string node(const std::string& host, int port, const std::string& metadata = array({})) {
  return array({host, integer(port), bulk("id" + std::to_string(port)), metadata});
}

std::vector<SlotRange> slots(const std::string& resp) {
  const auto ranges = parse_cluster_slots(*reply_of(resp), "asked.example");
  INFO((ranges ? "" : ranges.error().detail));
  REQUIRE(ranges);
  return ranges.value();
}

std::string slots_error(const std::string& resp) {
  const auto ranges = parse_cluster_slots(*reply_of(resp), "asked.example");
  return ranges ? "accepted" : ranges.error().detail;
}

/// The host that is read from a node's entry.
std::string host_of(const std::string& host, const std::string& metadata = array({})) {
  return slots(array({array({integer(0), integer(1), node(host, 7000, metadata)})}))[0]
      .nodes[0]
      .address.host;
}

}  // namespace

TEST_CASE("CLUSTER SLOTS is ranges with their nodes, the primary first", "[discovery]") {
  const auto ranges = slots(array({array({integer(0), integer(5460), node(bulk("10.0.0.1"), 7000),
                                          node(bulk("10.0.0.2"), 65535)}),
                                   array({integer(16383), integer(16383), node(bulk("::1"), 1)})}));
  REQUIRE(ranges.size() == 2);
  CHECK(ranges[0].first == 0);
  CHECK(ranges[0].last == 5460);
  REQUIRE(ranges[0].nodes.size() == 2);
  CHECK(ranges[0].nodes[0].address == Address{"10.0.0.1", 7000, {}});
  CHECK(ranges[0].nodes[0].id == "id7000");
  CHECK(ranges[0].nodes[1].address == Address{"10.0.0.2", 65535, {}});
  CHECK(ranges[1].first == 16383);
  CHECK(ranges[1].nodes[0].address == Address{"::1", 1, {}});
  CHECK(slots(array({})).empty());
}

TEST_CASE("old servers leave id and metadata out", "[discovery]") {
  const auto ranges =
      slots(array({array({integer(0), integer(1), array({bulk("10.0.0.1"), integer(7000)})})}));
  CHECK(ranges[0].nodes[0].address == Address{"10.0.0.1", 7000, {}});
  CHECK(ranges[0].nodes[0].id.empty());
}

TEST_CASE("a node without a host of its own is at the host that was asked", "[discovery]") {
  // As 7.0.15 answers with cluster-preferred-endpoint-type unknown-endpoint and hostname.
  const std::string ip = array({bulk("ip"), bulk("10.0.0.1")});
  CHECK(host_of(bulk("")) == "asked.example");
  CHECK(host_of(kNil, ip) == "asked.example");
  CHECK(host_of(bulk("?")) == "asked.example");
  CHECK(host_of(bulk("?"), ip) == "10.0.0.1");
  CHECK(host_of(bulk("?"), array({bulk("hostname"), bulk("x"), bulk("ip"), bulk("10.0.0.2")})) ==
        "10.0.0.2");
  CHECK(host_of(bulk("?"), array({bulk("ip")})) == "asked.example");
  CHECK(host_of(bulk("?"), bulk("ip")) == "asked.example");
  CHECK(host_of(bulk("host.example"), ip) == "host.example");
}

TEST_CASE("an answer that is not a map is refused as a whole", "[discovery]") {
  const std::string good = node(bulk("a"), 1);
  const auto with_node = [&](const std::string& second) {
    return slots_error(array({array({integer(0), integer(1), good, second})}));
  };
  CHECK(with_node(good) == "accepted");
  CHECK(with_node(array({bulk("a")})) == "CLUSTER SLOTS: a node is not host and port");
  CHECK(with_node(bulk("a")) == "CLUSTER SLOTS: a node is not host and port");
  CHECK(with_node(array({integer(1), integer(1)})) == "CLUSTER SLOTS: a host is not a text");
  CHECK(with_node(array({bulk("a"), bulk("1")})) == "CLUSTER SLOTS: a port is not 1 to 65535");
  CHECK(with_node(node(bulk("a"), 65536)) == "CLUSTER SLOTS: a port is not 1 to 65535");
  CHECK(with_node(node(bulk("a"), -1)) == "CLUSTER SLOTS: a port is not 1 to 65535");
  CHECK(with_node(node(bulk("a"), 0)) == "CLUSTER SLOTS: a node listens with TLS only");
  CHECK(with_node(node(bulk("a b"), 1)) == "CLUSTER SLOTS: a host is malformed");
  CHECK(with_node(node(bulk(std::string("a\0b", 3)), 1)) == "CLUSTER SLOTS: a host is malformed");
  CHECK(with_node(node(bulk(std::string(256, 'a')), 1)) == "CLUSTER SLOTS: a host is malformed");

  const auto with_slots = [&](const std::string& first, const std::string& last) {
    return slots_error(array({array({first, last, good})}));
  };
  const std::string no_slot = "CLUSTER SLOTS: a slot is not 0 to 16383";
  CHECK(with_slots(integer(0), integer(16383)) == "accepted");
  CHECK(with_slots(integer(0), integer(16384)) == no_slot);
  CHECK(with_slots(integer(-1), integer(0)) == no_slot);
  CHECK(with_slots(integer(1LL << 32), integer(5)) == no_slot);
  CHECK(with_slots(bulk("0"), integer(5)) == no_slot);

  const std::string no_range = "CLUSTER SLOTS: a range is not two slots and nodes";
  CHECK(slots_error(array({array({integer(0), integer(1)})})) == no_range);
  CHECK(slots_error(array({integer(0)})) == no_range);
  CHECK(slots_error(bulk("")) == "CLUSTER SLOTS: no list of ranges");
  CHECK(slots_error("*-1\r\n") == "CLUSTER SLOTS: no list of ranges");
  CHECK(slots_error("-ERR This instance has cluster support disabled\r\n") ==
        "ERR This instance has cluster support disabled");
  CHECK(slots_error(array(std::vector<std::string>(kSlots + 1, integer(0)))) ==
        "CLUSTER SLOTS: more ranges than slots");
}

TEST_CASE("random changes of an answer are never more than a wrong answer", "[discovery]") {
  const std::string good =
      array({array({integer(0), integer(99), node(bulk("10.0.0.1"), 7000),
                    node(bulk("?"), 7001, array({bulk("ip"), bulk("10.0.0.2")}))})});
  std::mt19937 random(7);
  static constexpr std::string_view kBytes = "*$:+-0123456789\r\n?a";
  int complete = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string changed = good;
    for (int i = 0; i < 3; ++i)
      changed[random() % changed.size()] = kBytes[random() % kBytes.size()];
    const Reply reply = try_reply(changed);
    if (reply == nullptr) continue;
    ++complete;
    (void)parse_cluster_info(*reply);
    (void)parse_primary_address(*reply, "s").ok();
    (void)parse_primary_role(*reply).ok();
    const auto ranges = parse_cluster_slots(*reply, "asked");
    if (!ranges) continue;
    for (const SlotRange& range : ranges.value()) {
      CHECK(range.first < kSlots);
      CHECK(range.last < kSlots);
      CHECK_FALSE(range.nodes.empty());
      for (const SlotRange::Node& one : range.nodes) {
        CHECK(one.address.port != 0);
        CHECK(is_announced_host(one.address.host));
      }
    }
  }
  CHECK(complete > 1'000);
}

TEST_CASE("CLUSTER INFO has state and epoch", "[discovery]") {
  const auto info = [](const std::string& text) { return parse_cluster_info(*reply_of(text)); };
  const ClusterState ok =
      info(bulk("cluster_state:ok\r\ncluster_slots_ok:5\r\ncluster_current_epoch:42\r\n"));
  CHECK_FALSE(ok.failed);
  CHECK(ok.epoch == 42u);
  CHECK(info(bulk("cluster_state:fail\r\n")).failed);
  CHECK(info(bulk("cluster_state:fail")).failed);
}

TEST_CASE("a CLUSTER INFO that may not be asked for says nothing", "[discovery]") {
  for (const std::string& text :
       {std::string("-NOPERM this user has no permissions\r\n"), bulk(""), kNil, integer(5),
        bulk("cluster_current_epoch:\r\n"), bulk("cluster_current_epoch:-1\r\n"),
        bulk("cluster_current_epoch:99999999999999999999\r\n"),
        bulk("xcluster_state:fail\r\ncluster_state_x:fail\r\n")}) {
    const ClusterState state = parse_cluster_info(*reply_of(text));
    INFO(text);
    CHECK_FALSE(state.failed);
    CHECK_FALSE(state.epoch);
  }
}

TEST_CASE("a sentinel names host and port, or nobody", "[discovery]") {
  const auto named = [](const std::string& text) {
    const auto address = parse_primary_address(*reply_of(text), "svc");
    return address ? address.value().to_string() : address.error().detail;
  };
  CHECK(named(array({bulk("10.0.0.1"), bulk("6379")})) == "10.0.0.1:6379");
  CHECK(named(array({bulk("::1"), bulk("6379")})) == "[::1]:6379");
  CHECK(named("*-1\r\n") == "no service is known by the name \"svc\"");
  CHECK(named("-NOAUTH Authentication required.\r\n") == "NOAUTH Authentication required.");
  CHECK(named(array({bulk("a")})) == "SENTINEL get-master-addr-by-name: no address");
  CHECK(named(bulk("a")) == "SENTINEL get-master-addr-by-name: no address");
  for (const auto& [host, port] : std::vector<std::pair<std::string, std::string>>{
           {"", "1"}, {"a", "0"}, {"a", "65536"}, {"a", "x"}, {"a", "1x"}, {"a", ""}, {"a b", "1"}})
    CHECK(named(array({bulk(host), bulk(port)})) ==
          "SENTINEL get-master-addr-by-name: a malformed address");
}

TEST_CASE("only a master's ROLE is a primary's", "[discovery]") {
  const auto role = [](const std::string& text) {
    const auto checked = parse_primary_role(*reply_of(text));
    return checked ? "primary" : checked.error().detail;
  };
  CHECK(role(array({bulk("master"), integer(0), array({})})) == "primary");
  CHECK(role(array({bulk("slave"), bulk("10.0.0.1"), integer(6379)})) == "it is a replica");
  CHECK(role(array({bulk("sentinel"), array({})})) == "it is a sentinel");
  CHECK(role(array({})) == "its ROLE is no role");
  CHECK(role(bulk("master")) == "its ROLE is no role");
  CHECK(role("-LOADING Redis is loading\r\n") == "LOADING Redis is loading");
}

TEST_CASE("+switch-master names the new primary of its service", "[discovery]") {
  const auto switched = [](Bytes payload) { return parse_switch_master(payload, "svc"); };
  CHECK(switched("svc 127.0.0.1 6379 127.0.0.2 6380") == Address{"127.0.0.2", 6380, {}});
  CHECK(switched("svc ::1 6379 ::2 6380") == Address{"::2", 6380, {}});
  for (const Bytes payload :
       {"", "svc", "svc a 1 b", "svc a 1 b ", "svc a 1 b 0", "svc a 1 b x", "svc a 1  2",
        "other a 1 b 2", "svc a 1 b 2 3", "svc a 1 b 65536", "svcx a 1 b 2", "    "})
    CHECK_FALSE(switched(payload));
}
