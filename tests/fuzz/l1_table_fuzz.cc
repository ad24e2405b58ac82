// Sequences of operations on the L1 table (l1_operations.h says what is verified).
#include "fuzz/l1_operations.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  nearcached::test::L1Operations(data, size).run();
  return 0;
}
