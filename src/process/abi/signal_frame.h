// What riscv64 Linux puts on a program's stack for a signal handler, and takes back from there: struct rt_sigframe of
// arch/riscv/kernel/signal.c with the types of asm/ucontext.h, asm/sigcontext.h and asm/ptrace.h. Pure data.
#pragma once

#include <signal.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "isa/riscv/hart_state.h"

namespace doppel::process {

// stack_t
struct SignalStack {
  std::uint64_t sp = 0;
  std::int32_t flags = 0;
  std::int32_t padding = 0;
  std::uint64_t size_bytes = 0;
};

struct SignalFrame {
  siginfo_t info;  // the same on both architectures
  // struct ucontext
  std::uint64_t flags;
  std::uint64_t link;
  SignalStack stack;
  std::uint64_t mask;
  std::array<std::byte, 128> unused;  // the mask may grow; and up to the alignment of what follows
  // struct sigcontext: pc in place of x0
  std::array<std::uint64_t, 32> x;
  // struct __riscv_d_ext_state, in a union as large as the state with quadruple precision
  std::array<std::uint64_t, 32> f;
  std::uint32_t fcsr;
  std::array<std::uint32_t, 64> larger_state;
  // struct __riscv_extra_ext_header: extensions would follow; magic and size of the last are zero
  std::uint32_t reserved;
  std::uint32_t end_magic, end_size;
};
static_assert(sizeof(siginfo_t) == 128 && offsetof(SignalFrame, stack) == 144 && offsetof(SignalFrame, mask) == 168 &&
              offsetof(SignalFrame, x) == 304 && offsetof(SignalFrame, f) == 560 && offsetof(SignalFrame, fcsr) == 816 &&
              offsetof(SignalFrame, reserved) == 1076 && sizeof(SignalFrame) == 1088);

SignalFrame make_signal_frame(const riscv::HartState& state, const siginfo_t& info, std::uint64_t mask,
                              const SignalStack& stack);

// Registers and pc as the frame has them. False when the frame is none.
bool load_signal_frame(riscv::HartState& state, const SignalFrame& frame);

}  // namespace doppel::process
