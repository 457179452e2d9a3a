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
#include "engine/host_fault.h"
#include "isa/riscv/csr.h"
#include "memory/guarded_access.h"

namespace doppel {
namespace {

using riscv::HartState;
using riscv::TlbContext;

// A machine's programs, where they do not say themselves where they lie: what is linked to fixed addresses has such ones.
// Others are placed at random by most operating systems, far above.
constexpr std::uint64_t kLinkedAddresses = std::uint64_t{1} << 32;

// When that many samples, one after the other, have told nothing, one in so many is taken.
constexpr unsigned kManySamples = 64, kSamplesWhenCalm = 8;

// Of page slots in the TLB.
constexpr unsigned kSamplesARound = 4;

// How many pages may be entered in a shadow: at first, and after so many instructions one more.
constexpr std::uint64_t kEntriesAtFirst = 16384, kInstructionsAnEntry = 50'000;

// How many instructions a visit to a shadow must have on average, when it was there for so many.
constexpr std::uint64_t kInstructionsAVisit = 500, kInstructionsAtFirst = 5'000'000;

// In one slice the stack pointer of a program does not get past what guards its shadow.
constexpr std::int64_t kMostInShadow = ShadowSpace::kGuardBytes / 2 / x64::kStackStride;
static_assert(ShadowSpace::kGuardBytes / 2 > 4 * x64::kShadowReach);

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
  o.refill_write = frame(offsetof(isa::CodeFrame, refill_write));
  o.budget = frame(offsetof(isa::CodeFrame, budget));
  o.slices = frame(offsetof(isa::CodeFrame, slices));
  o.slice = frame(offsetof(isa::CodeFrame, slice));
  o.slice_end = frame(offsetof(isa::CodeFrame, slice_end));
  o.attention = frame(offsetof(isa::CodeFrame, attention));
  o.exit_reason = frame(offsetof(isa::CodeFrame, exit_reason));
  o.exit_site = frame(offsetof(isa::CodeFrame, exit_site));
  o.leave = frame(offsetof(isa::CodeFrame, leave));
  o.clock = frame(offsetof(isa::CodeFrame, clock));
  o.stack = frame(offsetof(isa::CodeFrame, stack));
  o.signs = frame(offsetof(isa::CodeFrame, signs));
  o.outside = frame(offsetof(isa::CodeFrame, outside));
  o.window = frame(offsetof(isa::CodeFrame, window));
  o.slots = frame(offsetof(isa::CodeFrame, slots));
  o.tlb_read = offsetof(TlbContext, read);
  o.tlb_write = offsetof(TlbContext, write);
  o.tlb_fetch = offsetof(TlbContext, translated);
  o.tlb_entries = TlbContext::kEntries;
  o.tlb_read_chunks = offsetof(TlbContext, read_chunks);
  o.tlb_write_chunks = offsetof(TlbContext, write_chunks);
  o.tlb_chunks = TlbContext::kChunks;
  o.tlb_chunk_shift = TlbContext::kChunkShift;
  o.tlb_filled = offsetof(TlbContext, filled);
  o.tlb_groups = TlbContext::Groups::kBits;
  o.tlb_slots = offsetof(TlbContext, slots);
  o.tlb_slot_refills = offsetof(TlbContext, slot_refills);
  o.stack_pointer = riscv::state_offset::x(2);
  o.jump_mask = frame(offsetof(isa::CodeFrame, jump_mask));
  o.page_entries = offsetof(CodeCache::Entries, code);
  o.page_first = offsetof(CodeCache::Entries, first);
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

// The page of code at that address, of which all may be fetched; none where that is not so.
CodeCache::Guest::Bytes code_at(riscv::Mmu& mmu, std::uint64_t page) {
  const auto at = mmu.locate(page, riscv::Access::kFetch, 2);
  if (!at || mmu.tlb().fetch[TlbContext::index(page)].tag != page) return {};
  return {at->host, at->page_bytes};
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
  auto cache = make_cache(hart, options);
  if (!cache) return std::unexpected(cache.error());
  return std::make_unique<TranslatorEngine>(hart, std::move(*cache), options);
}

Result<std::shared_ptr<CodeCache>> TranslatorEngine::make_cache(riscv::Hart& hart, const Options& options,
                                                                   bool shadow) {
  Result<CodeMemory> memory = CodeMemory::create(options.code_bytes);
  if (!memory) return std::unexpected(memory.error());
  const x64::HostFeatures features = x64::HostFeatures::detect();
  auto model = x64::MemoryModel::kPaged;
  const auto lifter = std::make_shared<riscv::Lifter>(
      hart.isa(), riscv::LiftOptions{.fused_multiply_add = features.fma, .open = hart.env().user != nullptr});
  // Code that knows its own address.
  const auto lift_at = [lifter](auto page, std::uint64_t base, unsigned offset, const auto& limits, ir::Block& block) {
    lifter->lift(page, offset, block, limits, base);
  };
  CodeCache::Guest guest;
  if (riscv::UserSpace* user = hart.env().user; user != nullptr) {
    model = user->flat().base == nullptr ? x64::MemoryModel::kFlat : x64::MemoryModel::kSegment;
    guest.lift = lift_at;
    guest.fetch = [user](std::uint64_t address, std::span<std::byte> into) { return fetch_code(*user, address, into); };
    guest.recurs = [user](std::uint64_t address) { return user->recurs(address); };
  } else if (shadow) {
    model = x64::MemoryModel::kShadow;
    guest.lift = lift_at;
    guest.bytes_at = [&hart](std::uint64_t page) { return code_at(hart.mmu(), page); };
    guest.recurs = [](std::uint64_t address) { return address < kLinkedAddresses; };
  } else {
    guest.lift = [lifter](auto page, std::uint64_t, unsigned offset, const auto& limits, ir::Block& block) {
      lifter->lift(page, offset, block, limits);
    };
    guest.behind = [&hart]() -> const std::byte* {
      const auto next = hart.mmu().look_up(align_down(hart.state().pc, kPageSize) + kPageSize);
      return next ? hart.mmu().ram(*next, kPageSize) : nullptr;
    };
    guest.on_eviction = [&hart] { hart.mmu().flush_fetch(); };
  }
  auto cache = std::make_shared<CodeCache>(std::move(*memory), x64::Compiler(state_offsets(model), features), std::move(guest),
                                           CodeCache::Helpers{&slow_read, &slow_write, &slow_step, &read_clock});
  cache->allow(options.passes);
  if (options.background != nullptr) cache->compile_in(*options.background);
  return cache;
}

static EngineStatistics statistics_of(const CodeCache& code) {
  const CodeCache::Statistics cache = code.statistics();
  EngineStatistics statistics;
  statistics.blocks_translated = cache.blocks;
  statistics.regions_translated = cache.regions;
  statistics.translate_seconds = cache.seconds;
  statistics.background_seconds = cache.background_seconds;
  statistics.code_bytes = cache.code_bytes;
  statistics.cache_loaded = cache.loaded;
  statistics.cache_hits = cache.lookups - cache.blocks;
  statistics.cache_misses = cache.blocks;
  statistics.cache_evicted = cache.evictions;
  statistics.cache_invalidated = cache.invalidated;
  statistics.far_links = cache.far_links;
  return statistics;
}

TranslatorEngine::Code::Code(std::shared_ptr<CodeCache> from, std::uintptr_t gs, EngineStatistics* sum)
    : cache(std::move(from)), runner(*cache), enter(cache->enter_function()), segment(gs), last(sum) {}

TranslatorEngine::Code::~Code() { *last += statistics_of(*cache); }

TranslatorEngine::TranslatorEngine(riscv::Hart& hart, std::shared_ptr<CodeCache> cache, const Options& options)
    : options_(options),
      hart_(hart),
      state_(hart.state()),
      mmu_(hart.mmu()),
      decoder_(hart.isa()),
      interpreter_(hart),
      code_(std::move(cache), 0, &ended_) {
  hart.on_fence_i = [this] {
    ++code_fences_;
    if (is_program()) {
      interpreter_.expect_code_changes();
      code_.cache->invalidate(0, ~std::uint64_t{0});
    } else {
      code_.cache->expect_changes();
      interpreter_.expect_code_changes(&CodeCache::is_current);
      // A program's own fence: what it runs next is in the shadow, too.
      if (riscv::Mmu::Shadow* shadow = mmu_.shadow(); shadow != nullptr && shadow->engine != nullptr) {
        verify(*shadow, code_of(*shadow));
      }
    }
  };
}

static void report(CodeCache& cache, std::shared_ptr<TranslationLog> log) {
  cache.on_translation = [log = std::move(log)](const CodeCache::Translation& translation) { log->record(translation); };
}

void TranslatorEngine::trace(std::shared_ptr<TranslationLog> log) {
  log_ = std::move(log);
  report(*code_.cache, log_);
}

TranslatorEngine::~TranslatorEngine() {
  hart_.on_fence_i = nullptr;
  mmu_.flush();
}

riscv::Exit TranslatorEngine::run(std::uint64_t budget) {
  hart_.begin_run();
  running = this;
  in_use_ = nullptr;  // a reset or a restored state knows nothing of this engine
  segment_ = 0;       // and another thread has another base
  state_.frame.outside = ~(ShadowSpace::kBytes - 1);
  state_.frame.window = ShadowSpace::kUpperHalf;
  state_.frame.slice = static_cast<std::uint64_t>(options_.slice);
  state_.frame.attention = hart_.attention_word();
  if (code_.cache->compiler().offsets().memory == x64::MemoryModel::kSegment) {
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
    Code& code = code_now();
    const std::byte* at = find(code, std::exchange(site, nullptr));
    if (at == nullptr) {
      interpret(end);
      continue;
    }
    // One slice: translated code comes back for links, jumps to untranslated code, and steps.
    const bool in_shadow = code.segment != 0;
    const std::int64_t longest =
        in_shadow ? std::min(kMostInShadow, options_.slice * options_.slices_a_sample) : options_.slice;
    const std::uint64_t before = state_.instructions;
    const std::uint64_t slice = std::min<std::uint64_t>(longest, end - before);
    const std::uint64_t more = in_shadow ? 0 : std::min<std::uint64_t>(slices_left_ - 1, (end - before - slice) / options_.slice);
    state_.frame.budget = static_cast<std::int64_t>(slice);
    state_.frame.slice_end = before + slice;
    state_.frame.slices = more;
    enter(code, at);
    state_.instructions = state_.frame.slice_end - static_cast<std::uint64_t>(state_.frame.budget);
    code.instructions += state_.instructions - before;
    slices_left_ -= static_cast<unsigned>(more - state_.frame.slices);

    switch (static_cast<x64::ExitReason>(state_.frame.exit_reason)) {
      case x64::ExitReason::kLink:
        site = reinterpret_cast<const void*>(state_.frame.exit_site);
        ++links_;
        break;
      case x64::ExitReason::kStep:
        // Floating-point code that found the host closed runs once it is open.
        if (missed_) {
          step_missed();
        } else if (fault_) {
          step_faulted();
        } else if (!floating_wanted_ && state_.host_can_compute() && computes(known_here())) {
          floating_wanted_ = true;
        } else {
          step();
        }
        break;
      case x64::ExitReason::kSpent:
        // A block longer than what is left of the budget must not hang the loop.
        if (state_.instructions == before) step();
        if (in_shadow || --slices_left_ == 0) end_sample(code);
        break;
      case x64::ExitReason::kGo:
      case x64::ExitReason::kFault: break;
    }
  }
  running = nullptr;
  hart_.end_run();
  return exit;
}

TranslatorEngine::Code& TranslatorEngine::code_now() {
  riscv::Mmu::Shadow* shadow = mmu_.shadow();
  if (shadow == nullptr || shadow->engine == nullptr || !has_stack_in_shadow()) return code_;
  Code& code = code_of(*shadow);
  // Between two traps code in a shadow must gain what it costs to go there and back.
  if (code.visits * kInstructionsAVisit > kInstructionsAtFirst + code.instructions) {
    end_shadow();
    return code_;
  }
  verify(*shadow, code);
  if (awaited_.shadow != shadow) return code;
  awaited_.shadow = nullptr;
  enter(*shadow, awaited_.gva);
  return mmu_.shadow() == nullptr ? code_ : code;
}

void TranslatorEngine::verify(riscv::Mmu::Shadow& shadow, Code& code) {
  mmu_.verify_shadow();
  if (shadow.all_fetches_suspect || code.fences_seen != code_fences_) {
    code.cache->verify();
  } else if (!shadow.fetch_suspects.empty()) {
    code.cache->verify(shadow.fetch_suspects);
  }
  shadow.all_fetches_suspect = false;
  shadow.fetch_suspects.clear();
  code.fences_seen = code_fences_;
}

void TranslatorEngine::shadow() {
  if (!code_.cache->compiler().features().segment_bases) return;
  riscv::Mmu::Shadow* shadow = mmu_.make_shadow();
  if (shadow == nullptr) return;
  take_host_faults();
  auto cache = make_cache(hart_, options_, true);
  if (!cache) return end_shadow();
  if (log_ != nullptr) report(**cache, log_);
  (*cache)->use(kept_for_shadows_);
  auto code = std::make_shared<Code>(std::move(*cache), shadow->space->base(), &ended_);
  code->fences_seen = code_fences_;
  in_use_ = nullptr;  // it may be one that is no more
  std::erase_if(shadows_, [](const std::weak_ptr<Code>& ended) { return ended.expired(); });
  shadows_.push_back(code);
  shadow->engine = std::move(code);
  ++shadows_made_;
  // From now on nothing leads to the code that the context had.
  mmu_.tlb().clear_fetch();
}

void TranslatorEngine::end_shadow() {
  constexpr unsigned kLongest = 20;
  mmu_.unshadowed_time() = -(std::int64_t{options_.shadow_after} * 4 << std::min(mmu_.end_shadow(), kLongest));
}

void TranslatorEngine::step_faulted() {
  const std::uint64_t gva = *std::exchange(fault_, std::nullopt);
  riscv::Mmu::Shadow* const shadow = mmu_.shadow();
  step();
  if (mmu_.shadow() == shadow) {
    enter(*shadow, gva);
  } else {
    awaited_ = {shadow, gva};
  }
}

void TranslatorEngine::open_window() {
  if (mmu_.window_is_open() || !code_.cache->compiler().features().segment_bases || !mmu_.open_window()) return;
  take_host_faults();
  // What the contexts lead to is code without a window.
  mmu_.flush_fetch();
  state_.frame.tlb = nullptr;
}

void TranslatorEngine::step_missed() {
  missed_ = false;
  const std::optional<std::uint64_t> gva = std::exchange(fault_, std::nullopt);
  const riscv::FetchEntry& entry = fetch_entry();
  const bool known = entry.tag == align_down(state_.pc, kPageSize);
  auto* entries = known ? static_cast<CodeCache::Entries*>(entry.code) : nullptr;
  const auto offset = static_cast<unsigned>(state_.pc % kPageSize);
  const std::uint64_t age = code_.cache->age();
  step();
  if (gva && mmu_.window() != nullptr && mmu_.enter_in_window(*gva)) {
    ++window_pages_;
  } else if (entries != nullptr && code_.cache->age() == age) {
    ++window_misses_;
    code_.cache->note_outside(*entries, offset);
  }
}

void TranslatorEngine::enter(riscv::Mmu::Shadow& shadow, std::uint64_t gva) {
  // An entry costs as much as some 10,000 instructions. Programs whose pages change all the time do not gain.
  const std::uint64_t repaid = (state_.instructions - shadow.instructions) / kInstructionsAnEntry;
  if (shadow.faults > kEntriesAtFirst + repaid || !mmu_.enter_in_shadow(gva)) return end_shadow();
  ++shadow_pages_;
}

void TranslatorEngine::use(Code& code) {
  in_use_ = &code;
  isa::CodeFrame& frame = state_.frame;
  const CodeCache& cache = *code.cache;
  frame.code = cache.code();
  frame.tlb = nullptr;
  frame.exit = cache.code() + cache.stubs().exit;
  frame.clock = cache.code() + cache.stubs().clock;
  frame.refill_write = cache.code() + cache.stubs().refill_write;
  for (unsigned i = 0; i < x64::kLeaveReasons; ++i) frame.leave[i] = cache.code() + cache.stubs().leave[i];
  const auto stub = [&cache](const x64::StubOffsets& offsets) {
    return isa::CodeFrame::Stub{cache.code() + offsets.full, cache.code() + offsets.bare};
  };
  frame.read = stub(cache.stubs().read);
  frame.write = stub(cache.stubs().write);
  frame.step = stub(cache.stubs().step);
  if (code.segment != 0) use_segment(code.segment);
}

void TranslatorEngine::enter(Code& code, const std::byte* at) {
  if (in_use_ != &code) {
    use(code);
    ++code.visits;
  }
  if (code.flat()) {
    state_.frame.tlb = code.runner.jumps();
    state_.frame.jump_mask = (code.runner.jump_entries() - 1) << 1;
    if (!code.runner.begin(code.age)) {
      state_.frame.exit_reason = static_cast<std::uint64_t>(x64::ExitReason::kGo);
      return;
    }
  } else {
    use_tlb();
    state_.frame.page = align_down(state_.pc, kPageSize);
  }
  if (floating_wanted_) open_floating();
  code.enter(&state_, at);
  follow_tlb();
  floating_wanted_ = floating_open_;
  close_floating();
  if (code.flat()) code.runner.end();
}

void TranslatorEngine::use_tlb() {
  state_.frame.tlb = &mmu_.tlb();
  const ShadowSpace* window = mmu_.window();
  state_.frame.closed_tlb = mmu_.tlb_with_sum(false);
  state_.frame.open_tlb = mmu_.tlb_with_sum(true);
  use_segment(window != nullptr ? window->base() : reinterpret_cast<std::uintptr_t>(state_.frame.tlb));
}

void TranslatorEngine::follow_to_other_tlb() {
  if (in_use_->flat()) return;
  mmu_.update();
  // Or what was called has changed translations, and did not have the code go on.
  const bool followed = state_.frame.tlb == &mmu_.tlb();
  if (followed && mmu_.window() == nullptr) segment_ = reinterpret_cast<std::uintptr_t>(state_.frame.tlb);
}

void TranslatorEngine::use_segment(std::uintptr_t base) {
  if (segment_ == base || !code_.cache->compiler().features().segment_bases) return;
  segment_ = base;
  x64::set_segment_base(base);
}

const std::byte* TranslatorEngine::find(Code& code, const void* site) {
  const std::uint64_t pc = state_.pc;
  if (code.flat()) return code.cache->find(code.runner, pc, site, code.age);
  CodeCache& cache = *code.cache;
  const std::uint64_t tag = align_down(pc, kPageSize);
  riscv::FetchEntry* entry = &fetch_entry();
  auto* entries = static_cast<CodeCache::Entries*>(entry->code);
  const bool found_anew = entry->tag != tag;
  if (found_anew) {
    const auto at = mmu_.locate(pc, riscv::Access::kFetch, 2);
    // The interpreter takes the trap, and runs what only part of a page may be fetched from.
    if (!at || mmu_.tlb().fetch[TlbContext::index(pc)].tag != tag) return nullptr;
    const std::byte* page = at->host - (pc & (kPageSize - 1));
    entries = &cache.page({align_down(at->gpa.value, kPageSize)}, page, mmu_.window() != nullptr);
    *entry = {tag, entries};
  }
  const unsigned offset = static_cast<unsigned>(pc & (kPageSize - 1));
  if (const std::uint32_t known = entries->code[offset / 2]; known != 0 && site == nullptr) {
    ++found_;
    return cache.code() + known;
  } else if (known == 0 && entries->runs[offset / 2] < options_.translate_after) {
    ++entries->runs[offset / 2];
    return nullptr;
  }
  return cache.find(*entries, offset, site, {state_.frame.page, tag, found_anew});
}

void TranslatorEngine::end_sample(Code& code) {
  slices_left_ = options_.slices_a_sample;
  if (++samples_ % (useless_samples_ < kManySamples ? 1 : kSamplesWhenCalm) == 0) note_running(code);
  if (is_program()) return;
  if (samples_ % kSamplesARound == 0) mmu_.tlb().begin_round();
  if (mmu_.shadow() == nullptr && ++mmu_.unshadowed_time() == options_.shadow_after) shadow();
  if (state_.privilege == riscv::Privilege::kSupervisor && ++supervisor_samples_ >= options_.window_after) open_window();
}

void TranslatorEngine::note_running(Code& code) {
  bool learns = false;
  if (code.flat()) {
    learns = code.cache->note_running(state_.pc, options_.hot_after);
  } else if (fetch_entry().tag == align_down(state_.pc, kPageSize)) {
    auto& entries = *static_cast<CodeCache::Entries*>(fetch_entry().code);
    learns = code.cache->note_running(entries, static_cast<unsigned>(state_.pc & (kPageSize - 1)), options_.hot_after,
                                      mmu_.tlb().unfit_slots);
  }
  useless_samples_ = learns ? 0 : useless_samples_ + 1;
}

riscv::FetchEntry& TranslatorEngine::fetch_entry() {
  return mmu_.tlb().translated[TlbContext::index(state_.pc)];
}

void TranslatorEngine::interpret(std::uint64_t end) {
  if (is_program() || mmu_.shadow() != nullptr) return interpret_program(end);
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
  const std::size_t bytes = fetch(begin, code);
  if (bytes < 4) return step();
  const std::uint64_t fences = code_fences_;
  const std::uint64_t changes = mmu_.changes();
  do {
    const std::uint64_t pc = state_.pc;
    step(encoding_at(code, pc - begin));
    if (state_.pc - pc > 4 || state_.pc == pc || state_.instructions >= end || hart_.attention()) return;
    if (code_fences_ != fences || mmu_.changes() != changes) return;
  } while (state_.pc - begin + 4 <= bytes);
}

std::size_t TranslatorEngine::fetch(std::uint64_t address, std::span<std::byte> into) {
  if (is_program()) return fetch_code(*hart_.env().user, address, into);
  const std::uint64_t offset = address % kPageSize;
  const std::byte* page = code_at(mmu_, address - offset).host;
  if (page == nullptr) return 0;
  const std::size_t bytes = std::min<std::uint64_t>(into.size(), kPageSize - offset);
  // Other harts may store there.
  for (std::size_t i = 0; i < bytes; i += sizeof(std::uint16_t)) {
    const auto parcel = __atomic_load_n(reinterpret_cast<const std::uint16_t*>(page + offset + i), __ATOMIC_RELAXED);
    std::memcpy(&into[i], &parcel, sizeof parcel);
  }
  return bytes;
}

std::uint32_t TranslatorEngine::known_here() {
  if (is_program() || mmu_.shadow() != nullptr) {
    std::array<std::byte, 4> code{};
    const std::size_t bytes = fetch(state_.pc, code);
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
  if (raw == kEcall && state_.privilege == riscv::Privilege::kUser && state_.pc % kPageSize + 4 <= kPageSize) {
    return hart_.take_trap({riscv::Exception::kUserCall}, state_.pc);
  }
  ++steps_;
  const auto straddles = [this, &raw] {
    return state_.pc % kPageSize + riscv::instruction_bytes(static_cast<std::uint16_t>(raw)) > kPageSize;
  };
  // Its second half may be another one by now, or unknown.
  if (raw != 0 && straddles()) raw = is_program() ? known_here() : across_pages(static_cast<std::uint16_t>(raw));
  // What lies in no page that is known has to be fetched.
  raw == 0 ? interpreter_.step() : interpreter_.step(raw);
}

std::uint32_t TranslatorEngine::across_pages(std::uint16_t first) {
  const std::uint64_t page = align_down(state_.pc, kPageSize);
  const std::uint64_t next = page + kPageSize;
  const riscv::FetchEntry& entry = mmu_.tlb().translated[TlbContext::index(next)];
  if (entry.tag != next) return 0;
  const auto& behind = *static_cast<CodeCache::Entries*>(entry.code);
  if (const riscv::FetchEntry& here = fetch_entry(); here.tag == page) {
    code_.cache->note_behind(*static_cast<CodeCache::Entries*>(here.code), CodeCache::source(behind));
  }
  return std::uint32_t{behind.first} << 16 | first;
}

bool TranslatorEngine::recover_fault(ucontext_t& context) {
  TranslatorEngine* self = running;
  auto& registers = context.uc_mcontext.gregs;
  if (self == nullptr || self->in_use_ == nullptr) return false;
  const CodeCache& cache = *self->in_use_->cache;
  const auto fault = cache.fault_at(reinterpret_cast<const void*>(registers[REG_RIP]));
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
  const bool in_window = !self->in_use_->flat();
  self->state_.pc = fault->point.pc + (in_window ? self->state_.frame.page : 0);
  self->state_.frame.exit_reason = static_cast<std::uint64_t>(x64::ExitReason::kStep);
  registers[REG_R15] += fault->point.unretired;
  registers[REG_RIP] = reinterpret_cast<greg_t>(cache.code() + cache.stubs().exit_spilled);
  // An address outside of the shadow or window raises an invalid opcode instead.
  constexpr greg_t kPageFault = 14;
  const std::uintptr_t base = in_window ? self->segment_ : self->in_use_->segment;
  if (base != 0 && registers[REG_TRAPNO] == kPageFault) self->fault_ = static_cast<std::uint64_t>(registers[REG_CR2]) - base;
  self->missed_ = in_window;
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

TranslatorEngine& TranslatorEngine::called() {
  running->follow_tlb();
  return *running;
}

x64::SlowResult TranslatorEngine::fault(std::uint64_t access) {
  state_.frame.budget += x64::slow_unretired(access);
  hart_.take_trap(interpreter_.fault(), state_.frame.page + x64::slow_page_offset(access));
  return {0, x64::Resume::kLeave};
}

x64::SlowResult TranslatorEngine::slow_read(void*, std::uint64_t address, std::uint64_t, std::uint64_t access) {
  TranslatorEngine& self = called();
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
  TranslatorEngine& self = called();
  const HostFloating host(self);
  const unsigned bytes = ir::bytes_of(x64::slow_access(access));
  const std::uint64_t masked = bytes == 8 ? value : value & ((std::uint64_t{1} << (8 * bytes)) - 1);
  if (!self.interpreter_.write(address, bytes, masked)) return self.fault(access);
  return {0, x64::Resume::kHere};
}

x64::SlowResult TranslatorEngine::slow_step(void*, std::uint64_t, std::uint64_t raw, std::uint64_t access) {
  using x64::Resume;
  TranslatorEngine& self = called();
  HartState& state = self.state_;
  const std::uint64_t pc = state.frame.page + x64::slow_page_offset(access);
  const std::uint64_t changes = self.mmu_.changes();
  const bool computing = self.floating_open_;
  self.close_floating();
  state.pc = pc;
  state.instructions = state.frame.slice_end - static_cast<std::uint64_t>(state.frame.budget) - x64::slow_unretired(access);
  const std::uint64_t before = state.instructions;
  self.step(static_cast<std::uint32_t>(raw));
  const bool retired = state.instructions != before;
  const bool in_sequence = retired && state.pc - pc <= 4 && state.pc != pc && self.mmu_.changes() == changes;
  const bool must_leave = self.hart_.attention() || (self.in_use_->segment != 0 && !self.has_stack_in_shadow());
  if (!in_sequence || must_leave) {
    state.frame.budget += x64::slow_unretired(access) - (retired ? 1 : 0);
    if (must_leave) return {0, Resume::kLeave};
  }
  if (computing && in_sequence) self.open_floating();
  // Code in a shadow has no more to do with the TLB, and what it jumps to next is none of its own.
  if (!self.in_use_->flat()) self.use_tlb();
  return {0, in_sequence ? Resume::kHere : Resume::kJump};
}

std::uint64_t TranslatorEngine::read_clock(void*) { return running->hart_.time(); }

EngineStatistics TranslatorEngine::statistics() const {
  EngineStatistics statistics = ended_;
  statistics += statistics_of(*code_.cache);
  for (const std::weak_ptr<Code>& shadow : shadows_) {
    if (const auto code = shadow.lock()) statistics += statistics_of(*code->cache);
  }
  statistics.steps = steps_;
  statistics.links = links_;
  statistics.cache_hits += found_;
  statistics.shadows = shadows_made_;
  statistics.shadow_pages = shadow_pages_;
  statistics.window_pages = window_pages_;
  statistics.window_misses = window_misses_;
  return statistics;
}

}  // namespace doppel
