// Constants that are added to an address move into the access, whose immediate costs nothing: accesses off one
// base register then show their common base.
#include <limits>

#include "ir/opt/passes.h"

namespace doppel::ir::opt {

void address_folding(Block& block) {
  for (Inst& inst : block.insts) {
    if (inst.op != Op::kLoad && inst.op != Op::kStore) continue;
    // [(x + c) + imm] = [x + (c + imm)], while the sum fits an immediate
    for (;;) {
      const Inst& address = block.insts[inst.operands[0]];
      if (address.op != Op::kAdd) break;
      const Inst& addend = block.insts[address.operands[1]];
      if (addend.op != Op::kConst) break;
      std::int64_t sum = 0;
      if (__builtin_add_overflow(inst.imm, addend.imm, &sum)) break;
      if (sum < std::numeric_limits<std::int32_t>::min() || sum > std::numeric_limits<std::int32_t>::max()) break;
      inst.operands[0] = address.operands[0];
      inst.imm = sum;
    }
  }
}

}  // namespace doppel::ir::opt
