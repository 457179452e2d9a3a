#include "ir/opt/if_conversion.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "ir/opt/rewrite.h"

namespace doppel::ir {
namespace {

constexpr std::size_t kMostConverted = 4;  // guest instructions

bool goes_on(const Inst& inst, Op op) {
  return inst.op == op && static_cast<ExitKind>(inst.detail) == ExitKind::kGo;
}

// Whether it costs less than a branch that is mispredicted now and then.
bool is_cheap(const Inst& inst) {
  switch (inst.op) {
    case Op::kConst: return true;
    case Op::kGet: return inst.type == Type::kI64 && inst.imm % 8 == 0;
    case Op::kSet: return inst.imm % 8 == 0;
    case Op::kMul:
    case Op::kMul32:
    case Op::kMulh:
    case Op::kMulhu:
    case Op::kMulhsu:
    case Op::kDiv:
    case Op::kDivu:
    case Op::kRem:
    case Op::kRemu:
    case Op::kDiv32:
    case Op::kDivu32:
    case Op::kRem32:
    case Op::kRemu32:
    case Op::kOrCombineBytes: return false;
    default: return info(inst.op).pure && inst.type == Type::kI64;
  }
}

bool is_comparison(Op op) { return op >= Op::kEq && op <= Op::kGeu; }

// Appends instructions of other blocks to one.
class Appender {
 public:
  explicit Appender(Block& to) : to_(to) {}

  // From now on instructions come from `from`, which lies behind.
  void begin(const Block& from) {
    names_.assign(from.insts.size(), kNone);
    first_origin_ = to_.origins.size();
    distance_ = to_.guest_bytes;
    for (const Origin& origin : from.origins) to_.origins.push_back({origin.offset + distance_, origin.raw});
    to_.guest_bytes += from.guest_bytes;
  }
  void copy(const Block& from, std::size_t index) {
    Inst inst = from.insts[index];
    inst.origin = static_cast<std::uint16_t>(inst.origin + first_origin_);
    for (Value& operand : inst.operands) operand = name(operand);
    if (inst.op == Op::kExit || inst.op == Op::kExitIf) inst.imm += distance_;
    rename(static_cast<Value>(index), add(inst));
  }
  Value name(Value value) const { return value == kNone ? kNone : names_[value]; }
  void rename(Value value, Value name) { names_[value] = name; }
  Value add(const Inst& inst) {
    to_.insts.push_back(inst);
    return static_cast<Value>(to_.insts.size() - 1);
  }

 private:
  Block& to_;
  std::vector<Value> names_;
  std::size_t first_origin_ = 0;
  std::uint32_t distance_ = 0;
};

// Takes a comparison that nobody uses any more out, and puts it at the end, before what is to be decided by it.
Value moved_to_end(Block& block, Value value, std::uint16_t origin) {
  if (!is_comparison(block.insts[value].op)) return value;
  for (const Inst& inst : block.insts) {
    if (std::ranges::find(inst.operands, value) != inst.operands.end()) return value;
  }
  Inst moved = block.insts[value];
  opt::erase(block.insts[value]);
  moved.origin = origin;
  block.insts.push_back(moved);
  return static_cast<Value>(block.insts.size() - 1);
}

}  // namespace

std::optional<Block> without_branch(const Block& head, const Block& side) {
  if (head.insts.size() < 2) return std::nullopt;
  const Inst& branch = head.insts[head.insts.size() - 2];
  const Inst& straight_on = head.insts.back();
  const Inst& end = side.insts.back();
  if (!goes_on(branch, Op::kExitIf) || !goes_on(straight_on, Op::kExit) || !goes_on(end, Op::kExit)) return std::nullopt;
  if (straight_on.imm != head.guest_bytes || end.imm != side.guest_bytes) return std::nullopt;
  if (branch.imm != straight_on.imm + end.imm || side.origins.size() > kMostConverted) return std::nullopt;
  for (const Inst& inst : side.insts) {
    if (&inst == &end) break;
    if (!is_cheap(inst)) return std::nullopt;
    if (inst.op == Op::kSet && side.insts[inst.operands[0]].type != Type::kI64) return std::nullopt;
  }

  Block block = head;
  block.insts.resize(head.insts.size() - 2);
  Appender appender(block);
  appender.begin(side);
  const auto origin = static_cast<std::uint16_t>(block.origins.size() - 1);

  struct Written {
    std::int64_t offset;
    Value value, old = kNone;
  };
  std::vector<Written> words;
  for (std::size_t index = 0; index + 1 < side.insts.size(); ++index) {
    const Inst& inst = side.insts[index];
    const auto word = std::ranges::find(words, inst.imm, &Written::offset);
    if (inst.op == Op::kSet) {
      const Value value = appender.name(inst.operands[0]);
      if (word == words.end()) {
        words.push_back({inst.imm, value});
      } else {
        word->value = value;
      }
    } else if (inst.op == Op::kGet && word != words.end()) {
      appender.rename(static_cast<Value>(index), word->value);
    } else {
      appender.copy(side, index);
    }
  }
  for (Written& word : words) {
    word.old = appender.add({.op = Op::kGet, .type = Type::kI64, .origin = origin, .imm = word.offset});
  }
  const Value condition = moved_to_end(block, branch.operands[0], origin);
  for (const Written& word : words) {
    const Value chosen = appender.add({.op = Op::kSelect, .type = Type::kI64, .origin = origin,
                                       .operands = {condition, word.old, word.value}});
    appender.add({.op = Op::kSet, .origin = origin, .operands = {chosen, kNone, kNone}, .imm = word.offset});
  }
  appender.add({.op = Op::kUncount, .origin = origin, .operands = {condition, kNone, kNone},
                .imm = static_cast<std::int64_t>(side.origins.size())});
  appender.add({.op = Op::kExit, .origin = origin, .imm = branch.imm});
  return block;
}

std::optional<Block> joined(const Block& first, const Block& second) {
  const Inst& end = first.insts.back();
  if (!goes_on(end, Op::kExit) || end.imm != first.guest_bytes) return std::nullopt;
  if (first.insts.size() >= 2 && first.insts[first.insts.size() - 2].op == Op::kExitIf) return std::nullopt;
  Block block = first;
  block.insts.pop_back();
  Appender appender(block);
  appender.begin(second);
  for (std::size_t index = 0; index < second.insts.size(); ++index) appender.copy(second, index);
  return block;
}

}  // namespace doppel::ir
