// The board that stock RISC-V software knows as `virt`: its memory map, interrupt numbers and device tree.
#pragma once

#include <memory>

#include "machine/machine.h"

namespace doppel::riscv {

// Harts that a machine may have.
inline constexpr unsigned kMaxHarts = 64;

// Builds the machine and loads what it boots from; it does not run yet.
Result<std::unique_ptr<Machine>> make_virt_machine(const MachineConfig& config, const MachineEnv& env);

}  // namespace doppel::riscv
