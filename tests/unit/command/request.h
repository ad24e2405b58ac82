// A request written as a line: words between blanks, "" for an empty one.
#pragma once
#include <sstream>
#include <string>
#include <vector>

#include "nearcached/command/table.h"

namespace nearcached {

class RequestLine {
 public:
  explicit RequestLine(const std::string& line) {
    std::istringstream in(line);
    for (std::string word; in >> word;) words_.push_back(word == "\"\"" ? "" : word);
    args_.assign(words_.begin(), words_.end());
  }
  RequestLine(const RequestLine&) = delete;

  std::span<const Bytes> args() const { return args_; }
  /// The built-in command that the line names; the test fails if there is none.
  const Command& command() const {
    const Command* command = CommandTable::builtin()->find(args_);
    if (command == nullptr) throw std::runtime_error("not in the table: " + words_[0]);
    return *command;
  }

 private:
  std::vector<std::string> words_;
  std::vector<Bytes> args_;
};

}  // namespace nearcached
