#include "isa/riscv/lift.h"

#include <cstring>

#include "isa/common/softfloat/softfloat.h"
#include "isa/riscv/csr.h"
#include "isa/riscv/ext/all.h"
#include "isa/riscv/hart_state.h"

namespace doppel::riscv {

namespace state_offset {
std::uint32_t x(unsigned index) { return static_cast<std::uint32_t>(offsetof(HartState, x) + 8 * index); }
std::uint32_t f(unsigned index) { return static_cast<std::uint32_t>(offsetof(HartState, f) + 8 * index); }
}  // namespace state_offset

namespace {

using ir::Access;
using ir::Op;
using ir::Type;

// A word of the guest as the rows see it: an IR value, or a constant not yet in the block. Constants meet
// values in operators, which put them there.
class Word {
 public:
  Word(u64 constant) : constant_(constant) {}  // NOLINT: rows mix words and constants
  Word(ir::Builder& builder, ir::Value value) : builder_(&builder), value_(value) {}

  bool is_constant() const { return builder_ == nullptr; }
  u64 constant() const { return constant_; }
  ir::Value in(ir::Builder& builder) const { return is_constant() ? builder.constant(constant_) : value_; }
  ir::Builder* builder() const { return builder_; }

#define DOPPEL_BINARY(name, op)                                     \
  friend Word name(const Word& a, const Word& b) { return combine(Op::op, a, b); }
  DOPPEL_BINARY(operator+, kAdd)
  DOPPEL_BINARY(operator-, kSub)
  DOPPEL_BINARY(operator*, kMul)
  DOPPEL_BINARY(operator&, kAnd)
  DOPPEL_BINARY(operator|, kOr)
  DOPPEL_BINARY(operator^, kXor)
  DOPPEL_BINARY(shl, kShl)
  DOPPEL_BINARY(shr, kShr)
  DOPPEL_BINARY(sar, kSar)
  DOPPEL_BINARY(rol, kRol)
  DOPPEL_BINARY(ror, kRor)
  DOPPEL_BINARY(shl32, kShl32)
  DOPPEL_BINARY(shr32, kShr32)
  DOPPEL_BINARY(sar32, kSar32)
  DOPPEL_BINARY(rol32, kRol32)
  DOPPEL_BINARY(ror32, kRor32)
  DOPPEL_BINARY(mulh, kMulh)
  DOPPEL_BINARY(mulhu, kMulhu)
  DOPPEL_BINARY(mulhsu, kMulhsu)
  DOPPEL_BINARY(div, kDiv)
  DOPPEL_BINARY(divu, kDivu)
  DOPPEL_BINARY(rem, kRem)
  DOPPEL_BINARY(remu, kRemu)
  DOPPEL_BINARY(div32, kDiv32)
  DOPPEL_BINARY(divu32, kDivu32)
  DOPPEL_BINARY(rem32, kRem32)
  DOPPEL_BINARY(remu32, kRemu32)
  DOPPEL_BINARY(eq, kEq)
  DOPPEL_BINARY(ne, kNe)
  DOPPEL_BINARY(lt, kLt)
  DOPPEL_BINARY(ltu, kLtu)
  DOPPEL_BINARY(ge, kGe)
  DOPPEL_BINARY(geu, kGeu)
#undef DOPPEL_BINARY
#define DOPPEL_UNARY(name, op) \
  friend Word name(const Word& a) { return apply(Op::op, a); }
  DOPPEL_UNARY(sext8, kSext8)
  DOPPEL_UNARY(sext16, kSext16)
  DOPPEL_UNARY(sext32, kSext32)
  DOPPEL_UNARY(zext8, kZext8)
  DOPPEL_UNARY(zext16, kZext16)
  DOPPEL_UNARY(zext32, kZext32)
  DOPPEL_UNARY(clz, kClz)
  DOPPEL_UNARY(ctz, kCtz)
  DOPPEL_UNARY(popcount, kPopcount)
  DOPPEL_UNARY(clz32, kClz32)
  DOPPEL_UNARY(ctz32, kCtz32)
  DOPPEL_UNARY(byte_reverse, kByteReverse)
  DOPPEL_UNARY(or_combine_bytes, kOrCombineBytes)
#undef DOPPEL_UNARY
  friend Word operator~(const Word& a) { return a ^ Word(~u64{0}); }
  friend Word select(const Word& c, const Word& a, const Word& b) {
    ir::Builder& builder = *c.builder_;
    return {builder, builder.emit(Op::kSelect, Type::kI64, c.value_, a.in(builder), b.in(builder))};
  }
  friend Word min(const Word& a, const Word& b) { return select(lt(a, b), a, b); }
  friend Word max(const Word& a, const Word& b) { return select(lt(a, b), b, a); }
  friend Word minu(const Word& a, const Word& b) { return select(ltu(a, b), a, b); }
  friend Word maxu(const Word& a, const Word& b) { return select(ltu(a, b), b, a); }

 private:
  // At least one of a and b is a value: the rows never combine two constants into a word.
  static Word combine(Op op, const Word& a, const Word& b) {
    ir::Builder& builder = a.builder_ != nullptr ? *a.builder_ : *b.builder_;
    const ir::Value left = a.in(builder);
    const ir::Value right = b.in(builder);
    return {builder, builder.emit(op, Type::kI64, left, right)};
  }
  static Word apply(Op op, const Word& a) { return {*a.builder_, a.builder_->emit(op, Type::kI64, a.value_)}; }

  ir::Builder* builder_ = nullptr;
  ir::Value value_ = ir::kNone;
  u64 constant_ = 0;
};

// A floating-point value of some format. Half precision has no IR type: those rows are stepped.
struct Float {
  ir::Value value = ir::kNone;
};

template <class Format>
constexpr Type type_of(Format) {
  return sizeof(typename Format::Bits) == 8 ? Type::kF64 : Type::kF32;
}

template <class T>
constexpr Access access_of() {
  constexpr bool kSigned = std::is_signed_v<T>;
  switch (sizeof(T)) {
    case 1: return kSigned ? Access::kI8 : Access::kU8;
    case 2: return kSigned ? Access::kI16 : Access::kU16;
    case 4: return kSigned ? Access::kI32 : Access::kU32;
    default: return Access::kI64;
  }
}

// The abstract machine over IR. What it cannot express ends the block with a step: the engine runs that
// instruction in the reference interpreter and comes back for the next.
class LiftMachine {
 public:
  LiftMachine(ir::Builder& builder, unsigned page_offset, const LiftOptions& options, std::optional<u64> base)
      : b_(builder), page_offset_(page_offset), options_(options), base_(base) {}

  void begin(unsigned offset, unsigned length, unsigned rm) {
    offset_ = offset;
    next_offset_ = offset + length;
    rm_ = rm;
    done_ = false;
  }
  bool ended() const { return ended_; }

  // Leaves the instruction to the interpreter; the block goes on after it. What the row still asks for is
  // not emitted.
  void step() {
    if (done_) return;
    const Access length = next_offset_ - offset_ == 2 ? Access::kU16 : Access::kU32;
    b_.emit(Op::kCall, Type::kVoid, ir::kNone, ir::kNone, ir::kNone, 0, static_cast<std::uint8_t>(length));
    done_ = true;
    // The interpreter may have opened or closed the gate.
    floating_open_ = false;
    privilege_known_ = false;
    zeroing_known_ = false;
  }
  // The same for an instruction that goes elsewhere.
  void step_and_leave() {
    step();
    b_.emit(Op::kExitState, Type::kVoid);
    ended_ = true;
  }
  // What floating-point instructions need before they run: see CodeFrame::floating_closed.
  void open_floating() {
    if (floating_open_) return;
    floating_open_ = true;
    step_if(state(kFloatingClosed).in(b_));
    if (options_.open) return;  // nobody can see that its registers have changed
    const ir::Value status = b_.get(Type::kI64, offsetof(HartState, mstatus));
    b_.set(offsetof(HartState, mstatus), b_.emit(Op::kOr, Type::kI64, status, b_.constant(mstatus::kFsDirty)));
  }

  Word x(unsigned r) {
    if (r == 0 || r == kXDiscard) return Word(b_, b_.constant(0));
    return {b_, b_.get(Type::kI64, state_offset::x(r))};
  }
  void set_x(unsigned r, const Word& value) {
    if (r != kXDiscard && !done_) b_.set(state_offset::x(r), value.in(b_));
  }
  Word constant(const Word& value) const { return value; }
  Word pc() { return address_of(offset_); }
  Word next_pc() { return address_of(next_offset_); }

  void jump_relative(u64 offset, unsigned link = kXDiscard) {
    const auto kind = links(link) ? ir::ExitKind::kCall : ir::ExitKind::kGo;
    b_.emit(Op::kExit, Type::kVoid, ir::kNone, ir::kNone, ir::kNone, static_cast<i64>(offset_ + offset),
            static_cast<std::uint8_t>(kind));
    ended_ = true;
  }
  void branch(const Word& taken, u64 offset) {
    b_.emit(Op::kExitIf, Type::kVoid, taken.in(b_), ir::kNone, ir::kNone, static_cast<i64>(offset_ + offset));
    ++branches_;
  }
  void jump(const Word& target, const Operands& i) {
    const auto hint = links(i.rd)    ? ir::JumpHint::kCall
                      : links(i.rs1) ? ir::JumpHint::kReturn
                                     : ir::JumpHint::kOther;
    b_.emit(Op::kExitTo, Type::kVoid, target.in(b_), ir::kNone, ir::kNone, 0, static_cast<std::uint8_t>(hint));
    ended_ = true;
  }
  unsigned branches() const { return branches_; }

  template <class T>
  void load_x(unsigned rd, const Word& address, As<T>) {
    set_x(rd, {b_, b_.load(access_of<T>(), address.in(b_))});
  }
  template <class T>
  void store(const Word& address, const Word& value, As<T>) {
    const ir::Value at = address.in(b_);
    b_.store(access_of<T>(), at, value.in(b_));
  }
  template <class Format>
  void load_f(unsigned fd, const Word& address, Format format) {
    if constexpr (sizeof(typename Format::Bits) == 8) {
      set_f(fd, Float{b_.load(Access::kF64, address.in(b_))}, format);
    } else if constexpr (sizeof(typename Format::Bits) == 4) {
      set_f(fd, Float{b_.load(Access::kF32, address.in(b_))}, format);
    } else {
      step();
    }
  }
  template <class Format>
  void store_f(const Word& address, unsigned fs, Format) {
    using Bits = typename Format::Bits;
    const ir::Value at = address.in(b_);
    if constexpr (sizeof(Bits) == 8) {
      b_.store(Access::kF64, at, b_.get(Type::kF64, state_offset::f(fs)));
    } else if constexpr (sizeof(Bits) == 4) {
      b_.store(Access::kF32, at, b_.emit(Op::kFlow, Type::kF32, b_.get(Type::kF64, state_offset::f(fs))));
    } else {
      b_.store(access_of<Bits>(), at, b_.get(Type::kI64, state_offset::f(fs)));
    }
  }

  template <class T>
  void amo(unsigned rd, const Word& address, const Word& operand, Amo op, As<T>) {
    static constexpr std::array<ir::AtomicOp, 9> kOps{
        ir::AtomicOp::kSwap, ir::AtomicOp::kAdd, ir::AtomicOp::kXor,  ir::AtomicOp::kAnd, ir::AtomicOp::kOr,
        ir::AtomicOp::kMin,  ir::AtomicOp::kMax, ir::AtomicOp::kMinu, ir::AtomicOp::kMaxu};
    set_x(rd, atomic<T>(kOps[static_cast<unsigned>(op)], address, operand));
  }
  template <class T>
  void load_reserved(unsigned rd, const Word& address, As<T>) {
    const Word value = atomic<T>(ir::AtomicOp::kLoad, address, Word(u64{0}));
    b_.set(offsetof(HartState, reservation), (address | Word(HartState::reservation_width<T>())).in(b_));
    b_.set(offsetof(HartState, reserved_value), value.in(b_));
    set_x(rd, value);
  }
  // Without the reservation the rest of the block, which stores, is left out.
  template <class T>
  void store_conditional(unsigned rd, const Word& address, const Word& value, As<T>) {
    const Word reservation = state(offsetof(HartState, reservation));
    const Word aligned = eq(address & Word(u64{sizeof(T) - 1}), Word(u64{0}));
    const Word lost = ne(reservation, address | Word(HartState::reservation_width<T>())) & aligned;
    if (rd != kXDiscard) b_.set(state_offset::x(rd), select(lost, Word(u64{1}), x(rd)).in(b_));
    b_.set(offsetof(HartState, reservation), select(lost, Word(HartState::kNoReservation), reservation).in(b_));
    b_.emit(Op::kExitIf, Type::kVoid, lost.in(b_), ir::kNone, ir::kNone, next_offset_);
    const ir::Value expected = b_.get(Type::kI64, offsetof(HartState, reserved_value));
    const ir::Value stored = b_.emit(Op::kCompareSwap, Type::kI64, address.in(b_), expected, value.in(b_), 0,
                                     static_cast<std::uint8_t>(access_of<T>()));
    b_.set(offsetof(HartState, reservation), b_.constant(HartState::kNoReservation));
    set_x(rd, Word(b_, stored) ^ Word(u64{1}));
  }

  void fence(i32 fields) {
    const bool store_load = (fields >> 4 & 0b0101) != 0 && (fields & 0b1010) != 0 && fields >> 8 != 8;
    if (store_load) b_.emit(Op::kFence, Type::kVoid);
    if (fields == 0x010) step();  // PAUSE: the host's scheduler is told
  }

  // Only zeroing has work to do.
  void cache_block(semantics::CacheBlock op, const Word& address) {
    if (op != semantics::CacheBlock::kZero) return step();
    if (!zeroing_known_) {
      // In U-mode senvcfg decides as well; what M-mode may do regardless of menvcfg is stepped.
      const Word above_user = Word(u64{0}) - ne(state(offsetof(HartState, privilege)), Word(u64{0}));
      const Word enabled = state(offsetof(HartState, menvcfg)) & (state(offsetof(HartState, senvcfg)) | above_user);
      step_if(eq(enabled & Word(envcfg::kCbze), Word(u64{0})).in(b_));
      zeroing_known_ = true;
    }
    constexpr u64 kBytes = IsaConfig::kCacheBlockBytes;
    b_.emit(Op::kZero, Type::kVoid, (address & Word(0 - kBytes)).in(b_), ir::kNone, ir::kNone, kBytes);
  }

  // --- Left to the interpreter.
  template <class... Anything> void sfence_vma(Anything&&...) { step(); }
  void sfence_inval() { step(); }
  void fence_i() { step_and_leave(); }
  // To the operating system that stands in for a program's, it is a call and no trap: no translated code waits meanwhile.
  void ecall() {
    if (!base_) return step_and_leave();
    b_.emit(Op::kExit, Type::kVoid, ir::kNone, ir::kNone, ir::kNone, offset_,
            static_cast<std::uint8_t>(ir::ExitKind::kStep));
    ended_ = true;
  }
  void ebreak() { step_and_leave(); }
  void mret() { step_and_leave(); }
  void sret() { step_and_leave(); }
  void wfi() { step(); }

  // --- Control and status registers. The few that trap handlers live on are plain fields of the state; the
  // rest, and every access with side effects, is stepped.

  void csr(unsigned rd, unsigned number, CsrOp op, const Word& operand, bool writes) {
    struct Plain {
      unsigned number;
      std::size_t offset;
      u64 legal;  // the bits that a write may set
    };
    static constexpr std::array<Plain, 5> kPlain{{
        {csr::kSscratch, offsetof(HartState, sscratch), ~u64{0}},
        {csr::kSepc, offsetof(HartState, sepc), ~u64{1}},
        {csr::kScause, offsetof(HartState, scause), ~u64{0}},
        {csr::kStval, offsetof(HartState, stval), ~u64{0}},
        {csr::kStvec, offsetof(HartState, stvec), ~u64{2}},
    }};
    for (const Plain& plain : kPlain) {
      if (plain.number != number) continue;
      need_supervisor();
      const auto offset = static_cast<std::uint32_t>(plain.offset);
      const Word old{b_, b_.get(Type::kI64, offset)};
      if (writes) {
        const Word next = updated(old, op, operand);
        b_.set(offset, (next.is_constant() ? Word(next.constant() & plain.legal) : next & Word(plain.legal)).in(b_));
      }
      set_x(rd, old);
      return;
    }
    if (number == csr::kFflags && (!writes || op == CsrOp::kWrite)) {
      if (writes) {
        open_floating();
      } else if (!floating_open_) {
        step_if(state(kFloatingClosed).in(b_));
      }
      // The old flags first, unless nobody asks for them: reading them waits for all computation.
      const auto flags = [this] { return b_.emit(Op::kFflags, Type::kI64, ir::kNone, ir::kNone, ir::kNone, kFlagsOffset); };
      const ir::Value old = rd == kXDiscard ? ir::kNone : flags();
      if (writes) b_.emit(Op::kFsetFlags, Type::kVoid, operand.in(b_), ir::kNone, ir::kNone, kFlagsOffset);
      if (rd != kXDiscard) set_x(rd, {b_, old});
      return;
    }
    if ((number == csr::kFrm || number == csr::kFcsr) && !writes) {
      const bool program_asks_for_mode = options_.open && number == csr::kFrm;
      if (!floating_open_ && !program_asks_for_mode) step_if(state(kFloatingClosed).in(b_));
      // Both are bytes of one aligned word.
      static_assert(offsetof(HartState, fflags) % 8 == 0 && offsetof(HartState, frm) == offsetof(HartState, fflags) + 1);
      const Word mode = shr(state(offsetof(HartState, fflags)), Word(u64{8})) & Word(u64{7});
      if (number == csr::kFrm) return set_x(rd, mode);
      const Word flags{b_, b_.emit(Op::kFflags, Type::kI64, ir::kNone, ir::kNone, ir::kNone, kFlagsOffset)};
      return set_x(rd, shl(mode, Word(u64{5})) | flags);
    }
    if (number == csr::kTime && !writes) {
      // Counters of an enabled kind only; M-mode, which may read them regardless, is stepped where they are not.
      constexpr u64 kEnabled = 2;
      if (!options_.open) {
        const Word above_user = Word(u64{0}) - ne(state(offsetof(HartState, privilege)), Word(u64{0}));
        const Word enabled = state(offsetof(HartState, mcounteren)) & (state(offsetof(HartState, scounteren)) | above_user);
        step_if(eq(enabled & Word(kEnabled), Word(u64{0})).in(b_));
      }
      set_x(rd, Word{b_, b_.emit(Op::kClock, Type::kI64)});
      return;
    }
    if (number != csr::kSstatus) return step();
    need_supervisor();
    const Word old = state(offsetof(HartState, mstatus));
    if (writes) write_status(old, op, operand);
    if (rd == kXDiscard) return;
    constexpr u64 kVisible = mstatus::kSie | mstatus::kSpie | mstatus::kSpp | mstatus::kFs | mstatus::kSum |
                             mstatus::kMxr | u64{3} << 32;
    const Word dirty = shl(eq(old & Word(mstatus::kFs), Word(mstatus::kFs)), Word(u64{63}));
    set_x(rd, (old & Word(kVisible)) | dirty);
  }

  void write_status(const Word& old, CsrOp op, const Word& operand) {
    constexpr u64 kFields = mstatus::kSie | mstatus::kSpie | mstatus::kSpp | mstatus::kFs | mstatus::kSum | mstatus::kMxr;
    const u64 reached = operand.is_constant() && op != CsrOp::kWrite ? operand.constant() & kFields : kFields;
    const Word masked = operand.is_constant() ? Word(operand.constant() & kFields) : operand & Word(kFields);
    const Word next = op == CsrOp::kWrite ? (old & Word(~kFields)) | masked : updated(old, op, masked);
    // See Mmu::update(). Linux opens and closes users' memory (SUM) for each of its accesses.
    const bool may_open = (reached & mstatus::kSum) != 0;
    if ((reached & mstatus::kMxr) != 0) step_if(((old ^ next) & Word(mstatus::kMxr)).in(b_));
    const Word tlb = may_open ? select(next & Word(mstatus::kSum), state(kOpenTlb), state(kClosedTlb)) : Word(u64{0});
    if (may_open) step_if(eq(tlb, Word(u64{0})).in(b_));
    if ((reached & mstatus::kSie) != 0 && op != CsrOp::kClear) {
      // With an interrupt waiting, allowing interrupts means taking it.
      const Word waiting = state(offsetof(HartState, interrupt_waiting));
      const bool surely = op == CsrOp::kSet && operand.is_constant();
      step_if((surely ? waiting : select(next & Word(mstatus::kSie), waiting, Word(u64{0}))).in(b_));
    }
    b_.set(offsetof(HartState, mstatus), next.in(b_));
    if (may_open) b_.set(static_cast<std::uint32_t>(kTlb), tlb.in(b_));
    if ((reached & mstatus::kFs) == 0) return;
    b_.set(static_cast<std::uint32_t>(kFloatingClosed), b_.constant(1));
    floating_open_ = false;
  }

  // --- Floating point.

  template <class Format>
  Float f(unsigned r, Format format) {
    if constexpr (sizeof(typename Format::Bits) == 8) {
      return {b_.get(Type::kF64, state_offset::f(r))};
    } else if constexpr (sizeof(typename Format::Bits) == 4) {
      return {b_.emit(Op::kFunbox, type_of(format), b_.get(Type::kF64, state_offset::f(r)))};
    } else {
      step();
      return {};
    }
  }
  template <class Format>
  void set_f(unsigned r, Float value, Format) {
    if (done_) return;
    if constexpr (sizeof(typename Format::Bits) == 8) {
      b_.set(state_offset::f(r), value.value);
    } else {
      b_.set(state_offset::f(r), emit(Op::kFbox, Type::kF64, value));
    }
  }
  template <class Format>
  Word f_raw(unsigned r, Format) {
    const Word bits{b_, b_.get(Type::kI64, state_offset::f(r))};
    if constexpr (sizeof(typename Format::Bits) == 4) return sext32(bits);
    if constexpr (sizeof(typename Format::Bits) == 2) return sext16(bits);
    return bits;
  }
  template <class Format>
  Float f_from_raw(const Word& value, Format format) {
    if constexpr (sizeof(typename Format::Bits) == 2) {
      step();
      return {};
    } else {
      return {b_.emit(Op::kFfromBits, type_of(format), value.in(b_))};
    }
  }
  template <class Format> Float fneg(Format format, Float a) { return pure(Op::kFneg, format, a); }
  template <class Format> Float fsign(Format format, Float a, Float b) { return pure(Op::kFsign, format, a, b); }
  template <class Format> Float fsign_xor(Format format, Float a, Float b) {
    return pure(Op::kFsignXor, format, a, b);
  }
  template <class Format> Float fadd(Format format, Float a, Float b) { return rounded(Op::kFadd, format, a, b); }
  template <class Format> Float fsub(Format format, Float a, Float b) { return rounded(Op::kFsub, format, a, b); }
  template <class Format> Float fmul(Format format, Float a, Float b) { return rounded(Op::kFmul, format, a, b); }
  template <class Format> Float fdiv(Format format, Float a, Float b) { return rounded(Op::kFdiv, format, a, b); }
  template <class Format> Float fsqrt(Format format, Float a) { return rounded(Op::kFsqrt, format, a); }
  template <class Format> Float fma(Format format, Float a, Float b, Float c) {
    if (!options_.fused_multiply_add) return step(), a;
    if (!dynamic_rounding()) return step(), a;
    // The host does not find infinity times zero invalid when a quiet NaN is added: the interpreter does.
    return {emit(Op::kFordered, type_of(format), {emit(Op::kFma, type_of(format), a, b, c)})};
  }
  template <class Format> Float fmin(Format, Float a, Float) { return step(), a; }
  template <class Format> Float fmax(Format, Float a, Float) { return step(), a; }
  template <class Format> Word feq(Format, Float a, Float b) { return compare(Op::kFeq, a, b); }
  template <class Format> Word flt(Format, Float a, Float b) { return compare(Op::kFlt, a, b); }
  template <class Format> Word fle(Format, Float a, Float b) { return compare(Op::kFle, a, b); }
  template <class Format> Word fclass(Format, Float) { return step(), Word(u64{0}); }
  template <class To, class From>
  Float fconvert(To to, From, Float a) {
    if constexpr (sizeof(typename To::Bits) == 2 || sizeof(typename From::Bits) == 2) {
      return step(), a;
    } else {
      if (sizeof(typename To::Bits) < sizeof(typename From::Bits) && !dynamic_rounding()) return step(), a;
      return canonical(to, {emit(Op::kFconvert, type_of(to), a)});
    }
  }
  template <class Format, class T>
  Word fto_integer(Format, Float a, As<T>) {
    constexpr bool kLong = sizeof(T) == 8;
    const bool truncates = rm_ == 1;
    if (std::is_unsigned_v<T> || (!truncates && !dynamic_rounding())) return step(), Word(u64{0});
    const Op op = kLong ? (truncates ? Op::kFtruncI64 : Op::kFtoI64) : (truncates ? Op::kFtruncI32 : Op::kFtoI32);
    if (done_) return Word(u64{0});
    const Word result{b_, b_.emit(op, Type::kI64, a.value)};
    // What does not fit saturates by RISC-V's own rule, which the interpreter knows.
    const u64 indefinite = kLong ? u64{1} << 63 : ~u64{0} << 31;
    step_if(eq(result, Word(indefinite)).in(b_));
    return result;
  }
  template <class Format, class T>
  Float ffrom_integer(Format format, const Word& value, As<T>) {
    if (std::is_unsigned_v<T>&& sizeof(T) == 8) return step(), Float{};
    const bool exact = sizeof(T) == 4 && sizeof(typename Format::Bits) == 8;
    if (!exact && !dynamic_rounding()) return step(), Float{};
    if constexpr (std::is_unsigned_v<T>) {
      return {b_.emit(Op::kFfromI64, type_of(format), zext32(value).in(b_))};
    } else {
      return {b_.emit(sizeof(T) == 8 ? Op::kFfromI64 : Op::kFfromI32, type_of(format), value.in(b_))};
    }
  }

 private:
  // By convention (unprivileged manual, "Unconditional Jumps"): ra and t0 hold return addresses.
  static bool links(unsigned r) { return r == 1 || r == 5; }

  static constexpr i64 kFlagsOffset = offsetof(HartState, fflags);

  template <class T>
  Word atomic(ir::AtomicOp op, const Word& address, const Word& operand) {
    const ir::Value at = address.in(b_);
    return {b_, b_.emit(Op::kAtomic, Type::kI64, at, operand.in(b_), ir::kNone, static_cast<i64>(op),
                        static_cast<std::uint8_t>(access_of<T>()))};
  }
  Word address_of(unsigned offset) {
    if (base_) return {b_, b_.constant(*base_ + page_offset_ + offset)};
    const ir::Value page = b_.get(Type::kI64, offsetof(HartState, frame) + offsetof(isa::CodeFrame, page));
    return Word{b_, page} + Word(u64{page_offset_} + offset);
  }
  static constexpr std::size_t kFloatingClosed =
      offsetof(HartState, frame) + offsetof(isa::CodeFrame, floating_closed);
  static constexpr std::size_t kTlb = offsetof(HartState, frame) + offsetof(isa::CodeFrame, tlb);
  static constexpr std::size_t kClosedTlb = offsetof(HartState, frame) + offsetof(isa::CodeFrame, closed_tlb);
  static constexpr std::size_t kOpenTlb = offsetof(HartState, frame) + offsetof(isa::CodeFrame, open_tlb);
  Word state(std::size_t offset) { return {b_, b_.get(Type::kI64, static_cast<std::uint32_t>(offset))}; }
  static Word updated(const Word& old, CsrOp op, const Word& operand) {
    switch (op) {
      case CsrOp::kSet: return old | operand;
      case CsrOp::kClear: return old & (operand.is_constant() ? Word(~operand.constant()) : ~operand);
      default: return operand;
    }
  }
  void need_supervisor() {
    if (privilege_known_) return;
    const Word privilege{b_, b_.get(Type::kI64, offsetof(HartState, privilege))};
    step_if(eq(privilege, Word(u64{0})).in(b_));
    privilege_known_ = true;
  }
  void step_if(ir::Value condition) {
    b_.emit(Op::kExitIf, Type::kVoid, condition, ir::kNone, ir::kNone, offset_,
            static_cast<std::uint8_t>(ir::ExitKind::kStep));
  }
  // The back end rounds by frm only. RISC-V code names another mode in conversions alone, in practice.
  bool dynamic_rounding() const { return rm_ == 7; }

  template <class Format>
  Float canonical(Format format, Float a) {
    return {emit(Op::kFcanonical, type_of(format), a)};
  }
  template <class Format>
  Float pure(Op op, Format format, Float a, Float b = {}) {
    if (sizeof(typename Format::Bits) == 2) return step(), a;
    return {emit(op, type_of(format), a, b)};
  }
  template <class Format>
  Float rounded(Op op, Format format, Float a, Float b = {}, Float c = {}) {
    if (!dynamic_rounding()) return step(), a;
    return canonical(format, {emit(op, type_of(format), a, b, c)});
  }
  Word compare(Op op, Float a, Float b) {
    if (done_) return Word(u64{0});
    return {b_, b_.emit(op, Type::kI64, a.value, b.value)};
  }
  ir::Value emit(Op op, Type type, Float a, Float b = {}, Float c = {}) {
    return done_ ? ir::kNone : b_.emit(op, type, a.value, b.value, c.value);
  }

  ir::Builder& b_;
  unsigned page_offset_;
  const LiftOptions& options_;
  const std::optional<u64> base_;  // where the page lies, if that is known
  unsigned offset_ = 0;
  unsigned next_offset_ = 0;
  unsigned rm_ = 0;
  unsigned branches_ = 0;
  bool ended_ = false;
  bool done_ = false;             // with the current instruction: it is the interpreter's
  bool privilege_known_ = false;  // at least S
  bool zeroing_known_ = false;    // cbo.zero is allowed
  bool floating_open_ = false;
};

using LiftRow = void (*)(LiftMachine&, const Operands&);

template <std::size_t Index>
void lift_row(LiftMachine& machine, const Operands& operands) {
  constexpr const auto& kRow = std::get<Index>(kRows);
  if constexpr (kRow.traits.floating_point) machine.open_floating();
  constexpr auto kSemantics = kRow.semantics;
  kSemantics(machine, operands);
}

constexpr auto kLifters = []<std::size_t... I>(std::index_sequence<I...>) {
  return std::array<LiftRow, kRowCount>{&lift_row<I>...};
}(std::make_index_sequence<kRowCount>{});

}  // namespace

void Lifter::lift(std::span<const std::byte> page, unsigned offset, ir::Block& block, const isa::BlockLimits& limits,
                  std::optional<std::uint64_t> base) const {
  const unsigned most_branches = limits.at_branches ? 1 : kMostBranches;
  block.insts.clear();
  block.origins.clear();
  ir::Builder builder(block);
  LiftMachine machine(builder, offset, options_, base);
  unsigned at = offset;
  while (!machine.ended()) {
    const bool full = block.origins.size() >= kMostInstructions || machine.branches() >= most_branches;
    const bool at_end = at + 2 > std::min<std::size_t>(page.size(), kPageSize) || (at != offset && limits.heads && limits.heads->test(at / 2));
    if (full || at_end) {
      builder.emit(Op::kExit, Type::kVoid, ir::kNone, ir::kNone, ir::kNone, at - offset);
      break;
    }
    std::uint32_t raw = 0;
    std::memcpy(&raw, page.data() + at, 2);
    const unsigned length = instruction_bytes(static_cast<std::uint16_t>(raw));
    builder.begin_guest_instruction(at - offset, raw);
    machine.begin(at - offset, length, 0);
    if (at + length > page.size()) {  // straddles two pages
      machine.step_and_leave();
      break;
    }
    std::memcpy(&raw, page.data() + at, length);
    block.origins.back().raw = raw;
    const Decoded decoded = decoder_.decode(raw);
    const bool reserved_rounding =
        decoded.row != kIllegal && rows()[decoded.row].pattern.has(isa::Field::kRm) &&
        (decoded.operands.rm == 5 || decoded.operands.rm == 6);
    if (decoded.row == kIllegal || reserved_rounding) {
      machine.step_and_leave();
      break;
    }
    machine.begin(at - offset, length, decoded.operands.rm);
    if (at + length > kPageSize && !base) builder.emit(Op::kBehind, Type::kVoid, ir::kNone, ir::kNone, ir::kNone, raw >> 16);
    kLifters[decoded.row](machine, decoded.operands);
    at += length;
  }
  block.guest_bytes = at - offset;
}

}  // namespace doppel::riscv
