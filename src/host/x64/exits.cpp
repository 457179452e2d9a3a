// How code goes on: exits, links, jumps to where only the guest knows.
#include <string_view>

#include "host/x64/emission.h"

namespace doppel::x64 {

using namespace std::string_view_literals;

template <class Call>
void Compiler::Emission::emit_call_and_return(const Call& call) {
  const std::uint64_t back = address_of(block_->guest_bytes);
  if (flat() && fits_i32(static_cast<std::int64_t>(back))) {
    a_.push(static_cast<std::int32_t>(back));
  } else if (flat()) {
    a_.mov(x86::rcx, back);
    a_.push(x86::rcx);
  } else {
    a_.mov(x86::rcx, state(o_.page));
    a_.add(x86::rcx, static_cast<int>(back));
    a_.push(x86::rcx);
  }
  call();
  a_.pop(x86::rax);
  if (!flat()) {
    a_.and_(x86::rax, -static_cast<int>(kPageSize));
    a_.mov(state(o_.page), x86::rax);
  }
  emit_link(back, false);
}

void Compiler::Emission::emit_exit_if(const Inst& inst) {
  const bool step = static_cast<ir::ExitKind>(inst.detail) == ir::ExitKind::kStep;
  const x86::CondCode code = test_condition(inst.operands[0]);
  if (is_direct_exit(inst)) {
    if (const auto part = part_at(address_of(inst.imm))) {
      a_.j(code, labels_[*part]);
    } else {
      emit_link_if(code, address_of(inst.imm));
    }
    const unsigned next = inst.origin + 1u;
    if (next < paid_with_.size()) pay(paid_with_[next] - next);
    return release_fused();
  }
  const Label out = a_.newLabel();
  a_.j(code, out);
  release_fused();
  later([=, this, unretired = unretired_after(inst.origin, step ? 0 : 1), target = inst.imm] {
    a_.bind(out);
    refund(unretired);
    emit_go(target, step);
  });
}

bool Compiler::Emission::is_direct_exit(const Inst& inst) const {
  if (inst.op != Op::kExitIf || static_cast<ir::ExitKind>(inst.detail) == ir::ExitKind::kStep) return false;
  // What is left of the guest instruction may trap, and must then be all that is paid for and has not run.
  const std::size_t next = static_cast<std::size_t>(&inst - block_->insts.data()) + 1;
  if (next < block_->insts.size() && block_->insts[next].origin == inst.origin) return false;
  const std::uint64_t address = address_of(inst.imm);
  return part_at(address).has_value() || (!region_ && linkable(address));
}

void Compiler::Emission::find_payments() {
  const std::size_t count = block_->origins.size();
  std::vector<std::uint16_t>& paid_with = payments_[part_];
  paid_with.assign(count, 0);
  for (const Inst& inst : block_->insts) {
    if (is_direct_exit(inst)) paid_with[inst.origin] = static_cast<std::uint16_t>(inst.origin + 1);
  }
  auto end = static_cast<std::uint16_t>(count);
  for (std::size_t i = count; i-- > 0;) {
    if (paid_with[i] != 0) end = paid_with[i];
    paid_with[i] = end;
  }
}

void Compiler::Emission::pay(unsigned instructions) {
  const bool keeps_flags = flags_at_ == a_.offset();
  a_.lea(kBudget, x86::ptr(kBudget, -static_cast<int>(instructions)));
  if (keeps_flags) flags_at_ = a_.offset();
}

void Compiler::Emission::emit_exit(const Inst& inst) {
  const auto kind = static_cast<ir::ExitKind>(inst.detail);
  const bool step = kind == ir::ExitKind::kStep;
  refund(unretired_after(inst.origin, step ? 0 : 1));
  const std::uint64_t address = address_of(inst.imm);
  if (kind == ir::ExitKind::kCall && in_page(address_of(block_->guest_bytes))) {
    unpin();
    return emit_call_and_return([&] {
      if (linkable(address)) return emit_link(address, true);
      set_address(address);
      emit_jump(true);
    });
  }
  if (!step && part_at(address) == part_ + 1) return;  // falls through
  emit_go(inst.imm, step);
}

void Compiler::Emission::refund(unsigned unretired) {
  if (unretired != 0) a_.add(kBudget, unretired);
}

unsigned Compiler::Emission::unretired_after(unsigned origin, unsigned retired) const {
  return origin < paid_with_.size() ? paid_with_[origin] - origin - retired : 0;
}

void Compiler::Emission::emit_go(std::int64_t target, bool step) {
  const std::uint64_t address = address_of(target);
  if (step) return leave(ExitReason::kStep, address);
  if (const auto part = part_at(address)) {
    a_.jmp(labels_[*part]);
    return;
  }
  unpin();
  if (linkable(address)) return emit_link(address, false);
  set_address(address);
  emit_jump(false);
}

void Compiler::Emission::emit_link(std::uint64_t address, bool call) {
  constexpr std::size_t kOpcodeBytes = 1;
  constexpr std::array<std::string_view, 4> kNops{"", "\x90", "\x66\x90", "\x0f\x1f\x00"sv};
  std::size_t padding = 0;
  while (!patchable_at(a_.offset() + padding + kOpcodeBytes)) ++padding;
  a_.embed(kNops[padding].data(), padding);
  const Label unlinked = a_.newLabel();
  call ? a_.call(unlinked) : a_.long_().jmp(unlinked);
  note_link(address, unlinked);
}

void Compiler::Emission::emit_link_if(x86::CondCode code, std::uint64_t address) {
  constexpr std::size_t kOpcodeBytes = 2;
  const Label out = a_.newLabel();
  // Between a comparison and its jump padding would keep the host from fusing them.
  if (patchable_at(a_.offset() + kOpcodeBytes)) {
    a_.long_().j(code, out);
    return note_link(address, out);
  }
  a_.j(code, out);
  later([=, this] {
    a_.bind(out);
    emit_link(address, false);
  });
}

bool Compiler::Emission::patchable_at(std::size_t offset) const {
  const bool shared = o_.memory == MemoryModel::kFlat || o_.memory == MemoryModel::kSegment;
  return !shared || offset % 8 <= 4;
}

void Compiler::Emission::note_link(std::uint64_t address, const Label& unlinked) {
  const Label site = a_.newLabel();
  links_.push_back({static_cast<std::uint32_t>(a_.offset()) - 4, 0, address});
  unlinked_.push_back(unlinked);
  a_.bind(site);
  later([=, this] {
    a_.bind(unlinked);
    a_.lea(x86::rcx, x86::ptr(site, -4));
    leave_unpinned(ExitReason::kLink, address);
  });
}

void Compiler::Emission::emit_exit_to(const Inst& inst) {
  const Value target = inst.operands[0];
  const auto hint = static_cast<ir::JumpHint>(inst.detail);
  const bool call = hint == ir::JumpHint::kCall && in_page(address_of(block_->guest_bytes));
  if (flat() && is_constant(target)) {
    unpin();
    const auto address = static_cast<std::uint64_t>(constant(target));
    if (call) return emit_call_and_return([&] { emit_link(address, true); });
    return emit_link(address, false);
  }
  if (const auto address = far_target(target)) {
    unpin();
    if (call) return emit_call_and_return([&] { emit_link(*address, true); });
    return emit_link(*address, false);
  }
  move(x86::rax, target);
  unpin();
  if (call) return emit_call_and_return([&] { emit_jump(true); });
  if (hint != ir::JumpHint::kReturn) return emit_jump(false);
  // Where the guest returns to its caller, so does the host, which its processor predicts.
  const Label other = a_.newLabel();
  a_.cmp(x86::rax, x86::qword_ptr(x86::rsp, 8));
  a_.jne(other);
  a_.ret();
  later([=, this] {
    a_.bind(other);
    emit_jump(false);
  });
}

std::optional<std::uint64_t> Compiler::Emission::far_target(Value target) const {
  if (window_ == nullptr) return std::nullopt;
  const Inst* inst = &block_->insts[target];
  // Pages have even addresses, and so has what lies an even number of bytes from one.
  if (inst->op == Op::kAnd && is_constant(inst->operands[1]) && constant(inst->operands[1]) == -2) {
    inst = &block_->insts[inst->operands[0]];
  }
  if (inst->op != Op::kAdd || !is_constant(inst->operands[1])) return std::nullopt;
  const Inst& base = block_->insts[inst->operands[0]];
  const auto address = static_cast<std::uint64_t>(constant(inst->operands[1]));
  const bool is_page = base.op == Op::kGet && base.imm == o_.page;
  return is_page && address % 2 == 0 && linkable(address) ? std::optional(address) : std::nullopt;
}

void Compiler::Emission::set_address(std::uint64_t address) {
  if (flat()) return load_constant(x86::rax, static_cast<std::int64_t>(address));
  a_.mov(x86::rax, state(o_.page));
  a_.add(x86::rax, static_cast<int>(address));
}

void Compiler::Emission::leave(ExitReason reason, std::uint64_t address) {
  unpin();
  leave_unpinned(reason, address);
}

void Compiler::Emission::leave_unpinned(ExitReason reason, std::uint64_t address) {
  set_address(address);
  emit_leave(a_, o_, reason);
}

void Compiler::Emission::emit_jump(bool call) {
  const Label miss = a_.newLabel();
  emit_jump_to_rax(a_, o_, features_, miss, tlb_by_segment(), call);
  later([=, this] {
    a_.bind(miss);
    emit_leave(a_, o_, ExitReason::kGo);
  });
}

}  // namespace doppel::x64
