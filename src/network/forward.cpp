#include "network/forward.h"

#include <arpa/inet.h>

#include <charconv>
#include <optional>
#include <vector>

namespace doppel {
namespace {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts(1);
  for (const char character : text) {
    if (character == separator) {
      parts.emplace_back();
    } else {
      parts.back() += character;
    }
  }
  return parts;
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), port);
  if (error != std::errc{} || end != text.end() || port == 0) return std::nullopt;
  return port;
}

std::string address_text(in_addr address) {
  char buffer[INET_ADDRSTRLEN];
  return ::inet_ntop(AF_INET, &address, buffer, sizeof buffer);
}

}  // namespace

std::string ForwardRule::text() const {
  return fmt::format("{}:{}:{}:{}:{}", protocol == Protocol::kTcp ? "tcp" : "udp", address_text(host_address),
                     host_port, address_text(guest_address), guest_port);
}

Result<ForwardRule> parse_forward(std::string_view text) {
  constexpr const char* kForm = "tcp:[HOSTADDR:]HOSTPORT:[GUESTADDR:]GUESTPORT";
  ForwardRule forward;
  forward.host_address.s_addr = htonl(INADDR_LOOPBACK);

  const std::vector<std::string> parts = split(text, ':');
  std::size_t at = 0;
  if (parts[at] == "udp") {
    forward.protocol = ForwardRule::Protocol::kUdp;
  } else if (parts[at] != "tcp") {
    return fail("--net: forward '{}' begins with neither tcp: nor udp: (form: {})", text, kForm);
  }
  ++at;

  // With a dot it is an address, without it is the port.
  const auto take_end = [&](const char* side, in_addr& address, std::uint16_t& port) -> Result<void> {
    if (at < parts.size() && parts[at].find('.') != std::string::npos) {
      if (::inet_pton(AF_INET, parts[at].c_str(), &address) != 1) {
        return fail("--net: forward '{}': '{}' is not an IPv4 address", text, parts[at]);
      }
      ++at;
    }
    if (at == parts.size()) return fail("--net: forward '{}' lacks the {} port (form: {})", text, side, kForm);
    const auto parsed = parse_port(parts[at]);
    if (!parsed) return fail("--net: forward '{}': '{}' is not a port from 1 to 65535", text, parts[at]);
    port = *parsed;
    ++at;
    return {};
  };
  if (auto host = take_end("host", forward.host_address, forward.host_port); !host) {
    return std::unexpected(host.error());
  }
  if (auto guest = take_end("guest", forward.guest_address, forward.guest_port); !guest) {
    return std::unexpected(guest.error());
  }
  if (at != parts.size()) return fail("--net: forward '{}' goes on after the guest port (form: {})", text, kForm);
  return forward;
}

}  // namespace doppel
