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
#include "memory/io_space.h"

namespace doppel {

class Bus final : public IoSpace {
 public:
  // Maps `device`, which must outlive the bus, at `range`. Fails on overlap, naming both devices.
  Result<void> map(GuestPhysicalRange range, Device& device);

  // Misaligned accesses, and those that no device's range contains whole, are refused.
  std::optional<std::uint64_t> read(GuestPhysical gpa, Width width) const override;
  [[nodiscard]] bool write(GuestPhysical gpa, Width width, std::uint64_t value) const override;

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
