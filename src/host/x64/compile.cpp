#include "host/x64/compile.h"

#include <asmjit/x86.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <string_view>

namespace doppel::x64 {
namespace {

using namespace asmjit;
using ir::Inst;
using ir::Op;
using ir::Type;
using ir::Value;

// --- Which host register does what.
//
// rax, rcx, rdx, xmm0, xmm1 are free within one IR instruction.
const x86::Gp kState = x86::rbp;
const x86::Gp kBudget = x86::r15;
const std::array<x86::Gp, kPinnedRegisters> kPinned{x86::r9,  x86::r10, x86::r11, x86::r12,
                                                    x86::r13, x86::r14, x86::rbx};
const std::array<x86::Gp, 3> kValues{x86::rsi, x86::rdi, x86::r8};
constexpr unsigned kFirstValueXmm = 2;
constexpr unsigned kLastXmm = 15;  // pinned registers are taken from here downwards
// Spill slots at the bottom of the stack frame that `enter` makes. 48 + 8 bytes lie above it.
// More than the values that the longest block (Lifter::kMostInstructions) can keep alive.
constexpr unsigned kSpillSlots = 512;
constexpr unsigned kFrameBytes = kSpillSlots * 8 + 8;
static_assert((kFrameBytes + 56) % 16 == 0);

constexpr bool fits_i32(std::int64_t value) { return value == static_cast<std::int32_t>(value); }

std::vector<std::byte> bytes_of(CodeHolder& code) {
  code.flatten();
  code.resolveUnresolvedLinks();
  const CodeBuffer& buffer = code.textSection()->buffer();
  std::vector<std::byte> bytes(buffer.size());
  std::memcpy(bytes.data(), buffer.data(), buffer.size());
  return bytes;
}

}  // namespace

HostFeatures HostFeatures::detect() {
  HostFeatures features;
  __builtin_cpu_init();
  features.bmi1 = __builtin_cpu_supports("bmi");
  features.bmi2 = __builtin_cpu_supports("bmi2");
  features.lzcnt = CpuInfo::host().hasFeature(CpuFeatures::X86::kLZCNT);
  features.popcnt = __builtin_cpu_supports("popcnt");
  features.avx = __builtin_cpu_supports("avx");
  features.fma = __builtin_cpu_supports("fma");
  // For tests of the fall-backs: as if the host were the first x86-64.
  const char* limit = std::getenv("DOPPEL_HOST_FEATURES");
  if (limit != nullptr && std::string_view(limit) == "base") features = {};
  return features;
}

Compiler::Compiler(const StateOffsets& offsets, const HostFeatures& features)
    : offsets_(offsets), features_(features) {
  assert(offsets.pinned.size() <= kPinnedRegisters);
}
Compiler::~Compiler() = default;

std::vector<std::byte> Compiler::make_entry_miss() const {
  CodeHolder code;
  code.init(Environment::host());
  x86::Assembler a(&code);
  a.mov(x86::qword_ptr(kState, static_cast<int>(offsets_.exit_reason)), static_cast<int>(ExitReason::kGo));
  a.jmp(x86::qword_ptr(kState, static_cast<int>(offsets_.exit)));
  return bytes_of(code);
}

// Jumps to the guest address in rax through the fetch TLB: same tag, then the page's own table of entries,
// whose empty ones lead back to the dispatcher. `miss` is taken with pc in the state.
static void emit_jump_by_tlb(x86::Assembler& a, const StateOffsets& o, const Label& miss) {
  const auto state = [](std::uint32_t offset) { return x86::qword_ptr(kState, static_cast<int>(offset)); };
  a.mov(x86::ecx, x86::eax);
  a.shr(x86::ecx, 8);
  a.and_(x86::ecx, static_cast<int>((o.tlb_entries - 1) << 4));
  a.mov(x86::rdx, x86::rax);
  a.and_(x86::rdx, -4096);
  a.add(x86::rcx, state(o.tlb));
  a.mov(state(o.pc), x86::rax);
  a.cmp(x86::rdx, x86::qword_ptr(x86::rcx, static_cast<int>(o.tlb_fetch)));
  a.jne(miss);
  a.mov(x86::rcx, x86::qword_ptr(x86::rcx, static_cast<int>(o.tlb_fetch + 8)));
  a.mov(state(o.page), x86::rdx);
  a.and_(x86::eax, 0xffe);
  a.mov(x86::eax, x86::dword_ptr(x86::rcx, x86::rax, 1, static_cast<int>(o.page_entries)));
  a.add(x86::rax, state(o.code));
  a.jmp(x86::rax);
}

Stubs Compiler::make_stubs(SlowHelper read, SlowHelper write, SlowHelper step) {
  CodeHolder code;
  code.init(Environment::host());
  x86::Assembler a(&code);
  Stubs stubs{};
  const auto state = [](std::uint32_t offset) { return x86::qword_ptr(kState, static_cast<int>(offset)); };
  const auto spill = [&] {
    for (std::size_t i = 0; i < offsets_.pinned.size(); ++i) a.mov(state(offsets_.pinned[i]), kPinned[i]);
  };
  const auto fill = [&](bool all) {
    for (std::size_t i = 0; i < offsets_.pinned.size(); ++i) {
      const bool clobbered_by_calls = kPinned[i] == x86::r9 || kPinned[i] == x86::r10 || kPinned[i] == x86::r11;
      if (all || clobbered_by_calls) a.mov(kPinned[i], state(offsets_.pinned[i]));
    }
  };
  const auto here = [&] { return static_cast<std::uint32_t>(a.offset()); };
  const std::array<x86::Gp, 6> saved{x86::rbx, x86::rbp, x86::r12, x86::r13, x86::r14, x86::r15};

  stubs.enter = here();
  for (const x86::Gp& reg : saved) a.push(reg);
  a.sub(x86::rsp, kFrameBytes);
  a.mov(kState, x86::rdi);
  a.mov(x86::rax, x86::rsi);
  a.mov(kBudget, state(offsets_.budget));
  fill(true);
  a.jmp(x86::rax);

  stubs.exit = here();
  spill();
  const Label leave = a.newLabel();
  a.bind(leave);
  a.mov(state(offsets_.budget), kBudget);
  a.add(x86::rsp, kFrameBytes);
  for (auto reg = saved.rbegin(); reg != saved.rend(); ++reg) a.pop(*reg);
  a.ret();

  // In: rax address, rcx value, edx the packed access. Out: rax. Keeps every register that holds a value.
  // A bare one leaves the pinned registers to its caller: a region has others, and they are in the state.
  const auto slow = [&](SlowHelper helper, bool steps, bool bare) {
    const std::uint32_t at = here();
    if (!bare) spill();
    for (const x86::Gp& reg : kValues) a.push(reg);
    a.mov(state(offsets_.budget), kBudget);
    a.mov(x86::rdi, kState);
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
      a.add(x86::rsp, static_cast<int>(8 * (kValues.size() + 1)));
      a.mov(kBudget, state(offsets_.budget));
      fill(true);
      a.mov(x86::rax, state(offsets_.pc));
      const Label miss = a.newLabel();
      emit_jump_by_tlb(a, offsets_, miss);
      a.bind(miss);
      a.mov(state(offsets_.exit_reason), static_cast<int>(ExitReason::kGo));
      a.jmp(state(offsets_.exit));
    }
    a.bind(fault);
    a.add(x86::rsp, static_cast<int>(8 * (kValues.size() + 1)));
    a.mov(kBudget, state(offsets_.budget));
    a.mov(state(offsets_.exit_reason), static_cast<int>(ExitReason::kFault));
    a.jmp(leave);
    return at;
  };
  stubs.read = {slow(read, false, false), slow(read, false, true)};
  stubs.write = {slow(write, false, false), slow(write, false, true)};
  stubs.step = {slow(step, true, false), slow(step, true, true)};
  stubs.bytes = bytes_of(code);
  return stubs;
}

// A block, or the blocks of a region, being compiled.
class Compiler::Emission {
 public:
  Emission(const StateOffsets& offsets, const HostFeatures& features, const Pins& pins,
           std::span<const RegionBlock> parts, bool region, std::uint32_t first_site)
      : o_(offsets),
        features_(features),
        pins_(pins),
        parts_(parts),
        region_(region),
        last_value_xmm_(kLastXmm - static_cast<unsigned>(pins.floating.size())),
        first_site_(first_site) {
    assert(pins.integer.size() <= kPinnedRegisters && pins.floating.size() <= kPinnedFloatingRegisters);
    code_.init(Environment::host());
    code_.attach(&a_);
  }

  EmittedCode run() {
    for (std::size_t i = 0; i < parts_.size(); ++i) labels_.push_back(a_.newLabel());
    if (region_) {
      spill_ = a_.newLabel();
      fill_ = a_.newLabel();
      unpin_ = a_.newLabel();
      store_pins(Pins{o_.pinned, {}});
      load_pins(pins_);
    }
    for (std::size_t i = 0; i < parts_.size(); ++i) emit_part(i);
    // Cold parts may add further ones.
    for (std::size_t i = 0; i < cold_.size(); ++i) {
      select(cold_[i].part);
      const std::function<void()> emit_cold = std::move(cold_[i].emit);
      emit_cold();
    }
    if (region_) emit_transfers();
    EmittedCode result;
    result.links = std::move(links_);
    result.bytes = bytes_of(code_);
    return result;
  }

 private:
  enum class Kind : std::uint8_t { kNowhere, kConstant, kRegister, kPinned, kXmm, kPinnedXmm, kSlot };
  struct Where {
    Kind kind = Kind::kNowhere;
    std::uint16_t index = 0;  // in kValues or kPinned, an xmm number, or a slot
  };
  struct Cold {
    std::size_t part;
    std::function<void()> emit;
  };

  // --- Parts.

  void select(std::size_t part) {
    part_ = part;
    block_ = &parts_[part].block;
    page_offset_ = parts_[part].page_offset;
  }

  void emit_part(std::size_t part) {
    select(part);
    find_last_uses();
    where_.assign(block_->insts.size(), {});
    value_of_.fill(ir::kNone);
    xmm_of_.fill(ir::kNone);
    slot_used_.fill(false);
    find_groups();
    const unsigned count = static_cast<unsigned>(block_->origins.size());
    a_.bind(labels_[part]);
    a_.sub(kBudget, count);
    const Label spent = a_.newLabel();
    a_.js(spent);
    later([this, spent, count] {
      a_.bind(spent);
      a_.add(kBudget, count);
      leave(ExitReason::kSpent, 0);
    });
    for (now_ = 0; now_ < block_->insts.size(); ++now_) {
      const Inst& inst = block_->insts[now_];
      emit(inst);
      for (const Value operand : inst.operands) {
        if (operand != ir::kNone && last_use_[operand] <= now_) release(operand);
      }
    }
  }
  // Emits out of the way, once all parts stand.
  void later(std::function<void()> emit_cold) { cold_.push_back({part_, std::move(emit_cold)}); }

  // The part that begins at this offset of the page.
  std::optional<std::size_t> part_at(std::int64_t in_page) const {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (parts_[i].page_offset == in_page) return i;
    }
    return std::nullopt;
  }

  // --- Guest registers in host registers: a region has its own choice.

  void store_pins(const Pins& pins) {
    for (std::size_t i = 0; i < pins.integer.size(); ++i) a_.mov(state(pins.integer[i]), kPinned[i]);
    for (std::size_t i = 0; i < pins.floating.size(); ++i) {
      a_.movsd(state(pins.floating[i]), pinned_xmm(static_cast<unsigned>(i)));
    }
  }
  void load_pins(const Pins& pins) {
    for (std::size_t i = 0; i < pins.integer.size(); ++i) a_.mov(kPinned[i], state(pins.integer[i]));
    for (std::size_t i = 0; i < pins.floating.size(); ++i) {
      a_.movsd(pinned_xmm(static_cast<unsigned>(i)), state(pins.floating[i]));
    }
  }
  // Subroutines of a region; they keep all other registers.
  void emit_transfers() {
    a_.bind(spill_);
    store_pins(pins_);
    a_.ret();
    a_.bind(fill_);
    load_pins(pins_);
    a_.ret();
    a_.bind(unpin_);
    store_pins(pins_);
    load_pins(Pins{o_.pinned, {}});
    a_.ret();
  }
  // From the region's registers to those that all blocks agree on.
  void unpin() {
    if (region_) a_.call(unpin_);
  }
  static x86::Xmm pinned_xmm(unsigned index) { return x86::xmm(kLastXmm - index); }

  // --- Values and registers.

  void find_last_uses() {
    last_use_.assign(block_->insts.size(), 0);
    use_count_.assign(block_->insts.size(), 0);
    for (std::size_t i = 0; i < block_->insts.size(); ++i) {
      for (const Value operand : block_->insts[i].operands) {
        if (operand == ir::kNone) continue;
        last_use_[operand] = static_cast<std::uint32_t>(i);
        ++use_count_[operand];
      }
    }
  }

  bool live_after(Value value) const { return last_use_[value] > now_; }

  void release(Value value) {
    Where& where = where_[value];
    if (where.kind == Kind::kRegister) value_of_[where.index] = ir::kNone;
    if (where.kind == Kind::kXmm) xmm_of_[where.index] = ir::kNone;
    if (where.kind == Kind::kSlot) slot_used_[where.index] = false;
    if (where.kind != Kind::kConstant) where = {};
  }

  unsigned take_slot() {
    const auto free = std::find(slot_used_.begin(), slot_used_.end(), false);
    assert(free != slot_used_.end());
    *free = true;
    return static_cast<unsigned>(free - slot_used_.begin());
  }
  static x86::Mem slot(unsigned index) { return x86::qword_ptr(x86::rsp, static_cast<int>(8 * index)); }
  x86::Mem state(std::int64_t offset) const { return x86::qword_ptr(kState, static_cast<int>(offset)); }

  // An operand that the instruction has yet to read must stay where it is.
  bool is_operand_now(Value value) const {
    if (operands_read_) return false;
    const auto& operands = block_->insts[now_].operands;
    return std::find(operands.begin(), operands.end(), value) != operands.end();
  }

  // A free value register, made so by spilling the value whose last use is furthest.
  unsigned free_register() {
    std::optional<unsigned> victim;
    for (unsigned i = 0; i < kValues.size(); ++i) {
      if (value_of_[i] == ir::kNone) return i;
      if (is_operand_now(value_of_[i])) continue;
      if (!victim || last_use_[value_of_[i]] > last_use_[value_of_[*victim]]) victim = i;
    }
    assert(victim);
    const unsigned index = take_slot();
    a_.mov(slot(index), kValues[*victim]);
    where_[value_of_[*victim]] = {Kind::kSlot, static_cast<std::uint16_t>(index)};
    value_of_[*victim] = ir::kNone;
    return *victim;
  }
  unsigned free_xmm() {
    std::optional<unsigned> victim;
    for (unsigned i = kFirstValueXmm; i <= last_value_xmm_; ++i) {
      if (xmm_of_[i] == ir::kNone) return i;
      if (is_operand_now(xmm_of_[i])) continue;
      if (!victim || last_use_[xmm_of_[i]] > last_use_[xmm_of_[*victim]]) victim = i;
    }
    assert(victim);
    const unsigned index = take_slot();
    a_.movsd(slot(index), x86::xmm(*victim));
    where_[xmm_of_[*victim]] = {Kind::kSlot, static_cast<std::uint16_t>(index)};
    xmm_of_[*victim] = ir::kNone;
    return *victim;
  }

  // The pinned register of a state offset, if it has one.
  std::optional<unsigned> pinned(std::int64_t offset) const {
    return position(pins_.integer, offset);
  }
  std::optional<unsigned> pinned_floating(std::int64_t offset) const { return position(pins_.floating, offset); }
  static std::optional<unsigned> position(const std::vector<std::uint32_t>& offsets, std::int64_t offset) {
    const auto found = std::find(offsets.begin(), offsets.end(), static_cast<std::uint32_t>(offset));
    if (found == offsets.end()) return std::nullopt;
    return static_cast<unsigned>(found - offsets.begin());
  }

  // Values that share pinned register `index` and are needed later move out of it.
  void vacate(unsigned index, Value except) {
    for (Value v = 0; v < now_; ++v) {
      if (where_[v].kind != Kind::kPinned || where_[v].index != index || v == except || !live_after(v)) continue;
      const unsigned to = free_register();
      a_.mov(kValues[to], kPinned[index]);
      value_of_[to] = v;
      where_[v] = {Kind::kRegister, static_cast<std::uint16_t>(to)};
    }
  }

  void vacate_xmm(unsigned index, Value except) {
    for (Value v = 0; v < now_; ++v) {
      if (where_[v].kind != Kind::kPinnedXmm || where_[v].index != index || v == except || !live_after(v)) continue;
      const unsigned to = free_xmm();
      a_.movaps(x86::xmm(to), pinned_xmm(index));
      xmm_of_[to] = v;
      where_[v] = {Kind::kXmm, static_cast<std::uint16_t>(to)};
    }
  }

  // Where this instruction's integer result goes. When the next instruction only stores it to a pinned
  // register, that is the place.
  x86::Gp destination() {
    const Value self = static_cast<Value>(now_);
    if (now_ + 1 < block_->insts.size()) {
      const Inst& next = block_->insts[now_ + 1];
      if (next.op == Op::kSet && next.operands[0] == self) {
        if (const auto index = pinned(next.imm)) {
          vacate(*index, ir::kNone);
          where_[self] = {Kind::kPinned, static_cast<std::uint16_t>(*index)};
          return kPinned[*index];
        }
      }
    }
    // An operand that dies here may lend its register; emission copes with the overlap.
    for (const Value operand : block_->insts[now_].operands) {
      if (operand == ir::kNone || live_after(operand) || where_[operand].kind != Kind::kRegister) continue;
      const unsigned index = where_[operand].index;
      if (lent_) break;
      lent_ = true;
      value_of_[index] = self;
      where_[self] = where_[operand];
      where_[operand].kind = Kind::kNowhere;
      return kValues[index];
    }
    const unsigned index = free_register();
    value_of_[index] = self;
    where_[self] = {Kind::kRegister, static_cast<std::uint16_t>(index)};
    return kValues[index];
  }
  x86::Xmm destination_xmm() {
    const Value self = static_cast<Value>(now_);
    if (now_ + 1 < block_->insts.size() && block_->insts[now_].type == Type::kF64) {
      const Inst& next = block_->insts[now_ + 1];
      if (next.op == Op::kSet && next.operands[0] == self) {
        if (const auto index = pinned_floating(next.imm)) {
          vacate_xmm(*index, ir::kNone);
          where_[self] = {Kind::kPinnedXmm, static_cast<std::uint16_t>(*index)};
          return pinned_xmm(*index);
        }
      }
    }
    const unsigned index = free_xmm();
    xmm_of_[index] = self;
    where_[self] = {Kind::kXmm, static_cast<std::uint16_t>(index)};
    return x86::xmm(index);
  }

  std::int64_t constant(Value value) const { return block_->insts[value].imm; }
  bool is_constant(Value value) const { return block_->insts[value].op == Op::kConst; }
  bool is_imm32(Value value) const { return is_constant(value) && fits_i32(constant(value)); }

  void load_constant(const x86::Gp& into, std::int64_t value) {
    if (value >= 0 && value <= 0xffffffff) {
      a_.mov(into.r32(), static_cast<std::uint32_t>(value));
    } else {
      a_.mov(into, value);
    }
  }

  // The value in a register: its own, or `scratch` filled with it.
  x86::Gp use(Value value, const x86::Gp& scratch) {
    const Where where = where_[value];
    switch (where.kind) {
      case Kind::kRegister: return kValues[where.index];
      case Kind::kPinned: return kPinned[where.index];
      case Kind::kSlot: a_.mov(scratch, slot(where.index)); return scratch;
      case Kind::kXmm: a_.movq(scratch, x86::xmm(where.index)); return scratch;
      case Kind::kPinnedXmm: a_.movq(scratch, pinned_xmm(where.index)); return scratch;
      default:
        assert(is_constant(value));
        load_constant(scratch, constant(value));
        return scratch;
    }
  }
  void move(const x86::Gp& into, Value value) {
    const x86::Gp from = use(value, into);
    if (from != into) a_.mov(into, from);
  }
  x86::Xmm use_xmm(Value value, const x86::Xmm& scratch) {
    const Where where = where_[value];
    if (where.kind == Kind::kXmm) return x86::xmm(where.index);
    if (where.kind == Kind::kPinnedXmm) return pinned_xmm(where.index);
    assert(where.kind == Kind::kSlot);
    a_.movsd(scratch, slot(where.index));
    return scratch;
  }

  // --- Emission.

  void emit(const Inst& inst) {
    lent_ = false;
    operands_read_ = false;
    switch (inst.op) {
      case Op::kConst: where_[now_] = {Kind::kConstant, 0}; return;
      case Op::kGet: return emit_get(inst);
      case Op::kSet: return emit_set(inst);
      case Op::kAdd: return emit_add(inst);
      case Op::kSub: return two(inst, [this](auto&&... x) { a_.sub(x...); }, false);
      case Op::kAnd: return two(inst, [this](auto&&... x) { a_.and_(x...); }, true);
      case Op::kOr: return two(inst, [this](auto&&... x) { a_.or_(x...); }, true);
      case Op::kXor: return two(inst, [this](auto&&... x) { a_.xor_(x...); }, true);
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
      case Op::kLoad: return emit_load(inst);
      case Op::kStore: return emit_store(inst);
      case Op::kAtomic: return emit_atomic(inst);
      case Op::kCompareSwap: return emit_compare_swap(inst);
      case Op::kFence: a_.mfence(); return;
      case Op::kFflags: return emit_flags_get(inst);
      case Op::kFsetFlags: return emit_flags_set(inst);
      case Op::kExitIf: return emit_exit_if(inst);
      case Op::kExit: return emit_exit(inst);
      case Op::kExitTo:
        move(x86::rax, inst.operands[0]);
        unpin();
        return emit_jump();
      case Op::kCall: return emit_call(inst);
      case Op::kExitState:
        unpin();
        a_.mov(x86::rax, state(o_.pc));
        return emit_jump();
      default: return emit_float(inst);
    }
  }

  void emit_get(const Inst& inst) {
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
    a_.mov(destination(), state(inst.imm));
  }

  void emit_set(const Inst& inst) {
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
      move(kPinned[*index], value);
      // From now on the register holds the value for both.
      if (where.kind == Kind::kRegister) {
        value_of_[where.index] = ir::kNone;
        where_[value] = {Kind::kPinned, static_cast<std::uint16_t>(*index)};
      }
      return;
    }
    if (is_imm32(value)) {
      a_.mov(state(inst.imm), static_cast<std::int32_t>(constant(value)));
    } else {
      a_.mov(state(inst.imm), use(value, x86::rax));
    }
  }

  // d = a op b for instructions of the form "op d, s".
  template <class Emit>
  void two(const Inst& inst, Emit op, bool commutative) {
    Value a = inst.operands[0];
    Value b = inst.operands[1];
    if (commutative && is_constant(a)) std::swap(a, b);
    // Found before the destination is chosen, which may take over either operand's register.
    const x86::Gp left = is_constant(a) ? x86::Gp(x86::rax) : use(a, x86::rax);
    const bool immediate = is_imm32(b);
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

  void emit_add(const Inst& inst) {
    Value a = inst.operands[0];
    Value b = inst.operands[1];
    if (is_constant(a)) std::swap(a, b);
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

  void emit_add32(const Inst& inst) {
    const bool subtract = inst.op == Op::kSub32;
    Value a = inst.operands[0];
    Value b = inst.operands[1];
    if (!subtract && is_constant(a)) std::swap(a, b);
    const x86::Gp left = use(a, x86::rax);
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

  void emit_multiply(const Inst& inst, bool narrow) {
    const x86::Gp left = use(inst.operands[0], x86::rax);
    const x86::Gp right = use(inst.operands[1], x86::rcx);
    const x86::Gp d = destination();
    if (left != x86::rax) a_.mov(x86::rax, left);
    if (narrow) {
      a_.imul(x86::eax, right.r32());
      a_.movsxd(d, x86::eax);
    } else {
      a_.imul(x86::rax, right);
      a_.mov(d, x86::rax);
    }
  }

  void emit_multiply_high(const Inst& inst) {
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

  void emit_divide(const Inst& inst) {
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

  void emit_shift(const Inst& inst) {
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
    const x86::Gp left = use(inst.operands[0], x86::rax);
    if (is_constant(b)) {
      const int amount = static_cast<int>(constant(b) & (narrow ? 31 : 63));
      const x86::Gp d = destination();
      if (narrow) {
        if (left != x86::rax) a_.mov(x86::eax, left.r32());
        if (amount != 0) apply(x86::eax, amount);
        a_.movsxd(d, x86::eax);
      } else {
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

  void emit_extend(const Inst& inst) {
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

  void emit_count(const Inst& inst) {
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

  void emit_popcount_by_halving(const x86::Gp& from, const x86::Gp& d) {
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

  void emit_or_combine(const Inst& inst) {
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

  // --- Comparisons, fused with the exit or choice that follows at once.

  static x86::CondCode condition(Op op) {
    switch (op) {
      case Op::kEq: return x86::CondCode::kE;
      case Op::kNe: return x86::CondCode::kNE;
      case Op::kLt: return x86::CondCode::kL;
      case Op::kLtu: return x86::CondCode::kB;
      case Op::kGe: return x86::CondCode::kGE;
      default: return x86::CondCode::kAE;
    }
  }

  void emit_flags(const Inst& inst) {
    const Value a = inst.operands[0];
    const Value b = inst.operands[1];
    const x86::Gp left = use(a, x86::rax);
    if (is_imm32(b)) {
      if (constant(b) == 0) {
        a_.test(left, left);
      } else {
        a_.cmp(left, static_cast<int>(constant(b)));
      }
    } else {
      a_.cmp(left, use(b, x86::rcx));
    }
  }

  // True when the only use of the value being defined is as operand 0 of the next instruction that emits
  // code, of kind `op`. Constants in between emit none.
  bool feeds_next(Op op) const {
    if (use_count_[now_] != 1) return false;
    for (std::size_t i = now_ + 1; i < block_->insts.size(); ++i) {
      if (block_->insts[i].op == Op::kConst) continue;
      return block_->insts[i].op == op && block_->insts[i].operands[0] == now_;
    }
    return false;
  }

  void emit_compare(const Inst& inst) {
    if (feeds_next(Op::kExitIf) || feeds_next(Op::kSelect)) {
      fused_ = static_cast<Value>(now_);
      // The flags are set by the consumer, which must find the operands alive.
      for (const Value operand : inst.operands) {
        if (operand != ir::kNone && last_use_[operand] == now_) last_use_[operand] = last_use_[now_];
      }
      return;
    }
    emit_flags(inst);
    const x86::Gp d = destination();
    a_.set(condition(inst.op), x86::al);
    a_.movzx(d.r32(), x86::al);
  }

  // Sets flags for operand 0 of the current instruction and gives the condition under which it is true. The
  // operands of a fused comparison are released here.
  x86::CondCode test_condition(Value value) {
    if (fused_ == value) {
      const Inst& compare = block_->insts[value];
      emit_flags(compare);
      for (const Value operand : compare.operands) {
        if (operand != ir::kNone && last_use_[operand] <= now_ && !is_operand_now(operand)) released_.push_back(operand);
      }
      return condition(compare.op);
    }
    const x86::Gp reg = use(value, x86::rax);
    a_.test(reg, reg);
    return x86::CondCode::kNE;
  }
  void release_fused() {
    for (const Value operand : released_) release(operand);
    released_.clear();
    fused_ = ir::kNone;
  }

  void emit_select(const Inst& inst) {
    const x86::CondCode code = test_condition(inst.operands[0]);
    // Moves keep the flags; so must constants, which therefore avoid XOR.
    const x86::Gp yes = use(inst.operands[1], x86::rcx);
    move(x86::rax, inst.operands[2]);
    a_.cmov(code, x86::rax, yes);
    release_fused();
    // Three operands may fill all value registers: any of them may now make room for the result.
    operands_read_ = true;
    a_.mov(destination(), x86::rax);
  }

  void emit_exit_if(const Inst& inst) {
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

  void emit_exit(const Inst& inst) {
    const bool step = static_cast<ir::ExitKind>(inst.detail) == ir::ExitKind::kStep;
    refund(inst.origin + (step ? 0u : 1u));
    if (!step && part_of(inst.imm) == part_ + 1) return;  // falls through
    emit_go(inst.imm, step);
  }
  // The part that an exit to `target`, an offset from the current part's start, leads to.
  std::optional<std::size_t> part_of(std::int64_t target) const {
    return part_at(static_cast<std::int64_t>(page_offset_) + target);
  }

  // Gives back the budget of the instructions after the first `retired`.
  void refund(unsigned retired) {
    const unsigned unretired = unretired_after(retired);
    if (unretired != 0) a_.add(kBudget, unretired);
  }
  unsigned unretired_after(unsigned retired) const {
    return static_cast<unsigned>(block_->origins.size()) - std::min<unsigned>(retired, static_cast<unsigned>(block_->origins.size()));
  }

  // Continues at `target`, an offset from the block's start.
  void emit_go(std::int64_t target, bool step) {
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

  // rax: the guest-virtual address of an offset from the block's start.
  void set_address(std::int64_t target) {
    a_.mov(x86::rax, state(o_.page));
    a_.add(x86::rax, static_cast<int>(page_offset_ + target));
  }
  void leave(ExitReason reason, std::int64_t target) {
    unpin();
    leave_unpinned(reason, target);
  }
  void leave_unpinned(ExitReason reason, std::int64_t target) {
    set_address(target);
    a_.mov(state(o_.pc), x86::rax);
    a_.mov(state(o_.exit_reason), static_cast<int>(reason));
    a_.jmp(state(o_.exit));
  }

  void emit_jump() {
    const Label miss = a_.newLabel();
    emit_jump_by_tlb(a_, o_, miss);
    later([=, this] {
      a_.bind(miss);
      a_.mov(state(o_.exit_reason), static_cast<int>(ExitReason::kGo));
      a_.jmp(state(o_.exit));
    });
  }

  // --- Memory.

  std::uint32_t packed(const Inst& inst) const {
    const unsigned at = page_offset_ + block_->origins[inst.origin].offset;
    return pack_slow_access(inst.access(), at, unretired_after(inst.origin));
  }
  // Leaves the instruction that `inst` belongs to, which has had no effect yet, to the interpreter.
  Label leave_by_step(const Inst& inst) {
    const Label out = a_.newLabel();
    later([=, this, origin = inst.origin] {
      a_.bind(out);
      refund(origin);
      leave(ExitReason::kStep, block_->origins[origin].offset);
    });
    return out;
  }

  // Leaves the guest address in rax, the TLB entry in rcx; jumps to `slow` on a miss.
  void emit_lookup(ir::Access access, std::int64_t offset, const x86::Gp& base, std::uint32_t array,
                   const Label& slow) {
    if (offset != 0) {
      a_.lea(x86::rax, x86::ptr(base, static_cast<int>(offset)));
    } else if (base != x86::rax) {
      a_.mov(x86::rax, base);
    }
    const unsigned bytes = ir::bytes_of(access);
    a_.mov(x86::ecx, x86::eax);
    a_.shr(x86::ecx, 8);
    a_.and_(x86::ecx, static_cast<int>((o_.tlb_entries - 1) << 4));
    a_.mov(x86::rdx, x86::rax);
    a_.and_(x86::rdx, static_cast<int>(-4096 | static_cast<int>(bytes - 1)));
    a_.add(x86::rcx, state(o_.tlb));
    a_.cmp(x86::rdx, x86::qword_ptr(x86::rcx, static_cast<int>(array)));
    a_.jne(slow);
    a_.mov(x86::rcx, x86::qword_ptr(x86::rcx, static_cast<int>(array) + 8));
  }

  void call_slow(const Inst& inst, const StubOffsets& stub, const std::vector<std::pair<unsigned, unsigned>>& saved) {
    for (const auto& [xmm, index] : saved) a_.movsd(slot(index), x86::xmm(xmm));
    if (region_) a_.call(spill_);
    a_.mov(x86::edx, packed(inst));
    a_.call(state(region_ ? stub.bare : stub.full));
    if (region_) a_.call(fill_);
    for (const auto& [xmm, index] : saved) a_.movsd(x86::xmm(xmm), slot(index));
  }

  // --- Several accesses off one base value at near offsets share one TLB check: the first asks whether all their bytes
  // lie in one page that has an entry, and keeps its addend, or kNoAddend, in a slot.

  struct Group {
    std::int64_t least, end;  // of the bytes, relative to the base
    std::size_t first, last;  // instructions
    unsigned slot = 0;
  };
  static constexpr std::uint16_t kNoGroup = 0xffff;
  static constexpr std::int64_t kGroupBytes = 512;
  static constexpr int kNoAddend = 1;  // addends are multiples of the page size

  void find_groups() {
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
      // What the interpreter runs may change translations.
      if (inst.op == Op::kCall) open.clear();
      if (inst.op != Op::kLoad && inst.op != Op::kStore) continue;
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
  // The group of the current instruction, if others share it.
  Group* group_now() {
    const std::uint16_t number = group_of_[now_];
    if (number == kNoGroup || groups_[number].first == groups_[number].last) return nullptr;
    return &groups_[number];
  }
  // Before anything else is put in a slot for the current instruction.
  void begin_group() {
    if (Group* group = group_now(); group != nullptr && group->first == now_) group->slot = take_slot();
  }
  void end_group() {
    if (Group* group = group_now(); group != nullptr && group->last == now_) slot_used_[group->slot] = false;
  }

  // Finds the location of a load or store, [rax + rcx]; jumps to `slow` with the guest address in rax when it has none.
  x86::Mem locate(const Inst& inst, const x86::Gp& base, std::uint32_t array, const Label& slow) {
    const x86::Mem at = x86::ptr(x86::rax, x86::rcx);
    Group* group = group_now();
    if (group == nullptr) {
      emit_lookup(inst.access(), inst.imm, base, array, slow);
      return at;
    }
    const Label alone = a_.newLabel();
    const Label ready = a_.newLabel();
    const unsigned kept = group->slot;
    const bool first = group->first == now_;
    const int beyond = static_cast<int>(inst.imm - group->least);
    if (first) {
      a_.lea(x86::rax, x86::ptr(base, static_cast<int>(group->least)));
      a_.mov(x86::ecx, x86::eax);
      a_.shr(x86::ecx, 8);
      a_.and_(x86::ecx, static_cast<int>((o_.tlb_entries - 1) << 4));
      // Entries of neighbouring pages are in other places: the last byte's tag at the first byte's place says both.
      a_.lea(x86::rdx, x86::ptr(x86::rax, static_cast<int>(group->end - group->least - 1)));
      a_.and_(x86::rdx, -4096);
      a_.add(x86::rcx, state(o_.tlb));
      a_.cmp(x86::rdx, x86::qword_ptr(x86::rcx, static_cast<int>(array)));
      a_.jne(alone);
      a_.mov(x86::rcx, x86::qword_ptr(x86::rcx, static_cast<int>(array) + 8));
      if (beyond != 0) a_.add(x86::rax, beyond);
      a_.mov(slot(kept), x86::rcx);
    } else {
      a_.mov(x86::rcx, slot(kept));
      a_.lea(x86::rax, x86::ptr(base, static_cast<int>(inst.imm)));
      a_.test(x86::cl, kNoAddend);
      a_.jnz(alone);
    }
    a_.bind(ready);
    later([=, this] {
      a_.bind(alone);
      if (first) {
        a_.mov(slot(kept), kNoAddend);
        if (beyond != 0) a_.add(x86::rax, beyond);
      }
      emit_lookup(inst.access(), 0, x86::rax, array, slow);
      a_.jmp(ready);
    });
    return at;
  }

  // The instruction is left to the interpreter; values that share a pinned register must leave it first.
  void emit_call(const Inst& inst) {
    for (unsigned index = 0; index < pins_.integer.size(); ++index) vacate(index, ir::kNone);
    for (unsigned index = 0; index < pins_.floating.size(); ++index) vacate_xmm(index, ir::kNone);
    call_slow(inst, o_.step, live_xmms());
  }

  // The xmm registers that hold values needed after this instruction, each with a slot to keep it in during a
  // call. The slots are only lent: no value is spilled between here and the cold part's place in time.
  std::vector<std::pair<unsigned, unsigned>> live_xmms() {
    std::vector<std::pair<unsigned, unsigned>> saved;
    for (unsigned i = kFirstValueXmm; i <= last_value_xmm_; ++i) {
      if (xmm_of_[i] != ir::kNone && live_after(xmm_of_[i]) && xmm_of_[i] != now_) saved.push_back({i, take_slot()});
    }
    for (const auto& [xmm, index] : saved) slot_used_[index] = false;
    return saved;
  }

  void load_from(const x86::Mem& at, const x86::Gp& d, ir::Access access) {
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
  void load_from(const x86::Mem& at, const x86::Xmm& d, ir::Access access) {
    if (access == ir::Access::kF64) {
      a_.movsd(d, at);
    } else {
      a_.movss(d, at);
    }
  }
  void store_to(const x86::Mem& at, const x86::Gp& from, ir::Access access) {
    switch (ir::bytes_of(access)) {
      case 1: a_.mov(at, from.r8()); break;
      case 2: a_.mov(at, from.r16()); break;
      case 4: a_.mov(at, from.r32()); break;
      default: a_.mov(at, from); break;
    }
  }
  void store_to(const x86::Mem& at, const x86::Xmm& from, ir::Access access) {
    if (access == ir::Access::kF64) {
      a_.movsd(at, from);
    } else {
      a_.movss(at, from);
    }
  }

  // The location of an aligned access in rcx; anything else is stepped.
  x86::Mem atomic_location(const Inst& inst, bool reads_only) {
    const x86::Gp base = use(inst.operands[0], x86::rax);
    const unsigned bytes = ir::bytes_of(inst.access());
    const Label out = leave_by_step(inst);
    emit_lookup(inst.access(), 0, base, reads_only ? o_.tlb_read : o_.tlb_write, out);
    a_.add(x86::rcx, x86::rax);
    return x86::ptr(x86::rcx, 0, bytes);
  }

  // rax, rcx and rdx hold the old value, the location and the new value.
  void emit_atomic(const Inst& inst) {
    const auto op = static_cast<ir::AtomicOp>(inst.imm);
    const bool wide = inst.access() == ir::Access::kI64;
    const auto sized = [wide](const x86::Gp& reg) -> x86::Gp { return wide ? x86::Gp(reg) : x86::Gp(reg.r32()); };
    const x86::Mem at = atomic_location(inst, op == ir::AtomicOp::kLoad);
    const x86::Gp rax = sized(x86::rax);
    const x86::Gp rdx = sized(x86::rdx);
    if (op == ir::AtomicOp::kLoad) {
      a_.mov(rax, at);
    } else if (op == ir::AtomicOp::kSwap || op == ir::AtomicOp::kAdd) {
      move(x86::rax, inst.operands[1]);
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
      x86::Mem kept = x86::ptr(x86::rsp, static_cast<int>(8 * lent), wide ? 8 : 4);
      std::optional<x86::Gp> held;
      if (where.kind == Kind::kRegister || where.kind == Kind::kPinned) {
        held = sized(use(operand, x86::rdx));
      } else {
        a_.mov(slot(lent), use(operand, x86::rdx));
      }
      const auto with_operand = [&](auto emit) { held ? emit(*held) : emit(kept); };
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

  void emit_compare_swap(const Inst& inst) {
    const bool wide = inst.access() == ir::Access::kI64;
    const x86::Mem at = atomic_location(inst, false);
    move(x86::rax, inst.operands[1]);
    const x86::Gp next = use(inst.operands[2], x86::rdx);
    a_.lock().cmpxchg(at, wide ? x86::Gp(next) : x86::Gp(next.r32()));
    a_.sete(x86::al);
    a_.movzx(x86::eax, x86::al);
    a_.mov(destination(), x86::rax);
  }

  void emit_load(const Inst& inst) {
    const Label slow = a_.newLabel();
    const Label done = a_.newLabel();
    begin_group();
    // What making room for the destination emits must come before the way to the slow path branches off.
    const x86::Gp base = use(inst.operands[0], x86::rax);
    const bool floating = inst.type != Type::kI64;
    if (floating) {
      const x86::Xmm d = destination_xmm();
      const auto saved = live_xmms();
      load_from(locate(inst, base, o_.tlb_read, slow), d, inst.access());
      end_group();
      a_.bind(done);
      later([=, this] {
        a_.bind(slow);
        call_slow(inst, o_.read, saved);
        a_.movq(d, x86::rax);
        a_.jmp(done);
      });
      return;
    }
    const x86::Gp d = destination();
    const auto saved = live_xmms();
    load_from(locate(inst, base, o_.tlb_read, slow), d, inst.access());
    end_group();
    a_.bind(done);
    later([=, this] {
      a_.bind(slow);
      call_slow(inst, o_.read, saved);
      if (d != x86::rax) a_.mov(d, x86::rax);
      a_.jmp(done);
    });
  }

  void emit_store(const Inst& inst) {
    const Label slow = a_.newLabel();
    const Label done = a_.newLabel();
    begin_group();
    const x86::Mem at = locate(inst, use(inst.operands[0], x86::rax), o_.tlb_write, slow);
    end_group();
    const Value value = inst.operands[1];
    const bool floating = block_->insts[value].type != Type::kI64;
    const auto saved = live_xmms();
    const Where where = where_[value];
    if (floating) {
      store_to(at, use_xmm(value, x86::xmm0), inst.access());
    } else {
      store_to(at, use(value, x86::rdx), inst.access());
    }
    a_.bind(done);
    later([=, this] {
      a_.bind(slow);
      // The value is still where it was: nothing has been emitted since.
      switch (where.kind) {
        case Kind::kRegister: a_.mov(x86::rcx, kValues[where.index]); break;
        case Kind::kPinned: a_.mov(x86::rcx, kPinned[where.index]); break;
        case Kind::kXmm: a_.movq(x86::rcx, x86::xmm(where.index)); break;
        case Kind::kPinnedXmm: a_.movq(x86::rcx, pinned_xmm(where.index)); break;
        case Kind::kSlot: a_.mov(x86::rcx, slot(where.index)); break;
        default: load_constant(x86::rcx, constant(value)); break;
      }
      call_slow(inst, o_.write, saved);
      a_.jmp(done);
    });
  }

  // --- Floating point. Rounding and flags are MXCSR's.

  // MXCSR has IE 0, DE 1, ZE 2, OE 3, UE 4, PE 5; RISC-V has NX 0, UF 1, OF 2, DZ 3, NV 4: four bits the other way
  // round. Nibble i of this is i reversed.
  static constexpr std::uint64_t kReversed = 0xf7b3d591e6a2c480;

  void emit_flags_get(const Inst& inst) {
    const unsigned kept = take_slot();
    const x86::Mem mxcsr = x86::dword_ptr(x86::rsp, static_cast<int>(8 * kept));
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
    a_.movzx(x86::ecx, x86::byte_ptr(kState, static_cast<int>(inst.imm)));
    a_.or_(x86::eax, x86::ecx);
    slot_used_[kept] = false;
    a_.mov(destination(), x86::rax);
  }
  void emit_flags_set(const Inst& inst) {
    const unsigned kept = take_slot();
    const x86::Mem mxcsr = x86::dword_ptr(x86::rsp, static_cast<int>(8 * kept));
    move(x86::rdx, inst.operands[0]);
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
    a_.mov(x86::byte_ptr(kState, static_cast<int>(inst.imm)), 0);
    slot_used_[kept] = false;
  }

  void emit_float(const Inst& inst) {
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
      case Op::kFma: {
        const x86::Xmm left = use_xmm(a, x86::xmm0);
        if (left != x86::xmm0) a_.movaps(x86::xmm0, left);
        const x86::Xmm right = use_xmm(b, x86::xmm1);
        const x86::Xmm d = destination_xmm();
        const x86::Xmm addend = use_xmm(inst.operands[2], d == right ? x86::xmm1 : d);
        wide ? a_.vfmadd213sd(x86::xmm0, right, addend) : a_.vfmadd213ss(x86::xmm0, right, addend);
        a_.movaps(d, x86::xmm0);
        return;
      }
      case Op::kFneg:
      case Op::kFsign:
      case Op::kFsignXor: {
        const std::uint64_t sign = wide ? std::uint64_t{1} << 63 : std::uint64_t{1} << 31;
        if (inst.op == Op::kFsign && a == b) {
          const x86::Xmm from = use_xmm(a, x86::xmm0);
          a_.movaps(destination_xmm(), from);
          return;
        }
        a_.movq(x86::rax, use_xmm(a, x86::xmm0));
        a_.mov(x86::rcx, sign);
        if (inst.op == Op::kFneg) {
          a_.xor_(x86::rax, x86::rcx);
        } else {
          a_.movq(x86::rdx, use_xmm(b, x86::xmm1));
          a_.and_(x86::rdx, x86::rcx);
          if (inst.op == Op::kFsign) {
            a_.not_(x86::rcx);
            a_.and_(x86::rax, x86::rcx);
            a_.or_(x86::rax, x86::rdx);
          } else {
            a_.xor_(x86::rax, x86::rdx);
          }
        }
        a_.movq(destination_xmm(), x86::rax);
        return;
      }
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
      case Op::kFcanonical: {
        const x86::Xmm from = use_xmm(a, x86::xmm0);
        const x86::Xmm d = destination_xmm();
        a_.movaps(d, from);
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
        const x86::Xmm d = destination_xmm();
        a_.movaps(d, from);
        wide ? a_.ucomisd(d, d) : a_.ucomiss(d, d);
        a_.jp(leave_by_step(inst));
        return;
      }
      default: assert(false && "an operation without a translation");
    }
  }

  const StateOffsets& o_;
  const HostFeatures& features_;
  const Pins& pins_;
  const std::span<const RegionBlock> parts_;
  const bool region_;
  const unsigned last_value_xmm_;
  std::size_t part_ = 0;  // the one being emitted, with its block and offset
  const ir::Block* block_ = nullptr;
  unsigned page_offset_ = 0;
  const std::uint32_t first_site_;

  CodeHolder code_;
  x86::Assembler a_;
  std::vector<Label> labels_;  // of the parts
  Label spill_, fill_, unpin_;
  std::vector<Cold> cold_;
  std::vector<Link> links_;

  std::size_t now_ = 0;
  std::vector<std::uint32_t> last_use_;
  std::vector<std::uint32_t> use_count_;
  std::vector<Where> where_;
  std::array<Value, kValues.size()> value_of_{ir::kNone, ir::kNone, ir::kNone};
  std::array<Value, 16> xmm_of_ = [] {
    std::array<Value, 16> none;
    none.fill(ir::kNone);
    return none;
  }();
  std::array<bool, kSpillSlots> slot_used_{};
  std::vector<Group> groups_;
  std::vector<std::uint16_t> group_of_;  // by instruction
  Value fused_ = ir::kNone;
  std::vector<Value> released_;
  bool lent_ = false;           // an operand's register has become the result's
  bool operands_read_ = false;  // by the current instruction
};

EmittedCode Compiler::compile(const ir::Block& block, unsigned page_offset, std::uint32_t first_site) {
  const RegionBlock part{block, page_offset};
  return Emission(offsets_, features_, Pins{offsets_.pinned, {}}, {&part, 1}, false, first_site).run();
}

EmittedCode Compiler::compile_region(std::span<const RegionBlock> blocks, const Pins& pins, std::uint32_t first_site) {
  return Emission(offsets_, features_, pins, blocks, true, first_site).run();
}

}  // namespace doppel::x64
