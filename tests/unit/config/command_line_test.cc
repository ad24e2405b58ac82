#include <catch2/catch.hpp>

#include <unistd.h>

#include <cstdio>

#include "nearcached/config/config.h"

using namespace nearcached;

namespace {

Result<CommandLine> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "nearcached");
  arguments.push_back(nullptr);
  return parse_command_line(static_cast<int>(arguments.size()) - 1, arguments.data());
}

CommandLine parsed(const std::vector<const char*>& arguments) {
  Result<CommandLine> command_line = parse(arguments);
  INFO((command_line.ok() ? "" : command_line.error().detail));
  REQUIRE(command_line.ok());
  return command_line.value();
}

std::string error_of(const std::vector<const char*>& arguments) {
  const Result<CommandLine> command_line = parse(arguments);
  return command_line.ok() ? "accepted" : command_line.error().detail;
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text) {
    const int fd = mkstemp(path_);
    REQUIRE(fd >= 0);
    REQUIRE(write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    close(fd);
  }
  ~TemporaryFile() { std::remove(path_); }
  const char* path() const { return path_; }

 private:
  char path_[32] = "/tmp/nearcached-test-XXXXXX";
};

}  // namespace

TEST_CASE("without arguments the default runs", "[config]") {
  const CommandLine c = parsed({});
  CHECK(c.action == CommandLine::Action::run);
  CHECK(c.config == Config{});
}

TEST_CASE("every option sets its key", "[config]") {
  const Config c = parsed({"--listen", "[::1]:1", "--listen=unix:/a,b", "--upstream",
                           "redis://:p@h", "--threads", "2", "--l1-memory", "2mb", "--coherence",
                           "off", "--max-staleness", "1s", "--set", "log.level=debug"})
                       .config;
  CHECK(c.server.listen == std::vector<Address>{{"::1", 1, {}}, {{}, 0, "/a,b"}});
  CHECK(c.upstream.url == "redis://:p@h");
  CHECK(c.upstream.parsed.address == Address{"h", 6379, {}});
  CHECK(c.upstream.parsed.password == "p");
  CHECK(c.server.threads == 2);
  CHECK(c.l1.memory_bytes == 2u << 20);
  CHECK(c.coherence.mode == CoherenceMode::off);
  CHECK(c.coherence.max_staleness_ms == 1'000);
  CHECK(c.log.level == LogLevel::debug);
}

TEST_CASE("--set wins over options, and options over the file", "[config]") {
  const TemporaryFile file("[l1]\nttl = 1\nmemory = \"1MiB\"\n[server]\nthreads = 3\n");
  const Config c = parsed({"--set", "server.threads=auto", "--threads", "5", "--l1-memory", "2MiB",
                           "-c", file.path()})
                       .config;
  CHECK(c.l1.ttl_ms == 1);
  CHECK(c.l1.memory_bytes == 2u << 20);
  CHECK(c.server.threads == 0);
}

TEST_CASE("--set takes lists separated by commas, and the empty list", "[config]") {
  const Config c = parsed({"--set", "security.refuse=", "--set", "security.allow=debug,config|set",
                           "--set", "log.file="})
                       .config;
  CHECK(c.security.refuse.empty());
  CHECK(c.security.allow == std::vector<std::string>{"debug", "config|set"});
  CHECK(c.log.file.empty());
}

TEST_CASE("keys are checked against each other when all of them are known", "[config]") {
  const TemporaryFile file("[coherence]\nheartbeat = \"400ms\"\n");
  CHECK(parsed({"-c", file.path(), "--max-staleness", "800ms"}).config.coherence.heartbeat_ms ==
        400);
  CHECK(error_of({"-c", file.path(), "--max-staleness", "700ms"}) ==
        std::string(file.path()) +
            ":2: coherence.heartbeat = \"400ms\": at most half of coherence.max_staleness "
            "(\"700ms\")");
  CHECK(parsed({"--max-staleness", "50ms"}).config.coherence.heartbeat_ms == 10);
}

TEST_CASE("--check and --print-config are answered by what they ask for", "[config]") {
  CHECK(parsed({"--check"}).action == CommandLine::Action::check);
  CHECK(parsed({"--print-config"}).action == CommandLine::Action::print_config);
  CHECK(error_of({"--check", "--threads", "0"}) ==
        "--threads = \"0\": \"auto\" or an integer (1 to 64)");
  CHECK(error_of({"--check", "--print-config"}) ==
        "--check, --print-config: accepted one at a time");
}

TEST_CASE("a wrong option is one line that helps", "[config]") {
  CHECK(error_of({"--thread", "4"}) == "--thread: unknown option; did you mean --threads?");
  CHECK(error_of({"-x"}) == "-x: unknown option; see nearcached --help");
  CHECK(error_of({"x"}) == "\"x\": not an option; see nearcached --help");
  CHECK(error_of({"--threads"}) == "--threads: 1 required N|auto missing");
  CHECK(error_of({"--threads", "1", "--threads", "2"}) == "--threads: given twice, accepted once");
  CHECK(error_of({"--upstream", "a:1", "--upstream", "b:1"}) ==
        "--upstream: given twice, accepted once");
  CHECK(
      error_of({"--listen", ":6380"}) ==
      "--listen = \":6380\": the host is missing; a list of addresses: 127.0.0.1:6380, [::1]:6380 "
      "or unix:/path");
  CHECK(error_of({"--set", "l1.memory"}) == "--set l1.memory: written --set section.key=value");
  CHECK(error_of({"--set", "l1.memory=64XB"}) ==
        "--set l1.memory = \"64XB\": a size such as 64MiB or 1048576 (1MiB to 1TiB)");
  CHECK(error_of({"--set", "l1.memry=1"}) ==
        "--set l1.memry: unknown key; did you mean l1.memory?");
  CHECK(error_of({"--set", "rule.keys=*"}) ==
        "--set rule.keys: set in the file only, in [[rule]] blocks");
}

TEST_CASE("a file that cannot be read is named", "[config]") {
  CHECK(error_of({"-c", "/nonexistent/n.toml"}) ==
        "-c /nonexistent/n.toml: No such file or directory");
  CHECK(error_of({"-c", "/tmp"}) == "-c /tmp: Is a directory");
  const TemporaryFile big(std::string((1 << 20) + 1, '\n'));
  CHECK(error_of({"-c", big.path()}) ==
        "-c " + std::string(big.path()) + ": a configuration has at most 1MiB");
}

TEST_CASE("no error and no printed configuration shows a password", "[config]") {
  const TemporaryFile file("[upstream]\nurl = \"redis://u:hunter2@h:1x\"\n");
  const TemporaryFile unquoted("[upstream]\nurl = redis://u:hunter2@h\n");
  const TemporaryFile unclosed("[upstream]\nurl = \"redis://u:hunter2@h\n");
  const TemporaryFile doubled("[upstream]\nurl = \"h:1\"\nurl = \"redis://u:hunter2@h\"\n");
  const TemporaryFile list("[upstream]\nurl = [\"redis://u:hunter2@h\"]\n");
  const TemporaryFile elsewhere("[upstream]\nurls = \"redis://u:hunter2@h\"\n");
  const TemporaryFile sentinel("[upstream]\nsentinel_password = [\"hunter2\"]\n");
  const TemporaryFile unquoted_sentinel("[upstream]\nsentinel_password = hunter2\n");
  const TemporaryFile nul("[upstream]\nsentinel_password = \"hunter2\\u0000\"\n");
  for (const TemporaryFile* wrong : {&file, &unquoted, &unclosed, &doubled, &list, &elsewhere,
                                     &sentinel, &unquoted_sentinel, &nul}) {
    const std::string error = error_of({"-c", wrong->path()});
    INFO(error);
    CHECK(error.starts_with(wrong->path()));
    CHECK(error.find("hunter2") == std::string::npos);
  }
  for (const std::vector<const char*>& arguments :
       std::vector<std::vector<const char*>>{{"--upstream", "redis://u:hunter2@h:x"},
                                             {"--upstream", "rediss://u:hunter2@h"},
                                             {"--upstream", "redis://u:hunter2"},
                                             {"--upstreem=redis://u:hunter2@h"},
                                             {"redis://u:hunter2@h"},
                                             {"--check=redis://u:hunter2@h"},
                                             {"--set", "upstream.url=redis://u:hunter2@h:x"},
                                             {"--set", "upstream.url", "redis://u:hunter2@h"},
                                             {"--set", "upstream.sentinel_pass=hunter2"},
                                             {"--set", "redis://u:hunter2@h"}}) {
    const std::string error = error_of(arguments);
    INFO(error);
    CHECK(error != "accepted");
    CHECK(error.find("hunter2") == std::string::npos);
  }
  const std::string printed = print_config(parsed({"--upstream", "redis://u:hunter2@h"}).config);
  CHECK(printed.find("hunter2") == std::string::npos);
  CHECK(printed.find("url = \"redis://u:***@h\"") != std::string::npos);
}
