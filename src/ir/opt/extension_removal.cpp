// Extensions and masks that change nothing go: those of values known to be narrow, and those whose user looks at
// the low bits alone.
#include <algorithm>
#include <bit>

#include "ir/opt/passes.h"
#include "ir/opt/rewrite.h"

namespace doppel::ir::opt {
namespace {

// How many low bits give the value back, extended with zeros or with their highest bit.
struct Width {
  unsigned zero = 64;
  unsigned sign = 64;
};

Width zero_extended(unsigned bits) { return {std::min(bits, 64u), std::min(bits + 1, 64u)}; }
Width sign_extended(unsigned bits) { return {64, std::clamp(bits, 1u, 64u)}; }
Width both(Width a, Width b) { return {std::min(a.zero, b.zero), std::min(a.sign, b.sign)}; }
Width either(Width a, Width b) { return {std::max(a.zero, b.zero), std::max(a.sign, b.sign)}; }

Width of_load(Access access) {
  switch (access) {
    case Access::kI8: return sign_extended(8);
    case Access::kI16: return sign_extended(16);
    case Access::kI32: return sign_extended(32);
    case Access::kU8: return zero_extended(8);
    case Access::kU16: return zero_extended(16);
    case Access::kU32: return zero_extended(32);
    default: return {};
  }
}

class Widths {
 public:
  explicit Widths(const Block& block) : insts_(block.insts), widths_(buffer()) { widths_.resize(insts_.size()); }

  Width of(Value value) const { return widths_[value]; }
  void learn(Value value) { widths_[value] = derive(insts_[value]); }

 private:
  Width derive(const Inst& inst) const {
    if (inst.type != Type::kI64) return {};
    const auto operand = [&](unsigned i) { return of(inst.operands[i]); };
    const auto constant_right = [&](unsigned otherwise) {
      const Inst& right = insts_[inst.operands[1]];
      return right.op == Op::kConst ? static_cast<unsigned>(right.imm & 63) : otherwise;
    };
    switch (inst.op) {
      case Op::kConst:
        return {64 - static_cast<unsigned>(std::countl_zero(static_cast<std::uint64_t>(inst.imm))),
                64 - static_cast<unsigned>(__builtin_clrsbll(inst.imm))};
      case Op::kLoad: return of_load(inst.access());
      case Op::kAtomic: return sign_extended(8 * bytes_of(inst.access()));
      case Op::kAdd32:
      case Op::kSub32:
      case Op::kMul32:
      case Op::kShl32:
      case Op::kShr32:
      case Op::kSar32:
      case Op::kRol32:
      case Op::kRor32:
      case Op::kDiv32:
      case Op::kDivu32:
      case Op::kRem32:
      case Op::kRemu32: return sign_extended(32);
      // An extension that does nothing is replaced by its operand, so what is left does something.
      case Op::kSext8: return sign_extended(8);
      case Op::kSext16: return sign_extended(16);
      case Op::kSext32: return sign_extended(32);
      case Op::kZext8: return zero_extended(8);
      case Op::kZext16: return zero_extended(16);
      case Op::kZext32: return zero_extended(32);
      case Op::kEq:
      case Op::kNe:
      case Op::kLt:
      case Op::kLtu:
      case Op::kGe:
      case Op::kGeu:
      case Op::kFeq:
      case Op::kFlt:
      case Op::kFle: return zero_extended(1);
      case Op::kClz:
      case Op::kCtz:
      case Op::kPopcount: return zero_extended(7);
      case Op::kClz32:
      case Op::kCtz32: return zero_extended(6);
      case Op::kFbits: return insts_[inst.operands[0]].type == Type::kF32 ? zero_extended(32) : Width{};
      case Op::kAnd: {
        const Width a = operand(0), b = operand(1);
        const Width narrow = zero_extended(std::min(a.zero, b.zero));  // a zero in either is a zero
        return both(narrow, {64, std::max(a.sign, b.sign)});
      }
      case Op::kOr:
      case Op::kXor: return either(operand(0), operand(1));
      case Op::kSelect: return either(operand(1), operand(2));
      case Op::kAdd: {  // a carry at most
        const Width wide = either(operand(0), operand(1));
        return {std::min(wide.zero + 1, 64u), std::min(wide.sign + 1, 64u)};
      }
      case Op::kSub: return sign_extended(either(operand(0), operand(1)).sign + 1);
      case Op::kShl: {
        const unsigned shift = constant_right(64);
        return {std::min(operand(0).zero + shift, 64u), std::min(operand(0).sign + shift, 64u)};
      }
      case Op::kShr: {
        const unsigned shift = constant_right(0);
        return shift == 0 ? operand(0) : zero_extended(operand(0).zero - std::min(operand(0).zero, shift));
      }
      case Op::kSar: {
        const Width a = operand(0);
        const Width narrow = sign_extended(a.sign - std::min(a.sign, constant_right(0)));
        return a.zero < 64 ? both(a, narrow) : narrow;
      }
      default: return {};
    }
  }

  static std::vector<Width>& buffer() {
    thread_local std::vector<Width> widths;
    return widths;
  }

  const std::vector<Inst>& insts_;
  std::vector<Width>& widths_;
};

// Whether `inst` gives back its first operand, by what is known of that operand's width.
bool changes_nothing(const Block& block, const Widths& widths, const Inst& inst) {
  const auto zero = [&] { return widths.of(inst.operands[0]).zero; };
  const auto sign = [&] { return widths.of(inst.operands[0]).sign; };
  switch (inst.op) {
    case Op::kSext8: return sign() <= 8;
    case Op::kSext16: return sign() <= 16;
    case Op::kSext32: return sign() <= 32;
    case Op::kZext8: return zero() <= 8;
    case Op::kZext16: return zero() <= 16;
    case Op::kZext32: return zero() <= 32;
    case Op::kAnd: {  // the mask keeps all bits that can be set
      const Inst& mask = block.insts[inst.operands[1]];
      return mask.op == Op::kConst &&
             zero() <= static_cast<unsigned>(std::countr_one(static_cast<std::uint64_t>(mask.imm)));
    }
    default: return false;
  }
}

// How many low bits of its operand the instruction looks at; 64 for all.
unsigned used_bits(const Inst& inst, unsigned operand) {
  switch (inst.op) {
    case Op::kSext8:
    case Op::kZext8: return 8;
    case Op::kSext16:
    case Op::kZext16: return 16;
    case Op::kSext32:
    case Op::kZext32:
    case Op::kClz32:
    case Op::kCtz32:
    case Op::kAdd32:
    case Op::kSub32:
    case Op::kMul32:
    case Op::kDiv32:
    case Op::kDivu32:
    case Op::kRem32:
    case Op::kRemu32:
    case Op::kFfromI32: return 32;
    case Op::kFfromBits: return inst.type == Type::kF32 ? 32 : 64;
    case Op::kShl:
    case Op::kShr:
    case Op::kSar:
    case Op::kRol:
    case Op::kRor: return operand == 1 ? 6 : 64;
    case Op::kShl32:
    case Op::kShr32:
    case Op::kSar32:
    case Op::kRol32:
    case Op::kRor32: return operand == 1 ? 5 : 32;
    case Op::kStore:
      return operand == 1 && inst.access() != Access::kF32 ? 8 * bytes_of(inst.access()) : 64;
    default: return 64;
  }
}

}  // namespace

void extension_removal(Block& block) {
  Substitution substitution;
  Widths widths(block);
  for (std::size_t index = 0; index < block.insts.size(); ++index) {
    Inst& inst = block.insts[index];
    const Value value = static_cast<Value>(index);
    substitution.update_operands(inst, value);
    for (unsigned operand = 0; operand < info(inst.op).operands; ++operand) {
      const unsigned bits = used_bits(inst, operand);
      if (bits < 64) inst.operands[operand] = same_low_bits(block.insts, inst.operands[operand], bits);
    }
    if (changes_nothing(block, widths, inst)) {
      substitution.replace(value, inst.operands[0]);
    }
    widths.learn(value);
  }
}

}  // namespace doppel::ir::opt
