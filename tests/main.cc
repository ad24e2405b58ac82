// Every Catch2 program's entry, compiled once for all of them: Catch2's own code takes longest.
#define CATCH_CONFIG_RUNNER
#include <signal.h>
#include <sys/resource.h>

#include <catch2/catch.hpp>

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // hiredis writes to sockets that a test has had closed
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  return Catch::Session().run(argc, argv);
}
