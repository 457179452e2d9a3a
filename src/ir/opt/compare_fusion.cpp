// Comparisons come to stand directly before the exits and selections that ask for them, in the form that the back
// end joins into one compare and branch: no comparison of a comparison with 0 or 1 remains.
#include <utility>

#include "ir/opt/passes.h"
#include "ir/opt/rewrite.h"

namespace doppel::ir::opt {
namespace {

// The comparison that is true where `op` is false; kCount if there is none. Those of floats have none: with a NaN
// both a < b and a >= b are false.
Op inverse(Op op) {
  switch (op) {
    case Op::kEq: return Op::kNe;
    case Op::kNe: return Op::kEq;
    case Op::kLt: return Op::kGe;
    case Op::kGe: return Op::kLt;
    case Op::kLtu: return Op::kGeu;
    case Op::kGeu: return Op::kLtu;
    default: return Op::kCount;
  }
}

bool is_comparison(Op op) {
  return inverse(op) != Op::kCount || op == Op::kFeq || op == Op::kFlt || op == Op::kFle;
}

// What an operation with a constant on the right does to a truth value (0 or 1).
enum class OnTruth { kNeither, kKeeps, kInverts };
OnTruth on_truth(Op op, std::int64_t constant) {
  if (constant != 0 && constant != 1) return OnTruth::kNeither;
  switch (op) {
    case Op::kNe:
    case Op::kXor: return constant == 0 ? OnTruth::kKeeps : OnTruth::kInverts;
    case Op::kEq: return constant == 1 ? OnTruth::kKeeps : OnTruth::kInverts;
    default: return OnTruth::kNeither;
  }
}

bool compares_with_zero(const Block& block, const Inst& inst, Op op) {
  if (inst.op != op) return false;
  const Inst& right = block.insts[inst.operands[1]];
  return right.op == Op::kConst && right.imm == 0;
}

}  // namespace

void compare_fusion(Block& block) {
  Substitution substitution;
  for (std::size_t index = 0; index < block.insts.size(); ++index) {
    Inst& inst = block.insts[index];
    const Value value = static_cast<Value>(index);
    substitution.update_operands(inst, value);
    switch (inst.op) {
      case Op::kEq:
      case Op::kNe:
      case Op::kXor: {
        const Inst& left = block.insts[inst.operands[0]];
        const Inst& right = block.insts[inst.operands[1]];
        if (!is_comparison(left.op) || right.op != Op::kConst) break;
        const OnTruth effect = on_truth(inst.op, right.imm);
        if (effect == OnTruth::kKeeps) {  // (p != 0) = p
          substitution.replace(value, inst.operands[0]);
        } else if (effect == OnTruth::kInverts && inverse(left.op) != Op::kCount) {  // (p = 0) = not p
          inst.op = inverse(left.op);
          inst.operands = left.operands;
        }
        break;
      }
      case Op::kExitIf:
      case Op::kUncount:
      case Op::kSelect:
        // The condition holds where it is not 0, which need not be asked.
        while (compares_with_zero(block, block.insts[inst.operands[0]], Op::kNe)) {
          inst.operands[0] = block.insts[inst.operands[0]].operands[0];
        }
        // x = 0 ? a : b is x ? b : a
        if (inst.op == Op::kSelect && compares_with_zero(block, block.insts[inst.operands[0]], Op::kEq)) {
          inst.operands[0] = block.insts[inst.operands[0]].operands[0];
          std::swap(inst.operands[1], inst.operands[2]);
        }
        if (inst.op == Op::kUncount && compares_with_zero(block, block.insts[inst.operands[0]], Op::kEq)) {
          inst.operands[0] = block.insts[inst.operands[0]].operands[0];
          inst.detail ^= 1;
        }
        break;
      default: break;
    }
  }
}

}  // namespace doppel::ir::opt
