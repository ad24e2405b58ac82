// fault-forwarder: the Forwarder as a program, for tools that are not C++.
//
//   fault-forwarder SERVER_PORT
//
// The first line it prints is its own port on 127.0.0.1. Then each line of standard input is
// carried out and answered by a line "ok":
//   weather [hold_requests] [hold_replies] [delay=MS] [jitter=MS] [bytewise] [only=TEXT]
//           [except=TEXT]
//           in place of the weather that was; without anything: all is well again
//   reset   [only=TEXT] [except=TEXT]   RST to both sides of every connection
// The weather is that of Forwarder::Weather. It ends at the end of its input, so it never outlives
// whoever started it.
#include <charconv>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include "harness/forwarder.h"

using nearcached::e2e::Forwarder;

namespace {

/// What tells connections apart is in their first requests.
constexpr size_t kRememberedMax = 16 * 1024;

template <typename Number>
Number number_of(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size())
    throw std::runtime_error("no number: " + std::string(text));
  return number;
}

Forwarder::Weather weather_of(std::istream& words) {
  Forwarder::Weather weather;
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (name == "hold_requests")
      weather.hold[static_cast<size_t>(Forwarder::Way::to_server)] = true;
    else if (name == "hold_replies")
      weather.hold[static_cast<size_t>(Forwarder::Way::to_client)] = true;
    else if (name == "delay") weather.delay = std::chrono::milliseconds(number_of<int>(value));
    else if (name == "jitter") weather.jitter = std::chrono::milliseconds(number_of<int>(value));
    else if (name == "bytewise") weather.bytewise = true;
    else if (name == "only") weather.only = value;
    else if (name == "except") weather.except = value;
    else throw std::runtime_error("no such weather: " + word);
  }
  return weather;
}

void serve(Forwarder& forwarder) {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    const Forwarder::Weather weather = weather_of(words);
    if (command == "weather") forwarder.set_weather(weather);
    else if (command == "reset") forwarder.reset_all(weather);
    else throw std::runtime_error("no such command: " + command);
    std::cout << "ok" << std::endl;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 2) throw std::runtime_error("usage: fault-forwarder SERVER_PORT");
    Forwarder forwarder(number_of<uint16_t>(argv[1]), kRememberedMax);
    std::cout << forwarder.port() << std::endl;
    serve(forwarder);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "fault-forwarder: " << error.what() << "\n";
    return 1;
  }
}
