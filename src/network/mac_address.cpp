#include "network/mac_address.h"

#include <charconv>

#include <fmt/format.h>

namespace doppel {

std::optional<MacAddress> MacAddress::parse(std::string_view text) {
  if (text.size() != 17) return std::nullopt;
  MacAddress address;
  for (std::size_t at = 0; at < address.bytes.size(); ++at) {
    const std::string_view digits = text.substr(at * 3, 2);
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), address.bytes[at], 16);
    if (error != std::errc{} || end != digits.end()) return std::nullopt;
    if (at != 5 && text[at * 3 + 2] != ':') return std::nullopt;
  }
  return address;
}

std::string MacAddress::text() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4],
                     bytes[5]);
}

}  // namespace doppel
