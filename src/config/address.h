// Addresses and upstream URLs as text, and how a URL is shown without its password.
#pragma once
#include <string>
#include <string_view>

#include "nearcached/base/result.h"
#include "nearcached/config/config.h"

namespace nearcached::config {

inline constexpr std::string_view kAddressForms = "127.0.0.1:6380, [::1]:6380 or unix:/path";
inline constexpr std::string_view kUrlForms =
    "redis://[user:password@]host[:port][/database], "
    "redis+cluster://[user:password@]host[:port],…, "
    "redis+sentinel://[user:password@]host[:port],…/service[/database], "
    "host:port or unix:/path[?db=N]";

/// An address to listen on: an IP address with its port, or a Unix socket.
/// The error says what is wrong, without repeating the text.
Result<Address> parse_address(std::string_view text);

/// An upstream. Its host may be a name. The error never holds a part of the text.
Result<UpstreamUrl> parse_url(std::string_view text);

/// `url`, valid or not, with everything that is or may be a password replaced by "***".
std::string redact(std::string_view url);

}  // namespace nearcached::config
