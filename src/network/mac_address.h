// An Ethernet address, as text and as bytes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace doppel {

struct MacAddress {
  std::array<std::uint8_t, 6> bytes{};

  friend bool operator==(const MacAddress&, const MacAddress&) = default;

  // The group bit marks addresses that no single machine may have.
  bool is_group() const { return (bytes[0] & 1) != 0; }

  // "52:54:00:12:34:56"; nullopt for anything else.
  static std::optional<MacAddress> parse(std::string_view text);
  std::string text() const;

  // A locally administered address for the nth network device of a machine.
  static MacAddress local(std::uint8_t index) { return {{0x52, 0x54, 0x00, 0x12, 0x34, static_cast<std::uint8_t>(0x56 + index)}}; }
};

}  // namespace doppel
