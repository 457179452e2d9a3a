// Page tables of any depth in a test machine's RAM.
#pragma once

#include "base/bits.h"
#include "test_machine.h"

namespace doppel::riscv::test {

namespace pte {
inline constexpr u64 kV = 1, kR = 2, kW = 4, kX = 8, kU = 16, kG = 32, kA = 64, kD = 128, kN = u64{1} << 63;
inline constexpr u64 kPbmtShift = 61;
inline constexpr u64 kData = kV | kR | kW | kA | kD, kAll = kData | kX;
constexpr u64 leaf(u64 gpa, u64 flags) { return gpa >> kPageShift << 10 | flags; }
}  // namespace pte

class PageTables {
 public:
  PageTables(TestMachine& machine, unsigned levels) : machine_(machine), levels_(levels) {
    for (u64 offset = 0; offset < 16 * kPageSize; offset += 8) machine.poke(kTables + offset, u64{0});
  }

  u64 satp(u64 asid = 0) const { return u64{levels_ + 5} << 60 | asid << 44 | kTables >> kPageShift; }

  // Where the entry for gva lies at `level`, 0 being that of 4 KiB pages. Makes the tables above it.
  u64 entry(u64 gva, unsigned level = 0) {
    u64 table = kTables;
    for (unsigned at = levels_ - 1;; --at) {
      const u64 slot = table + bits(gva, 20 + 9 * at, 12 + 9 * at) * 8;
      if (at == level) return slot;
      if (machine_.peek(slot) == 0) machine_.poke(slot, pte::leaf(next_ += kPageSize, pte::kV));
      table = bits(machine_.peek(slot), 53, 10) << kPageShift;
    }
  }
  void map(u64 gva, u64 gpa, u64 flags, unsigned level = 0) {
    machine_.poke(entry(gva, level), pte::leaf(gpa, flags));
  }

 private:
  TestMachine& machine_;
  const unsigned levels_;
  u64 next_ = kTables;
};

}  // namespace doppel::riscv::test
