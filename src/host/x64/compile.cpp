// The compiler as others see it, and the parts of a piece of code one after the other.
#include "host/x64/compile.h"

#include <asm/hwcap2.h>
#include <sys/auxv.h>
#include <sys/platform/x86.h>

#include <cstdlib>
#include <string_view>

#include "host/x64/emission.h"

namespace doppel::x64 {

std::vector<std::byte> bytes_of(CodeHolder& code) {
  code.flatten();
  code.resolveUnresolvedLinks();
  const CodeBuffer& buffer = code.textSection()->buffer();
  std::vector<std::byte> bytes(buffer.size());
  std::memcpy(bytes.data(), buffer.data(), buffer.size());
  return bytes;
}

HostFeatures HostFeatures::detect() {
  // Of what the C library asked at start: each CPUID is a trip to the hypervisor where the host is a virtual machine.
  static const HostFeatures kFound = [] {
    HostFeatures features;
    features.bmi1 = CPU_FEATURE_ACTIVE(BMI1);
    features.bmi2 = CPU_FEATURE_ACTIVE(BMI2);
    features.lzcnt = CPU_FEATURE_ACTIVE(LZCNT);
    features.popcnt = CPU_FEATURE_ACTIVE(POPCNT);
    features.avx = CPU_FEATURE_ACTIVE(AVX);
    features.fma = CPU_FEATURE_ACTIVE(FMA);
    features.segment_bases = (::getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) != 0;
    // For tests of the fall-backs: as if the host were the first x86-64.
    const char* limit = std::getenv("DOPPEL_HOST_FEATURES");
    if (limit != nullptr && std::string_view(limit) == "base") features = {};
    return features;
  }();
  return kFound;
}

Compiler::Compiler(const StateOffsets& offsets, const HostFeatures& features)
    : offsets_(offsets), features_(features) {
  assert(offsets.pinned.size() <= kPinnedRegisters);
}
Compiler::~Compiler() = default;

EmittedCode Compiler::Emission::run() {
  if (payments_.size() < parts_.size()) payments_.resize(parts_.size());
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    labels_.push_back(a_.newLabel());
    select(i);
    find_payments();
  }
  if (region_) {
    spill_ = a_.newLabel();
    fill_ = a_.newLabel();
    unpin_ = a_.newLabel();
    exchange_pins(Pins{o_.pinned, {}}, pins_);
  }
  for (std::size_t i = 0; i < parts_.size(); ++i) emit_part(i);
  // Cold parts may add further ones.
  for (std::size_t i = 0; i < cold_.size(); ++i) {
    select(cold_[i].part);
    SmallFunction emit_cold = cold_[i].emit;
    emit_cold();
  }
  if (region_) emit_transfers();
  for (std::size_t i = 0; i < links_.size(); ++i) {
    links_[i].unlinked = static_cast<std::uint32_t>(code_.labelOffset(unlinked_[i]));
  }
  return {bytes_of(code_), std::move(links_), std::move(faults_), page_slots_};
}

void Compiler::Emission::select(std::size_t part) {
  part_ = part;
  block_ = &parts_[part].block;
  address_ = parts_[part].address;
  paid_with_ = payments_[part];
}

void Compiler::Emission::emit_part(std::size_t part) {
  select(part);
  find_last_uses();
  where_.assign(block_->insts.size(), {});
  value_of_.fill(ir::kNone);
  xmm_of_.fill(ir::kNone);
  slot_used_.fill(false);
  in_state_.fill(ir::kNone);
  find_groups();
  inside_.clear();
  skipped_ = 0;
  flags_of_ = ir::kNone;
  const unsigned count = static_cast<unsigned>(block_->origins.size());
  a_.bind(labels_[part]);
  const Label spent = a_.newLabel();
  const bool at_once = count == 0 || paid_with_.front() == count;
  if (at_once) {
    a_.sub(kBudget, count);
    a_.js(spent);
  } else {
    a_.cmp(kBudget, count);
    a_.jl(spent);
    pay(paid_with_.front());
  }
  later([this, spent, refunded = at_once ? count : 0] {
    a_.bind(spent);
    refund(refunded);
    leave(ExitReason::kSpent, address_);
  });
  for (now_ = 0; now_ < block_->insts.size(); ++now_) {
    const Inst& inst = block_->insts[now_];
    emit(inst);
    for (const Value operand : inst.operands) {
      if (operand != ir::kNone && last_use_[operand] <= now_) release(operand);
    }
    if (use_count_[now_] == 0) release(static_cast<Value>(now_));
  }
}

std::optional<std::size_t> Compiler::Emission::part_at(std::uint64_t address) const {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].address == address) return i;
  }
  return std::nullopt;
}

EmittedCode Compiler::compile(const PlacedBlock& block, const Window* window) const {
  return Emission(offsets_, features_, Pins{offsets_.pinned, {}}, {&block, 1}, std::nullopt, window).run();
}

EmittedCode Compiler::compile_region(std::span<const PlacedBlock> blocks, const Pins& pins, std::uint64_t unfit,
                                     const Window* window) const {
  return Emission(offsets_, features_, pins, blocks, unfit, window).run();
}

std::span<const unsigned> Compiler::pinned_registers() {
  static constexpr auto kNumbers = [] {
    std::array<unsigned, kPinnedRegisters> numbers{};
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = kPins[i].id();
    return numbers;
  }();
  return kNumbers;
}

unsigned Compiler::pinned_xmm(unsigned index) { return kLastXmm - index; }

}  // namespace doppel::x64
