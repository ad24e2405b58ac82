// A difference between the two sides is a failure of the test that is running, unless the table of
// expected differences has it (only a cluster's): an error that a single Redis does not give.
#include "differential_comparison.h"

#include <fnmatch.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <stdexcept>

#include "harness/cluster.h"

namespace nearcached::e2e {
namespace {

constexpr std::chrono::seconds kReplyDeadline{30};
constexpr const char* kTag = "{tag}";
const std::string kAnswers = "answers ";  // a row about replies

std::string line_of(const Args& args) {
  std::string out;
  for (const std::string& arg : args) out += (out.empty() ? "" : " ") + printable(arg);
  return out;
}

}  // namespace

Comparison::Comparison(int protocol, const Proxy& proxy, ExpectedDifferences* differences)
    : protocol_(protocol), proxy_(proxy), differences_(differences), keys_(plain_.client()) {
  fixture_requests_ = encode({"FLUSHALL"});
  fixture_replies_ = 1;
  for (const Paragraph& paragraph : read_table("fixture.txt")) {
    for (const Case& c : paragraph) {
      fixture_requests_ += encode(tag(c.args));
      ++fixture_replies_;
    }
  }
}

void Comparison::run(const Paragraph& paragraph) {
  try {
    start_over();
    for (const Case& c : paragraph) {
      if (compare_twice(c)) continue;
      start_over();  // where a transaction was, for one
      break;
    }
    for (const Case& c : paragraph) {
      for (const Case& form : other_forms(c)) {
        load_fixture();
        compare_twice(form);
      }
    }
  } catch (const std::runtime_error& error) {
    FAIL_CHECK("RESP" << protocol_ << ": " << line_of(last_) << ": " << error.what());
  }
}

void Comparison::start_over() {
  direct_.emplace(plain_.port());
  through_.emplace(proxy_.port());
  for (RawClient* client : {&*direct_, &*through_}) {
    client->set_deadline(kReplyDeadline);
    if (protocol_ == 3) client->ask("HELLO 3");
  }
  load_fixture();
}

void Comparison::load_fixture() {
  for (RawClient* client : {&*direct_, &*through_}) {
    client->send(fixture_requests_);
    for (int i = 0; i < fixture_replies_; ++i) {
      const std::string reply = client->read_reply();
      if (reply[0] == '-') throw std::runtime_error("the fixture failed: " + reply);
    }
  }
}

bool Comparison::compare(const Case& c) {
  last_ = tag(c.args);
  const std::string request = encode(last_);
  direct_->send(request);
  through_->send(request);
  for (int i = 0; i < c.replies; ++i) {
    const std::string expected = direct_->read_reply();
    const std::string actual = through_->read_reply();
    const bool equal = comparable(expected, c.compare) == comparable(actual, c.compare);
    if (!equal && is_expected(last_, expected, actual)) return false;
    if (!equal) {
      FAIL_CHECK("RESP" << protocol_ << ": " << line_of(last_) << "\n  direct:  "
                        << printable(expected) << "\n  through: " << printable(actual));
    } else {
      CHECK(equal);
    }
  }
  return true;
}

bool Comparison::is_expected(const Args& args, const std::string& direct,
                             const std::string& through) {
  if (differences_ == nullptr) return false;
  if (through.rfind("-CROSSSLOT ", 0) == 0 && !crosses_slots(args, direct)) return false;
  const std::string line = line_of(args), reply = printable(through);
  for (const auto& [row, reason] : differences_->reasons) {
    const bool answer = row.rfind(kAnswers, 0) == 0;
    const std::string glob = answer ? row.substr(kAnswers.size()) : row;
    if (fnmatch(glob.c_str(), (answer ? reply : line).c_str(), 0) != 0) continue;
    differences_->used.insert(row);
    return true;
  }
  return false;
}

bool Comparison::crosses_slots(const Args& args, const std::string& direct) {
  std::set<unsigned> slots;
  for (const std::string& key : keys_of(args)) slots.insert(RedisCluster::slot_of(key));
  return slots.size() > 1 || direct == "+QUEUED\r\n";
}

std::vector<Case> Comparison::other_forms(const Case& c) {
  if (c.plain || c.once) return {};
  const Args& keys = keys_of(c.args);
  if (keys.empty()) return {};
  const std::string& key = keys[0];
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

const Args& Comparison::keys_of(const Args& request) {
  const auto known = known_keys_.find(request);
  if (known != known_keys_.end()) return known->second;
  Args ask{"COMMAND", "GETKEYS"};
  ask.insert(ask.end(), request.begin(), request.end());
  const std::string reply = keys_(ask);
  return known_keys_[request] = reply[0] == '[' ? words(reply.substr(1, reply.size() - 2)) : Args{};
}

Args Comparison::tag(Args args) {
  if (differences_ == nullptr || !differences_->tagged) return args;
  const Args keys = keys_of(args);
  for (size_t i = 1; i < args.size(); ++i)
    if (std::find(keys.begin(), keys.end(), args[i]) != keys.end()) args[i] = kTag + args[i];
  return args;
}

}  // namespace nearcached::e2e
