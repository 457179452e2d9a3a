// Signals. Sets, siginfo_t and numbers are the same in guest and host, and the host's masks are the guest's.
#include <sys/syscall.h>

#include <array>
#include <cerrno>

#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"
#include "process/abi/thread.h"

namespace doppel::process {
namespace {

constexpr u64 kSetBytes = 8;

std::int64_t do_sigaltstack(LinuxProcess& p, const Arguments& a) {
  GuestThread& thread = GuestThread::current();
  const SignalStack before = thread.signal_stack();
  if (a[0] != 0) {
    const auto stack = p.get<SignalStack>(a[0]);
    if (!stack) return -EFAULT;
    if (const std::int64_t refused = thread.set_signal_stack(*stack); refused != 0) return refused;
  }
  return a[1] == 0 || p.put(a[1], before) ? 0 : -EFAULT;
}

std::int64_t do_rt_sigaction(LinuxProcess& p, const Arguments& a) {
  if (a[3] != kSetBytes) return -EINVAL;
  const int number = static_cast<int>(a[0]);
  if (number < 1 || number > static_cast<int>(kSignals)) return -EINVAL;
  SignalAction before = p.actions().get(number);
  if (a[1] != 0) {
    const auto action = p.get<SignalAction>(a[1]);
    if (!action) return -EFAULT;
    if ((signal_bit(number) & kUnblockable) != 0) return -EINVAL;
    before = p.actions().set(number, *action);
  }
  return a[2] == 0 || p.put(a[2], before) ? 0 : -EFAULT;
}

std::int64_t do_rt_sigprocmask(LinuxProcess& p, const Arguments& a) {
  if (a[3] != kSetBytes) return -EINVAL;
  GuestThread& thread = GuestThread::current();
  const u64 before = thread.signal_mask();
  if (a[1] != 0) {
    const auto set = p.get<u64>(a[1]);
    if (!set) return -EFAULT;
    u64 now = before;
    switch (static_cast<int>(a[0])) {
      case SIG_BLOCK: now |= *set; break;
      case SIG_UNBLOCK: now &= ~*set; break;
      case SIG_SETMASK: now = *set; break;
      default: return -EINVAL;
    }
    if (const std::int64_t failed = thread.set_signal_mask(now); failed != 0) return failed;
  }
  return a[2] == 0 || p.put(a[2], before) ? 0 : -EFAULT;
}

std::int64_t do_rt_sigpending(LinuxProcess& p, const Arguments& a) {
  if (a[1] > kSetBytes) return -EINVAL;
  u64 pending = 0;
  if (const std::int64_t failed = host_call(SYS_rt_sigpending, reinterpret_cast<u64>(&pending), kSetBytes); failed != 0) {
    return failed;
  }
  pending |= GuestThread::current().held_signals();
  return p.write(a[0], &pending, a[1]) ? 0 : -EFAULT;
}

// Six arguments are too few: the last names a structure of the mask and its size.
std::int64_t do_pselect6(LinuxProcess& p, const Arguments& a) {
  struct Mask {
    u64 set, bytes;
  };
  std::optional<Mask> mask;
  if (a[5] != 0) {
    mask = p.get<Mask>(a[5]);
    if (!mask) return -EFAULT;
    mask->set = reinterpret_cast<u64>(p.pointer(mask->set));
  }
  const auto host = [&](u64 gva) { return reinterpret_cast<u64>(p.pointer(gva)); };
  return host_call(SYS_pselect6, a[0], host(a[1]), host(a[2]), host(a[3]), host(a[4]),
                   mask ? reinterpret_cast<u64>(&*mask) : 0);
}

constexpr std::array kRows{
    Row{72, "pselect6", -1, 0, do_pselect6},
    Row{74, "signalfd4", SYS_signalfd4, 0b10},
    Row{129, "kill", SYS_kill},
    Row{130, "tkill", SYS_tkill},
    Row{131, "tgkill", SYS_tgkill},
    Row{132, "sigaltstack", -1, 0, do_sigaltstack},
    Row{133, "rt_sigsuspend", SYS_rt_sigsuspend, 0b1},
    Row{134, "rt_sigaction", -1, 0, do_rt_sigaction},
    Row{135, "rt_sigprocmask", -1, 0, do_rt_sigprocmask},
    Row{136, "rt_sigpending", -1, 0, do_rt_sigpending},
    Row{137, "rt_sigtimedwait", SYS_rt_sigtimedwait, 0b111},
    Row{138, "rt_sigqueueinfo", SYS_rt_sigqueueinfo, 0b100},
    Row{139, "rt_sigreturn", -1, 0, [](LinuxProcess&, const Arguments&) {
          return GuestThread::current().outside([](GuestThread& thread) { return thread.return_from_signal(); });
        }},
    Row{240, "rt_tgsigqueueinfo", SYS_rt_tgsigqueueinfo, 0b1000},
    Row{424, "pidfd_send_signal", SYS_pidfd_send_signal, 0b100},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> signal_rows() { return kRows; }

}  // namespace doppel::process
