// COMMAND's reply → Commands.
//
// The reply comes from the upstream, a peer: every length in it is a lie until checked. A cursor
// reads it in place; a declared number of elements must fit into the bytes that are left (no
// element is shorter than three), so nothing is allocated on a peer's word, and nesting is bounded,
// so the recursion is. Maps are read as flat lists of twice as many elements, which makes the RESP2
// form of the same reply readable too. Fields that we do not know are skipped, wherever they stand:
// newer servers add some. Servers before 7.0 send no key specs, only first key, last key and step:
// these become one spec.
#include "command/command_reply.h"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "command/overlay.h"
#include "command/rows.h"

namespace nearcached {
namespace {

constexpr int kNestingMax = 16;
constexpr size_t kNameBytesMax = 128;
constexpr size_t kKeySpecsMax = 64;

/// Reads one reply from front to back. After the first malformed byte ok() is false for good and
/// every further read gives nothing.
class Cursor {
 public:
  explicit Cursor(Bytes in) : in_(in) {}

  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }

  void reject() { fail(); }

  /// The number of elements of the array, set or (twice its pairs) map that comes next.
  size_t elements() {
    const auto [type, line] = header();
    const bool map = type == '%';
    int64_t count = 0;
    if ((type != '*' && type != '~' && !map) || !number(line, count)) return fail();
    if (count == -1 && !map) return 0;
    const size_t room = in_.size() / 3;
    if (count < 0 || static_cast<uint64_t>(count) > room / (map ? 2 : 1)) return fail();
    return static_cast<size_t>(count) * (map ? 2 : 1);
  }

  /// The simple or bulk string that comes next.
  Bytes text() {
    const auto [type, line] = header();
    if (type == '+') return line;
    int64_t size = 0;
    if ((type != '$' && type != '=') || !number(line, size)) return fail(), Bytes();
    return payload(size);
  }

  /// The integer that comes next; its negative fits too.
  int32_t integer() {
    const auto [type, line] = header();
    int64_t value = 0;
    if (type != ':' || !number(line, value) || value < -INT32_MAX || value > INT32_MAX) fail();
    return ok_ ? static_cast<int32_t>(value) : 0;
  }

  /// Whatever comes next.
  void skip(int depth = 0) {
    if (in_.empty() || depth > kNestingMax) {
      fail();
      return;
    }
    switch (in_[0]) {
      case '*':
      case '~':
      case '%':
        for (size_t n = elements(); n > 0 && ok_; --n) skip(depth + 1);
        break;
      case '$':
      case '=': {
        int64_t size = 0;
        if (!number(header().line, size)) fail();
        else if (size != -1) payload(size);
        break;
      }
      case '+':
      case ':':
      case '_':
      case '#':
      case ',':
      case '(': header(); break;
      default: fail();
    }
  }

 private:
  struct Header {
    char type = 0;
    Bytes line;
  };

  size_t fail() {
    ok_ = false;
    in_ = {};
    return 0;
  }

  Header header() {
    const size_t end = in_.find("\r\n");
    if (end == Bytes::npos || end == 0) return fail(), Header();
    const Header header{in_[0], in_.substr(1, end - 1)};
    in_.remove_prefix(end + 2);
    return header;
  }

  static bool number(Bytes text, int64_t& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size();
  }

  Bytes payload(int64_t size) {
    if (size < 0 || in_.size() < 2 || static_cast<uint64_t>(size) > in_.size() - 2 ||
        in_.substr(static_cast<size_t>(size), 2) != "\r\n")
      return fail(), Bytes();
    const Bytes bytes = in_.substr(0, static_cast<size_t>(size));
    in_.remove_prefix(static_cast<size_t>(size) + 2);
    return bytes;
  }

  Bytes in_;
  bool ok_ = true;
};

std::string in_case(Bytes text, char first, char last, int shift) {
  std::string out(text);
  for (char& c : out)
    if (c >= first && c <= last) c = static_cast<char>(c + shift);
  return out;
}

/// Calls field(name) for each pair of the map that comes next; it reads the value.
template <typename Field>
void read_map(Cursor& in, Field field) {
  for (size_t n = in.elements() / 2; n > 0 && in.ok(); --n) field(in.text());
}

uint16_t read_flags(Cursor& in) {
  static constexpr struct {
    Bytes name;
    CommandFlag flag;
  } kFlags[] = {{"write", kWrite},       {"readonly", kReadonly},       {"admin", kAdmin},
                {"noscript", kNoscript}, {"movablekeys", kMovableKeys}, {"no_auth", kNoAuth},
                {"blocking", kBlocking}};
  uint16_t flags = 0;
  for (size_t n = in.elements(); n > 0 && in.ok(); --n) {
    const Bytes name = in.text();
    for (const auto& known : kFlags)
      if (name == known.name) flags = static_cast<uint16_t>(flags | known.flag);
  }
  return flags;
}

void read_begin(Cursor& in, Command::KeySpec& spec) {
  read_map(in, [&](Bytes part) {
    if (part == "type") {
      const Bytes type = in.text();
      spec.begin = type == "index"     ? Command::KeySpec::Begin::index
                   : type == "keyword" ? Command::KeySpec::Begin::keyword
                                       : Command::KeySpec::Begin::unknown;
    } else if (part == "spec") {
      read_map(in, [&](Bytes name) {
        if (name == "index" || name == "startfrom") spec.index = in.integer();
        else if (name == "keyword") spec.keyword = in_case(in.text(), 'a', 'z', 'A' - 'a');
        else in.skip();
      });
    } else {
      in.skip();
    }
  });
}

void read_find(Cursor& in, Command::KeySpec& spec) {
  read_map(in, [&](Bytes part) {
    if (part == "type") {
      const Bytes type = in.text();
      spec.find = type == "range"    ? Command::KeySpec::Find::range
                  : type == "keynum" ? Command::KeySpec::Find::keynum
                                     : Command::KeySpec::Find::unknown;
    } else if (part == "spec") {
      read_map(in, [&](Bytes name) {
        if (name == "lastkey") spec.last = in.integer();
        else if (name == "limit") spec.limit = in.integer();
        else if (name == "keynumidx") spec.keynum_index = in.integer();
        else if (name == "firstkey") spec.first_key = in.integer();
        else if (name == "keystep") spec.step = spec.keynum_step = in.integer();
        else in.skip();
      });
    } else {
      in.skip();
    }
  });
}

Command::KeySpec read_spec(Cursor& in) {
  Command::KeySpec spec;
  spec.write = true;
  read_map(in, [&](Bytes field) {
    if (field == "flags") {
      for (size_t n = in.elements(); n > 0 && in.ok(); --n) {
        const Bytes flag = in.text();
        if (flag == "RO") spec.write = false;
        if (flag == "not_key") spec.not_key = true;
        if (flag == "incomplete") spec.incomplete = true;
      }
    } else if (field == "begin_search") {
      read_begin(in, spec);
    } else if (field == "find_keys") {
      read_find(in, spec);
    } else {
      in.skip();
    }
  });
  if (spec.not_key) spec.write = false;
  return spec;
}

/// First key, last key (absolute, or negative from the end) and step, as one spec.
Command::KeySpec read_positions(Cursor& in) {
  Command::KeySpec spec;
  spec.begin = Command::KeySpec::Begin::index;
  spec.find = Command::KeySpec::Find::range;
  spec.write = true;
  spec.index = std::max(0, in.integer());
  const int32_t last = in.integer();
  spec.last = last < 0 ? last : std::max(0, last - spec.index);
  spec.step = in.integer();
  return spec;
}

/// `movablekeys` without a spec that moves: the module finds its keys by code that we do not have.
void mark_unnamed_keys(Command& command) {
  if (!command.movable_keys) return;
  for (const Command::KeySpec& spec : command.key_specs)
    if (spec.begin != Command::KeySpec::Begin::index ||
        spec.find != Command::KeySpec::Find::range || spec.incomplete)
      return;
  Command::KeySpec unnamed;
  unnamed.write = true;
  command.key_specs.push_back(unnamed);
}

/// A module's key specs say RW unless it says otherwise, even for a command flagged `readonly`.
void trust_readonly(Command& command) {
  for (Command::KeySpec& spec : command.key_specs) spec.write = spec.write && !command.readonly;
}

void read_specs(Cursor& in, Command& command) {
  const size_t count = in.elements();
  if (count > kKeySpecsMax) return in.reject();
  for (size_t n = count; n > 0 && in.ok(); --n) command.key_specs.push_back(read_spec(in));
}

/// One element of the reply: the command and, behind it, its subcommands.
void read_command(Cursor& in, bool is_subcommand, std::vector<Command>& out) {
  const size_t fields = in.elements();
  if (fields < 6) return in.reject();
  Command command;
  command.name = in_case(in.text(), 'A', 'Z', 'a' - 'A');
  command.arity = in.integer();
  uint16_t flags = read_flags(in);
  const Command::KeySpec positions = read_positions(in);
  std::vector<Command> subcommands;
  for (size_t field = 6; field < fields && in.ok(); ++field) {
    if (field == 8) read_specs(in, command);
    else if (field == 9 && !is_subcommand)
      for (size_t n = in.elements(); n > 0 && in.ok(); --n) read_command(in, true, subcommands);
    else in.skip();
  }
  if (command.name.empty() || command.name.size() > kNameBytesMax) return in.reject();
  if (fields <= 8 && positions.index > 0) command.key_specs.push_back(positions);
  if (!subcommands.empty()) flags |= kContainer;
  apply_flags(command, flags);
  mark_unnamed_keys(command);
  trust_readonly(command);
  derive_effect(command);
  apply_overlay(command);
  out.push_back(std::move(command));
  std::move(subcommands.begin(), subcommands.end(), std::back_inserter(out));
}

}  // namespace

Result<std::vector<Command>> parse_command_reply(Bytes reply) {
  Cursor in(reply);
  std::vector<Command> out;
  for (size_t n = in.elements(); n > 0 && in.ok(); --n) read_command(in, false, out);
  if (!in.ok() || !in.at_end()) return Error{"the upstream's reply to COMMAND is malformed"};
  return out;
}

}  // namespace nearcached
