// Control and status registers: which exist for whom, what they keep of what is written, views of one
// another, counters and timers.
#include "isa/riscv/csr.h"

#include <fmt/format.h>

#include "test_machine.h"

namespace doppel::riscv::test {
namespace {

struct Csrs : testing::Test {
  TestMachine machine;

  // Through instructions, in the mode that the hart is in. Nothing: the instruction was illegal.
  std::optional<u64> read(std::string_view csr) {
    if (machine.run(fmt::format("csrrs a0, {}, zero", csr))) return std::nullopt;
    return machine.a(0);
  }
  bool write(std::string_view csr, u64 value) {
    machine.a(1) = value;
    return !machine.run(fmt::format("csrrw zero, {}, a1", csr));
  }
  // What the register keeps of `value`.
  u64 kept(std::string_view csr, u64 value) {
    EXPECT_TRUE(write(csr, value)) << csr;
    return read(csr).value_or(0xbad);
  }
};

// Each number, each mode: reads, and writes that change nothing.
TEST_F(Csrs, ExistForTheRightModes) {
  const auto exists = [](unsigned n) {
    const auto in = [n](unsigned first, unsigned last) { return n >= first && n <= last; };
    return in(0x001, 0x003) || in(0xc00, 0xc1f) ||                                     // user
           n == 0x100 || in(0x104, 0x106) || n == 0x10a || in(0x140, 0x144) || n == 0x14d || n == 0x180 ||
           in(0xf11, 0xf15) || in(0x300, 0x306) || n == 0x30a || n == 0x320 || in(0x323, 0x33f) ||
           in(0x340, 0x344) || n == 0x3a0 || n == 0x3a2 || in(0x3b0, 0x3bf) || in(0x7a0, 0x7a3) ||
           n == 0xb00 || in(0xb02, 0xb1f);
  };
  machine.state().mcounteren = machine.state().scounteren = 0xffff'ffff;
  machine.state().menvcfg = envcfg::kStce;
  const HartState start = machine.state();
  for (const Privilege privilege : {Privilege::kUser, Privilege::kSupervisor, Privilege::kMachine}) {
    for (unsigned n = 0; n < 4096; ++n) {
      const bool reachable = exists(n) && bits(n, 9, 8) <= static_cast<unsigned>(privilege);
      for (const bool writing : {false, true}) {
        machine.state() = start;
        machine.set_privilege(privilege);
        const bool legal = reachable && !(writing && bits(n, 11, 10) == 3);
        // Setting no bits, from a register that is not x0, counts as a write.
        const std::string code = fmt::format("csrrs a0, {:#x}, {}", n, writing ? "a7" : "zero");
        const std::optional<u64> trap = machine.run(code);
        ASSERT_EQ(trap, legal ? std::nullopt : std::optional<u64>(2)) << code << " in " << static_cast<int>(privilege);
        const std::vector<std::uint16_t> raw = assemble(code);
        ASSERT_EQ(machine.state().mtval, legal ? 0 : raw[0] | u64{raw[1]} << 16);
      }
    }
  }
}

TEST_F(Csrs, KeepLegalValuesOnly) {
  struct Case {
    const char* csr;
    u64 written, kept;
  };
  constexpr u64 kOnes = ~u64{0};
  constexpr Case kCases[] = {
      {"mtvec", kOnes, kOnes - 2},         {"stvec", kOnes, kOnes - 2},
      {"mtvec", 0x8000'0002, 0x8000'0000}, {"mepc", kOnes, kOnes - 1},
      {"sepc", kOnes, kOnes - 1},          {"mscratch", kOnes, kOnes},
      {"sscratch", kOnes, kOnes},          {"mtval", kOnes, kOnes},
      {"stval", kOnes, kOnes},             {"medeleg", kOnes, 0xb3ff},
      {"mideleg", kOnes, 0x222},           {"mie", kOnes, 0xaaa},
      {"mip", kOnes, 0x222},               {"mip", 0, 0},
      {"mcounteren", kOnes, 0xffff'ffff},  {"scounteren", kOnes, 0xffff'ffff},
      {"mcountinhibit", kOnes, 5},         {"mcountinhibit", 0, 0},
      {"senvcfg", kOnes, 0xf1},            {"senvcfg", 0x20, 0x30},  // CBIE = 2 is reserved: the old value
      {"menvcfg", kOnes, 0xe000'0000'0000'00f1}, {"menvcfg", 0, 0},
      {"fcsr", kOnes, 0xff},               {"fflags", kOnes, 0x1f},
      {"frm", kOnes, 7},                   {"stimecmp", kOnes, kOnes},
      {"mhpmcounter", kOnes, 0},           {"mhpmevent", kOnes, 0},
      {"misa", 0, u64{2} << 62 | 0x14112d}, {"tselect", kOnes, 0},
      {"satp", u64{8} << 60 | 0xffff'fff'ffff'ffff, u64{8} << 60 | 0xffff'fff'ffff'ffff},
      {"satp", 0, 0},
  };
  machine.set_privilege(Privilege::kMachine);
  for (const Case& c : kCases) {
    EXPECT_EQ(kept(c.csr, c.written), c.kept) << c.csr << fmt::format(" after {:#x}", c.written);
    machine.state().mtvec = kMachineHandler;
  }
  for (const char* csr : {"mvendorid", "marchid", "mimpid", "mhartid", "mconfigptr"}) {
    EXPECT_EQ(read(csr), 0u) << csr;
  }
}

TEST_F(Csrs, StatusKeepsLegalValuesOnly) {
  constexpr u64 kFixed = mstatus::kXl64;
  constexpr u64 kSupervisorFields = mstatus::kSie | mstatus::kSpie | mstatus::kSpp | mstatus::kFs | mstatus::kSum |
                                    mstatus::kMxr;
  constexpr u64 kAll = kSupervisorFields | mstatus::kMie | mstatus::kMpie | mstatus::kMpp | mstatus::kMprv |
                       mstatus::kTvm | mstatus::kTw | mstatus::kTsr;
  EXPECT_EQ(kept("mstatus", 0), kFixed);
  EXPECT_EQ(kept("mstatus", ~u64{0}), kAll | kFixed | mstatus::kSd);
  EXPECT_EQ(read("sstatus"), kSupervisorFields | u64{2} << 32 | mstatus::kSd);
  // MPP = 2 is no mode: the old one stays.
  for (const u64 mode : {u64{0}, u64{1}, u64{3}}) {
    kept("mstatus", mode << mstatus::kMppShift);
    EXPECT_EQ(kept("mstatus", u64{2} << mstatus::kMppShift), kFixed | mode << mstatus::kMppShift);
  }
  // SD sums up FS.
  for (u64 fs = 0; fs < 4; ++fs) EXPECT_EQ(kept("mstatus", fs << 13), kFixed | fs << 13 | (fs == 3 ? mstatus::kSd : 0));
  // sstatus reaches its own fields only.
  kept("mstatus", 0);
  kept("sstatus", ~u64{0});
  EXPECT_EQ(read("mstatus"), kSupervisorFields | kFixed | mstatus::kSd);
  kept("mstatus", kAll);
  kept("sstatus", 0);
  EXPECT_EQ(read("mstatus"), (kAll & ~kSupervisorFields) | kFixed);
}

TEST_F(Csrs, SatpIgnoresModesThatTheHartHasNot) {
  for (const unsigned width : {39u, 48u, 57u}) {
    IsaConfig config = IsaConfig::rva22();
    config.virtual_address_bits = width;
    TestMachine narrow(config);
    for (u64 mode = 0; mode < 16; ++mode) {
      narrow.state().satp = 0x1234;
      narrow.a(1) = mode << 60 | u64{0x5a5a} << 44 | 0x777;
      narrow.run("csrrw zero, satp, a1");
      const bool supported = mode == 0 || (mode >= 8 && 12 + 9 * (mode - 5) <= width);
      EXPECT_EQ(narrow.state().satp, supported ? narrow.a(1) : 0x1234) << mode << " on Sv" << width;
    }
  }
}

TEST_F(Csrs, ExtensionsBringTheirFields) {
  IsaConfig config = IsaConfig::rva22();
  for (const Extension e : {Extension::kSstc, Extension::kSvadu, Extension::kSvpbmt}) {
    config.extensions.reset(static_cast<std::size_t>(e));
  }
  TestMachine plain(config);
  plain.a(1) = ~u64{0};
  plain.run("csrrw zero, menvcfg, a1");
  EXPECT_EQ(plain.state().menvcfg, 0xf1u);
  EXPECT_EQ(plain.run("csrrs a0, stimecmp, zero"), 2u);
}

TEST_F(Csrs, ReadModifyWriteForms) {
  struct Case {
    const char* code;
    u64 before, after;
  };
  machine.a(1) = 0b0110;
  for (const Case& c : {Case{"csrrw a0, mscratch, a1", 5, 6}, Case{"csrrs a0, mscratch, a1", 5, 7},
                        Case{"csrrc a0, mscratch, a1", 5, 1}, Case{"csrrwi a0, mscratch, 9", 5, 9},
                        Case{"csrrsi a0, mscratch, 10", 5, 15}, Case{"csrrci a0, mscratch, 4", 5, 1},
                        Case{"csrrs a0, mscratch, zero", 5, 5}, Case{"csrrwi a0, mscratch, 0", 5, 0}}) {
    machine.state().mscratch = c.before;
    EXPECT_EQ(machine.run(c.code), std::nullopt);
    EXPECT_EQ(machine.a(0), c.before) << c.code;
    EXPECT_EQ(machine.state().mscratch, c.after) << c.code;
  }
  // The destination may be the source.
  machine.state().mscratch = 5;
  EXPECT_EQ(machine.run("csrrw a1, mscratch, a1"), std::nullopt);
  EXPECT_EQ(machine.a(1), 5u);
  EXPECT_EQ(machine.state().mscratch, 6u);
  // Read-only registers may be "set" with nothing, but not written.
  EXPECT_EQ(machine.run("csrrsi a0, mhartid, 0"), std::nullopt);
  EXPECT_EQ(machine.run("csrrci a0, mhartid, 1"), 2u);
  EXPECT_EQ(machine.run("csrrwi a0, cycle, 0"), 2u);
}

// One instruction, one mode, one setting: legal or not.
TEST_F(Csrs, ControlsDecideWhatIsLegal) {
  struct Case {
    const char* code;
    Privilege privilege;
    u64 status = 0, menvcfg = 0, senvcfg = 0, mcounteren = 0, scounteren = 0;
    bool legal = false;
  };
  constexpr auto kU = Privilege::kUser, kS = Privilege::kSupervisor, kM = Privilege::kMachine;
  constexpr u64 kFs = u64{1} << 13;  // clean is as good as dirty
  const Case cases[] = {
      {.code = "csrrs a0, cycle, zero", .privilege = kU, .mcounteren = 1, .scounteren = 1, .legal = true},
      {.code = "csrrs a0, cycle, zero", .privilege = kU, .mcounteren = 1, .scounteren = 6},
      {.code = "csrrs a0, cycle, zero", .privilege = kU, .mcounteren = 6, .scounteren = 1},
      {.code = "csrrs a0, cycle, zero", .privilege = kS, .mcounteren = 1, .legal = true},
      {.code = "csrrs a0, cycle, zero", .privilege = kS, .scounteren = 1},
      {.code = "csrrs a0, cycle, zero", .privilege = kM, .legal = true},
      {.code = "csrrs a0, time, zero", .privilege = kS, .mcounteren = 2, .legal = true},
      {.code = "csrrs a0, time, zero", .privilege = kS, .mcounteren = 5},
      {.code = "csrrs a0, instret, zero", .privilege = kU, .mcounteren = 4, .scounteren = 4, .legal = true},
      {.code = "csrrs a0, 0xc1f, zero", .privilege = kS, .mcounteren = u64{1} << 31, .legal = true},
      {.code = "csrrs a0, 0xc1f, zero", .privilege = kS, .mcounteren = 0x7fff'ffff},
      {.code = "csrrs a0, stimecmp, zero", .privilege = kS, .menvcfg = envcfg::kStce, .mcounteren = 2, .legal = true},
      {.code = "csrrs a0, stimecmp, zero", .privilege = kS, .menvcfg = envcfg::kStce, .mcounteren = 5},
      {.code = "csrrs a0, stimecmp, zero", .privilege = kS, .mcounteren = 2},
      {.code = "csrrs a0, stimecmp, zero", .privilege = kM, .legal = true},

      {.code = "csrrs a0, satp, zero", .privilege = kS, .legal = true},
      {.code = "csrrs a0, satp, zero", .privilege = kS, .status = mstatus::kTvm},
      {.code = "csrrw a0, satp, zero", .privilege = kS, .status = mstatus::kTvm},
      {.code = "csrrw a0, satp, zero", .privilege = kM, .status = mstatus::kTvm, .legal = true},
      {.code = "sfence.vma zero, zero", .privilege = kS, .legal = true},
      {.code = "sfence.vma zero, zero", .privilege = kS, .status = mstatus::kTvm},
      {.code = "sfence.vma zero, zero", .privilege = kM, .status = mstatus::kTvm, .legal = true},
      {.code = "sfence.vma zero, zero", .privilege = kU},
      {.code = "sinval.vma zero, zero", .privilege = kS, .legal = true},
      {.code = "sinval.vma zero, zero", .privilege = kS, .status = mstatus::kTvm},
      {.code = "sinval.vma zero, zero", .privilege = kU},
      {.code = "sfence.w.inval", .privilege = kS, .status = mstatus::kTvm, .legal = true},
      {.code = "sfence.w.inval", .privilege = kU},
      {.code = "sfence.inval.ir", .privilege = kU},

      {.code = "wfi", .privilege = kM, .status = mstatus::kTw, .legal = true},
      {.code = "wfi", .privilege = kS, .legal = true},
      {.code = "wfi", .privilege = kS, .status = mstatus::kTw},
      {.code = "wfi", .privilege = kU},
      {.code = "sret", .privilege = kS, .status = mstatus::kTsr},
      {.code = "sret", .privilege = kU},
      {.code = "mret", .privilege = kS},
      {.code = "mret", .privilege = kU},

      {.code = "fadd.s fa0, fa0, fa0", .privilege = kU, .status = kFs, .legal = true},
      {.code = "fadd.s fa0, fa0, fa0", .privilege = kU},
      {.code = "fmv.x.w a0, fa0", .privilege = kM},
      {.code = "c.fldsp fa0, 0(sp)", .privilege = kM},
      {.code = "csrrs a0, fcsr, zero", .privilege = kS},
      {.code = "csrrs a0, frm, zero", .privilege = kS, .status = kFs, .legal = true},
      {.code = ".word 0x00a55553", .privilege = kU, .status = kFs},  // fadd.s with the reserved mode 5
      {.code = ".word 0x00a56553", .privilege = kU, .status = kFs},  // 6
      {.code = "csrrwi zero, frm, 4; fadd.s fa0, fa0, fa0", .privilege = kU, .status = kFs, .legal = true},
      {.code = "csrrwi zero, frm, 5; fadd.s fa0, fa0, fa0", .privilege = kU, .status = kFs},
      {.code = "csrrwi zero, frm, 7; fadd.s fa0, fa0, fa0", .privilege = kU, .status = kFs},
      {.code = "csrrwi zero, frm, 5; fadd.s fa0, fa0, fa0, rtz", .privilege = kU, .status = kFs, .legal = true},
      {.code = "csrrwi zero, frm, 5; fsgnj.s fa0, fa0, fa0", .privilege = kU, .status = kFs, .legal = true},

      {.code = "cbo.zero (s0)", .privilege = kM, .legal = true},
      {.code = "cbo.zero (s0)", .privilege = kS},
      {.code = "cbo.zero (s0)", .privilege = kS, .menvcfg = envcfg::kCbze, .legal = true},
      {.code = "cbo.zero (s0)", .privilege = kU, .menvcfg = envcfg::kCbze},
      {.code = "cbo.zero (s0)", .privilege = kU, .senvcfg = envcfg::kCbze},
      {.code = "cbo.zero (s0)", .privilege = kU, .menvcfg = envcfg::kCbze, .senvcfg = envcfg::kCbze, .legal = true},
      {.code = "cbo.clean (s0)", .privilege = kS, .menvcfg = envcfg::kCbze},
      {.code = "cbo.clean (s0)", .privilege = kS, .menvcfg = envcfg::kCbcfe, .legal = true},
      {.code = "cbo.flush (s0)", .privilege = kU, .menvcfg = envcfg::kCbcfe},
      {.code = "cbo.flush (s0)", .privilege = kU, .menvcfg = envcfg::kCbcfe, .senvcfg = envcfg::kCbcfe, .legal = true},
      {.code = "cbo.inval (s0)", .privilege = kS, .menvcfg = envcfg::kCbcfe},
      {.code = "cbo.inval (s0)", .privilege = kS, .menvcfg = 0x10, .legal = true},
      {.code = "cbo.inval (s0)", .privilege = kU, .menvcfg = 0x30, .senvcfg = 0x10, .legal = true},
      {.code = "cbo.inval (s0)", .privilege = kU, .menvcfg = 0x30},
  };
  for (const Case& c : cases) {
    TestMachine fresh;
    fresh.x(2) = fresh.x(8) = kData;
    fresh.state().menvcfg = c.menvcfg;
    fresh.state().senvcfg = c.senvcfg;
    fresh.state().mcounteren = c.mcounteren;
    fresh.state().scounteren = c.scounteren;
    fresh.set_status(c.status, mstatus::kFs);
    fresh.set_privilege(c.privilege);
    EXPECT_EQ(fresh.run(c.code), c.legal ? std::nullopt : std::optional<u64>(2))
        << c.code << " in mode " << static_cast<int>(c.privilege) << fmt::format(" status {:#x}", c.status);
  }
}

TEST_F(Csrs, FloatingPointMarksItsStateDirty) {
  struct Case {
    const char* code;
    bool dirty;
  };
  for (const Case& c : {Case{"fadd.s fa0, fa1, fa2", true}, Case{"fld fa0, 0(s0)", true}, Case{"fmv.w.x fa0, zero", true},
                        Case{"csrrwi zero, fflags, 0", true}, Case{"fsd fa0, 0(s0)", false},
                        Case{"fmv.x.d a0, fa0", false}, Case{"csrrs a0, fcsr, zero", false},
                        Case{"feq.d a0, fa0, fa0", false}, Case{"addi a0, a0, 1", false}}) {
    machine.x(8) = kData;
    machine.set_status(u64{1} << 13, mstatus::kFs);
    EXPECT_EQ(machine.run(c.code), std::nullopt);
    if (!c.dirty && !TestEngine::kDirtinessIsExact) continue;
    EXPECT_EQ(bits(machine.state().mstatus, 14, 13), c.dirty ? 3u : 1u) << c.code;
  }
}

TEST_F(Csrs, SupervisorSeesDelegatedInterruptsOnly) {
  kept("mie", ~u64{0});
  kept("mip", ~u64{0});
  for (const u64 delegated : {u64{0}, u64{0x20}, u64{0x202}, u64{0x222}}) {
    kept("mideleg", delegated);
    EXPECT_EQ(read("sie"), delegated);
    EXPECT_EQ(read("sip"), delegated);
    kept("sie", 0);
    EXPECT_EQ(read("mie"), 0xaaa & ~delegated);
    kept("sie", ~u64{0});
    EXPECT_EQ(read("mie"), 0xaaau);
    // Of sip only SSIP can be written.
    write("sip", 0);
    EXPECT_EQ(read("mip"), 0x222 & ~(delegated & 2));
    write("sip", ~u64{0});
    EXPECT_EQ(read("mip"), 0x222u);
  }
}

// SEIP as read is the controller's line or the software's bit; read-modify-write keeps the two apart.
TEST_F(Csrs, ExternalLineDoesNotLeakIntoTheSoftwareBit) {
  machine.hart.set_interrupt(Interrupt::kSupervisorExternal, true);
  EXPECT_EQ(read("mip"), 0x200u);
  machine.a(1) = 2;
  machine.run("csrrs a0, mip, a1");
  EXPECT_EQ(machine.a(0), 0x200u);
  machine.hart.set_interrupt(Interrupt::kSupervisorExternal, false);
  EXPECT_EQ(read("mip"), 2u);
  write("mip", 0x200);
  EXPECT_EQ(read("mip"), 0x200u);
  machine.hart.set_interrupt(Interrupt::kSupervisorExternal, true);
  machine.a(1) = 0x200;
  machine.run("csrrc a0, mip, a1");
  EXPECT_EQ(read("mip"), 0x200u) << "the line is still up";
  machine.hart.set_interrupt(Interrupt::kSupervisorExternal, false);
  EXPECT_EQ(read("mip"), 0u);
  // Machine-level bits follow their lines alone.
  machine.hart.set_interrupt(Interrupt::kMachineTimer, true);
  write("mip", 0);
  EXPECT_EQ(read("mip"), 0x80u);
}

TEST_F(Csrs, SupervisorTimerComparesTime) {
  kept("menvcfg", envcfg::kStce);
  kept("mideleg", 0x20);
  kept("stimecmp", 100);
  EXPECT_EQ(machine.timer, 100 * kNanosecondsPerTick);
  machine.set_time(99);
  EXPECT_EQ(read("mip"), 0u);
  machine.set_time(100);
  EXPECT_EQ(read("time"), 100u);
  EXPECT_EQ(read("mip"), 0x20u);
  EXPECT_EQ(read("sip"), 0x20u);
  write("mip", 0);
  EXPECT_EQ(read("mip"), 0x20u) << "read-only with Sstc";
  kept("stimecmp", 101);
  EXPECT_EQ(read("mip"), 0u);
  // Without STCE the bit is software's again, whatever the comparison says.
  kept("stimecmp", 0);
  kept("menvcfg", 0);
  EXPECT_EQ(read("mip"), 0u);
  write("mip", 0x20);
  EXPECT_EQ(read("mip"), 0x20u);
}

TEST_F(Csrs, CountersCountRetiredInstructions) {
  for (const std::string csr : {"minstret", "mcycle"}) {
    machine.a(1) = 1000;
    machine.run(fmt::format(R"(
      csrrw zero, {0}, a1
      csrrs a2, {0}, zero
      addi a0, a0, 0
      c.addi a0, 0
      csrrs a3, {0}, zero)", csr));
    EXPECT_EQ(machine.a(2), 1000u) << "the write is the last word on its own instruction";
    EXPECT_EQ(machine.a(3), 1003u);
    // Inhibited, it stands still; what is written then is where it goes on from.
    machine.a(1) = 7;
    machine.run(fmt::format(R"(
      csrrwi zero, mcountinhibit, 5
      csrrs a2, {0}, zero
      addi a0, a0, 0
      csrrs a3, {0}, zero
      csrrw zero, {0}, a1
      csrrs a4, {0}, zero
      csrrwi zero, mcountinhibit, 0
      csrrs a5, {0}, zero
      csrrs a6, {0}, zero)", csr));
    EXPECT_EQ(machine.a(2), machine.a(3));
    EXPECT_EQ(machine.a(4), 7u);
    EXPECT_EQ(machine.a(5), 7u);
    EXPECT_EQ(machine.a(6), 8u);
  }
  // What traps does not retire.
  machine.a(1) = 50;
  EXPECT_EQ(machine.run("csrrw zero, minstret, a1\n addi a0, a0, 0\n ecall", 3), 11u);
  machine.resume(1);  // in the handler's loop
  const u64 in_handler = machine.state().instructions + machine.state().minstret_offset;
  EXPECT_EQ(in_handler, 51u + 2) << "the addi, and two turns of the loop";
  // Each is inhibited by its own bit.
  machine.run(R"(
    csrrwi zero, mcountinhibit, 4
    csrrs a2, mcycle, zero
    csrrs a3, minstret, zero
    csrrs a4, mcycle, zero
    csrrs a5, minstret, zero)");
  EXPECT_EQ(machine.a(4), machine.a(2) + 2);
  EXPECT_EQ(machine.a(5), machine.a(3));
}

}  // namespace
}  // namespace doppel::riscv::test
