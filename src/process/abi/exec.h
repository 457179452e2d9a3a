// execve() and execveat(): one program of the guest's becomes another, or one of the host's.
//
// For a guest's program the process becomes Doppel anew, with the same options: the host's kernel then does to
// descriptors, threads, timers and signals what Linux does at an execve(). On the thread that calls.
#pragma once

#include <cstdint>

namespace doppel::process {

class GuestThread;

// Both read the call's arguments from the registers, and wait until the engine has returned.
std::int64_t execve_now(GuestThread& thread);
std::int64_t execveat_now(GuestThread& thread);

// Holds on to Doppel's own executable: in another root it is nowhere to be seen. Before the program starts, since a child
// that shares its parent's memory has other descriptors.
void hold_own_program();
// It comes from the Doppel that became this one.
void adopt_own_program(int fd);

}  // namespace doppel::process
