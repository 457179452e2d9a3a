// Signals.
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

constexpr std::array kRows{
    Row{129, "kill", SYS_kill},
    Row{130, "tkill", SYS_tkill},
    Row{131, "tgkill", SYS_tgkill},
    // Dispositions are accepted, and no handler is ever called.
    Row{132, "sigaltstack", -1, 0, [](LinuxProcess&, const Arguments&) -> std::int64_t { return 0; }},
    Row{134, "rt_sigaction", -1, 0, [](LinuxProcess& p, const Arguments& a) -> std::int64_t {
          if (a[2] == 0) return 0;
          if (!p.writable(a[2], 24)) return -EFAULT;
          std::memset(p.pointer(a[2]), 0, 24);
          return 0;
        }},
    Row{135, "rt_sigprocmask", SYS_rt_sigprocmask, 0b110},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> signal_rows() { return kRows; }

}  // namespace doppel::process
