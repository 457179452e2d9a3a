#include "ir/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/text.h"

namespace doppel::ir {
namespace {

using ::testing::HasSubstr;

// Values 0 to 2 of the three types, and an exit; what a test adds stands between.
Block block_with(std::initializer_list<Inst> insts) {
  Block block;
  Builder builder(block);
  builder.begin_guest_instruction(0, 0x13);
  builder.get(Type::kI64, 8);
  builder.get(Type::kF32, 16);
  builder.get(Type::kF64, 24);
  block.insts.insert(block.insts.end(), insts);
  builder.emit(Op::kExit, Type::kVoid, kNone, kNone, kNone, 4);
  return block;
}

std::string error_of(const Block& block) {
  const auto valid = verify(block);
  return valid ? "none" : valid.error().message;
}
std::string error_of(Inst inst) { return error_of(block_with({inst})); }

std::uint8_t detail(Access access) { return static_cast<std::uint8_t>(access); }

TEST(Verify, AcceptsEachOperation) {
  // One of each shape; the parser knows no types, so they come from here.
  const auto block = parse(R"(
    %0 = get.i64 [8]
    %1 = get.f32 [16]
    %2 = get.f64 [24]
    %3 = const 5
    %4 = select %0, %3, %0
    %5 = load.f32 [%4 - 8]
    store.u16 [%4], %3
    %6 = fma.f32 %1, %1, %5
    %7 = fconvert.f64 %6
    %8 = fle %7, %2
    %9 = ffrom_i32.f32 %8
    %10 = fto_i64 %9
    %11 = fbits %7
    %12 = fsign_xor.f64 %2, %7
    set [32], %12
    fence
    call.u32 7
    exit_if %11, -4, step
    exit_to %10, return
  )");
  ASSERT_TRUE(block) << block.error().message;
  EXPECT_EQ(error_of(*block), "none");
}

TEST(Verify, NamesTheInstruction) {
  EXPECT_EQ(error_of({.op = Op::kAdd, .type = Type::kI64, .operands = {0, 3}}),
            "instruction 3 (add): %3 is not defined before its use");
}

TEST(Verify, Operands) {
  EXPECT_THAT(error_of({.op = Op::kAdd, .type = Type::kI64, .operands = {0, kNone, kNone}}), HasSubstr("takes 2"));
  EXPECT_THAT(error_of({.op = Op::kAdd, .type = Type::kI64, .operands = {0, 0, 0}}), HasSubstr("takes 2"));
  EXPECT_THAT(error_of({.op = Op::kFence, .type = Type::kVoid, .operands = {0, kNone, kNone}}), HasSubstr("takes 0"));
  EXPECT_THAT(error_of({.op = Op::kSext8, .type = Type::kI64, .operands = {60000, kNone, kNone}}),
              HasSubstr("not defined"));
  const Inst set{.op = Op::kSet, .operands = {0, kNone, kNone}};
  EXPECT_THAT(error_of(block_with({set, {.op = Op::kSext8, .type = Type::kI64, .operands = {3, kNone, kNone}}})),
              HasSubstr("%3 has no value"));
}

TEST(Verify, Types) {
  const auto unary = [](Op op, Type type, Value a) {
    return error_of({.op = op, .type = type, .operands = {a, kNone, kNone}});
  };
  const auto binary = [](Op op, Type type, Value a, Value b) {
    return error_of({.op = op, .type = type, .operands = {a, b, kNone}});
  };
  EXPECT_THAT(binary(Op::kAdd, Type::kF64, 0, 0), HasSubstr("another type"));
  EXPECT_THAT(binary(Op::kAdd, Type::kI64, 0, 1), HasSubstr("%1 has the wrong type"));
  EXPECT_THAT(binary(Op::kFadd, Type::kVoid, 1, 1), HasSubstr("no type"));
  EXPECT_THAT(binary(Op::kFadd, Type::kI64, 0, 0), HasSubstr("floating-point"));
  EXPECT_THAT(binary(Op::kFadd, Type::kF32, 1, 2), HasSubstr("%2 has the wrong type"));
  EXPECT_THAT(binary(Op::kFeq, Type::kI64, 1, 2), HasSubstr("wrong type"));
  EXPECT_THAT(binary(Op::kFeq, Type::kI64, 0, 0), HasSubstr("floating-point"));
  EXPECT_THAT(unary(Op::kFconvert, Type::kF64, 2), HasSubstr("between"));
  EXPECT_THAT(unary(Op::kFconvert, Type::kF64, 0), HasSubstr("between"));
  EXPECT_THAT(unary(Op::kFbox, Type::kF32, 1), HasSubstr("f64"));
  EXPECT_THAT(unary(Op::kFbox, Type::kF64, 2), HasSubstr("wrong type"));
  EXPECT_THAT(unary(Op::kFunbox, Type::kF64, 2), HasSubstr("f32"));
  EXPECT_THAT(unary(Op::kFlow, Type::kF32, 1), HasSubstr("wrong type"));
  EXPECT_THAT(unary(Op::kFfromI64, Type::kF64, 1), HasSubstr("wrong type"));
  EXPECT_THAT(unary(Op::kFfromBits, Type::kI64, 0), HasSubstr("floating-point"));
  EXPECT_THAT(unary(Op::kFtoI64, Type::kI64, 0), HasSubstr("floating-point"));
  EXPECT_THAT(unary(Op::kFbits, Type::kI64, 0), HasSubstr("floating-point"));
  EXPECT_THAT(unary(Op::kExitIf, Type::kVoid, 1), HasSubstr("wrong type"));
  EXPECT_THAT(unary(Op::kGet, Type::kVoid, kNone), HasSubstr("no type"));
}

TEST(Verify, Accesses) {
  const auto load = [](Type type, std::uint8_t access, Value address) {
    return error_of({.op = Op::kLoad, .type = type, .detail = access, .operands = {address, kNone, kNone}});
  };
  EXPECT_EQ(load(Type::kF32, detail(Access::kF32), 0), "none");
  EXPECT_THAT(load(Type::kF64, detail(Access::kF32), 0), HasSubstr("does not fit"));
  EXPECT_THAT(load(Type::kI64, detail(Access::kF64), 0), HasSubstr("does not fit"));
  EXPECT_THAT(load(Type::kI64, detail(Access::kI64), 2), HasSubstr("address"));
  EXPECT_THAT(load(Type::kI64, 9, 0), HasSubstr("unknown access 9"));
  EXPECT_THAT(error_of({.op = Op::kStore, .detail = detail(Access::kF32), .operands = {0, 2, kNone}}),
              HasSubstr("does not fit"));
}

TEST(Verify, Numbers) {
  constexpr std::int64_t kFar = std::int64_t{1} << 31;
  EXPECT_THAT(error_of({.op = Op::kGet, .type = Type::kI64, .imm = -8}), HasSubstr("immediate -8"));
  EXPECT_THAT(error_of({.op = Op::kGet, .type = Type::kI64, .imm = kFar}), HasSubstr("immediate"));
  EXPECT_THAT(error_of({.op = Op::kCall, .imm = -1}), HasSubstr("immediate"));
  EXPECT_THAT(error_of({.op = Op::kFence, .imm = 1}), HasSubstr("immediate"));
  EXPECT_THAT(error_of({.op = Op::kExitIf, .operands = {0, kNone, kNone}, .imm = kFar}), HasSubstr("immediate"));
  EXPECT_EQ(error_of({.op = Op::kExitIf, .operands = {0, kNone, kNone}, .imm = -kFar}), "none");
  EXPECT_THAT(error_of({.op = Op::kExitIf, .detail = 2, .operands = {0, kNone, kNone}}), HasSubstr("detail 2"));
  EXPECT_THAT(error_of({.op = Op::kAdd, .type = Type::kI64, .detail = 1, .operands = {0, 0, kNone}}),
              HasSubstr("detail 1"));
  EXPECT_THAT(error_of({.op = Op::kCount}), HasSubstr("unknown operation"));
}

TEST(Verify, ExitsStandLast) {
  EXPECT_THAT(error_of({.op = Op::kExit, .imm = 8}), HasSubstr("instruction 3 (exit): leaves the block before"));
  EXPECT_THAT(error_of({.op = Op::kExitState}), HasSubstr("before its end"));
  Block block = block_with({});
  block.insts.pop_back();
  EXPECT_THAT(error_of(block), HasSubstr("does not end with an exit"));
  EXPECT_THAT(error_of(Block{}), HasSubstr("no instructions"));
}

TEST(Verify, Origins) {
  EXPECT_THAT(error_of({.op = Op::kFence, .origin = 1}), HasSubstr("guest instruction 1 of 1"));
  Block block = block_with({});
  block.origins.push_back({});
  block.insts[1].origin = 1;
  EXPECT_THAT(error_of(block), HasSubstr("instruction 2 (get): comes from an earlier"));
}

TEST(Verify, Length) {
  Block block = block_with({});
  block.insts.insert(block.insts.begin(), kMostInsts - block.insts.size(), block.insts[0]);
  EXPECT_EQ(error_of(block), "none");
  block.insts.insert(block.insts.begin(), block.insts[0]);
  EXPECT_THAT(error_of(block), HasSubstr("more than 8192"));
}

}  // namespace
}  // namespace doppel::ir
