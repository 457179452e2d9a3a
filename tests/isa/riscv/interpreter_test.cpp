// What an engine must see to around the instructions: changing code, pages of code, budgets, cache blocks.
#include "isa/riscv/interpreter.h"

#include <fmt/format.h>

#include "page_tables.h"

namespace doppel::riscv::test {
namespace {

constexpr std::uint32_t kLoadOne = 0x0010'0513;  // addi a0, zero, 1
constexpr std::uint32_t kStep = 0x0010'0000;     // added to it: one more

// A function that the program itself rewrites: after FENCE.I the new code runs, also when it was run before,
// straddles two pages, or is changed through another mapping.
TEST(FenceI, MakesNewCodeSeen) {
  for (const u64 offset : {u64{0}, u64{0x102}, kPageSize - 2}) {
    TestMachine machine;
    const u64 function = kData + offset;
    machine.x(8) = function;
    machine.a(1) = kLoadOne;
    machine.a(2) = kStep;
    machine.a(3) = 0x8067;  // ret
    EXPECT_EQ(machine.run(R"(
      sh a3, 4(s0)
      sh zero, 6(s0)
      addi a5, zero, 5
      again: sw a1, 0(s0)
      fence.i
      jalr ra, 0(s0)
      slli a4, a4, 4
      add a4, a4, a0
      add a1, a1, a2
      addi a5, a5, -1
      bne a5, zero, again)", 100), std::nullopt);
    EXPECT_EQ(machine.a(4), 0x12345u) << offset;
  }
}

TEST(FenceI, ConcernsTheCodeThatRuns) {
  TestMachine machine;
  machine.x(8) = kCode;
  machine.a(1) = kLoadOne + 6 * kStep;
  EXPECT_EQ(machine.run("sw a1, 8(s0)\n fence.i\n addi a0, zero, 1\n addi a0, a0, 1"), std::nullopt);
  EXPECT_EQ(machine.a(0), 8u);
}

// Writes from outside (a loader, a device) before a FENCE.I.
TEST(FenceI, SeesWhatOthersWrote) {
  TestMachine machine;
  machine.load(kData, "addi a0, zero, 1\n jalr zero, 0(ra)");
  machine.x(8) = kData;
  machine.run("jalr ra, 0(s0)");
  machine.load(kData, "addi a0, zero, 2");
  machine.run("fence.i\n jalr ra, 0(s0)");
  EXPECT_EQ(machine.a(0), 2u);
}

TEST(Code, RunsAcrossAndBetweenPages) {
  // Instructions of both lengths up to and over the edge, jumps to either side of it.
  for (u64 start = kCode + kPageSize - 12; start <= kCode + kPageSize; start += 2) {
    TestMachine machine;
    EXPECT_EQ(machine.run_at(start, R"(
      c.li a0, 1
      addi a0, a0, 2
      jal zero, ahead
      back: c.addi a0, 8
      c.j end
      ahead: addi a0, a0, 4
      bne a0, zero, back
      end: addi a0, a0, 16)"), std::nullopt);
    EXPECT_EQ(machine.a(0), 31u) << start;
  }
}

TEST(Code, IsFoundThroughTheTranslationInForce) {
  // Two address spaces with different functions at the same address, called in turn.
  TestMachine machine;
  PageTables tables(machine, 3);
  tables.map(kCode, kCode, pte::kAll);
  constexpr u64 kFunction = 0x7000;
  machine.load(kData, "addi a0, a0, 1\n jalr zero, 0(ra)");
  machine.load(kData + kPageSize, "slli a0, a0, 4\n jalr zero, 0(ra)");
  tables.map(kFunction, kData, pte::kAll);
  machine.x(8) = kFunction;
  machine.x(9) = tables.entry(kFunction);
  machine.x(18) = pte::leaf(kData, pte::kAll);
  machine.x(19) = pte::leaf(kData + kPageSize, pte::kAll);
  tables.map(align_down(tables.entry(kFunction), kPageSize), align_down(tables.entry(kFunction), kPageSize), pte::kData);
  machine.set_satp(tables.satp());
  machine.set_privilege(Privilege::kSupervisor);
  machine.x(20) = 4;
  EXPECT_EQ(machine.run(R"(
    again: sd s2, 0(s1)
    sfence.vma s0, zero
    jalr ra, 0(s0)
    sd s3, 0(s1)
    sfence.vma s0, zero
    jalr ra, 0(s0)
    addi s4, s4, -1
    bne s4, zero, again)", 200), std::nullopt);
  EXPECT_EQ(machine.a(0), 0x11110u);
}

TEST(Budget, IsExact) {
  TestMachine machine;
  machine.load(kCode, "addi a0, a0, 1\n c.addi a0, 1\n jal zero, " + std::to_string(kCode));
  machine.state().pc = kCode;
  u64 expected = 0;
  for (u64 budget = 0; budget < 10; ++budget) {
    EXPECT_EQ(machine.resume(budget), Exit::kBudget);
    expected += budget;
    EXPECT_EQ(machine.state().instructions, expected);
    EXPECT_EQ(machine.a(0), expected - expected / 3);
  }
}

TEST(X0, IsNeverWritten) {
  TestMachine machine;
  machine.x(8) = kData;
  machine.poke(kData, ~u64{0});
  machine.run("addi zero, s0, 1\n ld zero, 0(s0)\n jal zero, next\n next: lui zero, 4096\n amoadd.d zero, s0, (s0)\n "
              "csrrs zero, mhartid, zero\n c.li zero, 5\n c.mv zero, s0\n c.add zero, s0\n mul zero, s0, s0\n "
              "lr.d zero, (s0)\n sc.d zero, s0, (s0)\n fcvt.l.d zero, fa0\n add a0, zero, zero");
  EXPECT_EQ(machine.a(0), 0u);
  EXPECT_EQ(machine.x(0), 0u);
  EXPECT_EQ(machine.peek(kData), kData) << "the store-conditional did store";
}

TEST(Interpreter, CountsTrailingZerosOfWords) {
  TestMachine machine;
  for (unsigned n = 0; n < 64; ++n) {
    machine.a(1) = ~u64{0} << n;
    machine.run("ctzw a0, a1");
    EXPECT_EQ(machine.a(0), std::min(n, 32u));
  }
}

// --- Cache blocks.

TEST(CacheBlock, ZeroClearsItsBlockOnly) {
  TestMachine machine;
  for (u64 offset = 0; offset < 0x180; offset += 8) machine.poke(kData + offset, ~u64{0});
  machine.x(8) = kData + 0x47;  // anywhere in the second block
  EXPECT_EQ(machine.run("cbo.zero (s0)"), std::nullopt);
  for (u64 offset = 0; offset < 0x180; offset += 8) {
    EXPECT_EQ(machine.peek(kData + offset), offset >= 0x40 && offset < 0x80 ? 0 : ~u64{0}) << offset;
  }
}

TEST(CacheBlock, ManagementNeedsAnyRightZeroNeedsToWrite) {
  struct Case {
    const char* code;
    u64 flags;
    bool legal;
  };
  constexpr u64 kReadOnly = pte::kV | pte::kR | pte::kA;
  for (const Case& c : {Case{"cbo.zero (s0)", pte::kData, true}, Case{"cbo.zero (s0)", kReadOnly, false},
                        Case{"cbo.clean (s0)", pte::kData, true}, Case{"cbo.flush (s0)", kReadOnly, true},
                        Case{"cbo.inval (s0)", kReadOnly, true}, Case{"cbo.clean (s0)", 0, false},
                        Case{"cbo.clean (s0)", pte::kData | pte::kU, false}}) {
    TestMachine machine;
    PageTables tables(machine, 3);
    tables.map(0x5000, kData, c.flags);
    machine.x(8) = 0x5008;
    machine.set_satp(tables.satp());
    machine.set_status(mstatus::kMprv | u64{1} << mstatus::kMppShift);
    EXPECT_EQ(machine.run(c.code), c.legal ? std::nullopt : std::optional<u64>(15)) << c.code;
    if (!c.legal) {
      EXPECT_EQ(machine.state().mtval, 0x5008u);
    }
  }
}

TEST(CacheBlock, ManagementDirtiesNothing) {
  TestMachine machine;
  PageTables tables(machine, 3);
  constexpr u64 kClean = pte::kV | pte::kR | pte::kW;
  tables.map(0x5000, kData, kClean);
  machine.state().menvcfg = envcfg::kAdue;
  machine.x(8) = 0x5000;
  machine.set_satp(tables.satp());
  machine.set_status(mstatus::kMprv | u64{1} << mstatus::kMppShift);
  EXPECT_EQ(machine.run("cbo.clean (s0)\n cbo.flush (s0)\n cbo.inval (s0)"), std::nullopt);
  EXPECT_EQ(machine.peek(tables.entry(0x5000)), pte::leaf(kData, kClean | pte::kA));
  EXPECT_EQ(machine.run("cbo.zero (s0)"), std::nullopt);
  EXPECT_EQ(machine.peek(tables.entry(0x5000)), pte::leaf(kData, kClean | pte::kA | pte::kD));
}

// --- LR/SC on one hart.

TEST(Reservation, IsLostToAnythingElse) {
  struct Case {
    const char* between;
    bool stores;
  };
  for (const Case& c : {Case{"", true}, Case{"ld a5, 8(s0)", true}, Case{"sd a3, 0(s0)", false},
                        Case{"lr.d a5, (s1)", false}, Case{"sc.d a5, a3, (s1)", false},
                        Case{"sc.w a5, a3, (s0)", false}, Case{"amoadd.d a5, a3, (s0)", false}}) {
    TestMachine machine;
    machine.x(8) = kData;
    machine.x(9) = kData + 0x100;
    machine.a(2) = 55;
    machine.a(3) = 66;
    machine.run(fmt::format("lr.d a0, (s0)\n {}\n sc.d a1, a2, (s0)", c.between));
    EXPECT_EQ(machine.a(1), c.stores ? 0u : 1u) << c.between;
    EXPECT_EQ(machine.peek(kData) == 55, c.stores) << c.between;
    // No reservation outlives its store-conditional.
    machine.run("sc.d a1, a3, (s0)");
    EXPECT_EQ(machine.a(1), 1u);
  }
}

}  // namespace
}  // namespace doppel::riscv::test
