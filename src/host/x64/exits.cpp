// How code goes on: exits, links, jumps to where only the guest knows.
#include "host/x64/emission.h"

namespace doppel::x64 {

void Compiler::Emission::emit_exit_if(const Inst& inst) {
  const bool step = static_cast<ir::ExitKind>(inst.detail) == ir::ExitKind::kStep;
  const x86::CondCode code = test_condition(inst.operands[0]);
  const std::optional<std::size_t> part = step ? std::nullopt : part_of(inst.imm);
  if (part && unretired_after(inst.origin + 1u) == 0) {
    a_.j(code, labels_[*part]);
    return release_fused();
  }
  const Label out = a_.newLabel();
  a_.j(code, out);
  release_fused();
  later([=, this, origin = inst.origin, target = inst.imm] {
    a_.bind(out);
    refund(origin + (step ? 0u : 1u));
    emit_go(target, step);
  });
}

void Compiler::Emission::emit_exit(const Inst& inst) {
  const bool step = static_cast<ir::ExitKind>(inst.detail) == ir::ExitKind::kStep;
  refund(inst.origin + (step ? 0u : 1u));
  if (!step && part_of(inst.imm) == part_ + 1) return;  // falls through
  emit_go(inst.imm, step);
}

std::optional<std::size_t> Compiler::Emission::part_of(std::int64_t target) const {
  return part_at(static_cast<std::int64_t>(page_offset_) + target);
}

void Compiler::Emission::refund(unsigned retired) {
  const unsigned unretired = unretired_after(retired);
  if (unretired != 0) a_.add(kBudget, unretired);
}

unsigned Compiler::Emission::unretired_after(unsigned retired) const {
  const unsigned count = static_cast<unsigned>(block_->origins.size());
  return count - std::min(retired, count);
}

void Compiler::Emission::emit_go(std::int64_t target, bool step) {
  if (step) return leave(ExitReason::kStep, target);
  const std::int64_t in_page = static_cast<std::int64_t>(page_offset_) + target;
  if (in_page < 0 || in_page >= 4096) {
    unpin();
    set_address(target);
    emit_jump();
    return;
  }
  if (const auto part = part_at(in_page)) {
    a_.jmp(labels_[*part]);
    return;
  }
  unpin();
  const Label unlinked = a_.newLabel();
  a_.long_().jmp(unlinked);
  const std::uint32_t site = first_site_ + static_cast<std::uint32_t>(links_.size());
  links_.push_back({static_cast<std::uint32_t>(a_.offset()) - 4, static_cast<std::int32_t>(target)});
  later([=, this] {
    a_.bind(unlinked);
    a_.mov(state(o_.exit_site), site);
    leave_unpinned(ExitReason::kLink, target);
  });
}

void Compiler::Emission::set_address(std::int64_t target) {
  a_.mov(x86::rax, state(o_.page));
  a_.add(x86::rax, static_cast<int>(page_offset_ + target));
}

void Compiler::Emission::leave(ExitReason reason, std::int64_t target) {
  unpin();
  leave_unpinned(reason, target);
}

void Compiler::Emission::leave_unpinned(ExitReason reason, std::int64_t target) {
  set_address(target);
  a_.mov(state(o_.pc), x86::rax);
  a_.mov(state(o_.exit_reason), static_cast<int>(reason));
  a_.jmp(state(o_.exit));
}

void Compiler::Emission::emit_jump() {
  const Label miss = a_.newLabel();
  emit_jump_by_tlb(a_, o_, miss);
  later([=, this] {
    a_.bind(miss);
    a_.mov(state(o_.exit_reason), static_cast<int>(ExitReason::kGo));
    a_.jmp(state(o_.exit));
  });
}

}  // namespace doppel::x64
