#include "ir/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/random_block.h"
#include "ir/verify.h"

namespace doppel::ir {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(Text, PrintsAndParsesEachShape) {
  constexpr std::string_view kText = R"(guest_bytes 12
@0 raw 0x00a50533 +0
  %0 = get.i64 [80]
  %1 = const -5
  %2 = const 0x8000000000000000
  %3 = add %0, %1
  set [80], %3
@1 raw 0x00000001 +4
@2 raw 0xfe051ce3 +6
  %5 = load.u16 [%3]
  %6 = load.f64 [%3 + 2147483647]
  %7 = load.i8 [%3 - 16]
  store.f64 [%3 - 2147483648], %6
  %9 = fma.f64 %6, %6, %6
  %10 = fle %9, %6
  %11 = select %10, %5, %7
  fence
  call.u32 12
  exit_if %11, -4
  exit_if %10, +0, step
  exit_to %11, call
@3 raw 0x00000013 +10
)";
  const auto block = parse(kText);
  ASSERT_TRUE(block) << block.error().message;
  EXPECT_EQ(print(*block), kText);

  EXPECT_EQ(block->guest_bytes, 12u);
  ASSERT_EQ(block->origins.size(), 4u);
  EXPECT_EQ(block->origins[2].raw, 0xfe051ce3u);
  EXPECT_EQ(block->origins[2].offset, 6u);
  const Inst& store = block->insts[8];
  EXPECT_EQ(store.op, Op::kStore);
  EXPECT_EQ(store.access(), Access::kF64);
  EXPECT_EQ(store.imm, -2147483648);
  EXPECT_EQ(store.origin, 2);
  EXPECT_EQ(store.operands, (std::array<Value, 3>{3, 6, kNone}));
  EXPECT_EQ(block->insts[2].imm, std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(block->insts[15].detail, static_cast<std::uint8_t>(ExitKind::kStep));
}

TEST(Text, ValuesMayBeNumberedFreely) {
  const auto block = parse("%65534 = const 0x10 ; sixteen\n\n\tset [8],%65534\r\n%7=zext8 %65534\nexit_state");
  ASSERT_TRUE(block) << block.error().message;
  EXPECT_EQ(print(*block), "guest_bytes 0\n  %0 = const 16\n  set [8], %0\n  %2 = zext8 %0\n  exit_state\n");
}

TEST(Text, RandomBlocksComeBack) {
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const Block block = testing::RandomBlock(seed).make();
    const std::string text = print(block);
    const auto parsed = parse(text);
    ASSERT_TRUE(parsed) << parsed.error().message << '\n' << text;
    ASSERT_EQ(print(*parsed), text);
    ASSERT_EQ(parsed->insts.size(), block.insts.size());
    for (std::size_t i = 0; i < block.insts.size(); ++i) {
      const Inst &a = block.insts[i], &b = parsed->insts[i];
      ASSERT_TRUE(a.op == b.op && a.type == b.type && a.detail == b.detail && a.origin == b.origin &&
                  a.operands == b.operands && a.imm == b.imm)
          << "instruction " << i << '\n' << text;
    }
  }
}

TEST(Text, PrintsMalformedBlocksToo) {
  Block block;
  block.insts.push_back({.op = Op::kCount});
  block.insts.push_back({.op = Op::kLoad, .type = Type::kI64, .detail = 200, .origin = 9});
  block.insts.push_back({.op = Op::kGet, .type = static_cast<Type>(77)});
  EXPECT_EQ(print(block), "guest_bytes 0\n  ?\n  %1 = load.? [%65535]\n  %2 = get.? [0]\n");
}

struct Bad {
  std::string_view text, message;
};

class Rejected : public ::testing::TestWithParam<Bad> {};

TEST_P(Rejected, WithASentence) {
  const auto block = parse(GetParam().text);
  ASSERT_FALSE(block) << print(*block);
  EXPECT_THAT(block.error().message, HasSubstr(GetParam().message));
  EXPECT_THAT(block.error().message, StartsWith("line "));
}

INSTANTIATE_TEST_SUITE_P(
    Text, Rejected,
    ::testing::Values(
        Bad{"bogus", "line 1: unknown operation \"bogus\""}, Bad{"\n\n%", "line 3: expected the number of a value"},
        Bad{"%65535 = const 1", "number of a value"}, Bad{"%65536 = const 1", "number of a value"},
        Bad{"%-1 = const 1", "number of a value"}, Bad{"%0 const 1", "expected ="}, Bad{"%0 = ", "unknown operation"},
        Bad{"%0 = const", "expected a number"}, Bad{"%0 = const 0x", "expected a number"},
        Bad{"%0 = const 12z", "expected a number"}, Bad{"%0 = const 0x10000000000000000", "expected a number"},
        Bad{"%0 = const 1 2", "goes on after its end"}, Bad{"const 1", "needs a name"},
        Bad{"%0 = exit +4", "has no value"}, Bad{"%0 = const 1\n%0 = const 2", "line 2: %0 is defined twice"},
        Bad{"%0 = sext8 %0", "%0 is not defined before its use"}, Bad{"%0 = sext8 %9", "not defined"},
        Bad{"%0 = sext8 9", "expected a value"}, Bad{"%0 = const 1\n%1 = add %0", "expected a comma"},
        Bad{"%0 = const 1\n%1 = add %0, %0, %0", "goes on"}, Bad{"%0 = get [8]", "expected a type"},
        Bad{"%0 = get.void [8]", "expected a type"}, Bad{"%0 = get.i32 [8]", "expected a type"},
        Bad{"%0 = get.i64 8", "expected ["}, Bad{"%0 = get.i64 [-8]", "expected an offset"},
        Bad{"%0 = get.i64 [4294967296]", "expected an offset"}, Bad{"%0 = get.i64 [8", "expected ]"},
        Bad{"%0 = const 1\n%1 = load [%0]", "expected an access"},
        Bad{"%0 = const 1\n%1 = load.i65 [%0]", "expected an access"},
        Bad{"%0 = const 1\n%1 = load. [%0]", "expected an access"},
        Bad{"%0 = const 1\n%1 = load.i8 [%0 16]", "expected ] or an offset"},
        Bad{"%0 = const 1\n%1 = load.i8 [%0 + 9223372036854775808]", "expected ] or an offset"},
        Bad{"%0 = const 1\n%1 = add.i64 %0, %0", "expected a value"}, Bad{"call 1", "expected an access"},
        Bad{"call.u32 -1", "number of a helper"}, Bad{"uncount if", "how many"},
        Bad{"%0 = const 1\nuncount 1, %0", "if or unless"},
        Bad{"call.u32 4294967296", "number of a helper"}, Bad{"exit 4", "target with its sign"},
        Bad{"exit +4, return", "expected step or call"}, Bad{"%0 = const 1\nexit_to %0, step", "expected call or return"},
        Bad{"%0 = const 1\nexit_if %0 +4", "expected a comma"}, Bad{"@1 raw 0 +0", "expected guest instruction @0"},
        Bad{"@0", "expected raw"}, Bad{"@0 raw 0x100000000 +0", "32 bits"}, Bad{"@0 raw 0", "expected +"},
        Bad{"@0 raw 0 +4294967296", "32 bits"}, Bad{"guest_bytes", "number of bytes"},
        Bad{std::string_view("exit\0 +4", 8), "target"}, Bad{"\xff\xfe", "unknown operation"}));

TEST(Text, LengthIsLimited) {
  std::string text;
  for (std::size_t i = 0; i < kMostInsts; ++i) text += "fence\n";
  EXPECT_TRUE(parse(text));
  const auto longer = parse(text + "fence\n");
  ASSERT_FALSE(longer);
  EXPECT_THAT(longer.error().message, HasSubstr("more than 8192 instructions"));

  text.clear();
  for (std::size_t i = 0; i <= kMostInsts; ++i) text += fmt::format("@{} raw 0 +0\n", i);
  EXPECT_FALSE(parse(text));
}

}  // namespace
}  // namespace doppel::ir
