// Values of the state that the block already has are not read again.
#include "ir/opt/passes.h"
#include "ir/opt/rewrite.h"
#include "ir/opt/state_words.h"

namespace doppel::ir::opt {
namespace {

// The value that bytes of a word, from `offset` on, are known to hold.
struct Known {
  Value value = kNone;
  Type type = Type::kVoid;
  std::uint64_t offset = 0;
};

// The operation that reads a known value of type `from` as the bytes of type `to`; kCount if none does.
// get.i64(set.f64 x) = fbits x; get.f64(set.i64 x) = ffrom_bits x; get.f32(set.i64 x) = ffrom_bits x, of the low half.
Op reinterpretation(Type from, Type to) {
  if (from == Type::kF64 && to == Type::kI64) return Op::kFbits;
  if (from == Type::kI64) return Op::kFfromBits;
  return Op::kCount;
}

}  // namespace

void redundant_state(Block& block) {
  Substitution substitution;
  StateWords<Known> words;

  for (std::size_t index = 0; index < block.insts.size(); ++index) {
    Inst& inst = block.insts[index];
    const Value value = static_cast<Value>(index);
    substitution.update_operands(inst, value);

    if (inst.op == Op::kGet) {
      const StateBytes bytes{static_cast<std::uint64_t>(inst.imm), bytes_of(inst.type)};
      Known* known = bytes.first_word() == bytes.last_word() ? words.find(bytes.first_word()) : nullptr;
      if (known == nullptr) continue;
      if (known->value == kNone) {
        *known = {value, inst.type, bytes.offset};
      } else if (known->offset != bytes.offset) {
        continue;
      } else if (known->type == inst.type) {
        substitution.replace(value, known->value);
        erase(inst);  // or it would keep the set that it read
      } else if (const Op op = reinterpretation(known->type, inst.type); op != Op::kCount) {
        inst = {.op = op, .type = inst.type, .origin = inst.origin, .operands = {known->value, kNone, kNone}};
      }
    } else if (inst.op == Op::kSet) {
      const Known now{inst.operands[0], block.insts[inst.operands[0]].type, static_cast<std::uint64_t>(inst.imm)};
      const StateBytes bytes{now.offset, bytes_of(now.type)};
      if (bytes.first_word() != bytes.last_word()) {
        words.for_each(bytes, [](std::uint64_t, Known& known) { known = {}; });
      } else if (Known* known = words.find(bytes.first_word())) {
        if (known->value == now.value && known->offset == now.offset) erase(inst);
        *known = now;
      }
    } else if (info(inst.op).writes_state) {
      words.forget();
    }
  }
}

}  // namespace doppel::ir::opt
