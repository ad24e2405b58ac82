// In a build with the mutation switches, NEARCACHED_MUTATION turns one on before the first test, as
// in the program: tools/mutation-test shows by that which test would notice.
#include <cstdio>
#include <cstdlib>

#include "nearcached/coherence/mutations.h"

namespace {

bool switch_off() {
  const char* name = std::getenv("NEARCACHED_MUTATION");
  if (name == nullptr || nearcached::mutation::enable(name)) return true;
  std::fprintf(stderr, "no mutation %s in this build\n", name);
  std::_Exit(2);
}

[[maybe_unused]] const bool done = switch_off();

}  // namespace
