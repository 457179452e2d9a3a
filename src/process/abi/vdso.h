// The shared object that Linux gives every program: where signal handlers return to, clocks, and what riscv_hwprobe
// answers, both read without a system call. Its format and symbols are riscv64 Linux's (arch/riscv/kernel/vdso/vdso.lds.S).
//
// Made when the address space is; refresh() from any thread, or process that shares or has inherited the data.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "base/virtual_clock.h"
#include "process/address_space.h"

namespace doppel::process {

class Vdso {
 public:
  // Maps it into `space`. `clock` is what the time CSR shows, in nanoseconds.
  static Result<std::unique_ptr<Vdso>> map(AddressSpace& space, const VirtualClock& clock);
  ~Vdso();
  Vdso(const Vdso&) = delete;
  Vdso& operator=(const Vdso&) = delete;

  std::uint64_t base() const { return base_; }  // of its ELF header: AT_SYSINFO_EHDR
  std::uint64_t signal_return() const;

  // The program's clocks hold for a little while, then it makes a system call, which comes here: so a step of the host's
  // clock is seen soon.
  void refresh();

 private:
  struct Data;
  Vdso(const VirtualClock& clock, std::uint64_t base, Data* data) : clock_(clock), base_(base), data_(data) {}

  const VirtualClock& clock_;
  const std::uint64_t base_;
  Data* const data_;  // our mapping of the page that the program reads
};

}  // namespace doppel::process
