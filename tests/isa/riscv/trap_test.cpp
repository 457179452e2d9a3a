// Traps and interrupts: where they go, what they leave in the CSRs, which one comes first, WFI.
#include "isa/riscv/trap.h"

#include <fmt/format.h>

#include "page_tables.h"

namespace doppel::riscv::test {
namespace {

constexpr auto kUser = Privilege::kUser, kSupervisor = Privilege::kSupervisor, kMachine = Privilege::kMachine;
constexpr Privilege kPrivileges[] = {kUser, kSupervisor, kMachine};

TEST(Trap, GoesWhereItIsDelegated) {
  for (const unsigned cause : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 12u, 13u, 15u}) {
    for (const Privilege from : kPrivileges) {
      for (const bool delegated : {false, true}) {
        for (const bool enabled : {false, true}) {
          TestMachine machine;
          HartState& s = machine.state();
          s.medeleg = delegated ? u64{1} << cause : ~(u64{1} << cause);
          s.mtvec = kMachineHandler | 1;  // exceptions are not vectored
          s.stvec = kSupervisorHandler | 1;
          machine.set_status(enabled ? mstatus::kMie | mstatus::kSie : mstatus::kMpie | mstatus::kSpie);
          machine.set_privilege(from);
          const u64 before = s.mstatus;
          machine.hart.take_trap({static_cast<Exception>(cause), 0x1234}, 0x5678);
          if (delegated && from != kMachine) {
            EXPECT_EQ(s.privilege, kSupervisor);
            EXPECT_EQ(s.pc, kSupervisorHandler);
            EXPECT_EQ(s.scause, cause);
            EXPECT_EQ(s.stval, 0x1234u);
            EXPECT_EQ(s.sepc, 0x5678u);
            EXPECT_EQ(s.mstatus, (before & ~(mstatus::kSie | mstatus::kSpie | mstatus::kSpp)) |
                                     (enabled ? mstatus::kSpie : 0) | (from == kSupervisor ? mstatus::kSpp : 0));
          } else {
            EXPECT_EQ(s.privilege, kMachine);
            EXPECT_EQ(s.pc, kMachineHandler);
            EXPECT_EQ(s.mcause, cause);
            EXPECT_EQ(s.mtval, 0x1234u);
            EXPECT_EQ(s.mepc, 0x5678u);
            EXPECT_EQ(s.mstatus, (before & ~(mstatus::kMie | mstatus::kMpie | mstatus::kMpp)) |
                                     (enabled ? mstatus::kMpie : 0) | static_cast<u64>(from) << mstatus::kMppShift);
          }
        }
      }
    }
  }
}

TEST(Trap, ReturnsUndoIt) {
  for (const bool by_machine : {true, false}) {
    for (const Privilege to : kPrivileges) {
      if (!by_machine && to == kMachine) continue;
      for (const bool enabled : {false, true}) {
        for (const Privilege from : {kSupervisor, kMachine}) {
          if (by_machine && from != kMachine) continue;
          TestMachine machine;
          HartState& s = machine.state();
          const u64 previous = static_cast<u64>(to);
          const u64 enables = enabled ? mstatus::kMpie | mstatus::kSpie : mstatus::kMie | mstatus::kSie;
          machine.set_privilege(from);
          s.mepc = s.sepc = kData;
          machine.load(kData, "c.j .");
          machine.set_status(enables | mstatus::kMprv |
                             (by_machine ? previous << mstatus::kMppShift : previous << mstatus::kSppShift));
          const u64 before = s.mstatus;
          machine.run(by_machine ? "mret" : "sret", 1);
          EXPECT_EQ(s.pc, kData);
          EXPECT_EQ(s.privilege, to);
          u64 expected = before;
          if (by_machine) {
            expected &= ~(mstatus::kMpp | mstatus::kMie);
            expected |= mstatus::kMpie | (enabled ? mstatus::kMie : 0);
          } else {
            expected &= ~(mstatus::kSpp | mstatus::kSie);
            expected |= mstatus::kSpie | (enabled ? mstatus::kSie : 0);
          }
          if (to != kMachine) expected &= ~mstatus::kMprv;
          EXPECT_EQ(s.mstatus, expected) << by_machine << " " << previous << " " << enabled;
        }
      }
    }
  }
}

// What each kind of exception leaves in mcause, mtval and mepc.
TEST(Trap, ValuesNameWhatWentWrong) {
  constexpr u64 kGood = 0x40'0000, kBad = 0x40'1000;  // neither kBad nor the page before kGood is mapped
  struct Case {
    const char* code;
    u64 cause, value;
  };
  constexpr Case kCases[] = {
      {"ecall", 9, 0},
      {"ebreak", 3, kCode},
      {"c.ebreak", 3, kCode},
      {".word 0xffffff0b", 2, 0xffff'ff0b},
      {".half 0x8002", 2, 0x8002},
      {".half 0", 2, 0},
      {"mret", 2, 0x3020'0073},
      {"ld a0, 0(s1)", 13, kBad},
      {"ld a0, -3(s1)", 13, kBad},   // the part in the second page
      {"ld a0, -3(s0)", 13, kGood - 3},  // the part in the first
      {"lh a0, -1(s1)", 13, kBad},
      {"sd a0, 0x10(s1)", 15, kBad + 0x10},
      {"sd a0, -5(s1)", 15, kBad},
      {"sd a0, -5(s0)", 15, kGood - 5},
      {"fld fa0, -1(s1)", 13, kBad},
      {"fsw fa0, -1(s1)", 15, kBad},
      {"lr.d a0, (s1)", 13, kBad},
      {"sc.d a0, a0, (s1)", 15, kBad},
      {"amoadd.w a0, a0, (s1)", 15, kBad},
      {"addi s2, s0, 4; amoadd.d a0, a0, (s2)", 6, kGood + 4},
      {"addi s2, s0, 2; lr.w a0, (s2)", 4, kGood + 2},
      {"addi s2, s0, 1; sc.w a0, a0, (s2)", 6, kGood + 1},
      {"addi s2, s1, -2; amoor.w a0, a0, (s2)", 6, kBad - 2},
      {"ld a0, 0(s3)", 5, kHole},  // mapped, but nothing is there
      {"sb a0, 1(s3)", 7, kHole + 1},
      {"ld a0, 1(s3)", 5, kHole + 1},
      {"lr.w a0, (s3)", 5, kHole},
      {"amoswap.d a0, a0, (s3)", 7, kHole},
      {"cbo.zero (s3)", 7, kHole},
      {"cbo.zero (s1)", 15, kBad},
      {"cbo.clean (s1)", 15, kBad},
      {"jalr ra, 0(s1)", 12, kBad},
      {"jalr ra, 0(s3)", 1, kHole},
  };
  for (const Case& c : kCases) {
    TestMachine machine;
    PageTables tables(machine, 3);
    tables.map(kCode, kCode, pte::kAll);
    tables.map(kGood, kData, pte::kAll);
    tables.map(kHole, kHole, pte::kAll);
    machine.poke(kData + 0xff0, u64{0x1122'3344'5566'7788});
    machine.x(8) = kGood;
    machine.x(9) = kBad;
    machine.x(19) = kHole;
    machine.state().menvcfg = envcfg::kCbze | envcfg::kCbcfe;
    machine.set_satp(tables.satp());
    machine.set_privilege(kSupervisor);
    const std::string code = c.code;
    if (code.starts_with("sc.")) {  // without a reservation it fails
      machine.state().reservation = c.value | (code[3] == 'd' ? HartState::reservation_width<u64>() : 0);
    }
    EXPECT_EQ(machine.run(code), c.cause) << code;
    EXPECT_EQ(machine.state().mtval, c.value) << code;
    const u64 pc = code.starts_with("jalr") ? c.value : kCode + (code.starts_with("addi") ? 4 : 0);
    EXPECT_EQ(machine.state().mepc, pc) << code;
    EXPECT_EQ(machine.peek(kData + 0xff0), 0x1122'3344'5566'7788u) << code << " must not write half of its value";
    EXPECT_EQ(machine.peek(kData) | machine.a(0), 0u) << code << " must not write";
  }
}

// An instruction whose halves lie in two pages: the pc is its own, the value is where the missing part is.
TEST(Trap, FetchesThatStraddlePages) {
  constexpr u64 kFirst = 0x1000, kSecond = 0x2000, kStart = kSecond - 2;
  enum Fault { kNone, kUnmapped, kNoMemory };
  for (const Fault first : {kNone, kUnmapped, kNoMemory}) {
    for (const Fault second : {kNone, kUnmapped, kNoMemory}) {
      TestMachine machine;
      PageTables tables(machine, 3);
      tables.map(kFirst, first == kNoMemory ? kHole : kData, first == kUnmapped ? 0 : pte::kAll);
      tables.map(kSecond, second == kNoMemory ? kHole : kData + 0x5000, second == kUnmapped ? 0 : pte::kAll);
      machine.poke<std::uint16_t>(kData + 0xffe, 0x0513);  // addi a0, zero, 0x123
      machine.poke<std::uint16_t>(kData + 0x5000, 0x1230);
      machine.poke<std::uint16_t>(kData + 0x5002, 0x0000);  // illegal
      machine.state().pc = kStart;
      machine.set_satp(tables.satp());
      machine.set_privilege(kSupervisor);
      machine.resume(3);
      const Fault fault = first != kNone ? first : second;
      const bool reached = fault == kNone;
      EXPECT_EQ(machine.state().mcause, reached ? 2u : fault == kUnmapped ? 12u : 1u);
      EXPECT_EQ(machine.state().mepc, reached ? kSecond + 2 : kStart);
      EXPECT_EQ(machine.state().mtval, reached ? 0 : first != kNone ? kStart : kSecond);
      EXPECT_EQ(machine.a(0), reached ? 0x123u : 0u);
    }
  }
  // The raw bits of an illegal one are complete, too.
  TestMachine machine;
  machine.poke<std::uint16_t>(kCode + 0xffe, 0xff0b);
  machine.poke<std::uint16_t>(kCode + 0x1000, 0xabcd);
  machine.state().pc = kCode + 0xffe;
  machine.resume(2);
  EXPECT_EQ(machine.state().mcause, 2u);
  EXPECT_EQ(machine.state().mtval, 0xabcd'ff0bu);
}

TEST(Trap, MisalignedAccessesCrossPages) {
  TestMachine machine;
  PageTables tables(machine, 4);
  tables.map(0x1000, kData + 0x5000, pte::kAll);
  tables.map(0x2000, kData, pte::kAll);
  machine.set_satp(tables.satp());
  machine.set_status(mstatus::kMprv | u64{1} << mstatus::kMppShift);
  for (u64 offset = 1; offset < 8; ++offset) {
    machine.x(8) = 0x2000 - offset;
    machine.a(1) = 0x8877'6655'4433'2211;
    EXPECT_EQ(machine.run("sd a1, 0(s0)\n ld a0, 0(s0)\n lb a2, 0(s0)\n lwu a3, 2(s0)"), std::nullopt);
    EXPECT_EQ(machine.a(0), machine.a(1));
    EXPECT_EQ(machine.a(2), 0x11u);
    EXPECT_EQ(machine.a(3), 0x6655'4433u);
    EXPECT_EQ(machine.peek<std::uint8_t>(kData + 0x6000 - offset), 0x11u);
    EXPECT_EQ(machine.peek<std::uint8_t>(kData + 7 - offset), 0x88u);
  }
}

// Nesting: U to S to M and back, each with its own stack of enables.
TEST(Trap, StacksNest) {
  TestMachine machine;
  HartState& s = machine.state();
  s.medeleg = 1 << 8;
  machine.set_status(mstatus::kSie | mstatus::kMie);
  machine.set_privilege(kUser);
  machine.run("ecall");
  EXPECT_EQ(s.privilege, kSupervisor);
  EXPECT_EQ(s.mstatus & (mstatus::kSie | mstatus::kSpie | mstatus::kSpp), mstatus::kSpie);
  machine.run_at(kCode + 0x100, "ecall");
  EXPECT_EQ(s.privilege, kMachine);
  EXPECT_EQ(s.mcause, 9u);
  EXPECT_EQ(s.scause, 8u);
  EXPECT_EQ(s.mstatus & (mstatus::kMie | mstatus::kMpie | mstatus::kMpp), mstatus::kMpie | 1 << mstatus::kMppShift);
  EXPECT_EQ(s.mepc, kCode + 0x100);
  EXPECT_EQ(s.sepc, kCode);
  machine.run_at(kCode + 0x200, "mret", 1);
  EXPECT_EQ(s.privilege, kSupervisor);
  EXPECT_TRUE(s.mstatus & mstatus::kMie);
  machine.run_at(kCode + 0x300, "sret", 1);
  EXPECT_EQ(s.privilege, kUser);
  EXPECT_TRUE(s.mstatus & mstatus::kSie);
}

// --- Interrupts.

constexpr unsigned kByPriority[] = {11, 3, 7, 9, 1, 5};  // "MEI, MSI, MTI, SEI, SSI, STI"

// Every combination of pending, enabled and delegated interrupts, in every mode with and without global
// enables.
TEST(Interrupt, ComesByPriorityAndDelegation) {
  TestMachine machine;
  HartState& s = machine.state();
  const auto spread = [](unsigned six) {
    u64 mask = 0;
    for (unsigned i = 0; i < 6; ++i) mask |= u64{six >> i & 1} << (2 * i + 1);
    return mask;
  };
  for (unsigned pending = 0; pending < 64; ++pending) {
    for (unsigned i = 0; i < 6; ++i) {
      machine.hart.set_interrupt(static_cast<Interrupt>(2 * i + 1), pending >> i & 1);
    }
    for (unsigned enabled = 0; enabled < 64; ++enabled) {
      for (unsigned delegated = 0; delegated < 8; ++delegated) {
        s.mie = spread(enabled);
        s.mideleg = (delegated & 1) << 1 | (delegated & 2) << 4 | u64{delegated & 4} << 7;
        for (const Privilege privilege : kPrivileges) {
          for (unsigned global = 0; global < 4; ++global) {
            s.privilege = privilege;
            s.mstatus = (global & 1 ? mstatus::kMie : 0) | (global & 2 ? mstatus::kSie : 0);
            s.pc = kCode;
            machine.hart.recheck_interrupts();
            const std::optional<Exit> exit = machine.hart.serve_attention();
            ASSERT_EQ(exit, std::nullopt);
            // "An interrupt i will trap to M-mode if all of the following are true" (mip and mie), then to S.
            std::optional<std::pair<unsigned, bool>> expected;
            for (const bool to_supervisor : {false, true}) {
              for (const unsigned i : kByPriority) {
                if (expected || !bit(spread(pending) & s.mie, i) || bit(s.mideleg, i) != to_supervisor) continue;
                const bool open = to_supervisor ? privilege == kUser || (privilege == kSupervisor && (global & 2))
                                                : privilege != kMachine || (global & 1);
                if (open) expected = {i, to_supervisor};
              }
            }
            if (!expected) {
              ASSERT_EQ(s.pc, kCode);
            } else if (expected->second) {
              ASSERT_EQ(s.pc, kSupervisorHandler);
              ASSERT_EQ(s.scause, u64{1} << 63 | expected->first);
            } else {
              ASSERT_EQ(s.pc, kMachineHandler);
              ASSERT_EQ(s.mcause, u64{1} << 63 | expected->first);
            }
          }
        }
      }
    }
  }
}

TEST(Interrupt, IsVectoredAndPrecise) {
  for (const u64 vectored : {u64{0}, u64{1}}) {
    TestMachine machine;
    HartState& s = machine.state();
    s.mtvec |= vectored;
    s.mie = 0x80;
    s.mtval = 77;
    machine.hart.set_interrupt(Interrupt::kMachineTimer, true);
    // Comes right after the instruction that lets it.
    EXPECT_EQ(machine.run("addi a0, a0, 1\n csrrsi zero, mstatus, 8\n addi a0, a0, 1"), u64{1} << 63 | 7);
    EXPECT_EQ(machine.a(0), 1u);
    EXPECT_EQ(s.mepc, kCode + 8);
    EXPECT_EQ(s.mtval, 0u);
    EXPECT_EQ(s.pc, kMachineHandler + (vectored ? 4 * 7 : 0));
    EXPECT_EQ(s.mstatus & (mstatus::kMie | mstatus::kMpie | mstatus::kMpp), mstatus::kMpie | mstatus::kMpp);
  }
}

// Whatever makes an interrupt deliverable, it comes before the next instruction.
TEST(Interrupt, ComesWhenSomethingLetsIt) {
  struct Case {
    const char* code;
    Privilege privilege;
    u64 cause;
  };
  constexpr u64 kBit = u64{1} << 63;
  for (const Case& c : {
           Case{"csrrs zero, mie, s2", kMachine, kBit | 9},
           Case{"csrrc zero, mideleg, s2", kMachine, kBit | 9},
           Case{"mret", kMachine, kBit | 9},
           Case{"csrrsi zero, sstatus, 2", kSupervisor, kBit | 9},
           Case{"sret", kSupervisor, kBit | 9},
           Case{"csrrw zero, mip, s3", kMachine, kBit | 1},
       }) {
    TestMachine machine;
    HartState& s = machine.state();
    const std::string code = c.code;
    s.mie = code.contains(" mie") ? 0 : 0x202;
    s.mideleg = c.privilege == kMachine && !code.contains("mideleg") ? 0 : 0x202;
    machine.x(18) = 0x200;
    machine.x(19) = 2;
    s.mepc = s.sepc = kCode + 0x40;
    machine.load(kCode + 0x40, "addi a0, a0, 1");
    const bool machine_enabled = !code.contains("ret") && c.privilege == kMachine;
    machine.set_status(machine_enabled ? mstatus::kMie : mstatus::kMpie | mstatus::kSpie);
    machine.set_privilege(c.privilege);
    if (!code.contains("mip")) machine.hart.set_interrupt(Interrupt::kSupervisorExternal, true);
    EXPECT_EQ(machine.run(code + "\n addi a0, a0, 1", 3), c.cause) << code;
    EXPECT_EQ(machine.a(0), 0u) << code;
  }
}

TEST(Interrupt, ComesInAnEndlessLoop) {
  TestMachine machine;
  machine.state().mie = 0x800;
  machine.set_status(mstatus::kMie);
  machine.load(kCode, "c.j .");
  machine.resume(100);
  EXPECT_EQ(machine.state().pc, kCode);
  machine.hart.set_interrupt(Interrupt::kMachineExternal, true);
  machine.resume(1);
  EXPECT_EQ(machine.trapped(), u64{1} << 63 | 11);
  EXPECT_EQ(machine.state().mepc, kCode);
}

TEST(Interrupt, TimerComesWhenTimeDoes) {
  TestMachine machine;
  machine.state().mie = 0x20;
  machine.set_status(mstatus::kMie);
  machine.a(1) = 500;
  machine.state().menvcfg = envcfg::kStce;
  EXPECT_EQ(machine.run("csrrw zero, stimecmp, a1\n addi a0, a0, 0"), std::nullopt);
  machine.set_time(500);
  machine.hart.wake();  // as the timer that the hart asked for does
  EXPECT_EQ(machine.run("addi a0, a0, 0"), u64{1} << 63 | 5);
}

TEST(Wfi, WaitsOnlyWhenNothingIsPending) {
  TestMachine machine;
  HartState& s = machine.state();
  const auto run = [&] {
    machine.load(kCode, "wfi\n c.j .");
    s.pc = kCode;
    return machine.resume(5);
  };
  EXPECT_EQ(run(), Exit::kWaitForInterrupt);
  EXPECT_EQ(s.pc, kCode + 4) << "goes on behind it";
  // Pending but not enabled in mie: still waits. Enabled in mie, though not globally: does not.
  machine.hart.set_interrupt(Interrupt::kMachineSoftware, true);
  EXPECT_EQ(run(), Exit::kWaitForInterrupt);
  s.mie = 8;
  EXPECT_EQ(run(), Exit::kBudget);
  s.mideleg = 0x222;
  machine.hart.set_interrupt(Interrupt::kMachineSoftware, false);
  EXPECT_EQ(run(), Exit::kWaitForInterrupt);
  // With interrupts on, it is taken behind the WFI.
  machine.hart.set_interrupt(Interrupt::kMachineSoftware, true);
  machine.set_status(mstatus::kMie);
  machine.set_privilege(kSupervisor);
  s.mie = 8;
  EXPECT_EQ(machine.run("addi a0, a0, 0; wfi; addi a0, a0, 1"), u64{1} << 63 | 3);
}

// An idle loop with its interrupts off does not spin until somebody tells of a timer that has passed already.
TEST(Wfi, SeesThatTheTimerHasPassed) {
  TestMachine machine;
  machine.state().mie = machine.state().mideleg = 0x20;
  machine.state().menvcfg = envcfg::kStce;
  machine.state().stimecmp = 500;
  machine.set_privilege(kSupervisor);
  machine.set_time(499);
  machine.load(kCode, "wfi; c.j .");
  machine.state().pc = kCode;
  EXPECT_EQ(machine.resume(5), Exit::kWaitForInterrupt);
  machine.set_time(500);
  EXPECT_EQ(machine.run("wfi; addi a0, a0, 1; csrrsi zero, sstatus, 2; addi a0, a0, 1"), u64{1} << 63 | 5);
  EXPECT_EQ(machine.a(0), 1u);
}

TEST(Firmware, ServesCallsFromSupervisorMode) {
  struct Firmware final : SupervisorCalls {
    void supervisor_call(Hart& hart) override {
      EXPECT_EQ(hart.state().pc, kCode + 4);
      hart.state().x[10] = hart.state().x[17] + 1;
    }
  } firmware;
  TestMachine machine(IsaConfig::rva22(), &firmware);
  machine.x(17) = 41;
  machine.set_privilege(kSupervisor);
  EXPECT_EQ(machine.run("ecall\n addi a0, a0, 1"), std::nullopt);
  EXPECT_EQ(machine.a(0), 43u);
  machine.set_privilege(kMachine);
  EXPECT_EQ(machine.run("ecall"), 11u);
  machine.set_privilege(kUser);
  EXPECT_EQ(machine.run("ecall"), 8u);
}

}  // namespace
}  // namespace doppel::riscv::test
