// One thread of a guest's process: a thread of the host with a hart and an engine of its own, and what Linux keeps of a
// thread. The guest's thread id is the host's.
//
// The thread itself uses everything here, except where it says otherwise. Traps come while the engine runs; what must not
// happen there, as the engine's state would be half one thing and half another, waits until the engine has returned:
// signal frames, new threads and processes, the end.
#pragma once

#include <signal.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "engine/engine.h"
#include "isa/riscv/hart.h"
#include "process/abi/signal_frame.h"
#include "process/abi/signals.h"
#include "process/abi/tracee.h"

namespace doppel::process {

class LinuxProcess;

// What runs a thread's instructions. It outlives the thread, with what it translated, to be the next one's.
struct Processor {
  std::unique_ptr<riscv::Hart> hart;
  std::unique_ptr<Engine> engine;
};

class GuestThread {
 public:
  GuestThread(LinuxProcess& process, std::unique_ptr<Processor> processor, std::uint64_t mask);
  ~GuestThread();
  GuestThread(const GuestThread&) = delete;
  GuestThread& operator=(const GuestThread&) = delete;

  // The guest's thread that the calling thread is; nullptr or an assertion if it is none.
  static GuestThread* running();
  static GuestThread& current();

  LinuxProcess& process() { return process_; }
  riscv::Hart& hart() { return *processor_->hart; }
  const Engine& engine() const { return *processor_->engine; }
  pid_t id() const { return id_; }
  Tracee& tracee() { return tracee_; }
  int status() const { return status_; }  // once it has ended

  // Makes the calling thread this one, and runs until the guest's thread ends; gives its exit status.
  int run();
  void trap(riscv::Trap trap, std::uint64_t epc);

  // --- For system calls.

  // Has `function` carry out the call in the registers once the engine has returned; to be returned by the call.
  using Outside = std::int64_t (*)(GuestThread&);
  std::int64_t outside(Outside function);

  std::uint64_t signal_mask() const { return mask_; }
  std::int64_t set_signal_mask(std::uint64_t mask);
  std::uint64_t held_signals() const;  // ours, blocked by the guest and pending
  SignalStack signal_stack() const;    // as sigaltstack() shows it
  std::int64_t set_signal_stack(const SignalStack& stack);
  void raise(const siginfo_t& info) { fault_ = info; }  // a trap's signal: delivered before anything else

  // As set_tid_address() and set_robust_list() say: guest addresses.
  std::uint64_t clear_at_exit = 0;
  std::uint64_t robust_list = 0;

  // --- For functions that wait for the engine.

  std::int64_t return_from_signal();
  std::int64_t clone(const struct CloneRequest& request);
  // As execveat().
  std::int64_t become(int directory, const char* path, char* const* arguments, char* const* environment, int flags);
  void end(int status);
  [[noreturn]] void end_process(int status);

  // --- For the signal handler and host_call().

  void file_signal(const siginfo_t& info);
  void call_for_tracer();
  const std::atomic<std::uint32_t>& signal_waiting() const { return signal_waiting_; }

 private:
  struct Registers;
  Registers registers();
  void set_registers(const Registers& registers);
  void prepare_for_threads();
  std::int64_t clone_thread(const CloneRequest& request);
  std::int64_t clone_borrowing(const CloneRequest& request, std::atomic<pid_t>* told = nullptr);
  std::int64_t clone_carried(const CloneRequest& request);
  static void* carrier_main(void* argument);
  std::int64_t fork(const CloneRequest& request);
  static void* thread_main(void* argument);
  static int borrower_main(void* argument);
  void begin(const CloneRequest& request);

  void carry_out(Outside function);
  void deliver_signals();
  void deliver(siginfo_t info, bool forced);
  bool push_frame(const siginfo_t& info, const SignalAction& action);
  bool on_signal_stack(std::uint64_t sp) const;
  void open_mask();  // the host's mask becomes the guest's
  void release_robust_list();

  LinuxProcess& process_;
  std::unique_ptr<Processor> processor_;
  pid_t id_ = 0;
  // The host thread ends with the guest's. Otherwise its C library's end of a thread would mistake it for the last.
  bool is_first_ = false;
  // Runs in memory that its parent shares, on the hart of a thread that waits.
  bool borrows_ = false;
  // Signals wait on the host: one that ended a borrower in the middle of our work would leave the parent with half of it.
  bool deaf_ = false;
  bool fresh_ = true;  // has not told of its begin
  bool ended_ = false;
  bool ended_whole_ = false;  // outside the engine
  int status_ = 0;
  Outside outside_ = nullptr;

  std::uint64_t mask_;
  SignalStack stack_{.flags = SS_DISABLE};
  std::optional<siginfo_t> fault_;
  // Bits: `waiting_` was written by the handler, which leaves it alone until it is not; the tracer wants something.
  static constexpr std::uint32_t kFiled = 1, kCalled = 2;
  std::atomic<std::uint32_t> signal_waiting_{0};
  siginfo_t waiting_{};
  Tracee tracee_;
  // SIGSEGV and SIGBUS from kill(), which are never blocked on the host: by signal_bit(), with the last of each.
  std::atomic<std::uint64_t> held_{0};
  std::array<siginfo_t, 2> held_info_{};
};

// What clone() and clone3() ask for.
struct CloneRequest {
  std::uint64_t flags = 0;  // without the signal
  int exit_signal = 0;
  std::uint64_t stack = 0;  // the child's sp; 0: its parent's
  std::uint64_t tls = 0;
  std::uint64_t parent_tid = 0, child_tid = 0, pidfd = 0;
};

}  // namespace doppel::process
