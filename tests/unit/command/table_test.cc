#include <catch2/catch.hpp>
#include <set>

#include "request.h"

using namespace nearcached;

namespace {

std::string found(const std::string& line) {
  const RequestLine request(line);
  const Command* command = CommandTable::builtin()->find(request.args());
  return command == nullptr ? "none" : command->name;
}

Route route(const std::string& line) { return RequestLine(line).command().route; }

}  // namespace

TEST_CASE("every command is found by its name in any case", "[command]") {
  const auto table = CommandTable::builtin();
  for (const Command& command : table->commands()) {
    INFO(command.name);
    CHECK(table->find_name(command.name) == &command);
    std::string upper = command.name, mixed = command.name;
    for (char& c : upper) c = static_cast<char>(toupper(c));
    mixed[0] = upper[0];
    const size_t bar = command.name.find('|');
    for (const std::string& name : {command.name, upper, mixed}) {
      std::vector<Bytes> args = {Bytes(name).substr(0, bar)};
      if (bar != std::string::npos) args.push_back(Bytes(name).substr(bar + 1));
      CHECK(table->find(args) == &command);
    }
  }
}

TEST_CASE("ids are dense and names unique", "[command]") {
  const auto commands = CommandTable::builtin()->commands();
  std::set<std::string> names;
  for (size_t i = 0; i < commands.size(); ++i) {
    CHECK(commands[i].id == i);
    CHECK(names.insert(commands[i].name).second);
  }
  CHECK(commands.size() > 350);
}

TEST_CASE("a container's first argument selects the subcommand, if there is such a one",
          "[command]") {
  CHECK(found("CLIENT ID") == "client|id");
  CHECK(found("cLiEnT nO-eViCt on") == "client|no-evict");
  CHECK(found("CLIENT") == "client");
  CHECK(found("CLIENT UNHEARDOF") == "client");
  CHECK(found("CLIENT \"\"") == "client");
  CHECK(found("GET ID") == "get");
  CHECK(found("XGROUP CREATECONSUMER k g c") == "xgroup|createconsumer");
}

TEST_CASE("what Redis does not know is not found", "[command]") {
  for (const char* line : {"NOSUCH", "G", "GE", "GETT", "\"\"", "client|id", "CLIENT|ID x",
                           "G\x05T", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ"})
    CHECK(found(line) == "none");
  CHECK(CommandTable::builtin()->find({}) == nullptr);
  CHECK(CommandTable::builtin()->find_name("client|") == nullptr);
  CHECK(CommandTable::builtin()->find_name("|") == nullptr);
}

TEST_CASE("the arity is the server's", "[command]") {
  CHECK(RequestLine("GET").command().arity == 2);
  CHECK(RequestLine("MSET").command().arity_ok(3));
  CHECK_FALSE(RequestLine("MSET").command().arity_ok(2));
  CHECK_FALSE(RequestLine("GET").command().arity_ok(3));
}

TEST_CASE("a command is routed by the connection state that it needs", "[command]") {
  CHECK(route("GET k") == Route::lane);
  CHECK(route("BLPOP l 0") == Route::blocking);
  CHECK(route("WAIT 1 0") == Route::blocking);
  CHECK(route("SSUBSCRIBE c") == Route::subscribe);
  CHECK(route("PUBLISH c m") == Route::lane);
  CHECK(route("MONITOR") == Route::monitor);
  CHECK(route("MULTI") == Route::multi);
  CHECK(route("WATCH k") == Route::watch);
  CHECK(route("SELECT 1") == Route::select);
  CHECK(route("INFO") == Route::info);
  CHECK(route("NEARCACHE STATS") == Route::nearcache);
  CHECK(route("ASKING") == Route::pinned_state);
  CHECK(route("SCRIPT DEBUG YES") == Route::pinned_state);
  CHECK(route("SCRIPT LOAD x") == Route::lane);
  CHECK(route("PSYNC a 1") == Route::replication);
}

TEST_CASE("CLIENT speaks about the connection except where it speaks about the server",
          "[command]") {
  for (const char* line :
       {"CLIENT ID", "CLIENT LIST", "CLIENT KILL x", "CLIENT UNHEARDOF", "CLIENT"})
    CHECK(route(line) == Route::client);
  for (const char* line : {"CLIENT PAUSE 1", "CLIENT UNPAUSE", "CLIENT HELP", "CLIENT SETINFO a b"})
    CHECK(route(line) == Route::lane);
}
