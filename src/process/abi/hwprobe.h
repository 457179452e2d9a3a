// What a program may use of RISC-V, by the keys of riscv_hwprobe (Documentation/arch/riscv/hwprobe.rst). All harts are
// alike. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>

namespace doppel::process {

// asm/hwprobe.h of riscv64, which is no header of this host.
enum ProbeKey : std::int64_t {
  kProbeVendor, kProbeArchitecture, kProbeImplementation, kProbeBase, kProbeExtensions, kProbeSpeedOfAll,
  kProbeZicbozBytes, kProbeHighestAddress, kProbeTimeHz, kProbeMisalignedScalar, kProbeMisalignedVector,
  kProbeThead, kProbeZicbomBytes,
};

// Every key below this has a value.
inline constexpr std::int64_t kProbeDense = kProbeMisalignedScalar + 1;

// The value of a key for a program whose address space has so many bytes, or nothing if the key is unknown.
std::optional<std::uint64_t> probe_value(std::int64_t key, std::uint64_t space_bytes);

}  // namespace doppel::process
