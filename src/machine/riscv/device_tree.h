// The device tree's parts that belong to the board and to booting, not to a device.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/fdt.h"
#include "isa/riscv/isa_config.h"
#include "memory/address.h"

namespace doppel::riscv {

// Who sets menvcfg.ADUE, so what the tree may say about the A and D bits of page-table entries: with our own
// supervisor calls hardware updating is on (Svadu); other firmware starts with it off and may switch it on.
enum class MachineFirmware { kBuiltin, kExternal };

// Writes /cpus with one node a hart. `controllers[i]` becomes the number of hart i's interrupt controller.
void describe_harts(FdtBuilder& fdt, const IsaConfig& isa, MachineFirmware firmware,
                    std::span<const Phandle> controllers);

struct Chosen {
  std::string bootargs;
  std::optional<GuestPhysicalRange> initrd;
  std::array<std::byte, 32> rng_seed{};
};

// Free space inside the finished tree. Boot loaders add to a tree where it stands, and count on the room that
// machine-mode firmware leaves in it.
inline constexpr std::size_t kTreeGrowthBytes = 8 << 10;

// `tree` with /chosen amended by `chosen`. `name` begins the sentence about a tree that is none.
Result<std::vector<std::byte>> with_chosen(std::vector<std::byte> tree, const std::string& name,
                                           const Chosen& chosen);

}  // namespace doppel::riscv
