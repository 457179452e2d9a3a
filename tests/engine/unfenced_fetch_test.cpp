// What random programs may be excused from, exactly: instructions that the hart stored to since its last FENCE.I.
#include "unfenced_fetch.h"

#include <gtest/gtest.h>

#include "lockstep.h"

namespace doppel::engine_test {
namespace {

// In M-mode, with s0 pointing to the instruction at `target`, s1 to where it can be written, s2 to data; t1 holds another
// instruction.
Scenario scenario_of(const std::string& source, u64 target = kCode + 0x100) {
  Scenario scenario;
  Contents& contents = scenario.contents;
  contents.load(kCode, riscv::test::assemble(source + "; end: jal zero, end", kCode));
  contents.load(target, riscv::test::assemble("addi a0, a0, 1; jalr zero, 0(ra)"));
  contents.load(kMachineHandler, riscv::test::assemble("addi a1, a1, 1; handled: jal zero, handled"));
  contents.state = open_state(kCode);
  contents.state.mtvec = kMachineHandler;
  contents.state.x[8] = contents.state.x[9] = target;
  contents.state.x[18] = kData;
  contents.state.x[6] = 0x0005'0513;  // addi a0, a0, 0
  scenario.chunks = {{30, 0, 0}};
  return scenario;
}

// After how many instructions it happens, of all that run; nothing if it does not.
std::optional<u64> instructions_to_unfenced(const Scenario& scenario) {
  u64 before = 0;
  for (std::size_t i = 0; i < scenario.chunks.size(); ++i) {
    for (u64 n = 1; n <= scenario.chunks[i].instructions; ++n) {
      if (UnfencedFetch::happens(scenario, i, n)) return before + n - 1;
    }
    before += scenario.chunks[i].instructions;
  }
  return std::nullopt;
}

struct Case {
  const char* source;
  std::optional<u64> happens_after;
};

TEST(UnfencedFetch, IsFound) {
  for (const auto& [source, happens_after] : {
           Case{"sw zero, 0(s1); addi a1, a1, 1; jalr ra, 0(s0)", 3},
           // Not by data, nor by what lies beside it.
           {"sw zero, 0(s2); sw zero, -4(s1); sw zero, 8(s1); jalr ra, 0(s0)", std::nullopt},
           {"sb zero, 0(s1); jalr ra, 0(s0)", 2},
           {"sb zero, 1(s1); jalr ra, 0(s0)", 2},
           {"sb zero, 2(s1); jalr ra, 0(s0)", 2},
           {"sb s0, 3(s1); jalr ra, 0(s0)", std::nullopt},  // which is what is there
           {"sb t1, 3(s1); jalr ra, 0(s0)", 2},
           // It had run before.
           {"jalr ra, 0(s0); sw zero, 0(s1); jalr ra, 0(s0)", 5},
           // The second of two.
           {"sw zero, 4(s1); jalr ra, 0(s0)", 3},
           // By whatever stores.
           {"amoswap.w zero, zero, (s1); jalr ra, 0(s0)", 2},
           {"lr.w t0, (s1); sc.w t0, zero, (s1); jalr ra, 0(s0)", 3},
           {"fsd ft0, 0(s1); jalr ra, 0(s0)", 2},
       }) {
    EXPECT_EQ(instructions_to_unfenced(scenario_of(source)), happens_after) << source;
  }
}

// Nor does it help that the bytes are again what they were: the hart may have fetched meanwhile.
TEST(UnfencedFetch, BytesThatChangeBack) {
  EXPECT_EQ(instructions_to_unfenced(scenario_of("lw t0, 0(s1); sw zero, 0(s1); sw t0, 0(s1); jalr ra, 0(s0)")), 4);
  EXPECT_EQ(instructions_to_unfenced(scenario_of("lw t0, 0(s1); sw t0, 0(s1); jalr ra, 0(s0)")), std::nullopt);
}

TEST(UnfencedFetch, Fences) {
  const std::string store = "sw t1, 0(s1);", call = "jalr ra, 0(s0);", fence = "fence.i;";
  EXPECT_EQ(instructions_to_unfenced(scenario_of(store + fence + call)), std::nullopt);
  EXPECT_EQ(instructions_to_unfenced(scenario_of(fence + store + "addi a1, a1, 1;" + call)), 4);
  EXPECT_EQ(instructions_to_unfenced(scenario_of(store + fence + call + "sw zero, 0(s1); fence.i" )), std::nullopt);
  EXPECT_EQ(instructions_to_unfenced(scenario_of(store + fence + call + "sw zero, 0(s1);" + call)), 7);
  EXPECT_EQ(instructions_to_unfenced(scenario_of(store + "fence 0x0ff;" + call)), 3);
}

// What a trap leads to is fetched before another instruction has retired, and by interrupts in a later chunk, too.
TEST(UnfencedFetch, Handlers) {
  const std::string store = fmt::format("li t0, {:#x}; sw t1, 0(t0); ", kMachineHandler);
  const std::optional<u64> happens_after = instructions_to_unfenced(scenario_of(store + "addi a1, a1, 1; ecall"));
  ASSERT_TRUE(happens_after);
  EXPECT_EQ(instructions_to_unfenced(scenario_of("addi a1, a1, 1; ecall;" + store)), std::nullopt);
  EXPECT_EQ(instructions_to_unfenced(scenario_of(store + "fence.i; ecall")), std::nullopt);
  Scenario interrupted = scenario_of(store + "nop: addi zero, zero, 0; jal zero, nop");
  interrupted.contents.state.mie = 0x800;
  interrupted.contents.state.mstatus |= riscv::mstatus::kMie;
  interrupted.chunks = {{20, 0, 0}, {3, 0x800, 0}};
  EXPECT_EQ(instructions_to_unfenced(interrupted), 20);
}

// An instruction in two pages, of which each half counts.
TEST(UnfencedFetch, AcrossPages) {
  for (const char* address : {"0(s1)", "2(s1)"}) {
    const std::string store = fmt::format("sh zero, {};", address);
    const u64 target = kCode + kPageSize - 2;
    EXPECT_EQ(instructions_to_unfenced(scenario_of(store + "jalr ra, 0(s0)", target)), 2) << address;
    EXPECT_EQ(instructions_to_unfenced(scenario_of(store + "fence.i; jalr ra, 0(s0)", target)), std::nullopt) << address;
  }
}

// Likewise in U-mode and translated, where kCode is written at one address and run at another.
Scenario scenario_in_user_mode(const std::string& source) {
  constexpr u64 kOffset = 0x100;
  Scenario scenario = ScenarioMaker(1).make(true, true);
  Contents& contents = scenario.contents;
  contents.load(kCode, riscv::test::assemble(source));
  contents.load(kCode + kOffset, riscv::test::assemble("addi a0, a0, 1; jalr zero, 0(ra)"));
  riscv::HartState& state = contents.state;
  state.privilege = riscv::Privilege::kUser;
  state.mideleg = state.medeleg = state.mie = 0;
  state.x[2] = kData;
  state.x[6] = 0x0005'0513;
  state.x[8] = kUserCode + (kCode - kRam) + kOffset;
  state.x[9] = kWritableCode + kOffset;
  scenario.chunks = {{30, 0, 0}};
  return scenario;
}

// What must not be fetched is a fault, whatever is there.
TEST(UnfencedFetch, Translated) {
  Scenario scenario = scenario_in_user_mode("sw t1, 0(s1); jalr ra, 0(s0)");
  EXPECT_EQ(instructions_to_unfenced(scenario), 2);
  scenario.contents.state.x[8] = scenario.contents.state.x[9];
  EXPECT_EQ(instructions_to_unfenced(scenario), std::nullopt);
}

// Engines that differ there, both rightly, are no find; where FENCE.I says what is run they would be. Here the interpreter
// takes the page before the store, and the shadow takes it after that.
TEST(Lockstep, LeavesOpenWhatIsNotFenced) {
  if (!x64::HostFeatures::detect().segment_bases) GTEST_SKIP() << "this host lets nobody set segment bases";
  for (const char* fence : {"", "fence.i;"}) {
    Scenario scenario = scenario_in_user_mode(fmt::format(
        "sw t1, 0(s1); {} li t0, 100; loop: jalr ra, 0(s0); addi t0, t0, -1; bne t0, zero, loop; end: jal zero, end",
        fence));
    scenario.chunks = {{500, 0, 0}};
    bool left_open = false;
    EXPECT_EQ(compare_engines(scenario, ir::PassSet::all(), &left_open), "") << fence;
    EXPECT_EQ(left_open, *fence == 0) << fence;
  }
}

}  // namespace
}  // namespace doppel::engine_test
