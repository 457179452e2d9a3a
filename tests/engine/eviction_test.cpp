// Code memory that is too small: whatever is evicted and whenever, the translator does what the interpreter does.
#include <gmock/gmock.h>

#include "lockstep.h"

namespace doppel::engine_test {
namespace {

constexpr u64 kImage = 0xffff'ffff'8000'0000;  // where kernels lie
constexpr u64 kPages = 24, kFirst = kRam + 0x40000;
constexpr u64 kFunction = 0xe00;  // in each page, what others call
constexpr u64 kV = 1, kR = 2, kW = 4, kX = 8, kG = 32, kAD = 192;

constexpr u64 leaf(u64 gpa) { return gpa >> kPageShift << 10 | kV | kR | kW | kX | kG | kAD; }
constexpr u64 table(u64 gpa) { return gpa >> kPageShift << 10 | kV; }

// What one page of the tour does: a loop over much code, a call into the next page, and on to either of two pages.
std::vector<std::uint16_t> page_of_tour(u64 page, std::mt19937_64& random) {
  std::string source = "mul s2, s2, s3; addi s2, s2, 77; srli t0, s2, 61; addi t0, t0, 1\nloop: ";
  for (unsigned i = 0; i < 60; ++i) {
    const u64 lot = random();
    const std::string rd = fmt::format("a{}", 1 + lot / 8 % 5), rs = fmt::format("a{}", 1 + lot / 64 % 5);
    switch (lot % 5) {
      case 0: source += fmt::format("ld {}, {}(a0); ", rd, lot / 512 % 64 * 8); break;
      case 1: source += fmt::format("sd {}, {}(a0); ", rd, lot / 512 % 64 * 8); break;
      case 2: source += fmt::format("add {}, {}, s2; ", rd, rs); break;
      case 3: source += fmt::format("xor {0}, {0}, {1}; ", rd, rs); break;
      default: source += fmt::format("bge {0}, {1}, over{2}; addi {0}, {0}, 3\nover{2}: ", rd, rs, i);
    }
  }
  source += "addi t0, t0, -1; bne t0, zero, loop; ";
  std::vector<std::uint16_t> code = riscv::test::assemble(source, 0);
  const auto add = [&](const std::string& more) {
    for (const std::uint16_t parcel : riscv::test::assemble(more, 0)) code.push_back(parcel);
  };
  const auto jump = [&](std::uint8_t rd, u64 to, u64 offset) {
    const auto distance = static_cast<std::int32_t>((to % kPages - page) * kPageSize + offset - 2 * code.size());
    const std::uint32_t raw = riscv::test::row_of("jal").pattern.encode({.imm = distance, .rd = rd});
    code.push_back(static_cast<std::uint16_t>(raw));
    code.push_back(static_cast<std::uint16_t>(raw >> 16));
  };
  jump(1, page + 1, kFunction);
  add("addi s4, s4, 1; bge s2, zero, 12");  // over the first jump
  jump(0, page + 1, 0);
  jump(0, page + 7, 0);
  return code;
}

// The supervisor goes round, by a way drawn by lot.
Scenario tour(u64 seed) {
  std::mt19937_64 random(seed);
  Scenario scenario;
  Contents& contents = scenario.contents;
  for (u64 page = 0; page < kPages; ++page) {
    contents.load(kFirst + page * kPageSize, page_of_tour(page, random));
    contents.load(kFirst + page * kPageSize + kFunction, riscv::test::assemble(
        fmt::format("ld t1, {}(s8); add s6, s6, t1; xori s7, s6, {}; jalr zero, 0(ra)", page * 8, page), 0));
    contents.poke(kTables + 2 * kPageSize + 8 * page, leaf(kFirst + page * kPageSize));
  }
  contents.poke(kTables + 2 * kPageSize + 8 * kPages, leaf(kData));
  contents.poke(kTables + 8 * (kRam >> 30), leaf(kRam));
  contents.poke(kTables + 8 * (kImage >> 30 & 511), table(kTables + kPageSize));
  contents.poke(kTables + kPageSize + 8 * (kImage >> 21 & 511), table(kTables + 2 * kPageSize));
  riscv::HartState& state = contents.state = open_state(kImage);
  state.privilege = riscv::Privilege::kSupervisor;
  state.satp = u64{8} << 60 | kTables >> kPageShift;
  state.x[10] = kImage + kPages * kPageSize;
  state.x[24] = kData;
  state.x[18] = seed;
  state.x[19] = 0x5851'f42d'4c95'7f2d;
  for (unsigned i = 0; i < 5; ++i) scenario.chunks.push_back({20'000, 0, 0});
  return scenario;
}

// With the options, but for the size of the code memory.
void compare(const Scenario& scenario, TranslatorEngine::Options options, std::size_t code_bytes, EngineStatistics& sum) {
  options.code_bytes = code_bytes;
  ASSERT_EQ(compare_engines(scenario, options), "");
  Machine machine(options, scenario.contents);
  for (const Scenario::Chunk& chunk : scenario.chunks) machine.run(chunk.instructions);
  sum += machine.statistics();
}

// Where there is a window, pages are linked to each other, and accesses miss it.
TEST(Eviction, Tour) {
  const bool has_window = x64::HostFeatures::detect().segment_bases;
  for (const TranslatorEngine::Options& options : {Machine::kEager, Machine::kShadowing}) {
    EngineStatistics all;
    for (u64 seed = 1; seed <= 3; ++seed) compare(tour(seed), options, 128 << 10, all);
    EXPECT_GT(all.cache_evicted, 200u);
    EXPECT_GT(all.regions_translated, 200u);
    EXPECT_EQ(all.far_links > 200, has_window && options.window_after == 1);
    EXPECT_EQ(all.window_misses > 200, has_window && options.window_after == 1);
  }
}

// They write code of their own, and change address spaces.
TEST(Eviction, RandomPrograms) {
  EngineStatistics all;
  for (u64 seed = 1; seed <= 60; ++seed) {
    const auto& options = seed % 2 == 0 ? Machine::kEager : Machine::kShadowing;
    compare(ScenarioMaker(seed).make(), options, 32 << 10, all);
    ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed;
  }
  EXPECT_GT(all.cache_evicted, 1000u);
}

}  // namespace
}  // namespace doppel::engine_test
