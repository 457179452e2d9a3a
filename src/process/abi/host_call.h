// System calls of the host that no signal can slip past, and a compare-and-exchange of guest memory that survives a bad
// address, as memory/guarded_access.h does for other accesses.
//
// Both are short routines at known addresses. The handler of host signals (signals.cpp) sees by the interrupted
// instruction where it is, and moves it on. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ucontext.h>

namespace doppel::process {

// A system call's result when a signal came before it did anything, or when Linux would run it again after the handler:
// the guest's ECALL has not happened yet. Linux uses this number likewise, and never shows it to programs.
inline constexpr std::int64_t kRestart = -512;

// As ::syscall(), but a failure is -errno, and on a guest's thread kRestart is possible: it is the result if the thread
// has a signal to deliver, so that no signal waits for a call that blocks.
std::int64_t host_call(long number, std::uint64_t a0 = 0, std::uint64_t a1 = 0, std::uint64_t a2 = 0,
                       std::uint64_t a3 = 0, std::uint64_t a4 = 0, std::uint64_t a5 = 0);

// Compares and exchanges a word of guest memory: 1 done, 0 not equal (`expected` gets what is there), -1 a bad address.
int guarded_compare_exchange(std::uint32_t* at, std::uint32_t& expected, std::uint32_t desired);

// A thread that the host has stopped at the first of these, with the result that the host's kernel keeps to itself, is in
// a call that has done nothing yet. It gives kRestart if it is moved on to the second.
extern "C" const char doppel_host_call_done[], doppel_host_call_restart[];

// For the signal handler. An interrupted host_call() that has not entered the kernel, or is to enter it again, gives
// kRestart instead.
void leave_interrupted_call(ucontext_t& context);
// True when the fault is a guarded access's, which then reports it.
bool leave_guarded_access(ucontext_t& context);

}  // namespace doppel::process
