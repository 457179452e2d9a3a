// ptrace(), and the waits by which a tracer gets to know what it traces.
#include <linux/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>

#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"
#include "process/abi/thread.h"
#include "process/abi/trace_calls.h"

namespace doppel::process {
namespace {

std::int64_t do_ptrace(LinuxProcess& p, const Arguments& a) {
  if (a[0] == PTRACE_TRACEME) {
    const std::int64_t done = trace_host(PTRACE_TRACEME, 0, 0, nullptr);
    if (done == 0) GuestThread::current().tracee().volunteer();
    return done;
  }
  return p.tracer().request(a[0], static_cast<pid_t>(a[1]), a[2], a[3]);
}

constexpr int stopped_status(int code) { return code << 8 | 0x7f; }

std::int64_t do_wait4(LinuxProcess& p, const Arguments& a) {
  const auto pid = static_cast<pid_t>(a[0]);
  std::int64_t id = 0;
  int status = 0;
  if (const auto waiting = p.tracer().take_waiting(pid, false)) {
    id = waiting->id;
    status = stopped_status(waiting->code);
  } else {
    for (;;) {
      id = host_call(SYS_wait4, a[0], reinterpret_cast<u64>(&status), a[2], reinterpret_cast<u64>(p.pointer(a[3])));
      if (id <= 0) return id;
      if (WIFSTOPPED(status)) {
        const auto code = p.tracer().admit_stop(static_cast<pid_t>(id), status >> 8);
        if (!code) continue;
        status = stopped_status(*code);
      } else if (!WIFCONTINUED(status)) {
        p.tracer().ended(static_cast<pid_t>(id));
      }
      break;
    }
  }
  return a[1] == 0 || p.put(a[1], status) ? id : -EFAULT;
}

// As take_waiting() has it; 1: somebody whom no such number names.
pid_t as_pid(u64 kind, u64 id) {
  const auto number = static_cast<pid_t>(id);
  switch (kind) {
    case P_ALL: return -1;
    case P_PID: return number;
    case P_PGID: return -number;
    default: return 1;
  }
}

std::int64_t do_waitid(LinuxProcess& p, const Arguments& a) {
  const bool keeps = (a[3] & WNOWAIT) != 0;
  siginfo_t info{};
  const auto put = [&](std::int64_t result) -> std::int64_t {
    return a[2] == 0 || p.put(a[2], info) ? result : -EFAULT;
  };
  if (const auto waiting = p.tracer().take_waiting(as_pid(a[0], a[1]), keeps)) {
    info.si_signo = SIGCHLD;
    info.si_code = CLD_TRAPPED;
    info.si_pid = waiting->id;
    info.si_status = waiting->code;
    return put(0);
  }
  for (;;) {
    const auto wait = [&](u64 options) {
      return host_call(SYS_waitid, a[0], a[1], reinterpret_cast<u64>(&info), options,
                       reinterpret_cast<u64>(p.pointer(a[4])));
    };
    info = {};
    const std::int64_t failed = wait(a[3]);
    if (failed != 0 || info.si_pid == 0) return failed != 0 ? failed : put(0);
    if (info.si_code == CLD_TRAPPED || info.si_code == CLD_STOPPED) {
      const auto code = p.tracer().admit_stop(info.si_pid, info.si_status);
      if (!code) continue;
      info.si_status = *code;
    } else if (info.si_code != CLD_CONTINUED && !keeps) {
      p.tracer().ended(info.si_pid);
    }
    return put(0);
  }
}

constexpr std::array kRows{
    Row{95, "waitid", -1, 0, do_waitid},
    Row{117, "ptrace", -1, 0, do_ptrace},
    Row{260, "wait4", -1, 0, do_wait4},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> trace_rows() { return kRows; }

}  // namespace doppel::process
