// What a hart sees of guest-physical addresses that are not RAM: the device bus implements it.
#pragma once

#include <cstdint>
#include <optional>

#include "memory/address.h"

namespace doppel {

enum class Width : std::uint8_t { k1 = 1, k2 = 2, k4 = 4, k8 = 8 };  // bytes

constexpr unsigned bytes_of(Width width) { return static_cast<unsigned>(width); }

class IoSpace {
 public:
  virtual ~IoSpace() = default;

  // nullopt or false where nothing answers at [gpa, gpa + width): the hart takes an access fault.
  virtual std::optional<std::uint64_t> read(GuestPhysical gpa, Width width) const = 0;
  [[nodiscard]] virtual bool write(GuestPhysical gpa, Width width, std::uint64_t value) const = 0;
};

}  // namespace doppel
