// The host's ptrace(), as the kernel has it, and numbers that riscv64's has.
#pragma once

#include <linux/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace doppel::process {

// 0 and above, or -errno.
inline std::int64_t trace_host(long request, pid_t id, std::uint64_t address, void* data) {
  const long value = ::syscall(SYS_ptrace, request, id, address, data);
  return value < 0 ? -errno : value;
}

// The host's options where the guest wants `guest`: it does likewise, but for system calls, which the tracee shows by
// itself, and new programs, of which we must know.
inline std::uint64_t host_options(std::uint64_t guest) {
  constexpr std::uint64_t kAlike = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                                   PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL;
  return (guest & kAlike) | PTRACE_O_TRACEEXEC;
}

inline constexpr std::int64_t kRestartBlock = -516;  // ERESTART_RESTARTBLOCK: go on by restart_syscall()
inline constexpr std::uint64_t kRestartSyscall = 128;
inline constexpr std::uint32_t kAuditArch = 0xC00000F3;  // AUDIT_ARCH_RISCV64

}  // namespace doppel::process
