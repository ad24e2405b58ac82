#include <fcntl.h>

#include <cstdio>
#include <cstdlib>

#include "nearcached/base/log.h"
#include "nearcached/coherence/mutations.h"
#include "nearcached/config/config.h"
#include "server/server.h"

#ifdef NEARCACHED_JEMALLOC
// Freed pages go back to the kernel within half a second: with the default of ten, RSS under a 64
// MiB budget peaked at 108 MiB when value sizes swung 27-fold; with this at 80 MiB.
extern "C" {
extern const char* malloc_conf;
const char* malloc_conf = "dirty_decay_ms:500,muzzy_decay_ms:0,background_thread:false";
}
#endif

// A closed standard stream would lend its number to a socket, which libuv refuses to close and any
// stray message would be written to.
static void open_standard_streams() {
  for (int fd = 0; fd < 3; ++fd)
    if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDWR) != fd) std::abort();
}

int main(int argc, char** argv) {
  using namespace nearcached;
  open_standard_streams();
  auto parsed = parse_command_line(argc, argv);
  if (!parsed) {
    std::fprintf(stderr, "nearcached: %s\n", parsed.error().detail.c_str());
    return 1;
  }
  const CommandLine& command_line = parsed.value();
  switch (command_line.action) {
    case CommandLine::Action::exit: return command_line.exit_code;
    case CommandLine::Action::check: std::puts("configuration is valid"); return 0;
    case CommandLine::Action::print_config:
      std::fputs(print_config(command_line.config).c_str(), stdout);
      return 0;
    case CommandLine::Action::run: break;
  }
  if (const auto logging = log::init(command_line.config.log.level, command_line.config.log.file);
      !logging) {
    std::fprintf(stderr, "nearcached: %s\n", logging.error().detail.c_str());
    return 1;
  }
  if (const char* name = std::getenv("NEARCACHED_MUTATION");
      name != nullptr && mutation::enable(name))
    log::warn("TEST BUILD: coherence is broken on purpose: {}", name);
  Server server(command_line.config);
  if (const Result<void> served = server.run(); !served) {
    std::fprintf(stderr, "nearcached: %s\n", served.error().detail.c_str());
    std::exit(1);  // nothing has been started; the loops hold nothing worth closing
  }
  return 0;
}
