#include "engine/translator_engine.h"

#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xmmintrin.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/bits.h"
#include "isa/riscv/csr.h"
#include "memory/guarded_access.h"

namespace doppel {
namespace {

using riscv::HartState;
using riscv::TlbContext;

// A Debian with systemd has run 75 MiB of it by its login; what does not fit is all translated anew.
constexpr std::size_t kCodeBytes = std::size_t{128} << 20;

// Of page slots in the TLB.
constexpr unsigned kSlicesARound = 16;

// MXCSR: all exceptions masked, no flags.
constexpr unsigned kMaskedExceptions = 0x1f80;
constexpr unsigned kRoundingShift = 13;

}  // namespace

x64::StateOffsets TranslatorEngine::state_offsets(x64::MemoryModel memory) {
  constexpr auto frame = [](std::size_t field) {
    return static_cast<std::uint32_t>(offsetof(HartState, frame) + field);
  };
  x64::StateOffsets o{};
  o.memory = memory;
  o.pc = offsetof(HartState, pc);
  o.page = frame(offsetof(isa::CodeFrame, page));
  o.tlb = frame(offsetof(isa::CodeFrame, tlb));
  o.code = frame(offsetof(isa::CodeFrame, code));
  o.exit = frame(offsetof(isa::CodeFrame, exit));
  o.read = {frame(offsetof(isa::CodeFrame, read.full)), frame(offsetof(isa::CodeFrame, read.bare))};
  o.write = {frame(offsetof(isa::CodeFrame, write.full)), frame(offsetof(isa::CodeFrame, write.bare))};
  o.step = {frame(offsetof(isa::CodeFrame, step.full)), frame(offsetof(isa::CodeFrame, step.bare))};
  o.budget = frame(offsetof(isa::CodeFrame, budget));
  o.exit_reason = frame(offsetof(isa::CodeFrame, exit_reason));
  o.exit_site = frame(offsetof(isa::CodeFrame, exit_site));
  o.leave = frame(offsetof(isa::CodeFrame, leave));
  o.clock = frame(offsetof(isa::CodeFrame, clock));
  o.stack = frame(offsetof(isa::CodeFrame, stack));
  o.signs = frame(offsetof(isa::CodeFrame, signs));
  o.slots = frame(offsetof(isa::CodeFrame, slots));
  o.tlb_read = offsetof(TlbContext, read);
  o.tlb_write = offsetof(TlbContext, write);
  o.tlb_fetch = offsetof(TlbContext, translated);
  o.tlb_entries = TlbContext::kEntries;
  o.tlb_slots = offsetof(TlbContext, slots);
  o.tlb_slot_refills = offsetof(TlbContext, slot_refills);
  o.stack_pointer = riscv::state_offset::x(2);
  o.jump_entries = CodeCache::kJumpEntries;
  o.page_entries = offsetof(CodeCache::Entries, code);
  o.integer_registers = riscv::state_offset::x(0);
  o.integer_count = 32;
  o.floating_registers = riscv::state_offset::f(0);
  o.floating_count = 32;
  // a0, a1, sp, a3 to a5 and s0: what compilers use most, and what calls wait for. Other sets of seven were measured, and
  // are slower: with a2 in place of sp, programs take 5 % longer.
  for (const unsigned r : {10u, 11u, 2u, 13u, 14u, 15u, 8u}) o.pinned.push_back(riscv::state_offset::x(r));
  return o;
}

namespace {

// Copies what a program may fetch from `address` on, at most a page of it; gives how many bytes that are.
std::size_t fetch_code(const riscv::UserSpace& user, std::uint64_t address, std::span<std::byte> into) {
  const std::uint64_t next_page = align_down(address, kPageSize) + kPageSize;
  if (!user.flat().contains(address, into.size()) || !user.allows(address, riscv::Access::kFetch)) return 0;
  const bool reaches_next = address + into.size() > next_page && user.allows(next_page, riscv::Access::kFetch);
  const std::size_t bytes = reaches_next ? into.size() : std::min<std::uint64_t>(into.size(), next_page - address);
  return guarded_copy(user.flat().host(address), into.data(), bytes);
}

static_assert(x64::kSpillSlots <= isa::CodeFrame::kSlots && sizeof(CodeCache::JumpEntry) == 16);
static_assert(TlbContext::kSlots == x64::kPageSlots);
static_assert(sizeof(riscv::TlbEntry) == 16 && sizeof(riscv::FetchEntry) == 16);

// The encoding of an instruction, or what `code` has of it.
std::uint32_t encoding_at(std::span<const std::byte> code, std::size_t offset) {
  std::uint32_t raw = 0;
  std::memcpy(&raw, &code[offset], std::min<std::size_t>(4, code.size() - offset));
  return riscv::instruction_bytes(static_cast<std::uint16_t>(raw)) == 2 ? raw & 0xffff : raw;
}

// The engine that runs on this thread, for helpers that translated code calls with nothing but the state.
thread_local TranslatorEngine* running = nullptr;

}  // namespace

Result<std::unique_ptr<TranslatorEngine>> TranslatorEngine::create(riscv::Hart& hart, const Options& options) {
  auto cache = make_cache(hart);
  if (!cache) return std::unexpected(cache.error());
  return std::make_unique<TranslatorEngine>(hart, std::move(*cache), options);
}

Result<std::shared_ptr<CodeCache>> TranslatorEngine::make_cache(riscv::Hart& hart) {
  Result<CodeMemory> memory = CodeMemory::create(kCodeBytes);
  if (!memory) return std::unexpected(memory.error());
  const x64::HostFeatures features = x64::HostFeatures::detect();
  auto model = x64::MemoryModel::kPaged;
  const auto lifter = std::make_shared<riscv::Lifter>(
      hart.isa(), riscv::LiftOptions{.fused_multiply_add = features.fma});
  CodeCache::Guest guest;
  if (riscv::UserSpace* user = hart.env().user; user != nullptr) {
    model = user->flat().base == nullptr ? x64::MemoryModel::kFlat : x64::MemoryModel::kSegment;
    guest.lift = [lifter](auto page, std::uint64_t base, unsigned offset, const auto& limits, ir::Block& block) {
      lifter->lift(page, offset, block, limits, base);
    };
    guest.fetch = [user](std::uint64_t address, std::span<std::byte> into) { return fetch_code(*user, address, into); };
    guest.recurs = [user](std::uint64_t address) { return user->is_of_file(address); };
  } else {
    guest.lift = [lifter](auto page, std::uint64_t, unsigned offset, const auto& limits, ir::Block& block) {
      lifter->lift(page, offset, block, limits);
    };
    guest.on_clear = [&hart] { hart.mmu().flush_fetch(); };
  }
  return std::make_shared<CodeCache>(std::move(*memory), x64::Compiler(state_offsets(model), features),
                                     std::move(guest), CodeCache::Helpers{&slow_read, &slow_write, &slow_step, &read_clock});
}

TranslatorEngine::TranslatorEngine(riscv::Hart& hart, std::shared_ptr<CodeCache> cache, const Options& options)
    : options_(options),
      hart_(hart),
      state_(hart.state()),
      mmu_(hart.mmu()),
      decoder_(hart.isa()),
      interpreter_(hart),
      cache_(std::move(cache)),
      runner_(*cache_),
      enter_(cache_->enter_function()) {
  hart.on_fence_i = [this] {
    ++code_fences_;
    interpreter_.expect_code_changes();
    if (flat()) {
      cache_->invalidate(0, ~std::uint64_t{0});
    } else {
      cache_->expect_changes();
    }
  };
}

void TranslatorEngine::trace(std::shared_ptr<TranslationLog> log) {
  cache_->on_translation = [log = std::move(log)](const CodeCache::Translation& translation) {
    log->record(translation);
  };
}

TranslatorEngine::~TranslatorEngine() {
  hart_.on_fence_i = nullptr;
  mmu_.flush_fetch();
}

riscv::Exit TranslatorEngine::run(std::uint64_t budget) {
  hart_.begin_run();
  running = this;
  // A reset or a restored state knows nothing of this engine.
  state_.frame.code = cache_->code();
  state_.frame.tlb = nullptr;
  state_.frame.exit = cache_->code() + cache_->stubs().exit;
  state_.frame.clock = cache_->code() + cache_->stubs().clock;
  for (unsigned i = 0; i < x64::kLeaveReasons; ++i) {
    state_.frame.leave[i] = cache_->code() + cache_->stubs().leave[i];
  }
  const auto stub = [this](const x64::StubOffsets& offsets) {
    return isa::CodeFrame::Stub{cache_->code() + offsets.full, cache_->code() + offsets.bare};
  };
  state_.frame.read = stub(cache_->stubs().read);
  state_.frame.write = stub(cache_->stubs().write);
  state_.frame.step = stub(cache_->stubs().step);
  if (cache_->compiler().offsets().memory == x64::MemoryModel::kSegment) {
    ::syscall(SYS_arch_prctl, ARCH_SET_GS, hart_.env().user->flat().base);
  }
  const std::uint64_t end = state_.instructions + budget;
  riscv::Exit exit = riscv::Exit::kBudget;
  const void* site = nullptr;  // the link that translated code came back by
  while (state_.instructions < end) {
    if (hart_.attention()) {
      site = nullptr;
      if (const std::optional<riscv::Exit> why = hart_.serve_attention()) {
        exit = *why;
        break;
      }
    }
    const std::byte* code = find(std::exchange(site, nullptr));
    if (code == nullptr) {
      interpret(end);
      continue;
    }
    // One slice: translated code comes back for links, jumps to untranslated code, and steps.
    const auto slice =
        static_cast<std::int64_t>(std::min<std::uint64_t>(options_.slice, end - state_.instructions));
    state_.frame.budget = slice;
    slice_end_ = state_.instructions + static_cast<std::uint64_t>(slice);
    enter(code);
    state_.instructions = slice_end_ - static_cast<std::uint64_t>(state_.frame.budget);

    switch (static_cast<x64::ExitReason>(state_.frame.exit_reason)) {
      case x64::ExitReason::kLink:
        site = reinterpret_cast<const void*>(state_.frame.exit_site);
        ++links_;
        break;
      case x64::ExitReason::kStep:
        // Floating-point code that found the host closed runs once it is open.
        if (!floating_wanted_ && state_.host_can_compute() && computes(known_here())) {
          floating_wanted_ = true;
        } else {
          step();
        }
        break;
      case x64::ExitReason::kSpent:
        // A block longer than what is left of the budget must not hang the loop.
        if (state_.frame.budget == slice) {
          step();
        } else {
          note_running();
        }
        if (!flat() && ++slices_ % kSlicesARound == 0) mmu_.tlb().begin_round();
        break;
      case x64::ExitReason::kGo:
      case x64::ExitReason::kFault: break;
    }
  }
  running = nullptr;
  hart_.end_run();
  return exit;
}

void TranslatorEngine::enter(const std::byte* code) {
  if (flat()) {
    state_.frame.tlb = runner_.jumps();
    if (!runner_.begin(code_age_)) {
      state_.frame.exit_reason = static_cast<std::uint64_t>(x64::ExitReason::kGo);
      return;
    }
  } else {
    use_tlb();
    state_.frame.page = align_down(state_.pc, kPageSize);
  }
  if (floating_wanted_) open_floating();
  enter_(&state_, code);
  floating_wanted_ = floating_open_;
  close_floating();
  if (flat()) runner_.end();
}

void TranslatorEngine::use_tlb() {
  if (state_.frame.tlb == &mmu_.tlb()) return;
  state_.frame.tlb = &mmu_.tlb();
  if (cache_->compiler().features().segment_bases) x64::set_segment_base(state_.frame.tlb);
}

const std::byte* TranslatorEngine::find(const void* site) {
  const std::uint64_t pc = state_.pc;
  if (flat()) return cache_->find(runner_, pc, site, code_age_);
  const std::uint64_t tag = align_down(pc, kPageSize);
  riscv::FetchEntry* entry = &fetch_entry();
  auto* entries = static_cast<CodeCache::Entries*>(entry->code);
  if (entry->tag != tag) {
    const auto at = mmu_.locate(pc, riscv::Access::kFetch, 2);
    // The interpreter takes the trap, and runs what only part of a page may be fetched from.
    if (!at || mmu_.tlb().fetch[TlbContext::index(pc)].tag != tag) return nullptr;
    entries = &cache_->page({align_down(at->gpa.value, kPageSize)}, at->host - (pc & (kPageSize - 1)));
    *entry = {tag, entries};
    site = nullptr;  // a link stays within its page, which is another one now
  }
  const unsigned offset = static_cast<unsigned>(pc & (kPageSize - 1));
  if (const std::uint32_t known = entries->code[offset / 2]; known != 0 && site == nullptr) {
    ++found_;
    return cache_->code() + known;
  } else if (known == 0 && entries->runs[offset / 2] < options_.translate_after) {
    ++entries->runs[offset / 2];
    return nullptr;
  }
  return cache_->find(*entries, offset, site);
}

void TranslatorEngine::note_running() {
  if (flat()) return cache_->note_running(state_.pc, options_.hot_after);
  if (fetch_entry().tag != align_down(state_.pc, kPageSize)) return;
  auto& entries = *static_cast<CodeCache::Entries*>(fetch_entry().code);
  cache_->note_running(entries, static_cast<unsigned>(state_.pc & (kPageSize - 1)), options_.hot_after,
                       mmu_.tlb().unfit_slots);
}

riscv::FetchEntry& TranslatorEngine::fetch_entry() {
  return mmu_.tlb().translated[TlbContext::index(state_.pc)];
}

void TranslatorEngine::interpret(std::uint64_t end) {
  if (flat()) return interpret_program(end);
  const std::uint64_t page = align_down(state_.pc, kPageSize);
  if (fetch_entry().tag != page) return step();
  auto& entries = *static_cast<CodeCache::Entries*>(fetch_entry().code);
  const std::span source(CodeCache::source(entries), kPageSize);
  const std::uint64_t changes = mmu_.changes();
  for (;;) {
    const std::uint64_t offset = state_.pc - page;
    step(encoding_at(source, offset));
    const std::uint64_t next = state_.pc - page;
    const bool straight_on = next - offset - 1 < 4 && next < kPageSize;
    if (!straight_on || state_.instructions >= end || hart_.attention() || mmu_.changes() != changes) return;
    if (entries.code[next / 2] != 0) return;
  }
}

void TranslatorEngine::interpret_program(std::uint64_t end) {
  std::array<std::byte, isa::BlockLimits::kMostBytes> code;
  const std::uint64_t begin = state_.pc;
  const std::size_t bytes = fetch_code(*hart_.env().user, begin, code);
  if (bytes < 4) return step();
  const std::uint64_t fences = code_fences_;
  do {
    const std::uint64_t pc = state_.pc;
    step(encoding_at(code, pc - begin));
    if (state_.pc - pc > 4 || state_.pc == pc || state_.instructions >= end || hart_.attention()) return;
    if (code_fences_ != fences) return;
  } while (state_.pc - begin + 4 <= bytes);
}

std::uint32_t TranslatorEngine::known_here() {
  if (flat()) {
    std::array<std::byte, 4> code{};
    const std::size_t bytes = fetch_code(*hart_.env().user, state_.pc, code);
    const std::uint32_t raw = encoding_at(code, 0);
    return bytes < riscv::instruction_bytes(static_cast<std::uint16_t>(raw)) ? 0 : raw;
  }
  const riscv::FetchEntry& entry = fetch_entry();
  if (entry.tag != align_down(state_.pc, kPageSize)) return 0;
  const std::byte* source = CodeCache::source(*static_cast<CodeCache::Entries*>(entry.code));
  return encoding_at({source, kPageSize}, state_.pc & (kPageSize - 1));
}

bool TranslatorEngine::computes(std::uint32_t raw) const {
  const riscv::Decoded decoded = decoder_.decode(raw);
  return decoded.row != riscv::kIllegal && riscv::rows()[decoded.row].traits.floating_point;
}

void TranslatorEngine::step() { step(known_here()); }

void TranslatorEngine::step(std::uint32_t raw) {
  // System calls are what programs leave translated code for.
  constexpr std::uint32_t kEcall = 0x73;
  if (flat() && raw == kEcall && state_.pc % kPageSize + 4 <= kPageSize) {
    return hart_.take_trap({riscv::Exception::kUserCall}, state_.pc);
  }
  ++steps_;
  const auto straddles = [this, &raw] {
    return state_.pc % kPageSize + riscv::instruction_bytes(static_cast<std::uint16_t>(raw)) > kPageSize;
  };
  // Its second half may be another one by now, or unknown.
  if (flat() && straddles()) raw = known_here();
  // What lies in no page that is known has to be fetched, and in paged memory what lies in two.
  if (raw == 0 || (!flat() && straddles())) return interpreter_.step();
  interpreter_.step(raw);
}

bool TranslatorEngine::recover_fault(ucontext_t& context) {
  TranslatorEngine* self = running;
  auto& registers = context.uc_mcontext.gregs;
  if (self == nullptr) return false;
  const auto fault = self->cache_->fault_at(reinterpret_cast<const void*>(registers[REG_RIP]));
  if (!fault) return false;
  // By their numbers in machine code.
  static constexpr std::array<int, 16> kRegisters{REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                                  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                                  REG_R12, REG_R13, REG_R14, REG_R15};
  // The pinned registers are the guest's state; offsets of pins lie in it.
  auto* state = reinterpret_cast<std::byte*>(&self->state_);
  for (std::size_t i = 0; i < fault->pins->integer.size(); ++i) {
    const auto value = registers[kRegisters[x64::Compiler::pinned_registers()[i]]];
    std::memcpy(state + fault->pins->integer[i], &value, sizeof value);
  }
  for (std::size_t i = 0; i < fault->pins->floating.size(); ++i) {
    const auto& value = context.uc_mcontext.fpregs->_xmm[x64::Compiler::pinned_xmm(static_cast<unsigned>(i))];
    std::memcpy(state + fault->pins->floating[i], &value, sizeof(std::uint64_t));
  }
  self->state_.pc = fault->point.pc;
  self->state_.frame.exit_reason = static_cast<std::uint64_t>(x64::ExitReason::kStep);
  registers[REG_R15] += fault->point.unretired;
  registers[REG_RIP] = reinterpret_cast<greg_t>(self->cache_->code() + self->cache_->stubs().exit_spilled);
  return true;
}

void TranslatorEngine::open_floating() {
  if (!state_.host_can_compute()) return;
  floating_open_ = true;
  state_.frame.floating_closed = 0;
  // frm's first four modes in MXCSR's coding: nearest 0, down 1, up 2, zero 3.
  constexpr std::array<unsigned, 4> kModes{0, 3, 1, 2};
  _mm_setcsr(kMaskedExceptions | kModes[state_.frm & 3] << kRoundingShift);
}

void TranslatorEngine::close_floating() {
  if (!floating_open_) return;
  floating_open_ = false;
  state_.frame.floating_closed = 1;
  const unsigned flags = _mm_getcsr();
  _mm_setcsr(kMaskedExceptions);
  // MXCSR: IE 0, DE 1, ZE 2, OE 3, UE 4, PE 5; fflags: NX 0, UF 1, OF 2, DZ 3, NV 4.
  const unsigned accrued = (flags & 1) << 4 | (flags >> 2 & 1) << 3 | (flags >> 3 & 1) << 2 |
                           (flags >> 4 & 1) << 1 | (flags >> 5 & 1);
  state_.fflags |= static_cast<std::uint8_t>(accrued);
}

// While it stands, host code has its own floating-point mode: a slow access may end in a device.
class TranslatorEngine::HostFloating {
 public:
  explicit HostFloating(TranslatorEngine& engine) : engine_(engine), was_open_(engine.floating_open_) {
    engine_.close_floating();
  }
  ~HostFloating() {
    if (was_open_) engine_.open_floating();
  }
  HostFloating(const HostFloating&) = delete;
  HostFloating& operator=(const HostFloating&) = delete;

 private:
  TranslatorEngine& engine_;
  bool was_open_;
};

x64::SlowResult TranslatorEngine::fault(std::uint64_t access) {
  state_.frame.budget += x64::slow_unretired(access);
  hart_.take_trap(interpreter_.fault(), state_.frame.page + x64::slow_page_offset(access));
  return {0, x64::Resume::kLeave};
}

x64::SlowResult TranslatorEngine::slow_read(void*, std::uint64_t address, std::uint64_t, std::uint64_t access) {
  TranslatorEngine& self = *running;
  const HostFloating host(self);
  const ir::Access kind = x64::slow_access(access);
  const std::optional<std::uint64_t> value = self.interpreter_.read(address, ir::bytes_of(kind));
  if (!value) return self.fault(access);
  using x64::Resume;
  switch (kind) {
    case ir::Access::kI8: return {sign_extend(*value, 8), Resume::kHere};
    case ir::Access::kI16: return {sign_extend(*value, 16), Resume::kHere};
    case ir::Access::kI32: return {sign_extend(*value, 32), Resume::kHere};
    default: return {*value, Resume::kHere};
  }
}

x64::SlowResult TranslatorEngine::slow_write(void*, std::uint64_t address, std::uint64_t value,
                                             std::uint64_t access) {
  TranslatorEngine& self = *running;
  const HostFloating host(self);
  const unsigned bytes = ir::bytes_of(x64::slow_access(access));
  const std::uint64_t masked = bytes == 8 ? value : value & ((std::uint64_t{1} << (8 * bytes)) - 1);
  if (!self.interpreter_.write(address, bytes, masked)) return self.fault(access);
  return {0, x64::Resume::kHere};
}

x64::SlowResult TranslatorEngine::slow_step(void*, std::uint64_t, std::uint64_t raw, std::uint64_t access) {
  using x64::Resume;
  TranslatorEngine& self = *running;
  HartState& state = self.state_;
  const std::uint64_t pc = state.frame.page + x64::slow_page_offset(access);
  const std::uint64_t changes = self.mmu_.changes();
  const bool computing = self.floating_open_;
  self.close_floating();
  state.pc = pc;
  state.instructions = self.slice_end_ - static_cast<std::uint64_t>(state.frame.budget) - x64::slow_unretired(access);
  const std::uint64_t before = state.instructions;
  self.step(static_cast<std::uint32_t>(raw));
  const bool retired = state.instructions != before;
  const bool in_sequence = retired && state.pc - pc <= 4 && state.pc != pc && self.mmu_.changes() == changes;
  if (!in_sequence || self.hart_.attention()) {
    state.frame.budget += x64::slow_unretired(access) - (retired ? 1 : 0);
    if (self.hart_.attention()) return {0, Resume::kLeave};
  }
  if (computing && in_sequence) self.open_floating();
  if (!self.flat()) self.use_tlb();
  return {0, in_sequence ? Resume::kHere : Resume::kJump};
}

std::uint64_t TranslatorEngine::read_clock(void*) { return running->hart_.time(); }

EngineStatistics TranslatorEngine::statistics() const {
  const CodeCache::Statistics cache = cache_->statistics();
  EngineStatistics statistics;
  statistics.steps = steps_;
  statistics.links = links_;
  statistics.blocks_translated = cache.blocks;
  statistics.regions_translated = cache.regions;
  statistics.translate_seconds = cache.seconds;
  statistics.code_bytes = cache.code_bytes;
  statistics.cache_loaded = cache.loaded;
  statistics.cache_hits = found_ + cache.lookups - cache.blocks;
  statistics.cache_misses = cache.blocks;
  statistics.cache_evicted = cache.evictions;
  statistics.cache_invalidated = cache.invalidated;
  return statistics;
}

}  // namespace doppel
