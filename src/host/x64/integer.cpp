// Integer operations, and the table of all operations.
#include "host/x64/emission.h"

namespace doppel::x64 {

void Compiler::Emission::emit(const Inst& inst) {
  if (now_ < skipped_ && inst.op != Op::kConst) return;
  lent_ = false;
  operands_read_ = false;
  switch (inst.op) {
    case Op::kConst: where_[now_] = {Kind::kConstant, 0}; return;
    case Op::kGet: return emit_get(inst);
    case Op::kSet:
      emit_set(inst);
      return guard_stack_pointer(inst);
    case Op::kAdd: return emit_add(inst);
    case Op::kSub: return two(inst, [this](auto&&... x) { a_.sub(x...); }, false);
    case Op::kAnd: two(inst, [this](auto&&... x) { a_.and_(x...); }, true); return note_flags();
    case Op::kOr: two(inst, [this](auto&&... x) { a_.or_(x...); }, true); return note_flags();
    case Op::kXor: two(inst, [this](auto&&... x) { a_.xor_(x...); }, true); return note_flags();
    case Op::kMul: return emit_multiply(inst, false);
    case Op::kMul32: return emit_multiply(inst, true);
    case Op::kAdd32:
    case Op::kSub32: return emit_add32(inst);
    case Op::kShl:
    case Op::kShr:
    case Op::kSar:
    case Op::kRol:
    case Op::kRor:
    case Op::kShl32:
    case Op::kShr32:
    case Op::kSar32:
    case Op::kRol32:
    case Op::kRor32: return emit_shift(inst);
    case Op::kMulh:
    case Op::kMulhu:
    case Op::kMulhsu: return emit_multiply_high(inst);
    case Op::kDiv:
    case Op::kDivu:
    case Op::kRem:
    case Op::kRemu:
    case Op::kDiv32:
    case Op::kDivu32:
    case Op::kRem32:
    case Op::kRemu32: return emit_divide(inst);
    case Op::kSext8:
    case Op::kSext16:
    case Op::kSext32:
    case Op::kZext8:
    case Op::kZext16:
    case Op::kZext32: return emit_extend(inst);
    case Op::kClz:
    case Op::kCtz:
    case Op::kPopcount:
    case Op::kClz32:
    case Op::kCtz32: return emit_count(inst);
    case Op::kByteReverse: {
      const x86::Gp from = use(inst.operands[0], x86::rax);
      const x86::Gp d = destination();
      if (d != from) a_.mov(d, from);
      a_.bswap(d);
      return;
    }
    case Op::kOrCombineBytes: return emit_or_combine(inst);
    case Op::kEq:
    case Op::kNe:
    case Op::kLt:
    case Op::kLtu:
    case Op::kGe:
    case Op::kGeu: return emit_compare(inst);
    case Op::kSelect: return emit_select(inst);
    case Op::kUncount: return emit_uncount(inst);
    case Op::kLoad: return emit_load(inst);
    case Op::kStore: return emit_store(inst);
    case Op::kAtomic: return emit_atomic(inst);
    case Op::kCompareSwap: return emit_compare_swap(inst);
    case Op::kZero: return emit_zero(inst);
    case Op::kFence: a_.mfence(); return;
    case Op::kBehind: return emit_behind(inst);
    case Op::kClock: return emit_clock();
    case Op::kFflags: return emit_flags_get(inst);
    case Op::kFsetFlags: return emit_flags_set(inst);
    case Op::kExitIf: return emit_exit_if(inst);
    case Op::kExit: return emit_exit(inst);
    case Op::kExitTo: return emit_exit_to(inst);
    case Op::kCall: return emit_call(inst);
    case Op::kExitState:
      unpin();
      a_.mov(x86::rax, state(o_.pc));
      return emit_jump(false);
    default: return emit_float(inst);
  }
}

void Compiler::Emission::emit_get(const Inst& inst) {
  if (const auto index = pinned_floating(inst.imm)) {
    if (inst.type == Type::kI64) {
      a_.movq(destination(), pinned_xmm(*index));
    } else {
      where_[now_] = {Kind::kPinnedXmm, static_cast<std::uint16_t>(*index)};
    }
    return;
  }
  if (inst.type != Type::kI64) {
    const x86::Xmm d = destination_xmm();
    if (inst.type == Type::kF64) {
      a_.movsd(d, state(inst.imm));
    } else {
      a_.movss(d, state(inst.imm));
    }
    return;
  }
  if (const auto index = pinned(inst.imm)) {
    where_[now_] = {Kind::kPinned, static_cast<std::uint16_t>(*index)};
    return;
  }
  if (emit_or_in_place(inst)) return;
  if (feeds_next(Op::kExitIf)) {
    fused_ = static_cast<Value>(now_);
    return;
  }
  const auto number = guest_register_at(inst.imm);
  const Value before = number ? in_state_[*number] : ir::kNone;
  const bool only_there = before != ir::kNone && where_[before].kind == Kind::kGuest && live_after(before);
  if (number && use_count_[now_] == 1 && !only_there) {
    // Whoever uses it takes it from there.
    where_[now_] = {Kind::kGuest, static_cast<std::uint16_t>(*number)};
    in_state_[*number] = static_cast<Value>(now_);
    return;
  }
  a_.mov(destination(), state(inst.imm));
  if (!only_there) now_in_state(inst.imm, static_cast<Value>(now_));
}

bool Compiler::Emission::emit_or_in_place(const Inst& inst) {
  const auto next = [this](std::size_t i) {
    while (i < block_->insts.size() && block_->insts[i].op == Op::kConst) ++i;
    return i;
  };
  const std::size_t combine = next(now_ + 1);
  const std::size_t write = next(combine + 1);
  if (write >= block_->insts.size() || use_count_[now_] != 1 || use_count_[combine] != 1) return false;
  const Inst& combination = block_->insts[combine];
  const Inst& set = block_->insts[write];
  if (combination.op != Op::kOr || combination.operands[0] != now_ || !is_imm32(combination.operands[1])) return false;
  if (set.op != Op::kSet || set.imm != inst.imm || set.operands[0] != combine) return false;
  if (o_.memory == MemoryModel::kShadow && set.imm == o_.stack_pointer) return false;
  if (const auto number = guest_register_at(inst.imm)) leave_state(*number, ir::kNone);
  a_.or_(state(inst.imm), static_cast<int>(constant(combination.operands[1])));
  skipped_ = write + 1;
  return true;
}

void Compiler::Emission::emit_set(const Inst& inst) {
  const Value value = inst.operands[0];
  const Type type = block_->insts[value].type;
  if (const auto index = pinned_floating(inst.imm)) {
    const Where where = where_[value];
    if (where.kind == Kind::kPinnedXmm && where.index == *index) return;
    vacate_xmm(*index, value);
    if (type == Type::kI64) {
      a_.movq(pinned_xmm(*index), use(value, x86::rax));
    } else if (type == Type::kF32) {
      a_.movss(pinned_xmm(*index), use_xmm(value, x86::xmm0));
    } else {
      a_.movaps(pinned_xmm(*index), use_xmm(value, x86::xmm0));
    }
    return;
  }
  if (type == Type::kF64) {
    a_.movsd(state(inst.imm), use_xmm(value, x86::xmm0));
    return;
  }
  if (type == Type::kF32) {
    a_.movss(state(inst.imm), use_xmm(value, x86::xmm0));
    return;
  }
  if (const auto index = pinned(inst.imm)) {
    const Where where = where_[value];
    if (where.kind == Kind::kPinned && where.index == *index) return;
    vacate(*index, value);
    move(kPins[*index], value);
    // From now on the register holds the value for both.
    if (where.kind == Kind::kRegister) {
      value_of_[where.index] = ir::kNone;
      where_[value] = {Kind::kPinned, static_cast<std::uint16_t>(*index)};
    }
    return;
  }
  if (const auto number = guest_register_at(inst.imm)) leave_state(*number, value);
  if (is_imm32(value)) {
    a_.mov(state(inst.imm), static_cast<std::int32_t>(constant(value)));
  } else {
    a_.mov(state(inst.imm), use(value, x86::rax));
    now_in_state(inst.imm, value);
  }
  // Where the TLB is found by the segment's base, that follows.
  if (inst.imm == o_.tlb && !flat() && tlb_by_segment()) {
    a_.mov(x86::rax, state(o_.tlb));
    a_.wrgsbase(x86::rax);
  }
}

void Compiler::Emission::emit_add(const Inst& inst) {
  Value a = inst.operands[0];
  Value b = inst.operands[1];
  if (is_constant(a)) std::swap(a, b);
  if (fused_ != ir::kNone) return emit_add_scaled(fused_ == a ? b : a);
  if (in_memory(a) && !in_memory(b) && !is_constant(b)) std::swap(a, b);
  if (const auto memory = in_memory(a); memory && in_memory(b)) {
    const auto other = in_memory(b);
    const x86::Gp d = destination();
    a_.mov(d, *memory);
    a_.add(d, *other);
    return;
  }
  const x86::Gp left = use(a, x86::rax);
  if (is_imm32(b)) {
    const int imm = static_cast<int>(constant(b));
    const x86::Gp d = destination();
    if (d == left) {
      a_.add(d, imm);
    } else {
      a_.lea(d, x86::ptr(left, imm));
    }
    return;
  }
  if (const auto memory = in_memory(b)) {
    const x86::Gp d = destination();
    if (d != left) a_.mov(d, left);
    a_.add(d, *memory);
    return;
  }
  const x86::Gp right = use(b, x86::rcx);
  const x86::Gp d = destination();
  if (d == left) {
    a_.add(d, right);
  } else if (d == right) {
    a_.add(d, left);
  } else {
    a_.lea(d, x86::ptr(left, right));
  }
}

void Compiler::Emission::emit_add_scaled(Value other) {
  const Inst& shift = block_->insts[fused_];
  const Value scaled = shift.operands[0];
  const auto log2 = static_cast<unsigned>(constant(shift.operands[1]) & 63);
  const x86::Gp right = use(scaled, x86::rcx);
  const x86::Gp left = use(other, x86::rax);
  a_.lea(destination(), x86::ptr(left, right, log2));
  if (last_use_[scaled] <= now_ && !is_operand_now(scaled)) released_.push_back(scaled);
  release_fused();
}

void Compiler::Emission::emit_add32(const Inst& inst) {
  const bool subtract = inst.op == Op::kSub32;
  Value a = inst.operands[0];
  Value b = inst.operands[1];
  if (!subtract && (is_constant(a) || (in_memory(a) && !is_constant(b)))) std::swap(a, b);
  const x86::Gp left = use(a, x86::rax);
  if (const auto memory = in_memory(b)) {
    if (left != x86::rax) a_.mov(x86::eax, left.r32());
    x86::Mem low = *memory;
    low.setSize(sizeof(std::uint32_t));
    subtract ? a_.sub(x86::eax, low) : a_.add(x86::eax, low);
    a_.movsxd(destination(), x86::eax);
    return;
  }
  if (is_constant(b)) {
    const std::uint32_t imm = static_cast<std::uint32_t>(constant(b));
    const std::int32_t amount = static_cast<std::int32_t>(subtract ? 0 - imm : imm);
    const x86::Gp d = destination();
    if (amount == 0) {
      a_.movsxd(d, left.r32());
      return;
    }
    a_.lea(x86::eax, x86::ptr(left, amount));
    a_.movsxd(d, x86::eax);
    return;
  }
  const x86::Gp right = use(b, x86::rcx);
  const x86::Gp d = destination();
  if (subtract) {
    if (left != x86::rax) a_.mov(x86::eax, left.r32());
    a_.sub(x86::eax, right.r32());
  } else {
    a_.lea(x86::eax, x86::ptr(left, right));
  }
  a_.movsxd(d, x86::eax);
}

void Compiler::Emission::emit_multiply(const Inst& inst, bool narrow) {
  Value a = inst.operands[0];
  Value b = inst.operands[1];
  if (is_constant(a)) std::swap(a, b);
  const x86::Gp left = use(a, x86::rax);
  if (is_imm32(b)) {
    const int imm = static_cast<int>(constant(b));
    const x86::Gp d = destination();
    if (narrow) {
      a_.imul(x86::eax, left.r32(), imm);
      a_.movsxd(d, x86::eax);
    } else {
      a_.imul(d, left, imm);
    }
    return;
  }
  const x86::Gp right = use(b, x86::rcx);
  const x86::Gp d = destination();
  if (narrow) {
    if (left != x86::rax) a_.mov(x86::eax, left.r32());
    a_.imul(x86::eax, right.r32());
    a_.movsxd(d, x86::eax);
  } else if (d == right) {
    a_.imul(d, left);
  } else {
    if (d != left) a_.mov(d, left);
    a_.imul(d, right);
  }
}

void Compiler::Emission::emit_multiply_high(const Inst& inst) {
  const x86::Gp left = use(inst.operands[0], x86::rax);
  const x86::Gp right = use(inst.operands[1], x86::rcx);
  const x86::Gp d = destination();
  if (left != x86::rax) a_.mov(x86::rax, left);
  if (right != x86::rcx) a_.mov(x86::rcx, right);
  if (inst.op == Op::kMulh) {
    a_.imul(x86::rcx);
    a_.mov(d, x86::rdx);
    return;
  }
  if (inst.op == Op::kMulhu) {
    a_.mul(x86::rcx);
    a_.mov(d, x86::rdx);
    return;
  }
  // Signed times unsigned: the unsigned product, less b where a is negative.
  a_.push(x86::rax);
  a_.mul(x86::rcx);
  a_.pop(x86::rax);
  a_.sar(x86::rax, 63);
  a_.and_(x86::rax, x86::rcx);
  a_.sub(x86::rdx, x86::rax);
  a_.mov(d, x86::rdx);
}

void Compiler::Emission::emit_divide(const Inst& inst) {
  const Op op = inst.op;
  const bool narrow = op == Op::kDiv32 || op == Op::kDivu32 || op == Op::kRem32 || op == Op::kRemu32;
  const bool is_signed = op == Op::kDiv || op == Op::kRem || op == Op::kDiv32 || op == Op::kRem32;
  const bool remainder = op == Op::kRem || op == Op::kRemu || op == Op::kRem32 || op == Op::kRemu32;
  move(x86::rax, inst.operands[0]);
  move(x86::rcx, inst.operands[1]);
  const x86::Gp d = destination();
  const auto sized = [narrow](const x86::Gp& reg) -> x86::Gp { return narrow ? x86::Gp(reg.r32()) : x86::Gp(reg); };
  const x86::Gp rax = sized(x86::rax);
  const x86::Gp rcx = sized(x86::rcx);
  const x86::Gp rdx = sized(x86::rdx);
  const Label special = a_.newLabel();
  const Label done = a_.newLabel();
  // Zero always, and minus one where signed, take the other way: the host would trap.
  if (is_signed) {
    a_.lea(x86::edx, x86::ptr(x86::rcx, 1));
    if (!narrow) a_.lea(x86::rdx, x86::ptr(x86::rcx, 1));
    a_.cmp(rdx, 1);
    a_.jbe(special);
    if (narrow) {
      a_.cdq();
    } else {
      a_.cqo();
    }
    a_.idiv(rcx);
  } else {
    a_.test(rcx, rcx);
    a_.jz(special);
    a_.xor_(x86::edx, x86::edx);
    a_.div(rcx);
  }
  a_.bind(done);
  const x86::Gp result = remainder ? rdx : rax;
  if (narrow) {
    a_.movsxd(d, result);
  } else {
    a_.mov(d, result);
  }
  later([=, this] {
    a_.bind(special);
    // Quotients: by zero all ones, by minus one the negation. Remainders: the dividend, or zero.
    if (remainder) a_.mov(rdx, rax);
    if (is_signed) {
      const Label zero = a_.newLabel();
      a_.test(rcx, rcx);
      a_.jz(zero);
      if (remainder) {
        a_.xor_(x86::edx, x86::edx);
      } else {
        a_.neg(rax);
      }
      a_.jmp(done);
      a_.bind(zero);
    }
    if (!remainder) a_.mov(x86::rax, -1);
    a_.jmp(done);
  });
}

void Compiler::Emission::emit_shift(const Inst& inst) {
  const Op op = inst.op;
  const bool narrow = op == Op::kShl32 || op == Op::kShr32 || op == Op::kSar32 || op == Op::kRol32 || op == Op::kRor32;
  const auto apply = [&](const x86::Gp& reg, auto amount) {
    switch (op) {
      case Op::kShl:
      case Op::kShl32: a_.shl(reg, amount); break;
      case Op::kShr:
      case Op::kShr32: a_.shr(reg, amount); break;
      case Op::kSar:
      case Op::kSar32: a_.sar(reg, amount); break;
      case Op::kRol:
      case Op::kRol32: a_.rol(reg, amount); break;
      default: a_.ror(reg, amount); break;
    }
  };
  const Value b = inst.operands[1];
  const bool scales = op == Op::kShl && is_constant(b) && constant(b) >= 1 && constant(b) <= 3;
  if (scales && !is_constant(inst.operands[0]) && is_added_next()) {
    fused_ = static_cast<Value>(now_);
    keep_for_fused(inst);
    return;
  }
  const x86::Gp left = use(inst.operands[0], x86::rax);
  if (is_constant(b)) {
    const int amount = static_cast<int>(constant(b) & (narrow ? 31 : 63));
    const x86::Gp d = destination();
    if (scales && d != left) {
      a_.lea(d, amount == 1 ? x86::ptr(left, left) : x86::ptr(0, left, static_cast<unsigned>(amount)));
      return;
    }
    if (narrow) {
      if (left != x86::rax) a_.mov(x86::eax, left.r32());
      if (amount != 0) apply(x86::eax, amount);
      a_.movsxd(d, x86::eax);
    } else {
      if (op == Op::kRor && features_.bmi2) {
        a_.rorx(d, left, amount);
        return;
      }
      if (d != left) a_.mov(d, left);
      if (amount != 0) apply(d, amount);
    }
    return;
  }
  const x86::Gp right = use(b, x86::rcx);
  const x86::Gp d = destination();
  if (features_.bmi2 && op != Op::kRol && op != Op::kRor && op != Op::kRol32 && op != Op::kRor32) {
    const x86::Gp to = narrow ? x86::Gp(x86::eax) : x86::Gp(d);
    const x86::Gp from = narrow ? x86::Gp(left.r32()) : x86::Gp(left);
    const x86::Gp by = narrow ? x86::Gp(right.r32()) : x86::Gp(right);
    if (op == Op::kShl || op == Op::kShl32) {
      a_.shlx(to, from, by);
    } else if (op == Op::kShr || op == Op::kShr32) {
      a_.shrx(to, from, by);
    } else {
      a_.sarx(to, from, by);
    }
    if (narrow) a_.movsxd(d, x86::eax);
    return;
  }
  if (right != x86::rcx) a_.mov(x86::rcx, right);
  if (left != x86::rax) a_.mov(x86::rax, left);
  apply(narrow ? x86::Gp(x86::eax) : x86::Gp(x86::rax), x86::cl);
  if (narrow) {
    a_.movsxd(d, x86::eax);
  } else {
    a_.mov(d, x86::rax);
  }
}

void Compiler::Emission::emit_extend(const Inst& inst) {
  if (auto memory = in_memory(inst.operands[0])) {
    const x86::Gp d = destination();
    switch (inst.op) {
      case Op::kSext8: return load_from(*memory, d, ir::Access::kI8);
      case Op::kSext16: return load_from(*memory, d, ir::Access::kI16);
      case Op::kSext32: return load_from(*memory, d, ir::Access::kI32);
      case Op::kZext8: return load_from(*memory, d, ir::Access::kU8);
      case Op::kZext16: return load_from(*memory, d, ir::Access::kU16);
      default: return load_from(*memory, d, ir::Access::kU32);
    }
  }
  const x86::Gp from = use(inst.operands[0], x86::rax);
  const x86::Gp d = destination();
  switch (inst.op) {
    case Op::kSext8: a_.movsx(d, from.r8()); break;
    case Op::kSext16: a_.movsx(d, from.r16()); break;
    case Op::kSext32: a_.movsxd(d, from.r32()); break;
    case Op::kZext8: a_.movzx(d.r32(), from.r8()); break;
    case Op::kZext16: a_.movzx(d.r32(), from.r16()); break;
    default: a_.mov(d.r32(), from.r32()); break;
  }
}

void Compiler::Emission::emit_count(const Inst& inst) {
  const bool narrow = inst.op == Op::kClz32 || inst.op == Op::kCtz32;
  const x86::Gp from = use(inst.operands[0], x86::rax);
  const x86::Gp d = destination();
  const int width = narrow ? 32 : 64;
  const x86::Gp source = narrow ? x86::Gp(from.r32()) : x86::Gp(from);
  const x86::Gp scratch = narrow ? x86::Gp(x86::ecx) : x86::Gp(x86::rcx);
  if (inst.op == Op::kPopcount) {
    if (features_.popcnt) {
      a_.popcnt(d, from);
    } else {
      emit_popcount_by_halving(from, d);
    }
    return;
  }
  const bool leading = inst.op == Op::kClz || inst.op == Op::kClz32;
  if (leading ? features_.lzcnt : features_.bmi1) {
    if (leading) {
      a_.lzcnt(scratch, source);
    } else {
      a_.tzcnt(scratch, source);
    }
    a_.mov(d, x86::rcx);
    return;
  }
  // BSR and BSF leave their destination alone for zero, and say so in ZF.
  a_.mov(x86::edx, leading ? 2 * width - 1 : width);
  if (leading) {
    a_.bsr(scratch, source);
  } else {
    a_.bsf(scratch, source);
  }
  a_.cmovz(x86::ecx, x86::edx);
  if (leading) a_.xor_(x86::ecx, width - 1);
  a_.mov(d.r32(), x86::ecx);
}

void Compiler::Emission::emit_popcount_by_halving(const x86::Gp& from, const x86::Gp& d) {
  // Sums of 2, 4, then 8 bits side by side; a multiplication adds up the bytes.
  if (from != x86::rax) a_.mov(x86::rax, from);
  a_.mov(x86::rcx, x86::rax);
  a_.shr(x86::rcx, 1);
  a_.mov(x86::rdx, 0x5555555555555555);
  a_.and_(x86::rcx, x86::rdx);
  a_.sub(x86::rax, x86::rcx);
  a_.mov(x86::rdx, 0x3333333333333333);
  a_.mov(x86::rcx, x86::rax);
  a_.shr(x86::rcx, 2);
  a_.and_(x86::rax, x86::rdx);
  a_.and_(x86::rcx, x86::rdx);
  a_.add(x86::rax, x86::rcx);
  a_.mov(x86::rcx, x86::rax);
  a_.shr(x86::rcx, 4);
  a_.add(x86::rax, x86::rcx);
  a_.mov(x86::rdx, 0x0f0f0f0f0f0f0f0f);
  a_.and_(x86::rax, x86::rdx);
  a_.mov(x86::rdx, 0x0101010101010101);
  a_.imul(x86::rax, x86::rdx);
  a_.shr(x86::rax, 56);
  a_.mov(d, x86::rax);
}

void Compiler::Emission::emit_or_combine(const Inst& inst) {
  // Adding 0x7f to the low seven bits of a byte carries into its top bit unless they are zero.
  move(x86::rax, inst.operands[0]);
  const x86::Gp d = destination();
  a_.mov(x86::rdx, 0x7f7f7f7f7f7f7f7f);
  a_.mov(x86::rcx, x86::rax);
  a_.and_(x86::rcx, x86::rdx);
  a_.add(x86::rcx, x86::rdx);
  a_.or_(x86::rcx, x86::rax);
  a_.not_(x86::rdx);
  a_.and_(x86::rcx, x86::rdx);  // 0x80 in each byte that has a bit
  a_.mov(x86::rax, x86::rcx);
  a_.shr(x86::rax, 7);
  a_.sub(x86::rcx, x86::rax);   // 0x7f
  a_.shl(x86::rax, 7);
  a_.or_(x86::rax, x86::rcx);   // 0xff
  a_.mov(d, x86::rax);
}

x86::CondCode Compiler::Emission::condition(Op op) {
  switch (op) {
    case Op::kEq: return x86::CondCode::kE;
    case Op::kNe: return x86::CondCode::kNE;
    case Op::kLt: return x86::CondCode::kL;
    case Op::kLtu: return x86::CondCode::kB;
    case Op::kGe: return x86::CondCode::kGE;
    default: return x86::CondCode::kAE;
  }
}

void Compiler::Emission::emit_flags(const Inst& inst) {
  const Value a = inst.operands[0];
  const Value b = inst.operands[1];
  if (const auto memory = in_memory(a); memory && is_imm32(b)) {
    x86::Mem whole = *memory;
    whole.setSize(sizeof(std::uint64_t));
    a_.cmp(whole, static_cast<int>(constant(b)));
    return;
  }
  const x86::Gp left = use(a, x86::rax);
  if (const auto memory = in_memory(b)) {
    a_.cmp(left, *memory);
  } else if (is_imm32(b)) {
    if (constant(b) == 0) {
      if (!has_flags_of(a)) a_.test(left, left);
    } else {
      a_.cmp(left, static_cast<int>(constant(b)));
    }
  } else {
    a_.cmp(left, use(b, x86::rcx));
  }
}

const Inst* Compiler::Emission::next_emitted() const {
  for (std::size_t i = now_ + 1; i < block_->insts.size(); ++i) {
    if (block_->insts[i].op != Op::kConst) return &block_->insts[i];
  }
  return nullptr;
}

bool Compiler::Emission::feeds_next(Op op) const {
  if (use_count_[now_] != 1) return false;
  const Inst* next = next_emitted();
  return next != nullptr && next->op == op && next->operands[0] == now_;
}

bool Compiler::Emission::is_added_next() const {
  if (use_count_[now_] != 1) return false;
  const Inst* next = next_emitted();
  return next != nullptr && next->op == Op::kAdd && (next->operands[0] == now_ || next->operands[1] == now_);
}

bool Compiler::Emission::feeds_choices() const {
  unsigned uses = 0;
  for (std::size_t i = now_ + 1; i < block_->insts.size(); ++i) {
    const Inst& next = block_->insts[i];
    if (next.op == Op::kConst || next.op == Op::kSet) continue;
    if ((next.op != Op::kSelect && next.op != Op::kUncount) || next.operands[0] != now_) break;
    ++uses;
  }
  return uses != 0 && uses == use_count_[now_];
}

// The consumers do the work, and must find the operands alive.
void Compiler::Emission::keep_for_fused(const Inst& inst) {
  for (const Value operand : inst.operands) {
    if (operand != ir::kNone) last_use_[operand] = std::max(last_use_[operand], last_use_[now_]);
  }
}

void Compiler::Emission::emit_compare(const Inst& inst) {
  if (feeds_next(Op::kExitIf) || feeds_choices()) {
    fused_ = static_cast<Value>(now_);
    keep_for_fused(inst);
    return;
  }
  emit_flags(inst);
  const x86::Gp d = destination();
  a_.set(condition(inst.op), x86::al);
  a_.movzx(d.r32(), x86::al);
}

x86::CondCode Compiler::Emission::test_condition(Value value) {
  if (fused_ == value) {
    const Inst& compare = block_->insts[value];
    if (compare.op == Op::kGet) {
      a_.cmp(state(compare.imm), 0);
      return x86::CondCode::kNE;
    }
    if (!has_flags_of(value)) emit_flags(compare);
    for (const Value operand : compare.operands) {
      if (operand != ir::kNone && last_use_[operand] <= now_ && !is_operand_now(operand)) released_.push_back(operand);
    }
    return condition(compare.op);
  }
  if (!has_flags_of(value)) {
    const x86::Gp reg = use(value, x86::rax);
    a_.test(reg, reg);
  }
  return x86::CondCode::kNE;
}

void Compiler::Emission::release_fused() {
  if (fused_ != ir::kNone && last_use_[fused_] > now_) return;
  for (const Value operand : released_) release(operand);
  released_.clear();
  fused_ = ir::kNone;
}

void Compiler::Emission::emit_select(const Inst& inst) {
  const x86::CondCode code = test_condition(inst.operands[0]);
  // Moves keep the flags; so must constants, which therefore avoid XOR.
  const x86::Gp yes = use(inst.operands[1], x86::rcx);
  const x86::Gp no = use(inst.operands[2], x86::rax);
  release_fused();
  if (std::ranges::all_of(value_of_, [this](Value value) { return value != ir::kNone && is_read_now(value); })) {
    // One of the operands has to make room for the result.
    if (no != x86::rax) a_.mov(x86::rax, no);
    a_.cmov(code, x86::rax, yes);
    operands_read_ = true;
    a_.mov(destination(), x86::rax);
  } else if (const x86::Gp d = destination(); d == yes) {
    a_.cmov(x86::negateCond(code), d, no);
  } else {
    if (d != no) a_.mov(d, no);
    a_.cmov(code, d, yes);
  }
  note_flags_of(inst.operands[0]);
}

void Compiler::Emission::emit_uncount(const Inst& inst) {
  const x86::CondCode code = test_condition(inst.operands[0]);
  a_.lea(x86::rax, x86::ptr(kBudget, static_cast<int>(inst.imm)));
  a_.cmov(inst.detail == 0 ? code : x86::negateCond(code), kBudget, x86::rax);
  release_fused();
  note_flags_of(inst.operands[0]);
}

}  // namespace doppel::x64
