// Values that nobody uses are not computed, and the rest is numbered anew without gaps.
#include "ir/opt/passes.h"
#include "ir/opt/rewrite.h"

namespace doppel::ir::opt {

void dead_code(Block& block) {
  constexpr Value kUsed = 0;
  ValueMap names;  // kNone of what is dead, kUsed of what is not; in the second walk the new name
  for (std::size_t index = 0; index < block.insts.size(); ++index) names[static_cast<Value>(index)] = kNone;

  for (std::size_t index = block.insts.size(); index-- > 0;) {
    const Inst& inst = block.insts[index];
    Value& name = names[static_cast<Value>(index)];
    if (name == kNone && (info(inst.op).pure || inst.op == Op::kGet)) continue;
    name = kUsed;
    for (const Value operand : inst.operands) {
      if (operand != kNone) names[operand] = kUsed;
    }
  }

  std::size_t count = 0;
  for (std::size_t index = 0; index < block.insts.size(); ++index) {
    Value& name = names[static_cast<Value>(index)];
    if (name == kNone) continue;
    name = static_cast<Value>(count);
    Inst& kept = block.insts[count++] = block.insts[index];
    names.look_up_operands(kept);
  }
  block.insts.resize(count);
}

}  // namespace doppel::ir::opt
