// Translations that change while hot code relies on them: what the code keeps of a page must go with the translation.
// Held to the interpreter, in supervisor mode with page tables that the guest code itself changes.
#include <gmock/gmock.h>

#include <chrono>
#include <thread>

#include "lockstep.h"

namespace doppel::engine_test {
namespace {

constexpr u64 kFirstSpace = kRam + 0x40000;          // of the first address space; a root and two levels
constexpr u64 kOtherSpace = kFirstSpace + 4 * kPageSize;
constexpr u64 kPages = kRam + 0x60000;               // what is mapped
constexpr u64 kWindow = 0x8000'0000;                 // where, page by page
constexpr u64 kV = 1, kR = 2, kW = 4, kX = 8, kU = 16, kG = 32, kA = 64, kD = 128;
constexpr u64 kReadWrite = kV | kR | kW | kA | kD;

constexpr u64 leaf(u64 gpa, u64 flags) { return gpa >> kPageShift << 10 | flags; }
constexpr u64 satp_of(u64 tables, u64 asid) { return u64{8} << 60 | asid << 44 | tables >> kPageShift; }
// Of the window's page `number`, its entry.
constexpr u64 entry(u64 number, u64 tables = kFirstSpace) { return tables + 2 * kPageSize + 8 * number; }

// RAM where it is, for everyone to be the same; in the window pages of their own.
void make_tables(Contents& contents, u64 tables, u64 first_page) {
  contents.poke(tables + 8 * (kRam >> 30), leaf(kRam, kReadWrite | kX | kG));
  contents.poke(tables + 8 * (kWindow >> 30), leaf(tables + kPageSize, kV));
  contents.poke(tables + kPageSize, leaf(tables + 2 * kPageSize, kV));
  for (u64 i = 0; i < 4; ++i) contents.poke(entry(i, tables), leaf(first_page + i * kPageSize, kReadWrite));
}

// A scenario whose code has s0 = kWindow, s1 = the entry of its first page, s2 and s3 entries for other pages to be put
// there, s4 and s5 both address spaces, s6 = 0, a0 = a count of rounds.
Scenario scenario_of(const std::string& source, u64 instructions = 20'000) {
  Scenario scenario;
  Contents& contents = scenario.contents;
  contents.load(kCode, riscv::test::assemble(source + "\nend: jal zero, end", kCode));
  for (u64 offset = 0; offset < kPageSize; offset += 4) contents.poke(kMachineHandler + offset, std::uint32_t{0x6f});
  for (u64 offset = 0; offset < 8 * kPageSize; offset += 8) contents.poke(kPages + offset, offset * 0x10001);
  make_tables(contents, kFirstSpace, kPages);
  make_tables(contents, kOtherSpace, kPages + 4 * kPageSize);
  riscv::HartState& state = contents.state = open_state(kCode);
  state.privilege = riscv::Privilege::kSupervisor;
  state.mtvec = kMachineHandler;
  state.satp = satp_of(kFirstSpace, 1);
  const std::array<u64, 8> saved{kWindow, entry(0), leaf(kPages + 5 * kPageSize, kReadWrite), leaf(kPages, kReadWrite),
                                 state.satp, satp_of(kOtherSpace, 2), 0, 0};
  for (unsigned i = 0; i < saved.size(); ++i) state.x[i < 2 ? 8 + i : 16 + i] = saved[i];
  state.x[2] = kWindow + 0x800;
  state.x[10] = 600;
  scenario.chunks = {{instructions, 0, 0}};
  return scenario;
}

// The page that a loop reads, or writes, is another one every few rounds; sp is a base register in all code.
TEST(TranslationsChange, ByAFenceInTheLoop) {
  for (const char* access : {"ld t0, 0(s0); add s7, s7, t0", "ld t0, 8(s0); ld t1, 16(s0); add s7, t0, t1",
                             "sd a0, 0(s0)", "sd a0, 24(s0); ld t0, 24(s0); add s7, s7, t0", "ld t0, 0(sp); xor s7, s7, t0",
                             "sd a0, 8(sp); sd s7, 16(sp); ld s7, 8(sp); ld t1, 16(sp); add s7, s7, t1"}) {
    for (const char* fence : {"sfence.vma zero, zero", "sfence.vma s0, zero", "li t3, 1; sfence.vma zero, t3", "li t3, 1; sfence.vma s0, t3"}) {
      const Scenario scenario = scenario_of(fmt::format(R"(
      loop: {0}; andi t2, a0, 31; bne t2, zero, over
            andi t2, a0, 32; addi t4, s2, 0; beq t2, zero, put; addi t4, s3, 0
       put: sd t4, 0(s1); {1}
      over: addi a0, a0, -1; bne a0, zero, loop)", access, fence));
      EXPECT_EQ(compare_engines(scenario), "") << access << "; " << fence;
      Machine machine(Machine::kEager, scenario.contents);
      machine.run(5000);
      EXPECT_GT(machine.statistics().regions_translated, 0u);
    }
  }
}

// A store that was allowed is not any more; the trap is precise.
TEST(TranslationsChange, PermissionGoes) {
  for (const char* access : {"sd a0, 0(s0)", "sd a0, 0(s0); sd a0, 8(s0)", "sd a0, 0(sp)", "ld t0, 0(s0); sd t0, 8(s0)"}) {
    for (const u64 flags : {kV | kR | kA, kV | kR | kW | kA, u64{0}, kV | kX | kA}) {
      Scenario scenario = scenario_of(fmt::format(R"(
      loop: addi s7, s7, 3; {}; addi s7, s7, 5; li t2, 300; bne t2, a0, over
            sd s2, 0(s1); sfence.vma zero, zero
      over: addi a0, a0, -1; bne a0, zero, loop)", access));
      scenario.contents.state.x[18] = leaf(kPages, flags);
      scenario.contents.state.medeleg = 0xb000;
      scenario.contents.state.stvec = kMachineHandler;
      EXPECT_EQ(compare_engines(scenario), "") << access << " " << flags;
      Machine machine(Machine::kEager, scenario.contents);
      machine.run(20'000);
      EXPECT_NE(machine.state().scause, 0u);
    }
  }
}

// Another address space, without a fence: each has its own.
TEST(TranslationsChange, ByAnotherAddressSpace) {
  for (const char* access : {"ld t0, 0(s0); add s7, s7, t0", "ld t0, 8(s0); ld t1, 16(s0); add s7, t0, t1", "sd a0, 0(s0)",
                             "ld t0, 0(sp); xor s7, s7, t0"}) {
    EXPECT_EQ(compare_engines(scenario_of(fmt::format(R"(
      loop: {0}; addi t1, zero, 7
      some: {0}; addi t1, t1, -1; bne t1, zero, some
            csrrw zero, satp, s5; {0}; {0}; csrrw zero, satp, s4
            addi a0, a0, -1; bne a0, zero, loop)", access))), "") << access;
  }
}

// A user's page, which the supervisor may use for as long as SUM lets it.
TEST(TranslationsChange, ByLockingOutUserPages) {
  Scenario scenario = scenario_of(R"(
            li t5, 0x40000; li t2, 100
      loop: beq a0, t2, over; csrrs zero, sstatus, t5
      over: ld t0, 0(s0); sd a0, 8(s0); ld t1, 16(sp); add s7, t0, t1
            csrrc zero, sstatus, t5; addi a0, a0, -1; bne a0, zero, loop)");
  scenario.contents.poke(entry(0), leaf(kPages, kReadWrite | kU));
  EXPECT_EQ(compare_engines(scenario), "");
  Machine machine(Machine::kEager, scenario.contents);
  machine.run(20'000);
  EXPECT_EQ(machine.state().mcause, 13u);
  EXPECT_EQ(machine.state().x[10], 100u);
  EXPECT_GT(machine.statistics().regions_translated, 0u);
}

// The first page in the window is a user's; a fault of the supervisor skips the instruction, and is counted in s9.
void give_to_users(Scenario& scenario) {
  Contents& contents = scenario.contents;
  for (const u64 tables : {kFirstSpace, kOtherSpace}) {
    contents.poke(entry(0, tables), contents.peek<u64>(entry(0, tables)) | kU);
  }
  contents.state.x[18] |= kU;
  contents.state.x[19] |= kU;
  contents.state.x[2] = kRam + 0x800;
  contents.state.medeleg = 0xb000;
  contents.state.stvec = kCode + 0x400;
  contents.load(kCode + 0x400, riscv::test::assemble(
      "csrrs t3, sepc, zero; addi t3, t3, 4; csrrw zero, sepc, t3; addi s9, s9, 1; sret", kCode + 0x400));
}

// The supervisor opens users' memory for each access. While it is closed the page becomes another one, the address space
// changes, and an access is a fault; code goes from one TLB to the other by itself.
TEST(TranslationsChange, ByOpeningUsersMemory) {
  for (const char* change : {"sd t4, 0(s1); sfence.vma zero, zero", "sd t4, 0(s1); sfence.vma s0, zero",
                             "li t3, 1; sd t4, 0(s1); sfence.vma zero, t3", "csrrw zero, satp, s5; ld t0, 8(sp); csrrw zero, satp, s4",
                             "ld t0, 0(s0)", "csrrs zero, sstatus, t5; csrrs t1, scounteren, zero; ld t1, 24(s0); add s7, s7, t1", "csrrs zero, sstatus, t5; ld t0, 16(s0); csrrc zero, sstatus, t5; ld t1, 24(s0); add s7, s7, t1",
                             "csrrs zero, sstatus, t5; csrrw zero, satp, s5; ld t0, 0(s0); csrrw zero, satp, s4"}) {
    Scenario scenario = scenario_of(fmt::format(R"(
            li t5, 0x40000
      loop: csrrs zero, sstatus, t5; ld t0, 0(s0); sd a0, 8(s0); csrrc s8, sstatus, t5; add s7, s7, t0; xor s7, s7, s8
            csrrw s8, sstatus, t5; ld t0, 8(s0); csrrw zero, sstatus, s8; add s7, s7, t0
            andi t2, a0, 31; bne t2, zero, over
            andi t2, a0, 32; addi t4, s2, 0; beq t2, zero, put; addi t4, s3, 0
       put: {}; csrrc zero, sstatus, t5
      over: addi a0, a0, -1; bne a0, zero, loop)", change));
    give_to_users(scenario);
    EXPECT_EQ(compare_engines(scenario), "") << change;
    for (const TranslatorEngine::Options& options : {Machine::kEager, Machine::kShadowing}) {
      Machine machine(options, scenario.contents);
      machine.run(20'000);
      EXPECT_EQ(machine.state().x[10], 0u);
      EXPECT_LT(machine.statistics().steps, 600u) << "of four changes in each of 600 rounds";
    }
  }
}

// Code has opened users' memory, the interpreter closes it, as what is seldom run, and code goes on.
TEST(TranslationsChange, ByClosingUsersMemoryInTheInterpreter) {
  Scenario scenario = scenario_of(R"(
            li t5, 0x40000
      loop: csrrs zero, sstatus, t5; ld t0, 0(s0); andi t2, a0, 31; beq t2, zero, cold; jal zero, over
      cold: csrrc zero, sstatus, t5; jal zero, over
      over: ld t1, 16(s0); add s7, s7, t1; csrrc zero, sstatus, t5; addi a0, a0, -1; bne a0, zero, loop)");
  give_to_users(scenario);
  EXPECT_EQ(compare_engines(scenario), "");
  Machine machine(TranslatorEngine::Options{}, scenario.contents);
  machine.run(20'000);
  EXPECT_EQ(machine.state().x[25], 600u / 32);
}

// A return to a program, which an interrupt takes the place of, or another hart's fence that leaves nothing of what is known:
// translated code is left in between. The supervisor has a window, the program has none.
TEST(TranslationsChange, ByAnInterruptedReturn) {
  constexpr u64 kProgram = kRam + 0x38000;
  Scenario scenario = scenario_of("csrrsi zero, sip, 2; csrrw zero, sepc, s7; csrrc zero, sstatus, s8; sret");
  Contents& contents = scenario.contents;
  riscv::HartState& state = contents.state;
  // The supervisor comes here for an interrupt, computes a while, and returns; and for a call, which it answers as above.
  contents.load(kCode + 0x400, riscv::test::assemble(R"(
            csrrci zero, sip, 2; csrrs t3, scause, zero; addi t4, zero, 100
      loop: addi t4, t4, -1; bne t4, zero, loop
            blt t3, zero, back; csrrsi zero, sip, 2; csrrs t3, sepc, zero; addi t3, t3, 4; csrrw zero, sepc, t3
      back: sret)", kCode + 0x400));
  contents.load(kProgram, riscv::test::assemble("loop: ld t0, 0(s0); sd t0, 8(s0); addi s9, s9, 1; ecall; jal zero, loop", kWindow));
  contents.poke(entry(1), leaf(kProgram, kV | kR | kX | kU | kA));
  contents.poke(entry(0), leaf(kPages, kReadWrite | kU));
  state.medeleg = 0xb100;
  state.mideleg = state.mie = 0x222;
  state.stvec = kCode + 0x400;
  state.mstatus |= riscv::mstatus::kSpie;
  state.x[23] = kWindow + kPageSize;
  state.x[24] = riscv::mstatus::kSpp;
  EXPECT_EQ(compare_engines(scenario), "");
  TranslatorEngine::Options options = Machine::kShadowing;
  options.shadow_after = TranslatorEngine::Options::kNever;
  Machine reference(EngineKind::kInterpret, contents), machine(options, contents);
  std::jthread other([&machine](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      machine.hart().post_fence({.translations = true, .asid = {}});
      std::this_thread::sleep_for(std::chrono::microseconds(5));
    }
  });
  reference.run(2'000'000);
  machine.run(2'000'000);
  other.request_stop();
  EXPECT_EQ(differences(reference, machine), "");
  EXPECT_GT(machine.state().x[25], 3000u);
}

// Pointers that walk over pages, by steps that straddle them, up and down; several accesses off one.
TEST(TranslationsChange, PointersWalk) {
  for (const char* step : {"8", "-8", "24", "40", "4", "511"}) {
    for (const char* access : {"ld t0, 0(s0); add s7, s7, t0", "sd a0, 0(s0)", "lbu t0, 0(s0); sb a0, 1(s0)",
                               "ld t0, 0(s0); ld t1, 8(s0); ld t2, 16(s0); add s7, t0, t1; xor s7, s7, t2",
                               "sw a0, 0(s0); sw a0, 4(s0); lw t0, 0(s0); add s7, s7, t0", "fld ft0, 0(s0); fsd ft0, 16(s0)"}) {
      Scenario scenario = scenario_of(fmt::format(R"(
            addi t4, s0, 0; li t5, 0x1ff0; add t5, t5, s0
     outer: addi s0, t5, 0; li t6, 200
      loop: {}; addi s0, s0, {}; addi t6, t6, -1; bne t6, zero, loop
            addi a0, a0, -1; bne a0, zero, outer)", access, step));
      EXPECT_EQ(compare_engines(scenario), "") << access << " by " << step;
    }
  }
}

// An interrupt handler maps another page beneath a loop that knows nothing of it.
TEST(TranslationsChange, ByAnInterrupt) {
  Scenario scenario = scenario_of(R"(
      loop: ld t0, 0(s0); add s7, s7, t0; sd s7, 8(s0); ld t0, 8(sp); add s7, s7, t0; jal zero, loop)");
  riscv::HartState& state = scenario.contents.state;
  state.stvec = kCode + 0x400;
  state.mideleg = state.mie = 0x222;
  state.mstatus |= riscv::mstatus::kSie;
  scenario.contents.load(kCode + 0x400, riscv::test::assemble(R"(
      sd s2, 0(s1); sfence.vma s0, zero; csrrw zero, sie, zero; sret)",
                                                             kCode + 0x400));
  scenario.chunks = {{3000, 0, 0}, {3000, u64{1} << 9, 0}, {3000, 0, 0}};
  EXPECT_EQ(compare_engines(scenario), "");
}

// So does another hart, by a fence that it asks for.
TEST(TranslationsChange, ByAnotherHart) {
  for (const TranslatorEngine::Options& options : {TranslatorEngine::Options{}, Machine::kEager}) {
    const Scenario scenario = scenario_of("loop: ld s7, 0(s0); ld s8, 0(sp); jal zero, loop");
    Machine machine(options, scenario.contents);
    machine.run(50'000);
    EXPECT_EQ(machine.state().x[23], 0u);
    const u64 changed = leaf(kPages + 5 * kPageSize, kReadWrite);
    std::memcpy(machine.ram() + (entry(0) - kRam), &changed, sizeof changed);
    machine.hart().post_fence({.translations = true, .asid = {}});
    machine.run(50'000);
    EXPECT_EQ(machine.state().x[23], 5 * kPageSize * 0x10001);
    EXPECT_EQ(machine.state().x[24], (5 * kPageSize + 0x800) * 0x10001);
  }
}

// A program's instruction lies in two pages. The second one changes, is another one, and is gone.
TEST(TranslationsChange, BehindAnInstruction) {
  if (!x64::HostFeatures::detect().segment_bases) GTEST_SKIP() << "this host lets nobody set segment bases";
  constexpr u64 kCodePage = kV | kR | kX | kU | kA, kLoop = kWindow + kPageSize - 4;
  Contents contents = scenario_of("").contents;
  const auto load = [&](u64 first, u64 second, int increment) {
    const auto code = riscv::test::assemble(
        fmt::format("loop: c.addi a3, 1; addi a4, a4, {}; jal zero, loop", increment), kLoop);
    for (std::size_t i = 0; i < code.size(); ++i) {
      contents.poke(i < 2 ? first + kPageSize - 4 + 2 * i : second + 2 * (i - 2), code[i]);
    }
  };
  load(kPages, kPages + 5 * kPageSize, 500);
  load(kPages, kPages + kPageSize, 3);
  for (u64 i = 0; i < 2; ++i) contents.poke(entry(i), leaf(kPages + i * kPageSize, kCodePage));
  contents.state.privilege = riscv::Privilege::kUser;
  contents.state.pc = kLoop;
  contents.state.x[13] = contents.state.x[14] = 0;
  Machine reference(EngineKind::kInterpret, contents), translated(Machine::kShadowing, contents);
  const auto run = [&](u64 gpa, auto value, bool code) {
    for (Machine* machine : {&reference, &translated}) {
      std::memcpy(machine->ram() + (gpa - kRam), &value, sizeof value);
      // Of the second page alone.
      machine->hart().post_fence({.instructions = code, .translations = !code, .start = kWindow + kPageSize, .size = kPageSize, .asid = {}});
      machine->run(3000);
    }
    EXPECT_EQ(differences(reference, translated), "") << std::hex << gpa;
    return reference.state().x[14];
  };
  const u64 unused = kPages + 8 * kPageSize;
  EXPECT_EQ(run(unused, u64{0}, true), 3000u);
  const u64 steps = translated.statistics().steps;
  EXPECT_EQ(translated.statistics().shadows, 1u);
  EXPECT_EQ(run(unused, u64{0}, true), 6000u);
  EXPECT_LT(translated.statistics().steps, steps + 100) << "it is left to the interpreter";
  const auto other_half = static_cast<std::uint16_t>(contents.peek<std::uint16_t>(kPages + kPageSize) ^ 1 << 4);
  EXPECT_EQ(run(kPages + kPageSize, other_half, true), 8000u);
  EXPECT_EQ(run(entry(1), leaf(kPages + 5 * kPageSize, kCodePage), false), 508'000u);
  run(entry(1), u64{0}, false);
  EXPECT_EQ(reference.state().mcause, 12u);
  EXPECT_EQ(reference.state().mtval, kWindow + kPageSize);
}

// Accesses of all kinds, each the first one to pages of a large page that others of it were found for. In the end the
// large page cannot be written any more, as a fence of one of its addresses says.
TEST(TranslationsChange, ChunksOfALargePage) {
  constexpr u64 kData = kRam + 0x60000;
  std::string source;
  unsigned label = 0;
  for (const char* access :
       {"lb t0, 0(s0)", "lbu t0, 1(s0)", "lh t0, 2(s0)", "lhu t0, 6(s0)", "lw t0, 4(s0)", "lwu t0, 12(s0)", "ld t0, 8(s0)",
        "ld t0, 4(s0)", "lw t0, -2(s0)", "ld t0, -1(s0)", "flw fa0, 16(s0); fmv.x.w t0, fa0", "fld fa0, 24(s0); fmv.x.d t0, fa0",
        "sb a0, 3(s0)", "sh a0, 4(s0)", "sw a0, 8(s0)", "sd a0, 16(s0)", "sd a0, 28(s0)", "sd a0, -3(s0)",
        "fsw fa0, 32(s0)", "fsd fa0, 40(s0)", "addi t1, s0, 63; cbo.zero (t1)"}) {
    source += fmt::format(R"(
            li s0, {0:#x}; li s7, {1:#x}; li s8, 0x1000; sfence.vma zero, zero
    l{2}:   {3}; xor s9, s9, t0; addi a0, a0, 77; add s0, s0, s8; bne s0, s7, l{2})",
                          kData + kPageSize, kData + 31 * kPageSize, label++, access);
  }
  source += fmt::format("\nli s1, {:#x}; li t4, {:#x}; li t5, {:#x}; sd t4, 0(s1); sfence.vma t5, zero; addi s10, s10, 1; sd a0, -64(s0)",
                        kFirstSpace + 8 * (kRam >> 30), leaf(kRam, kV | kR | kX | kG | kA | kD), kData - 0x10000);
  Scenario scenario = scenario_of(source, 8'000);
  scenario.contents.state.menvcfg = riscv::envcfg::kCbze;
  for (u64 at = kData; at < kRam + kRamBytes; at += 8) scenario.contents.poke(at, at * 0x9e37'79b9'7f4a'7c15);
  EXPECT_EQ(compare_engines(scenario), "");
  Machine machine(Machine::kEager, scenario.contents);
  machine.run(8'000);
  EXPECT_EQ(machine.state().mcause, 15u);
  EXPECT_EQ(machine.state().x[26], 1u);
}

// Where RAM ends in the middle of an access, although its chunk is known.
TEST(TranslationsChange, TheLastChunkOfRam) {
  for (const auto& [access, cause] : {std::pair{"ld t0, -4(s0)", 5u}, {"sd a0, -4(s0)", 7u}}) {
    const Scenario scenario = scenario_of(fmt::format("li s0, {:#x}; li t3, 0x1000; sub t3, s0, t3; sw t0, -4(t3); lw t0, -4(t3); {}",
                                                      kRam + kRamBytes, access), 100);
    EXPECT_EQ(compare_engines(scenario), "") << access;
    Machine machine(Machine::kEager, scenario.contents);
    machine.run(100);
    EXPECT_EQ(machine.state().mcause, cause) << access;
  }
}

}  // namespace
}  // namespace doppel::engine_test
