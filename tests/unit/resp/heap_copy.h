// A copy in a heap block of exactly its size, so that AddressSanitizer sees a read past the end.
#pragma once
#include <cstring>
#include <memory>

#include "nearcached/base/bytes.h"

namespace nearcached {

class HeapCopy {
 public:
  explicit HeapCopy(Bytes bytes) : block_(new char[bytes.size()]), size_(bytes.size()) {
    if (size_ > 0) std::memcpy(block_.get(), bytes.data(), size_);
  }
  Bytes bytes() const { return {block_.get(), size_}; }

 private:
  std::unique_ptr<char[]> block_;
  size_t size_;
};

}  // namespace nearcached
