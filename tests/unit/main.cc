// The unit tests' entry. In a build with the mutation switches, NEARCACHED_MUTATION turns one on,
// as in the program: tools/mutation-test shows by that which test would notice.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>

#include "nearcached/coherence/mutations.h"

int main(int argc, char** argv) {
  const char* name = std::getenv("NEARCACHED_MUTATION");
  if (name != nullptr && !nearcached::mutation::enable(name)) {
    std::fprintf(stderr, "no mutation %s in this build\n", name);
    return 2;
  }
  return Catch::Session().run(argc, argv);
}
