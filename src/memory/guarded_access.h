// Accesses to guest memory that lies open in the host's address space, where the guest may have nothing mapped. A fault is
// a result, provided that the process's handler of SIGSEGV and SIGBUS asks recover_guarded_access() first.
//
// Any thread. Each access of 1, 2, 4 or 8 bytes is one access of the host, misaligned or not.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <cstdint>

namespace doppel {

// 0, or the number of the signal that the access raised. `bytes` is 1, 2, 4 or 8; what is read is zero-extended.
int guarded_read(const std::byte* from, unsigned bytes, std::uint64_t& value);
int guarded_write(std::byte* to, unsigned bytes, std::uint64_t value);
// Whether the location may be written: an atomic access that changes nothing. `at` is aligned to 4.
int guarded_probe_write(std::byte* at);
// Copies up to `bytes` bytes; gives how many it could.
std::size_t guarded_copy(const std::byte* from, std::byte* to, std::size_t bytes);

// For handlers of SIGSEGV and SIGBUS: true if the fault is of an access above, which now ends with `signal` as its result.
bool recover_guarded_access(int signal, ucontext_t& context);

}  // namespace doppel
