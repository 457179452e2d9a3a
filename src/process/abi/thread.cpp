#include "process/abi/thread.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <mutex>
#include <thread>
#include <utility>

#include "base/log.h"
#include "engine/program_engines.h"
#include "process/abi/debug_threads.h"
#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

// Ours only: the guest has its own.
constexpr std::size_t kHostStackBytes = kProgramStackBytes;
constexpr std::uint64_t kCloneClearHandlers = std::uint64_t{1} << 32;  // CLONE_CLEAR_SIGHAND
constexpr std::uint32_t kAutoDisarm = 1u << 31;                        // SS_AUTODISARM
constexpr int kLibrarySignal = 33;                                     // SIGSETXID of nptl

// Read by the signal handler: of the executable itself, so that reading it calls nothing.
thread_local GuestThread* running_thread = nullptr;

}  // namespace

struct GuestThread::Registers {
  std::array<u64, 33> x;
  std::array<u64, 32> f;
  u64 pc;
  std::uint8_t fflags, frm;
};

GuestThread::GuestThread(LinuxProcess& process, std::unique_ptr<Processor> processor, u64 mask)
    : process_(process), processor_(std::move(processor)), mask_(mask & ~kUnblockable), tracee_(process) {}

GuestThread::~GuestThread() = default;

GuestThread* GuestThread::running() { return running_thread; }

GuestThread& GuestThread::current() {
  assert(running_thread != nullptr);
  return *running_thread;
}

int GuestThread::run() {
  running_thread = this;
  id_ = ::gettid();
  process_.add(*this);
  tracee_.begin(hart().state(), mask_, id_);
  open_mask();
  while (!ended_) {
    if (std::exchange(fresh_, false)) tracee_.tell_begin();
    if (DebugThreads* debugger = process_.debugger(); debugger != nullptr) {
      debugger->run(*this, *processor_->engine);
    } else {
      processor_->engine->run(kUnlimited);
    }
    hart().clear_stop();
    if (outside_ != nullptr) carry_out(std::exchange(outside_, nullptr));
    if (!ended_) deliver_signals();
  }
  block_host_signals();
  // What came for the process is for another thread to deliver.
  if ((signal_waiting_.load() & kFiled) != 0 && waiting_.si_code != SI_TKILL) {
    ::syscall(SYS_rt_sigqueueinfo, ::getpid(), waiting_.si_signo, &waiting_);
  }
  release_robust_list();
  process_.remove(*this);
  tracee_.end();
  running_thread = nullptr;
  if (!borrows_) process_.shared().give_back(std::move(processor_));
  ended_whole_ = true;
  if (clear_at_exit != 0) {
    // As mm_release() in Linux; who waits there may be another process.
    const std::uint32_t zero = 0;
    if (process_.put(clear_at_exit, zero)) {
      ::syscall(SYS_futex, process_.pointer(clear_at_exit), FUTEX_WAKE, 1, nullptr, nullptr, 0);
    }
  }
  return status_;
}

void GuestThread::trap(riscv::Trap trap, u64 epc) {
  riscv::Hart& hart = this->hart();
  riscv::HartState& state = hart.state();
  state.pc = epc;
  if (trap.cause == riscv::Exception::kUserCall) {
    // Nobody waits for a hart that may wait here.
    hart.end_run();
    DebugThreads* const debugger = process_.debugger();
    if (debugger != nullptr) debugger->enter_call(*this);
    u64 next = epc + 4;
    const std::int64_t value =
        tracee_.enter_call(state, next) ? system_call(process_) : static_cast<std::int64_t>(state.x[10]);
    if (debugger != nullptr) debugger->leave_call(*this);
    if (value != kRestart) {
      state.pc = next;
      state.x[10] = static_cast<u64>(value);
    }
    if (outside_ == nullptr) tracee_.leave_call(value == kRestart ? Tracee::kShownRestart : value);
    hart.begin_run();
    return;
  }
  // As the tables of arch/riscv/kernel/traps.c and mm/fault.c have it: what is wrong with a page shows its address,
  // everything else the instruction's.
  siginfo_t info{};
  u64 address = epc;
  switch (trap.cause) {
    case riscv::Exception::kIllegalInstruction: info.si_signo = SIGILL, info.si_code = ILL_ILLOPC; break;
    case riscv::Exception::kBreakpoint: info.si_signo = SIGTRAP, info.si_code = TRAP_BRKPT; break;
    case riscv::Exception::kInstructionMisaligned:
    case riscv::Exception::kLoadMisaligned:
    case riscv::Exception::kStoreMisaligned: info.si_signo = SIGBUS, info.si_code = BUS_ADRALN; break;
    // What the engines call so is the host's SIGBUS: a mapping reaches beyond the end of its file.
    case riscv::Exception::kInstructionAccessFault:
    case riscv::Exception::kLoadAccessFault:
    case riscv::Exception::kStoreAccessFault:
      info.si_signo = SIGBUS, info.si_code = BUS_ADRERR;
      address = trap.value;
      break;
    default:
      info.si_signo = SIGSEGV;
      info.si_code = process_.space().allows(trap.value, PROT_NONE) ? SEGV_ACCERR : SEGV_MAPERR;
      address = trap.value;
  }
  info.si_addr = reinterpret_cast<void*>(address);  // the guest's, for the guest
  fault_ = info;
  hart.request_stop();
}

std::int64_t GuestThread::outside(Outside function) {
  outside_ = function;
  hart().request_stop();
  return kRestart;
}

void GuestThread::carry_out(Outside function) {
  constexpr u64 kSignalReturn = 139;
  const u64 number = hart().state().x[17];
  const std::int64_t value = function(*this);
  if (ended_ || fresh_) return;
  riscv::HartState& state = hart().state();
  if (value == kRestart) {
    return tracee_.leave_call(number == kSignalReturn ? static_cast<std::int64_t>(state.x[10]) : Tracee::kShownRestart);
  }
  trace_rest(process_, number, value);
  state.pc += 4;
  state.x[10] = static_cast<u64>(value);
  tracee_.leave_call(value);
}

void GuestThread::end(int status) {
  ended_ = true;
  status_ = status;
}

void GuestThread::end_process(int status) {
  block_host_signals();
  release_robust_list();
  ended_whole_ = true;
  process_.tell_end(*this);
  process_.tell_debugger(*this, status, false);
  ::_exit(status);
}

// --- Signals.

void GuestThread::file_signal(const siginfo_t& info) {
  const u64 bit = signal_bit(info.si_signo);
  const bool blocked = (mask_ & bit) != 0;
  if ((bit & kOwnSignals) != 0 && (blocked || (signal_waiting_.load(std::memory_order_relaxed) & kFiled) != 0)) {
    held_info_[info.si_signo == SIGBUS] = info;
    held_.fetch_or(bit);
  } else {
    waiting_ = info;
    signal_waiting_.fetch_or(kFiled, std::memory_order_release);
  }
  // Only an atomic of the hart's: nobody sleeps in it in U-mode. A child may have it just now.
  if (processor_ != nullptr) hart().request_stop();
}

void GuestThread::call_for_tracer() {
  signal_waiting_.fetch_or(kCalled, std::memory_order_release);
  if (processor_ != nullptr) hart().request_stop();
}

void GuestThread::open_mask() {
  if (deaf_) return;
  if (signal_waiting_.load(std::memory_order_acquire) == 0) set_host_mask(mask_ & ~kOwnSignals);
}

std::int64_t GuestThread::set_signal_mask(u64 mask) {
  mask &= ~kUnblockable;
  if (!deaf_) {
    const u64 host = mask & ~kOwnSignals;
    const std::int64_t result = host_call(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<u64>(&host), 0, sizeof host);
    if (result != 0) return result;
  }
  mask_ = mask;
  if (held_signals() == 0 && held_.load() != 0) hart().request_stop();
  return 0;
}

u64 GuestThread::held_signals() const { return held_.load() & mask_; }

void GuestThread::deliver_signals() {
  for (;;) {
    DebugThreads* const debugger = process_.debugger();
    if (const int made_up = debugger != nullptr ? debugger->take_signal(*this) : 0; made_up != 0) {
      block_host_signals();
      siginfo_t info{};
      info.si_signo = made_up;
      info.si_code = SI_USER;
      info.si_pid = ::getpid();
      info.si_uid = ::getuid();
      deliver(info, false);
    } else if (const std::uint32_t waiting = signal_waiting_.load(std::memory_order_acquire); (waiting & kCalled) != 0) {
      signal_waiting_.fetch_and(~kCalled);
      block_host_signals();
      if (const auto info = tracee_.serve(mask_)) deliver(*info, false);
    } else if (fault_) {
      block_host_signals();
      const siginfo_t info = *std::exchange(fault_, std::nullopt);
      if (const auto admitted = tracee_.admit(info)) deliver(*admitted, admitted->si_signo == info.si_signo);
      if ((signal_waiting_.load() & kFiled) != 0 && (mask_ & signal_bit(waiting_.si_signo)) != 0) {
        // The handler of the fault blocks it.
        ::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), id_, waiting_.si_signo, &waiting_);
        signal_waiting_.fetch_and(~kFiled);
      }
    } else if ((waiting & kFiled) != 0) {
      const siginfo_t info = waiting_;
      signal_waiting_.fetch_and(~kFiled, std::memory_order_release);
      deliver(info, false);
    } else if (const u64 ready = held_.load() & ~mask_; ready != 0) {
      block_host_signals();
      const int number = (ready & signal_bit(SIGSEGV)) != 0 ? SIGSEGV : SIGBUS;
      held_.fetch_and(~signal_bit(number));
      if (const auto info = tracee_.admit(held_info_[number == SIGBUS])) deliver(*info, false);
    } else {
      return;
    }
    open_mask();
  }
}

void GuestThread::deliver(siginfo_t info, bool forced) {
  if (DebugThreads* debugger = process_.debugger(); debugger != nullptr) {
    info.si_signo = debugger->admit_signal(*this, info.si_signo);
    if (info.si_signo == 0) return;
  }
  const int number = info.si_signo;
  SignalAction action = process_.actions().take(number);
  // What the program did itself cannot be put off (force_sig_info() in Linux).
  if (forced && ((mask_ & signal_bit(number)) != 0 || !action.is_handler())) action.handler = SignalAction::kDefault;
  if (action.is_handler()) {
    if (push_frame(info, action)) return;
    log_info("no room for a signal frame at {:#x}", hart().state().x[2]);
    action.handler = SignalAction::kDefault;
    if (number != SIGSEGV) {
      siginfo_t fault{};
      fault.si_signo = SIGSEGV;
      fault.si_code = SI_KERNEL;
      return deliver(fault, true);
    }
  }
  if (action.handler == SignalAction::kIgnore) return;
  switch (number) {
    case SIGCHLD: case SIGCONT: case SIGURG: case SIGWINCH: return;
    case SIGSTOP: case SIGTSTP: case SIGTTIN: case SIGTTOU:
      act_on(number);
      return;
    default: break;
  }
  const riscv::HartState& state = hart().state();
  log_info("signal {} at pc {:#x}, address {}", number, state.pc, info.si_addr);
  for (unsigned r = 1; r < 32; r += 4) {
    log_info("x{:<2} {:016x} {:016x} {:016x} {:016x}", r, state.x[r], r + 1 < 32 ? state.x[r + 1] : 0,
             r + 2 < 32 ? state.x[r + 2] : 0, r + 3 < 32 ? state.x[r + 3] : 0);
  }
  process_.save_code();
  process_.tell_debugger(*this, number, true);
  die_by(number);
}

bool GuestThread::push_frame(const siginfo_t& info, const SignalAction& action) {
  riscv::HartState& state = hart().state();
  u64 sp = state.x[2];
  // sigsp() and get_sigframe() in Linux: an overflow of the alternate stack is an error, not a wrap to its top.
  if (on_signal_stack(sp) && !on_signal_stack(sp - sizeof(SignalFrame))) return false;
  if ((action.flags & SA_ONSTACK) != 0 && stack_.size_bytes != 0 && !on_signal_stack(sp)) {
    sp = stack_.sp + stack_.size_bytes;
  }
  sp = (sp - sizeof(SignalFrame)) & ~u64{15};
  if (!process_.put(sp, make_signal_frame(state, info, mask_, stack_))) return false;
  state.x[1] = process_.shared().vdso().signal_return();
  state.x[2] = sp;
  state.x[10] = static_cast<u64>(info.si_signo);
  state.x[11] = sp + offsetof(SignalFrame, info);
  state.x[12] = sp + offsetof(SignalFrame, flags);
  state.pc = action.handler & ~u64{1};
  state.reservation = riscv::HartState::kNoReservation;
  mask_ |= action.mask;
  if ((action.flags & SA_NODEFER) == 0) mask_ |= signal_bit(info.si_signo);
  mask_ &= ~kUnblockable;
  if ((static_cast<std::uint32_t>(stack_.flags) & kAutoDisarm) != 0) stack_ = {.flags = SS_DISABLE};
  return true;
}

std::int64_t GuestThread::return_from_signal() {
  riscv::HartState& state = hart().state();
  const auto frame = process_.get<SignalFrame>(state.x[2]);
  if (frame) {
    if (const std::int64_t masked = set_signal_mask(frame->mask); masked == kRestart) return kRestart;
    if (load_signal_frame(state, *frame)) {
      set_signal_stack(frame->stack);
      return kRestart;  // pc is where it shall be
    }
  }
  siginfo_t info{};
  info.si_signo = SIGSEGV;
  info.si_code = SI_KERNEL;
  raise(info);
  return kRestart;
}

bool GuestThread::on_signal_stack(u64 sp) const {
  if ((static_cast<std::uint32_t>(stack_.flags) & kAutoDisarm) != 0) return false;
  return sp > stack_.sp && sp - stack_.sp <= stack_.size_bytes;
}

SignalStack GuestThread::signal_stack() const {
  SignalStack shown = stack_;
  const std::uint32_t kept = static_cast<std::uint32_t>(stack_.flags) & kAutoDisarm;
  const std::uint32_t state = stack_.size_bytes == 0                         ? SS_DISABLE
                              : on_signal_stack(processor_->hart->state().x[2]) ? SS_ONSTACK
                                                                             : 0;
  shown.flags = static_cast<std::int32_t>(kept | state);
  return shown;
}

std::int64_t GuestThread::set_signal_stack(const SignalStack& stack) {
  constexpr u64 kLeastBytes = 2048;  // MINSIGSTKSZ
  if (on_signal_stack(hart().state().x[2])) return -EPERM;
  const std::uint32_t mode = static_cast<std::uint32_t>(stack.flags) & ~kAutoDisarm;
  if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0) return -EINVAL;
  if (mode == SS_DISABLE) {
    stack_ = {.flags = stack.flags};
    return 0;
  }
  if (stack.size_bytes < kLeastBytes) return -ENOMEM;
  stack_ = stack;
  return 0;
}

// --- The end of a thread.

// exit_robust_list() in Linux. The list is the guest's and may be anything.
void GuestThread::release_robust_list() {
  struct Head {
    u64 next, offset, pending;
  };
  constexpr unsigned kLongest = 2048;  // ROBUST_LIST_LIMIT
  if (robust_list == 0) return;
  const auto head = process_.get<Head>(robust_list);
  if (!head) return;
  const auto release = [&](u64 entry, bool pending) {
    const u64 gva = (entry & ~u64{1}) + head->offset;
    const bool inherits_priority = (entry & 1) != 0;
    if (gva % 4 != 0 || !process_.flat().contains(gva, 4)) return;
    auto* word = reinterpret_cast<std::uint32_t*>(process_.pointer(gva));
    std::uint32_t value = 0;
    if (!process_.read(gva, &value, sizeof value)) return;
    const auto wake = [&] { ::syscall(SYS_futex, word, FUTEX_WAKE, 1, nullptr, nullptr, 0); };
    if (pending && !inherits_priority && (value & FUTEX_TID_MASK) == 0) return wake();
    while ((value & FUTEX_TID_MASK) == static_cast<std::uint32_t>(id_)) {
      const int done = guarded_compare_exchange(word, value, (value & FUTEX_WAITERS) | FUTEX_OWNER_DIED);
      if (done < 0) return;
      if (done == 0) continue;
      if (!inherits_priority && (value & FUTEX_WAITERS) != 0) wake();
      return;
    }
  };
  u64 entry = head->next;
  for (unsigned i = 0; i < kLongest && (entry & ~u64{1}) != robust_list; ++i) {
    // Read before: the entry is its next owner's once it is released.
    const auto next = process_.get<u64>(entry & ~u64{1});
    if ((entry & ~u64{1}) != (head->pending & ~u64{1})) release(entry, false);
    if (!next) break;
    entry = *next;
  }
  if (head->pending != 0) release(head->pending, true);
}

// --- New threads and processes.

GuestThread::Registers GuestThread::registers() {
  const riscv::HartState& state = hart().state();
  return {state.x, state.f, state.pc, state.fflags, state.frm};
}

void GuestThread::set_registers(const Registers& registers) {
  riscv::HartState& state = hart().state();
  state.x = registers.x;
  state.f = registers.f;
  state.pc = registers.pc;
  state.fflags = registers.fflags;
  state.frm = registers.frm;
  state.reservation = riscv::HartState::kNoReservation;
}

// A child's first steps, on its own thread or in its own process: what the call that made it asks of it. Its registers
// are its parent's at the ECALL.
void GuestThread::begin(const CloneRequest& request) {
  riscv::HartState& state = hart().state();
  state.pc += 4;
  state.x[10] = 0;
  if (request.stack != 0) state.x[2] = request.stack;
  if ((request.flags & CLONE_SETTLS) != 0) state.x[4] = request.tls;
  if ((request.flags & kCloneClearHandlers) != 0) process_.actions().clear_handlers();
  const pid_t self = ::gettid();
  if ((request.flags & CLONE_CHILD_SETTID) != 0) process_.put(request.child_tid, self);
  if ((request.flags & (CLONE_PARENT_SETTID | CLONE_VM | CLONE_THREAD)) == (CLONE_PARENT_SETTID | CLONE_VM)) {
    process_.put(request.parent_tid, self);
  }
  clear_at_exit = (request.flags & CLONE_CHILD_CLEARTID) != 0 ? request.child_tid : 0;
  robust_list = 0;
}

std::int64_t GuestThread::clone(const CloneRequest& request) {
  // As a system call that has not begun while a signal waits: the child must not get it, too.
  block_host_signals();
  if (signal_waiting_.load() != 0) return kRestart;
  const std::int64_t child = (request.flags & CLONE_THREAD) != 0 ? clone_thread(request)
                             : (request.flags & CLONE_VM) == 0   ? fork(request)
                             : (request.flags & CLONE_VFORK) != 0 ? clone_borrowing(request)
                                                                  : clone_carried(request);
  if (child > 0 && (request.flags & (CLONE_PARENT_SETTID | CLONE_VM)) == CLONE_PARENT_SETTID) {
    process_.put(request.parent_tid, static_cast<pid_t>(child));
  }
  open_mask();
  return child;
}

namespace {

struct ThreadStart {
  std::unique_ptr<GuestThread> thread;
  CloneRequest request;
  std::atomic<pid_t> id{0};

  // Before either thread goes on, and no later: when the new one ends it clears what is often the same word.
  void tell_parent(LinuxProcess& process, pid_t child) {
    std::call_once(parent_told_, [&] {
      if ((request.flags & CLONE_PARENT_SETTID) != 0) process.put(request.parent_tid, child);
    });
  }

 private:
  std::once_flag parent_told_;
};

}  // namespace

// The C library's first thread has it install a handler of its own for a signal that is the guest's.
void GuestThread::prepare_for_threads() {
  static std::once_flag installed;
  std::call_once(installed, [this] {
    std::thread([] {}).join();
    process_.actions().take_back(kLibrarySignal);
    block_host_signals();
  });
}

std::int64_t GuestThread::clone_thread(const CloneRequest& request) {
  auto processor = process_.shared().take_processor();
  if (!processor) {
    log_warning("no thread: {}", processor.error().message);
    return -EAGAIN;
  }
  prepare_for_threads();
  auto start = std::make_shared<ThreadStart>();
  start->request = request;
  start->thread = std::make_unique<GuestThread>(process_, std::move(*processor), mask_);
  start->thread->set_registers(registers());
  start->thread->tracee_.inherit(tracee_);
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, kHostStackBytes);
  pthread_t handle{};
  auto* argument = new std::shared_ptr<ThreadStart>(start);
  tracee_.set_cloning(PTRACE_EVENT_CLONE);
  const int failed = ::pthread_create(&handle, &attributes, &thread_main, argument);
  tracee_.set_cloning(0);
  ::pthread_attr_destroy(&attributes);
  if (failed != 0) {
    delete argument;
    process_.shared().give_back(std::move(start->thread->processor_));
    return -EAGAIN;
  }
  // The new thread's id, without a wait until it first runs: a clock of a thread has it in its upper bits, inverted
  // (CPUCLOCK_PID in the kernel's posix-timers.h). A thread that has ended already has told it before.
  clockid_t clock = 0;
  const bool has_clock = ::pthread_getcpuclockid(handle, &clock) == 0;
  ::pthread_detach(handle);
  pid_t id = start->id.load(std::memory_order_acquire);
  if (id == 0 && has_clock) id = ~(clock >> 3);
  if (id == 0) {
    start->id.wait(0, std::memory_order_acquire);
    id = start->id.load(std::memory_order_acquire);
  }
  start->tell_parent(process_, id);
  return id;
}

void* GuestThread::thread_main(void* argument) {
  std::shared_ptr<ThreadStart> start = std::move(*static_cast<std::shared_ptr<ThreadStart>*>(argument));
  delete static_cast<std::shared_ptr<ThreadStart>*>(argument);
  const std::unique_ptr<GuestThread> thread = std::move(start->thread);
  // The C library's threads share these with their creators.
  const int apart = (start->request.flags & CLONE_FS) == 0 ? CLONE_FS : 0;
  const int files_apart = (start->request.flags & CLONE_FILES) == 0 ? CLONE_FILES : 0;
  if ((apart | files_apart) != 0) ::unshare(apart | files_apart);
  thread->begin(start->request);
  start->tell_parent(thread->process_, ::gettid());
  start->id.store(::gettid(), std::memory_order_release);
  start->id.notify_all();
  start.reset();
  const int status = thread->run();
  if (thread->is_first_) {
    for (;;) ::syscall(SYS_exit, status);
  }
  return nullptr;
}

namespace {

struct BorrowerStart {
  GuestThread* thread;
  const CloneRequest* request;
  std::atomic<pid_t>* told;  // gets the child's id before it begins
};

}  // namespace

// vfork(): the child runs in our memory on our hart, which we do not need until it is gone.
std::int64_t GuestThread::clone_borrowing(const CloneRequest& request, std::atomic<pid_t>* told) {
  Registers mine = registers();
  DebugThreads* const debugger = process_.debugger();
  if (debugger != nullptr) debugger->suspend(*this);
  const std::unique_ptr<LinuxProcess> process = process_.borrower();
  GuestThread child(*process, std::move(processor_), mask_);
  child.borrows_ = child.is_first_ = true;
  child.deaf_ = told == nullptr;
  child.stack_ = stack_;
  child.tracee_.inherit(tracee_);
  tracee_.show_registers(mine);
  void* stack = ::mmap(nullptr, kHostStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  std::int64_t id = -ENOMEM;
  if (stack != MAP_FAILED) {
    // An earlier child's frames never ended.
    ASAN_UNPOISON_MEMORY_REGION(stack, kHostStackBytes);
    BorrowerStart start{&child, &request, told};
    constexpr u64 kOurs = CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID |
                          CLONE_SIGHAND | kCloneClearHandlers;
    const int flags = static_cast<int>(request.flags & ~kOurs) | request.exit_signal;
    tracee_.set_cloning(told == nullptr ? PTRACE_EVENT_VFORK : 0);
    id = result(::clone(&borrower_main, static_cast<std::byte*>(stack) + kHostStackBytes, flags, &start,
                        process_.pointer(request.pidfd)));
    tracee_.set_cloning(0);
    ::munmap(stack, kHostStackBytes);
  }
  running_thread = this;
  processor_ = std::move(child.processor_);
  if (id > 0 && !child.ended_whole_) {
    // It was killed, and the engine may be in the middle of something.
    if (auto renewed = process_.shared().renew_engine(*processor_); !renewed) {
      log_error("{}", renewed.error().message);
      ::_exit(125);
    }
  }
  hart().clear_stop();
  set_registers(mine);
  tracee_.begin_again(hart().state());
  if (debugger != nullptr) debugger->resume_suspended(*this);
  return id;
}

int GuestThread::borrower_main(void* argument) {
  const BorrowerStart& start = *static_cast<BorrowerStart*>(argument);
  running_thread = start.thread;
  start.thread->begin(*start.request);
  if (start.told != nullptr) {
    start.told->store(::gettid(), std::memory_order_release);
    start.told->notify_all();
  }
  ::_exit(start.thread->run());
}

namespace {

struct CarrierStart {
  std::unique_ptr<GuestThread> thread;
  CloneRequest request;
  std::atomic<pid_t> told{0};  // or -errno
};

}  // namespace

// A child that shares memory, and nobody waits for it: a thread of ours does in its parent's place, as a host process
// needs what the C library keeps of a thread.
std::int64_t GuestThread::clone_carried(const CloneRequest& request) {
  auto processor = process_.shared().take_processor();
  if (!processor) return -EAGAIN;
  prepare_for_threads();
  auto start = std::make_shared<CarrierStart>();
  start->request = request;
  start->request.flags |= CLONE_VFORK;
  start->thread = std::make_unique<GuestThread>(process_, std::move(*processor), mask_);
  start->thread->set_registers(registers());
  start->thread->tracee_.inherit(tracee_);
  auto* argument = new std::shared_ptr<CarrierStart>(start);
  pthread_t handle{};
  if (::pthread_create(&handle, nullptr, &carrier_main, argument) != 0) {
    delete argument;
    process_.shared().give_back(std::move(start->thread->processor_));
    return -EAGAIN;
  }
  ::pthread_detach(handle);
  start->told.wait(0, std::memory_order_acquire);
  return start->told.load(std::memory_order_acquire);
}

void* GuestThread::carrier_main(void* argument) {
  const std::shared_ptr<CarrierStart> start = std::move(*static_cast<std::shared_ptr<CarrierStart>*>(argument));
  delete static_cast<std::shared_ptr<CarrierStart>*>(argument);
  const std::int64_t child = start->thread->clone_borrowing(start->request, &start->told);
  running_thread = nullptr;
  trace_area = nullptr;
  if (child < 0) {
    start->told.store(static_cast<pid_t>(child), std::memory_order_release);
    start->told.notify_all();
  }
  start->thread->process_.shared().give_back(std::move(start->thread->processor_));
  return nullptr;
}

std::int64_t GuestThread::fork(const CloneRequest& request) {
  constexpr u64 kOurs = CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID |
                        kCloneClearHandlers;
  const u64 kernels = request.flags & ~kOurs;
  process_.lock_for_fork();
  tracee_.set_cloning((request.flags & CLONE_VFORK) != 0 ? PTRACE_EVENT_VFORK
                      : request.exit_signal == SIGCHLD   ? PTRACE_EVENT_FORK
                                                         : PTRACE_EVENT_CLONE);
  // The C library's own knows how to make its locks usable in the child; with flags it cannot be had.
  const std::int64_t child =
      result(kernels == 0 && request.exit_signal == SIGCHLD
                 ? ::fork()
                 : ::syscall(SYS_clone, kernels | static_cast<u64>(request.exit_signal), 0,
                             process_.pointer(request.pidfd), 0, 0));
  tracee_.set_cloning(0);
  process_.unlock_after_fork();
  if (child != 0) return child;
  id_ = ::gettid();
  is_first_ = fresh_ = true;
  borrows_ = deaf_ = false;
  held_.store(0);
  process_.keep_only(*this);
  // Its code memory is the parent's. It is left lying: to take it apart would copy all that it consists of.
  static_cast<void>(processor_->engine.release());
  if (auto renewed = process_.shared().renew_engine(*processor_); !renewed) {
    log_error("{}", renewed.error().message);
    ::_exit(125);
  }
  begin(request);
  tracee_.begin(hart().state(), mask_, id_);
  open_mask();
  return kRestart;  // its registers are as they shall be
}

std::int64_t GuestThread::become(int directory, const char* path, char* const* arguments, char* const* environment,
                                 int flags) {
  block_host_signals();
  if (signal_waiting_.load() != 0) return kRestart;
  process_.save_code();
  process_.actions().show_own_signals(true);
  ended_whole_ = true;
  set_host_mask(mask_);
  const std::int64_t failed =
      host_call(SYS_execveat, static_cast<u64>(directory), reinterpret_cast<u64>(path),
                reinterpret_cast<u64>(arguments), reinterpret_cast<u64>(environment), static_cast<u64>(flags));
  block_host_signals();
  ended_whole_ = false;
  process_.actions().show_own_signals(false);
  open_mask();
  return failed;
}

}  // namespace doppel::process
