// The requests of nearcached-loadgen and the replies they must get.
//
// Key and value both carry the key's number in decimal, of fixed width, so that a request or a
// reply is a fixed text with the number put in, and every reply can be compared with the one that
// is right.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nearcached::bench {

enum class Command { get, set, mget, hgetall };

class Dataset {
 public:
  static constexpr size_t kNumberDigits = 12;

  // Keys [first_key, first_key + keys), all in the slot of `key_tag` if it is not empty. A hash has
  // fields such that HGETALL's reply is as long as the reply to GET of a string of `value_bytes`.
  // `keys_per_request` is 1 but for MGET.
  struct Shape {
    Command command = Command::get;
    uint32_t first_key = 0;
    uint32_t keys = 10'000;
    uint32_t value_bytes = 64;
    uint32_t keys_per_request = 1;
    bool resp3 = false;
    std::string key_tag;
  };
  // nullptr, or why there is no such dataset.
  static const char* refusal(const Shape& shape);

  explicit Dataset(const Shape& shape);

  const Shape& shape() const { return shape_; }

  // One request for `keys`, which are keys_per_request.
  void append_request(std::span<const uint32_t> keys, std::string& out) const;
  // What stores this key's value; it answers +OK.
  void append_store(uint32_t key, std::string& out) const;

  // The reply is looked at key by key; the first one's part begins with what is before them all.
  size_t reply_bytes(bool first_of_request) const {
    return (first_of_request ? first_reply_ : reply_).text.size();
  }
  // Whether `piece` is what that part has at `offset`.
  bool matches(uint32_t key, bool first_of_request, size_t offset, std::string_view piece);

 private:
  // A fixed text and where the key's number is put in.
  struct Template {
    std::string text;
    std::vector<size_t> number_at;
  };
  static Template parsed(const std::string& text);
  const char* number(uint32_t key) const {
    return &numbers_[size_t{key - shape_.first_key} * kNumberDigits];
  }
  void append(const Template& what, uint32_t key, std::string& out) const;

  Shape shape_;
  std::string numbers_;  // the digits of every key, made beforehand: the load must cost little
  std::string request_head_;
  Template request_, store_, reply_, first_reply_;
};

}  // namespace nearcached::bench
