// Golden files of what guest code becomes: a deterministic test of the code's quality. The files lie beside this
// one, a case after the other:
//
//   case a name in words
//     guest instructions, as tests/isa/riscv/assembler.h reads them
//   ir
//     the block after the passes
//   host
//     the instructions of the host
//
// A run with DOPPEL_BLESS=1 in the environment writes the files anew with what the translator makes now; a new
// case needs no more than its name and its instructions.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "block_text.h"
#include "isa/riscv/assembler.h"

namespace doppel::engine_test {
namespace {

struct Case {
  std::string name, guest, ir, host;
};

std::vector<Case> read_cases(const std::filesystem::path& path) {
  std::vector<Case> cases;
  std::ifstream file(path);
  std::string* part = nullptr;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("case ")) {
      cases.push_back({line.substr(5), {}, {}, {}});
      part = &cases.back().guest;
    } else if (line == "ir" && part != nullptr) {
      part = &cases.back().ir;
    } else if (line == "host" && part != nullptr) {
      part = &cases.back().host;
    } else if (!line.empty() && part != nullptr) {
      *part += line + '\n';
    }
  }
  return cases;
}

void write_cases(const std::filesystem::path& path, const std::vector<Case>& cases) {
  std::ofstream file(path);
  const char* gap = "";
  for (const Case& one : cases) {
    file << gap << "case " << one.name << '\n' << one.guest << "ir\n" << one.ir << "host\n" << one.host;
    gap = "\n";
  }
}

constexpr unsigned kOffset = 0x100;  // in the page: not special

// A jump follows the instructions, for those that do not end a block by themselves.
std::vector<std::byte> page_with(const std::string& guest) {
  std::vector<std::byte> page(kPageSize);
  const std::vector<std::uint16_t> code = riscv::test::assemble(guest + "\njal zero, 0x200");
  std::memcpy(&page[kOffset], code.data(), 2 * code.size());
  return page;
}

using TextOf = BlockText (*)(std::span<const std::byte> page, unsigned offset, const x64::HostFeatures& features);

void check(std::string_view file, std::size_t least, const x64::HostFeatures& features, TextOf text_of = text_of_block) {
  const std::filesystem::path path = std::filesystem::path(__FILE__).parent_path() / file;
  std::vector<Case> cases = read_cases(path);
  EXPECT_GE(cases.size(), least);
  const bool bless = std::getenv("DOPPEL_BLESS") != nullptr;
  for (Case& one : cases) {
    const BlockText text = text_of(page_with(one.guest), kOffset, features);
    if (bless) {
      one.ir = text.optimized;
      one.host = text.host;
      continue;
    }
    EXPECT_EQ(text.optimized, one.ir) << file << ": " << one.name;
    EXPECT_EQ(text.host, one.host) << file << ": " << one.name;
  }
  if (bless) write_cases(path, cases);
}

TEST(HostCode, OfAModernHost) {
  check("host_code.cases", 60,
        {.bmi2 = true, .lzcnt = true, .bmi1 = true, .popcnt = true, .fma = true, .avx = true, .segment_bases = true});
}

TEST(HostCode, OfLoops) { check("host_code_loops.cases", 4, {.bmi2 = true}, text_of_loop); }

TEST(HostCode, OfTheOldestHost) { check("host_code_base.cases", 10, {}); }

// Each way to make one block of two can be left out.
TEST(HostCode, BlocksOfRegionsAreCombinedOrNot) {
  const std::vector<std::byte> page = page_with(
      "loop: addi a0, a0, -1; beq a1, zero, over; addi a2, a2, 1; over: addi a3, a3, 1; bne a0, zero, loop");
  const x64::StateOffsets offsets = TranslatorEngine::state_offsets(x64::MemoryModel::kFlat);
  const auto blocks = [&](const ir::PassSet& passes) {
    const auto region = region_of_loop(page, kOffset, offsets, passes);
    return region ? region->blocks.size() : 0;
  };
  EXPECT_EQ(blocks(ir::PassSet::all()), 1u);
  for (const auto& [name, expected] : {std::pair("if_conversion", 3u), std::pair("block_joining", 2u)}) {
    ir::PassSet passes = ir::PassSet::all();
    EXPECT_TRUE(passes.set(name, false));
    EXPECT_EQ(blocks(passes), expected) << name;
  }
}

// No guest's block has three operands in registers that all live on: one of them makes room for the result.
TEST(HostCode, OperandsOfCompareSwapMakeRoom) {
  const auto block = ir::parse(R"(guest_bytes 4
@0 raw 0x00000000 +0
  %0 = get.i64 [144]
  %1 = get.i64 [152]
  %2 = get.i64 [160]
  %3 = compare_swap.i64 [%0], %1, %2
  set [168], %3
  %5 = add %0, %1
  set [176], %5
  %7 = add %1, %2
  set [184], %7
  exit +4
)");
  ASSERT_TRUE(block) << block.error().message;
  const x64::Compiler compiler(TranslatorEngine::state_offsets(), x64::HostFeatures::detect());
  EXPECT_FALSE(compiler.compile({*block, 0}).bytes.empty());
}

// Nor does one come to a second get of what it knows: the first one's value is not to be taken from there after a change.
TEST(HostCode, ChangeInPlaceLeavesTheValueThatWasThere) {
  const auto block = ir::parse(R"(guest_bytes 4
@0 raw 0x00000000 +0
  %0 = get.i64 [144]
  %1 = get.i64 [144]
  %2 = const 4
  %3 = or %1, %2
  set [144], %3
  set [152], %0
  exit +4
)");
  ASSERT_TRUE(block) << block.error().message;
  const x64::Compiler compiler(TranslatorEngine::state_offsets(), {});
  const std::string host = block_text::print_host(compiler.compile({*block, 0}).bytes);
  const std::size_t change = host.find("or qword ptr [rbp+s2], 0x04");
  ASSERT_NE(change, std::string::npos) << host;
  EXPECT_EQ(host.find("+s2]", change + 20), std::string::npos) << host;
}

}  // namespace
}  // namespace doppel::engine_test
