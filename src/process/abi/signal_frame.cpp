#include "process/abi/signal_frame.h"

#include <algorithm>

#include "isa/riscv/csr.h"

namespace doppel::process {

SignalFrame make_signal_frame(const riscv::HartState& state, const siginfo_t& info, std::uint64_t mask,
                              const SignalStack& stack) {
  SignalFrame frame{};
  frame.info = info;
  frame.stack = stack;
  frame.mask = mask;
  frame.x[0] = state.pc;
  std::copy_n(state.x.begin() + 1, 31, frame.x.begin() + 1);
  frame.f = state.f;
  frame.fcsr = state.fflags | static_cast<std::uint32_t>(state.frm) << 5;
  return frame;
}

bool load_signal_frame(riscv::HartState& state, const SignalFrame& frame) {
  if (frame.reserved != 0 || frame.end_magic != 0 || frame.end_size != 0) return false;
  state.pc = frame.x[0] & ~std::uint64_t{1};
  std::copy_n(frame.x.begin() + 1, 31, state.x.begin() + 1);
  state.f = frame.f;
  state.fflags = frame.fcsr & 0x1f;
  state.frm = frame.fcsr >> 5 & 7;
  state.mstatus |= riscv::mstatus::kFsDirty;
  state.reservation = riscv::HartState::kNoReservation;
  return true;
}

}  // namespace doppel::process
