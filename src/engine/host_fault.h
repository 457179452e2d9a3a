// Faults of the host that are the guest's: accesses of a program's code to memory that it has not.
#pragma once

#include <signal.h>
#include <ucontext.h>

namespace doppel {

// For handlers of SIGSEGV and SIGBUS of a process that runs guests in flat memory; async-signal-safe. True when the fault
// at `context` was made on this thread by guest code, or on its behalf by an engine: `context` has been changed so that
// returning from the handler goes on to the guest's trap (UserSpace::trap() is called later, outside the handler). False:
// the fault is our own.
bool recover_guest_fault(int signal, ucontext_t& context);

// Has all faults of the process go to recover_guest_fault() first, and to whoever handled them before if they are not the
// guest's. Once is enough. For processes that run machines, whose shadows fault now and then.
void take_host_faults();

}  // namespace doppel
