// Of several sets of the same state, only those count that something can see: an instruction that may leave the
// block, or one that reads. Walks backwards and keeps which bytes will be overwritten unseen.
#include "ir/opt/passes.h"
#include "ir/opt/rewrite.h"
#include "ir/opt/state_words.h"

namespace doppel::ir::opt {

void dead_state(Block& block) {
  struct Overwritten {
    std::uint8_t bytes = 0;  // one bit a byte of the word
  };
  StateWords<Overwritten> words;

  for (std::size_t index = block.insts.size(); index-- > 0;) {
    Inst& inst = block.insts[index];
    if (inst.op == Op::kGet) {
      const StateBytes bytes{static_cast<std::uint64_t>(inst.imm), bytes_of(inst.type)};
      words.for_each(bytes, [&](std::uint64_t word, Overwritten& overwritten) {
        overwritten.bytes &= static_cast<std::uint8_t>(~bytes.mask_in(word));
      });
    } else if (inst.op == Op::kSet) {
      const StateBytes bytes{static_cast<std::uint64_t>(inst.imm), bytes_of(block.insts[inst.operands[0]].type)};
      std::uint64_t seen = bytes.last_word() - bytes.first_word() + 1;  // words with a byte that is not overwritten
      words.for_each(bytes, [&](std::uint64_t word, Overwritten& overwritten) {
        const std::uint8_t mask = bytes.mask_in(word);
        if ((mask & ~overwritten.bytes) == 0) --seen;
        overwritten.bytes |= mask;
      });
      if (seen == 0) erase(inst);
    } else if (const OpInfo& op = info(inst.op); op.leaves || op.reads_state) {
      words.forget();
    }
  }
}

}  // namespace doppel::ir::opt
