// Comparisons between reading the accrued flags and writing them back as they were become quiet ones, and the write goes.
//
// RISC-V has no ordered comparison that is quiet: compilers read the flags, compare, and write them back. On the host
// each of the two would wait for all floating-point work before it.
#include <algorithm>

#include "ir/opt/passes.h"
#include "ir/opt/rewrite.h"

namespace doppel::ir::opt {
namespace {

// What an operation means for flags that were read before it and are written back after it.
enum class OnFlags { kNothing, kCompares, kOther };
OnFlags on_flags(const Inst& inst) {
  if (inst.op == Op::kFlt || inst.op == Op::kFle) return OnFlags::kCompares;
  const bool harmless = info(inst.op).pure || inst.op == Op::kGet || inst.op == Op::kSet;
  return harmless ? OnFlags::kNothing : OnFlags::kOther;
}

// The first of the comparisons that the write of flags at `write` undoes; `write` if it undoes none, or more than that.
std::size_t first_undone(const Block& block, std::size_t write) {
  std::size_t first = write;
  for (std::size_t index = block.insts[write].operands[0] + 1u; index < write; ++index) {
    const OnFlags effect = on_flags(block.insts[index]);
    // The block may be left before the first comparison: the flags are as they were.
    if (effect == OnFlags::kOther && (first != write || block.insts[index].op != Op::kExitIf)) return write;
    if (effect == OnFlags::kCompares) first = std::min(first, index);
  }
  return first;
}

}  // namespace

void quiet_comparison(Block& block) {
  for (std::size_t index = 0; index < block.insts.size(); ++index) {
    Inst& write = block.insts[index];
    if (write.op != Op::kFsetFlags) continue;
    const Inst& read = block.insts[write.operands[0]];
    if (read.op != Op::kFflags || read.imm != write.imm) continue;
    const std::size_t first = first_undone(block, index);
    if (first == index) continue;
    for (std::size_t at = first; at < index; ++at) {
      Inst& inst = block.insts[at];
      if (on_flags(inst) != OnFlags::kCompares) continue;
      inst.op = inst.op == Op::kFlt ? Op::kFltQuiet : Op::kFleQuiet;
      inst.operands[2] = write.operands[0];
    }
    erase(write);
  }
}

}  // namespace doppel::ir::opt
