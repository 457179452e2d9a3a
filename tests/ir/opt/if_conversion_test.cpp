#include "ir/opt/if_conversion.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ir/evaluate.h"
#include "ir/random_block.h"
#include "ir/recording_environment.h"
#include "ir/text.h"
#include "ir/verify.h"

namespace doppel::ir {
namespace {

using testing::RandomBlock;
using testing::RecordingEnvironment;

Block block(std::string_view text) {
  auto parsed = parse(text);
  if (!parsed) throw std::runtime_error(parsed.error().message);  // which fails the test
  return std::move(*parsed);
}

constexpr std::string_view kHead = R"(guest_bytes 8
@0 raw 0x00000001 +0
  %0 = get.i64 [8]
  %1 = const 1
  %2 = and %0, %1
@1 raw 0x00000002 +4
  %3 = get.i64 [16]
  %4 = lt %2, %3
  exit_if %4, +14
  exit +8
)";

constexpr std::string_view kSide = R"(guest_bytes 6
@0 raw 0x00000003 +0
  %0 = get.i64 [8]
  %1 = const 4
  %2 = shl %0, %1
  set [8], %2
@1 raw 0x00000004 +4
  %4 = get.i64 [8]
  set [8], %4
  set [24], %0
  exit +6
)";

TEST(IfConversion, ChoosesAfterTheBranch) {
  const auto converted = without_branch(block(kHead), block(kSide));
  ASSERT_TRUE(converted);
  EXPECT_TRUE(verify(*converted));
  // What was the comparison's place is left to dead_code.
  EXPECT_EQ(print(*converted), R"(guest_bytes 14
@0 raw 0x00000001 +0
  %0 = get.i64 [8]
  %1 = const 1
  %2 = and %0, %1
@1 raw 0x00000002 +4
  %3 = get.i64 [16]
  %4 = const 0
@2 raw 0x00000003 +8
  %5 = get.i64 [8]
  %6 = const 4
  %7 = shl %5, %6
@3 raw 0x00000004 +12
  %8 = get.i64 [8]
  %9 = get.i64 [24]
  %10 = lt %2, %3
  %11 = select %10, %8, %7
  set [8], %11
  %13 = select %10, %9, %5
  set [24], %13
  uncount 2, if %10
  exit +14
)");
}

TEST(IfConversion, WantsCheapCodeThatTheBranchJumpsOver) {
  const auto side_with = [](std::string_view line) {
    return block("guest_bytes 6\n@0 raw 0x1 +0\n %0 = get.i64 [8]\n" + std::string(line) + "\n exit +6");
  };
  ASSERT_TRUE(without_branch(block(kHead), side_with("set [16], %0")));
  for (const std::string_view line :
       {"%1 = load.i8 [%0]", "store.i8 [%0], %0", "%1 = mul %0, %0", "%1 = divu %0, %0", "fence", "call.i8 1", "set [12], %0",
        "%1 = ffrom_bits.f64 %0", "%1 = get.f64 [8]", "exit_if %0, +6", "uncount 1, if %0", "%1 = get.i64 [12]"}) {
    EXPECT_FALSE(without_branch(block(kHead), side_with(line))) << line;
  }
  // Other shapes.
  EXPECT_FALSE(without_branch(block(kHead), block("guest_bytes 4\n@0 raw 0x1 +0\n exit +4")));
  EXPECT_FALSE(without_branch(block(kHead), block("guest_bytes 6\n@0 raw 0x1 +0\n exit +6, step")));
  EXPECT_FALSE(without_branch(block(kHead), block("guest_bytes 6\n@0 raw 0x1 +0\n exit +8")));
  EXPECT_FALSE(without_branch(block(kSide), block(kSide)));
  EXPECT_FALSE(without_branch(block(kHead),
                              block("guest_bytes 6\n@0 raw 0x1 +0\n@1 raw 0x1 +2\n@2 raw 0x1 +2\n@3 raw 0x1 +2\n@4 raw 0x1 +4\n exit +6")));
}

TEST(IfConversion, JoinsWhatFollows) {
  const auto both = joined(block(kSide), block(kHead));
  ASSERT_TRUE(both);
  EXPECT_TRUE(verify(*both));
  EXPECT_EQ(both->guest_bytes, 14u);
  EXPECT_EQ(both->origins.size(), 4u);
  const std::string text = print(*both);
  EXPECT_NE(text.find("exit_if %11, +20\n  exit +14\n"), std::string::npos) << text;
  EXPECT_FALSE(joined(block(kHead), block(kSide)));  // goes on elsewhere, too
}

// What a block did, and where it went.
struct Done {
  Leaving leaving;
  std::array<std::byte, testing::kRandomStateBytes> state;
};

// A few operations on words of the state.
Block random_side(std::mt19937_64& random) {
  Block side;
  Builder builder(side);
  constexpr Op kOps[] = {Op::kAdd, Op::kXor, Op::kSub32, Op::kSar, Op::kLtu, Op::kZext16};
  const auto word = [&] { return static_cast<std::uint32_t>(8 * (random() % 8)); };
  const std::size_t length = 1 + random() % 4;
  for (std::uint32_t i = 0; i < length; ++i) {
    builder.begin_guest_instruction(2 * i, i);
    const Op op = kOps[random() % std::size(kOps)];
    const Value a = builder.get(Type::kI64, word());
    const Value b = random() % 2 == 0 ? builder.constant(random() % 64) : builder.get(Type::kI64, word());
    builder.set(word(), builder.emit(op, Type::kI64, a, info(op).operands == 2 ? b : kNone));
  }
  side.guest_bytes = static_cast<std::uint32_t>(2 * length);
  builder.emit(Op::kExit, Type::kVoid, kNone, kNone, kNone, side.guest_bytes);
  return side;
}

TEST(IfConversion, ChangesNothingThatCanBeSeen) {
  unsigned skipped = 0, taken = 0;
  for (std::uint64_t seed = 0; seed < 5'000; ++seed) {
    std::mt19937_64 random(seed);
    const Block side = random_side(random);
    Block head = RandomBlock(seed).make();
    head.guest_bytes = 400;
    head.insts.pop_back();
    Builder builder(head);
    builder.begin_guest_instruction(396, 0);
    const Value a = builder.get(Type::kI64, 8 * (seed % 8));
    const Value b = builder.get(Type::kI64, 8 * (random() % 8));
    const Value condition = builder.emit(seed % 3 == 0 ? Op::kEq : Op::kLt, Type::kI64, a, b);
    builder.emit(Op::kExitIf, Type::kVoid, condition, kNone, kNone, head.guest_bytes + side.guest_bytes);
    builder.emit(Op::kExit, Type::kVoid, kNone, kNone, kNone, head.guest_bytes);
    const auto converted = without_branch(head, side);
    ASSERT_TRUE(converted) << print(head) << print(side);
    ASSERT_TRUE(verify(*converted)) << print(*converted);

    Done expected, actual;
    RecordingEnvironment environment(seed, expected.state, seed % 4 == 0 ? 8 : 0);
    expected.leaving = evaluate(head, expected.state, environment);
    const bool at_end = expected.leaving.origin + 1u == head.origins.size();
    if (at_end && expected.leaving.target == head.guest_bytes) {
      expected.leaving = evaluate(side, expected.state, environment);
      ++taken;
    } else if (at_end) {
      environment.uncount(side.origins.size());
      ++skipped;
    }
    RecordingEnvironment converted_environment(seed, actual.state, seed % 4 == 0 ? 8 : 0);
    actual.leaving = evaluate(*converted, actual.state, converted_environment);
    ASSERT_EQ(actual.state, expected.state) << seed;
    ASSERT_TRUE(converted_environment.events() == environment.events()) << seed;
    if (at_end) {
      ASSERT_EQ(actual.leaving.target, head.guest_bytes + side.guest_bytes) << seed;
    } else {
      ASSERT_EQ(actual.leaving, expected.leaving) << seed;
    }
  }
  EXPECT_GT(skipped, 500u);
  EXPECT_GT(taken, 500u);
}

}  // namespace
}  // namespace doppel::ir
