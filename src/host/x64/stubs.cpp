// What all code shares: entry, exit, and the ways to the slow paths.
#include "host/x64/emission.h"

#include <bit>
#include <span>

namespace doppel::x64 {

void set_segment_base(std::uintptr_t base) {
  // Of the running thread. Compiled code is the only one to use that segment.
  asm volatile("wrgsbase %0" : : "r"(base));
}

// An entry has 16 bytes.
TlbEntry::TlbEntry(x86::Assembler& a, const StateOffsets& o, const HostFeatures& features, bool by_segment)
    : by_segment_(by_segment) {
  if (features.bmi2) {
    a.rorx(x86::ecx, x86::eax, 8);
  } else {
    a.mov(x86::ecx, x86::eax);
    a.shr(x86::ecx, 8);
  }
  a.and_(x86::ecx, static_cast<int>((o.tlb_entries - 1) << 4));
  if (!by_segment_) a.add(x86::rcx, state(o.tlb));
}

x86::Mem TlbEntry::field(std::uint32_t offset) const {
  x86::Mem at = x86::qword_ptr(x86::rcx, static_cast<int>(offset));
  if (by_segment_) at.setSegment(x86::gs);
  return at;
}

// Same tag in the fetch TLB, then the page's own table of entries, whose empty ones lead back to the dispatcher.
static void emit_jump_by_tlb(x86::Assembler& a, const StateOffsets& o, const HostFeatures& features, const Label& miss,
                             bool by_segment, bool call) {
  const TlbEntry entry(a, o, features, by_segment);
  a.mov(x86::rdx, x86::rax);
  a.and_(x86::rdx, -4096);
  a.mov(state(o.pc), x86::rax);
  a.cmp(x86::rdx, entry.field(o.tlb_fetch));
  a.jne(miss);
  a.mov(x86::rcx, entry.field(o.tlb_fetch + 8));
  a.mov(state(o.page), x86::rdx);
  a.and_(x86::eax, 0xffe);
  a.mov(x86::eax, x86::dword_ptr(x86::rcx, x86::rax, 1, static_cast<int>(o.page_entries)));
  a.add(x86::rax, state(o.code));
  call ? a.call(x86::rax) : a.jmp(x86::rax);
}

void emit_jump_to_rax(x86::Assembler& a, const StateOffsets& o, const HostFeatures& features, const Label& miss,
                      bool by_segment, bool call) {
  if (o.memory == MemoryModel::kPaged) return emit_jump_by_tlb(a, o, features, miss, by_segment, call);
  a.mov(x86::ecx, x86::eax);
  a.and_(x86::ecx, state(o.jump_mask, 4));
  a.mov(x86::rdx, state(o.tlb));
  // An entry has 16 bytes, and addresses are even.
  a.cmp(x86::rax, x86::qword_ptr(x86::rdx, x86::rcx, 3));
  a.jne(miss);
  const x86::Mem code = x86::qword_ptr(x86::rdx, x86::rcx, 3, 8);
  call ? a.call(code) : a.jmp(code);
}

void emit_leave(x86::Assembler& a, const StateOffsets& o, ExitReason reason) {
  a.jmp(state(o.leave + 8 * static_cast<unsigned>(reason)));
}

std::vector<std::byte> Compiler::make_entry_miss() const {
  CodeHolder code;
  code.init(Environment::host());
  x86::Assembler a(&code);
  a.mov(state(offsets_.exit_reason), static_cast<int>(ExitReason::kGo));
  a.jmp(state(offsets_.exit));
  return bytes_of(code);
}

PassageCode Compiler::make_passage(const Passage& passage) const {
  CodeHolder code;
  code.init(Environment::host());
  x86::Assembler a(&code);
  PassageCode made{};
  const Label other = a.newLabel(), unlinked = a.newLabel(), site = a.newLabel();
  const auto from = static_cast<std::int64_t>(passage.from), to = static_cast<std::int64_t>(passage.to);
  // Where kernels lie.
  const bool direct = fits_i32(from) && fits_i32(to);
  if (direct) {
    const auto index = static_cast<std::uint32_t>(passage.to / 4096 % offsets_.tlb_entries);
    const auto entry = static_cast<int>(offsets_.tlb_fetch + 16 * index);
    a.cmp(state(offsets_.page), from);
    a.jne(other);
    a.mov(x86::rcx, state(offsets_.tlb));
    a.mov(x86::rdx, reinterpret_cast<std::uintptr_t>(passage.page));
    a.cmp(x86::qword_ptr(x86::rcx, entry), to);
    a.jne(other);
    a.cmp(x86::qword_ptr(x86::rcx, entry + 8), x86::rdx);
    a.jne(other);
    a.mov(state(offsets_.page), to);
    a.long_().jmp(unlinked);
    made.link = {static_cast<std::uint32_t>(a.offset()) - 4, 0, passage.offset};
    a.bind(site);
  }
  a.bind(other);
  a.mov(x86::rax, state(offsets_.page));
  a.add(x86::rax, static_cast<int>(to + passage.offset - from));
  const Label miss = a.newLabel();
  emit_jump_to_rax(a, offsets_, features_, miss, false);
  a.bind(miss);
  emit_leave(a, offsets_, ExitReason::kGo);
  if (direct) {
    a.bind(unlinked);
    made.link.unlinked = static_cast<std::uint32_t>(a.offset());
    a.mov(x86::rax, to + passage.offset);
    a.lea(x86::rcx, x86::ptr(site, -4));
    emit_leave(a, offsets_, ExitReason::kLink);
  }
  made.bytes = bytes_of(code);
  return made;
}

Stubs Compiler::make_stubs(SlowHelper read, SlowHelper write, SlowHelper step, ClockHelper clock) const {
  CodeHolder code;
  code.init(Environment::host());
  x86::Assembler a(&code);
  Stubs stubs{};
  const auto spill = [&] {
    for (std::size_t i = 0; i < offsets_.pinned.size(); ++i) a.mov(state(offsets_.pinned[i]), kPins[i]);
  };
  const auto fill = [&](bool all) {
    for (std::size_t i = 0; i < offsets_.pinned.size(); ++i) {
      const bool clobbered_by_calls = kPins[i] == x86::r9 || kPins[i] == x86::r10 || kPins[i] == x86::r11;
      if (all || clobbered_by_calls) a.mov(kPins[i], state(offsets_.pinned[i]));
    }
  };
  const auto here = [&] { return static_cast<std::uint32_t>(a.offset()); };
  const std::array<x86::Gp, 6> saved{x86::rbx, x86::rbp, x86::r12, x86::r13, x86::r14, x86::r15};

  stubs.enter = here();
  for (const x86::Gp& reg : saved) a.push(reg);
  a.lea(kState, x86::ptr(x86::rdi, kStateBias));
  a.mov(x86::rax, x86::rsi);
  a.mov(state(offsets_.stack), x86::rsp);
  // The return address and what was saved make an odd number of words.
  a.sub(x86::rsp, kPairBytes + 8);
  a.mov(x86::qword_ptr(x86::rsp, 8), kNoAddress);
  a.mov(kBudget, state(offsets_.budget));
  fill(true);
  a.jmp(x86::rax);

  // The guest addresses on the stack may mean something else by now, or be too many: forget all but the lowest pair.
  const auto forget_pairs = [&] {
    a.mov(x86::rsp, state(offsets_.stack));
    a.sub(x86::rsp, kPairBytes + 8);
  };
  // What GS leads to depends on where it goes.
  const auto jump_to_rax = [&] {
    const Label miss = a.newLabel();
    emit_jump_to_rax(a, offsets_, features_, miss, false);
    a.bind(miss);
    emit_leave(a, offsets_, ExitReason::kGo);
  };
  const Label exit = a.newLabel();
  for (unsigned reason = 0; reason < kLeaveReasons; ++reason) {
    stubs.leave[reason] = here();
    const Label out = a.newLabel();
    if (reason == static_cast<unsigned>(ExitReason::kSpent) && offsets_.memory == MemoryModel::kPaged) {
      a.cmp(state(offsets_.slices), 0);
      a.je(out);
      a.mov(x86::rcx, state(offsets_.attention));
      a.cmp(x86::dword_ptr(x86::rcx), 0);
      a.jne(out);
      a.dec(state(offsets_.slices));
      a.mov(x86::rcx, state(offsets_.slice));
      a.add(kBudget, x86::rcx);
      a.add(state(offsets_.slice_end), x86::rcx);
      forget_pairs();
      jump_to_rax();
    }
    a.bind(out);
    if (reason == static_cast<unsigned>(ExitReason::kLink)) a.mov(state(offsets_.exit_site), x86::rcx);
    a.mov(state(offsets_.pc), x86::rax);
    a.mov(state(offsets_.exit_reason), reason);
    a.jmp(exit);
  }
  a.bind(exit);
  stubs.exit = here();
  spill();
  const Label leave = a.newLabel();
  a.bind(leave);
  stubs.exit_spilled = here();
  a.mov(state(offsets_.budget), kBudget);
  a.mov(x86::rsp, state(offsets_.stack));
  for (auto reg = saved.rbegin(); reg != saved.rend(); ++reg) a.pop(*reg);
  a.ret();

  // In: rax, an address of the guest. Out: rcx, the host's, if the TLB has a chunk for that, which then fills the entry that
  // the address missed; else 0. Not for what may reach into the next page. Keeps all other registers.
  const auto refill = [&](std::uint32_t entries, std::uint32_t chunks) {
    const std::array<x86::Gp, 3> used{x86::rdx, x86::rsi, x86::rdi};
    const unsigned shift = offsets_.tlb_chunk_shift;
    const Label out = a.newLabel();
    const std::uint32_t at = here();
    for (const x86::Gp& reg : used) a.push(reg);
    a.mov(x86::rdi, state(offsets_.tlb));
    a.mov(x86::esi, x86::eax);
    a.shr(x86::esi, shift);
    a.and_(x86::esi, offsets_.tlb_chunks - 1);
    a.shl(x86::esi, 4);
    a.add(x86::rsi, x86::rdi);
    a.xor_(x86::ecx, x86::ecx);
    a.mov(x86::rdx, x86::rax);
    a.and_(x86::rdx, -(1 << shift));
    a.cmp(x86::rdx, x86::qword_ptr(x86::rsi, static_cast<int>(chunks)));
    a.jne(out);
    a.mov(x86::edx, x86::eax);
    a.and_(x86::edx, 4095);
    a.cmp(x86::edx, 4096 - 8);
    a.ja(out);
    a.mov(x86::rsi, x86::qword_ptr(x86::rsi, static_cast<int>(chunks + 8)));
    // Groups of entries, in the order of pages.
    const unsigned group_shift = 12 + static_cast<unsigned>(std::countr_zero(offsets_.tlb_entries / offsets_.tlb_groups));
    a.mov(x86::edx, x86::eax);
    a.shr(x86::edx, group_shift);
    a.and_(x86::edx, offsets_.tlb_groups - 1);
    a.bts(x86::dword_ptr(x86::rdi, static_cast<int>(offsets_.tlb_filled)), x86::edx);
    a.mov(x86::edx, x86::eax);
    a.shr(x86::edx, 8);
    a.and_(x86::edx, (offsets_.tlb_entries - 1) << 4);
    a.add(x86::rdi, x86::rdx);
    a.mov(x86::rdx, x86::rax);
    a.and_(x86::rdx, -4096);
    a.mov(x86::qword_ptr(x86::rdi, static_cast<int>(entries)), x86::rdx);
    a.mov(x86::qword_ptr(x86::rdi, static_cast<int>(entries + 8)), x86::rsi);
    a.lea(x86::rcx, x86::ptr(x86::rax, x86::rsi));
    a.bind(out);
    for (auto reg = used.rbegin(); reg != used.rend(); ++reg) a.pop(*reg);
    a.ret();
    return at;
  };
  // Goes on with what each kind of access does at rcx, by the packed access in edx.
  const auto for_each_kind = [&](std::span<const ir::Access> kinds, const auto& access) {
    a.and_(x86::edx, 15);
    for (const ir::Access kind : kinds) {
      const Label other = a.newLabel();
      a.cmp(x86::edx, static_cast<int>(kind));
      a.jne(other);
      access(kind);
      a.ret();
      a.bind(other);
    }
    a.ud2();
  };
  using ir::Access;
  // The most frequent ones first.
  static constexpr std::array kKinds{Access::kI64, Access::kI32, Access::kU8,  Access::kU32, Access::kF64,
                                     Access::kI8,  Access::kU16, Access::kI16, Access::kF32};
  const auto load_here = [&](Access kind) {
    const x86::Mem from = x86::ptr(x86::rcx);
    switch (kind) {
      case Access::kI8: return a.movsx(x86::rax, x86::byte_ptr(x86::rcx));
      case Access::kI16: return a.movsx(x86::rax, x86::word_ptr(x86::rcx));
      case Access::kI32: return a.movsxd(x86::rax, x86::dword_ptr(x86::rcx));
      case Access::kU8: return a.movzx(x86::eax, x86::byte_ptr(x86::rcx));
      case Access::kU16: return a.movzx(x86::eax, x86::word_ptr(x86::rcx));
      case Access::kU32:
      case Access::kF32: return a.mov(x86::eax, from);
      default: return a.mov(x86::rax, from);
    }
  };
  const auto store_here = [&](Access kind) {
    const x86::Mem to = x86::ptr(x86::rcx);
    switch (ir::bytes_of(kind)) {
      case 1: return a.mov(to, x86::al);
      case 2: return a.mov(to, x86::ax);
      case 4: return a.mov(to, x86::eax);
      default: return a.mov(to, x86::rax);
    }
  };
  const bool paged = offsets_.memory == MemoryModel::kPaged;
  const Label refill_for_read = a.newLabel(), refill_for_write = a.newLabel();
  if (paged) {
    a.bind(refill_for_read);
    refill(offsets_.tlb_read, offsets_.tlb_read_chunks);
    a.bind(refill_for_write);
    stubs.refill_write = refill(offsets_.tlb_write, offsets_.tlb_write_chunks);
  }
  const auto read_here = [&] {
    const Label miss = a.newLabel();
    a.call(refill_for_read);
    a.test(x86::rcx, x86::rcx);
    a.jz(miss);
    for_each_kind(kKinds, load_here);
    a.bind(miss);
  };
  const auto write_here = [&] {
    const Label miss = a.newLabel();
    a.push(x86::rcx);
    a.call(refill_for_write);
    a.test(x86::rcx, x86::rcx);
    a.jz(miss);
    a.pop(x86::rax);
    for_each_kind(kKinds, store_here);
    a.bind(miss);
    a.pop(x86::rcx);
  };

  // In: rax address, rcx value, edx the packed access. Out: rax. Keeps every register that holds a value.
  // A bare one leaves the pinned registers to its caller: a region has others, and they are in the state.
  const auto slow = [&](SlowHelper helper, bool steps, bool bare, const auto&... try_first) {
    const std::uint32_t at = here();
    if (paged) (try_first(), ...);
    if (!bare) spill();
    for (const x86::Gp& reg : kValues) a.push(reg);
    a.mov(state(offsets_.budget), kBudget);
    a.lea(x86::rdi, x86::ptr(kState, -kStateBias));
    a.mov(x86::rsi, x86::rax);
    a.xchg(x86::rdx, x86::rcx);
    a.mov(x86::rax, reinterpret_cast<std::uintptr_t>(helper));
    a.call(x86::rax);
    a.test(x86::rdx, x86::rdx);
    const Label fault = a.newLabel();
    const Label jump = a.newLabel();
    a.jz(fault);
    if (steps) {
      a.cmp(x86::rdx, static_cast<int>(Resume::kJump));
      a.je(jump);
    }
    for (auto reg = kValues.rbegin(); reg != kValues.rend(); ++reg) a.pop(*reg);
    if (!bare) fill(steps);
    a.ret();
    if (steps) {
      a.bind(jump);
      forget_pairs();
      a.mov(kBudget, state(offsets_.budget));
      fill(true);
      a.mov(x86::rax, state(offsets_.pc));
      jump_to_rax();
    }
    a.bind(fault);
    a.mov(kBudget, state(offsets_.budget));
    a.mov(state(offsets_.exit_reason), static_cast<int>(ExitReason::kFault));
    a.jmp(leave);
    return at;
  };
  stubs.read = {slow(read, false, false, read_here), slow(read, false, true, read_here)};
  stubs.write = {slow(write, false, false, write_here), slow(write, false, true, write_here)};
  stubs.step = {slow(step, true, false), slow(step, true, true)};

  // An even number of words, with the return address and what aligns them.
  stubs.clock = here();
  const std::array<x86::Gp, 8> kept{x86::rcx, x86::rdx, x86::rsi, x86::rdi, x86::r8, x86::r9, x86::r10, x86::r11};
  for (const x86::Gp& reg : kept) a.push(reg);
  a.sub(x86::rsp, 8);
  a.lea(x86::rdi, x86::ptr(kState, -kStateBias));
  a.mov(x86::rax, reinterpret_cast<std::uintptr_t>(clock));
  a.call(x86::rax);
  a.add(x86::rsp, 8);
  for (auto reg = kept.rbegin(); reg != kept.rend(); ++reg) a.pop(*reg);
  a.ret();
  stubs.bytes = bytes_of(code);
  return stubs;
}

}  // namespace doppel::x64
