// A pure operation that the block has already done is not done again.
//
// A small table by hash of operation and operands remembers the latest of each kind; a collision costs an
// opportunity and nothing else.
#include <array>
#include <utility>

#include "ir/opt/passes.h"
#include "ir/opt/rewrite.h"

namespace doppel::ir::opt {
namespace {

constexpr unsigned kTableBits = 10;

// Zeros at first: a thread begins with a copy of all that is not.
struct Table {
  struct Entry {
    std::uint32_t generation = 0;
    Value value = 0;
  };
  std::uint32_t generation = 0;  // entries of older ones are of other blocks
  std::array<Entry, 1 << kTableBits> entries{};
};

Table& fresh_table() {
  thread_local Table table;
  if (++table.generation == 0) table = Table{.generation = 1};
  return table;
}

unsigned hash(const Inst& inst) {
  std::uint64_t key = static_cast<std::uint64_t>(inst.imm);
  key ^= std::uint64_t{inst.operands[0]} << 48 ^ std::uint64_t{inst.operands[1]} << 32 ^
         std::uint64_t{inst.operands[2]} << 16 ^ static_cast<std::uint64_t>(inst.op) << 8 ^
         static_cast<std::uint64_t>(inst.type);
  return static_cast<unsigned>(key * 0x9e37'79b9'7f4a'7c15 >> (64 - kTableBits));  // Fibonacci hashing
}

bool same_operation(const Inst& a, const Inst& b) {
  return a.op == b.op && a.type == b.type && a.detail == b.detail && a.operands == b.operands && a.imm == b.imm;
}

}  // namespace

void common_values(Block& block) {
  Substitution substitution;
  Table& table = fresh_table();
  for (std::size_t index = 0; index < block.insts.size(); ++index) {
    Inst& inst = block.insts[index];
    const Value value = static_cast<Value>(index);
    substitution.update_operands(inst, value);
    const OpInfo& op = info(inst.op);
    if (!op.pure) continue;
    // One order of a + b and b + a. Constants stay on the right.
    if (op.commutative && inst.operands[0] > inst.operands[1] &&
        block.insts[inst.operands[1]].op != Op::kConst) {
      std::swap(inst.operands[0], inst.operands[1]);
    }
    Table::Entry& entry = table.entries[hash(inst)];
    if (entry.generation == table.generation && same_operation(block.insts[entry.value], inst)) {
      substitution.replace(value, entry.value);
    } else {
      entry = {table.generation, value};
    }
  }
}

}  // namespace doppel::ir::opt
