// Random blocks that verify() accepts, rich in what the passes look for: constants that matter to some rewrite,
// the same few words of state again and again, extensions of extensions, comparisons of comparisons.
#pragma once

#include <array>
#include <random>
#include <vector>

#include "ir/ir.h"

namespace doppel::ir::testing {

inline constexpr std::size_t kRandomStateBytes = 64;

class RandomBlock {
 public:
  explicit RandomBlock(std::uint64_t seed) : random_(seed) {}

  Block make() {
    const unsigned length = 5 + below(60);
    for (unsigned i = 0; i < length; ++i) {
      if (i == 0 || below(3) == 0) builder_.begin_guest_instruction(4 * i, i);
      step();
    }
    switch (below(3)) {
      case 0: builder_.emit(Op::kExit, Type::kVoid, kNone, kNone, kNone, 64, detail_below(2)); break;
      case 1: builder_.emit(Op::kExitTo, Type::kVoid, any(Type::kI64), kNone, kNone, 0, detail_below(3)); break;
      default: builder_.emit(Op::kExitState, Type::kVoid); break;
    }
    return std::move(block_);
  }

 private:
  unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }
  std::uint8_t detail_below(unsigned limit) { return static_cast<std::uint8_t>(below(limit)); }

  std::uint64_t interesting() {
    constexpr std::uint64_t kConstants[] = {0, 1, 2, 3, 7, 8, 15, 16, 24, 31, 32, 33, 48, 56, 63, 64, 0x7f, 0x80, 0xff,
        0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0xffffffff00000000, 0xffffffff80000000,
        ~std::uint64_t{0}, ~std::uint64_t{1}, std::uint64_t{1} << 63, (std::uint64_t{1} << 63) - 1, 0x7fc00000};
    return below(8) == 0 ? random_() >> below(64) : kConstants[below(std::size(kConstants))];
  }

  // A value of the type, more often a late one.
  Value any(Type type) {
    const auto& insts = block_.insts;
    for (unsigned tries = 0; tries < 12 && !insts.empty(); ++tries) {
      const std::size_t back = below(below(2) == 0 ? 6 : 64);
      if (back < insts.size() && insts[insts.size() - 1 - back].type == type) {
        return static_cast<Value>(insts.size() - 1 - back);
      }
    }
    if (type != Type::kI64) return builder_.emit(Op::kFfromBits, type, any(Type::kI64));
    return below(3) == 0 ? builder_.get(Type::kI64, 8 * below(8)) : builder_.constant(interesting());
  }
  Type float_type() { return below(2) == 0 ? Type::kF32 : Type::kF64; }
  Type type() { return below(3) != 0 ? Type::kI64 : float_type(); }

  // Mostly whole words; else anything that fits in.
  std::uint32_t state_offset(Type type) {
    if (below(4) != 0) return 8 * below(8);
    return below(static_cast<unsigned>(kRandomStateBytes) - bytes_of(type) + 1);
  }

  void step() {
    switch (below(12)) {
      case 0:
      case 1: {
        const Type t = type();
        builder_.get(t, state_offset(t));
        break;
      }
      case 2:
      case 3: {
        const Type t = type();
        builder_.set(state_offset(t), any(t));
        break;
      }
      case 4: builder_.constant(interesting()); break;
      case 5: access(); break;
      case 6: leave(); break;
      case 7: floating(); break;
      case 8: idiom(); break;
      default: integer(); break;
    }
  }

  void integer() {
    for (;;) {
      const Op op = static_cast<Op>(below(static_cast<unsigned>(Op::kCount)));
      const OpInfo& of = info(op);
      if (!of.pure || of.any_type || of.operands == 0 || op == Op::kFbits) continue;
      const Value a = any(Type::kI64);
      const Value b = of.operands < 2 ? kNone : below(3) == 0 ? builder_.constant(interesting()) : any(Type::kI64);
      const Value c = of.operands < 3 ? kNone : any(Type::kI64);
      builder_.emit(op, Type::kI64, a, b, c);
      return;
    }
  }

  void floating() {
    const Type t = float_type();
    const Type other = t == Type::kF32 ? Type::kF64 : Type::kF32;
    constexpr Op kBinary[] = {Op::kFadd, Op::kFmul, Op::kFsign, Op::kFsignXor};
    constexpr Op kUnary[] = {Op::kFneg, Op::kFsqrt, Op::kFcanonical, Op::kFcanonical};
    constexpr Op kCompare[] = {Op::kFeq, Op::kFlt, Op::kFle};
    constexpr Op kFrom[] = {Op::kFfromBits, Op::kFfromBits, Op::kFfromI64, Op::kFfromI32};
    switch (below(9)) {
      case 0: builder_.emit(kBinary[below(4)], t, any(t), any(t)); break;
      case 1: builder_.emit(kUnary[below(4)], t, any(t)); break;
      case 2: builder_.emit(kCompare[below(3)], Type::kI64, any(t), any(t)); break;
      case 3: builder_.emit(kFrom[below(4)], t, any(Type::kI64)); break;
      case 4: builder_.emit(Op::kFconvert, t, any(other)); break;
      case 5: builder_.emit(Op::kFma, t, any(t), any(t), any(t)); break;
      case 6: builder_.emit(Op::kFbox, Type::kF64, any(Type::kF32)); break;
      case 7: builder_.emit(below(2) == 0 ? Op::kFunbox : Op::kFlow, Type::kF32, any(Type::kF64)); break;
      default: builder_.emit(Op::kFbits, Type::kI64, any(t)); break;
    }
  }

  void access() {
    const Access access = static_cast<Access>(below(9));
    const Value address = below(2) == 0 ? any(Type::kI64) : add(any(Type::kI64), interesting());
    const std::int64_t offset = static_cast<std::int64_t>(below(64)) - 32;
    if (below(2) == 0) {
      builder_.load(access, address, offset);
    } else {
      builder_.store(access, address, any(type_of(access)), offset);
    }
  }

  void leave() {
    switch (below(8)) {
      case 5: builder_.emit(Op::kBehind, Type::kVoid, kNone, kNone, kNone, below(1 << 16)); break;
      case 4: {
        const Value condition = with(below(2) == 0 ? Op::kEq : Op::kNe, any(Type::kI64), below(2));
        builder_.emit(Op::kUncount, Type::kVoid, condition, kNone, kNone, 1 + below(3), detail_below(2));
        break;
      }
      case 3: {
        const std::uint64_t bytes = std::uint64_t{16} << below(9);
        builder_.emit(Op::kZero, Type::kVoid, with(Op::kAnd, any(Type::kI64), 0 - bytes), kNone, kNone,
                      static_cast<std::int64_t>(bytes));
        break;
      }
      case 0: builder_.emit(Op::kFence, Type::kVoid); break;
      case 1: builder_.emit(Op::kCall, Type::kVoid, kNone, kNone, kNone, below(4), detail_below(9)); break;
      case 2: {
        const Type t = float_type();
        builder_.emit(Op::kFordered, t, any(t));
        break;
      }
      default: {
        constexpr Op kOps[] = {Op::kEq, Op::kNe, Op::kLt, Op::kGeu, Op::kFeq};
        const Op op = kOps[below(5)];
        const Type t = op == Op::kFeq ? Type::kF64 : Type::kI64;
        Value condition = builder_.emit(op, Type::kI64, any(t), any(t));
        while (below(2) == 0) condition = with(below(2) == 0 ? Op::kEq : Op::kXor, condition, below(2));
        builder_.emit(Op::kExitIf, Type::kVoid, condition, kNone, kNone, 4 * below(8), detail_below(2));
        break;
      }
    }
  }

  // What a lifter writes.
  void idiom() {
    constexpr std::uint64_t kBox = 0xffff'ffff'0000'0000;
    const Value a = any(Type::kI64);
    switch (below(7)) {
      case 0: builder_.emit(Op::kSext32, Type::kI64, add(a, interesting())); break;
      case 1: with(below(2) == 0 ? Op::kShr : Op::kSar, with(Op::kShl, a, 32), below(40)); break;
      case 2: {
        const std::uint64_t shift = 32 + 8 * below(4);
        with(below(2) == 0 ? Op::kShr : Op::kSar, with(Op::kShl, a, shift), shift);
        break;
      }
      case 3: {
        const Value bits = builder_.emit(Op::kFbits, Type::kI64, any(Type::kF32));
        builder_.set(8 * below(8), with(Op::kOr, bits, kBox));
        break;
      }
      case 4: {
        constexpr Op kShifts[] = {Op::kShl, Op::kSar, Op::kRol, Op::kShl32, Op::kShr32, Op::kRor32};
        const Value amount = with(Op::kAnd, any(Type::kI64), 0xff >> below(6));
        builder_.emit(kShifts[below(6)], Type::kI64, a, amount);
        break;
      }
      case 5: {
        const Value condition = with(below(2) == 0 ? Op::kEq : Op::kNe, a, below(2));
        builder_.emit(Op::kSelect, Type::kI64, condition, any(Type::kI64), any(Type::kI64));
        break;
      }
      default: {
        const Value valid = builder_.emit(Op::kSelect, Type::kI64, with(Op::kGeu, a, kBox), a,
                                          builder_.constant(0x7fc00000));
        builder_.emit(Op::kFfromBits, Type::kF32, valid);
        break;
      }
    }
  }

  Value with(Op op, Value a, std::uint64_t constant) {
    return builder_.emit(op, Type::kI64, a, builder_.constant(constant));
  }
  Value add(Value a, std::uint64_t constant) { return with(Op::kAdd, a, constant); }

  std::mt19937_64 random_;
  Block block_;
  Builder builder_{block_};
};

}  // namespace doppel::ir::testing
