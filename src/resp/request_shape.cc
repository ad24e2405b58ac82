// The head is compared in words that overlap: two or three loads, whatever its length.
#include "nearcached/resp/request_shape.h"

#include "resp/lines.h"

namespace nearcached {
namespace {

uint64_t word(const char* p) {
  uint64_t w;
  std::memcpy(&w, p, sizeof w);
  return w;
}

}  // namespace

bool RequestShape::learn(Bytes wire, Bytes name, size_t args) {
  const auto head_bytes = static_cast<size_t>(name.data() + name.size() + 3 - wire.data());
  // `*n $n` with one digit each: what hash() looks at.
  const bool small = args >= 2 && args <= kArgsMax && name.size() >= 1 && name.size() <= 9;
  if (!small || head_bytes > kHeadBytesMax || wire.size() < kHashedBytes) return false;
  std::memcpy(head_.data(), wire.data(), head_bytes);
  head_bytes_ = static_cast<uint8_t>(head_bytes);
  args_ = static_cast<uint8_t>(args - 1);
  return true;
}

bool RequestShape::begins(Bytes in) const {
  if (head_bytes_ == 0 || in.size() < head_bytes_) return false;
  const char* const a = in.data();
  const char* const b = head_.data();
  const size_t tail = head_bytes_ - sizeof(uint64_t);
  return word(a) == word(b) && word(a + tail) == word(b + tail) &&
         (head_bytes_ <= 16 || word(a + 8) == word(b + 8));
}

size_t RequestShape::read(Bytes in, uint64_t bulk_bytes_max,
                          std::array<Bytes, kArgsMax>& args) const {
  if (!begins(in)) return 0;
  const char* p = in.data() + head_bytes_;
  const char* const end = in.data() + in.size();
  for (size_t i = 0;;) {
    uint64_t length;
    p = resp::read_length(p, end, length);
    if (p == nullptr || length > bulk_bytes_max || static_cast<uint64_t>(end - p) < length + 2)
      return 0;
    args[i] = Bytes(p, length);
    p += length;
    if (p[0] != '\r' || p[1] != '\n') return 0;
    p += 2;
    if (++i == args_) return static_cast<size_t>(p - in.data());
    if (p == end || *p != '$') return 0;
    ++p;
  }
}

}  // namespace nearcached
