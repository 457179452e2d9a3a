// Blocks, or the blocks of a region, being compiled: what the parts of the back end share. Not for others.
//
// One object compiles one piece of code, in one forward pass, on the thread that asked for it. Between two IR
// instructions every live value has one place (Where), and the pinned registers hold what the sets so far made of them.
#pragma once

#include <asmjit/x86.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/small_function.h"
#include "host/x64/compile.h"

namespace doppel::x64 {

using namespace asmjit;
using ir::Inst;
using ir::Op;
using ir::Type;
using ir::Value;

// Which host register does what.
//
// rax, rcx, rdx, xmm0, xmm1 are free within one IR instruction.
inline constexpr x86::Gp kState = x86::rbp;
inline constexpr x86::Gp kBudget = x86::r15;
inline constexpr std::array<x86::Gp, kPinnedRegisters> kPins{x86::r9,  x86::r10, x86::r11, x86::r12,
                                                                 x86::r13, x86::r14, x86::rbx};
inline constexpr std::array<x86::Gp, 3> kValues{x86::rsi, x86::rdi, x86::r8};
inline constexpr unsigned kFirstValueXmm = 2;
inline constexpr unsigned kLastXmm = 15;  // pinned registers are taken from here downwards
// What lies on the host's stack while code runs: what `enter` saved, then a pair for each call that the guest made and
// has not returned from: its return address, and the host's. The lowest pair's guest address is none, so nothing
// returns through it. A pair is 16 bytes, which keeps the stack pointer aligned.
inline constexpr int kPairBytes = 16;
inline constexpr int kNoAddress = -1;

constexpr bool fits_i32(std::int64_t value) { return value == static_cast<std::int32_t>(value); }

// A field of the state, by its offset.
inline x86::Mem state(std::int64_t offset, unsigned bytes = 8) {
  return x86::ptr(kState, static_cast<int>(offset) - kStateBias, bytes);
}

// The finished code.
std::vector<std::byte> bytes_of(CodeHolder& code);

// In paged memory: finds the TLB entry of the guest address in rax, and gives that field of it, by the offset of the array
// plus that in an entry. In rcx is what leads to the entry. With `by_segment` GS must lead to the TLB.
class TlbEntry {
 public:
  TlbEntry(x86::Assembler& a, const StateOffsets& o, const HostFeatures& features, bool by_segment);
  x86::Mem field(std::uint32_t offset) const;

 private:
  bool by_segment_;
};

// Jumps to the code of the guest address in rax, if the running thread knows it; else to `miss`. A call leaves the
// host's return address on the stack. In paged memory `by_segment` as above.
void emit_jump_to_rax(x86::Assembler& a, const StateOffsets& o, const HostFeatures& features, const Label& miss,
                      bool by_segment, bool call = false);
// Leaves translated code with pc in rax, and for kLink the site in rcx.
void emit_leave(x86::Assembler& a, const StateOffsets& o, ExitReason reason);

class Compiler::Emission {
 public:
  // Of a region `unfit` has the page slots not to be used.
  Emission(const StateOffsets& offsets, const HostFeatures& features, const Pins& pins,
           std::span<const PlacedBlock> parts, std::optional<std::uint64_t> unfit, const Window* window)
      : o_(offsets),
        features_(features),
        pins_(pins),
        parts_(parts),
        region_(unfit.has_value()),
        unfit_slots_(unfit.value_or(0)),
        window_(window),
        last_value_xmm_(kLastXmm - static_cast<unsigned>(pins.floating.size())) {
    assert(window == nullptr || (!flat() && features.segment_bases));
    assert(pins.integer.size() <= kPinnedRegisters && pins.floating.size() <= kPinnedFloatingRegisters);
    code_.reset(ResetPolicy::kSoft);
    code_.init(Environment::host());
    code_.attach(&a_);
    labels_.clear();
    unlinked_.clear();
    cold_.clear();
    released_.clear();
  }

  EmittedCode run();

 private:
  enum class Kind : std::uint8_t { kNowhere, kConstant, kRegister, kPinned, kXmm, kPinnedXmm, kSlot, kGuest };
  struct Where {
    Kind kind = Kind::kNowhere;
    std::uint16_t index = 0;  // in kValues or kPinned, an xmm number, a slot, or the number of a guest register
    bool negated = false;     // the place has the negation of the value
  };
  struct Cold {
    std::size_t part;
    SmallFunction<208> emit;
  };
  // Registers to be kept over a call, each with the slot for it.
  struct Saved {
    std::uint16_t xmms = 0;  // by number
    std::array<std::uint16_t, 16> slots;
  };

  // --- Parts.

  void select(std::size_t part);
  void emit_part(std::size_t part);
  // Emits out of the way, once all parts stand.
  template <class Function>
  void later(const Function& emit_cold) { cold_.push_back({part_, emit_cold}); }

  bool flat() const { return o_.memory != MemoryModel::kPaged; }
  // Whether the instruction reaches data by one host instruction, which faults where nothing is.
  bool is_direct(const Inst& inst) const {
    return flat() || (window_ != nullptr && !window_->outside[address_of(block_->origins[inst.origin].offset) % kPageSize / 2]);
  }
  bool tlb_by_segment() const { return features_.segment_bases && window_ == nullptr; }
  // Where an offset from the current part's start lies, as addresses of parts say it.
  std::uint64_t address_of(std::int64_t target) const { return address_ + static_cast<std::uint64_t>(target); }
  std::optional<std::size_t> part_at(std::uint64_t address) const;

  // --- Guest registers in host registers: a region has its own choice.

  void store_pins(const Pins& pins);
  void load_pins(const Pins& pins);
  // From the one choice to the other; what both have in the same place stays.
  void exchange_pins(const Pins& from, const Pins& to);
  // Subroutines of a region; they keep all other registers.
  void emit_transfers();
  // From the region's registers to those that all blocks agree on.
  void unpin();
  static x86::Xmm pinned_xmm(unsigned index) { return x86::xmm(kLastXmm - index); }

  // --- Values and registers.

  void find_last_uses();

  bool live_after(Value value) const { return last_use_[value] > now_; }

  void release(Value value);
  unsigned take_slot();
  x86::Mem slot(unsigned index) const { return state(o_.slots + 8 * index); }

  bool is_operand_of(Value user, Value value) const;
  bool is_operand_now(Value value) const { return is_operand_of(static_cast<Value>(now_), value); }
  // What the instruction has yet to read, for itself or for what is fused with it, must stay where it is.
  bool is_read_now(Value value) const;

  // A guest register in the state that has a value makes it unnecessary to spill it. Until the guest register gets another:
  // then the value moves, if it is only there.
  std::optional<unsigned> guest_register_at(std::int64_t offset) const {
    const std::uint64_t distance = static_cast<std::uint64_t>(offset) - o_.integer_registers;
    if (distance >= 8 * in_state_.size() || distance % 8 != 0) return std::nullopt;
    return static_cast<unsigned>(distance / 8);
  }
  x86::Mem guest_register(unsigned number) const { return state(o_.integer_registers + 8 * number); }
  void now_in_state(std::int64_t offset, Value value);
  void leave_state(unsigned number, Value except);
  // Where the value is, if that is memory.
  std::optional<x86::Mem> in_memory(Value value) const;

  // A free value register, made so by spilling the value whose last use is furthest.
  unsigned free_register();
  unsigned free_xmm();

  // The pinned register of a state offset, if it has one.
  std::optional<unsigned> pinned(std::int64_t offset) const { return pin_at(offset, o_.integer_registers, pin_of_); }
  std::optional<unsigned> pinned_floating(std::int64_t offset) const {
    return pin_at(offset, o_.floating_registers, floating_pin_of_);
  }
  // Which guest registers are pinned where, by their numbers; those that are not have kNotPinned.
  static constexpr std::uint8_t kNotPinned = 0xff;
  using PinMap = std::array<std::uint8_t, 32>;
  static PinMap map_of(const std::vector<std::uint32_t>& pins, std::uint32_t first) {
    PinMap map;
    map.fill(kNotPinned);
    for (std::size_t i = 0; i < pins.size(); ++i) map.at((pins[i] - first) / 8) = static_cast<std::uint8_t>(i);
    return map;
  }
  static std::optional<unsigned> pin_at(std::int64_t offset, std::uint32_t first, const PinMap& map) {
    const std::uint64_t distance = static_cast<std::uint64_t>(offset) - first;
    if (distance >= 8 * map.size() || distance % 8 != 0 || map[distance / 8] == kNotPinned) return std::nullopt;
    return map[distance / 8];
  }

  // Values that share pinned register `index` and are needed later move out of it.
  void vacate(unsigned index, Value except);
  void vacate_xmm(unsigned index, Value except);

  // Where this instruction's integer result goes. When the next instruction only stores it to a pinned
  // register, that is the place.
  x86::Gp destination();
  // The value goes on in the operand's register, which nobody needs any more; false where that cannot be.
  bool take_over_xmm(Value operand);
  x86::Xmm destination_xmm();

  std::int64_t constant(Value value) const { return block_->insts[value].imm; }
  bool is_constant(Value value) const { return block_->insts[value].op == Op::kConst; }
  bool is_imm32(Value value) const { return is_constant(value) && fits_i32(constant(value)); }

  void load_constant(const x86::Gp& into, std::int64_t value);

  // The value in a register: its own, or `scratch` filled with it.
  x86::Gp use(Value value, const x86::Gp& scratch);
  // Likewise for code out of the way, of a value that was in `where`.
  void move_from(const Where& where, Value value, const x86::Gp& into);
  void move(const x86::Gp& into, Value value);
  x86::Xmm use_xmm(Value value, const x86::Xmm& scratch);

  // --- Emission.

  void emit(const Inst& inst);
  void emit_get(const Inst& inst);
  void emit_set(const Inst& inst);
  // A get, whose value goes back with a constant's bits added and is used for nothing else.
  bool emit_or_in_place(const Inst& inst);

  // d = a op b for instructions of the form "op d, s".
  template <class Emit>
  void two(const Inst& inst, Emit op, bool commutative) {
    Value a = inst.operands[0];
    Value b = inst.operands[1];
    if (commutative && is_constant(a)) std::swap(a, b);
    if (commutative && !is_constant(b) && in_memory(a) && !in_memory(b)) std::swap(a, b);
    // Found before the destination is chosen, which may take over either operand's register.
    if (const auto memory = in_memory(a)) {
      const auto other = in_memory(b);
      const bool immediate = is_imm32(b);
      const x86::Gp right = immediate || other ? x86::Gp(x86::rcx) : use(b, x86::rcx);
      const x86::Gp d = destination();
      const x86::Gp to = d == right && !immediate && !other ? x86::Gp(x86::rax) : x86::Gp(d);
      a_.mov(to, *memory);
      if (immediate) {
        op(to, Imm(constant(b)));
      } else if (other) {
        op(to, *other);
      } else {
        op(to, right);
      }
      if (to != d) a_.mov(d, to);
      return;
    }
    const x86::Gp left = is_constant(a) ? x86::Gp(x86::rax) : use(a, x86::rax);
    const bool immediate = is_imm32(b);
    if (const auto memory = in_memory(b); memory && !is_constant(a)) {
      // The result's register may be lent by a, never by b.
      const x86::Gp d = destination();
      if (d != left) a_.mov(d, left);
      op(d, *memory);
      return;
    }
    const x86::Gp right = immediate ? x86::Gp(x86::rcx) : use(b, x86::rcx);
    const x86::Gp d = destination();
    if (d == right && !immediate && d != left) {
      if (commutative) {
        if (is_constant(a)) load_constant(x86::rax, constant(a));
        op(d, left);
        return;
      }
      if (is_constant(a)) load_constant(x86::rax, constant(a));
      if (left != x86::rax) a_.mov(x86::rax, left);
      op(x86::rax, right);
      a_.mov(d, x86::rax);
      return;
    }
    if (is_constant(a)) {
      load_constant(d, constant(a));
    } else if (d != left) {
      a_.mov(d, left);
    }
    if (immediate) {
      op(d, Imm(constant(b)));
    } else {
      op(d, right);
    }
  }

  void emit_add(const Inst& inst);
  // The sum of `other` and the shift that is fused_.
  void emit_add_scaled(Value other);
  void emit_add32(const Inst& inst);
  void emit_multiply(const Inst& inst, bool narrow);
  void emit_multiply_high(const Inst& inst);
  void emit_divide(const Inst& inst);
  void emit_shift(const Inst& inst);
  void emit_extend(const Inst& inst);
  void emit_count(const Inst& inst);
  void emit_popcount_by_halving(const x86::Gp& from, const x86::Gp& d);
  void emit_or_combine(const Inst& inst);

  // --- Comparisons, fused with the exit or choice that follows at once.

  static x86::CondCode condition(Op op);
  void emit_flags(const Inst& inst);
  // The host's flags say of the value what a comparison with zero would; or the comparison that it is, if that is fused.
  void note_flags_of(Value value) {
    flags_of_ = value;
    flags_at_ = a_.offset();
  }
  void note_flags() { note_flags_of(static_cast<Value>(now_)); }
  bool has_flags_of(Value value) const { return flags_of_ == value && flags_at_ == a_.offset(); }

  // The next instruction that emits code: constants emit none.
  const Inst* next_emitted() const;
  // True when the only use of the value being defined is as operand 0 of the next instruction that emits
  // code, of kind `op`. Constants in between emit none.
  bool feeds_next(Op op) const;
  // Likewise as either operand of an addition.
  bool is_added_next() const;
  // True when all its uses are as what selections and uncounts decide by, with nothing but sets between.
  bool feeds_choices() const;
  void keep_for_fused(const Inst& inst);
  void emit_compare(const Inst& inst);

  // Sets flags for operand 0 of the current instruction and gives the condition under which it is true. The
  // operands of a fused comparison are released here.
  x86::CondCode test_condition(Value value);
  void release_fused();
  void emit_select(const Inst& inst);
  void emit_uncount(const Inst& inst);
  void emit_exit_if(const Inst& inst);
  void emit_exit(const Inst& inst);
  // Jumps to a part or by a link of its own, with nothing to be done on the way.
  bool is_direct_exit(const Inst& inst) const;

  // --- The budget. A block begins if all of it fits, and is paid for piece by piece: with each instruction those up to the
  // next direct exit, so that this has nothing to give back.

  void find_payments();
  void pay(unsigned instructions);
  // What is paid for and has not run: what was paid with the guest instruction `origin`, but for those before it and
  // `retired` more.
  unsigned unretired_after(unsigned origin, unsigned retired) const;
  void refund(unsigned unretired);

  // Continues at `target`, an offset from the part's start.
  void emit_go(std::int64_t target, bool step);
  bool in_page(std::uint64_t address) const { return flat() || address < kPageSize; }
  // Whether a jump to `address` may be linked. Elsewhere paged memory may have another page the next time: that makes a far
  // link, where the supervisor runs.
  bool linkable(std::uint64_t address) const {
    return in_page(address) || (window_ != nullptr && fits_i32(static_cast<std::int64_t>(address)));
  }
  // A jump or call to a linkable address that is in no part.
  void emit_link(std::uint64_t address, bool call);
  void emit_link_if(x86::CondCode code, std::uint64_t address);
  // The jump or call to `unlinked` that was emitted last is such a link.
  void note_link(std::uint64_t address, const Label& unlinked);
  // Whether a displacement there can be patched (CodeMemory::patch_jump()).
  bool patchable_at(std::size_t offset) const;
  // Calls a function by `call`, which leaves the host's return address on the stack; continues at the part's end.
  template <class Call>
  void emit_call_and_return(const Call& call);
  void emit_exit_to(const Inst& inst);

  // In code with a window: the place in the page, or beyond, that the value is the address of, if that makes a link.
  std::optional<std::uint64_t> far_target(Value target) const;

  // rax: the guest-virtual address.
  void set_address(std::uint64_t address);
  void leave(ExitReason reason, std::uint64_t address);
  void leave_unpinned(ExitReason reason, std::uint64_t address);

  // To the guest address in rax.
  void emit_jump(bool call);

  // --- Memory.

  static constexpr std::uint64_t kPageSize = 4096;

  std::uint32_t packed(const Inst& inst) const;
  // The host instruction that comes next makes the access of the guest instruction `origin` in flat memory, or faults in its
  // place.
  void note_access(unsigned origin);
  // Where the access of `inst`, which is direct, goes; may need `scratch`.
  x86::Mem flat_location(const Inst& inst, std::int64_t offset, const x86::Gp& scratch);
  x86::Mem flat_at(const x86::Gp& base, std::int64_t offset) const;
  // Jumps to `out` if what is in `base` is no address inside of the shadow or window.
  void test_inside(const x86::Gp& base, const Label& out);
  // In a shadow or window: whether an earlier access of the part has shown that the value, or one near it, is an address inside.
  bool is_inside(Value value, std::int64_t offset);
  // The value that the other is made from by adding constants, and their sum; up to the first sum beyond the reach.
  struct Root {
    Value value;
    std::int64_t offset;
  };
  Root root_of(Value value, std::int64_t offset) const;
  bool is_stack_pointer(Value value) const {
    return block_->insts[value].op == Op::kGet && block_->insts[value].imm == o_.stack_pointer;
  }
  // In a shadow, after a set: leaves if the stack pointer has gone astray.
  void guard_stack_pointer(const Inst& inst);
  // Leaves the instruction that `inst` belongs to, which has had no effect yet, to the interpreter.
  Label leave_by_step(const Inst& inst);

  // Leaves the guest address in rax, the TLB entry in rcx; jumps to `slow` on a miss.
  void emit_lookup(ir::Access access, std::int64_t offset, const x86::Gp& base, std::uint32_t array, const Label& slow);
  void call_slow(const Inst& inst, const StubOffsets& stub, const Saved& saved);

  // --- Several accesses off one base value at near offsets share one TLB check: the first asks whether all their bytes
  // lie in one page that has an entry, and keeps its addend, or kNoAddend, in a slot; or in rcx, if nothing between them uses
  // that.

  struct Group {
    std::int64_t least, end;  // of the bytes, relative to the base
    std::size_t first, last;  // instructions
    unsigned slot = 0;        // unless it is
    bool unbroken = true;     // with the addend in rcx
  };
  static constexpr std::uint16_t kNoGroup = 0xffff;
  static constexpr std::int64_t kGroupBytes = 512;
  static constexpr int kNoAddend = 1;  // addends are multiples of the page size

  void find_groups();
  // The group of the current instruction, if others share it.
  Group* group_now();
  bool in_unbroken_group() {
    const Group* group = group_now();
    return group != nullptr && group->unbroken;
  }
  bool leaves_rcx(const Inst& inst) const;
  // Before anything else is put in a slot for the current instruction.
  void begin_group();
  void end_group();

  // The place in the TLB where accesses off the base of the current instruction leave the page that they were in last.
  std::optional<unsigned> page_slot_now();
  x86::Mem page_slot(unsigned number, unsigned field) const;  // 0: tag, 1: addend
  // With the tag in rdx and the addend in rcx; goes on at `done`.
  void refill_page_slot(unsigned number, const Label& done);

  void address_of_access(const x86::Gp& into, const x86::Gp& base, std::int64_t offset);
  // The bytes of an access or group, from base + least to beyond after that, and the array of the TLB for them.
  struct Span {
    x86::Gp base;
    std::int64_t least;
    int beyond;
    std::uint32_t array;
  };
  // Finds the span's addend, rcx, and tag, rdx, in the TLB; jumps to `miss` where its bytes have none in common, or its last
  // one has bits other than the tag's among `tag_bits`. The address is in rax: if the base was, restore_base() must follow in
  // both cases.
  void look_up(const Span& span, const Label& miss, int tag_bits = -static_cast<int>(kPageSize));
  void restore_base(const Span& span);
  // A page slot, if there is one to be asked first; what it does on the way is out of the way.
  struct SlotWay {
    std::optional<unsigned> number;
    Label miss, found;
  };
  // The addend of the span in rcx, or to `alone`; the second part belongs out of the way.
  void find_addend(const Span& span, const SlotWay& way, const Label& alone);
  void find_addend_anew(const Span& span, const SlotWay& way, const Label& alone);
  // Makes a load or store by `here`, at its location; out of the way and in a group by `alone`. Jumps to `slow` with the guest
  // address in rax when it has none. At `done` it is made, and in an unbroken group rcx says what the group's check did.
  template <class Here, class Alone>
  void access_by_tlb(const Inst& inst, const x86::Gp& base, std::uint32_t array, const Label& slow, const Label& done,
                     const Here& here, const Alone& access_alone);
  // Where a base is in rax the ways here use that themselves: then `offset` is added to it, and given.
  std::int64_t move_base(const x86::Gp& base, std::int64_t offset);
  // Finds the location of a load or store that is in no group; jumps to `slow` with the guest address in rax when it has
  // none. Leaves rdx free.
  x86::Mem locate(const Inst& inst, const x86::Gp& base, std::uint32_t array, const Label& slow);

  // The instruction is left to the interpreter; values that share a pinned register must leave it first.
  void emit_call(const Inst& inst);
  // The interpreter is told the encoding, so that it need not fetch it.
  void call_step(const Inst& inst, const Saved& saved);

  // The xmm registers that hold values needed after this instruction, each with a slot to keep it in during a
  // call. The slots are only lent: no value is spilled between here and the cold part's place in time.
  Saved live_xmms();

  template <class Function>
  static void for_each(const Saved& saved, Function function) {
    for (unsigned xmm = 0; xmm < saved.slots.size(); ++xmm) {
      if ((saved.xmms >> xmm & 1) != 0) function(xmm, saved.slots[xmm]);
    }
  }
  void load_from(const x86::Mem& at, const x86::Gp& d, ir::Access access);
  void load_from(const x86::Mem& at, const x86::Xmm& d, ir::Access access);
  void store_to(const x86::Mem& at, const x86::Gp& from, ir::Access access);
  void store_to(const x86::Mem& at, const x86::Xmm& from, ir::Access access);

  // The location of an aligned access in rcx; anything else is stepped.
  x86::Mem atomic_location(const Inst& inst, bool reads_only);

  // rax, rcx and rdx hold the old value, the location and the new value.
  void emit_atomic(const Inst& inst);
  void emit_compare_swap(const Inst& inst);
  // Without a TLB entry the whole instruction is left to the interpreter, which changes no register by it.
  void emit_zero(const Inst& inst);
  void emit_behind(const Inst& inst);
  void emit_clock();
  void emit_load(const Inst& inst);
  void emit_store(const Inst& inst);

  // --- Floating point. Rounding and flags are MXCSR's.

  // MXCSR has IE 0, DE 1, ZE 2, OE 3, UE 4, PE 5; RISC-V has NX 0, UF 1, OF 2, DZ 3, NV 4: four bits the other way
  // round. Nibble i of this is i reversed.
  static constexpr std::uint64_t kReversed = 0xf7b3d591e6a2c480;

  void emit_quiet_comparison(const Inst& inst);
  void emit_fma(const Inst& inst);
  // A negation that only multiplications and additions in one ask for is theirs.
  bool joins_fma(const Inst& inst) const;
  bool is_negated(Value value) const { return block_->insts[value].op == Op::kFneg && where_[value].negated; }
  x86::Mem sign(bool wide) const { return state(o_.signs + (wide ? 0 : 8)); }

  void emit_flags_get(const Inst& inst);
  void write_flags(const x86::Mem& mxcsr);  // edx: RISC-V's flags
  void emit_flags_set(const Inst& inst);
  void emit_float(const Inst& inst);

  struct Workspace {
    CodeHolder code;
    x86::Assembler assembler;
    std::vector<Label> labels, unlinked;
    std::vector<Cold> cold;
    std::vector<std::uint32_t> last_use, use_count;
    std::vector<Where> where;
    std::vector<Group> groups;
    std::vector<std::uint16_t> group_of;
    std::vector<std::vector<std::uint16_t>> payments;
    std::vector<Value> released, inside;
  };
  static Workspace& workspace() {
    thread_local Workspace workspace;
    return workspace;
  }

  Workspace& workspace_ = workspace();
  const StateOffsets& o_;
  const HostFeatures& features_;
  const Pins& pins_;
  const PinMap pin_of_ = map_of(pins_.integer, o_.integer_registers);
  const PinMap floating_pin_of_ = map_of(pins_.floating, o_.floating_registers);
  const std::span<const PlacedBlock> parts_;
  const bool region_;
  const std::uint64_t unfit_slots_;
  const Window* const window_;  // may be null
  const unsigned last_value_xmm_;
  std::size_t part_ = 0;  // the one being emitted, with its block and address
  const ir::Block* block_ = nullptr;
  std::uint64_t address_ = 0;

  // Memory that one compilation leaves to the next on its thread.
  CodeHolder& code_ = workspace_.code;
  x86::Assembler& a_ = workspace_.assembler;
  std::vector<Label>& labels_ = workspace_.labels;  // of the parts
  Label spill_, fill_, unpin_;
  std::vector<Cold>& cold_ = workspace_.cold;
  std::vector<Link> links_;
  std::vector<Label>& unlinked_ = workspace_.unlinked;  // of each link
  std::vector<FaultPoint> faults_;
  std::uint64_t page_slots_ = 0;

  std::size_t now_ = 0;
  std::vector<std::uint32_t>& last_use_ = workspace_.last_use;
  std::vector<std::uint32_t>& use_count_ = workspace_.use_count;
  std::vector<Where>& where_ = workspace_.where;
  std::array<Value, kValues.size()> value_of_{ir::kNone, ir::kNone, ir::kNone};
  std::array<Value, 16> xmm_of_ = [] {
    std::array<Value, 16> none;
    none.fill(ir::kNone);
    return none;
  }();
  std::array<bool, kSpillSlots> slot_used_{};
  std::vector<std::vector<std::uint16_t>>& payments_ = workspace_.payments;  // of the parts
  std::span<const std::uint16_t> paid_with_;  // of the current one, by guest instruction: up to which one is paid for by then
  std::array<Value, 32> in_state_{};  // by guest register: what the state has there, or kNone
  std::vector<Group>& groups_ = workspace_.groups;
  std::vector<std::uint16_t>& group_of_ = workspace_.group_of;  // by instruction
  std::vector<Value>& inside_ = workspace_.inside;  // in a shadow or window: values that are near addresses inside
  Value fused_ = ir::kNone;
  Value flags_of_ = ir::kNone;  // see note_flags(); as long as nothing is emitted behind flags_at_
  std::size_t flags_at_ = 0;
  std::size_t skipped_ = 0;  // instructions up to here are part of one that was emitted
  std::vector<Value>& released_ = workspace_.released;
  bool lent_ = false;           // an operand's register has become the result's
  bool operands_read_ = false;  // by the current instruction
};

}  // namespace doppel::x64
