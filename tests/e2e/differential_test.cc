// The promise of a drop-in proxy, checked command by command: what a client gets through nearcached
// is, byte for byte, what Redis itself would have sent. Two servers with the same state, one asked
// directly; every request twice in a row, so that what comes from L1 is compared as well.
#include <algorithm>
#include <catch2/catch.hpp>
#include <optional>
#include <stdexcept>

#include "differential_table.h"
#include "harness/servers.h"

using namespace nearcached::e2e;

namespace {

constexpr std::chrono::seconds kReplyDeadline{5};

std::string line_of(const Args& args) {
  std::string out;
  for (const std::string& arg : args) out += (out.empty() ? "" : " ") + printable(arg);
  return out;
}

class Comparison {
 public:
  explicit Comparison(int protocol) : protocol_(protocol), keys_(plain_.client()) {
    std::vector<Paragraph> paragraphs = read_table("fixture.txt");
    fixture_requests_ = encode({"FLUSHALL"});
    fixture_replies_ = 1;
    for (const Paragraph& paragraph : paragraphs) {
      for (const Case& c : paragraph) {
        fixture_requests_ += encode(c.args);
        ++fixture_replies_;
      }
    }
  }

  void run(const Paragraph& paragraph) {
    try {
      start_over();
      for (const Case& c : paragraph) {
        compare(c);
        if (!c.once) compare(c);
      }
      for (const Case& c : paragraph) {
        for (const Case& form : other_forms(c)) {
          load_fixture();
          compare(form);
          compare(form);
        }
      }
    } catch (const std::runtime_error& error) {
      FAIL_CHECK("RESP" << protocol_ << ": " << line_of(last_) << ": " << error.what());
    }
  }

  uint64_t hits() const { return proxied_.proxy.count("l1_hits"); }

 private:
  void start_over() {
    direct_.emplace(plain_.port());
    through_.emplace(proxied_.proxy.port());
    for (RawClient* client : {&*direct_, &*through_}) {
      client->set_deadline(kReplyDeadline);
      if (protocol_ == 3) client->ask("HELLO 3");
    }
    load_fixture();
  }

  void load_fixture() {
    for (RawClient* client : {&*direct_, &*through_}) {
      client->send(fixture_requests_);
      for (int i = 0; i < fixture_replies_; ++i) {
        const std::string reply = client->read_reply();
        if (reply[0] == '-') throw std::runtime_error("the fixture failed: " + reply);
      }
    }
  }

  void compare(const Case& c) {
    last_ = c.args;
    const std::string request = encode(c.args);
    direct_->send(request);
    through_->send(request);
    for (int i = 0; i < c.replies; ++i) {
      const std::string expected = direct_->read_reply();
      const std::string actual = through_->read_reply();
      const bool equal = comparable(expected, c.compare) == comparable(actual, c.compare);
      if (!equal) {
        FAIL_CHECK("RESP" << protocol_ << ": " << line_of(c.args) << "\n  direct:  "
                          << printable(expected) << "\n  through: " << printable(actual));
      } else {
        CHECK(equal);
      }
    }
  }

  /// The case with a missing key, a key of a wrong type, one argument too many and one too few.
  std::vector<Case> other_forms(const Case& c) {
    if (c.plain || c.once) return {};
    Args request{"COMMAND", "GETKEYS"};
    request.insert(request.end(), c.args.begin(), c.args.end());
    const std::string keys = keys_(request);
    if (keys[0] != '[') return {};
    const std::string key = keys.substr(1, keys.find_first_of(" ]") - 1);
    std::vector<Case> forms;
    const auto at = std::find(c.args.begin() + 1, c.args.end(), key);
    if (at != c.args.end()) {
      const auto index = static_cast<size_t>(at - c.args.begin());
      Case missing = c;
      missing.args[index] = "missing";
      forms.push_back(missing);
      Case wrong_type = c;
      wrong_type.args[index] = key[0] == 'h' ? "s" : "h";
      forms.push_back(wrong_type);
    }
    Case longer = c;
    longer.args.push_back("extra");
    forms.push_back(longer);
    Case shorter = c;
    shorter.args.pop_back();
    forms.push_back(shorter);
    return forms;
  }

  int protocol_;
  RedisServer plain_;
  Stack proxied_;
  Client keys_;
  std::string fixture_requests_;
  int fixture_replies_ = 0;
  std::optional<RawClient> direct_;
  std::optional<RawClient> through_;
  Args last_;
};

/// Compares a table in both protocols; returns how many replies came from L1.
uint64_t compare_table(const std::string& name) {
  uint64_t hits = 0;
  for (const int protocol : {2, 3}) {
    Comparison comparison(protocol);
    for (const Paragraph& paragraph : read_table(name)) comparison.run(paragraph);
    hits += comparison.hits();
  }
  return hits;
}

/// "client|id" for CLIENT ID if the server lists that, else "client".
std::string command_name(const Args& args, const std::vector<std::string>& known) {
  std::string name = args[0];
  if (args.size() > 1) name += "|" + args[1];
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (std::find(known.begin(), known.end(), name) != known.end()) return name;
  return name.substr(0, name.find('|'));
}

}  // namespace

TEST_CASE("string commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("strings.txt") > 0);
}
TEST_CASE("hash commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("hashes.txt") > 0);
}
TEST_CASE("list commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("lists.txt") > 0);
}
TEST_CASE("set commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("sets.txt") > 0);
}
TEST_CASE("sorted-set commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("zsets.txt") > 0);
}
TEST_CASE("geo commands answer what Redis answers, byte for byte", "[differential]") {
  compare_table("geo.txt");
}
TEST_CASE("stream commands answer what Redis answers, byte for byte", "[differential]") {
  compare_table("streams.txt");
}
TEST_CASE("generic commands answer what Redis answers, byte for byte", "[differential]") {
  CHECK(compare_table("generic.txt") > 0);
}
TEST_CASE("scripts and functions answer what Redis answers, byte for byte", "[differential]") {
  compare_table("scripts.txt");
}
TEST_CASE("connection commands answer what Redis answers, byte for byte", "[differential]") {
  compare_table("connection.txt");
}
TEST_CASE("server commands answer what Redis answers, byte for byte", "[differential]") {
  compare_table("server.txt");
}

TEST_CASE("each command without arguments answers what Redis answers", "[differential]") {
  const std::map<std::string, std::string> not_compared = read_not_compared();
  RedisServer plain;
  Stack stack;
  Args names = words(plain.client()("COMMAND LIST"));
  for (std::string& name : names) std::erase_if(name, [](char c) { return c == '[' || c == ']'; });
  for (const std::string& name : names) {
    // These succeed without arguments, and the tables have them.
    Args request{name};
    if (const size_t bar = name.find('|'); bar != std::string::npos) {
      request = {name.substr(0, bar), name.substr(bar + 1)};
    }
    if (not_compared.contains(name)) continue;
    INFO(name);
    const std::string expected = RawClient(plain.port()).ask(request);
    if (expected.find("wrong number of arguments") == std::string::npos) continue;
    CHECK(RawClient(stack.proxy.port()).ask(request) == expected);
  }
}

TEST_CASE("every command of the server is compared, or named with the reason why not",
          "[differential]") {
  RedisServer server;
  Args known = words(server.client()("COMMAND LIST"));
  for (std::string& name : known) std::erase_if(name, [](char c) { return c == '[' || c == ']'; });
  REQUIRE(known.size() > 240);
  std::set<std::string> covered;
  for (const std::string& table : table_names()) {
    for (const Paragraph& paragraph : read_table(table)) {
      for (const Case& c : paragraph) {
        const std::string name = command_name(c.args, known);
        covered.insert(name);
        covered.insert(name.substr(0, name.find('|')));
      }
    }
  }
  for (const auto& [name, reason] : read_not_compared()) {
    INFO(name << " is excepted though a table has it, or the server does not know it");
    CHECK(covered.insert(name).second);
    CHECK(std::find(known.begin(), known.end(), name) != known.end());
  }
  for (const std::string& name : known) {
    INFO(name << " is in no table and not in not_compared.txt");
    CHECK(covered.contains(name));
  }
}
