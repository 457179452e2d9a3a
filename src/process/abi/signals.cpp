#include "process/abi/signals.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "engine/host_fault.h"
#include "process/abi/host_call.h"
#include "process/abi/thread.h"
#include "process/abi/tracee.h"

extern "C" void doppel_signal_return();
asm(R"(
    .text
    .type doppel_signal_return, @function
doppel_signal_return:
    mov $15, %eax
    syscall
)");

namespace doppel::process {
namespace {

// struct sigaction of x86-64's kernel
struct HostAction {
  void* handler;
  std::uint64_t flags;
  void (*restorer)();
  std::uint64_t mask;
};
constexpr std::uint64_t kHostRestorer = 0x04000000;  // SA_RESTORER
constexpr std::uint64_t kPassedOn = SA_RESTART | SA_NOCLDSTOP | SA_NOCLDWAIT;

void host_action(int number, const HostAction* now, HostAction* before) {
  ::syscall(SYS_rt_sigaction, number, now, before, sizeof(std::uint64_t));
}

// On the thread that the host's kernel chose, anywhere in it: only what is async-signal-safe.
void on_signal(int number, siginfo_t* info, void* raw) {
  ucontext_t& context = *static_cast<ucontext_t*>(raw);
  // A fault of this very instruction, and not somebody's kill().
  if ((number == SIGSEGV || number == SIGBUS) && info->si_code > 0) {
    if (leave_guarded_access(context) || recover_guest_fault(number, context)) return;
    const HostAction action{reinterpret_cast<void*>(SIG_DFL), 0, nullptr, 0};
    host_action(number, &action, nullptr);
    return;  // to the fault again, which is Doppel's own
  }
  GuestThread* thread = GuestThread::running();
  if (number == kTraceSignal && (info->si_code == kTraceStops || info->si_code == kTraceCalls)) {
    if (thread == nullptr) return;
    if (info->si_code == kTraceStops) return thread->tracee().called_from_handler();
    thread->call_for_tracer();
    return leave_interrupted_call(context);
  }
  if (thread != nullptr) {
    thread->file_signal(*info);
    leave_interrupted_call(context);
  } else {
    // A thread of ours, or one that begins or ends: another one's, which has this signal unblocked from now on.
    ::syscall(SYS_rt_sigqueueinfo, ::getpid(), number, info);
  }
  // The kernel's mask is 64 bits, of which the C library's type is no more than the beginning.
  constexpr std::uint64_t kAllOthers = ~kOwnSignals;
  std::memcpy(&context.uc_sigmask, &kAllOthers, sizeof kAllOthers);
}

// What signal(7) says of default actions.
bool is_deadly(int number) {
  switch (number) {
    case SIGCHLD: case SIGCONT: case SIGURG: case SIGWINCH: return false;
    case SIGSTOP: case SIGTSTP: case SIGTTIN: case SIGTTOU: return false;
    default: return number != SIGKILL;
  }
}

}  // namespace

SignalActions::SignalActions(const SignalActions& other) {
  const std::lock_guard lock(other.mutex_);
  actions_ = other.actions_;
}

void SignalActions::inherit() {
  const std::lock_guard lock(mutex_);
  for (int number = 1; number <= static_cast<int>(kSignals); ++number) {
    HostAction action{};
    host_action(number, nullptr, &action);
    if (action.handler == reinterpret_cast<void*>(SIG_IGN)) actions_[number].handler = SignalAction::kIgnore;
    if ((kOwnSignals & signal_bit(number)) != 0) tell_host(number);
  }
}

void SignalActions::catch_deadly(bool catches) {
  const std::lock_guard lock(mutex_);
  catches_deadly_ = catches;
  for (int number = 1; number <= static_cast<int>(kSignals); ++number) tell_host(number);
}

SignalAction SignalActions::get(int number) const {
  const std::lock_guard lock(mutex_);
  return actions_[number];
}

SignalAction SignalActions::set(int number, SignalAction action) {
  // What Linux keeps: flags that exist (UAPI_SA_FLAGS), and what can be blocked.
  constexpr std::uint64_t kFlags = SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER |
                                   static_cast<std::uint32_t>(SA_RESETHAND) | 0x800;  // SA_EXPOSE_TAGBITS
  action.flags &= kFlags;
  action.mask &= ~kUnblockable;
  const std::lock_guard lock(mutex_);
  std::swap(actions_[number], action);
  tell_host(number);
  return action;
}

SignalAction SignalActions::take(int number) {
  const std::lock_guard lock(mutex_);
  const SignalAction action = actions_[number];
  if (action.is_handler() && (action.flags & static_cast<std::uint32_t>(SA_RESETHAND)) != 0) {
    actions_[number].handler = SignalAction::kDefault;
    tell_host(number);
  }
  return action;
}

void SignalActions::clear_handlers() {
  const std::lock_guard lock(mutex_);
  for (int number = 1; number <= static_cast<int>(kSignals); ++number) {
    if (!actions_[number].is_handler()) continue;
    actions_[number] = {};
    tell_host(number);
  }
}

void SignalActions::take_back(int number) {
  const std::lock_guard lock(mutex_);
  tell_host(number);
}

void SignalActions::show_own_signals(bool show) {
  const std::lock_guard lock(mutex_);
  for (const int number : {SIGSEGV, SIGBUS}) {
    if (actions_[number].handler != SignalAction::kIgnore) continue;
    const HostAction ignore{reinterpret_cast<void*>(SIG_IGN), 0, nullptr, 0};
    if (show) {
      host_action(number, &ignore, nullptr);
    } else {
      tell_host(number);
    }
  }
}

void SignalActions::tell_host(int number) const {
  const SignalAction& action = actions_[number];
  const bool own = (kOwnSignals & signal_bit(number)) != 0;
  HostAction host{reinterpret_cast<void*>(action.handler), action.flags & kPassedOn, nullptr, 0};
  if (!action.is_handler() && catches_deadly_ && is_deadly(number) && action.handler == SignalAction::kDefault) {
    // A call goes on if the debugger lets nothing come of the signal.
    host = {reinterpret_cast<void*>(&on_signal), SA_RESTART | SA_SIGINFO | kHostRestorer, &doppel_signal_return,
            ~std::uint64_t{0}};
  } else if (own || action.is_handler()) {
    host = {reinterpret_cast<void*>(&on_signal), (action.flags & kPassedOn) | SA_SIGINFO | kHostRestorer,
            &doppel_signal_return, ~std::uint64_t{0}};
  }
  host_action(number, &host, nullptr);
}

std::uint64_t host_mask() {
  std::uint64_t mask = 0;
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, nullptr, &mask, sizeof mask);
  return mask;
}

std::uint64_t exchange_host_mask(std::uint64_t mask) {
  std::uint64_t before = 0;
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &before, sizeof mask);
  return before;
}

void set_host_mask(std::uint64_t mask) {
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, nullptr, sizeof mask);
}

void die_by(int number) {
  // A core would show Doppel and not the guest.
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  const HostAction action{reinterpret_cast<void*>(SIG_DFL), 0, nullptr, 0};
  host_action(number, &action, nullptr);
  set_host_mask(~signal_bit(number));
  act_on(number);
  ::_exit(128 + number);
}

}  // namespace doppel::process
