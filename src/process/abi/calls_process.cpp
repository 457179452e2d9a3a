// Threads, processes, programs, and who they belong to.
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "process/abi/exec.h"
#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"
#include "process/abi/thread.h"

namespace doppel::process {
namespace {

constexpr std::uint64_t kAlreadyInThread = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM;

// What Linux refuses in copy_process().
std::int64_t check(const CloneRequest& request) {
  const u64 flags = request.flags;
  if ((flags & CLONE_THREAD) != 0 && (flags & kAlreadyInThread) != kAlreadyInThread) return -EINVAL;
  if ((flags & CLONE_SIGHAND) != 0 && (flags & CLONE_VM) == 0) return -EINVAL;
  if ((flags & CLONE_FS) != 0 && (flags & (CLONE_NEWNS | CLONE_NEWUSER)) != 0) return -EINVAL;
  if (request.exit_signal < 0 || request.exit_signal > static_cast<int>(kSignals)) return -EINVAL;
  return 0;
}

std::int64_t clone_now(GuestThread& thread) {
  const auto& x = thread.hart().state().x;
  const u64 flags = x[10] & 0xffffffff;
  CloneRequest request{.flags = flags & ~u64{0xff}, .exit_signal = static_cast<int>(flags & 0xff), .stack = x[11],
                       .tls = x[13], .parent_tid = x[12], .child_tid = x[14]};
  if ((flags & CLONE_PIDFD) != 0) {
    if ((flags & CLONE_PARENT_SETTID) != 0) return -EINVAL;
    request.pidfd = x[12];
  }
  const std::int64_t refused = check(request);
  return refused != 0 ? refused : thread.clone(request);
}

// struct clone_args
struct CloneArguments {
  u64 flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_bytes, tls, set_tid, set_tid_count, cgroup;
};
constexpr u64 kLeastCloneArguments = 64;  // CLONE_ARGS_SIZE_VER0

std::int64_t clone3_now(GuestThread& thread) {
  const u64 gva = thread.hart().state().x[10], bytes = thread.hart().state().x[11];
  if (bytes < kLeastCloneArguments) return -EINVAL;
  if (bytes > sizeof(CloneArguments)) return -E2BIG;
  CloneArguments a{};
  if (!thread.process().read(gva, &a, bytes)) return -EFAULT;
  constexpr u64 kClearHandlers = u64{1} << 32;
  if ((a.flags & (u64{CLONE_DETACHED} | 0xff)) != 0 || (a.flags >> 33) != 0 || a.set_tid_count != 0) return -EINVAL;
  if ((a.flags & CLONE_SIGHAND) != 0 && (a.flags & kClearHandlers) != 0) return -EINVAL;
  if ((a.stack == 0) != (a.stack_bytes == 0) || a.exit_signal > kSignals) return -EINVAL;
  const CloneRequest request{.flags = a.flags, .exit_signal = static_cast<int>(a.exit_signal),
                             .stack = a.stack + a.stack_bytes, .tls = a.tls, .parent_tid = a.parent_tid,
                             .child_tid = a.child_tid, .pidfd = (a.flags & CLONE_PIDFD) != 0 ? a.pidfd : 0};
  const std::int64_t refused = check(request);
  return refused != 0 ? refused : thread.clone(request);
}

std::int64_t do_prctl(LinuxProcess& p, const Arguments& a) {
  const auto host = [&](u64 gva) { return reinterpret_cast<u64>(p.pointer(gva)); };
  switch (static_cast<int>(a[0])) {
    case PR_SET_NAME: case PR_GET_NAME: case PR_GET_PDEATHSIG: case PR_GET_CHILD_SUBREAPER:
      return host_call(SYS_prctl, a[0], host(a[1]), a[2], a[3], a[4]);
    case PR_SET_PDEATHSIG: case PR_GET_DUMPABLE: case PR_SET_DUMPABLE: case PR_GET_KEEPCAPS: case PR_SET_KEEPCAPS:
    case PR_CAPBSET_READ: case PR_CAPBSET_DROP: case PR_GET_SECUREBITS: case PR_SET_SECUREBITS:
    case PR_GET_TIMERSLACK: case PR_SET_TIMERSLACK: case PR_GET_TIMING: case PR_SET_TIMING:
    case PR_SET_CHILD_SUBREAPER: case PR_SET_NO_NEW_PRIVS: case PR_GET_NO_NEW_PRIVS: case PR_CAP_AMBIENT:
    case PR_SET_PTRACER: case PR_GET_THP_DISABLE: case PR_SET_THP_DISABLE: case PR_GET_IO_FLUSHER:
    case PR_SET_IO_FLUSHER: case PR_MCE_KILL: case PR_MCE_KILL_GET:
      return host_call(SYS_prctl, a[0], a[1], a[2], a[3], a[4]);
    case PR_SET_VMA:
      return host_call(SYS_prctl, a[0], a[1], host(a[2]), a[3], host(a[4]));
    case PR_GET_TID_ADDRESS:
      return p.put(a[1], GuestThread::current().clear_at_exit) ? 0 : -EFAULT;
    case PR_GET_SECCOMP: return 0;
    default: return -EINVAL;  // filters of the guest's calls among them: the host's would see Doppel's
  }
}

// Such calls wait until the engine has returned.
template <std::int64_t (*Now)(GuestThread&)>
std::int64_t outside(LinuxProcess&, const Arguments&) {
  return GuestThread::current().outside(Now);
}

constexpr std::array kRows{
    Row{94, "exit_group", -1, 0, outside<[](GuestThread& thread) -> std::int64_t {
          thread.end_process(static_cast<int>(thread.hart().state().x[10]));
        }>},
    Row{97, "unshare", SYS_unshare},
    Row{140, "setpriority", SYS_setpriority},
    Row{141, "getpriority", SYS_getpriority},
    Row{143, "setregid", SYS_setregid},
    Row{144, "setgid", SYS_setgid},
    Row{145, "setreuid", SYS_setreuid},
    Row{146, "setuid", SYS_setuid},
    Row{147, "setresuid", SYS_setresuid},
    Row{148, "getresuid", SYS_getresuid, 0b111},
    Row{149, "setresgid", SYS_setresgid},
    Row{150, "getresgid", SYS_getresgid, 0b111},
    Row{151, "setfsuid", SYS_setfsuid},
    Row{152, "setfsgid", SYS_setfsgid},
    Row{154, "setpgid", SYS_setpgid},
    Row{155, "getpgid", SYS_getpgid},
    Row{156, "getsid", SYS_getsid},
    Row{157, "setsid", SYS_setsid},
    Row{158, "getgroups", SYS_getgroups, 0b10},
    Row{159, "setgroups", SYS_setgroups, 0b10},
    Row{167, "prctl", -1, 0, do_prctl},
    Row{172, "getpid", SYS_getpid},
    Row{173, "getppid", SYS_getppid},
    Row{174, "getuid", SYS_getuid},
    Row{175, "geteuid", SYS_geteuid},
    Row{176, "getgid", SYS_getgid},
    Row{177, "getegid", SYS_getegid},
    Row{220, "clone", -1, 0, outside<clone_now>},
    Row{221, "execve", -1, 0, outside<execve_now>},
    Row{268, "setns", SYS_setns},
    Row{281, "execveat", -1, 0, outside<execveat_now>},
    Row{434, "pidfd_open", SYS_pidfd_open},
    Row{435, "clone3", -1, 0, outside<clone3_now>},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> process_rows() { return kRows; }

}  // namespace doppel::process
