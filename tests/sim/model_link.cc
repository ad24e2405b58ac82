// The network between proxies and servers. A message's time of arrival is drawn when it is sent and
// is never before that of the one ahead of it. A hung link delays what is sent while it hangs; a
// cut one drops a tail of what is under way; one that was closed by the proxy may still deliver.
#include "sim/model_redis.h"

namespace nearcached::sim {

template <typename Message>
uint64_t Link::put(Direction<Message>& direction, const Message& message) {
  Engine& engine = redis_.engine();
  const uint64_t leaves_ns = std::max(engine.now_ns(), direction.blocked_ns);
  const uint64_t delay_ns = engine.random.skewed(redis_.options().delay_max_ns);
  // What leaves in one turn mostly travels in one packet.
  const bool same_packet = direction.left_ns == leaves_ns && engine.random.percent(80);
  direction.left_ns = leaves_ns;
  if (!same_packet) direction.last_ns = std::max(direction.last_ns, leaves_ns + delay_ns);
  direction.sent.push_back({direction.last_ns, message});
  return direction.last_ns;
}

void Link::send(const Command& command) {
  if (vanished_) return;
  const uint64_t arrives_ns = put(to_server_, command);
  redis_.engine().at(arrives_ns, [this] { server_.on_readable(*this); });
}

void Link::reply(const Reply& reply) {
  if (!served_ || vanished_ || client_ == nullptr) return;
  const uint64_t arrives_ns = put(to_client_, reply);
  redis_.engine().at(arrives_ns, [this] {
    const auto& sent = to_client_.sent;
    if (client_ != nullptr && !vanished_ && !sent.empty() &&
        sent[0].arrives_ns <= redis_.engine().now_ns())
      client_->on_readable(*this);
  });
}

bool Link::take(Reply& reply) {
  auto& sent = to_client_.sent;
  if (client_ == nullptr || sent.empty() || sent.front().arrives_ns > redis_.engine().now_ns())
    return false;
  reply = sent.front().message;
  sent.pop_front();
  return true;
}

void Link::close() {
  client_ = nullptr;
  Random& random = redis_.engine().random;
  if (random.percent(60)) return;
  for (uint64_t left = random.below(to_server_.sent.size() + 1); to_server_.sent.size() > left;)
    to_server_.sent.pop_back();
}

void Link::hang(uint64_t until_ns, bool to_server, bool to_client) {
  if (to_server) to_server_.blocked_ns = std::max(to_server_.blocked_ns, until_ns);
  if (to_client) to_client_.blocked_ns = std::max(to_client_.blocked_ns, until_ns);
}

void Link::cut(bool server_reads_the_rest) {
  if (!served_) return;
  served_ = false;
  Engine& engine = redis_.engine();
  if (!server_reads_the_rest)
    while (!to_server_.sent.empty()) to_server_.sent.pop_back();
  for (uint64_t left = engine.random.below(to_client_.sent.size() + 1);
       to_client_.sent.size() > left;)
    to_client_.sent.pop_back();
  const uint64_t told_ns = std::max({engine.now_ns(), to_client_.last_ns, to_client_.blocked_ns});
  engine.at(told_ns + engine.random.skewed(redis_.options().delay_max_ns), [this] {
    if (client_ != nullptr && !vanished_) client_->on_closed(*this);
  });
}

}  // namespace nearcached::sim
