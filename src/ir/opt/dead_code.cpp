// Values that nobody uses are not computed, and the rest is numbered anew without gaps.
#include "ir/opt/passes.h"

namespace doppel::ir::opt {

void dead_code(Block& block) {
  thread_local std::vector<Value> names;  // kNone: dead; 0: alive; in the second walk the new name
  names.assign(block.insts.size(), kNone);

  for (std::size_t index = block.insts.size(); index-- > 0;) {
    const Inst& inst = block.insts[index];
    const OpInfo& op = info(inst.op);
    if (names[index] == kNone && (op.pure || inst.op == Op::kGet)) continue;
    names[index] = 0;
    for (unsigned i = 0; i < op.operands; ++i) names[inst.operands[i]] = 0;
  }

  std::size_t count = 0;
  for (std::size_t index = 0; index < block.insts.size(); ++index) {
    if (names[index] == kNone) continue;
    Inst inst = block.insts[index];
    for (unsigned i = 0; i < info(inst.op).operands; ++i) inst.operands[i] = names[inst.operands[i]];
    names[index] = static_cast<Value>(count);
    block.insts[count++] = inst;
  }
  block.insts.resize(count);
}

}  // namespace doppel::ir::opt
