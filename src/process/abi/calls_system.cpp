// The machine as programs see it, and the limits of a process.
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>

#include "memory/address.h"
#include "process/abi/host_call.h"
#include "process/abi/hwprobe.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

std::int64_t do_uname(LinuxProcess& p, const Arguments& a) {
  utsname name{};
  ::uname(&name);
  std::memset(name.machine, 0, sizeof name.machine);
  std::memcpy(name.machine, "riscv64", 7);
  if (!p.writable(a[0], sizeof name)) return -EFAULT;
  std::memcpy(p.pointer(a[0]), &name, sizeof name);
  return 0;
}

// A pair of riscv_hwprobe.
struct Probe {
  std::int64_t key;
  u64 value;
};

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
    const std::optional<u64> value = probe_value(pair->key, p.flat().size_bytes);
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

// What the limits on the size of the process were set to: the host's are higher by what Doppel itself takes.
struct SizeLimit {
  int resource;
  std::atomic<u64> soft{0}, hard{0};
  std::atomic<bool> known{false};
};
std::array<SizeLimit, 2> size_limits{{{.resource = RLIMIT_AS}, {.resource = RLIMIT_DATA}}};

u64 own_bytes(const LinuxProcess& p) {
  constexpr u64 kReserve = u64{64} << 20;  // for what is still to be translated
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/proc/self/statm", "re"), &std::fclose);
  u64 pages = 0;
  if (file == nullptr || std::fscanf(file.get(), "%" SCNu64, &pages) != 1) return kReserve;
  u64 guest = 0;
  for (const auto& mapping : p.address_space().mappings()) guest += mapping.end - mapping.start;
  return pages * kPageSize > guest ? pages * kPageSize - guest + kReserve : kReserve;
}

std::int64_t limit(LinuxProcess& p, u64 process, u64 resource, u64 new_gva, u64 old_gva) {
  SizeLimit* size = nullptr;
  if (process == 0 || process == static_cast<u64>(::getpid())) {
    for (SizeLimit& each : size_limits) {
      if (static_cast<u64>(each.resource) == resource) size = &each;
    }
  }
  std::optional<rlimit> wanted;
  if (new_gva != 0) {
    wanted = p.get<rlimit>(new_gva);
    if (!wanted) return -EFAULT;
  }
  rlimit before{}, host = wanted.value_or(rlimit{});
  if (size != nullptr && wanted) {
    const u64 more = own_bytes(p);
    for (rlim_t* each : {&host.rlim_cur, &host.rlim_max}) {
      *each = *each > RLIM_INFINITY - more ? RLIM_INFINITY : *each + more;
    }
  }
  const std::int64_t r = host_call(SYS_prlimit64, process, resource, wanted ? reinterpret_cast<u64>(&host) : 0,
                                   reinterpret_cast<u64>(&before));
  if (r != 0) return r;
  if (size != nullptr && size->known) before = {size->soft, size->hard};
  if (size != nullptr && wanted) {
    size->soft = wanted->rlim_cur;
    size->hard = wanted->rlim_max;
    size->known = true;
  }
  return old_gva == 0 || p.put(old_gva, before) ? 0 : -EFAULT;
}

constexpr std::array kRows{
    Row{30, "ioprio_set", SYS_ioprio_set},
    Row{31, "ioprio_get", SYS_ioprio_get},
    Row{90, "capget", SYS_capget, 0b11},
    Row{91, "capset", SYS_capset, 0b11},
    Row{92, "personality", SYS_personality},
    refused_row(104, "kexec_load"),
    refused_row(105, "init_module"),
    refused_row(106, "delete_module"),
    Row{116, "syslog", SYS_syslog, 0b10},
    Row{142, "reboot", SYS_reboot, 0b1000},
    Row{160, "uname", -1, 0, do_uname},
    Row{161, "sethostname", SYS_sethostname, 0b1},
    Row{162, "setdomainname", SYS_setdomainname, 0b1},
    Row{163, "getrlimit", -1, 0, [](LinuxProcess& p, const Arguments& a) { return limit(p, 0, a[0], 0, a[1]); }},
    Row{164, "setrlimit", -1, 0, [](LinuxProcess& p, const Arguments& a) { return limit(p, 0, a[0], a[1], 0); }},
    Row{165, "getrusage", SYS_getrusage, 0b10},
    Row{166, "umask", SYS_umask},
    Row{179, "sysinfo", SYS_sysinfo, 0b1},
    Row{224, "swapon", SYS_swapon, 0b1},
    Row{225, "swapoff", SYS_swapoff, 0b1},
    // What it would count is Doppel.
    refused_row(241, "perf_event_open"),
    Row{258, "riscv_hwprobe", -1, 0, do_hwprobe},
    Row{261, "prlimit64", -1, 0, [](LinuxProcess& p, const Arguments& a) { return limit(p, a[0], a[1], a[2], a[3]); }},
    Row{272, "kcmp", SYS_kcmp},
    refused_row(273, "finit_module"),
    // Filters would see Doppel's calls.
    refused_row(277, "seccomp"),
    Row{278, "getrandom", SYS_getrandom, 0b1},
    refused_row(280, "bpf"),
    refused_row(294, "kexec_file_load"),
    Row{438, "pidfd_getfd", SYS_pidfd_getfd},
    refused_row(459, "lsm_get_self_attr"),
    refused_row(460, "lsm_set_self_attr"),
    refused_row(461, "lsm_list_modules"),
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> system_rows() { return kRows; }

}  // namespace doppel::process
