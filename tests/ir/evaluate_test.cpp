#include "ir/evaluate.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <stdexcept>

#include "ir/text.h"
#include "ir/verify.h"

namespace doppel::ir {
namespace {

using u64 = std::uint64_t;

// State of eight words, and memory of as many bytes at address 0, beyond which accesses fault.
struct World : Environment {
  std::array<u64, 8> state{};
  std::array<u64, 8> memory{};
  unsigned fences = 0;
  u64 uncounted = 0;
  bool helper_returns = true;
  u64 bytes_behind = 0;

  std::optional<u64> load(Access access, u64 address) override {
    if (address > sizeof memory - bytes_of(access)) return std::nullopt;
    u64 value = ~u64{0};  // what lies above the accessed bytes must not matter
    std::memcpy(&value, reinterpret_cast<const char*>(memory.data()) + address, bytes_of(access));
    return value;
  }
  bool store(Access access, u64 address, u64 value) override {
    if (address > sizeof memory - bytes_of(access)) return false;
    std::memcpy(reinterpret_cast<char*>(memory.data()) + address, &value, bytes_of(access));
    return true;
  }
  void fence() override { ++fences; }
  bool behind(u64 bytes) override { return bytes == bytes_behind; }
  bool call(std::int64_t helper) override {
    state[0] = static_cast<u64>(helper);
    return helper_returns;
  }
  void uncount(u64 instructions) override { uncounted += instructions; }
  u64 floating(const Inst& inst, const std::array<u64, 3>& operands) override {
    EXPECT_EQ(inst.op, Op::kFadd);
    EXPECT_EQ(inst.type, Type::kF64);
    return std::bit_cast<u64>(std::bit_cast<double>(operands[0]) + std::bit_cast<double>(operands[1]));
  }

  Leaving run(std::string_view text) {
    const auto block = parse(text);
    if (!block) throw std::runtime_error(block.error().message);  // which fails the test
    if (const auto valid = verify(*block); !valid) throw std::runtime_error(valid.error().message);
    return evaluate(*block, std::as_writable_bytes(std::span(state)), *this);
  }
};

TEST(Evaluate, StateAndArithmetic) {
  World world;
  world.state[1] = 40;
  const Leaving leaving = world.run(R"(
    %0 = get.i64 [8]
    %1 = const 2
    %2 = add %0, %1
    set [16], %2
    %3 = sub32 %1, %0
    set [24], %3
    %4 = select %3, %1, %0
    set [32], %4
    exit +12
  )");
  EXPECT_EQ(leaving, (Leaving{Leaving::Cause::kExit, 12, 0, 0}));
  EXPECT_EQ(world.state[2], 42u);
  EXPECT_EQ(world.state[3], static_cast<u64>(-38));
  EXPECT_EQ(world.state[4], 2u);
}

TEST(Evaluate, PartialState) {
  World world;
  world.state[1] = 0x1122334455667788;
  world.run("%0 = get.f32 [12]\nset [16], %0\n%1 = fbits %0\nset [24], %1\nexit_state");
  EXPECT_EQ(world.state[2], 0x11223344u);
  EXPECT_EQ(world.state[3], 0x11223344u);
}

TEST(Evaluate, LoadsExtend) {
  World world;
  world.memory[0] = 0xffff'ffff'8080'8080;
  world.run(R"(
    %0 = const 8
    %1 = load.i8 [%0 - 8]
    set [0], %1
    %2 = load.u16 [%0 - 8]
    set [8], %2
    %3 = load.i32 [%0 - 8]
    set [16], %3
    %4 = load.u32 [%0 - 8]
    set [24], %4
    exit_state
  )");
  EXPECT_EQ(world.state[0], 0xffff'ffff'ffff'ff80);
  EXPECT_EQ(world.state[1], 0x8080u);
  EXPECT_EQ(world.state[2], 0xffff'ffff'8080'8080);
  EXPECT_EQ(world.state[3], 0x8080'8080u);
}

TEST(Evaluate, AFaultLeavesWithTheStateOfItsInstruction) {
  World world;
  const Leaving leaving = world.run(R"(
    @0 raw 0x13 +0
    %0 = const 1000
    set [0], %0
    @1 raw 0x13 +4
    store.i64 [%0], %0
    set [8], %0
    exit +8
  )");
  EXPECT_EQ(leaving, (Leaving{.cause = Leaving::Cause::kFault, .origin = 1}));
  EXPECT_EQ(world.state[0], 1000u);
  EXPECT_EQ(world.state[1], 0u);
}

TEST(Evaluate, Exits) {
  World world;
  world.state[1] = 1;
  constexpr std::string_view kBranch = "%0 = get.i64 [8]\nexit_if %0, -16, step\nexit_to %0, return";
  EXPECT_EQ(world.run(kBranch), (Leaving{Leaving::Cause::kExit, static_cast<u64>(-16), 1, 0}));
  world.state[1] = 0;
  EXPECT_EQ(world.run(kBranch), (Leaving{Leaving::Cause::kExitTo, 0, 2, 0}));
}

TEST(Evaluate, HelpersSeeAndChangeState) {
  World world;
  world.run("fence\ncall.u32 9\n%0 = get.i64 [0]\nset [8], %0\nexit_state");
  EXPECT_EQ(world.state[1], 9u);
  EXPECT_EQ(world.fences, 1u);
  world.helper_returns = false;
  EXPECT_EQ(world.run("call.u32 9\nexit +4").cause, Leaving::Cause::kFault);
}

TEST(Evaluate, FloatingPoint) {
  World world;
  world.state[0] = std::bit_cast<u64>(1.5);
  world.run(R"(
    %0 = get.f64 [0]
    %1 = fneg.f64 %0
    set [8], %1
    %2 = fadd.f64 %0, %0
    set [16], %2
    %3 = fsign_xor.f64 %1, %1
    set [24], %3
    %4 = const 0xfff0000000000001
    %5 = ffrom_bits.f64 %4
    %6 = fcanonical.f64 %5
    set [32], %6
    %7 = const 0xffffffffff800000
    %8 = ffrom_bits.f32 %7
    %9 = fcanonical.f32 %8
    %10 = fbits %9
    set [40], %10
    exit_state
  )");
  EXPECT_EQ(std::bit_cast<double>(world.state[1]), -1.5);
  EXPECT_EQ(std::bit_cast<double>(world.state[2]), 3.0);
  EXPECT_EQ(std::bit_cast<double>(world.state[3]), 1.5);
  EXPECT_EQ(world.state[4], 0x7ff8'0000'0000'0000u);
  EXPECT_EQ(world.state[5], 0xff80'0000u);  // minus infinity is no NaN
}

TEST(Evaluate, ANanThatMustBeOrderedLeavesByAStep) {
  World world;
  constexpr std::string_view kText = R"(
    @0 raw 0x13 +0
    %0 = get.f64 [0]
    @1 raw 0x13 +4
    %1 = fordered.f64 %0
    set [8], %1
    exit +8
  )";
  world.state[0] = 0x7ff0'0000'0000'0000;
  EXPECT_EQ(world.run(kText), (Leaving{Leaving::Cause::kExit, 8, 0, 1}));
  EXPECT_EQ(world.state[1], world.state[0]);
  world.state[0] |= 1;
  EXPECT_EQ(world.run(kText), (Leaving{Leaving::Cause::kExit, 4, static_cast<std::uint8_t>(ExitKind::kStep), 1}));
}

TEST(Evaluate, WhatIsBehindThePageOrAStep) {
  World world;
  constexpr std::string_view kText = R"(
    @0 raw 0x13 +0
    @1 raw 0x13 +4
    behind 0xffff
    exit +8
  )";
  world.bytes_behind = 0xffff;
  EXPECT_EQ(world.run(kText), (Leaving{Leaving::Cause::kExit, 8, 0, 1}));
  world.bytes_behind = 0x7fff;
  EXPECT_EQ(world.run(kText), (Leaving{Leaving::Cause::kExit, 4, static_cast<std::uint8_t>(ExitKind::kStep), 1}));
}

// Each pure integer operation has a meaning: compute() asserts otherwise.
TEST(Evaluate, KnowsEachIntegerOperation) {
  for (unsigned index = 0; index < static_cast<unsigned>(Op::kCount); ++index) {
    const OpInfo& op = info(static_cast<Op>(index));
    if (!op.pure || op.any_type || op.operands == 0 || static_cast<Op>(index) == Op::kFbits) continue;
    Block block;
    Builder builder(block);
    const Value x = builder.constant(6);
    builder.set(0, builder.emit(static_cast<Op>(index), Type::kI64, x, op.operands > 1 ? x : kNone,
                                op.operands > 2 ? x : kNone));
    builder.emit(Op::kExitState, Type::kVoid);
    World world;
    evaluate(block, std::as_writable_bytes(std::span(world.state)), world);
  }
}

}  // namespace
}  // namespace doppel::ir
