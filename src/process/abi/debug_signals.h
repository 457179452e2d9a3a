// Signals of Linux by GDB's numbers, which are the same on all systems (gdb's include/gdb/signals.def), and back.
#pragma once

#include <signal.h>

#include <array>

namespace doppel::process {

inline constexpr unsigned kUnknownGdbSignal = 143;

// By Linux' numbers, up to 31.
inline constexpr std::array<unsigned, 32> kGdbSignals{
    0,  1,  2,  3,  4,  5,  6,  10 /* SIGBUS */, 8,  9,  30 /* SIGUSR1 */, 11, 31 /* SIGUSR2 */, 13, 14, 15,
    kUnknownGdbSignal /* SIGSTKFLT */, 20 /* SIGCHLD */, 19 /* SIGCONT */, 17 /* SIGSTOP */, 18 /* SIGTSTP */, 21, 22,
    16 /* SIGURG */, 24, 25, 26, 27, 28, 23 /* SIGIO */, 32 /* SIGPWR */, 12 /* SIGSYS */};

constexpr unsigned gdb_signal(int number) {
  if (number >= 0 && number < 32) return kGdbSignals[static_cast<unsigned>(number)];
  if (number == 32) return 77;
  if (number == 64) return 78;
  return number < 64 ? 45 + static_cast<unsigned>(number - 33) : kUnknownGdbSignal;
}

// 0: none, or none that Linux has.
constexpr int linux_signal(unsigned number) {
  for (int signal = 1; signal <= 64; ++signal) {
    if (gdb_signal(signal) == number && number != kUnknownGdbSignal) return signal;
  }
  return 0;
}

static_assert(gdb_signal(SIGSEGV) == 11 && gdb_signal(SIGUSR1) == 30 && linux_signal(30) == SIGUSR1);
static_assert(gdb_signal(34) == 46 && linux_signal(78) == 64);

}  // namespace doppel::process
