// Exceptions and interrupts: causes (privileged manual, table "mcause values after trap") as types.
#pragma once

#include <array>
#include <cstdint>

namespace doppel::riscv {

enum class Exception : std::uint8_t {
  kInstructionMisaligned = 0,
  kInstructionAccessFault = 1,
  kIllegalInstruction = 2,
  kBreakpoint = 3,
  kLoadMisaligned = 4,
  kLoadAccessFault = 5,
  kStoreMisaligned = 6,
  kStoreAccessFault = 7,
  kUserCall = 8,
  kSupervisorCall = 9,
  kMachineCall = 11,
  kInstructionPageFault = 12,
  kLoadPageFault = 13,
  kStorePageFault = 15,
};

// By cause, for statistics.
inline constexpr std::array kExceptionNames = {
    "instruction_misaligned", "instruction_access_fault", "illegal_instruction", "breakpoint",
    "load_misaligned", "load_access_fault", "store_misaligned", "store_access_fault",
    "user_call", "supervisor_call", "", "machine_call",
    "instruction_page_fault", "load_page_fault", "", "store_page_fault"};

enum class Interrupt : std::uint8_t {
  kSupervisorSoftware = 1,
  kMachineSoftware = 3,
  kSupervisorTimer = 5,
  kMachineTimer = 7,
  kSupervisorExternal = 9,
  kMachineExternal = 11,
};

constexpr std::uint64_t mask_of(Interrupt interrupt) {
  return std::uint64_t{1} << static_cast<unsigned>(interrupt);
}

struct Trap {
  Exception cause;
  std::uint64_t value = 0;  // what xtval gets
};

}  // namespace doppel::riscv
