// The machine as programs see it, and the limits of a process.
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

// asm/hwprobe.h of riscv64, which is no header of this host.
enum : std::int64_t {
  kProbeVendor, kProbeArchitecture, kProbeImplementation, kProbeBase, kProbeExtensions, kProbeSpeedOfAll,
  kProbeZicbozBytes, kProbeHighestAddress, kProbeTimeHz, kProbeMisalignedScalar, kProbeMisalignedVector,
  kProbeThead, kProbeZicbomBytes,
};
constexpr u64 kBaseIma = 1, kMisalignedFast = 3;
constexpr u64 kFd = 1 << 0, kC = 1 << 1, kZba = 1 << 3, kZbb = 1 << 4, kZbs = 1 << 5, kZicboz = 1 << 6,
              kZfhmin = 1 << 28, kZihintpause = u64{1} << 36, kZca = u64{1} << 43, kZcd = u64{1} << 45,
              kZicntr = u64{1} << 50, kZicbom = u64{1} << 55;

std::int64_t do_uname(LinuxProcess& p, const Arguments& a) {
  utsname name{};
  ::uname(&name);
  std::memset(name.machine, 0, sizeof name.machine);
  std::memcpy(name.machine, "riscv64", 7);
  if (!p.writable(a[0], sizeof name)) return -EFAULT;
  std::memcpy(p.pointer(a[0]), &name, sizeof name);
  return 0;
}

// What a program may use of RISC-V, by keys (Documentation/arch/riscv/hwprobe.rst).
struct Probe {
  std::int64_t key;
  u64 value;
};

std::optional<u64> probe(std::int64_t key) {
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
    case kProbeHighestAddress: return AddressSpace::kSizeBytes - 1;
    case kProbeTimeHz: return riscv::kTimebaseHz;
    default: return std::nullopt;
  }
}

std::int64_t do_hwprobe(LinuxProcess& p, const Arguments& a) {
  constexpr u64 kWhichCpus = 1;
  const u64 gva = a[0], count = a[1], cpu_bytes = a[2], cpus = a[3], flags = a[4];
  if ((flags & ~kWhichCpus) != 0) return -EINVAL;
  std::array<u64, 128> set{};
  if ((cpus == 0) != (cpu_bytes == 0) && cpus != 0) return -EINVAL;
  if ((flags & kWhichCpus) != 0 && (cpus == 0 || cpu_bytes == 0)) return -EINVAL;
  const u64 known = std::min<u64>(cpu_bytes, sizeof set);
  if (cpus != 0 && !p.read(cpus, set.data(), known)) return -EFAULT;
  bool all_match = true;
  for (u64 i = 0; i < count; ++i) {
    auto pair = p.get<Probe>(gva + i * sizeof(Probe));
    if (!pair) return -EFAULT;
    const std::optional<u64> value = probe(pair->key);
    const u64 asked = pair->value;
    // All harts are alike, so what matches one matches all: bits of a set of extensions, or the value.
    all_match &= value && (pair->key == kProbeExtensions || pair->key == kProbeBase
                               ? (*value & asked) == asked
                               : *value == asked);
    if (!value) pair->key = -1;
    if ((flags & kWhichCpus) == 0 || !value) pair->value = value.value_or(0);
    if (!p.put(gva + i * sizeof(Probe), *pair)) return -EFAULT;
  }
  if ((flags & kWhichCpus) == 0) return 0;
  std::array<u64, 128> online{};
  const long bytes = ::syscall(SYS_sched_getaffinity, 0, sizeof online, online.data());
  if (bytes < 0) return -errno;
  const bool any = std::ranges::any_of(set, [](u64 word) { return word != 0; });
  for (std::size_t i = 0; i < set.size(); ++i) set[i] = !all_match ? 0 : any ? set[i] & online[i] : online[i];
  return p.write(cpus, set.data(), known) ? 0 : -EFAULT;
}

constexpr std::array kRows{
    Row{160, "uname", -1, 0, do_uname},
    Row{165, "getrusage", SYS_getrusage, 0b10},
    Row{166, "umask", SYS_umask},
    Row{179, "sysinfo", SYS_sysinfo, 0b1},
    Row{258, "riscv_hwprobe", -1, 0, do_hwprobe},
    Row{261, "prlimit64", SYS_prlimit64, 0b1100},
    Row{278, "getrandom", SYS_getrandom, 0b1},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> system_rows() { return kRows; }

}  // namespace doppel::process
