#include "isa/riscv/interpreter.h"

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <thread>
#include <utility>

#include "base/bits.h"
#include "isa/common/softfloat/softfloat.h"
#include "isa/riscv/csr.h"
#include "isa/riscv/ext/all.h"
#include "memory/guarded_access.h"

namespace doppel::riscv {
namespace {

// How many decoded pages a hart keeps (36 KiB each).
constexpr std::size_t kMostPages = 2048;

template <class T>
constexpr std::uint64_t extend(T value) {
  if constexpr (std::is_signed_v<T>) {
    return static_cast<std::uint64_t>(std::int64_t{value});
  } else {
    return value;
  }
}

// Guest RAM is shared with other harts and devices: accesses are single and atomic, without ordering.
// `host` comes from the TLB or GuestMemory and is aligned for T.
template <class T>
T load_relaxed(const std::byte* host) {
  return __atomic_load_n(reinterpret_cast<const T*>(host), __ATOMIC_RELAXED);
}
template <class T>
void store_relaxed(std::byte* host, T value) {
  __atomic_store_n(reinterpret_cast<T*>(host), value, __ATOMIC_RELAXED);
}

}  // namespace

// The abstract machine that the rows' semantics see when words are integers: one instruction in flight.
// Lives in registers; `next` is what runs afterwards.
class Step {
 public:
  using Op = Interpreter::Op;

  Step(HartState& state, const Op* op, Interpreter& self, const Op* following)
      : state_(state), op_(op), self_(self), next_(following), following_(following) {}

  const Op* next() const { return next_; }
  void illegal() { next_ = self_.raise(op_, {Exception::kIllegalInstruction, self_.raw_of(op_)}); }

  // --- Integer registers and control flow.

  u64 x(unsigned r) const { return state_.x[r]; }
  void set_x(unsigned r, u64 value) { state_.x[r] = value; }
  u64 constant(u64 value) const { return value; }
  u64 pc() const { return self_.pc_of(op_); }
  u64 next_pc() const { return self_.pc_of(following_); }

  void jump_relative(u64 offset, unsigned /*link*/ = kXDiscard) {
    const std::ptrdiff_t slot = (op_ - self_.page_->ops.data()) + (static_cast<i64>(offset) >> 1);
    if (slot >= 0 && slot < static_cast<std::ptrdiff_t>(Interpreter::kSlots)) {
      next_ = op_ + (static_cast<i64>(offset) >> 1);
    } else {
      next_ = self_.go(pc() + offset);
    }
  }
  void branch(u64 taken, u64 offset) {
    if (taken != 0) jump_relative(offset);
  }
  void jump(u64 target, const Operands&) { next_ = self_.go(target); }

  // --- Memory.

  template <class T>
  void load_x(unsigned rd, u64 gva, As<T>) {
    T value;
    if (load(gva, value)) state_.x[rd] = extend(value);
  }
  template <class T>
  void store(u64 gva, u64 value, As<T>) {
    using U = std::make_unsigned_t<T>;
    const TlbEntry& entry = self_.tlb_->write[TlbContext::index(gva)];
    if ((gva & (~(kPageSize - 1) | (sizeof(U) - 1))) == entry.tag) [[likely]] {
      store_relaxed<U>(host_of(gva, entry), static_cast<U>(value));
    } else if (!self_.write_slow(gva, sizeof(U), static_cast<U>(value))) {
      next_ = self_.raise(op_, self_.fault_);
    }
  }
  template <class Format>
  void load_f(unsigned fd, u64 gva, Format format) {
    typename Format::Bits value;
    if (load(gva, value)) set_f(fd, value, format);
  }
  template <class Format>
  void store_f(u64 gva, unsigned fs, Format) {
    store(gva, state_.f[fs], As<typename Format::Bits>{});
  }

  template <class T>
  void amo(unsigned rd, u64 gva, u64 operand, Amo op, As<T>) {
    std::byte* host = self_.atomic_location(gva, sizeof(T), Access::kWrite);
    if (host == nullptr) {
      next_ = self_.raise(op_, self_.fault_);
      return;
    }
    // atomic_location() checked alignment.
    state_.x[rd] = extend(exchange(*reinterpret_cast<T*>(host), static_cast<T>(operand), op));
  }
  template <class T>
  void load_reserved(unsigned rd, u64 gva, As<T>) {
    std::byte* host = self_.atomic_location(gva, sizeof(T), Access::kRead);
    if (host == nullptr) {
      next_ = self_.raise(op_, self_.fault_);
      return;
    }
    const T value = std::atomic_ref<T>(*reinterpret_cast<T*>(host)).load(std::memory_order_seq_cst);
    state_.reservation = gva | HartState::reservation_width<T>();
    state_.reserved_value = extend(value);
    state_.x[rd] = extend(value);
  }
  // Succeeds when the location still holds what LR saw: as on hardware another hart's store makes it fail,
  // except one that puts the same value back, which no value-based check can see.
  template <class T>
  void store_conditional(unsigned rd, u64 gva, u64 value, As<T>) {
    // Without a reservation nothing is accessed, and nothing but misalignment faults.
    const bool reserved = state_.reservation == (gva | HartState::reservation_width<T>());
    if (!reserved && is_aligned(gva, sizeof(T))) {
      state_.reservation = HartState::kNoReservation;
      state_.x[rd] = 1;
      return;
    }
    std::byte* host = self_.atomic_location(gva, sizeof(T), Access::kWrite);
    if (host == nullptr) {
      next_ = self_.raise(op_, self_.fault_);
      return;
    }
    T expected = static_cast<T>(state_.reserved_value);
    const bool stored =
        std::atomic_ref<T>(*reinterpret_cast<T*>(host)).compare_exchange_strong(expected, static_cast<T>(value));
    state_.reservation = HartState::kNoReservation;
    state_.x[rd] = stored ? 0 : 1;
  }

  void fence(i32 fields) {
    constexpr i32 kInputOrRead = 0b1010, kOutputOrWrite = 0b0101;
    const i32 predecessor = fields >> 4 & 15;
    const i32 successor = fields & 15;
    const bool tso = fields >> 8 == 8;
    // x86 keeps every order but store before load.
    if ((predecessor & kOutputOrWrite) != 0 && (successor & kInputOrRead) != 0 && !tso) {
      std::atomic_thread_fence(std::memory_order_seq_cst);
    }
    // PAUSE: the lock's holder may be a hart that waits for this core.
    if (predecessor == 1 && successor == 0) std::this_thread::yield();
  }
  void fence_i() {
    const u64 resume_at = next_pc();
    self_.hart_.on_fence_i();
    next_ = self_.go(resume_at);
  }

  // --- System.

  void csr(unsigned rd, unsigned number, CsrOp op, u64 operand, bool writes) {
    self_.sync_instructions();
    const u64 resume_at = next_pc();
    const auto result = access_csr(self_.hart_, number, op, operand, writes);
    if (!result) {
      illegal();
      return;
    }
    state_.x[rd] = result->old_value;
    if (result->effect == CsrEffect::kNone) return;
    if (result->effect != CsrEffect::kTranslation) self_.hart_.recheck_interrupts();
    if (result->effect != CsrEffect::kInterrupts) {
      self_.mmu_.update();
      next_ = self_.go(resume_at);
    }
  }
  void ecall() {
    Hart& hart = self_.hart_;
    switch (state_.privilege) {
      case Privilege::kUser: next_ = self_.raise(op_, {Exception::kUserCall}); return;
      case Privilege::kMachine: next_ = self_.raise(op_, {Exception::kMachineCall}); return;
      case Privilege::kSupervisor: break;
    }
    if (hart.env().firmware == nullptr) {
      next_ = self_.raise(op_, {Exception::kSupervisorCall});
      return;
    }
    self_.sync_instructions();
    state_.pc = next_pc();
    ++hart.statistics().firmware_calls;
    hart.env().firmware->supervisor_call(hart);
    next_ = self_.resume();
  }
  void ebreak() { next_ = self_.raise(op_, {Exception::kBreakpoint, pc()}); }
  void mret() {
    if (state_.privilege != Privilege::kMachine) return illegal();
    self_.hart_.return_from_machine_trap();
    next_ = self_.resume();
  }
  void sret() {
    const bool trapped = state_.privilege == Privilege::kSupervisor && (state_.mstatus & mstatus::kTsr) != 0;
    if (state_.privilege == Privilege::kUser || trapped) return illegal();
    self_.hart_.return_from_supervisor_trap();
    next_ = self_.resume();
  }
  void wfi() {
    const bool trapped = state_.privilege != Privilege::kMachine && (state_.mstatus & mstatus::kTw) != 0;
    if (state_.privilege == Privilege::kUser || trapped) return illegal();
    self_.hart_.request_wait();
  }
  void sfence_vma(const Operands& i) {
    if (!may_fence()) return illegal();
    const u64 resume_at = next_pc();
    self_.mmu_.fence(i.rs1 != 0 ? &state_.x[i.rs1] : nullptr, i.rs2 != 0 ? &state_.x[i.rs2] : nullptr);
    next_ = self_.go(resume_at);
  }
  void sfence_inval() {
    if (state_.privilege == Privilege::kUser) illegal();
  }
  void cache_block(semantics::CacheBlock op, u64 gva) {
    if (!cache_block_enabled(op)) return illegal();
    constexpr u64 kBytes = IsaConfig::kCacheBlockBytes;
    const u64 block = align_down(gva, kBytes);
    // Memory is coherent here: only zeroing has work to do, but all need a translation.
    const bool zeroing = op == semantics::CacheBlock::kZero;
    if (self_.hart_.env().user != nullptr) {
      std::byte* at = self_.user_location(block, kBytes, zeroing ? Access::kWrite : Access::kRead);
      if (at == nullptr) {
        next_ = self_.raise(op_, {Exception::kStorePageFault, gva});
        return;
      }
      for (u64 i = 0; zeroing && i < kBytes; i += 8) store_relaxed<u64>(at + i, 0);
      return;
    }
    // Management asks for any right to the block and dirties nothing. No page is writable but not readable.
    const auto at = self_.mmu_.locate(block, zeroing ? Access::kWrite : Access::kRead, kBytes);
    if (!at) {
      const bool access_fault = at.error().cause == Exception::kLoadAccessFault ||
                                at.error().cause == Exception::kStoreAccessFault;
      // Either way it reports as a store.
      next_ = self_.raise(op_, {access_fault ? Exception::kStoreAccessFault : Exception::kStorePageFault, gva});
      return;
    }
    if (!zeroing) return;
    if (at->host == nullptr) {
      next_ = self_.raise(op_, {Exception::kStoreAccessFault, gva});
      return;
    }
    for (u64 i = 0; i < kBytes; i += 8) store_relaxed<u64>(at->host + i, 0);
  }

  // --- Floating point. Values are bit patterns of their format.

  template <class Format>
  typename Format::Bits f(unsigned r, Format) const {
    using Bits = typename Format::Bits;
    const u64 boxed = state_.f[r];
    if constexpr (sizeof(Bits) == 8) {
      return boxed;
    } else {
      // What is not boxed in ones reads as the canonical NaN ("NaN Boxing of Narrower Values").
      constexpr u64 kBox = ~u64{0} << (8 * sizeof(Bits));
      return (boxed & kBox) == kBox ? static_cast<Bits>(boxed) : softfloat::kCanonicalNan<Bits>;
    }
  }
  template <class Format>
  void set_f(unsigned r, typename Format::Bits value, Format) {
    using Bits = typename Format::Bits;
    if constexpr (sizeof(Bits) == 8) {
      state_.f[r] = value;
    } else {
      state_.f[r] = ~u64{0} << (8 * sizeof(Bits)) | value;
    }
    state_.mstatus |= mstatus::kFsDirty;
  }
  template <class Format>
  u64 f_raw(unsigned r, Format) const {
    return extend(static_cast<std::make_signed_t<typename Format::Bits>>(state_.f[r]));
  }
  template <class Format>
  typename Format::Bits f_from_raw(u64 value, Format) const {
    return static_cast<typename Format::Bits>(value);
  }
  template <class Format, class F>
  F fneg(Format, F a) const {
    return a ^ sign_of<F>();
  }
  template <class Format, class F>
  F fsign(Format, F a, F b) const {
    return static_cast<F>((a & ~sign_of<F>()) | (b & sign_of<F>()));
  }
  template <class Format, class F>
  F fsign_xor(Format, F a, F b) const {
    return a ^ (b & sign_of<F>());
  }
  template <class Format, class F>
  F fadd(Format, F a, F b) { return accrue([&](auto& flags) { return softfloat::add(a, b, rounding(), flags); }); }
  template <class Format, class F>
  F fsub(Format, F a, F b) { return accrue([&](auto& flags) { return softfloat::sub(a, b, rounding(), flags); }); }
  template <class Format, class F>
  F fmul(Format, F a, F b) { return accrue([&](auto& flags) { return softfloat::mul(a, b, rounding(), flags); }); }
  template <class Format, class F>
  F fdiv(Format, F a, F b) { return accrue([&](auto& flags) { return softfloat::div(a, b, rounding(), flags); }); }
  template <class Format, class F>
  F fsqrt(Format, F a) { return accrue([&](auto& flags) { return softfloat::sqrt(a, rounding(), flags); }); }
  template <class Format, class F>
  F fma(Format, F a, F b, F c) {
    return accrue([&](auto& flags) { return softfloat::fma(a, b, c, rounding(), flags); });
  }
  template <class Format, class F>
  F fmin(Format, F a, F b) { return accrue([&](auto& flags) { return softfloat::min(a, b, flags); }); }
  template <class Format, class F>
  F fmax(Format, F a, F b) { return accrue([&](auto& flags) { return softfloat::max(a, b, flags); }); }
  template <class Format, class F>
  u64 feq(Format, F a, F b) { return accrue([&](auto& flags) { return u64{softfloat::eq(a, b, flags)}; }); }
  template <class Format, class F>
  u64 flt(Format, F a, F b) { return accrue([&](auto& flags) { return u64{softfloat::lt(a, b, flags)}; }); }
  template <class Format, class F>
  u64 fle(Format, F a, F b) { return accrue([&](auto& flags) { return u64{softfloat::le(a, b, flags)}; }); }
  template <class Format, class F>
  u64 fclass(Format, F a) const { return softfloat::classify(a); }
  template <class To, class From, class F>
  typename To::Bits fconvert(To, From, F a) {
    return accrue([&](auto& flags) { return softfloat::convert<typename To::Bits>(a, rounding(), flags); });
  }
  template <class Format, class F, class T>
  u64 fto_integer(Format, F a, As<T>) {
    // Results narrower than a word are sign-extended, the unsigned ones too.
    return accrue([&](auto& flags) {
      return extend(static_cast<std::make_signed_t<T>>(softfloat::to_integer<T>(a, rounding(), flags)));
    });
  }
  template <class Format, class T>
  typename Format::Bits ffrom_integer(Format, u64 value, As<T>) {
    return accrue([&](auto& flags) {
      return softfloat::from_integer<typename Format::Bits>(static_cast<T>(value), rounding(), flags);
    });
  }

  // The rounding mode in force is one of the five (privileged code may have put anything into frm).
  bool rounding_is_valid() const { return static_cast<unsigned>(rounding()) <= 4; }

 private:
  static std::byte* host_of(u64 gva, const TlbEntry& entry) {
    // The TLB's addend turns a guest-virtual address of its page into the host address of the same byte.
    return reinterpret_cast<std::byte*>(gva + entry.addend);
  }

  template <class T>
  bool load(u64 gva, T& value) {
    const TlbEntry& entry = self_.tlb_->read[TlbContext::index(gva)];
    if ((gva & (~(kPageSize - 1) | (sizeof(T) - 1))) == entry.tag) [[likely]] {
      value = load_relaxed<T>(host_of(gva, entry));
      return true;
    }
    const std::optional<u64> slow = self_.read_slow(gva, sizeof(T));
    if (!slow) {
      next_ = self_.raise(op_, self_.fault_);
      return false;
    }
    value = static_cast<T>(*slow);
    return true;
  }

  template <class T>
  static T exchange(T& location, T operand, Amo op) {
    std::atomic_ref<T> cell(location);
    const auto apply = [&](auto combine) {
      T old = cell.load(std::memory_order_relaxed);
      while (!cell.compare_exchange_weak(old, combine(old))) {
      }
      return old;
    };
    using U = std::make_unsigned_t<T>;
    switch (op) {
      case Amo::kSwap: return cell.exchange(operand);
      case Amo::kAdd: return cell.fetch_add(operand);
      case Amo::kXor: return cell.fetch_xor(operand);
      case Amo::kAnd: return cell.fetch_and(operand);
      case Amo::kOr: return cell.fetch_or(operand);
      case Amo::kMin: return apply([=](T old) { return std::min(old, operand); });
      case Amo::kMax: return apply([=](T old) { return std::max(old, operand); });
      case Amo::kMinu:
        return apply([=](T old) { return static_cast<T>(std::min(static_cast<U>(old), static_cast<U>(operand))); });
      case Amo::kMaxu:
        return apply([=](T old) { return static_cast<T>(std::max(static_cast<U>(old), static_cast<U>(operand))); });
    }
    return T{};
  }

  template <class F>
  static constexpr F sign_of() { return static_cast<F>(F{1} << (8 * sizeof(F) - 1)); }

  softfloat::Rounding rounding() const {
    const unsigned rm = op_->operands.rm;
    return static_cast<softfloat::Rounding>(rm == 7 ? state_.frm : rm);
  }

  // Runs an operation with the accrued flags, and marks the state dirty when one is new.
  template <class Operation>
  auto accrue(Operation operation) {
    softfloat::Flags flags = state_.fflags;
    const auto result = operation(flags);
    if (flags != state_.fflags) {
      state_.fflags = flags;
      state_.mstatus |= mstatus::kFsDirty;
    }
    return result;
  }

  bool may_fence() const {
    return state_.privilege == Privilege::kMachine ||
           (state_.privilege == Privilege::kSupervisor && (state_.mstatus & mstatus::kTvm) == 0);
  }
  // CMO chapter, "Control and Status Register Support".
  bool cache_block_enabled(semantics::CacheBlock op) const {
    const u64 field = op == semantics::CacheBlock::kZero         ? envcfg::kCbze
                      : op == semantics::CacheBlock::kInvalidate ? envcfg::kCbie
                                                                 : envcfg::kCbcfe;
    if (state_.privilege == Privilege::kMachine) return true;
    if ((state_.menvcfg & field) == 0) return false;
    return state_.privilege == Privilege::kSupervisor || (state_.senvcfg & field) != 0;
  }

  HartState& state_;
  const Op* const op_;
  Interpreter& self_;
  const Op* next_;
  const Op* const following_;
};

// ---------------------------------------------------------------------------------------------------------

template <std::size_t Index>
const Interpreter::Op* Interpreter::execute(HartState& state, const Op* op, Interpreter& self) {
  constexpr const auto& kRow = std::get<Index>(kRows);
  Step step(state, op, self, op + kRow.pattern.length_bytes() / 2);
  if constexpr (kRow.traits.floating_point) {
    if ((state.mstatus & mstatus::kFs) == 0) {
      step.illegal();
      return step.next();
    }
    if constexpr (kRow.pattern.has(isa::Field::kRm)) {
      if (!step.rounding_is_valid()) {
        step.illegal();
        return step.next();
      }
    }
  }
  constexpr auto kSemantics = kRow.semantics;
  kSemantics(step, op->operands);
  return step.next();
}

Interpreter::Handler Interpreter::handler_of(RowIndex row) {
  static constexpr auto kHandlers = []<std::size_t... I>(std::index_sequence<I...>) {
    return std::array<Handler, kRowCount>{&Interpreter::execute<I>...};
  }(std::make_index_sequence<kRowCount>{});
  return kHandlers[row];
}

Interpreter::Interpreter(Hart& hart)
    : hart_(hart),
      state_(hart.state()),
      mmu_(hart.mmu()),
      decoder_(hart.isa()),
      tlb_(&mmu_.tlb()),
      // Of a type that is all right as zeros.
      known_(static_cast<Known*>(std::calloc(std::size_t{1} << kKnownBits, sizeof(Known)))),
      scratch_(static_cast<Page*>(std::malloc(sizeof(Page)))),
      refetch_{&refetch_here, {}} {
  if (known_ == nullptr || scratch_ == nullptr) throw std::bad_alloc();
  page_ = scratch_.get();
  hart.on_fence_i = [this] { expect_code_changes(); };
}

void Interpreter::expect_code_changes(TlbContext::KeepsCode keeps_translated) {
  ++generation_;
  mmu_.flush_fetch(keeps_translated);
}

Interpreter::~Interpreter() {
  hart_.on_fence_i = nullptr;
  mmu_.flush_fetch();
}

Exit Interpreter::run(std::uint64_t budget) {
  hart_.begin_run();
  end_ = state_.instructions + budget;
  remaining_ = static_cast<std::int64_t>(budget);
  const Op* op = resume();
  Exit exit = Exit::kBudget;
  for (;;) {
    if (hart_.attention()) [[unlikely]] {
      state_.pc = op == &refetch_ ? state_.pc : pc_of(op);
      if (const std::optional<Exit> why = hart_.serve_attention()) {
        exit = *why;
        break;
      }
      op = resume();
      continue;
    }
    if (--remaining_ < 0) [[unlikely]] {
      remaining_ = 0;
      state_.pc = op == &refetch_ ? state_.pc : pc_of(op);
      break;
    }
    op = op->handler(state_, op, *this);
  }
  state_.instructions = end_ - static_cast<std::uint64_t>(remaining_);
  hart_.end_run();
  return exit;
}

void Interpreter::step() {
  end_ = state_.instructions + 1;
  remaining_ = 1;
  // What translated code leaves of a program comes one by one: no page is worth decoding for it.
  const std::uint64_t before = traps_;
  const Op* op = hart_.env().user != nullptr ? single(state_.pc) : resume();
  if (traps_ != before) return;
  // A fetch that missed is no instruction yet; a trap ends the step as well.
  do {
    --remaining_;
    const std::uint64_t traps = traps_;
    op = op->handler(state_, op, *this);
    if (traps_ != traps) break;
  } while (remaining_ > 0);
  state_.pc = op == &refetch_ ? state_.pc : pc_of(op);
  state_.instructions = end_ - static_cast<std::uint64_t>(remaining_);
}

void Interpreter::step(std::uint32_t raw) {
  constexpr std::uint32_t kMultiplier = 0x9e37'79b9;
  Known& known = known_.get()[(raw * kMultiplier) >> (32 - kKnownBits)];
  if (known.raw != raw || known.op.handler == nullptr) {
    const Decoded decoded = decoder_.decode(raw);
    known = {raw, {decoded.row == kIllegal ? &illegal_here : handler_of(decoded.row), decoded.operands}};
  }
  scratch_->ops[scratch_slot_].handler = &leave_here;
  scratch_slot_ = 0;
  scratch_raw_ = raw;
  scratch_->ops.front() = known.op;
  // As if the page began at the instruction.
  const Op* op = scratch_->ops.data();
  page_ = scratch_.get();
  page_gva_ = state_.pc;
  tlb_ = &mmu_.tlb();
  end_ = state_.instructions + 1;
  remaining_ = 0;
  const Op* next = op->handler(state_, op, *this);
  state_.pc = next == &refetch_ ? state_.pc : pc_of(next);
  state_.instructions = end_ - static_cast<std::uint64_t>(remaining_);
}

void Interpreter::sync_instructions() { state_.instructions = end_ - static_cast<std::uint64_t>(remaining_) - 1; }

const Interpreter::Op* Interpreter::raise(const Op* op, Trap trap) {
  ++remaining_;
  ++traps_;
  hart_.take_trap(trap, pc_of(op));
  return resume();
}

const Interpreter::Op* Interpreter::resume() { return go(state_.pc); }

const Interpreter::Op* Interpreter::go(std::uint64_t gva) {
  tlb_ = &mmu_.tlb();
  const FetchEntry& entry = tlb_->fetch[TlbContext::index(gva)];
  if (entry.tag == align_down(gva, kPageSize) && entry.code != nullptr) [[likely]] {
    return enter(*static_cast<Page*>(entry.code), gva);
  }
  state_.pc = gva;
  return &refetch_;
}

const Interpreter::Op* Interpreter::enter(Page& page, std::uint64_t gva) {
  page_ = &page;
  page_gva_ = align_down(gva, kPageSize);
  return &page.ops[(gva & (kPageSize - 1)) >> 1];
}

const Interpreter::Op* Interpreter::refetch_here(HartState&, const Op*, Interpreter& self) {
  ++self.remaining_;
  return self.fetch_slow();
}

const Interpreter::Op* Interpreter::leave_here(HartState&, const Op* op, Interpreter& self) {
  ++self.remaining_;
  return self.go(self.pc_of(op));
}

const Interpreter::Op* Interpreter::fetch_slow() {
  const std::uint64_t pc = state_.pc;
  const auto at = mmu_.locate(pc, Access::kFetch, 2);
  if (!at) {
    ++traps_;
    hart_.take_trap(at.error(), pc);
    return resume();
  }
  const std::byte* host = at->host == nullptr ? nullptr : at->host - (pc & (kPageSize - 1));  // of the page
  if (std::uint64_t word = 0; hart_.env().user != nullptr && host != nullptr && guarded_read(host, 8, word) != 0) {
    host = nullptr;  // mapped, with nothing behind it
  }
  if (host == nullptr) {
    ++traps_;
    hart_.take_trap({Exception::kInstructionAccessFault, pc}, pc);
    return resume();
  }
  tlb_ = &mmu_.tlb();
  FetchEntry& entry = tlb_->fetch[TlbContext::index(pc)];
  // No entry: PMP splits the page, so each instruction is checked on its own.
  if (entry.tag != align_down(pc, kPageSize)) return single(pc);
  Page* page = page_for({align_down(at->gpa.value, kPageSize)}, host);
  // page_for() may have emptied the fetch entries to evict.
  tlb_->mark_fetch(TlbContext::index(pc));
  entry = {align_down(pc, kPageSize), page};
  return enter(*page, pc);
}

Interpreter::Page* Interpreter::page_for(GuestPhysical gpa, const std::byte* host) {
  const std::uint64_t number = gpa.value >> kPageShift;
  auto found = pages_.find(number);
  if (found == pages_.end()) {
    std::unique_ptr<Page> page;
    if (pages_.size() >= kMostPages) {
      std::uint64_t& victim = page_order_[next_eviction_];
      next_eviction_ = (next_eviction_ + 1) % page_order_.size();
      page = std::move(pages_.extract(victim).mapped());
      victim = number;
      mmu_.flush_fetch();
    } else {
      page = std::make_unique<Page>();
      page_order_.push_back(number);
    }
    page->gpa = gpa;
    page->host = host;
    page->generation = 0;
    found = pages_.emplace(number, std::move(page)).first;
  }
  Page& page = *found->second;
  if (page.generation != generation_) {
    if (page.generation == 0 || !page.source.same(page.host)) {
      page.source.copy(page.host);
      reset_ops(page, &decode_here);
    }
    page.generation = generation_;
  }
  return &page;
}

void Interpreter::reset_ops(Page& page, Handler handler) {
  page.ops.fill({handler, {}});
  page.ops[kSlots].handler = page.ops[kSlots + 1].handler = &leave_here;
}

std::uint32_t Interpreter::raw_of(const Op* op) const {
  if (page_ == scratch_.get()) return scratch_raw_;
  const std::size_t offset = static_cast<std::size_t>(op - page_->ops.data()) * 2;
  std::uint16_t low = 0;
  std::memcpy(&low, page_->source.bytes() + offset, 2);
  if (instruction_bytes(low) == 2 || offset + 4 > kPageSize) return low;
  std::uint16_t high = 0;
  std::memcpy(&high, page_->source.bytes() + offset + 2, 2);
  return low | std::uint32_t{high} << 16;
}

const Interpreter::Op* Interpreter::decode_here(HartState& state, const Op* op, Interpreter& self) {
  // The op belongs to a page of ours, which is only const to the handlers.
  Op& slot = *const_cast<Op*>(op);
  const std::size_t index = static_cast<std::size_t>(op - self.page_->ops.data());
  const std::uint32_t raw = self.raw_of(op);
  if (instruction_bytes(static_cast<std::uint16_t>(raw)) == 4 && index + 1 == kSlots) {
    slot.handler = &straddle_here;
  } else {
    const Decoded decoded = self.decoder_.decode(raw);
    slot.operands = decoded.operands;
    slot.handler = decoded.row == kIllegal ? &illegal_here : handler_of(decoded.row);
  }
  return slot.handler(state, op, self);
}

const Interpreter::Op* Interpreter::illegal_here(HartState&, const Op* op, Interpreter& self) {
  return self.raise(op, {Exception::kIllegalInstruction, self.raw_of(op)});
}

const Interpreter::Op* Interpreter::straddle_here(HartState&, const Op* op, Interpreter& self) {
  ++self.remaining_;
  return self.single(self.pc_of(op));
}

const Interpreter::Op* Interpreter::single(std::uint64_t pc) {
  std::uint32_t raw = 0;
  for (unsigned half = 0; half < 2; ++half) {
    const std::uint64_t gva = pc + 2 * half;
    const auto at = mmu_.locate(gva, Access::kFetch, 2);
    std::uint64_t parcel = 0;
    if (!at || at->host == nullptr || guarded_read(at->host, 2, parcel) != 0) {
      const Trap trap = at ? Trap{Exception::kInstructionAccessFault, gva} : at.error();
      ++traps_;
      hart_.take_trap(trap, pc);
      return resume();
    }
    raw |= static_cast<std::uint32_t>(parcel) << (16 * half);
    if (instruction_bytes(static_cast<std::uint16_t>(raw)) == 2) break;
  }
  tlb_ = &mmu_.tlb();
  const Decoded decoded = decoder_.decode(raw);
  if (!std::exchange(scratch_whole_, true)) reset_ops(*scratch_, &leave_here);
  scratch_->ops[scratch_slot_].handler = &leave_here;
  scratch_slot_ = (pc & (kPageSize - 1)) >> 1;
  scratch_raw_ = raw;
  scratch_->ops[scratch_slot_] = {decoded.row == kIllegal ? &illegal_here : handler_of(decoded.row),
                                  decoded.operands};
  return enter(*scratch_, pc);
}

bool Interpreter::user_access(std::uint64_t gva, unsigned bytes, Access access, int (*perform)(std::byte*, unsigned, u64&),
                              u64& value) {
  const FlatMemory& flat = hart_.env().user->flat();
  const int signal = flat.contains(gva, bytes) ? perform(flat.host(gva), bytes, value) : SIGSEGV;
  if (signal == 0) return true;
  const bool reads = access == Access::kRead;
  // What is mapped but has nothing behind it, such as pages beyond a file's end, is an access fault.
  fault_ = signal == SIGBUS ? Trap{reads ? Exception::kLoadAccessFault : Exception::kStoreAccessFault, gva}
                            : Trap{reads ? Exception::kLoadPageFault : Exception::kStorePageFault, gva};
  return false;
}

std::optional<std::uint64_t> Interpreter::read_slow(std::uint64_t gva, unsigned bytes) {
  std::uint64_t value = 0;
  if (hart_.env().user != nullptr) {
    const auto read = [](std::byte* at, unsigned width, u64& into) { return guarded_read(at, width, into); };
    return user_access(gva, bytes, Access::kRead, read, value) ? std::optional(value) : std::nullopt;
  }
  const unsigned in_page = static_cast<unsigned>(std::min<std::uint64_t>(bytes, kPageSize - (gva & (kPageSize - 1))));
  for (unsigned done = 0; done < bytes;) {
    const unsigned part = done == 0 ? in_page : bytes - in_page;
    const auto at = mmu_.locate(gva + done, Access::kRead, part);
    if (!at) {
      fault_ = at.error();
      return std::nullopt;
    }
    if (const std::byte* host = at->host) {
      if (part == bytes && is_aligned(gva, bytes)) {
        switch (bytes) {
          case 1: return load_relaxed<std::uint8_t>(host);
          case 2: return load_relaxed<std::uint16_t>(host);
          case 4: return load_relaxed<std::uint32_t>(host);
          default: return load_relaxed<std::uint64_t>(host);
        }
      }
      // Misaligned accesses are made of bytes: the architecture promises them no more.
      for (unsigned i = 0; i < part; ++i) {
        value |= std::uint64_t{load_relaxed<std::uint8_t>(host + i)} << (8 * (done + i));
      }
    } else {
      const auto read = is_aligned(gva, bytes) ? hart_.env().io.read(at->gpa, static_cast<Width>(bytes)) : std::nullopt;
      if (!read) {
        fault_ = {Exception::kLoadAccessFault, gva + done};
        return std::nullopt;
      }
      return *read;
    }
    done += part;
  }
  tlb_ = &mmu_.tlb();
  return value;
}

bool Interpreter::write_slow(std::uint64_t gva, unsigned bytes, std::uint64_t value) {
  if (hart_.env().user != nullptr) {
    const auto write = [](std::byte* at, unsigned width, u64& from) { return guarded_write(at, width, from); };
    return user_access(gva, bytes, Access::kWrite, write, value);
  }
  // Both pages of an access that crosses must accept it before a byte is written.
  const unsigned in_page = static_cast<unsigned>(std::min<std::uint64_t>(bytes, kPageSize - (gva & (kPageSize - 1))));
  std::array<Mmu::Location, 2> at{};
  for (unsigned part = 0, done = 0; done < bytes; ++part) {
    const unsigned length = part == 0 ? in_page : bytes - in_page;
    const auto located = mmu_.locate(gva + done, Access::kWrite, length);
    if (!located) {
      fault_ = located.error();
      return false;
    }
    at[part] = *located;
    done += length;
  }
  if (std::byte* host = at[0].host; host != nullptr && in_page == bytes && is_aligned(gva, bytes)) {
    switch (bytes) {
      case 1: store_relaxed(host, static_cast<std::uint8_t>(value)); break;
      case 2: store_relaxed(host, static_cast<std::uint16_t>(value)); break;
      case 4: store_relaxed(host, static_cast<std::uint32_t>(value)); break;
      default: store_relaxed(host, value); break;
    }
    return true;
  }
  if (at[0].host == nullptr) {
    if (is_aligned(gva, bytes) && hart_.env().io.write(at[0].gpa, static_cast<Width>(bytes), value)) return true;
    fault_ = {Exception::kStoreAccessFault, gva};
    return false;
  }
  if (in_page < bytes && at[1].host == nullptr) {
    fault_ = {Exception::kStoreAccessFault, gva + in_page};
    return false;
  }
  for (unsigned i = 0; i < bytes; ++i) {
    std::byte* to = i < in_page ? at[0].host + i : at[1].host + (i - in_page);
    store_relaxed(to, static_cast<std::uint8_t>(value >> (8 * i)));
  }
  return true;
}

std::byte* Interpreter::user_location(std::uint64_t gva, unsigned bytes, Access access) {
  const auto probe = [](std::byte* at, unsigned width, u64& value) {
    // A page that can be written can be read.
    return value != 0 ? guarded_probe_write(at) : guarded_read(at, std::min(width, 8u), value);
  };
  u64 writes = access == Access::kWrite ? 1 : 0;
  return user_access(gva, bytes, access, probe, writes) ? hart_.env().user->flat().host(gva) : nullptr;
}

std::byte* Interpreter::atomic_location(std::uint64_t gva, unsigned bytes, Access access) {
  const bool reading = access == Access::kRead;
  if (!is_aligned(gva, bytes)) {
    fault_ = {reading ? Exception::kLoadMisaligned : Exception::kStoreMisaligned, gva};
    return nullptr;
  }
  if (hart_.env().user != nullptr) return user_location(gva, bytes, access);
  const auto& entries = reading ? tlb_->read : tlb_->write;
  const TlbEntry& entry = entries[TlbContext::index(gva)];
  if (entry.tag == align_down(gva, kPageSize)) {
    // As in Step::host_of().
    return reinterpret_cast<std::byte*>(gva + entry.addend);
  }
  const auto at = mmu_.locate(gva, access, bytes);
  if (at && at->host != nullptr) return at->host;
  fault_ = at ? Trap{reading ? Exception::kLoadAccessFault : Exception::kStoreAccessFault, gva} : at.error();
  return nullptr;
}

}  // namespace doppel::riscv
