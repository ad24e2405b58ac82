// The tables are text, not C++: a case is one line, and adding one needs no compiler.
#include "differential_table.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "harness/reply_scanner.h"

namespace nearcached::e2e {
namespace {

std::string path_of(const std::string& name) { return std::string(E2E_TABLES) + "/" + name; }

std::ifstream open_table(const std::string& name) {
  std::ifstream in(path_of(name));
  if (!in) throw std::runtime_error("cannot read " + path_of(name));
  return in;
}

char unescape(const std::string& line, size_t& at) {
  const char c = line.at(++at);
  switch (c) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'x': at += 2; return static_cast<char>(std::stoi(line.substr(at - 1, 2), nullptr, 16));
    default: return c;
  }
}

Args split(const std::string& line) {
  Args out;
  size_t at = 0;
  while (at < line.size()) {
    if (line[at] == ' ') {
      ++at;
      continue;
    }
    std::string word;
    if (line[at] == '"') {
      while (line.at(++at) != '"') word += line[at] == '\\' ? unescape(line, at) : line[at];
      ++at;
    } else {
      while (at < line.size() && line[at] != ' ') word += line[at++];
    }
    out.push_back(word);
  }
  return out;
}

Case parse_case(const std::string& line) {
  Case c;
  c.args = split(line);
  while (!c.args.empty() && !c.args[0].empty() && c.args[0][0] == '@') {
    const std::string directive = c.args[0];
    c.args.erase(c.args.begin());
    if (directive == "@once") {
      c.once = true;
    } else if (directive == "@plain") {
      c.plain = true;
    } else if (directive == "@unordered") {
      c.compare = Case::Compare::unordered;
    } else if (directive == "@digits") {
      c.compare = Case::Compare::digits;
    } else if (directive == "@type") {
      c.compare = Case::Compare::type;
    } else if (directive == "@replies") {
      c.replies = std::stoi(c.args.at(0));
      c.args.erase(c.args.begin());
    } else {
      throw std::runtime_error("unknown directive " + directive + " in: " + line);
    }
  }
  if (c.args.empty()) throw std::runtime_error("no request in: " + line);
  return c;
}

std::string without_digits(const std::string& reply) {
  std::string out;
  for (const char c : reply) {
    if (std::isdigit(static_cast<unsigned char>(c)) == 0) {
      out += c;
    } else if (out.empty() || out.back() != '#') {
      out += '#';
    }
  }
  return out;
}

/// An aggregate's header and its elements, sorted; sets inside are sorted too.
std::string sorted(const std::string& reply) {
  const size_t header = reply.find("\r\n") + 2;
  if (std::string("*~%>").find(reply[0]) == std::string::npos) return reply;
  const size_t per_element = reply[0] == '%' ? 2 : 1;
  std::vector<std::string> elements;
  size_t at = header;
  for (size_t n = 0; at < reply.size(); ++n) {
    const size_t length = ReplyScanner().length(std::string_view(reply).substr(at));
    const std::string element = sorted(reply.substr(at, length));
    if (n % per_element == 0) {
      elements.push_back(element);
    } else {
      elements.back() += element;
    }
    at += length;
  }
  std::sort(elements.begin(), elements.end());
  std::string out = reply.substr(0, header);
  for (const std::string& element : elements) out += element;
  return out;
}

}  // namespace

std::vector<Paragraph> read_table(const std::string& name) {
  std::ifstream in = open_table(name);
  std::vector<Paragraph> out;
  std::string line;
  bool open = false;
  while (std::getline(in, line)) {
    if (line.empty()) {
      open = false;
    } else if (line[0] != '#') {
      if (!open) out.emplace_back();
      open = true;
      out.back().push_back(parse_case(line));
    }
  }
  return out;
}

std::map<std::string, std::string> read_reasons(const std::string& name) {
  std::ifstream in = open_table(name);
  std::map<std::string, std::string> out;
  std::string line;
  while (std::getline(in, line)) {
    if (line.empty() || line[0] == '#') continue;
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) throw std::runtime_error("no reason in: " + line);
    out[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return out;
}

std::set<std::string> table_names() {
  std::set<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(E2E_TABLES)) {
    const std::string name = entry.path().filename();
    if (name.ends_with(".txt") && name != "fixture.txt" && name != "not_compared.txt" &&
        name != "cluster.txt") {
      out.insert(name);
    }
  }
  return out;
}

std::string comparable(const std::string& reply, Case::Compare rule) {
  switch (rule) {
    case Case::Compare::unordered: return sorted(reply);
    case Case::Compare::digits: return without_digits(reply);
    case Case::Compare::type: return reply.substr(0, 1);
    default: return reply;
  }
}

std::string printable(const std::string& bytes) {
  constexpr size_t kShown = 400;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char c : bytes.substr(0, kShown)) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '\r') {
      out += "\\r";
    } else if (c == '\n') {
      out += "\\n";
    } else if (u < 32 || u > 126) {
      out += std::string("\\x") + kHex[u >> 4] + kHex[u & 15];
    } else {
      out += c;
    }
  }
  return bytes.size() > kShown ? out + "… (" + std::to_string(bytes.size()) + " bytes)" : out;
}

}  // namespace nearcached::e2e
