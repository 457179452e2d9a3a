// Clocks, timers and sleep. A timer's signal, or the thread that gets it, is the host's; so is what it carries.
#include <sys/syscall.h>

#include <array>

#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

// The vDSO comes here when what it knows is too old.
std::int64_t do_clock_gettime(LinuxProcess& p, const Arguments& a) {
  p.shared().vdso().refresh();
  return host_call(SYS_clock_gettime, a[0], reinterpret_cast<u64>(p.pointer(a[1])));
}

std::int64_t do_gettimeofday(LinuxProcess& p, const Arguments& a) {
  p.shared().vdso().refresh();
  return host_call(SYS_gettimeofday, reinterpret_cast<u64>(p.pointer(a[0])), reinterpret_cast<u64>(p.pointer(a[1])));
}

constexpr std::array kRows{
    Row{85, "timerfd_create", SYS_timerfd_create},
    Row{86, "timerfd_settime", SYS_timerfd_settime, 0b1100},
    Row{87, "timerfd_gettime", SYS_timerfd_gettime, 0b10},
    Row{101, "nanosleep", SYS_nanosleep, 0b11},
    Row{102, "getitimer", SYS_getitimer, 0b10},
    Row{103, "setitimer", SYS_setitimer, 0b110},
    Row{107, "timer_create", SYS_timer_create, 0b110},
    Row{108, "timer_gettime", SYS_timer_gettime, 0b10},
    Row{109, "timer_getoverrun", SYS_timer_getoverrun},
    Row{110, "timer_settime", SYS_timer_settime, 0b1100},
    Row{111, "timer_delete", SYS_timer_delete},
    Row{112, "clock_settime", SYS_clock_settime, 0b10},
    Row{113, "clock_gettime", -1, 0, do_clock_gettime},
    Row{114, "clock_getres", SYS_clock_getres, 0b10},
    Row{115, "clock_nanosleep", SYS_clock_nanosleep, 0b1100},
    Row{153, "times", SYS_times, 0b1},
    Row{169, "gettimeofday", -1, 0, do_gettimeofday},
    Row{170, "settimeofday", SYS_settimeofday, 0b11},
    Row{171, "adjtimex", SYS_adjtimex, 0b1},
    Row{266, "clock_adjtime", SYS_clock_adjtime, 0b10},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> time_rows() { return kRows; }

}  // namespace doppel::process
