// What passes share that edit a block in place, walking it from first to last.
#pragma once

#include <algorithm>
#include <span>

#include "ir/ir.h"

namespace doppel::ir::opt {

// Which value is to be used for which. A walk first updates an instruction's operands and then decides about
// its own value, so that a substitute is never itself substituted.
class Substitution {
 public:
  explicit Substitution(const Block& block) : substitutes_(buffer()) {
    const std::size_t count = block.insts.size();
    while (substitutes_.size() < count) substitutes_.push_back(static_cast<Value>(substitutes_.size()));
    std::ranges::generate(std::span(substitutes_).first(count), [next = Value{0}]() mutable { return next++; });
  }

  void replace(Value value, Value substitute) { substitutes_[value] = substitute; }

  void update_operands(Inst& inst) const {
    for (Value& operand : inst.operands) {
      if (operand == kNone) break;
      operand = substitutes_[operand];
    }
  }

 private:
  static std::vector<Value>& buffer() {
    thread_local std::vector<Value> substitutes;
    return substitutes;
  }

  std::vector<Value>& substitutes_;
};

// Takes an instruction without a used value out. Indices are names, so it leaves a constant that nobody uses,
// for dead_code to sweep.
inline void erase(Inst& inst) { inst = {.op = Op::kConst, .type = Type::kI64, .origin = inst.origin}; }

}  // namespace doppel::ir::opt
