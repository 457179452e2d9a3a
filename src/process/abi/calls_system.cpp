// The machine as programs see it, and the limits of a process.
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include <array>
#include <cerrno>
#include <cstring>

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

std::int64_t do_prctl(LinuxProcess& p, const Arguments& a) {
  if (a[0] != PR_SET_NAME && a[0] != PR_GET_NAME) return -EINVAL;
  return result(::syscall(SYS_prctl, a[0], p.pointer(a[1])));
}

constexpr std::array kRows{
    Row{160, "uname", -1, 0, do_uname},
    Row{165, "getrusage", SYS_getrusage, 0b10},
    Row{166, "umask", SYS_umask},
    Row{167, "prctl", -1, 0, do_prctl},
    Row{179, "sysinfo", SYS_sysinfo, 0b1},
    Row{261, "prlimit64", SYS_prlimit64, 0b1100},
    Row{278, "getrandom", SYS_getrandom, 0b1},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> system_rows() { return kRows; }

}  // namespace doppel::process
