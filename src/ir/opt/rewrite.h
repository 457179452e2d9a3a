// What passes share that walk a block and replace values.
#pragma once

#include <memory>
#include <span>

#include "ir/ir.h"

namespace doppel::ir::opt {

// A value for each value, kNone for kNone: so the operands of any instruction can be looked up, however many it
// has. What it holds at first is whatever the last user left; there is one a thread.
class ValueMap {
 public:
  ValueMap() : values_(buffer()) {}

  Value& operator[](Value value) { return values_[value]; }

  void look_up_operands(Inst& inst) const {
    for (Value& operand : inst.operands) operand = values_[operand];
  }

 private:
  static Value* buffer() {
    // Most of it is never touched.
    thread_local const std::unique_ptr<Value[]> kValues = [] {
      auto values = std::make_unique_for_overwrite<Value[]>(std::size_t{kNone} + 1);
      values[kNone] = kNone;
      return values;
    }();
    return kValues.get();
  }

  Value* values_;
};

// Which value is to be used for which. A walk first updates an instruction's operands and then decides about
// its own value, so that a substitute is never itself substituted.
class Substitution {
 public:
  // `inst` defines `value`, the next one in order.
  void update_operands(Inst& inst, Value value) {
    substitutes_.look_up_operands(inst);
    substitutes_[value] = value;
  }
  void replace(Value value, Value substitute) { substitutes_[value] = substitute; }

 private:
  ValueMap substitutes_;
};

// Takes an instruction without a used value out. Indices are names, so it leaves a constant that nobody uses,
// for dead_code to sweep.
inline void erase(Inst& inst) { inst = {.op = Op::kConst, .type = Type::kI64, .origin = inst.origin}; }

// The oldest value that has the low `width` bits of `value` (1 to 63) and differs by extension or masks alone.
inline Value same_low_bits(std::span<const Inst> insts, Value value, unsigned width) {
  const std::uint64_t low = (std::uint64_t{1} << width) - 1;
  for (;; value = insts[value].operands[0]) {
    const Inst& inst = insts[value];
    const auto keeps_low_bits = [&](std::uint64_t of_low_bits) {
      const Inst& mask = insts[inst.operands[1]];
      return mask.op == Op::kConst && (static_cast<std::uint64_t>(mask.imm) & low) == of_low_bits;
    };
    bool same = false;
    switch (inst.op) {
      case Op::kSext8:
      case Op::kZext8: same = width <= 8; break;
      case Op::kSext16:
      case Op::kZext16: same = width <= 16; break;
      case Op::kSext32:
      case Op::kZext32: same = width <= 32; break;
      case Op::kAnd: same = keeps_low_bits(low); break;
      case Op::kOr:
      case Op::kXor: same = keeps_low_bits(0); break;
      default: break;
    }
    if (!same) return value;
  }
}

}  // namespace doppel::ir::opt
