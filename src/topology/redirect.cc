// Redirections are recognised by their first word, as Redis's own clients do. A script can return
// an error that looks like one; it is then followed like one, which the limit on redirections
// bounds. What is not exactly of the form that Redis writes is no redirection: the client gets to
// see it as it is, instead of us connecting to where it seems to point.
#include <algorithm>
#include <charconv>
#include <optional>

#include "nearcached/topology/topology.h"

namespace nearcached {
namespace {

constexpr size_t kHostBytesMax = 255;  // of a DNS name; Redis announces no longer ones

struct Word {
  Bytes word;
  Redirect::Kind kind;
};
constexpr Word kWords[] = {
    {"MOVED", Redirect::Kind::moved},        {"ASK", Redirect::Kind::ask},
    {"TRYAGAIN", Redirect::Kind::try_again}, {"CLUSTERDOWN", Redirect::Kind::down},
    {"LOADING", Redirect::Kind::loading},    {"MASTERDOWN", Redirect::Kind::loading},
    {"READONLY", Redirect::Kind::readonly},
};

// Digits only: from_chars alone would stop at the first other byte.
std::optional<unsigned> parse_number(Bytes text, unsigned max) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number > max) return std::nullopt;
  return number;
}

// "3999 127.0.0.1:6381". An IPv6 address stands there without brackets: the last colon is the
// port's.
bool parse_target(Bytes text, Redirect& redirect) {
  const size_t space = text.find(' ');
  const size_t colon = text.rfind(':');
  if (space == Bytes::npos || colon == Bytes::npos || colon < space) return false;
  const Bytes host = text.substr(space + 1, colon - space - 1);
  const auto slot = parse_number(text.substr(0, space), kSlots - 1);
  const auto port = parse_number(text.substr(colon + 1), UINT16_MAX);
  // Port 0: the node listens with TLS only.
  if (!slot || !port || *port == 0 || !is_announced_host(host)) return false;
  redirect.slot = static_cast<uint16_t>(*slot);
  redirect.address.port = static_cast<uint16_t>(*port);
  if (host != "?") redirect.address.host = host;
  return true;
}

}  // namespace

bool is_announced_host(Bytes host) {
  return host.size() <= kHostBytesMax &&
         std::all_of(host.begin(), host.end(), [](char c) { return c > ' ' && c < '\x7f'; });
}

Redirect parse_redirect(Bytes error_reply) {
  Redirect redirect;
  if (!error_reply.starts_with('-')) return redirect;
  error_reply.remove_prefix(1);
  if (error_reply.ends_with("\r\n")) error_reply.remove_suffix(2);
  const size_t space = std::min(error_reply.find(' '), error_reply.size());
  const Bytes first = error_reply.substr(0, space);
  const auto* const found = std::find_if(std::begin(kWords), std::end(kWords),
                                         [&](const Word& word) { return word.word == first; });
  if (found == std::end(kWords)) return redirect;
  const bool targeted = found->kind == Redirect::Kind::moved || found->kind == Redirect::Kind::ask;
  const Bytes rest = error_reply.substr(std::min(space + 1, error_reply.size()));
  if (targeted && !parse_target(rest, redirect)) return redirect;
  redirect.kind = found->kind;
  return redirect;
}

}  // namespace nearcached
