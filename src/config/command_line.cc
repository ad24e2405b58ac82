// The command line, by CLI11: which options there are, and what --help teaches. An option for a key
// takes its meaning, default and errors from the table of keys; CLI11 only splits argv. Values are
// collected first and applied after the file was read: the command line wins over it, --set over
// all.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "config/address.h"
#include "config/loader.h"
#include "config/units.h"
#include "nearcached/config/config.h"

namespace nearcached {
namespace config {
namespace {

struct KeyOption {
  const char* flag;
  std::string_view section;
  std::string_view name;
  const char* value;
};

constexpr std::array kKeyOptions{
    KeyOption{"--listen", "server", "listen", "ADDR"},
    KeyOption{"--upstream", "upstream", "url", "URL"},
    KeyOption{"--threads", "server", "threads", "N|auto"},
    KeyOption{"--l1-memory", "l1", "memory", "SIZE"},
    KeyOption{"--coherence", "coherence", "mode", "MODE"},
    KeyOption{"--max-staleness", "coherence", "max_staleness", "DURATION"},
};

constexpr size_t kFileBytesMax = 1 << 20;

constexpr const char* kUsage = "Usage: nearcached [-c FILE] [OPTION]...";

constexpr const char* kIntro =
    "A coherent near cache in front of Redis. It speaks the Redis protocol: point clients at it\n"
    "instead of at Redis. Hot reads are answered from memory here, everything else by the Redis\n"
    "behind it, and what is kept is dropped the moment anybody writes it.\n";

constexpr const char* kFooter =
    "Examples:\n"
    "  nearcached                                      127.0.0.1:6380 in front of 127.0.0.1:6379\n"
    "  nearcached --upstream redis://:secret@10.0.0.5  a Redis elsewhere, with its password\n"
    "  nearcached --listen unix:/run/nearcached.sock --l1-memory 256MiB\n"
    "  nearcached -c nearcached.toml --check           is this file right? connects to nothing\n"
    "  nearcached --set l1.ttl=5s --set log.level=debug --print-config\n"
    "\n"
    "ADDR      127.0.0.1:6380, [::1]:6380 or unix:/path\n"
    "URL       redis://[user:password@]host[:port][/database], host:port or unix:/path[?db=N];\n"
    "          others can see a command line, so a password is better kept in the file\n"
    "SIZE      a number of bytes, with Redis's units (k, kb, m, mb, g, gb) or KiB, MiB, GiB\n"
    "DURATION  500ms, 5s, 1m, 1h; a bare number is milliseconds\n"
    "\n"
    "Every key of the file can be given as --set section.key=value; lists are separated by "
    "commas.\n"
    "--print-config shows them all; conf/nearcached.toml explains them.\n";

class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App*, std::string) const override {
    return std::string(kUsage) + "\n";
  }
};

// What argv said, before any of it means anything.
struct Arguments {
  std::vector<std::string> files;
  std::vector<std::string> settings;  ///< --set
  std::array<std::vector<std::string>, kKeyOptions.size()> values;
  bool check = false;
  bool print_config = false;
};

void define_values(CLI::App& app, const std::string& flags, std::vector<std::string>& values,
                   const std::string& value_name, const std::string& doc) {
  app.add_option(flags, values, doc)
      ->type_name(value_name)
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

// TOML's notation means nothing on a command line.
std::string without_quotes(std::string text) {
  std::erase_if(text, [](char c) { return c == '"' || c == '[' || c == ']'; });
  return text;
}

void define_options(CLI::App& app, Arguments& arguments) {
  Config defaults;
  app.description(kIntro);
  app.footer(kFooter);
  app.formatter(std::make_shared<HelpFormatter>());
  app.get_formatter()->column_width(30);
  app.allow_extras();
  app.set_help_flag("-h,--help", "show this and exit");
  app.set_version_flag("--version", "nearcached " NEARCACHED_VERSION, "show the version and exit");
  define_values(app, "-c,--config", arguments.files, "FILE", "TOML to read first (default: none)");
  for (size_t i = 0; i < kKeyOptions.size(); ++i) {
    const KeyOption& option = kKeyOptions[i];
    const ConfigKey& key = *find_config_key(option.section, option.name);
    std::string doc(key.doc);
    if (key.kind == Kind::mode) doc += ": " + accepted(key);
    if (key.kind == Kind::addresses) doc += "; may be repeated";
    doc += " (default: " + without_quotes(format(key, key.field(defaults))) + ")";
    define_values(app, option.flag, arguments.values[i], option.value, doc);
  }
  define_values(app, "--set", arguments.settings, "SECTION.KEY=VALUE",
                "any key of the file; may be repeated (default: none)");
  app.add_flag("--check", arguments.check, "check the configuration, connect to nothing, exit");
  app.add_flag("--print-config", arguments.print_config,
               "show the configuration in effect (passwords hidden) and exit");
}

Result<std::string> read_file(const std::string& path) {
  const auto failure = [&] { return Error{"-c " + path + ": " + std::strerror(errno)}; };
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "re"), std::fclose);
  if (file == nullptr) return failure();
  std::string text(kFileBytesMax + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) return failure();
  if (text.size() > kFileBytesMax)
    return Error{"-c " + path + ": a configuration has at most " + format_size(kFileBytesMax)};
  return text;
}

// A list is `a,b` or, as in the file, `["a", "b"]`.
Given from_command_line(const std::string& text) {
  Given given{Given::Type::command_line, text, {}, {}};
  std::string_view list = text;
  const bool bracketed = list.size() >= 2 && list.front() == '[' && list.back() == ']';
  if (bracketed) list = list.substr(1, list.size() - 2);
  while (!list.empty()) {
    const size_t end = std::min(list.find(','), list.size());
    std::string_view item = list.substr(0, end);
    list.remove_prefix(std::min(end + 1, list.size()));
    while (bracketed && !item.empty() && item.front() == ' ') item.remove_prefix(1);
    while (bracketed && !item.empty() && item.back() == ' ') item.remove_suffix(1);
    if (bracketed && item.size() >= 2 && item.front() == '"' && item.back() == '"')
      item = item.substr(1, item.size() - 2);
    given.items.emplace_back(item);
  }
  return given;
}

Result<void> apply_key_options(Loader& loader, const Arguments& arguments) {
  for (size_t i = 0; i < kKeyOptions.size(); ++i) {
    const KeyOption& option = kKeyOptions[i];
    const std::vector<std::string>& values = arguments.values[i];
    if (values.empty()) continue;
    const ConfigKey& key = *find_config_key(option.section, option.name);
    Given given = from_command_line(values[0]);
    if (key.kind == Kind::addresses) given.items = values;
    else if (values.size() > 1)
      return Error{std::string(option.flag) + ": given twice, accepted once"};
    if (const Result<void> set = loader.set(key, option.flag, given); !set) return set.error();
  }
  return {};
}

// For text that holds a URL only by mistake.
std::string redact_any(const std::string& text) {
  return text.find("://") == std::string::npos && text.find('@') == std::string::npos
             ? text
             : redact(text);
}

Result<void> apply_settings(Loader& loader, const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) {
    const size_t equals = setting.find('=');
    const std::string name = setting.substr(0, equals);
    const size_t dot = name.find('.');
    if (equals == std::string::npos || dot == std::string::npos)
      return Error{"--set " + redact_any(name) + ": written --set section.key=value"};
    const std::string section = name.substr(0, dot);
    const std::string subject = "--set " + name;
    if (section == kRuleSection || section == kSubscribeSection)
      return Error{subject + ": set in the file only, in [[" + section + "]] blocks"};
    const ConfigKey* key = find_config_key(section, name.substr(dot + 1));
    if (key == nullptr)
      return Error{subject + ": " + explain_unknown_key(section, name.substr(dot + 1))};
    const Given given = from_command_line(setting.substr(equals + 1));
    if (const Result<void> set = loader.set(*key, subject, given); !set) return set.error();
  }
  return {};
}

Error explain_extra(const CLI::App& app, const std::string& extra) {
  if (!extra.starts_with('-'))
    return Error{quote(redact_any(extra)) + ": not an option; see nearcached --help"};
  const std::string flag = extra.substr(0, extra.find('='));
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  const std::string nearest = nearest_word(flag, flags);
  return Error{redact_any(flag) + ": unknown option; " +
               (nearest.empty() ? "see nearcached --help" : "did you mean " + nearest + "?")};
}

Result<Config> build_config(const Arguments& arguments) {
  if (arguments.check && arguments.print_config)
    return Error{"--check, --print-config: accepted one at a time"};
  if (arguments.files.size() > 1) return Error{"-c: given twice, accepted once"};
  Loader loader;
  for (const std::string& file : arguments.files) {
    const Result<std::string> text = read_file(file);
    if (!text) return text.error();
    if (const Result<void> read = loader.read_toml(text.value(), file); !read) return read.error();
  }
  if (const Result<void> applied = apply_key_options(loader, arguments); !applied)
    return applied.error();
  if (const Result<void> applied = apply_settings(loader, arguments.settings); !applied)
    return applied.error();
  return loader.finish();
}

}  // namespace
}  // namespace config

Result<CommandLine> parse_command_line(int argc, const char* const* argv) {
  config::Arguments arguments;
  CommandLine command_line;
  CLI::App app("", "nearcached");
  config::define_options(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& answered) {  // --help, --version
    command_line.action = CommandLine::Action::exit;
    command_line.exit_code = app.exit(answered);
    return command_line;
  } catch (const CLI::ParseError& error) {
    return Error{config::redact_any(error.what())};
  }
  if (const std::vector<std::string> extras = app.remaining(); !extras.empty())
    return config::explain_extra(app, extras[0]);
  Result<Config> config = config::build_config(arguments);
  if (!config) return config.error();
  command_line.config = std::move(config.value());
  if (arguments.check) command_line.action = CommandLine::Action::check;
  if (arguments.print_config) command_line.action = CommandLine::Action::print_config;
  return command_line;
}

}  // namespace nearcached
