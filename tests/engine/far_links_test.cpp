// Ways of a supervisor from page to page: jumps, which are linked for as long as the same page lies where they go; and
// instructions that lie in both. Held to the interpreter while mappings and code change.
#include <gmock/gmock.h>

#include "lockstep.h"

namespace doppel::engine_test {
namespace {

constexpr u64 kImage = 0xffff'ffff'8000'0000;  // where kernels lie
constexpr u64 kHigh = 0xffff'ffc0'0000'0000;   // in the window, too, but no address of 32 bits
constexpr u64 kTables = kRam + 0x40000;        // a root, and for both places two levels; then those of another space
constexpr u64 kOtherSpace = kTables + 8 * kPageSize;
constexpr u64 kFirst = kCode, kSecond = kCode + 0x1000, kOther = kCode + 0x2000, kAliased = kCode + 0x3000;
constexpr u64 kTarget = 0x10;  // in the second page and the other one, what is jumped to
constexpr u64 kV = 1, kR = 2, kW = 4, kX = 8, kG = 32, kAD = 192;

constexpr u64 leaf(u64 gpa) { return gpa >> kPageShift << 10 | kV | kR | kW | kX | kG | kAD; }
constexpr u64 satp_of(u64 tables) { return u64{8} << 60 | tables >> kPageShift; }
// The entry of the image's page `number`.
constexpr u64 entry(u64 number, u64 tables = kTables) { return tables + 2 * kPageSize + 8 * number; }

// Guest code at `base` + 2 * size(), piece by piece.
class Code {
 public:
  explicit Code(u64 base) : base_(base) {}
  u64 here() const { return 2 * words_.size(); }
  Code& add(std::string_view source) {
    const auto more = riscv::test::assemble(source, base_ + here());
    words_.insert(words_.end(), more.begin(), more.end());
    return *this;
  }
  // With an immediate that labels do not reach.
  Code& add(std::string_view mnemonic, const isa::Operands& operands) {
    const std::uint32_t raw = riscv::test::row_of(mnemonic).pattern.encode(operands);
    words_.push_back(static_cast<std::uint16_t>(raw));
    words_.push_back(static_cast<std::uint16_t>(raw >> 16));
    return *this;
  }
  const std::vector<std::uint16_t>& words() const { return words_; }

 private:
  u64 base_;
  std::vector<std::uint16_t> words_;
};

enum class Way { kCall, kLongCall, kJump, kLongJump, kBranch, kStraddle };

// The instruction that goes on in the next page, by a halfword that says what it adds.
constexpr u64 kStraddling = kPageSize - 2;
std::array<std::uint16_t, 2> straddling(int adds) {
  const std::uint32_t raw = riscv::test::row_of("addi").pattern.encode({.imm = adds, .rd = 25, .rs1 = 25});
  return {static_cast<std::uint16_t>(raw), static_cast<std::uint16_t>(raw >> 16)};
}

// From where the code is to the target in the next page, which comes back.
void go_far(Code& code, Way way) {
  if (way != Way::kCall && way != Way::kLongCall) {
    const int length = way == Way::kLongJump ? 16 : 12;
    code.add(fmt::format("auipc ra, 0; addi ra, ra, {}", length));
  }
  const auto distance = static_cast<std::int32_t>(kPageSize + kTarget - code.here());
  const bool calls = way == Way::kCall || way == Way::kLongCall;
  switch (way) {
    case Way::kCall:
    case Way::kJump: code.add("jal", {.imm = distance, .rd = calls ? std::uint8_t{1} : std::uint8_t{0}}); break;
    case Way::kStraddle: code.add("jal", {.imm = static_cast<std::int32_t>(kStraddling - code.here()), .rd = 0}); break;
    case Way::kBranch: code.add("beq", {.imm = distance, .rs1 = 0, .rs2 = 0}); break;
    default: {
      const int low = distance - static_cast<int>(kPageSize);
      const std::string link = calls ? "ra" : "t1";
      code.add(fmt::format("auipc {}, 0x1000; jalr {}, {}({})", link, calls ? "ra" : "zero", low, link));
    }
  }
}

// The first page's code goes to the next one 600 times; every 16th time `change` comes in between. s1 is the entry of the
// second page, s2 and s3 what may be put there, s4 and s5 address spaces, s8 where the second page's RAM is seen.
Scenario scenario_of(u64 place, Way way, std::string_view change, u64 instructions = 12'000) {
  Scenario scenario;
  Contents& contents = scenario.contents;
  Code code(place);
  // As far in as a branch reaches the target.
  code.add("addi s7, s7, 1; addi s8, s8, 0; addi s8, s8, 0; addi s8, s8, 0");
  go_far(code, way);
  code.add(fmt::format("andi t2, a0, 15; bne t2, zero, over; andi t2, a0, 16; {}\nover: addi a0, a0, -1", change));
  code.add("bne", {.imm = -static_cast<std::int32_t>(code.here()), .rs1 = 10, .rs2 = 0});
  code.add("end: jal zero, end");
  contents.load(kFirst, code.words());
  contents.load(kSecond + kTarget, riscv::test::assemble("addi s7, s7, 10; xori s6, s7, 5; jalr zero, 0(ra)", 0));
  contents.load(kOther + kTarget, riscv::test::assemble("addi s7, s7, 300; jalr zero, 0(ra)", 0));
  contents.poke(kFirst + kStraddling, straddling(0)[0]);
  for (const u64 page : {kSecond, kOther}) {
    contents.poke(page, straddling(page == kSecond ? 5 : 700)[1]);
    contents.load(page + 2, riscv::test::assemble(fmt::format("jal zero, {}", kTarget - 2), 0));
  }
  for (u64 offset = 0; offset < kPageSize; offset += 4) contents.poke(kMachineHandler + offset, std::uint32_t{0x6f});
  for (const u64 tables : {kTables, kOtherSpace}) {
    contents.poke(tables + 8 * (kRam >> 30), leaf(kRam));
    for (const u64 at : {kImage, kHigh}) {
      contents.poke(tables + 8 * (at >> 30 & 511), leaf(tables + kPageSize) & ~(kR | kW | kX | kG | kAD));
      contents.poke(tables + kPageSize + 8 * (at >> 21 & 511), leaf(tables + 2 * kPageSize) & ~(kR | kW | kX | kG | kAD));
    }
    contents.poke(entry(0, tables), leaf(kFirst));
    contents.poke(entry(1, tables), leaf(tables == kTables ? kSecond : kOther));
    // The first page once more, with another one behind it.
    contents.poke(entry(4, tables), leaf(kFirst));
    contents.poke(entry(5, tables), leaf(kOther));
  }
  riscv::HartState& state = contents.state = open_state(place);
  state.privilege = riscv::Privilege::kSupervisor;
  state.mtvec = kMachineHandler;
  state.satp = satp_of(kTables);
  state.x[2] = kRam + 0x3f000;
  state.x[9] = entry(1);
  state.x[10] = 600;
  state.x[18] = leaf(kOther);
  state.x[19] = leaf(kSecond);
  state.x[20] = satp_of(kTables);
  state.x[21] = satp_of(kOtherSpace);
  state.x[24] = kSecond;
  scenario.chunks = {{instructions, 0, 0}};
  return scenario;
}

constexpr std::array kWays{Way::kCall, Way::kLongCall, Way::kJump, Way::kLongJump, Way::kBranch, Way::kStraddle};

class FarLinks : public testing::Test {
 protected:
  void SetUp() override {
    if (!x64::HostFeatures::detect().segment_bases) GTEST_SKIP() << "this host lets nobody set segment bases";
  }
  static u64 links(const Scenario& scenario) {
    Machine machine(Machine::kShadowing, scenario.contents);
    for (const Scenario::Chunk& chunk : scenario.chunks) machine.run(chunk.instructions);
    return machine.statistics().far_links;
  }
  // Of each way with `change`: the engines agree, and there were links.
  static void expect_links(const std::string& change) {
    for (const Way way : kWays) {
      const Scenario scenario = scenario_of(kImage, way, change);
      EXPECT_EQ(compare_engines(scenario), "") << static_cast<int>(way) << " " << change;
      EXPECT_GT(links(scenario), 0u) << static_cast<int>(way) << " " << change;
    }
  }
};

TEST_F(FarLinks, AreMadeWhereAddressesAreShort) {
  expect_links("");
  for (const Way way : kWays) {
    const Scenario high = scenario_of(kHigh, way, "");
    EXPECT_EQ(compare_engines(high), "") << static_cast<int>(way);
    EXPECT_EQ(links(high), 0u) << static_cast<int>(way);
  }
}

// Another page is put where the link leads, and the first one again.
TEST_F(FarLinks, TheMappingChanges) {
  const std::string put = "addi t4, s2, 0; beq t2, zero, put; addi t4, s3, 0\nput: sd t4, 0(s1); ";
  expect_links(put + "sfence.vma zero, zero");
  expect_links(put + "li t3, 0xffffffff80001000; sfence.vma t3, zero");
}

// Global pages need no fence between address spaces, if they are the same there. These are not, so there is one.
TEST_F(FarLinks, TheAddressSpaceChanges) {
  expect_links("addi t4, s4, 0; beq t2, zero, put; addi t4, s5, 0\nput: csrrw zero, satp, t4; sfence.vma zero, zero");
}

// addi s7, s7, 10 becomes addi s7, s7, 26, and so on.
TEST_F(FarLinks, TheCodeChanges) {
  expect_links("lw t4, 16(s8); li t3, 0x1000000; add t4, t4, t3; sw t4, 16(s8); fence.i");
  // The second half of the instruction that lies in both.
  expect_links("lhu t4, 0(s8); addi t4, t4, 256; sh t4, 0(s8); fence.i");
}

// Whatever follows the page at first: from the middle on it is the second one.
TEST_F(FarLinks, InstructionsInTwoPagesAreTranslated) {
  for (const u64 place : {kImage, kHigh}) {
    for (const u64 at_first : {kSecond, kOther}) {
      Scenario scenario =
          scenario_of(place, Way::kStraddle, "li t3, 300; blt t3, a0, over; sd s3, 0(s1); sfence.vma zero, zero");
      scenario.contents.poke(entry(1), leaf(at_first));
      for (const TranslatorEngine::Options& options : {Machine::kEager, Machine::kShadowing}) {
        Machine machine(options, scenario.contents);
        machine.run(scenario.chunks.front().instructions);
        EXPECT_LT(machine.statistics().steps, 100u);
      }
    }
  }
}

// The same page elsewhere goes to what lies behind it there.
TEST_F(FarLinks, ThePageHasTwoAddresses) {
  expect_links("auipc t4, 0; li t3, 0x4000; xor t4, t4, t3; jalr zero, 16(t4)");
}

// What lies there goes, and the trap says which instruction was to be fetched.
TEST_F(FarLinks, ThePageIsGone) {
  for (const Way way : kWays) {
    Scenario scenario = scenario_of(kImage, way, "li t3, 300; blt t3, a0, over; sd zero, 0(s1); sfence.vma zero, zero");
    EXPECT_EQ(compare_engines(scenario), "") << static_cast<int>(way);
    Machine machine(Machine::kShadowing, scenario.contents);
    machine.run(scenario.chunks.front().instructions);
    EXPECT_EQ(machine.state().mcause, 12u);
    EXPECT_EQ(machine.state().mepc, kImage + (way == Way::kStraddle ? kStraddling : kPageSize + kTarget));
    EXPECT_EQ(machine.state().mtval, kImage + kPageSize + (way == Way::kStraddle ? 0 : kTarget));
  }
}

// Interrupts come between any two instructions of a linked loop.
TEST_F(FarLinks, InterruptsComeBetween) {
  for (const Way way : kWays) {
    Scenario scenario = scenario_of(kImage, way, "");
    riscv::HartState& state = scenario.contents.state;
    state.stvec = kRam + 0x30000;
    state.mideleg = state.mie = 0x222;
    state.mstatus |= riscv::mstatus::kSie;
    scenario.contents.load(kRam + 0x30000, riscv::test::assemble("addi s10, s10, 1; csrrw zero, sie, zero; sret", 0));
    scenario.chunks.clear();
    for (u64 i = 0; i < 30; ++i) scenario.chunks.push_back({100 + i, i == 20 ? u64{1} << 9 : 0, 0});
    EXPECT_EQ(compare_engines(scenario), "") << static_cast<int>(way);
  }
}

}  // namespace
}  // namespace doppel::engine_test
