#include "network/network.h"

#include <span>
#include <utility>

#include "base/option_list.h"
#include "network/nat.h"

namespace doppel {

Result<NetworkOptions> parse_network_options(std::string_view text) {
  NetworkOptions options;
  const std::vector<NamedOption> list = split_options(text);
  const std::string& kind = list.front().text;
  if (kind == "none") {
    options.kind = NetworkKind::kNone;
  } else if (kind != "user") {
    return fail("--net: unknown kind '{}' (known: user, none)", kind);
  }
  for (const NamedOption& option : std::span(list).subspan(1)) {
    if (options.kind == NetworkKind::kNone) {
      return fail("--net: '{}' means nothing without a network", option.text);
    }
    if (option.name == "forward" && option.value) {
      auto forward = parse_forward(*option.value);
      if (!forward) return std::unexpected(forward.error());
      options.forwards.push_back(*forward);
    } else if (option.name == "mac" && option.value) {
      options.mac = MacAddress::parse(*option.value);
      if (!options.mac) {
        return fail("--net: '{}' is not an Ethernet address such as 52:54:00:12:34:56", *option.value);
      }
      if (options.mac->is_group()) {
        return fail("--net: '{}' is a group address, which no single machine may have", *option.value);
      }
    } else if (option.name == "ipv6" && (option.value == "on" || option.value == "off")) {
      options.ipv6 = option.value == "on";
    } else {
      return fail("--net: unknown option '{}' (known: forward=, mac=, ipv6=on|off)", option.text);
    }
  }
  return options;
}

Result<std::unique_ptr<NetworkBackend>> open_network(const NetworkOptions& options, EventLoop& loop) {
  switch (options.kind) {
    case NetworkKind::kUser:
      return Nat::open({.forwards = options.forwards, .ipv6 = options.ipv6}, loop);
    case NetworkKind::kNone: break;
  }
  return fail("a machine without network has no card to plug in");
}

}  // namespace doppel
