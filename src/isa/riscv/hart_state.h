// The architectural state of one RV64 hart, flat, so that an engine can address it by offset.
//
// Owned by the hart's thread. Names are the manual's. Fields that other threads change (interrupt lines)
// are not here but in Hart.
#pragma once

#include <array>
#include <cstdint>

#include "isa/common/code_frame.h"

namespace doppel::riscv {

// As wide as a register: translated code compares it.
enum class Privilege : std::uint64_t { kUser = 0, kSupervisor = 1, kMachine = 3 };

inline constexpr unsigned kXDiscard = 32;  // where an instruction with rd = x0 writes
inline constexpr unsigned kPmpEntries = 16;

struct HartState {
  std::array<std::uint64_t, 33> x{};  // x[0] stays zero; decoded instructions write kXDiscard instead
  std::uint64_t pc = 0;
  std::array<std::uint64_t, 32> f{};  // NaN-boxed

  std::uint8_t fflags = 0;  // accrued exceptions, fcsr order: NX UF OF DZ NV from bit 0
  std::uint8_t frm = 0;
  Privilege privilege = Privilege::kMachine;

  // LR/SC: the guest-virtual address that is reserved, with its width, and the value that LR saw there. Not
  // part of the saved state: a reservation may be lost at any time, and every trap loses it.
  std::uint64_t reservation = kNoReservation;
  std::uint64_t reserved_value = 0;
  static constexpr std::uint64_t kNoReservation = ~std::uint64_t{0};
  // Addresses are aligned, so that a low bit is free for the width.
  template <class T>
  static constexpr std::uint64_t reservation_width() { return sizeof(T) == 8 ? 1 : 0; }

  // Machine-level CSRs.
  std::uint64_t mstatus = 0;  // holds sstatus; SD is computed on reading
  std::uint64_t medeleg = 0;
  std::uint64_t mideleg = 0;
  std::uint64_t mie = 0;
  std::uint64_t mip = 0;  // the software-writable bits only: SSIP, STIP, SEIP
  std::uint64_t mtvec = 0;
  std::uint64_t mscratch = 0;
  std::uint64_t mepc = 0;
  std::uint64_t mcause = 0;
  std::uint64_t mtval = 0;
  std::uint64_t menvcfg = 0;
  std::uint64_t mcounteren = 0;
  std::uint64_t mcountinhibit = 0;
  std::uint64_t mcycle_offset = 0;    // mcycle = instructions + offset, frozen while inhibited
  std::uint64_t minstret_offset = 0;  // likewise
  std::uint64_t mcycle_frozen = 0;
  std::uint64_t minstret_frozen = 0;
  std::array<std::uint8_t, kPmpEntries> pmpcfg{};
  std::array<std::uint64_t, kPmpEntries> pmpaddr{};

  // Supervisor-level CSRs.
  std::uint64_t stvec = 0;
  std::uint64_t sscratch = 0;
  std::uint64_t sepc = 0;
  std::uint64_t scause = 0;
  std::uint64_t stval = 0;
  std::uint64_t senvcfg = 0;
  std::uint64_t scounteren = 0;
  std::uint64_t satp = 0;
  std::uint64_t stimecmp = ~std::uint64_t{0};

  // Nonzero when an interrupt that mie enables may be pending, though it was not deliverable when last looked
  // at: whoever sets SIE or MIE must look again. Derived.
  std::uint64_t interrupt_waiting = 1;

  std::uint64_t instructions = 0;  // retired since reset

  isa::CodeFrame frame;

  // Whether translated floating-point code may run: mstatus.FS is not off, and frm names a mode that the host has
  // (RMM is none).
  bool host_can_compute() const { return (mstatus >> 13 & 3) != 0 && frm <= 3; }
};

}  // namespace doppel::riscv
