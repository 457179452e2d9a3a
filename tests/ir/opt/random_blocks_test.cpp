// Optimized blocks do what the original ones do: the same accesses, helpers and floating-point operations, with
// the same state at each instruction that may leave, and the same way out.
#include <gtest/gtest.h>

#include "ir/evaluate.h"
#include "ir/opt/optimize.h"
#include "ir/random_block.h"
#include "ir/recording_environment.h"
#include "ir/text.h"
#include "ir/verify.h"

namespace doppel::ir {
namespace {

using testing::RandomBlock;
using testing::RecordingEnvironment;

struct Run {
  Leaving leaving;
  std::vector<RecordingEnvironment::Event> events;
  std::array<std::byte, testing::kRandomStateBytes> state;

  bool operator==(const Run&) const = default;
};

Run run(const Block& block, std::uint64_t seed) {
  Run result;
  RecordingEnvironment environment(seed, result.state, seed % 4 == 0 ? 8 : 0);
  result.leaving = evaluate(block, result.state, environment);
  result.events = environment.events();
  return result;
}

constexpr unsigned kBlocks = 10'000;
constexpr unsigned kRuns = 3;  // of each block, from different states

void expect_same_behavior(const char* what, const PassSet& set) {
  unsigned to_the_end = 0;
  for (std::uint64_t seed = 0; seed < kBlocks; ++seed) {
    const Block original = RandomBlock(seed).make();
    const auto valid = verify(original);
    ASSERT_TRUE(valid) << valid.error().message << '\n' << print(original);

    Block optimized = original;
    optimize(optimized, set);
    const auto still_valid = verify(optimized);
    ASSERT_TRUE(still_valid) << what << ": " << still_valid.error().message << "\nbefore:\n"
                             << print(original) << "after:\n" << print(optimized);

    for (std::uint64_t i = 0; i < kRuns; ++i) {
      const Run expected = run(original, kRuns * seed + i);
      ASSERT_TRUE(run(optimized, kRuns * seed + i) == expected)
          << what << ", block " << seed << ", run " << i << "\nbefore:\n"
          << print(original) << "after:\n" << print(optimized);
      to_the_end += expected.leaving.origin == original.insts.back().origin;
    }
  }
  // Else the blocks would say little about what stands late in them.
  EXPECT_GT(to_the_end, kBlocks * kRuns / 4);
}

class EachPass : public ::testing::TestWithParam<unsigned> {};

TEST_P(EachPass, KeepsBehaviorAlone) {
  const std::string_view name = passes()[GetParam()].name;
  PassSet set = PassSet::none();
  ASSERT_TRUE(set.set(name, true));
  expect_same_behavior(name.data(), set);
}

TEST_P(EachPass, CanBeLeftOut) {
  const std::string_view name = passes()[GetParam()].name;
  PassSet set = PassSet::all();
  ASSERT_TRUE(set.set(name, false));
  expect_same_behavior(name.data(), set);
}

INSTANTIATE_TEST_SUITE_P(RandomBlocks, EachPass, ::testing::Range(0u, static_cast<unsigned>(passes().size())),
                         [](const auto& test) { return std::string(passes()[test.param].name); });

TEST(RandomBlocks, AllPassesKeepBehavior) { expect_same_behavior("all passes", PassSet::all()); }

// The comparison above must notice what a pass could get wrong.
TEST(RandomBlocks, ALostSetIsNoticed) {
  unsigned noticed = 0, lost = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    Block block = RandomBlock(seed).make();
    const Block original = block;
    for (Inst& inst : block.insts) {
      if (inst.op != Op::kSet) continue;
      inst = {.op = Op::kConst, .type = Type::kI64, .origin = inst.origin};
      ++lost;
      noticed += !(run(block, 1) == run(original, 1));
      break;
    }
  }
  EXPECT_GT(noticed, lost / 2);
}

}  // namespace
}  // namespace doppel::ir
