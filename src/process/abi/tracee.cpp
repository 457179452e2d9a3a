#include "process/abi/tracee.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <utility>

#include "process/abi/linux_process.h"

// So that the tracer knows the place.
asm(R"(
    .text
    .globl doppel_queue_signal
    .type doppel_queue_signal, @function
doppel_queue_signal:
    mov %rcx, %r10
    mov $297, %eax
    syscall
    .globl doppel_signal_queued
doppel_signal_queued:
    ret
)");
static_assert(SYS_rt_tgsigqueueinfo == 297);

namespace doppel::process {

constinit TraceGlobals trace_globals;
constinit thread_local TraceArea* trace_area = nullptr;

void act_on(int number) {
  siginfo_t info{};
  info.si_signo = number;
  info.si_code = kTracePasses;
  doppel_queue_signal(::getpid(), ::gettid(), number, &info);
}

void Tracee::begin(riscv::HartState& state, std::uint64_t& mask, pid_t id) {
  area_.id = id;
  area_.process = ::getpid();
  area_.mask = &mask;
  area_.actions = process_.actions().data();
  area_.memory = process_.flat();
  area_.begun = area_.shows_calls = area_.cloning = 0;
  area_.call = TraceCall::kNone;
  area_.wanted = TraceStop::kNone;
  begin_again(state);
}

void Tracee::begin_again(riscv::HartState& state) {
  show_registers(state);
  trace_area = &area_;
}

void Tracee::end() {
  area_.id = 0;
  if (trace_area == &area_) trace_area = nullptr;
}

void Tracee::inherit(const Tracee& parent) {
  area_.traced = parent.area_.traced;
  area_.attempts = parent.area_.attempts;
}

void Tracee::called_from_handler() {
  if (area_.stop == TraceStop::kNone) return;  // somebody else's idea
  area_.traced = area_.shows_calls = 0;
  area_.attempts = trace_globals.attempts.load();
  area_.wanted = TraceStop::kNone;
  // A signal is delivered as if it had not been shown.
  area_.answer = area_.stop == TraceStop::kSignal ? area_.info.si_signo : 0;
  area_.answer_has_info = 0;
}

void Tracee::stand(TraceStop stop) {
  const std::uint64_t guest_mask = *area_.mask;
  const std::uint64_t mask = exchange_host_mask(~kOwnSignals);
  area_.stop = stop;
  area_.answer = 0;
  area_.answer_has_info = 0;
  siginfo_t info{};
  info.si_signo = kTraceSignal;
  info.si_code = kTraceStops;
  if (doppel_queue_signal(area_.process, area_.id, kTraceSignal, &info) != 0) called_from_handler();
  // What is behind this was written by another process, or our handler.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  area_.stop = TraceStop::kNone;
  set_host_mask(*area_.mask == guest_mask ? mask : *area_.mask & ~kOwnSignals);
  heed_written();
}

// Several threads may go on at once, and none shall run what another one is about to forget.
void Tracee::heed_written() {
  static std::mutex mutex;
  TraceGlobals& all = trace_globals;
  if (all.writes.load() == all.writes_heeded.load()) return;
  const std::lock_guard lock(mutex);
  const std::uint32_t writes = all.writes.load();
  if (writes == all.writes_heeded.load()) return;
  const std::uint64_t first = all.first_written, last = all.last_written;
  if (first < last) process_.code_changed(first, last - first);
  all.writes_heeded = writes;
}

// A signal that comes of such a stop is sent, and shown again (ptrace_report_syscall() in Linux).
void Tracee::send_answer() {
  if (const int number = std::exchange(area_.answer, 0); number != 0) {
    ::syscall(SYS_tgkill, ::getpid(), ::gettid(), number);
  }
}

void Tracee::tell_begin() {
  const bool started = trace_globals.started_traced.exchange(0) != 0;
  if (started) area_.traced = 1;
  if (may_be_traced()) stand(started ? TraceStop::kExec : TraceStop::kBegins);
  const int answer = std::exchange(area_.answer, 0);
  area_.begun = 1;
  if (answer != 0) ::syscall(SYS_tgkill, ::getpid(), ::gettid(), answer);
  // The end of execve(). A new thread stops when it has left the call that made it.
  if (started && area_.traced != 0) leave_traced_call(0);
}

bool Tracee::enter_traced_call(riscv::HartState& state, std::uint64_t& next) {
  heed_written();
  area_.call = TraceCall::kNone;
  if (area_.shows_calls == 0) return true;
  // As do_trap_ecall_u() in arch/riscv has it.
  const std::uint64_t at = state.pc, argument = state.x[10];
  area_.number = state.x[17];
  for (unsigned i = 0; i < area_.arguments.size(); ++i) area_.arguments[i] = state.x[10 + i];
  state.x[10] = static_cast<std::uint64_t>(-ENOSYS);
  state.pc = next;
  area_.call = TraceCall::kEntered;
  stand(TraceStop::kCallEntry);
  send_answer();
  next = std::exchange(state.pc, at);
  if (static_cast<std::int64_t>(state.x[17]) == -1) return false;
  state.x[10] = argument;
  return true;
}

void Tracee::leave_traced_call(std::int64_t value) {
  heed_written();
  const TraceCall call = std::exchange(area_.call, TraceCall::kNone);
  if (area_.shows_calls == 0 || call == TraceCall::kLeft) return;
  if (value == kShownRestart && call != TraceCall::kEntered) return;
  area_.result = value;
  stand(TraceStop::kCallExit);
  send_answer();
}

std::optional<siginfo_t> Tracee::admit(const siginfo_t& info) {
  if (!may_be_traced()) return info;
  area_.info = info;
  stand(TraceStop::kSignal);
  const int number = std::exchange(area_.answer, 0);
  if (number == 0) return std::nullopt;
  if (area_.answer_has_info != 0) return area_.answer_info;
  if (number == info.si_signo) return info;
  siginfo_t other{};  // as ptrace_signal() in Linux
  other.si_signo = number;
  other.si_code = SI_USER;
  other.si_pid = ::getppid();
  other.si_uid = ::getuid();
  return other;
}

std::optional<siginfo_t> Tracee::serve(std::uint64_t mask) {
  const TraceStop wanted = std::exchange(area_.wanted, TraceStop::kNone);
  const siginfo_t info = area_.wanted_info;
  if (wanted == TraceStop::kJob) {
    area_.info = info;
    stand(TraceStop::kJob);
    return std::nullopt;
  }
  if (wanted != TraceStop::kSignal) return std::nullopt;
  if ((mask & signal_bit(info.si_signo)) == 0) return admit(info);
  // Blocked by now: it waits, and will be shown when it comes again.
  ::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), ::gettid(), info.si_signo, &info);
  return std::nullopt;
}

}  // namespace doppel::process
