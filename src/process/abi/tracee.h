// A guest's thread as one that another process may trace: where it stands still, and what comes of that.
//
// The thread itself uses it, but for called_from_handler(). What its tracer does with it is in tracer.h. A thread does
// not know whether it is traced, as its tracer may begin, end or die at any time: it may think so, and finds out when
// the signal by which it stands still reaches our own handler.
#pragma once

#include <signal.h>

#include <cstdint>
#include <optional>

#include "isa/riscv/hart_state.h"
#include "process/abi/signals.h"
#include "process/abi/trace_area.h"

namespace doppel::process {

class LinuxProcess;

class Tracee {
 public:
  // What a system call shows that is to be made again: -ERESTARTNOINTR of Linux, which only tracers see.
  static constexpr std::int64_t kShownRestart = -513;

  explicit Tracee(LinuxProcess& process) : process_(process) {}
  ~Tracee() { end(); }
  Tracee(const Tracee&) = delete;
  Tracee& operator=(const Tracee&) = delete;

  // The calling thread becomes this one, and ends; `mask` is where the guest's is.
  void begin(riscv::HartState& state, std::uint64_t& mask, pid_t id);
  void end();
  // After a child that shares memory has run here.
  void begin_again(riscv::HartState& state);
  // Registers are in `state`, or have been put aside.
  template <class Registers>
  void show_registers(Registers& state) {
    area_.x = state.x.data();
    area_.f = state.f.data();
    area_.pc = &state.pc;
    area_.fflags = &state.fflags;
    area_.frm = &state.frm;
  }
  // As a child or a thread of `parent`.
  void inherit(const Tracee& parent);
  // Whether somebody may be there.
  bool may_be_traced() const {
    return area_.traced != 0 || area_.attempts != trace_globals.attempts.load(std::memory_order_relaxed);
  }
  // PTRACE_TRACEME was carried out.
  void volunteer() { area_.traced = 1; }

  // Before the first instruction.
  void tell_begin();
  // Around a system call in `state`, whose pc is the ECALL's. False: it is not to be made, and a0 has its result. `next`
  // is where the guest goes on.
  bool enter_call(riscv::HartState& state, std::uint64_t& next) {
    return !may_be_traced() || enter_traced_call(state, next);
  }
  void leave_call(std::int64_t value) {
    if (may_be_traced()) leave_traced_call(value);
  }
  // Shows a signal that is about to be delivered. Gives what to deliver in its place, maybe nothing.
  std::optional<siginfo_t> admit(const siginfo_t& info);
  // Has the tracer's wish, if there is one; stands still if that is all of it. Gives a signal to deliver.
  std::optional<siginfo_t> serve(std::uint64_t mask);
  // Around the making of a thread or process: a PTRACE_EVENT_, or 0.
  void set_cloning(std::uint32_t event) { area_.cloning = event; }

  // On our handler's way: the signal of a stop that no tracer took.
  void called_from_handler();

 private:
  bool enter_traced_call(riscv::HartState& state, std::uint64_t& next);
  void leave_traced_call(std::int64_t value);
  void stand(TraceStop stop);
  void send_answer();
  void heed_written();

  LinuxProcess& process_;
  TraceArea area_;
};

// Has the host's kernel act on a signal to the calling thread, without its tracer's seeing it again.
void act_on(int number);

}  // namespace doppel::process
