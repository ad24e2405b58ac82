// The differential tables (differential/*.txt), read into requests. README.md there has the syntax.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "harness/raw_client.h"

namespace nearcached::e2e {

struct Case {
  enum class Compare { bytes, unordered, digits, type };
  Args args;
  Compare compare = Compare::bytes;
  bool once = false;
  bool plain = false;
  int replies = 1;
};

using Paragraph = std::vector<Case>;

/// Throws std::runtime_error for a line that it does not understand.
std::vector<Paragraph> read_table(const std::string& name);
/// not_compared.txt: command → reason; cluster.txt: glob → reason.
std::map<std::string, std::string> read_reasons(const std::string& name);
inline std::map<std::string, std::string> read_not_compared() {
  return read_reasons("not_compared.txt");
}
/// Every table of cases but fixture.txt, by name.
std::set<std::string> table_names();

/// What is compared of a reply, under that case's rule.
std::string comparable(const std::string& reply, Case::Compare rule);

/// The bytes with everything unprintable escaped, cut to some length.
std::string printable(const std::string& bytes);

}  // namespace nearcached::e2e
