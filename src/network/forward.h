// A port of the host that leads into the guest.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace doppel {

struct ForwardRule {
  enum class Protocol : std::uint8_t { kTcp, kUdp };

  Protocol protocol = Protocol::kTcp;
  in_addr host_address{};   // network order
  std::uint16_t host_port = 0;
  in_addr guest_address{};  // network order; 0.0.0.0: the address that DHCP gives the guest
  std::uint16_t guest_port = 0;

  std::string text() const;
};

// "tcp|udp:[HOSTADDR:]HOSTPORT:[GUESTADDR:]GUESTPORT", with IPv4 addresses in dotted form. Without HOSTADDR only
// the host itself can connect (127.0.0.1); 0.0.0.0 lets everybody.
Result<ForwardRule> parse_forward(std::string_view text);

}  // namespace doppel
