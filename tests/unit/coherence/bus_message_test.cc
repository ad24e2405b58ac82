// Whoever may PUBLISH on the channel can send anything: what is not exactly a message must be told
// from one, without a byte read beyond it. Everything here is decoded from heap copies of exactly
// its size, so that AddressSanitizer sees an overread.
#include "nearcached/coherence/bus_message.h"

#include <catch2/catch.hpp>
#include <random>
#include <string>

#include "../resp/heap_copy.h"

using namespace nearcached;
using namespace nearcached::coherence;

namespace {

constexpr size_t kHeader = 4 + 1 + 1 + 8 + 8 + 4;
constexpr size_t kCountAt = kHeader - 4;

std::string encoded(const BusMessage& message) {
  std::string bytes;
  encode(message, bytes);
  return bytes;
}

std::string with_items(const std::vector<std::string>& items) {
  BusMessage message{BusMessage::Kind::wrote, Cause::write, 0xFEDCBA9876543210, 1ull << 63, {}};
  message.items.assign(items.begin(), items.end());
  return encoded(message);
}

bool accepted(const std::string& bytes) {
  const HeapCopy copy(bytes);
  BusMessage message;
  return decode(copy.bytes(), message);
}

void put_u32(std::string& bytes, size_t at, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<char>(value >> (8 * i));
}

}  // namespace

TEST_CASE("a message reads back as it was written, whatever bytes its items hold", "[bus]") {
  std::string every_byte;
  for (int c = 0; c < 256; ++c) every_byte += static_cast<char>(c);
  const std::vector<std::vector<std::string>> lists = {
      {}, {""}, {"k"}, {std::string("\0\r\n", 3), "", every_byte, std::string(70'000, 'x')}};
  for (uint8_t kind = 0; kind <= static_cast<uint8_t>(BusMessage::Kind::proof); ++kind) {
    for (uint8_t cause = 0; cause < kCauses; ++cause) {
      for (const auto& items : lists) {
        BusMessage sent{static_cast<BusMessage::Kind>(kind),
                        static_cast<Cause>(cause),
                        UINT64_MAX,
                        0x0102030405060708,
                        {}};
        sent.items.assign(items.begin(), items.end());
        const HeapCopy copy(encoded(sent));
        BusMessage read;
        read.items = {"left over"};
        REQUIRE(decode(copy.bytes(), read));
        CHECK(read.kind == sent.kind);
        CHECK(read.cause == sent.cause);
        CHECK(read.proxy == sent.proxy);
        CHECK(read.number == sent.number);
        CHECK(read.items == sent.items);
      }
    }
  }
}

TEST_CASE("a message is the same bytes on every machine, behind what was there", "[bus]") {
  std::string out = "before";
  encode({BusMessage::Kind::heartbeat, Cause::push, 0x0102, 3, {"ab"}}, out);
  CHECK(out == "before" + std::string("NCB1\x02\x01"
                                      "\x02\x01\0\0\0\0\0\0"
                                      "\x03\0\0\0\0\0\0\0"
                                      "\x01\0\0\0"
                                      "\x02\0\0\0ab",
                                      32));
}

TEST_CASE("a message that is cut short or too long anywhere is none", "[bus]") {
  for (const auto& items : std::vector<std::vector<std::string>>{{}, {"key"}, {"", "a", "bc"}}) {
    const std::string whole = with_items(items);
    REQUIRE(accepted(whole));
    for (size_t size = 0; size < whole.size(); ++size) {
      INFO(size);
      CHECK_FALSE(accepted(whole.substr(0, size)));
    }
    for (const char more : {'\0', 'N', '\xFF'}) CHECK_FALSE(accepted(whole + more));
    CHECK_FALSE(accepted(whole + whole));
  }
}

TEST_CASE("a count that is not the number of items is believed by nobody", "[bus]") {
  const std::string whole = with_items({"key", ""});
  for (const uint32_t count : {0u, 1u, 3u, 4u, 0x7FFFFFFFu, 0x80000002u, 0xFFFFFFFFu}) {
    INFO(count);
    std::string bytes = whole;
    put_u32(bytes, kCountAt, count);
    CHECK_FALSE(accepted(bytes));
  }
}

TEST_CASE("a size that is not the item's is believed by nobody", "[bus]") {
  const std::string whole = with_items({"key", "other"});
  for (const uint32_t size : {0u, 1u, 2u, 4u, 12u, 13u, 0x7FFFFFFFu, 0xFFFFFFFFu}) {
    INFO(size);
    std::string bytes = whole;
    put_u32(bytes, kHeader, size);
    CHECK_FALSE(accepted(bytes));
  }
}

TEST_CASE("another version, kind or cause is no message of ours", "[bus]") {
  const std::string whole = with_items({"key"});
  for (size_t at = 0; at < 4; ++at) {
    std::string bytes = whole;
    bytes[at] ^= 1;
    CHECK_FALSE(accepted(bytes));
  }
  for (int value = 0; value < 256; ++value) {
    INFO(value);
    std::string kind = whole, cause = whole;
    kind[4] = cause[5] = static_cast<char>(value);
    CHECK(accepted(kind) == (value <= static_cast<int>(BusMessage::Kind::proof)));
    CHECK(accepted(cause) == (value < static_cast<int>(kCauses)));
  }
}

TEST_CASE("whatever a damaged message decodes to encodes to the same bytes", "[bus]") {
  // Every message has one form: so nothing that is accepted can have been read wrongly.
  std::mt19937_64 random(7);
  const std::string sound[] = {with_items({}), with_items({"key"}),
                               with_items({"", "a", "bc", "def"})};
  int taken = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string bytes = sound[random() % 3];
    for (uint64_t damage = random() % 4; damage > 0; --damage) {
      const size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0: bytes[at] = static_cast<char>(random()); break;
        case 1: bytes[at] ^= static_cast<char>(1 << random() % 8); break;
        case 2: bytes.erase(at, 1 + random() % 4); break;
        default: bytes.insert(at, 1 + random() % 4, static_cast<char>(random() % 3)); break;
      }
      if (bytes.empty()) bytes = "N";
    }
    const HeapCopy copy(bytes);
    BusMessage message;
    if (!decode(copy.bytes(), message)) continue;
    ++taken;
    if (encoded(message) != bytes) FAIL("read as something else");
  }
  CHECK(taken > 1'000);
}
