#include "process/abi/hwprobe.h"

#include "isa/riscv/hart.h"
#include "isa/riscv/isa_config.h"

namespace doppel::process {
namespace {

using u64 = std::uint64_t;

constexpr u64 kBaseIma = 1, kMisalignedFast = 3;
constexpr u64 kFd = 1 << 0, kC = 1 << 1, kZba = 1 << 3, kZbb = 1 << 4, kZbs = 1 << 5, kZicboz = 1 << 6,
              kZfhmin = 1 << 28, kZihintpause = u64{1} << 36, kZca = u64{1} << 43, kZcd = u64{1} << 45,
              kZicntr = u64{1} << 50, kZicbom = u64{1} << 55;

}  // namespace

std::optional<u64> probe_value(std::int64_t key, u64 space_bytes) {
  switch (key) {
    case kProbeVendor:
    case kProbeArchitecture:
    case kProbeImplementation: return 0;
    case kProbeBase: return kBaseIma;
    case kProbeExtensions:
      return kFd | kC | kZba | kZbb | kZbs | kZicboz | kZfhmin | kZihintpause | kZca | kZcd | kZicntr |
             kZicbom;
    // A misaligned word is one access of the host.
    case kProbeSpeedOfAll:
    case kProbeMisalignedScalar: return kMisalignedFast;
    case kProbeZicbozBytes:
    case kProbeZicbomBytes: return riscv::IsaConfig::kCacheBlockBytes;
    case kProbeHighestAddress: return space_bytes - 1;
    case kProbeTimeHz: return riscv::kTimebaseHz;
    default: return std::nullopt;
  }
}

}  // namespace doppel::process
