// Floating point. Rounding and flags are MXCSR's.
#include "host/x64/emission.h"

namespace doppel::x64 {

void Compiler::Emission::emit_flags_get(const Inst& inst) {
  const unsigned kept = take_slot();
  const x86::Mem mxcsr = state(o_.slots + 8 * kept, 4);
  a_.stmxcsr(mxcsr);
  a_.mov(x86::ecx, mxcsr);
  a_.mov(x86::edx, x86::ecx);
  a_.and_(x86::ecx, 0x3c);  // four times the nibble's number
  a_.mov(x86::rax, kReversed);
  a_.shr(x86::rax, x86::cl);
  a_.and_(x86::eax, 15);
  a_.and_(x86::edx, 1);
  a_.shl(x86::edx, 4);
  a_.or_(x86::eax, x86::edx);
  a_.movzx(x86::ecx, state(inst.imm, 1));
  a_.or_(x86::eax, x86::ecx);
  slot_used_[kept] = false;
  a_.mov(destination(), x86::rax);
}

void Compiler::Emission::emit_flags_set(const Inst& inst) {
  const unsigned kept = take_slot();
  move(x86::rdx, inst.operands[0]);
  write_flags(state(o_.slots + 8 * kept, 4));
  a_.mov(state(inst.imm, 1), 0);
  slot_used_[kept] = false;
}

void Compiler::Emission::write_flags(const x86::Mem& mxcsr) {
  a_.mov(x86::ecx, x86::edx);
  a_.shl(x86::ecx, 2);
  a_.and_(x86::ecx, 0x3c);
  a_.mov(x86::rax, kReversed);
  a_.shr(x86::rax, x86::cl);
  a_.and_(x86::eax, 15);
  a_.shl(x86::eax, 2);
  a_.shr(x86::edx, 4);
  a_.and_(x86::edx, 1);
  a_.or_(x86::eax, x86::edx);
  a_.stmxcsr(mxcsr);
  a_.and_(mxcsr, ~0x3f);
  a_.or_(mxcsr, x86::eax);
  a_.ldmxcsr(mxcsr);
}

void Compiler::Emission::emit_quiet_comparison(const Inst& inst) {
  const x86::Xmm left = use_xmm(inst.operands[0], x86::xmm0);
  const x86::Xmm right = use_xmm(inst.operands[1], x86::xmm1);
  const Value flags = inst.operands[2];
  const Where where = where_[flags];
  const unsigned kept = take_slot();
  slot_used_[kept] = false;
  block_->insts[inst.operands[0]].type == Type::kF64 ? a_.ucomisd(right, left) : a_.ucomiss(right, left);
  inst.op == Op::kFltQuiet ? a_.seta(x86::al) : a_.setae(x86::al);
  // Only a NaN, and of those a signaling one, raises anything: the flags are as they were, but for that.
  const Label unordered = a_.newLabel();
  const Label done = a_.newLabel();
  a_.jp(unordered);
  a_.bind(done);
  later([=, this] {
    a_.bind(unordered);
    move_from(where, flags, x86::rdx);
    write_flags(state(o_.slots + 8 * kept, 4));
    a_.xor_(x86::eax, x86::eax);
    a_.jmp(done);
  });
  a_.movzx(destination().r32(), x86::al);
}

bool Compiler::Emission::joins_fma(const Inst& inst) const {
  if (use_count_[now_] != 1) return false;
  for (std::size_t i = now_ + 1; i < block_->insts.size(); ++i) {
    const Inst& user = block_->insts[i];
    if (std::ranges::find(user.operands, static_cast<Value>(now_)) == user.operands.end()) continue;
    return user.op == Op::kFma && user.operands[1] != now_ && user.type == inst.type;
  }
  return false;
}

void Compiler::Emission::emit_fma(const Inst& inst) {
  const bool wide = inst.type == Type::kF64;
  const x86::Xmm left = use_xmm(inst.operands[0], x86::xmm0);
  const x86::Xmm right = use_xmm(inst.operands[1], x86::xmm1);
  const bool minus_product = is_negated(inst.operands[0]);
  const bool minus_addend = is_negated(inst.operands[2]);
  // Not a pinned register: the check for NaN that follows may find that nothing must have happened.
  const x86::Xmm d = destination_xmm();
  if (d != left) a_.movaps(d, left);
  const x86::Xmm addend = use_xmm(inst.operands[2], x86::xmm0);
  const auto emit = [&](auto doubles, auto singles) { wide ? doubles() : singles(); };
  if (minus_product && minus_addend) {
    emit([&] { a_.vfnmsub213sd(d, right, addend); }, [&] { a_.vfnmsub213ss(d, right, addend); });
  } else if (minus_product) {
    emit([&] { a_.vfnmadd213sd(d, right, addend); }, [&] { a_.vfnmadd213ss(d, right, addend); });
  } else if (minus_addend) {
    emit([&] { a_.vfmsub213sd(d, right, addend); }, [&] { a_.vfmsub213ss(d, right, addend); });
  } else {
    emit([&] { a_.vfmadd213sd(d, right, addend); }, [&] { a_.vfmadd213ss(d, right, addend); });
  }
}

void Compiler::Emission::emit_float(const Inst& inst) {
  const Value a = inst.operands[0];
  const Value b = inst.operands[1];
  const Type source = a != ir::kNone ? block_->insts[a].type : Type::kVoid;
  const bool wide = inst.type == Type::kF64;
  switch (inst.op) {
    case Op::kFadd:
    case Op::kFsub:
    case Op::kFmul:
    case Op::kFdiv: {
      const x86::Xmm left = use_xmm(a, x86::xmm0);
      const x86::Xmm right = use_xmm(b, x86::xmm1);
      if (features_.avx) {
        const x86::Xmm d = destination_xmm();
        switch (inst.op) {
          case Op::kFadd: wide ? a_.vaddsd(d, left, right) : a_.vaddss(d, left, right); break;
          case Op::kFsub: wide ? a_.vsubsd(d, left, right) : a_.vsubss(d, left, right); break;
          case Op::kFmul: wide ? a_.vmulsd(d, left, right) : a_.vmulss(d, left, right); break;
          default: wide ? a_.vdivsd(d, left, right) : a_.vdivss(d, left, right); break;
        }
        return;
      }
      if (left != x86::xmm0) a_.movaps(x86::xmm0, left);
      const x86::Xmm d = x86::xmm0;
      switch (inst.op) {
        case Op::kFadd: wide ? a_.addsd(d, right) : a_.addss(d, right); break;
        case Op::kFsub: wide ? a_.subsd(d, right) : a_.subss(d, right); break;
        case Op::kFmul: wide ? a_.mulsd(d, right) : a_.mulss(d, right); break;
        default: wide ? a_.divsd(d, right) : a_.divss(d, right); break;
      }
      a_.movaps(destination_xmm(), d);
      return;
    }
    case Op::kFsqrt: {
      const x86::Xmm from = use_xmm(a, x86::xmm0);
      const x86::Xmm d = destination_xmm();
      wide ? a_.sqrtsd(d, from) : a_.sqrtss(d, from);
      return;
    }
    case Op::kFma: return emit_fma(inst);
    case Op::kFneg: {
      if (joins_fma(inst) && where_[a].kind == Kind::kPinnedXmm) where_[now_] = where_[a];
      if (joins_fma(inst) && (where_[now_].kind == Kind::kPinnedXmm || take_over_xmm(a))) {
        where_[now_].negated = true;
        return;
      }
      const x86::Xmm from = use_xmm(a, x86::xmm0);
      const x86::Xmm d = destination_xmm();
      a_.movsd(x86::xmm1, sign(wide));
      if (d != from) a_.movaps(d, from);
      a_.xorps(d, x86::xmm1);
      return;
    }
    case Op::kFsign:
    case Op::kFsignXor: {
      if (a == b) {
        const x86::Xmm from = use_xmm(a, x86::xmm0);
        const x86::Xmm d = destination_xmm();
        if (inst.op == Op::kFsign) {
          a_.movaps(d, from);
          return;
        }
        a_.movsd(x86::xmm1, sign(wide));
        a_.andnps(x86::xmm1, from);
        a_.movaps(d, x86::xmm1);
        return;
      }
      a_.movq(x86::rax, use_xmm(a, x86::xmm0));
      a_.mov(x86::rcx, sign(wide));
      a_.movq(x86::rdx, use_xmm(b, x86::xmm1));
      a_.and_(x86::rdx, x86::rcx);
      if (inst.op == Op::kFsign) {
        a_.not_(x86::rcx);
        a_.and_(x86::rax, x86::rcx);
        a_.or_(x86::rax, x86::rdx);
      } else {
        a_.xor_(x86::rax, x86::rdx);
      }
      a_.movq(destination_xmm(), x86::rax);
      return;
    }
    case Op::kFltQuiet:
    case Op::kFleQuiet: return emit_quiet_comparison(inst);
    case Op::kFeq:
    case Op::kFlt:
    case Op::kFle: {
      const x86::Xmm left = use_xmm(a, x86::xmm0);
      const x86::Xmm right = use_xmm(b, x86::xmm1);
      if (inst.op == Op::kFeq) {
        source == Type::kF64 ? a_.ucomisd(left, right) : a_.ucomiss(left, right);
        a_.setnp(x86::cl);
        a_.sete(x86::al);
        a_.and_(x86::al, x86::cl);
      } else {
        // Reversed, so that "unordered" (carry set) reads as false.
        source == Type::kF64 ? a_.comisd(right, left) : a_.comiss(right, left);
        inst.op == Op::kFlt ? a_.seta(x86::al) : a_.setae(x86::al);
      }
      a_.movzx(destination().r32(), x86::al);
      return;
    }
    case Op::kFconvert: {
      const x86::Xmm from = use_xmm(a, x86::xmm0);
      const x86::Xmm d = destination_xmm();
      if (wide) {
        source == Type::kF32 ? a_.cvtss2sd(d, from) : a_.movaps(d, from);
      } else {
        source == Type::kF64 ? a_.cvtsd2ss(d, from) : a_.movaps(d, from);
      }
      return;
    }
    case Op::kFfromI64:
    case Op::kFfromI32: {
      const x86::Gp from = use(a, x86::rax);
      const x86::Xmm d = destination_xmm();
      const x86::Gp sized = inst.op == Op::kFfromI32 ? x86::Gp(from.r32()) : x86::Gp(from);
      a_.xorps(d, d);
      wide ? a_.cvtsi2sd(d, sized) : a_.cvtsi2ss(d, sized);
      return;
    }
    case Op::kFtoI64:
    case Op::kFtoI32:
    case Op::kFtruncI64:
    case Op::kFtruncI32: {
      const x86::Xmm from = use_xmm(a, x86::xmm0);
      const x86::Gp d = destination();
      const bool narrow = inst.op == Op::kFtoI32 || inst.op == Op::kFtruncI32;
      const bool truncate = inst.op == Op::kFtruncI64 || inst.op == Op::kFtruncI32;
      const x86::Gp to = narrow ? x86::Gp(x86::eax) : x86::Gp(d);
      if (source == Type::kF64) {
        truncate ? a_.cvttsd2si(to, from) : a_.cvtsd2si(to, from);
      } else {
        truncate ? a_.cvttss2si(to, from) : a_.cvtss2si(to, from);
      }
      if (narrow) a_.movsxd(d, x86::eax);
      return;
    }
    case Op::kFbits: {
      const x86::Xmm from = use_xmm(a, x86::xmm0);
      const x86::Gp d = destination();
      source == Type::kF64 ? a_.movq(d, from) : a_.movd(d.r32(), from);
      return;
    }
    case Op::kFfromBits: {
      const x86::Gp from = use(a, x86::rax);
      const x86::Xmm d = destination_xmm();
      wide ? a_.movq(d, from) : a_.movd(d, from.r32());
      return;
    }
    case Op::kFbox: {
      const x86::Xmm from = use_xmm(a, x86::xmm0);
      const x86::Xmm d = destination_xmm();
      a_.pcmpeqd(x86::xmm1, x86::xmm1);
      if (features_.avx) {
        a_.vunpcklps(d, from, x86::xmm1);
        return;
      }
      if (d != from) a_.movaps(d, from);
      a_.unpcklps(d, x86::xmm1);
      return;
    }
    case Op::kFunbox: {
      const x86::Xmm from = use_xmm(a, x86::xmm0);
      const x86::Xmm d = take_over_xmm(a) ? from : destination_xmm();
      a_.movq(x86::rax, from);
      a_.shr(x86::rax, 32);
      if (d != from) a_.movaps(d, from);
      a_.add(x86::eax, 1);
      const Label bare = a_.newLabel();
      const Label done = a_.newLabel();
      a_.jnz(bare);
      a_.bind(done);
      later([=, this] {
        a_.bind(bare);
        a_.mov(x86::eax, 0x7fc00000);
        a_.movd(d, x86::eax);
        a_.jmp(done);
      });
      return;
    }
    case Op::kFlow:
      if (where_[a].kind == Kind::kPinnedXmm) {
        where_[now_] = where_[a];
      } else if (!take_over_xmm(a)) {
        const x86::Xmm from = use_xmm(a, x86::xmm0);
        a_.movaps(destination_xmm(), from);
      }
      return;
    case Op::kFcanonical: {
      const x86::Xmm from = use_xmm(a, x86::xmm0);
      x86::Xmm d = from;
      // A value of the state has to stay as it is.
      const bool computed = block_->insts[a].op != Op::kGet && !live_after(a);
      if (computed && where_[a].kind == Kind::kPinnedXmm) {
        where_[now_] = std::exchange(where_[a], {});
      } else if (!computed || !take_over_xmm(a)) {
        d = destination_xmm();
        a_.movaps(d, from);
      }
      wide ? a_.ucomisd(d, d) : a_.ucomiss(d, d);
      const Label nan = a_.newLabel();
      const Label done = a_.newLabel();
      a_.jp(nan);
      a_.bind(done);
      later([=, this] {
        a_.bind(nan);
        a_.mov(x86::rax, wide ? 0x7ff8000000000000 : 0x7fc00000);
        a_.movq(d, x86::rax);
        a_.jmp(done);
      });
      return;
    }
    case Op::kFordered: {
      const x86::Xmm from = use_xmm(a, x86::xmm0);
      wide ? a_.ucomisd(from, from) : a_.ucomiss(from, from);
      a_.jp(leave_by_step(inst));
      if (!take_over_xmm(a)) a_.movaps(destination_xmm(), from);
      return;
    }
    default: assert(false && "an operation without a translation");
  }
}

}  // namespace doppel::x64
