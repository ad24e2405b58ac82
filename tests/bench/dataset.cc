// The texts of nearcached-loadgen's requests and replies, made once and copied from then on.
//
// A text is written with kNumber where the key's number belongs; parsed() remembers the places. A
// hash has values of 48 bytes, so that Redis keeps it as a listpack, whose fields come back in the
// order in which they were stored: only so is the reply to HGETALL one text. Rejected: generating
// requests and comparing replies piece by piece; the load generator would cost more than the
// server.
#include "dataset.h"

#include <algorithm>
#include <cstring>

namespace nearcached::bench {
namespace {

const std::string kNumber(Dataset::kNumberDigits, '#');
constexpr uint32_t kHashValueBytes = 48;
constexpr size_t kListpackValueMax = 64;  // hash-max-listpack-value
constexpr uint32_t kFieldsMax = 100;      // of two digits, and fewer than hash-max-listpack-entries

std::string bulk(const std::string& text) {
  return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

std::string value_of(size_t bytes) {
  return kNumber + std::string(bytes - Dataset::kNumberDigits, 'v');
}

std::string request_of(const std::vector<std::string>& args) {
  std::string out = "*" + std::to_string(args.size()) + "\r\n";
  for (const std::string& arg : args) out += bulk(arg);
  return out;
}

// Fields f00, f01, … and their values: of 48 bytes, but for the last, which makes HGETALL's RESP2
// reply as long as GET's of a string of value_bytes, or one byte shorter where no length fits.
std::vector<std::string> fields_of(uint32_t value_bytes) {
  const size_t wanted = bulk(value_of(value_bytes)).size();
  const size_t one = bulk("f00").size() + bulk(value_of(kHashValueBytes)).size();
  const size_t count = std::max<size_t>(1, wanted / one);
  std::vector<std::string> fields;
  size_t rest = wanted - ("*" + std::to_string(2 * count) + "\r\n").size();
  for (size_t i = 0; i < count; ++i) {
    fields.push_back(std::string(i < 10 ? "f0" : "f") + std::to_string(i));
    rest -= bulk(fields.back()).size();
    size_t bytes = kHashValueBytes;
    if (i + 1 == count) {
      bytes = rest;
      while (bulk(value_of(bytes)).size() > rest) --bytes;
    }
    fields.push_back(value_of(bytes));
    rest -= bulk(fields.back()).size();
  }
  return fields;
}

}  // namespace

const char* Dataset::refusal(const Shape& shape) {
  if (shape.command == Command::hgetall) {
    if (shape.value_bytes < kHashValueBytes || shape.value_bytes > kFieldsMax * kHashValueBytes)
      return "a hash has 48 to 4800 --value-bytes";
    if (fields_of(shape.value_bytes).back().size() > kListpackValueMax)
      return "a hash of these --value-bytes would have a field too long for a listpack";
  }
  if (shape.command != Command::mget && shape.keys_per_request != 1) {
    return "--keys-per-request is for mget";
  }
  return nullptr;
}

Dataset::Dataset(const Shape& shape) : shape_(shape) {
  numbers_.resize(size_t{shape.keys} * kNumberDigits);
  for (uint32_t i = 0; i < shape.keys; ++i) {
    uint32_t rest = shape.first_key + i;
    char* digits = &numbers_[size_t{i} * kNumberDigits];
    for (size_t at = kNumberDigits; at-- > 0; rest /= 10)
      digits[at] = static_cast<char>('0' + rest % 10);
  }
  const std::string value = value_of(shape.value_bytes);
  const std::string tag = shape.key_tag.empty() ? "" : "{" + shape.key_tag + "}";
  const std::string key = tag + "key:" + kNumber, map = tag + "map:" + kNumber;
  store_ = parsed(request_of({"SET", key, value}));
  switch (shape.command) {
    case Command::get:
      request_ = parsed(request_of({"GET", key}));
      reply_ = first_reply_ = parsed(bulk(value));
      break;
    case Command::set:
      request_ = store_;
      reply_ = first_reply_ = parsed("+OK\r\n");
      break;
    case Command::mget:
      request_head_ = "*" + std::to_string(shape.keys_per_request + 1) + "\r\n" + bulk("MGET");
      request_ = parsed(bulk(key));
      reply_ = parsed(bulk(value));
      first_reply_ = parsed("*" + std::to_string(shape.keys_per_request) + "\r\n" + bulk(value));
      break;
    case Command::hgetall: {
      std::vector<std::string> args = fields_of(shape.value_bytes);
      std::string reply =
          shape.resp3 ? "%" + std::to_string(args.size() / 2) : "*" + std::to_string(args.size());
      reply += "\r\n";
      for (const std::string& arg : args) reply += bulk(arg);
      request_ = parsed(request_of({"HGETALL", map}));
      reply_ = first_reply_ = parsed(reply);
      args.insert(args.begin(), {"HMSET", map});  // HSET would not answer +OK
      store_ = parsed(request_of(args));
      break;
    }
  }
}

Dataset::Template Dataset::parsed(const std::string& text) {
  Template out{text, {}};
  for (size_t at = text.find(kNumber); at != std::string::npos; at = text.find(kNumber, at + 1)) {
    out.number_at.push_back(at);
  }
  return out;
}

void Dataset::append(const Template& what, uint32_t key, std::string& out) const {
  const size_t begin = out.size();
  out += what.text;
  for (const size_t at : what.number_at) std::memcpy(&out[begin + at], number(key), kNumberDigits);
}

void Dataset::append_request(std::span<const uint32_t> keys, std::string& out) const {
  out += request_head_;
  for (const uint32_t key : keys) append(request_, key, out);
}

void Dataset::append_store(uint32_t key, std::string& out) const { append(store_, key, out); }

bool Dataset::matches(uint32_t key, bool first_of_request, size_t offset, std::string_view piece) {
  Template& reply = first_of_request ? first_reply_ : reply_;
  for (const size_t at : reply.number_at) std::memcpy(&reply.text[at], number(key), kNumberDigits);
  return std::memcmp(reply.text.data() + offset, piece.data(), piece.size()) == 0;
}

}  // namespace nearcached::bench
