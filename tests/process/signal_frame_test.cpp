#include "process/abi/signal_frame.h"

#include <gtest/gtest.h>

#include <cstring>

#include "isa/riscv/csr.h"

namespace doppel::process {
namespace {

riscv::HartState some_state() {
  riscv::HartState state;
  for (unsigned r = 1; r < 32; ++r) state.x[r] = 0x1000 + r;
  for (unsigned r = 0; r < 32; ++r) state.f[r] = 0x2000 + r;
  state.pc = 0x12344;
  state.fflags = 0x15;
  state.frm = 3;
  return state;
}

std::uint64_t word(const SignalFrame& frame, std::size_t at) {
  std::uint64_t value = 0;
  std::memcpy(&value, reinterpret_cast<const std::byte*>(&frame) + at, sizeof value);
  return value;
}

// Offsets from asm/ucontext.h and asm/sigcontext.h: a ucontext after a siginfo of 128 bytes, registers 176 bytes into it,
// floating-point registers 256 bytes into those.
TEST(SignalFrame, HasLinuxsLayout) {
  siginfo_t info{};
  info.si_signo = SIGUSR1;
  const SignalFrame frame = make_signal_frame(some_state(), info, 0xabcd, {.sp = 0x7000, .flags = 0, .size_bytes = 0x2000});
  EXPECT_EQ(word(frame, 0) & 0xffffffff, static_cast<std::uint64_t>(SIGUSR1));
  EXPECT_EQ(word(frame, 128 + 16), 0x7000u);
  EXPECT_EQ(word(frame, 128 + 32), 0x2000u);
  EXPECT_EQ(word(frame, 128 + 40), 0xabcdu);
  EXPECT_EQ(word(frame, 128 + 176), 0x12344u);
  EXPECT_EQ(word(frame, 128 + 176 + 8 * 10), 0x100au);
  EXPECT_EQ(word(frame, 128 + 176 + 256 + 8 * 31), 0x201fu);
  EXPECT_EQ(word(frame, 128 + 176 + 512) & 0xffffffff, 0x75u);
  EXPECT_EQ(word(frame, sizeof frame - 8), 0u);  // the end of extensions
}

TEST(SignalFrame, ComesBack) {
  const riscv::HartState before = some_state();
  SignalFrame frame = make_signal_frame(before, {}, 0, {});
  riscv::HartState after;
  after.reservation = 0x40;
  ASSERT_TRUE(load_signal_frame(after, frame));
  EXPECT_EQ(after.x, before.x);
  EXPECT_EQ(after.f, before.f);
  EXPECT_EQ(after.pc, before.pc);
  EXPECT_EQ(after.fflags, before.fflags);
  EXPECT_EQ(after.frm, before.frm);
  EXPECT_EQ(after.reservation, riscv::HartState::kNoReservation);
}

// The program may have put anything there.
TEST(SignalFrame, TakesNoNonsense) {
  riscv::HartState state;
  SignalFrame frame = make_signal_frame(some_state(), {}, 0, {});
  frame.fcsr = ~0u;
  frame.x[0] = 0x1001;
  ASSERT_TRUE(load_signal_frame(state, frame));
  EXPECT_EQ(state.x[0], 0u);
  EXPECT_EQ(state.pc, 0x1000u);
  EXPECT_EQ(state.frm, 7);
  EXPECT_EQ(state.fflags, 0x1f);
  EXPECT_FALSE(state.host_can_compute());
  frame.end_magic = 0x53465457;  // an extension that is not ours
  EXPECT_FALSE(load_signal_frame(state, frame));
}

}  // namespace
}  // namespace doppel::process
