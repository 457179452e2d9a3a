// The translator does what the interpreter does, instruction for instruction.
#include "lockstep.h"

#include <gmock/gmock.h>

#include <chrono>
#include <thread>

#include "isa/riscv/generate.h"

namespace doppel::engine_test {
namespace {

// The comparison itself: machines that differ are told apart, and those that do not are not.
TEST(Lockstep, SeesDifferences) {
  Contents contents;
  contents.load(kCode, riscv::test::assemble("addi a0, a0, 1; sd a0, 0(a1); lw t0, 0(a2); end: jal zero, end"));
  contents.state = open_state(kCode);
  contents.state.x[11] = kData;
  contents.state.x[12] = kDevice;
  Machine a(EngineKind::kInterpret, contents);
  Machine b(EngineKind::kInterpret, contents);
  EXPECT_EQ(differences(a, b), "");
  a.run(1);
  EXPECT_THAT(differences(a, b), testing::AllOf(testing::HasSubstr("a0"), testing::HasSubstr("instructions")));
  a.run(2);
  EXPECT_THAT(differences(a, b), testing::AllOf(testing::HasSubstr(fmt::format("[{:#x}]", kData)),
                                                testing::HasSubstr("device events")));
  b.run(3);
  EXPECT_EQ(differences(a, b), "");
}

// Where a handler traps again and again no instruction retires, and a run of so many instructions would not end.
TEST(Lockstep, ScenariosEndWhereTheyAreStuck) {
  Scenario scenario;
  scenario.contents.load(kCode, riscv::test::assemble("addi a0, a0, 1; ecall; addi a0, a0, 1; end: jal zero, end"));
  scenario.contents.load(kMachineHandler, riscv::test::assemble(
      "csrrs t0, mepc, zero; addi t0, t0, 4; csrrw zero, mepc, t0; mret; addi zero, zero, 0; sd zero, 0(zero)"));
  scenario.contents.state = open_state(kCode);
  scenario.contents.state.mtvec = kMachineHandler;
  scenario.chunks = {{3, 0, 0}, {40, 0, 0}, {40, 0, 0}};
  end_where_stuck(scenario);
  EXPECT_EQ(scenario.chunks.size(), 3u);
  EXPECT_EQ(scenario.chunks[2].instructions, 40u);

  scenario.contents.state.mtvec = kMachineHandler + 20;
  end_where_stuck(scenario);
  ASSERT_EQ(scenario.chunks.size(), 1u);
  EXPECT_EQ(scenario.chunks[0].instructions, 1u);
  scenario.chunks = {{1, 0, 0}, {40, 0, 0}};
  end_where_stuck(scenario);
  ASSERT_EQ(scenario.chunks.size(), 2u);
  EXPECT_EQ(scenario.chunks[1].instructions, 0u);
  EXPECT_EQ(compare_engines(scenario), "");
}

// One thread has no races to be found, and takes ten times as long to show it.
#ifdef __SANITIZE_THREAD__
constexpr u64 kPrograms = 40;
#else
constexpr u64 kPrograms = 300;
#endif

TEST(Lockstep, RandomPrograms) {
  u64 open = 0;
  for (u64 seed = 1; seed <= kPrograms; ++seed) {
    bool left_open = false;
    ASSERT_EQ(compare_engines(ScenarioMaker(seed).make(), PassSet::all(), &left_open), "") << "seed " << seed;
    open += left_open;
  }
  EXPECT_LE(open, kPrograms / 100);
}

TEST(Lockstep, KeptCode) {
  for (u64 seed = 1; seed <= kPrograms / 2; ++seed) {
    ASSERT_EQ(compare_with_kept_code(ScenarioMaker(seed).make()), "") << "seed " << seed;
  }
}

// Whichever passes are switched off.
TEST(Lockstep, WithoutPasses) {
  std::vector<PassSet> sets{PassSet::none()};
  for (const std::string_view name : ir::pass_names()) sets.emplace_back(PassSet::all()).set(name, false);
  for (std::size_t i = 0; i < sets.size(); ++i) {
    for (u64 seed = 1; seed <= kPrograms / 10; ++seed) {
      ASSERT_EQ(compare_engines(ScenarioMaker(seed).make(), sets[i]), "") << "set " << i << " seed " << seed;
    }
  }
}

// What a test of its own runs: assembly in M-mode, with a0 to a2 pointing to data, to the device and to code.
Scenario scenario_of(const std::string& source, u64 instructions = 1000) {
  Scenario scenario;
  scenario.contents.load(kCode, riscv::test::assemble(source + "\nend: jal zero, end", kCode));
  for (u64 offset = 0; offset < kPageSize; offset += 4) {
    scenario.contents.poke(kMachineHandler + offset, std::uint32_t{0x6f});  // j .
    scenario.contents.poke(kData + offset, 0x3ff0'0000 + offset);
  }
  scenario.contents.state = open_state(kCode);
  scenario.contents.state.mtvec = kMachineHandler;
  scenario.contents.state.x[10] = kData;
  scenario.contents.state.x[11] = kDevice;
  scenario.contents.state.x[12] = kCode;
  scenario.chunks = {{instructions, 0, 0}};
  return scenario;
}

// What one run has translated the next one takes, a loop's region as well; and a page that holds other code is another one.
TEST(Lockstep, KeptCodeIsTaken) {
  const KeptCode kept;
  const std::string loop = "addi t0, zero, 500; again: addi a3, a3, STEP; addi t0, t0, -1; bne t0, zero, again";
  const auto run = [&](const std::string& step, u64 number) {
    const Scenario scenario = scenario_of(std::string(loop).replace(loop.find("STEP"), 4, step), 1600);
    const auto archive = kept.archive(number);
    Lockstep lockstep(scenario, Machine::kEager, {archive, nullptr});
    lockstep.run_chunks(1);
    EXPECT_EQ(lockstep.differences(), "");
    std::vector<std::byte> padding(16);
    for (u64 i = 0; i < 16; ++i) {
      archive->add({.address = i, .source_address = i, .source = padding, .code = padding, .links = {}, .faults = {},
                    .pins = {}, .final = false});  // as many as are worth a write
    }
    archive->write();
    return lockstep.statistics();
  };
  const EngineStatistics first = run("3", 1), second = run("3", 1), other = run("5", 1);
  EXPECT_GT(first.blocks_translated, 1u);
  EXPECT_GT(first.regions_translated, 0u);
  EXPECT_EQ(second.blocks_translated, 0u);
  EXPECT_EQ(second.regions_translated, 0u);
  EXPECT_GE(second.cache_loaded, first.blocks_translated);
  EXPECT_EQ(other.cache_loaded, 0u);
}

// So it does in shadows, where code knows its own address: all of it comes from the run before, or from another hart.
TEST(Lockstep, KeptCodeIsTakenInShadows) {
  if (!x64::HostFeatures::detect().segment_bases) GTEST_SKIP() << "this host lets nobody set segment bases";
  const KeptCode kept;
  EngineStatistics first, other_hart, next_run;
  for (u64 seed = 1; seed <= 20; ++seed) {
    const Scenario scenario = ScenarioMaker(seed).make(true, true);
    MachineCode code = kept.of_machine(seed);
    for (EngineStatistics* run : {&first, &other_hart, &next_run}) {
      if (run == &next_run) {
        write_machine_code(code);
        code = kept.of_machine(seed);
      }
      Lockstep lockstep(scenario, Machine::kShadowing, code);
      lockstep.run_chunks(scenario.chunks.size());
      EXPECT_EQ(lockstep.differences(), "") << "seed " << seed;
      *run += lockstep.statistics();
    }
  }
  EXPECT_GT(first.shadows, 15u);
  // A quarter of the blocks are of shadows. What is translated again are instructions that the programs themselves wrote.
  EXPECT_LT(other_hart.blocks_translated, first.blocks_translated / 5);
  EXPECT_LT(next_run.blocks_translated, first.blocks_translated / 10);
}

// What random programs have found in shadows: a program's own FENCE.I; the time, which was closed to it.
TEST(Lockstep, FoundInShadows) {
  for (const u64 seed : {181, 300'312}) EXPECT_EQ(compare_engines(ScenarioMaker(seed).make()), "") << "seed " << seed;
}

// Programs in Sv39 are shadowed where a scenario asks for it, and their pages are found there.
TEST(Lockstep, ProgramsAreShadowed) {
  if (!x64::HostFeatures::detect().segment_bases) GTEST_SKIP() << "this host lets nobody set segment bases";
  u64 shadows = 0, pages = 0;
  for (u64 seed = 1; seed <= 20; ++seed) {
    const Scenario scenario = ScenarioMaker(seed).make(true, true);
    Lockstep lockstep(scenario, Machine::kShadowing);
    lockstep.run_chunks(scenario.chunks.size());
    EXPECT_EQ(lockstep.differences(), "") << "seed " << seed;
    shadows += lockstep.statistics().shadows;
    pages += lockstep.statistics().shadow_pages;
  }
  EXPECT_GE(shadows, 15u);
  EXPECT_GT(pages, 20u);
}

// In a shadow as well the operating system learns that a program has changed its floating-point registers.
TEST(Lockstep, FloatingPointBecomesDirtyInShadows) {
  if (!x64::HostFeatures::detect().segment_bases) GTEST_SKIP() << "this host lets nobody set segment bases";
  Scenario scenario = ScenarioMaker(1).make(true, true);
  riscv::HartState& state = scenario.contents.state;
  state.privilege = riscv::Privilege::kUser;
  state.x[2] = kData;
  scenario.contents.load(kCode, riscv::test::assemble("li t0, 1000; again: fadd.d fa0, fa0, fa1; addi t0, t0, -1;"
                                                      "bne t0, zero, again; last: jal zero, last"));
  scenario.chunks = {{2000, 0, 0}, {4000, 0, 0}};
  Lockstep lockstep(scenario, Machine::kShadowing);
  lockstep.run(0, 2000);
  // As if another program had run meanwhile.
  for (Machine* machine : {&lockstep.reference(), &lockstep.translated()}) {
    machine->state().mstatus = (machine->state().mstatus & ~riscv::mstatus::kFs) | u64{2} << 13;
  }
  lockstep.run(1, 4000);
  EXPECT_EQ(lockstep.statistics().shadows, 1u);
  EXPECT_EQ(lockstep.differences(), "");
}

// Supervisors have a window where a scenario asks for it; what they access is found there, and missed where it is not.
TEST(Lockstep, SupervisorsHaveAWindow) {
  if (!x64::HostFeatures::detect().segment_bases) GTEST_SKIP() << "this host lets nobody set segment bases";
  u64 pages = 0, misses = 0;
  for (u64 seed = 1; seed <= 120; ++seed) {
    const Scenario scenario = ScenarioMaker(seed).make(false, true);
    Lockstep lockstep(scenario, Machine::kShadowing);
    lockstep.run_chunks(scenario.chunks.size());
    EXPECT_EQ(lockstep.differences(), "") << "seed " << seed;
    pages += lockstep.statistics().window_pages;
    misses += lockstep.statistics().window_misses;
  }
  EXPECT_GT(pages, 20u);
  EXPECT_GT(misses, 100u);
}

// More values than any host has registers, alive at once: every register is read in each of its types, and read
// again, and loads come in between.
TEST(Lockstep, BlockWithManyLiveValues) {
  std::string source;
  for (const char* compare : {"feq.s", "feq.d", "feq.s", "feq.d"}) {
    for (unsigned f = 0; f < 32; f += 4) source += fmt::format("{} t0, f{}, f{}; ", compare, f, f + 1);
    for (unsigned f = 2; f < 32; f += 8) source += fmt::format("{} t0, f{}, f{}; ", compare, f, f + 1);
    source += "fld f31, 0(a0); add t1, t2, s2; add s3, s4, s5\n";
  }
  std::string pure;
  for (unsigned round = 0; round < 2; ++round) {
    for (unsigned r = 1; r < 31; ++r) pure += fmt::format("sltu x31, x{}, x{}; ", r, r + 1);
    pure += "lw x31, 0(a0); fsw f0, 8(a0)\n";
  }
  for (const std::string& text : {source, pure}) {
    Scenario scenario = scenario_of(text);
    for (unsigned i = 0; i < 32; ++i) {
      scenario.contents.state.f[i] = i % 2 == 0 ? ~u64{0} << 32 | i << 23 : u64{i} << 55;
    }
    EXPECT_EQ(compare_engines(scenario), "");
  }
}

// An index scaled and added in place of the base, while registers are short: its next use is the furthest, so it is what
// makes room for the old base, but not before it has been read.
TEST(Lockstep, IndexIsReadBeforeItMakesRoom) {
  for (const char* add : {"sh1add a3, s2, a3", "slli t0, s2, 2; add a3, a3, t0; addi t0, zero, 0"}) {
    Scenario scenario = scenario_of(fmt::format(R"(
        add a4, s2, s6; add a5, s7, s2; addi s3, a3, 0; {}
        add s8, s6, s3; add s9, s7, s3; add s10, s2, s3)", add));
    for (unsigned i = 18; i < 28; ++i) scenario.contents.state.x[i] = 1000 + i;
    EXPECT_EQ(compare_engines(scenario), "") << add;
  }
}

// A device may compute as it likes without a trace in the guest's flags, and by its own rounding.
TEST(Lockstep, DevicesAndFloatingPointKeepApart) {
  Scenario scenario = scenario_of(R"(
          li t1, 1; fcvt.d.l ft0, t1
          fadd.d ft1, ft0, ft0; lw t0, 0(a1); fadd.d ft1, ft1, ft0; sw t0, 4(a1); fadd.d ft1, ft1, ft0
          csrrs t2, fflags, zero)");
  scenario.contents.state.frm = 2;
  EXPECT_EQ(compare_engines(scenario), "");
}

// An access that faults leaves everything as it was before it, and all before it done.
TEST(Lockstep, FaultsArePrecise) {
  for (const char* access : {"lw a0, 0(t0)", "ld s7, 0(t0)", "sw a0, 0(t0)", "fld ft3, 0(t0)", "lbu t0, 0(t0)",
                             "lr.w a0, (t0)", "amoadd.w a0, a0, (t0)", "sd zero, 0(t0)", "c.lw a0, 0(a3)", "cbo.zero (t0)"}) {
    for (const u64 address : {u64{0}, kDevice + kPageSize - 4, kRam + kRamBytes - 2, kRam - 1, ~u64{0}}) {
      const Scenario scenario = scenario_of(fmt::format(R"(
          li t0, {0:#x}; li a3, {0:#x}
          addi a4, a0, 1; add s7, s7, a4; addi a0, a0, 5; fadd.d ft3, ft4, ft5
          {1}
          addi a4, a4, 1; addi a0, a0, 1; addi s7, s7, 1)", address, access));
      EXPECT_EQ(compare_engines(scenario), "") << access << " at " << address;
    }
  }
}

// A whole cache block, wherever in it the address points, and nothing around it.
TEST(Lockstep, ZeroesCacheBlocks) {
  for (const unsigned offset : {0u, 1u, 63u, 64u, 4095u}) {
    for (const u64 menvcfg : {u64{0}, u64{riscv::envcfg::kCbze}}) {
      Scenario scenario = scenario_of(fmt::format(R"(
          li t0, {:#x}; ld t1, 0(t0); addi a4, t0, 0; fld ft0, 0(a0); fadd.d ft0, ft0, ft0; sd a4, 0(s0)
          cbo.zero (t0); addi a4, a4, 1; fadd.d ft0, ft0, ft0; cbo.zero (t0); addi a5, a4, 1)", kData + offset));
      riscv::HartState& state = scenario.contents.state;
      state.x[8] = kSaveArea;
      state.privilege = riscv::Privilege::kSupervisor;
      state.menvcfg = menvcfg;
      EXPECT_EQ(compare_engines(scenario), "") << offset << " " << menvcfg;
      Machine machine(EngineKind::kTranslate, scenario.contents);
      machine.run(100);
      const u64 block = align_down(kData + offset, u64{64});
      EXPECT_EQ(machine.peek(block) == 0 && machine.peek(block + 56) == 0, menvcfg != 0);
      EXPECT_EQ(machine.peek(block + 64), scenario.contents.peek<u64>(block + 64));
    }
  }
}

// After FENCE.I new code is seen in a page of which some has run, whether it lies beside that or in its place.
TEST(Lockstep, CodeBesideOtherCodeChanges) {
  for (const unsigned offset : {0u, 4u, 0x3cu, 0x40u, 0x100u}) {
    const std::string source = fmt::format(R"(
          li s0, {0:#x}; li s1, 3; li t1, 0x00150513; jalr ra, 0(s0)
    loop: sw t1, {1}(s0); fence.i; jalr ra, 0(s0); jalr ra, {1}(s0); slli t2, s1, 20; add t1, t1, t2
          addi s1, s1, -1; bne s1, zero, loop)", kData + 0x200, offset);
    Scenario scenario = scenario_of(source, 400);
    for (u64 at = 0; at < kPageSize; at += 4) scenario.contents.poke(kData + at, std::uint32_t{0x00008067});  // ret
    for (const unsigned at : {0u, 4u, 0x3cu, 0x40u, 0x100u}) {
      scenario.contents.poke(kData + 0x200 + at, std::uint32_t{0x00350513});  // addi a0, a0, 3
    }
    EXPECT_EQ(compare_engines(scenario), "") << offset;
  }
}

// Floating-point instructions may be allowed and forbidden at any place, and mean what they mean.
TEST(Lockstep, FloatingPointComesAndGoes) {
  for (const char* change : {"csrrc t0, sstatus, s0", "csrrw zero, sstatus, zero", "csrrc zero, sstatus, s0",
                             "csrrw zero, sstatus, s1", "csrrs t0, sstatus, s0", "csrrwi zero, frm, 4",
                             "csrrwi zero, frm, 7", "csrrwi zero, frm, 1"}) {
    for (const char* back : {"", "csrrs t1, sstatus, s0", "csrrw zero, sstatus, s0", "csrrwi zero, frm, 0"}) {
      Scenario scenario = scenario_of(fmt::format(R"(
          li s0, 0x6000; li s1, 0x2000; li t1, 3; fcvt.d.l ft0, t1; li t1, 7; fcvt.d.l ft1, t1
          fdiv.d ft2, ft0, ft1; {}; ld t2, 0(s2); fdiv.d ft2, ft2, ft1
          ld t2, 0(s3); {}; fmul.d ft3, ft2, ft0; csrrs a4, fflags, zero)", change, back));
      riscv::HartState& state = scenario.contents.state;
      state.privilege = riscv::Privilege::kSupervisor;
      state.x[18] = kData + 0x3000;
      state.x[19] = kData + 0x5000;
      EXPECT_EQ(compare_engines(scenario), "") << change << "; " << back;
    }
  }
}

// SC without a reservation fails, and touches nothing.
TEST(Lockstep, StoresWithoutAReservation) {
  for (const char* store : {"sc.d a4, a5, (s0)", "sc.d zero, a5, (s0)", "sc.w s0, a5, (s0)"}) {
    for (const char* before : {"", "lr.d a4, (s0)", "lr.w a4, (s0)", "lr.d a4, (a0)"}) {
      for (const u64 address : {kData + 8, kData + 12, kData + 2, u64{0}, kDevice}) {
        Scenario scenario = scenario_of(fmt::format("li s0, {:#x}; {}; addi a3, a3, 1; {}; addi a3, a3, 1; {}",
                                                    address, before, store, store));
        EXPECT_EQ(compare_engines(scenario), "") << before << "; " << store << " at " << address;
      }
    }
  }
}

// An interrupt that waits is taken right after the instruction that allows it, whichever that is.
TEST(Lockstep, InterruptsAreTakenAtOnce) {
  constexpr u64 kSupervisorExternal = u64{1} << 9;
  for (const char* allow : {"csrrsi zero, sstatus, 2", "csrrsi a4, sstatus, 2", "csrrs zero, sstatus, s0",
                            "csrrw zero, sstatus, s0", "csrrwi zero, sstatus, 2", "csrrw zero, sepc, s1; sret"}) {
    for (const char* before : {"", "csrrs zero, sie, s2", "csrrci zero, sstatus, 2"}) {
      const std::string source = fmt::format(R"(
            addi a3, a3, 1; {}; addi a3, a3, 1; {}; addi a3, a3, 1
      on:   addi a3, a3, 1; addi a3, a3, 1)", before, allow);
      Scenario scenario = scenario_of(source);
      riscv::HartState& state = scenario.contents.state;
      state.privilege = riscv::Privilege::kSupervisor;
      state.mstatus |= riscv::mstatus::kSpp | riscv::mstatus::kSpie;
      state.stvec = kMachineHandler;
      state.mideleg = state.mie = 0x222;
      if (std::string_view(before).contains("sie")) state.mie = 0;
      state.x[8] = 2;
      state.x[9] = kCode + 2 * riscv::test::assemble(source.substr(0, source.find("on:"))).size();
      state.x[18] = kSupervisorExternal;
      scenario.chunks = {{0, 0, 0}, {100, kSupervisorExternal, 0}};
      EXPECT_EQ(compare_engines(scenario), "") << before << "; " << allow;
      Machine machine(EngineKind::kTranslate, scenario.contents);
      machine.set_interrupts(kSupervisorExternal);
      machine.run(100);
      EXPECT_EQ(machine.state().scause, u64{1} << 63 | 9) << before << "; " << allow;
    }
  }
}

// However the budget falls, exactly so many instructions run.
TEST(Lockstep, EveryBudget) {
  const std::string source = R"(
          li s0, 3
    loop: addi s1, s1, 1; lw t0, 1(a0); sd s1, 8(a0); csrrs t1, instret, zero; mul t2, t1, s1
          amoadd.d t3, t2, (a0); fcvt.d.l ft0, t3; fmul.d ft1, ft0, ft0; lw t4, 0(a1)
          addi s0, s0, -1; bne s0, zero, loop; auipc ra, 0; jalr ra, 8(ra)
          .half 0)";
  for (u64 instructions = 1; instructions < 60; ++instructions) {
    EXPECT_EQ(compare_engines(scenario_of(source, instructions)), "") << instructions << " instructions";
  }
}

// Hot loops get code of their own, with other registers in host registers: nested loops, more registers than the host
// has, both kinds of them, slow accesses, atomics, and instructions that are stepped.
TEST(Lockstep, Regions) {
  const std::string source = R"(
          li s2, 0; li s3, 40; fcvt.d.l ft0, s3; fcvt.d.l fs1, s3
   outer: li s4, 0; addi t6, s2, 7
   inner: ld t0, 0(a0); add t1, t0, s4; sd t1, 8(a0); fld ft1, 8(a0); fadd.d ft0, ft0, ft1; fmul.d fs1, fs1, ft0
          fsd fs1, 16(a0); addi s4, s4, 1; xor s5, s5, t1; add s6, s6, s5; slli s7, s6, 3; sub s8, s7, s4
          andi t2, s4, 3; bne t2, zero, over; lw t3, 0(a1); amoadd.w t4, s4, (a0); csrrs t5, instret, zero
          fmin.d ft2, ft0, fs1; div s9, s8, t6; fmv.x.d s10, ft2
    over: li t2, 9; blt s4, t2, inner
          addi s2, s2, 1; bne s2, s3, outer; fcvt.s.d fa0, fs1; fadd.s fa1, fa0, fa0
          .half 0)";
  for (const u64 instructions : {500u, 3000u, 3001u, 3002u, 3003u, 9000u}) {
    const Scenario scenario = scenario_of(source, instructions);
    EXPECT_EQ(compare_engines(scenario), "") << instructions << " instructions";
    Machine machine(Machine::kEager, scenario.contents);
    machine.run(instructions);
    EXPECT_GT(machine.statistics().regions_translated, 0u);
  }
}

// A block runs out of its page into the next, and an instruction lies in both.
TEST(Lockstep, CodeAcrossPages) {
  for (const unsigned fill : {1021u, 1022u, 1023u}) {
    std::string source = "c.addi a3, 1\n";
    for (unsigned i = 0; i < fill; ++i) source += "addi a4, a4, 1\n";
    source += "add a5, a4, a3; add a6, a5, a4; add a7, a6, a5";
    EXPECT_EQ(compare_engines(scenario_of(source, 1100)), "") << fill;
  }
}

// The rows' own generator: every row, in well-behaved user programs.
TEST(Lockstep, GeneratedPrograms) {
  riscv::Generator generator({.start = kCode, .scratch = kData, .units = 200}, 1);
  for (unsigned i = 0; i < 100; ++i) {
    const riscv::Program program = generator.next();
    Scenario scenario = scenario_of("");
    std::vector<std::uint16_t> code = program.code;
    code.push_back(0xa001);  // c.j .
    scenario.contents.load(program.start, code);
    std::memcpy(&scenario.contents.ram[program.scratch - kRam], program.memory.data(), 8 * program.memory.size());
    riscv::HartState& state = scenario.contents.state;
    std::copy(program.x.begin(), program.x.end(), state.x.begin());
    state.f = program.f;
    state.fflags = program.fcsr & 0x1f;
    state.frm = static_cast<std::uint8_t>(program.fcsr >> 5);
    state.privilege = riscv::Privilege::kUser;
    scenario.chunks = {{100, 0, 0}, {20'000, 0, 0}};
    ASSERT_EQ(compare_engines(scenario), "") << "program " << i << "\n" << program.listing();
  }
}

// And code that comes to no sample looks for one after each slice.
TEST(Lockstep, InterruptsAreTakenBetweenSamples) {
  Scenario scenario = scenario_of("loop: addi a3, a3, 1; jal zero, loop");
  riscv::HartState& state = scenario.contents.state;
  state.privilege = riscv::Privilege::kSupervisor;
  state.mstatus |= riscv::mstatus::kSie;
  state.stvec = kCode + 0x400;
  state.mideleg = state.mie = 0x222;
  scenario.contents.load(kCode + 0x400, riscv::test::assemble("loop: addi s1, s1, 1; jal zero, loop", 0));
  Machine machine({.slices_a_sample = 1u << 30}, scenario.contents);
  constexpr u64 kInstructions = 2'000'000'000;
  std::jthread device([&machine] {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    machine.set_interrupts(u64{1} << 9);
  });
  machine.run(kInstructions);
  device.join();
  EXPECT_GT(machine.state().x[9], 100'000u);  // more than are in what is left of a slice
  EXPECT_GT(machine.state().x[13], 0u);
  EXPECT_GE(machine.state().instructions, kInstructions);
}

}  // namespace
}  // namespace doppel::engine_test
