// What a tracer asks of a tracee that stands, as kernel/ptrace.c and arch/riscv/kernel/ptrace.c of Linux answer it.
#include <elf.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/remote_memory.h"
#include "process/abi/trace_calls.h"
#include "process/abi/tracer.h"

namespace doppel::process {
namespace {

constexpr std::uint64_t kKnownOptions = 0xff | PTRACE_O_EXITKILL | PTRACE_O_SUSPEND_SECCOMP;
constexpr std::uint64_t kSysGood = 1;  // PTRACE_O_TRACESYSGOOD

// struct user_regs_struct of riscv64: pc in place of x0.
using General = std::array<std::uint64_t, 32>;
// struct __riscv_d_ext_state, padded to whole registers.
struct Floating {
  std::array<std::uint64_t, 32> f;
  std::uint32_t fcsr, padding;
};
static_assert(sizeof(Floating) == 33 * 8);

std::uint64_t remote(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

void* host_pointer(std::uint64_t number) { return reinterpret_cast<void*>(number); }

// struct ptrace_syscall_info
struct CallInfo {
  std::uint8_t op;
  std::array<std::uint8_t, 3> padding;
  std::uint32_t arch;
  std::uint64_t pc, sp;
  union {
    struct {
      std::uint64_t number;
      std::array<std::uint64_t, 6> arguments;
    } entry;
    struct {
      std::int64_t result;
      std::uint8_t is_error;
    } exit;
  };
};

}  // namespace

std::int64_t Tracer::request(std::uint64_t request, pid_t id, std::uint64_t address, std::uint64_t data) {
  const std::lock_guard lock(mutex_);
  switch (request) {
    case PTRACE_ATTACH: return attach(id, false, 0);
    case PTRACE_SEIZE:
      if (address != 0 || (data & ~kKnownOptions) != 0) return -EIO;
      return attach(id, true, data);
    default: break;
  }
  Record* r = find(id);
  if (r == nullptr) return -ESRCH;
  switch (request) {
    case PTRACE_KILL:
      ::kill(id, SIGKILL);
      return 0;
    case PTRACE_INTERRUPT: return r->seized ? trace_host(PTRACE_INTERRUPT, id, 0, nullptr) : -EIO;
    default: return r->stop == Stop::kNone || r->waits ? -ESRCH : at_stop(*r, id, request, address, data);
  }
}

std::int64_t Tracer::attach(pid_t id, bool seize, std::uint64_t options) {
  const std::uint64_t base = executable_base(id);
  if (base == 0) return ::kill(id, 0) != 0 && errno == ESRCH ? -ESRCH : -EPERM;
  const std::int64_t done = seize ? trace_host(PTRACE_SEIZE, id, 0, host_pointer(host_options(options)))
                                  : trace_host(PTRACE_ATTACH, id, 0, nullptr);
  if (done != 0) return done;
  Record& r = records_[id];
  r = {};
  r.seized = r.has_options = seize;
  r.options = options;
  r.base = base;
  // From now on its threads find out.
  const std::uint64_t attempts = there(r, &trace_globals.attempts);
  if (const auto number = get_remote<std::uint32_t>(id, attempts)) put_remote(id, attempts, *number + 1);
  return 0;
}

std::int64_t Tracer::at_stop(Record& r, pid_t id, std::uint64_t request, std::uint64_t address, std::uint64_t data) {
  const bool is_signal = data <= kSignals;
  switch (request) {
    case PTRACE_PEEKTEXT:
    case PTRACE_PEEKDATA: {
      const auto area = area_of(r, id);
      std::uint64_t word = 0;
      if (!area || !area->memory.contains(address, sizeof word)) return -EIO;
      const std::int64_t done = trace_host(PTRACE_PEEKDATA, id, remote(area->memory.host(address)), &word);
      return done != 0 ? done : process_.put(data, word) ? 0 : -EFAULT;
    }
    case PTRACE_POKETEXT:
    case PTRACE_POKEDATA: {
      const auto area = area_of(r, id);
      if (!area || !area->memory.contains(address, sizeof data)) return -EIO;
      const std::int64_t done = trace_host(PTRACE_POKEDATA, id, remote(area->memory.host(address)), host_pointer(data));
      if (done == 0) note_written(r, id, address, sizeof data);
      return done;
    }
    case PTRACE_CONT:
    case PTRACE_SYSCALL:
      return is_signal ? go_on(r, id, request == PTRACE_SYSCALL && !r.foreign, static_cast<int>(data)) : -EIO;
    case PTRACE_DETACH: return is_signal ? detach(r, id, static_cast<int>(data)) : -EIO;
    case PTRACE_LISTEN: return listen(r, id);
    case PTRACE_SETOPTIONS:
    case PTRACE_OLDSETOPTIONS: {
      if ((data & ~kKnownOptions) != 0) return -EINVAL;
      const std::int64_t done = trace_host(PTRACE_SETOPTIONS, id, 0, host_pointer(host_options(data)));
      if (done == 0) r.options = data;
      return done;
    }
    case PTRACE_GETEVENTMSG: return process_.put(data, r.message) ? 0 : -EFAULT;
    case PTRACE_GETSIGINFO: return signal_info(r, id, data, false);
    case PTRACE_SETSIGINFO: return signal_info(r, id, data, true);
    case PTRACE_GETREGSET: return registers(r, id, address, data, false);
    case PTRACE_SETREGSET: return registers(r, id, address, data, true);
    case PTRACE_GET_SYSCALL_INFO: return call_info(r, id, address, data);
    case PTRACE_GETSIGMASK:
    case PTRACE_SETSIGMASK: {
      const auto area = area_of(r, id);
      if (!area || address != sizeof(std::uint64_t)) return -EINVAL;
      if (request == PTRACE_GETSIGMASK) {
        const auto mask = get_remote<std::uint64_t>(id, remote(area->mask));
        return mask && process_.put(data, *mask) ? 0 : -EFAULT;
      }
      auto mask = process_.get<std::uint64_t>(data);
      if (!mask) return -EFAULT;
      *mask &= ~kUnblockable;
      put_remote(id, remote(area->mask), *mask);
      if (r.stop == Stop::kOwn) return 0;
      const std::uint64_t host = *mask & ~kOwnSignals;
      return trace_host(PTRACE_SETSIGMASK, id, sizeof host, const_cast<std::uint64_t*>(&host));
    }
    case PTRACE_PEEKSIGINFO: {
      auto arguments = process_.get<ptrace_peeksiginfo_args>(address);
      if (!arguments) return -EFAULT;
      return trace_host(PTRACE_PEEKSIGINFO, id, remote(&*arguments), process_.pointer(data));
    }
    case PTRACE_GET_RSEQ_CONFIGURATION: {
      const ptrace_rseq_configuration none{};
      const std::uint64_t bytes = std::min<std::uint64_t>(address, sizeof none);
      return process_.write(data, &none, bytes) ? static_cast<std::int64_t>(sizeof none) : -EFAULT;
    }
    default: return -EIO;  // single steps among them, which arch/riscv does not know either
  }
}

// --- Registers.

namespace {

// What the kernel has in registers that the guest's state has not, as it is before the ECALL yet.
struct Shown {
  bool in_call = false;
  std::int64_t a0 = -ENOSYS;
};

struct Guest {
  General general{};
  Floating floating{};
};

std::optional<Guest> read_guest(pid_t id, const TraceArea& area, const Shown& shown) {
  Guest guest;
  if (!read_remote(id, remote(area.x), guest.general.data(), sizeof guest.general) ||
      !read_remote(id, remote(area.pc), guest.general.data(), sizeof guest.general[0]) ||
      !read_remote(id, remote(area.f), guest.floating.f.data(), sizeof guest.floating.f)) {
    return std::nullopt;
  }
  const auto fflags = get_remote<std::uint8_t>(id, remote(area.fflags));
  const auto frm = get_remote<std::uint8_t>(id, remote(area.frm));
  if (!fflags || !frm) return std::nullopt;
  guest.floating.fcsr = *fflags | static_cast<std::uint32_t>(*frm) << 5;
  if (shown.in_call) {
    guest.general[0] += 4;
    guest.general[10] = static_cast<std::uint64_t>(shown.a0);
  }
  return guest;
}

bool write_general(pid_t id, const TraceArea& area, const Shown& shown, const General& before, General now) {
  if (shown.in_call) now[0] -= 4;
  bool done = put_remote(id, remote(area.pc), now[0] & ~std::uint64_t{1});
  for (unsigned i = 1; i < now.size(); ++i) {
    if (now[i] != before[i]) done &= put_remote(id, remote(area.x + i), now[i]);
  }
  return done;
}

bool write_floating(pid_t id, const TraceArea& area, const Floating& now) {
  return write_remote(id, remote(area.f), now.f.data(), sizeof now.f) &&
         put_remote(id, remote(area.fflags), static_cast<std::uint8_t>(now.fcsr & 0x1f)) &&
         put_remote(id, remote(area.frm), static_cast<std::uint8_t>(now.fcsr >> 5 & 7));
}

}  // namespace

std::int64_t Tracer::registers(Record& r, pid_t id, std::uint64_t type, std::uint64_t vector, bool write) {
  auto io = process_.get<iovec>(vector);
  if (!io) return -EFAULT;
  const bool is_general = type == NT_PRSTATUS;
  if ((!is_general && type != NT_FPREGSET) || io->iov_len % sizeof(std::uint64_t) != 0) return -EINVAL;
  const auto area = area_of(r, id);
  if (!area) return -EIO;
  Shown shown;
  switch (r.stop) {
    case Stop::kCallExit: shown = {true, r.host_result}; break;
    case Stop::kCallEntry: shown.in_call = true; break;
    case Stop::kHost: shown.in_call = r.code >> 8 != 0 && r.code >> 8 != PTRACE_EVENT_STOP; break;
    default: break;
  }
  const auto before = read_guest(id, *area, shown);
  if (!before) return -EIO;
  Guest now = *before;
  void* const place = is_general ? static_cast<void*>(&now.general) : &now.floating;
  io->iov_len = std::min<std::size_t>(io->iov_len, is_general ? sizeof now.general : sizeof now.floating);
  const std::uint64_t gva = remote(io->iov_base);
  if (!write) {
    if (!process_.write(gva, place, io->iov_len)) return -EFAULT;
  } else {
    if (!process_.read(gva, place, io->iov_len)) return -EFAULT;
    if (!is_general) {
      if (!write_floating(id, *area, now.floating)) return -EIO;
    } else if (now.general != before->general) {
      if (!write_general(id, *area, shown, before->general, now.general)) return -EIO;
      if (r.in_call && r.stop != Stop::kOwn) {
        if (const std::int64_t failed = leave_host_call(r, id); failed != 0) return failed;
      }
    }
  }
  return process_.put(vector + offsetof(iovec, iov_len), io->iov_len) ? 0 : -EFAULT;
}

// --- Of signals and calls.

std::int64_t Tracer::signal_info(Record& r, pid_t id, std::uint64_t gva, bool write) {
  siginfo_t info{};
  if (write) {
    const auto given = process_.get<siginfo_t>(gva);
    if (!given) return -EFAULT;
    if (r.stop == Stop::kHost) {
      info = *given;
      return trace_host(PTRACE_SETSIGINFO, id, 0, &info);
    }
    if (r.stop == Stop::kOwn) {
      put_remote(id, r.area + offsetof(TraceArea, answer_info), *given);
      put_remote(id, r.area + offsetof(TraceArea, answer_has_info), std::uint32_t{1});
    }
    return 0;
  }
  if (r.stop == Stop::kHost) {
    if (const std::int64_t failed = trace_host(PTRACE_GETSIGINFO, id, 0, &info); failed != 0) return failed;
    return process_.put(gva, info) ? 0 : -EFAULT;
  }
  // As ptrace_do_notify() has it for all but signals.
  info.si_signo = r.code & 0x7f;
  info.si_code = r.code;
  info.si_pid = id;
  info.si_uid = ::getuid();
  if (r.stop == Stop::kOwn) {
    const auto area = area_of(r, id);
    if (!area) return -ESRCH;
    const bool plain = r.code >> 8 == 0;
    if (area->stop == TraceStop::kSignal) info = area->info;
    if (area->stop == TraceStop::kJob && plain) return -EINVAL;
    if ((area->stop == TraceStop::kBegins || area->stop == TraceStop::kExec) && plain) info.si_code = SI_USER;
  }
  return process_.put(gva, info) ? 0 : -EFAULT;
}

std::int64_t Tracer::call_info(Record& r, pid_t id, std::uint64_t bytes, std::uint64_t gva) {
  const auto area = area_of(r, id);
  if (!area) return -ESRCH;
  CallInfo info{};
  info.arch = kAuditArch;
  std::uint64_t size_bytes = offsetof(CallInfo, entry);
  TraceStop stop = r.stop == Stop::kOwn ? area->stop : TraceStop::kNone;
  Shown shown;
  if (r.stop == Stop::kCallExit) {
    stop = TraceStop::kCallExit;
    shown = {true, r.host_result};
  } else if (r.stop == Stop::kCallEntry) {
    stop = TraceStop::kCallEntry;
    shown.in_call = true;
  }
  std::array<std::uint64_t, 18> x{};  // up to a7
  const auto pc = get_remote<std::uint64_t>(id, remote(area->pc));
  if (!pc || !read_remote(id, remote(area->x), x.data(), sizeof x)) return -EIO;
  info.pc = *pc + (shown.in_call ? 4 : 0);
  info.sp = x[2];
  const bool tells = (r.options & kSysGood) != 0;
  if (stop == TraceStop::kCallEntry && tells) {
    info.op = PTRACE_SYSCALL_INFO_ENTRY;
    if (r.stop == Stop::kOwn) {
      info.entry = {area->number, area->arguments};
    } else {
      info.entry.number = r.host_result == kRestartBlock ? kRestartSyscall : x[17];
      for (unsigned i = 0; i < info.entry.arguments.size(); ++i) info.entry.arguments[i] = x[10 + i];
    }
    size_bytes = sizeof info;
  } else if (stop == TraceStop::kCallExit && tells) {
    constexpr std::int64_t kLeastError = -4095;
    info.op = PTRACE_SYSCALL_INFO_EXIT;
    info.exit.result = r.stop == Stop::kOwn ? area->result : r.host_result;
    info.exit.is_error = info.exit.result < 0 && info.exit.result >= kLeastError;
    size_bytes = offsetof(CallInfo, exit.is_error) + 1;
  }
  return process_.write(gva, &info, std::min(bytes, size_bytes)) ? static_cast<std::int64_t>(size_bytes) : -EFAULT;
}

}  // namespace doppel::process
