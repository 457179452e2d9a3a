// The memory-mapped I/O bus: guest-physical ranges to devices.
//
// Filled while the machine is built, constant afterwards, so lookups take no lock; the device's monitor is
// held around each access. Called from hart threads.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "device/device.h"
#include "memory/address.h"

namespace doppel {

class Bus {
 public:
  // Maps `device`, which must outlive the bus, at `range`. Fails on overlap, naming both devices.
  Result<void> map(GuestPhysicalRange range, Device& device);

  // nullopt or false where no device answers (the hart then takes an access fault). A device's registers
  // are at least that long; misaligned accesses are refused the same way.
  std::optional<std::uint64_t> read(GuestPhysical gpa, Width width) const;
  [[nodiscard]] bool write(GuestPhysical gpa, Width width, std::uint64_t value) const;

  struct Mapping {
    GuestPhysicalRange range;
    Device* device;
  };
  const std::vector<Mapping>& mappings() const { return mappings_; }

 private:
  const Mapping* find(GuestPhysical gpa, unsigned bytes) const;

  std::vector<Mapping> mappings_;  // sorted by start
};

}  // namespace doppel
