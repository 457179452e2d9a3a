// Which value lies where: pinned registers, value registers, spill slots.
#include "host/x64/emission.h"

namespace doppel::x64 {

void Compiler::Emission::store_pins(const Pins& pins) {
  for (std::size_t i = 0; i < pins.integer.size(); ++i) a_.mov(state(pins.integer[i]), kPins[i]);
  for (std::size_t i = 0; i < pins.floating.size(); ++i) {
    a_.movsd(state(pins.floating[i]), pinned_xmm(static_cast<unsigned>(i)));
  }
}

void Compiler::Emission::load_pins(const Pins& pins) {
  for (std::size_t i = 0; i < pins.integer.size(); ++i) a_.mov(kPins[i], state(pins.integer[i]));
  for (std::size_t i = 0; i < pins.floating.size(); ++i) {
    a_.movsd(pinned_xmm(static_cast<unsigned>(i)), state(pins.floating[i]));
  }
}

void Compiler::Emission::exchange_pins(const Pins& from, const Pins& to) {
  const auto stays = [](const std::vector<std::uint32_t>& one, const std::vector<std::uint32_t>& other, std::size_t i) {
    return i < one.size() && i < other.size() && one[i] == other[i];
  };
  const auto all = [&](const Pins& pins, auto&& integer, auto&& floating) {
    for (std::size_t i = 0; i < pins.integer.size(); ++i) {
      if (!stays(from.integer, to.integer, i)) integer(state(pins.integer[i]), kPins[i]);
    }
    for (std::size_t i = 0; i < pins.floating.size(); ++i) {
      if (!stays(from.floating, to.floating, i)) floating(state(pins.floating[i]), pinned_xmm(static_cast<unsigned>(i)));
    }
  };
  all(from, [this](auto at, auto reg) { a_.mov(at, reg); }, [this](auto at, auto xmm) { a_.movsd(at, xmm); });
  all(to, [this](auto at, auto reg) { a_.mov(reg, at); }, [this](auto at, auto xmm) { a_.movsd(xmm, at); });
}

void Compiler::Emission::emit_transfers() {
  a_.bind(spill_);
  store_pins(pins_);
  a_.ret();
  a_.bind(fill_);
  load_pins(pins_);
  a_.ret();
  a_.bind(unpin_);
  exchange_pins(pins_, Pins{o_.pinned, {}});
  a_.ret();
}

void Compiler::Emission::unpin() {
  if (!region_) return;
  // Nothing to do, often enough: short loops have the usual registers.
  if (pins_.integer == o_.pinned && pins_.floating.empty()) return;
  a_.call(unpin_);
}

void Compiler::Emission::find_last_uses() {
  last_use_.assign(block_->insts.size(), 0);
  use_count_.assign(block_->insts.size(), 0);
  for (std::size_t i = 0; i < block_->insts.size(); ++i) {
    for (const Value operand : block_->insts[i].operands) {
      if (operand == ir::kNone) continue;
      last_use_[operand] = static_cast<std::uint32_t>(i);
      ++use_count_[operand];
    }
  }
}

void Compiler::Emission::release(Value value) {
  Where& where = where_[value];
  if (where.kind == Kind::kRegister) value_of_[where.index] = ir::kNone;
  if (where.kind == Kind::kXmm) xmm_of_[where.index] = ir::kNone;
  if (where.kind == Kind::kSlot) slot_used_[where.index] = false;
  if (where.kind != Kind::kConstant) where = {};
}

unsigned Compiler::Emission::take_slot() {
  const auto free = std::find(slot_used_.begin(), slot_used_.end(), false);
  assert(free != slot_used_.end());
  *free = true;
  return static_cast<unsigned>(free - slot_used_.begin());
}

bool Compiler::Emission::is_operand_of(Value user, Value value) const {
  const auto& operands = block_->insts[user].operands;
  return std::find(operands.begin(), operands.end(), value) != operands.end();
}

bool Compiler::Emission::is_read_now(Value value) const {
  if (operands_read_) return false;
  if (is_operand_now(value)) return true;
  return fused_ != ir::kNone && is_operand_now(fused_) && is_operand_of(fused_, value);
}

unsigned Compiler::Emission::free_register() {
  std::optional<unsigned> victim;
  for (unsigned i = 0; i < kValues.size(); ++i) {
    if (value_of_[i] == ir::kNone) return i;
    if (is_read_now(value_of_[i])) continue;
    if (!victim || last_use_[value_of_[i]] > last_use_[value_of_[*victim]]) victim = i;
  }
  assert(victim);
  const Value value = std::exchange(value_of_[*victim], ir::kNone);
  if (const auto home = std::ranges::find(in_state_, value); home != in_state_.end()) {
    where_[value] = {Kind::kGuest, static_cast<std::uint16_t>(home - in_state_.begin())};
    return *victim;
  }
  const unsigned index = take_slot();
  a_.mov(slot(index), kValues[*victim]);
  where_[value] = {Kind::kSlot, static_cast<std::uint16_t>(index)};
  return *victim;
}

unsigned Compiler::Emission::free_xmm() {
  std::optional<unsigned> victim;
  for (unsigned i = kFirstValueXmm; i <= last_value_xmm_; ++i) {
    if (xmm_of_[i] == ir::kNone) return i;
    if (is_read_now(xmm_of_[i])) continue;
    if (!victim || last_use_[xmm_of_[i]] > last_use_[xmm_of_[*victim]]) victim = i;
  }
  assert(victim);
  const unsigned index = take_slot();
  a_.movsd(slot(index), x86::xmm(*victim));
  Where& where = where_[xmm_of_[*victim]];
  where = {Kind::kSlot, static_cast<std::uint16_t>(index), where.negated};
  xmm_of_[*victim] = ir::kNone;
  return *victim;
}

void Compiler::Emission::vacate(unsigned index, Value except) {
  for (Value v = 0; v < now_; ++v) {
    if (where_[v].kind != Kind::kPinned || where_[v].index != index || v == except || !live_after(v)) continue;
    const unsigned to = free_register();
    a_.mov(kValues[to], kPins[index]);
    value_of_[to] = v;
    where_[v] = {Kind::kRegister, static_cast<std::uint16_t>(to)};
  }
}

void Compiler::Emission::now_in_state(std::int64_t offset, Value value) {
  if (const auto number = guest_register_at(offset)) in_state_[*number] = value;
}

void Compiler::Emission::leave_state(unsigned number, Value except) {
  const Value value = std::exchange(in_state_[number], ir::kNone);
  if (value == ir::kNone || value == except || where_[value].kind != Kind::kGuest || !live_after(value)) return;
  const unsigned to = free_register();
  a_.mov(kValues[to], guest_register(number));
  value_of_[to] = value;
  where_[value] = {Kind::kRegister, static_cast<std::uint16_t>(to)};
}

std::optional<x86::Mem> Compiler::Emission::in_memory(Value value) const {
  const Where& where = where_[value];
  if (where.kind == Kind::kSlot) return slot(where.index);
  if (where.kind == Kind::kGuest) return guest_register(where.index);
  return std::nullopt;
}

void Compiler::Emission::vacate_xmm(unsigned index, Value except) {
  for (Value v = 0; v < now_; ++v) {
    if (where_[v].kind != Kind::kPinnedXmm || where_[v].index != index || v == except || !live_after(v)) continue;
    const unsigned to = free_xmm();
    a_.movaps(x86::xmm(to), pinned_xmm(index));
    xmm_of_[to] = v;
    where_[v] = {Kind::kXmm, static_cast<std::uint16_t>(to), where_[v].negated};
  }
}

x86::Gp Compiler::Emission::destination() {
  const Value self = static_cast<Value>(now_);
  if (now_ + 1 < block_->insts.size()) {
    const Inst& next = block_->insts[now_ + 1];
    if (next.op == Op::kSet && next.operands[0] == self) {
      if (const auto index = pinned(next.imm)) {
        vacate(*index, ir::kNone);
        where_[self] = {Kind::kPinned, static_cast<std::uint16_t>(*index)};
        return kPins[*index];
      }
    }
  }
  // An operand that dies here may lend its register; emission copes with the overlap.
  for (const Value operand : block_->insts[now_].operands) {
    if (operand == ir::kNone || live_after(operand) || where_[operand].kind != Kind::kRegister) continue;
    const unsigned index = where_[operand].index;
    if (lent_) break;
    lent_ = true;
    value_of_[index] = self;
    where_[self] = where_[operand];
    where_[operand].kind = Kind::kNowhere;
    return kValues[index];
  }
  const unsigned index = free_register();
  value_of_[index] = self;
  where_[self] = {Kind::kRegister, static_cast<std::uint16_t>(index)};
  return kValues[index];
}

bool Compiler::Emission::take_over_xmm(Value operand) {
  const Where where = where_[operand];
  if (where.kind != Kind::kXmm || live_after(operand)) return false;
  where_[now_] = where;
  xmm_of_[where.index] = static_cast<Value>(now_);
  where_[operand] = {};
  return true;
}

x86::Xmm Compiler::Emission::destination_xmm() {
  const Value self = static_cast<Value>(now_);
  // Making a NaN canonical is done in place.
  Value result = self;
  if (now_ + 1 < block_->insts.size() && block_->insts[now_ + 1].op == Op::kFcanonical &&
      block_->insts[now_ + 1].operands[0] == self && use_count_[self] == 1) {
    ++result;
  }
  if (result + 1u < block_->insts.size() && block_->insts[now_].type == Type::kF64) {
    const Inst& next = block_->insts[result + 1u];
    if (next.op == Op::kSet && next.operands[0] == result) {
      if (const auto index = pinned_floating(next.imm)) {
        vacate_xmm(*index, ir::kNone);
        where_[self] = {Kind::kPinnedXmm, static_cast<std::uint16_t>(*index)};
        return pinned_xmm(*index);
      }
    }
  }
  const unsigned index = free_xmm();
  xmm_of_[index] = self;
  where_[self] = {Kind::kXmm, static_cast<std::uint16_t>(index)};
  return x86::xmm(index);
}

void Compiler::Emission::load_constant(const x86::Gp& into, std::int64_t value) {
  if (value >= 0 && value <= 0xffffffff) {
    a_.mov(into.r32(), static_cast<std::uint32_t>(value));
  } else {
    a_.mov(into, value);
  }
}

x86::Gp Compiler::Emission::use(Value value, const x86::Gp& scratch) {
  const Where where = where_[value];
  switch (where.kind) {
    case Kind::kRegister: return kValues[where.index];
    case Kind::kPinned: return kPins[where.index];
    case Kind::kSlot: a_.mov(scratch, slot(where.index)); return scratch;
    case Kind::kGuest: a_.mov(scratch, guest_register(where.index)); return scratch;
    case Kind::kXmm: a_.movq(scratch, x86::xmm(where.index)); return scratch;
    case Kind::kPinnedXmm: a_.movq(scratch, pinned_xmm(where.index)); return scratch;
    default:
      assert(is_constant(value));
      load_constant(scratch, constant(value));
      return scratch;
  }
}

void Compiler::Emission::move_from(const Where& where, Value value, const x86::Gp& into) {
  switch (where.kind) {
    case Kind::kRegister: a_.mov(into, kValues[where.index]); break;
    case Kind::kPinned: a_.mov(into, kPins[where.index]); break;
    case Kind::kXmm: a_.movq(into, x86::xmm(where.index)); break;
    case Kind::kPinnedXmm: a_.movq(into, pinned_xmm(where.index)); break;
    case Kind::kSlot: a_.mov(into, slot(where.index)); break;
    case Kind::kGuest: a_.mov(into, guest_register(where.index)); break;
    default: load_constant(into, constant(value)); break;
  }
}

void Compiler::Emission::move(const x86::Gp& into, Value value) {
  const x86::Gp from = use(value, into);
  if (from != into) a_.mov(into, from);
}

x86::Xmm Compiler::Emission::use_xmm(Value value, const x86::Xmm& scratch) {
  const Where where = where_[value];
  if (where.kind == Kind::kXmm) return x86::xmm(where.index);
  if (where.kind == Kind::kPinnedXmm) return pinned_xmm(where.index);
  assert(where.kind == Kind::kSlot);
  a_.movsd(scratch, slot(where.index));
  return scratch;
}

}  // namespace doppel::x64
