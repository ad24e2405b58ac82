#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

#include "nearcached/base/buffer.h"

using nearcached::Buffer;
using nearcached::Bytes;

TEST_CASE("an emptied buffer owns no memory", "[base]") {
  Buffer b;
  CHECK(b.capacity() == 0);
  b.append("hello");
  CHECK(b.capacity() > Buffer::kPooledBytes / 2);
  b.consume(2);
  CHECK(b.readable() == "llo");
  b.append(std::string(100'000, 'x'));
  CHECK(b.size() == 100'003);
  b.consume(b.size());
  CHECK(b.capacity() == 0);
}

TEST_CASE("a buffer that begins small takes no more than it needs, and grows like any other",
          "[base]") {
  Buffer little;
  little.append_little("hello");
  CHECK(little.capacity() < Buffer::kSmallBytes);
  little.append_little(std::string(Buffer::kSmallBytes, 'x'));
  CHECK(little.readable() == "hello" + std::string(Buffer::kSmallBytes, 'x'));
  CHECK(little.capacity() > Buffer::kPooledBytes / 2);
  Buffer big;
  big.append_little(std::string(Buffer::kSmallBytes, 'x'));
  CHECK(big.capacity() > Buffer::kPooledBytes / 2);
}

TEST_CASE("whatever is appended, consumed and cut off, a buffer holds what is left, in order",
          "[base]") {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    Buffer buffer;
    std::string expected;
    for (int step = 0; step < 50; ++step) {
      const std::string bytes(random() % (step % 10 == 0 ? 40'000 : 300),
                              static_cast<char>('a' + step % 26));
      if (random() % 2 == 0) buffer.append_little(bytes);
      else buffer.append(bytes);
      expected += bytes;
      const size_t taken = expected.empty() ? 0 : random() % (expected.size() + 1);
      buffer.consume(taken);
      expected.erase(0, taken);
      if (step % 7 == 0) {
        expected.resize(expected.size() / (1 + random() % 3));
        buffer.truncate(expected.size());
      }
      REQUIRE((buffer.readable() == Bytes(expected)));
      REQUIRE((buffer.capacity() == 0) == expected.empty());
    }
  }
}

TEST_CASE("blocks that many buffers have needed are kept while they are used, then given back",
          "[base]") {
  const auto use = [](size_t count) {
    std::vector<Buffer> buffers(count);
    for (Buffer& buffer : buffers) buffer.append("x");
  };
  use(200);
  CHECK(Buffer::pooled_blocks() == 200);
  for (int round = 0; round < 3; ++round) {
    Buffer::trim_pool();
    use(150);
  }
  CHECK(Buffer::pooled_blocks() == 150 + 32);
  Buffer::trim_pool();
  Buffer::trim_pool();
  CHECK(Buffer::pooled_blocks() == 32);
  use(1000);
  CHECK(Buffer::pooled_blocks() < 256);
}
