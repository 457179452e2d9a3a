#include "engine/hart_debugger.h"

#include <algorithm>

#include "base/bits.h"
#include "engine/hart_thread.h"
#include "isa/riscv/mmu.h"
#include "memory/guarded_access.h"

namespace doppel {
namespace {

using riscv::Exit;

// Of a 32-bit instruction.
constexpr unsigned kLoad = 0x03, kLoadFp = 0x07, kMiscMem = 0x0f, kStore = 0x23, kStoreFp = 0x27, kAmo = 0x2f;
constexpr unsigned kLoadReserved = 2, kStoreConditional = 3;

}  // namespace

HartDebugger::HartDebugger(riscv::Hart& hart, const DebugStops& stops, std::function<bool(std::uint64_t)> planted,
                           std::function<void(const DebugEvent&)> report)
    : hart_(hart),
      stops_(stops),
      report_([this, report = std::move(report)](const DebugEvent& event) {
        reported_ = true;
        report(event);
      }),
      engine_fence_i_(hart.on_fence_i),
      interpreter_(std::make_unique<riscv::Interpreter>(hart)) {
  hart.on_fence_i = [this] { expect_code_changes(); };
  hart.on_breakpoint = [this, planted = std::move(planted)](std::uint64_t epc) {
    if (!planted(epc)) return false;
    report_({DebugEvent::Kind::kBreakpoint, epc, {}});
    return true;
  };
}

HartDebugger::~HartDebugger() {
  set_step(false);
  hart_.on_breakpoint = nullptr;
  interpreter_.reset();  // which forgets fetches, and takes on_fence_i away
  hart_.on_fence_i = engine_fence_i_;
}

void HartDebugger::set_step(bool step) {
  step_ = step;
  if (hart_.hold_interrupts && !step) hart_.wake();
  hart_.hold_interrupts = step;
}

void HartDebugger::expect_code_changes() {
  if (engine_fence_i_) engine_fence_i_();
  interpreter_->expect_code_changes();
}

// Both keep what they made of a page in the same fetch entries.
void HartDebugger::use_own_interpreter(bool own) {
  if (uses_own_ == own) return;
  uses_own_ = own;
  hart_.mmu().flush_fetch();
}

Exit HartDebugger::run(Engine& engine) {
  if (step_) return step();
  if (!stops_.empty()) return look();
  use_own_interpreter(false);
  return engine.run(kUnlimited);
}

Exit HartDebugger::step() {
  use_own_interpreter(true);
  reported_ = false;
  hart_.begin_run();
  const std::optional<Exit> why = hart_.serve_attention();
  if (!why) run_one();
  hart_.end_run();
  if (why && *why == Exit::kStop) return *why;  // somebody else was first; nothing has run
  // A parked hart has nothing to step, and its debugger shall not wait for ever.
  if (!reported_) report_({DebugEvent::Kind::kStep, hart_.state().pc, {}});
  return Exit::kStop;
}

void HartDebugger::run_one() {
  if (stops_.watches.empty()) {
    interpreter_->step();
    return;
  }
  const Access access = next_access();
  const std::uint64_t before = hart_.state().instructions;
  interpreter_->step();
  // What traps has accessed nothing.
  if (access.size_bytes == 0 || hart_.state().instructions == before) return;
  for (const DebugStops::Watch& watch : stops_.watches) {
    const bool meant = (watch.reads && access.reads) || (watch.writes && access.writes);
    // Differences, for either may end at the top of the address space.
    const bool overlaps = access.address - watch.start < watch.size_bytes ||
                          watch.start - access.address < access.size_bytes;
    if (!meant || !overlaps) continue;
    report_({DebugEvent::Kind::kWatch, std::max(access.address, watch.start), watch});
    return;
  }
}

Exit HartDebugger::look() {
  use_own_interpreter(true);
  reported_ = false;
  hart_.begin_run();
  std::optional<Exit> why;
  for (;;) {
    if (hart_.attention()) {
      why = hart_.serve_attention();
      if (why) break;
    }
    const std::uint64_t pc = hart_.state().pc;
    if (std::ranges::find(stops_.instructions, pc) != stops_.instructions.end()) {
      report_({DebugEvent::Kind::kInstruction, pc, {}});
      why = Exit::kStop;
      break;
    }
    run_one();
  }
  hart_.end_run();
  return *why;
}

std::uint32_t HartDebugger::instruction_at(std::uint64_t pc) const {
  std::uint32_t raw = 0;
  for (unsigned half = 0; half < 2; ++half) {
    const auto gpa = hart_.mmu().look_up(pc + 2 * half);
    const std::byte* host = gpa ? hart_.mmu().ram(*gpa, 2) : nullptr;
    std::uint64_t value = 0;
    if (host == nullptr || guarded_read(host, 2, value) != 0) return 0;
    raw |= static_cast<std::uint32_t>(value) << (16 * half);
    if ((raw & 3) != 3) break;
  }
  return raw;
}

// The unprivileged manual's chapters "RV32I", "A", "C" and "CMO" have the formats.
HartDebugger::Access HartDebugger::next_access() const {
  const std::uint32_t raw = instruction_at(hart_.state().pc);
  const auto field = [raw](unsigned high, unsigned low) { return static_cast<unsigned>(bits(raw, high, low)); };
  const auto x = [this](unsigned r) { return hart_.state().x[r]; };
  if ((raw & 3) == 3) {
    const unsigned opcode = field(6, 0), funct3 = field(14, 12), size = 1u << (funct3 & 3);
    const std::uint64_t base = x(field(19, 15));
    switch (opcode) {
      case kLoad:
      case kLoadFp: return {base + sign_extend(field(31, 20), 12), size, true, false};
      case kStore:
      case kStoreFp: return {base + sign_extend(field(31, 25) << 5 | field(11, 7), 12), size, false, true};
      case kAmo: {
        const unsigned kind = field(31, 27);
        return {base, size, kind != kStoreConditional, kind != kLoadReserved};
      }
      case kMiscMem:
        if (funct3 == 2 && field(31, 20) == 4) {  // CBO.ZERO
          constexpr std::uint64_t kBytes = riscv::IsaConfig::kCacheBlockBytes;
          return {align_down(base, kBytes), kBytes, false, true};
        }
        return {};
      default: return {};
    }
  }
  const unsigned funct3 = field(15, 13);
  const std::uint64_t sp = x(2);
  if ((raw & 3) == 0) {
    const std::uint64_t base = x(8 + field(9, 7));
    const unsigned word = field(5, 5) << 6 | field(12, 10) << 3 | field(6, 6) << 2;
    const unsigned twice = field(6, 5) << 6 | field(12, 10) << 3;
    switch (funct3) {
      case 1:
      case 3: return {base + twice, 8, true, false};
      case 2: return {base + word, 4, true, false};
      case 5:
      case 7: return {base + twice, 8, false, true};
      case 6: return {base + word, 4, false, true};
      case 4: {  // Zcb
        const unsigned kind = field(12, 10);
        const unsigned size = (kind & 1) != 0 ? 2 : 1;
        const unsigned offset = size == 2 ? field(5, 5) << 1 : field(5, 5) << 1 | field(6, 6);
        return {base + offset, size, kind < 2, kind >= 2};
      }
      default: return {};
    }
  }
  if ((raw & 3) == 2) {
    switch (funct3) {
      case 1:
      case 3: return {sp + (field(4, 2) << 6 | field(12, 12) << 5 | field(6, 5) << 3), 8, true, false};
      case 2: return {sp + (field(3, 2) << 6 | field(12, 12) << 5 | field(6, 4) << 2), 4, true, false};
      case 5:
      case 7: return {sp + (field(9, 7) << 6 | field(12, 10) << 3), 8, false, true};
      case 6: return {sp + (field(8, 7) << 6 | field(12, 9) << 2), 4, false, true};
      default: return {};
    }
  }
  return {};
}

}  // namespace doppel
