// Puts kernel, initrd, firmware and device tree into memory, and says how the boot hart starts.
//
//   RAM  |firmware|  kernel (2 MiB)  ...  initrd (128 MiB from the kernel, or right behind it)  ...  tree|
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/result.h"
#include "machine/machine.h"
#include "memory/guest_memory.h"

namespace doppel::riscv {

struct StartState {
  bool supervisor = false;  // S-mode with built-in firmware, else M-mode
  std::uint64_t pc = 0;
  // a0 is the hart's id. All harts of a machine-mode start share these.
  std::uint64_t a1 = 0;  // the device tree's address
  std::uint64_t a2 = 0;  // fw_dynamic_info's address, or 0
  std::optional<GuestPhysical> tohost;  // the kernel's HTIF word, if it has one
};

// Fills `memory`, which is all zeros. `device_tree` makes the board's own tree, used unless `config` names one.
Result<StartState> load_boot_files(const BootConfig& config, const GuestMemory& memory,
                                   const std::function<std::vector<std::byte>()>& device_tree);

}  // namespace doppel::riscv
