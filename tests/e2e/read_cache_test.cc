// What L1 holds: each cacheable command is answered from it the second time, and never after a
// write made by anybody.
#include <catch2/catch.hpp>

#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

struct CachedRead {
  std::string setup;   ///< makes the value
  std::string read;    ///< is to be cached
  std::string change;  ///< makes the reply another one
};

const CachedRead kCachedReads[] = {
    {"SET s hello", "GET s", "SET s world"},
    {"SET s hello", "STRLEN s", "APPEND s !"},
    {"SET s hello", "GETRANGE s 0 2", "SETRANGE s 0 J"},
    {"SET s hello", "EXISTS s", "DEL s"},
    {"SET s hello", "TYPE s", "DEL s"},
    {"SET s hello", "BITCOUNT s", "APPEND s !"},
    {"SET s hello", "GETBIT s 1", "SETBIT s 1 0"},
    {"HSET h a 1 b 2", "HGET h a", "HSET h a 3"},
    {"HSET h a 1 b 2", "HMGET h a z", "HSET h z 3"},
    {"HSET h a 1", "HGETALL h", "HSET h a 2"},
    {"HSET h a 1 b 2", "HLEN h", "HDEL h a"},
    {"HSET h a 1 b 2", "HEXISTS h a", "HDEL h a"},
    {"HSET h a 1", "HKEYS h", "HSET h b 2"},
    {"HSET h a 1", "HVALS h", "HINCRBY h a 5"},
    {"HSET h a 1", "HSTRLEN h a", "HSET h a 100"},
    {"RPUSH l a b c", "LRANGE l 0 -1", "LPUSH l x"},
    {"RPUSH l a b c", "LLEN l", "LPOP l"},
    {"RPUSH l a b c", "LINDEX l 1", "LSET l 1 B"},
    {"SADD t 1 2 3", "SMEMBERS t", "SADD t 4"},
    {"SADD t 1 2 3", "SISMEMBER t 4", "SADD t 4"},
    {"SADD t 1 2 3", "SMISMEMBER t 1 4", "SADD t 4"},
    {"SADD t 1 2 3", "SCARD t", "SREM t 1"},
    {"ZADD z 1 a 2 b 3 c", "ZRANGE z 0 -1", "ZADD z 0 b"},
    {"ZADD z 1 a 2 b 3 c", "ZRANGE z 0 -1 WITHSCORES", "ZINCRBY z 1 a"},
    {"ZADD z 1 a 2 b 3 c", "ZREVRANGE z 0 -1", "ZREM z b"},
    {"ZADD z 1 a 2 b 3 c", "ZRANGEBYSCORE z 1 2", "ZADD z 9 b"},
    {"ZADD z 1 a 2 b 3 c", "ZREVRANGEBYSCORE z 2 1", "ZADD z 9 b"},
    {"ZADD z 0 a 0 b 0 c", "ZRANGEBYLEX z - +", "ZREM z b"},
    {"ZADD z 0 a 0 b 0 c", "ZREVRANGEBYLEX z + -", "ZREM z b"},
    {"ZADD z 1 a 2 b 3 c", "ZSCORE z b", "ZADD z 9 b"},
    {"ZADD z 1 a 2 b 3 c", "ZMSCORE z b q", "ZADD z 9 q"},
    {"ZADD z 1 a 2 b 3 c", "ZRANK z b", "ZADD z 9 b"},
    {"ZADD z 1 a 2 b 3 c", "ZREVRANK z b", "ZADD z 9 b"},
    {"ZADD z 1 a 2 b 3 c", "ZCARD z", "ZREM z b"},
    {"ZADD z 1 a 2 b 3 c", "ZCOUNT z 1 2", "ZADD z 9 b"},
    {"SET s hello", "MGET s none", "SET none 1"},
};

/// Asks until an answer comes from L1 (a fill may be refused while an invalidation of the set-up is
/// on its way); false if none ever does.
bool becomes_hit(const Proxy& proxy, Client& client, const std::string& read) {
  return wait_until([&] {
    const uint64_t hits = proxy.count("l1_hits");
    client(read);
    return proxy.count("l1_hits") > hits;
  });
}

}  // namespace

TEST_CASE("each cacheable read is answered from L1, and is new after a write around the proxy",
          "[cache]") {
  Stack stack;
  Client direct = stack.redis.client();
  Client client = stack.proxy.client();
  for (const CachedRead& c : kCachedReads) {
    INFO(c.read);
    direct("FLUSHALL");
    direct(c.setup);
    const std::string before = direct(c.read);
    CHECK(becomes_hit(stack.proxy, client, c.read));
    CHECK(client(c.read) == before);
    direct(c.change);
    const std::string after = direct(c.read);
    REQUIRE(after != before);
    CHECK(wait_until([&] { return client(c.read) == after; }));
  }
}
