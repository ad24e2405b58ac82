// What a client must know of a cluster, and no more: a map from slots to nodes that MOVED corrects,
// ASK, and patience while nobody serves a slot. Everything is one request at a time, so that a
// writer's writes are executed in their order even when they go to different nodes.
//
// The fate of a write matters more here than speed: a redirection, an error that a node gives
// before it looks at the key, and a connection that cannot be made mean that it was not executed,
// and it is tried again; all else is for the caller to worry about.
#include "around.h"

#include <array>
#include <chrono>
#include <thread>

namespace checker {
namespace {

constexpr unsigned kSlots = 16'384;
constexpr unsigned kRefreshMs = 500;  ///< a node that is stopped does not answer at all
constexpr auto kPause = std::chrono::milliseconds(10);

/// CRC16 (XMODEM) of the key, or of its hash tag.
unsigned slot_of(const std::string& key) {
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

const std::string& key_of(const Request& request) {
  return request.at(request[0] == "EVAL" ? 3 : 1);
}

bool begins(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }

/// A node that cannot serve the key now, and has not.
bool not_now(const std::string& error) {
  for (const char* word : {"TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY"})
    if (begins(error, word)) return true;
  return false;
}

/// "MOVED 3999 127.0.0.1:6381" → the last word.
std::string target_of(const std::string& redirection) {
  return redirection.substr(redirection.rfind(' ') + 1);
}

/// The first error, that of a command inside a transaction before EXEC's own.
std::string first_error(const std::vector<Reply>& replies) {
  for (const Reply& reply : replies) {
    std::string error = error_in(*reply);
    if (!error.empty()) return error;
  }
  return {};
}

}  // namespace

Cluster::Cluster(std::vector<std::string> seeds, unsigned timeout_ms)
    : seeds_(std::move(seeds)), timeout_ms_(timeout_ms), owners_(kSlots) {
  refresh();
}

std::vector<Reply> Cluster::ask_all(const std::vector<Request>& requests) {
  if (requests[0][0] == "MULTI") return ask_owner(requests, key_of(requests.at(1)));
  std::vector<Reply> replies;
  for (const Request& request : requests)
    replies.push_back(std::move(ask_owner({request}, key_of(request))[0]));
  return replies;
}

std::vector<Reply> Cluster::ask_owner(const std::vector<Request>& requests,
                                      const std::string& key) {
  const unsigned slot = slot_of(key);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms_);
  std::string asked;  // behind ASKING, this once
  std::string last = "no node owns the slot";
  while (std::chrono::steady_clock::now() < deadline) {
    const std::string node = asked.empty() ? owners_[slot] : asked;
    Connection* connection = nullptr;
    try {
      if (!node.empty()) connection = &link(node);
    } catch (const ConnectionLost& lost) {
      last = lost.what();
    }
    if (connection == nullptr) {
      std::this_thread::sleep_for(kPause);
      refresh();
      continue;
    }
    std::vector<Reply> replies;
    try {
      if (!asked.empty()) connection->ask({"ASKING"});
      replies = connection->ask_all(requests);
    } catch (const ConnectionLost&) {
      links_.erase(node);
      throw;
    }
    last = first_error(replies);
    asked.clear();
    if (begins(last, "MOVED ")) {
      owners_[slot] = target_of(last);
    } else if (begins(last, "ASK ")) {
      asked = target_of(last);
    } else if (not_now(last)) {
      std::this_thread::sleep_for(kPause);
      refresh();
    } else {
      return replies;
    }
  }
  throw ConnectionLost(last);
}

Connection& Cluster::link(const std::string& node) {
  std::unique_ptr<Connection>& link = links_[node];
  if (!link) link = std::make_unique<Connection>(node, timeout_ms_);
  return *link;
}

void Cluster::refresh() {
  for (const std::string& seed : seeds_) {
    try {
      const Reply slots = Connection(seed, kRefreshMs).ask({"CLUSTER", "SLOTS"});
      if (slots->type != REDIS_REPLY_ARRAY) continue;
      for (size_t i = 0; i < slots->elements; ++i) {
        const redisReply& row = *slots->element[i];
        const redisReply& primary = *row.element[2];
        const std::string node = std::string(primary.element[0]->str, primary.element[0]->len) +
                                 ":" + std::to_string(primary.element[1]->integer);
        for (auto slot = row.element[0]->integer; slot <= row.element[1]->integer; ++slot)
          owners_[static_cast<size_t>(slot)] = node;
      }
      return;
    } catch (const ConnectionLost&) {
    }
  }
}

Connection connect_to_primary(const std::vector<std::string>& sentinels, const std::string& service,
                              unsigned timeout_ms) {
  for (const std::string& sentinel : sentinels) {
    try {
      const Reply address =
          Connection(sentinel, kRefreshMs).ask({"SENTINEL", "GET-MASTER-ADDR-BY-NAME", service});
      if (address->type != REDIS_REPLY_ARRAY || address->elements != 2) continue;
      return {std::string(address->element[0]->str) + ":" + address->element[1]->str, timeout_ms};
    } catch (const ConnectionLost&) {
    }
  }
  throw ConnectionLost("no sentinel names a primary that answers");
}

}  // namespace checker
