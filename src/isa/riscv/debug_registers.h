// A hart's registers as debuggers number them, and memory as they see it. For a hart that runs nothing; what they do
// is invisible to the guest, but for the values that they write.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "isa/riscv/hart.h"

namespace doppel::riscv {

// GDB's numbers for RISC-V: x0 to x31, pc, f0 to f31, CSRs by number from 65 on, and the privilege mode.
namespace debug_register {
inline constexpr unsigned kPc = 32, kFirstFloat = 33, kFirstCsr = 65, kPrivilege = kFirstCsr + 4096;
inline constexpr unsigned kGeneralCount = kFirstCsr;  // those that a debugger always wants
}  // namespace debug_register

// The target description. Without `privileged` it is what a user-mode program sees of a hart.
std::string debug_description(bool privileged);

// The register's bytes, little-endian; nullopt when there is no such register.
std::optional<std::string> read_debug_register(Hart& hart, unsigned number);
// False when there is no such register, or `bytes` has another size.
bool write_debug_register(Hart& hart, unsigned number, std::string_view bytes);

}  // namespace doppel::riscv
