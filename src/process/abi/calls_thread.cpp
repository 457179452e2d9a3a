// Threads: their ids, their locks, their scheduling. A guest's thread id is the host's, and a futex is one of the host's
// kernel at the word's host address, so that it works between processes, too.
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>

#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"
#include "process/abi/thread.h"

namespace doppel::process {
namespace {

std::int64_t do_set_tid_address(LinuxProcess&, const Arguments& a) {
  GuestThread& thread = GuestThread::current();
  thread.clear_at_exit = a[0];
  return thread.id();
}

u64 host_address(const LinuxProcess& p, u64 gva) { return reinterpret_cast<u64>(p.pointer(gva)); }

std::int64_t do_futex(LinuxProcess& p, const Arguments& a) {
  // The fourth argument is a number where a second word is concerned, and a time otherwise.
  bool number = false;
  switch (a[1] & FUTEX_CMD_MASK) {
    case FUTEX_REQUEUE: case FUTEX_CMP_REQUEUE: case FUTEX_WAKE_OP: case FUTEX_CMP_REQUEUE_PI: number = true; break;
    default: break;
  }
  return host_call(SYS_futex, host_address(p, a[0]), a[1], a[2], number ? a[3] : host_address(p, a[3]),
                   host_address(p, a[4]), a[5]);
}

// struct futex_waitv
struct Waiter {
  u64 value, address;
  std::uint32_t flags, reserved;
};
constexpr u64 kMostWaiters = 128;  // FUTEX_WAITV_MAX

std::int64_t do_futex_waitv(LinuxProcess& p, const Arguments& a) {
  if (a[1] == 0 || a[1] > kMostWaiters) return -EINVAL;
  std::array<Waiter, kMostWaiters> waiters;
  if (!p.read(a[0], waiters.data(), a[1] * sizeof(Waiter))) return -EFAULT;
  for (u64 i = 0; i < a[1]; ++i) waiters[i].address = host_address(p, waiters[i].address);
  constexpr long kHostNumber = 449;  // SYS_futex_waitv, newer than Debian 12's headers of the C library
  return host_call(kHostNumber, reinterpret_cast<u64>(waiters.data()), a[1], a[2], host_address(p, a[3]), a[4]);
}

constexpr u64 kRobustHeadBytes = 24;

std::int64_t do_set_robust_list(LinuxProcess&, const Arguments& a) {
  if (a[1] != kRobustHeadBytes) return -EINVAL;
  GuestThread::current().robust_list = a[0];
  return 0;
}

std::int64_t do_get_robust_list(LinuxProcess& p, const Arguments& a) {
  const pid_t id = static_cast<pid_t>(a[0]);
  std::optional<u64> list = GuestThread::current().robust_list;
  if (id != 0) {
    list = p.robust_list_of(id);
    if (!list) return -ESRCH;
  }
  return p.put(a[1], *list) && p.put(a[2], kRobustHeadBytes) ? 0 : -EFAULT;
}

// Who asks for SYNC_CORE has changed code, and wants other threads to see it.
std::int64_t do_membarrier(LinuxProcess& p, const Arguments& a) {
  if (a[0] == MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE) p.code_changed(0, ~u64{0});
  return host_call(SYS_membarrier, a[0], a[1], a[2]);
}

constexpr std::array kRows{
    Row{93, "exit", -1, 0, [](LinuxProcess&, const Arguments&) {
          return GuestThread::current().outside([](GuestThread& thread) -> std::int64_t {
            thread.end(static_cast<int>(thread.hart().state().x[10]));
            return 0;
          });
        }},
    Row{96, "set_tid_address", -1, 0, do_set_tid_address},
    Row{98, "futex", -1, 0, do_futex},
    Row{99, "set_robust_list", -1, 0, do_set_robust_list},
    Row{100, "get_robust_list", -1, 0, do_get_robust_list},
    Row{118, "sched_setparam", SYS_sched_setparam, 0b10},
    Row{119, "sched_setscheduler", SYS_sched_setscheduler, 0b100},
    Row{120, "sched_getscheduler", SYS_sched_getscheduler},
    Row{121, "sched_getparam", SYS_sched_getparam, 0b10},
    Row{122, "sched_setaffinity", SYS_sched_setaffinity, 0b100},
    Row{123, "sched_getaffinity", SYS_sched_getaffinity, 0b100},
    Row{124, "sched_yield", SYS_sched_yield},
    Row{125, "sched_get_priority_max", SYS_sched_get_priority_max},
    Row{126, "sched_get_priority_min", SYS_sched_get_priority_min},
    Row{127, "sched_rr_get_interval", SYS_sched_rr_get_interval, 0b10},
    Row{168, "getcpu", SYS_getcpu, 0b111},
    Row{178, "gettid", SYS_gettid},
    Row{274, "sched_setattr", SYS_sched_setattr, 0b10},
    Row{275, "sched_getattr", SYS_sched_getattr, 0b10},
    Row{283, "membarrier", -1, 0, do_membarrier},
    // The kernel would have to change the guest's pc when it preempts. The C library does without.
    Row{293, "rseq", -1, 0, [](LinuxProcess&, const Arguments&) -> std::int64_t { return -ENOSYS; }},
    Row{449, "futex_waitv", -1, 0, do_futex_waitv},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> thread_rows() { return kRows; }

}  // namespace doppel::process
