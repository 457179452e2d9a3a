// Loads, stores and atomics, by the software TLB.
#include "host/x64/emission.h"

namespace doppel::x64 {
namespace {

// The low bytes of `value` that a store of that width keeps, as an immediate has them.
std::int64_t narrowed(std::int64_t value, ir::Access access) {
  switch (ir::bytes_of(access)) {
    case 1: return static_cast<std::int8_t>(value);
    case 2: return static_cast<std::int16_t>(value);
    default: return static_cast<std::int32_t>(value);
  }
}

// What of an address agrees with an entry's tag: its page, and that an access there is aligned.
int tag_bits(ir::Access access) { return -4096 | static_cast<int>(ir::bytes_of(access) - 1); }

}  // namespace

std::uint32_t Compiler::Emission::packed(const Inst& inst) const {
  const std::uint64_t at = address_of(block_->origins[inst.origin].offset) % kPageSize;
  return pack_slow_access(inst.access(), static_cast<unsigned>(at), unretired_after(inst.origin, 0));
}

void Compiler::Emission::note_access(unsigned origin) {
  if (!flat() && window_ == nullptr) return;
  faults_.push_back({static_cast<std::uint32_t>(a_.offset()), unretired_after(origin, 0),
                     address_of(block_->origins[origin].offset)});
}

x86::Mem Compiler::Emission::flat_at(const x86::Gp& base, std::int64_t offset) const {
  x86::Mem at = x86::ptr(base, static_cast<int>(offset));
  if (o_.memory != MemoryModel::kFlat) at.setSegment(x86::gs);
  return at;
}

static bool is_near(std::int64_t distance) { return distance <= kShadowReach && distance >= -kShadowReach; }

Compiler::Emission::Root Compiler::Emission::root_of(Value value, std::int64_t offset) const {
  while (is_near(offset) && block_->insts[value].op == Op::kAdd && is_constant(block_->insts[value].operands[1])) {
    offset += constant(block_->insts[value].operands[1]);
    value = block_->insts[value].operands[0];
  }
  return {value, offset};
}

bool Compiler::Emission::is_inside(Value value, std::int64_t offset) {
  const Root root = root_of(value, offset);
  if (!is_near(root.offset)) return false;
  const bool is_kept_inside = o_.memory == MemoryModel::kShadow && is_stack_pointer(root.value);
  if (is_kept_inside || std::ranges::find(inside_, root.value) != inside_.end()) return true;
  inside_.push_back(root.value);
  return false;
}

void Compiler::Emission::guard_stack_pointer(const Inst& inst) {
  if (o_.memory != MemoryModel::kShadow || inst.imm != o_.stack_pointer) return;
  const Root root = root_of(inst.operands[0], 0);
  if (is_stack_pointer(root.value) && root.offset <= kStackStride && root.offset >= -kStackStride) return;
  const auto pin = pinned(inst.imm);
  if (!pin) a_.mov(x86::rax, state(inst.imm));
  a_.test(state(o_.outside), pin ? kPins[*pin] : x86::Gp(x86::rax));
  const Label out = a_.newLabel();
  a_.jnz(out);
  later([this, out, retired = inst.origin + 1u, unretired = unretired_after(inst.origin, 1)] {
    a_.bind(out);
    refund(unretired);
    const bool last = retired == block_->origins.size();
    leave(ExitReason::kGo, address_of(last ? block_->guest_bytes : block_->origins[retired].offset));
  });
}

void Compiler::Emission::test_inside(const x86::Gp& base, const Label& out) {
  if (window_ != nullptr) {
    a_.cmp(base, state(o_.window));
    a_.jb(out);
  } else {
    a_.test(state(o_.outside), base);
    a_.jnz(out);
  }
}

x86::Mem Compiler::Emission::flat_location(const Inst& inst, std::int64_t offset, const x86::Gp& scratch) {
  const Value value = inst.operands[0];
  x86::Gp base = use(value, scratch);
  const bool is_bounded = o_.memory == MemoryModel::kShadow || window_ != nullptr;
  if (!is_bounded || is_inside(value, offset)) return flat_at(base, offset);
  if (offset > kShadowReach || offset < -kShadowReach) {
    a_.lea(scratch, x86::ptr(base, static_cast<int>(offset)));
    base = scratch;
    offset = 0;
  }
  // What is no address inside is as rare as what has no page, and found in the same way.
  const Label out = a_.newLabel();
  test_inside(base, out);
  later([this, out, origin = inst.origin] {
    a_.bind(out);
    note_access(origin);
    a_.ud2();
  });
  return flat_at(base, offset);
}

Label Compiler::Emission::leave_by_step(const Inst& inst) {
  const Label out = a_.newLabel();
  later([=, this, origin = inst.origin, unretired = unretired_after(inst.origin, 0)] {
    a_.bind(out);
    refund(unretired);
    leave(ExitReason::kStep, address_of(block_->origins[origin].offset));
  });
  return out;
}

void Compiler::Emission::emit_lookup(ir::Access access, std::int64_t offset, const x86::Gp& base, std::uint32_t array,
                                     const Label& slow) {
  look_up({base, offset, static_cast<int>(ir::bytes_of(access)) - 1, array}, slow);
}

void Compiler::Emission::call_slow(const Inst& inst, const StubOffsets& stub, const Saved& saved) {
  for_each(saved, [this](unsigned xmm, unsigned index) { a_.movsd(slot(index), x86::xmm(xmm)); });
  if (region_) a_.call(spill_);
  a_.mov(x86::edx, packed(inst));
  a_.call(state(region_ ? stub.bare : stub.full));
  if (region_) a_.call(fill_);
  for_each(saved, [this](unsigned xmm, unsigned index) { a_.movsd(x86::xmm(xmm), slot(index)); });
}

void Compiler::Emission::find_groups() {
  groups_.clear();
  group_of_.assign(block_->insts.size(), kNoGroup);
  struct Open {
    Value base;
    Op op;
    std::uint16_t group;
  };
  std::vector<Open> open;
  for (std::size_t i = 0; i < block_->insts.size(); ++i) {
    const Inst& inst = block_->insts[i];
    // What the interpreter runs may change translations, and there may be another TLB.
    if (inst.op == Op::kCall || (inst.op == Op::kSet && inst.imm == o_.tlb)) open.clear();
    if ((inst.op != Op::kLoad && inst.op != Op::kStore) || is_direct(inst)) continue;
    const std::int64_t begin = inst.imm;
    const std::int64_t end = begin + ir::bytes_of(inst.access());
    const auto known = std::ranges::find_if(
        open, [&](const Open& o) { return o.base == inst.operands[0] && o.op == inst.op; });
    if (known != open.end()) {
      Group& group = groups_[known->group];
      const std::int64_t least = std::min(group.least, begin);
      const std::int64_t most = std::max(group.end, end);
      if (most - least <= kGroupBytes) {
        group.least = least;
        group.end = most;
        for (std::size_t between = group.last + 1; between < i; ++between) {
          group.unbroken = group.unbroken && leaves_rcx(block_->insts[between]);
        }
        group.last = i;
        group_of_[i] = known->group;
        continue;
      }
      open.erase(known);
    }
    const auto number = static_cast<std::uint16_t>(groups_.size());
    groups_.push_back({begin, end, i, i});
    group_of_[i] = number;
    open.push_back({inst.operands[0], inst.op, number});
  }
}

Compiler::Emission::Group* Compiler::Emission::group_now() {
  const std::uint16_t number = group_of_[now_];
  if (number == kNoGroup || groups_[number].first == groups_[number].last) return nullptr;
  return &groups_[number];
}

bool Compiler::Emission::leaves_rcx(const Inst& inst) const {
  if (inst.op == Op::kAdd) return is_imm32(inst.operands[1]);
  return inst.op == Op::kConst || inst.op == Op::kGet || inst.op == Op::kSet;
}

void Compiler::Emission::begin_group() {
  Group* group = group_now();
  if (group != nullptr && !group->unbroken && group->first == now_) group->slot = take_slot();
}

void Compiler::Emission::end_group() {
  Group* group = group_now();
  if (group != nullptr && !group->unbroken && group->last == now_) slot_used_[group->slot] = false;
}

std::optional<unsigned> Compiler::Emission::page_slot_now() {
  if (!tlb_by_segment()) return std::nullopt;
  const Inst& inst = block_->insts[now_];
  const Inst& base = block_->insts[inst.operands[0]];
  const auto number = base.op == Op::kGet ? guest_register_at(base.imm) : std::nullopt;
  if (!number || (!region_ && base.imm != o_.stack_pointer)) return std::nullopt;
  const unsigned slot = 2 * *number + (inst.op == Op::kStore ? 1 : 0);
  const std::uint64_t bit = std::uint64_t{1} << slot;
  if ((unfit_slots_ & bit) != 0) return std::nullopt;
  page_slots_ |= bit;
  return slot;
}

x86::Mem Compiler::Emission::page_slot(unsigned number, unsigned field) const {
  x86::Mem at = x86::qword_ptr_abs(o_.tlb_slots + 16 * number + 8 * field);
  at.setSegment(x86::gs);
  return at;
}

void Compiler::Emission::refill_page_slot(unsigned number, const Label& done) {
  x86::Mem left = x86::byte_ptr_abs(o_.tlb_slot_refills + number);
  left.setSegment(x86::gs);
  const Label last = a_.newLabel();
  a_.cmp(left, 0);
  a_.je(done);
  a_.dec(left);
  a_.jz(last);
  a_.mov(page_slot(number, 0), x86::rdx);
  a_.mov(page_slot(number, 1), x86::rcx);
  a_.jmp(done);
  // From here on it misses each time, which the host predicts.
  a_.bind(last);
  a_.mov(page_slot(number, 0), -1);
  a_.jmp(done);
}

void Compiler::Emission::address_of_access(const x86::Gp& into, const x86::Gp& base, std::int64_t offset) {
  if (offset != 0) {
    a_.lea(into, x86::ptr(base, static_cast<int>(offset)));
  } else if (base != into) {
    a_.mov(into, base);
  }
}

void Compiler::Emission::look_up(const Span& span, const Label& miss, int tag_bits) {
  address_of_access(x86::rax, span.base, span.least);
  const TlbEntry entry(a_, o_, features_, tlb_by_segment());
  // Entries of neighbouring pages are in other places: the last byte's tag at the first byte's place says both.
  address_of_access(x86::rdx, x86::rax, span.beyond);
  a_.and_(x86::rdx, tag_bits);
  a_.cmp(x86::rdx, entry.field(span.array));
  a_.jne(miss);
  a_.mov(x86::rcx, entry.field(span.array + 8));
}

void Compiler::Emission::restore_base(const Span& span) {
  if (span.base == x86::rax && span.least != 0) a_.add(x86::rax, static_cast<int>(-span.least));
}

x86::Mem Compiler::Emission::locate(const Inst& inst, const x86::Gp& base, std::uint32_t array, const Label& slow) {
  const std::optional<unsigned> page = page_slot_now();
  if (!page) {
    emit_lookup(inst.access(), inst.imm, base, array, slow);
    return x86::ptr(x86::rax, x86::rcx);
  }
  const std::int64_t offset = inst.imm - move_base(base, inst.imm);
  const Label miss = a_.newLabel();
  const Label ready = a_.newLabel();
  address_of_access(x86::rdx, base, offset);
  a_.and_(x86::rdx, tag_bits(inst.access()));
  a_.cmp(x86::rdx, page_slot(*page, 0));
  a_.jne(miss);
  a_.mov(x86::rcx, page_slot(*page, 1));
  a_.bind(ready);
  later([=, this, access = inst.access()] {
    a_.bind(miss);
    emit_lookup(access, offset, base, array, slow);
    refill_page_slot(*page, ready);
  });
  return x86::ptr(base, x86::rcx, 0, static_cast<int>(offset));
}

std::int64_t Compiler::Emission::move_base(const x86::Gp& base, std::int64_t offset) {
  if (base != x86::rax) return 0;
  if (offset != 0) a_.add(x86::rax, static_cast<int>(offset));
  return offset;
}

void Compiler::Emission::find_addend(const Span& span, const SlotWay& way, const Label& alone) {
  if (!way.number) {
    look_up(span, alone);
    return restore_base(span);
  }
  address_of_access(x86::rdx, span.base, span.least);
  a_.sub(x86::rdx, page_slot(*way.number, 0));
  a_.cmp(x86::rdx, static_cast<int>(kPageSize) - 1 - span.beyond);
  a_.ja(way.miss);
  a_.mov(x86::rcx, page_slot(*way.number, 1));
  // An empty slot may seem to match, but has no addend.
  a_.test(x86::cl, kNoAddend);
  a_.jnz(way.miss);
  a_.bind(way.found);
}

void Compiler::Emission::find_addend_anew(const Span& span, const SlotWay& way, const Label& alone) {
  if (!way.number) return;
  a_.bind(way.miss);
  look_up(span, alone);
  restore_base(span);
  refill_page_slot(*way.number, way.found);
}

template <class Here, class Alone>
void Compiler::Emission::access_by_tlb(const Inst& inst, const x86::Gp& base, std::uint32_t array, const Label& slow,
                                       const Label& done, const Here& here, const Alone& access_alone) {
  const Group* group = group_now();
  if (group == nullptr) return here(locate(inst, base, array, slow));
  const std::int64_t moved = move_base(base, inst.imm);
  const std::int64_t offset = inst.imm - moved;
  const Span span{base, group->least - moved, static_cast<int>(group->end - group->least - 1), array};
  const bool is_first = group->first == now_;
  const bool in_rcx = group->unbroken;
  const x86::Mem kept = slot(group->slot);
  const SlotWay way{is_first ? page_slot_now() : std::nullopt, a_.newLabel(), a_.newLabel()};
  const Label alone = a_.newLabel();
  const Label ready = a_.newLabel();
  if (is_first) {
    find_addend(span, way, alone);
    if (!in_rcx) a_.mov(kept, x86::rcx);
  } else {
    if (!in_rcx) a_.mov(x86::rcx, kept);
    a_.test(x86::cl, kNoAddend);
    a_.jnz(alone);
  }
  a_.bind(ready);
  here(x86::ptr(base, x86::rcx, 0, static_cast<int>(offset)));
  later([=, this, number = group->slot, access = inst.access()] {
    if (is_first) find_addend_anew(span, way, alone);
    a_.bind(alone);
    if (is_first) {
      restore_base(span);
      if (!in_rcx) a_.mov(slot(number), kNoAddend);
    }
    emit_lookup(access, offset, span.base, span.array, slow);
    if (!in_rcx) return void(a_.jmp(ready));
    access_alone(x86::ptr(x86::rax, x86::rcx));
    a_.mov(x86::ecx, kNoAddend);
    a_.jmp(done);
  });
}

void Compiler::Emission::emit_call(const Inst& inst) {
  for (unsigned index = 0; index < pins_.integer.size(); ++index) vacate(index, ir::kNone);
  for (unsigned index = 0; index < pins_.floating.size(); ++index) vacate_xmm(index, ir::kNone);
  for (unsigned number = 0; number < in_state_.size(); ++number) leave_state(number, ir::kNone);
  call_step(inst, live_xmms());
}

void Compiler::Emission::call_step(const Inst& inst, const Saved& saved) {
  if (flat()) {
    load_constant(x86::rax, static_cast<std::int64_t>(address_ & ~(kPageSize - 1)));
    a_.mov(state(o_.page), x86::rax);
  }
  a_.mov(x86::ecx, block_->origins[inst.origin].raw);
  call_slow(inst, o_.step, saved);
}

Compiler::Emission::Saved Compiler::Emission::live_xmms() {
  Saved saved;
  for (unsigned i = kFirstValueXmm; i <= last_value_xmm_; ++i) {
    if (xmm_of_[i] == ir::kNone || !live_after(xmm_of_[i]) || xmm_of_[i] == now_) continue;
    saved.xmms |= static_cast<std::uint16_t>(1u << i);
    saved.slots[i] = static_cast<std::uint16_t>(take_slot());
  }
  for_each(saved, [this](unsigned, unsigned index) { slot_used_[index] = false; });
  return saved;
}

void Compiler::Emission::load_from(const x86::Mem& at, const x86::Gp& d, ir::Access access) {
  x86::Mem sized = at;
  sized.setSize(ir::bytes_of(access));
  switch (access) {
    case ir::Access::kI8:
    case ir::Access::kI16: a_.movsx(d, sized); break;
    case ir::Access::kU8:
    case ir::Access::kU16: a_.movzx(d.r32(), sized); break;
    case ir::Access::kI32: a_.movsxd(d, sized); break;
    case ir::Access::kU32: a_.mov(d.r32(), sized); break;
    default: a_.mov(d, sized); break;
  }
}

void Compiler::Emission::load_from(const x86::Mem& at, const x86::Xmm& d, ir::Access access) {
  if (access == ir::Access::kF64) {
    a_.movsd(d, at);
  } else {
    a_.movss(d, at);
  }
}

void Compiler::Emission::store_to(const x86::Mem& at, const x86::Gp& from, ir::Access access) {
  switch (ir::bytes_of(access)) {
    case 1: a_.mov(at, from.r8()); break;
    case 2: a_.mov(at, from.r16()); break;
    case 4: a_.mov(at, from.r32()); break;
    default: a_.mov(at, from); break;
  }
}

void Compiler::Emission::store_to(const x86::Mem& at, const x86::Xmm& from, ir::Access access) {
  if (access == ir::Access::kF64) {
    a_.movsd(at, from);
  } else {
    a_.movss(at, from);
  }
}

void Compiler::Emission::emit_behind(const Inst& inst) {
  assert(!flat());
  const Label out = leave_by_step(inst);
  a_.mov(x86::rax, state(o_.page));
  a_.add(x86::rax, 4096);
  const TlbEntry entry(a_, o_, features_, tlb_by_segment());
  a_.cmp(x86::rax, entry.field(o_.tlb_fetch));
  a_.jne(out);
  a_.mov(x86::rcx, entry.field(o_.tlb_fetch + 8));
  a_.cmp(x86::word_ptr(x86::rcx, static_cast<int>(o_.page_first)), static_cast<std::int16_t>(inst.imm));
  a_.jne(out);
}

x86::Mem Compiler::Emission::atomic_location(const Inst& inst, bool reads_only) {
  const x86::Gp base = use(inst.operands[0], x86::rax);
  const unsigned bytes = ir::bytes_of(inst.access());
  const Label out = leave_by_step(inst);
  if (is_direct(inst)) {
    a_.test(base.r8(), static_cast<int>(bytes - 1));
    a_.jnz(out);
    if (o_.memory == MemoryModel::kShadow || window_ != nullptr) test_inside(base, out);
    if (base != x86::rcx) a_.mov(x86::rcx, base);
    x86::Mem at = flat_at(x86::rcx, 0);
    at.setSize(bytes);
    return at;
  }
  look_up({base, 0, 0, reads_only ? o_.tlb_read : o_.tlb_write}, out, tag_bits(inst.access()));
  a_.add(x86::rcx, x86::rax);
  return x86::ptr(x86::rcx, 0, bytes);
}

void Compiler::Emission::emit_atomic(const Inst& inst) {
  const auto op = static_cast<ir::AtomicOp>(inst.imm);
  const bool wide = inst.access() == ir::Access::kI64;
  const auto sized = [wide](const x86::Gp& reg) -> x86::Gp { return wide ? x86::Gp(reg) : x86::Gp(reg.r32()); };
  const x86::Mem at = atomic_location(inst, op == ir::AtomicOp::kLoad);
  const x86::Gp rax = sized(x86::rax);
  const x86::Gp rdx = sized(x86::rdx);
  if (op == ir::AtomicOp::kLoad) {
    note_access(inst.origin);
    a_.mov(rax, at);
  } else if (op == ir::AtomicOp::kSwap || op == ir::AtomicOp::kAdd) {
    move(x86::rax, inst.operands[1]);
    note_access(inst.origin);
    if (op == ir::AtomicOp::kSwap) {
      a_.xchg(at, rax);
    } else {
      a_.lock().xadd(at, rax);
    }
  } else {
    // The operand in a register of its own, or in a slot for the while.
    const Value operand = inst.operands[1];
    const Where where = where_[operand];
    const unsigned lent = take_slot();
    const x86::Mem kept = state(o_.slots + 8 * lent, wide ? 8 : 4);
    std::optional<x86::Gp> held;
    if (where.kind == Kind::kRegister || where.kind == Kind::kPinned) {
      held = sized(use(operand, x86::rdx));
    } else {
      a_.mov(slot(lent), use(operand, x86::rdx));
    }
    const auto with_operand = [&](auto emit) { held ? emit(*held) : emit(kept); };
    note_access(inst.origin);
    a_.mov(rax, at);
    const Label again = a_.newLabel();
    a_.bind(again);
    a_.mov(rdx, rax);
    switch (op) {
      case ir::AtomicOp::kAnd: with_operand([&](auto&& x) { a_.and_(rdx, x); }); break;
      case ir::AtomicOp::kOr: with_operand([&](auto&& x) { a_.or_(rdx, x); }); break;
      case ir::AtomicOp::kXor: with_operand([&](auto&& x) { a_.xor_(rdx, x); }); break;
      default: {
        const x86::CondCode replaces = op == ir::AtomicOp::kMin    ? x86::CondCode::kG
                                       : op == ir::AtomicOp::kMax  ? x86::CondCode::kL
                                       : op == ir::AtomicOp::kMinu ? x86::CondCode::kA
                                                                   : x86::CondCode::kB;
        with_operand([&](auto&& x) {
          a_.cmp(rdx, x);
          a_.cmov(replaces, rdx, x);
        });
        break;
      }
    }
    note_access(inst.origin);
    a_.lock().cmpxchg(at, rdx);
    a_.jne(again);
    slot_used_[lent] = false;
  }
  const x86::Gp d = destination();
  if (wide) {
    a_.mov(d, x86::rax);
  } else {
    a_.movsxd(d, x86::eax);
  }
}

void Compiler::Emission::emit_compare_swap(const Inst& inst) {
  const bool wide = inst.access() == ir::Access::kI64;
  const x86::Mem at = atomic_location(inst, false);
  move(x86::rax, inst.operands[1]);
  const x86::Gp next = use(inst.operands[2], x86::rdx);
  note_access(inst.origin);
  a_.lock().cmpxchg(at, wide ? x86::Gp(next) : x86::Gp(next.r32()));
  operands_read_ = true;
  a_.sete(x86::al);
  a_.movzx(x86::eax, x86::al);
  a_.mov(destination(), x86::rax);
}

void Compiler::Emission::emit_zero(const Inst& inst) {
  // Not through a window: what is zeroed is mostly somebody else's from then on, who would have the host map it again.
  if (flat()) {
    x86::Mem at = flat_location(inst, 0, x86::rax);
    a_.xorps(x86::xmm0, x86::xmm0);
    for (int done = 0; done < inst.imm; done += 16) {
      note_access(inst.origin);
      a_.movaps(at, x86::xmm0);
      at.addOffset(16);
    }
    return;
  }
  const Label slow = a_.newLabel();
  const Label done = a_.newLabel();
  const auto saved = live_xmms();
  emit_lookup(ir::Access::kU8, 0, use(inst.operands[0], x86::rax), o_.tlb_write, slow);
  a_.add(x86::rcx, x86::rax);
  const Label found = a_.newLabel();
  a_.bind(found);
  a_.xorps(x86::xmm0, x86::xmm0);
  for (int at = 0; at < inst.imm; at += 16) a_.movaps(x86::ptr(x86::rcx, at), x86::xmm0);
  a_.bind(done);
  later([=, this] {
    a_.bind(slow);
    a_.call(state(o_.refill_write));
    a_.test(x86::rcx, x86::rcx);
    a_.jnz(found);
    call_step(inst, saved);
    a_.jmp(done);
  });
}

// Calls keep no floating-point register: those in use go to their slots, and pinned ones to the state, meanwhile.
void Compiler::Emission::emit_clock() {
  const Saved saved = live_xmms();
  for_each(saved, [this](unsigned xmm, unsigned index) { a_.movsd(slot(index), x86::xmm(xmm)); });
  const Pins pinned{{}, pins_.floating};
  store_pins(pinned);
  a_.call(state(o_.clock));
  load_pins(pinned);
  for_each(saved, [this](unsigned xmm, unsigned index) { a_.movsd(x86::xmm(xmm), slot(index)); });
  a_.mov(destination(), x86::rax);
}

void Compiler::Emission::emit_load(const Inst& inst) {
  if (is_direct(inst)) {
    const x86::Mem at = flat_location(inst, inst.imm, x86::rax);
    if (inst.type != Type::kI64) {
      const x86::Xmm d = destination_xmm();
      note_access(inst.origin);
      return load_from(at, d, inst.access());
    }
    const x86::Gp d = destination();
    note_access(inst.origin);
    return load_from(at, d, inst.access());
  }
  const Label slow = a_.newLabel();
  const Label done = a_.newLabel();
  const bool unbroken = in_unbroken_group();
  begin_group();
  // What making room for the destination emits must come before the way to the slow path branches off.
  const x86::Gp base = use(inst.operands[0], x86::rax);
  const bool floating = inst.type != Type::kI64;
  if (floating) {
    const x86::Xmm d = destination_xmm();
    const auto saved = live_xmms();
    const auto load = [d, this, access = inst.access()](const x86::Mem& at) { load_from(at, d, access); };
    access_by_tlb(inst, base, o_.tlb_read, slow, done, load, load);
    end_group();
    a_.bind(done);
    later([=, this] {
      a_.bind(slow);
      call_slow(inst, o_.read, saved);
      a_.movq(d, x86::rax);
      if (unbroken) a_.mov(x86::ecx, kNoAddend);
      a_.jmp(done);
    });
    return;
  }
  const x86::Gp d = destination();
  const auto saved = live_xmms();
  const auto load = [d, this, access = inst.access()](const x86::Mem& at) { load_from(at, d, access); };
  access_by_tlb(inst, base, o_.tlb_read, slow, done, load, load);
  end_group();
  a_.bind(done);
  later([=, this] {
    a_.bind(slow);
    call_slow(inst, o_.read, saved);
    if (d != x86::rax) a_.mov(d, x86::rax);
    if (unbroken) a_.mov(x86::ecx, kNoAddend);
    a_.jmp(done);
  });
}

void Compiler::Emission::emit_store(const Inst& inst) {
  if (is_direct(inst)) {
    const Value value = inst.operands[1];
    x86::Mem at = flat_location(inst, inst.imm, x86::rax);
    if (block_->insts[value].type != Type::kI64) {
      const x86::Xmm from = use_xmm(value, x86::xmm0);
      note_access(inst.origin);
      return store_to(at, from, inst.access());
    }
    if (is_imm32(value)) {
      at.setSize(ir::bytes_of(inst.access()));
      note_access(inst.origin);
      a_.mov(at, Imm(narrowed(constant(value), inst.access())));
      return;
    }
    const x86::Gp from = use(value, x86::rdx);
    note_access(inst.origin);
    return store_to(at, from, inst.access());
  }
  const Label slow = a_.newLabel();
  const Label done = a_.newLabel();
  const bool unbroken = in_unbroken_group();
  begin_group();
  const Value value = inst.operands[1];
  const bool floating = block_->insts[value].type != Type::kI64;
  const auto saved = live_xmms();
  const Where where = where_[value];
  const auto store = [&](const x86::Mem& at) {
    floating ? store_to(at, use_xmm(value, x86::xmm0), inst.access()) : store_to(at, use(value, x86::rdx), inst.access());
  };
  // The value is still where it was: nothing has been emitted since.
  const auto store_alone = [where, value, this, access = inst.access()](const x86::Mem& at) {
    move_from(where, value, x86::rdx);
    store_to(at, x86::rdx, access);
  };
  access_by_tlb(inst, use(inst.operands[0], x86::rax), o_.tlb_write, slow, done, store, store_alone);
  end_group();
  a_.bind(done);
  later([=, this] {
    a_.bind(slow);
    move_from(where, value, x86::rcx);
    call_slow(inst, o_.write, saved);
    if (unbroken) a_.mov(x86::ecx, kNoAddend);
    a_.jmp(done);
  });
}

}  // namespace doppel::x64
