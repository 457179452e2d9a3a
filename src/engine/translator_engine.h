// The translating engine of a RISC-V hart: dispatches translated code, and leaves to the reference interpreter
// what has no translation. Belongs to the hart's thread.
#pragma once

#include <ucontext.h>

#include "engine/engine.h"
#include "engine/kept_code.h"
#include "engine/translation_log.h"
#include "isa/riscv/interpreter.h"
#include "isa/riscv/lift.h"
#include "translator/code_cache.h"

namespace doppel {

class TranslatorEngine final : public Engine {
 public:
  struct Options {
    // How many instructions run before translated code looks for attention: bounds the latency of interrupts.
    std::int64_t slice = 8192;
    // Code goes on for so many slices by itself, and where the last one ends is a sample of what runs. In a shadow they are
    // one slice: programs that compute take interrupts as soon as process VMs take signals.
    unsigned slices_a_sample = 4;
    // A loop is hot when it was met by so many samples.
    std::uint8_t hot_after = 8;
    // What has run no oftener than this is interpreted: most code of a boot runs a few times, and translating takes as
    // long as interpreting it a hundred times. For system VMs.
    std::uint8_t translate_after = 8;
    // In system VMs a program's address space is shadowed after so many samples of it.
    std::uint32_t shadow_after = 1024;
    // And the supervisor gets a window onto its data after so many of its own.
    std::uint32_t window_after = 256;
    // Other passes do not run, and then no code is kept.
    ir::PassSet passes = ir::PassSet::all();
    // Where hot code is compiled meanwhile; null: the hart waits for it. It outlives the engine.
    Background* background = nullptr;
    // A Debian with systemd has run 75 MiB of it by its login.
    std::size_t code_bytes = std::size_t{128} << 20;
    static constexpr std::uint32_t kNever = ~std::uint32_t{0};
  };
  static Result<std::unique_ptr<TranslatorEngine>> create(riscv::Hart& hart, const Options& options);
  static Result<std::unique_ptr<TranslatorEngine>> create(riscv::Hart& hart) { return create(hart, Options{}); }
  // With a cache that other harts of the same program use as well.
  TranslatorEngine(riscv::Hart& hart, std::shared_ptr<CodeCache> cache, const Options& options);
  // A cache for the code that `hart` runs; or for that of a program in a shadow (riscv::Mmu::Shadow).
  static Result<std::shared_ptr<CodeCache>> make_cache(riscv::Hart& hart, const Options& options, bool shadow = false);
  ~TranslatorEngine() override;

  // For signal handlers: whether the fault at `context` is of the guest code that the calling thread runs. If so, it goes on
  // in the dispatcher, which leaves the guest instruction to the interpreter.
  static bool recover_fault(ucontext_t& context);

  // Reports each translation to `log`, which may be shared.
  void trace(std::shared_ptr<TranslationLog> log);

  // What is translated goes to `kept`, as far as there is some, and comes from there. Before the first run().
  void keep_code(const MachineCode& kept) {
    if (options_.passes != ir::PassSet::all()) return;
    code_.cache->use(kept.paged);
    kept_for_shadows_ = kept.shadows;
  }

  std::string_view name() const override { return "translate"; }
  riscv::Exit run(std::uint64_t budget) override;
  EngineStatistics statistics() const override;

  // Where translated code finds things in a HartState.
  static x64::StateOffsets state_offsets(x64::MemoryModel memory = x64::MemoryModel::kPaged);

 private:
  class HostFloating;
  // Translated code that this engine runs: the hart's, or a program's in a shadow.
  struct Code {
    Code(std::shared_ptr<CodeCache> from, std::uintptr_t gs, EngineStatistics* sum);
    ~Code();
    Code(const Code&) = delete;
    Code& operator=(const Code&) = delete;
    bool flat() const { return cache->compiler().offsets().memory != x64::MemoryModel::kPaged; }

    std::shared_ptr<CodeCache> cache;
    CodeCache::Runner runner;
    CodeCache::EnterFunction enter;
    const std::uintptr_t segment;     // the base of the GS segment, in a shadow; else 0
    EngineStatistics* const last;     // what it has counted is added there in the end
    std::uint64_t age = 0;            // of the cache when find() last gave code
    std::uint64_t visits = 0;         // how often it was entered after other code
    std::uint64_t instructions = 0;   // that ran there
    std::uint64_t fences_seen = 0;    // in a shadow: FENCE.I, up to the last comparison with memory
  };
  bool is_program() const { return hart_.env().user != nullptr; }
  // Made by shadow(), as exactly this.
  static Code& code_of(riscv::Mmu::Shadow& shadow) { return *static_cast<Code*>(shadow.engine.get()); }
  // The code of what the hart runs now: that of its context's shadow, if it has one.
  Code& code_now();
  // Whether the stack pointer is where code in a shadow takes it to be.
  bool has_stack_in_shadow() const {
    constexpr auto kReach = static_cast<std::uint64_t>(x64::kShadowReach);
    return state_.x[2] + kReach < ShadowSpace::kBytes + 2 * kReach;
  }
  // Makes code see that memory is what it was made of, after fences.
  void verify(riscv::Mmu::Shadow& shadow, Code& code);
  // The program in force has run for long: shadows it, if that can be.
  void shadow();
  void end_shadow();  // for some time: longer each time
  // Does the access that faulted in the shadow in force, and enters its page.
  void step_faulted();
  void enter(riscv::Mmu::Shadow& shadow, std::uint64_t gva);
  // The supervisor has run for long: opens a window onto its data, if that can be.
  void open_window();
  // Does the access that missed the window, and enters its page.
  void step_missed();
  void use(Code& code);  // has state_.frame lead to it
  // The code for state.pc, or nullptr when there is none to be had: the interpreter's turn. `site`, if any, is linked to it.
  const std::byte* find(Code& code, const void* site);
  void end_sample(Code& code);
  void note_running(Code& code);
  // Runs `at`, which is of `code`, until it comes back.
  void enter(Code& code, const std::byte* at);
  void use_tlb();  // has translated code look into the TLB in force, and its window
  // To be called first of all where translated code was left: it may have gone to another TLB by itself.
  void follow_tlb() {
    if (state_.frame.tlb != &mmu_.tlb()) follow_to_other_tlb();
  }
  void follow_to_other_tlb();
  // The engine that translated code calls, which may use the TLB. For helpers that do.
  static TranslatorEngine& called();
  void use_segment(std::uintptr_t base);
  riscv::FetchEntry& fetch_entry();  // where the TLB may hold state.pc's page
  std::uint32_t known_here();  // the encoding at state.pc, or what its page has of it; 0 where nothing is known
  // The encoding at state.pc, of which `first` is all that the page has; 0 if the next page is not known.
  std::uint32_t across_pages(std::uint16_t first);
  bool computes(std::uint32_t raw) const;  // is a floating-point instruction
  void step();
  // Interprets straight on from state.pc, as long as that needs no look from the dispatcher; up to `end`, in
  // state.instructions.
  void interpret(std::uint64_t end);
  void interpret_program(std::uint64_t end);  // from one copy of the code, without asking again whether it may run
  // Copies what can be fetched from `address` on; gives how many bytes that are.
  std::size_t fetch(std::uint64_t address, std::span<std::byte> into);
  void step(std::uint32_t raw);  // the encoding of the instruction at state.pc, as far as it is known
  // MXCSR holds the guest's rounding mode and accrued flags only while floating-point code may run. That is opened when
  // some comes along, since most code has none.
  void open_floating();  // unless mstatus.FS or frm forbids
  void close_floating();

  static x64::SlowResult slow_read(void* state, std::uint64_t address, std::uint64_t value, std::uint64_t access);
  static x64::SlowResult slow_write(void* state, std::uint64_t address, std::uint64_t value, std::uint64_t access);
  static x64::SlowResult slow_step(void* state, std::uint64_t address, std::uint64_t value, std::uint64_t access);
  static std::uint64_t read_clock(void* state);
  x64::SlowResult fault(std::uint64_t access);

  const Options options_;
  riscv::Hart& hart_;
  riscv::HartState& state_;
  riscv::Mmu& mmu_;
  riscv::Decoder decoder_;
  riscv::Interpreter interpreter_;
  EngineStatistics ended_;  // of code that is no more
  Code code_;
  Code* in_use_ = nullptr;  // what state_.frame leads to
  std::vector<std::weak_ptr<Code>> shadows_;
  std::shared_ptr<CodeArchive> kept_for_shadows_;  // may be null
  std::shared_ptr<TranslationLog> log_;  // may be null
  // The guest address of the host fault by which translated code in a shadow came back.
  std::optional<std::uint64_t> fault_;
  bool missed_ = false;  // by a host fault as well, but in code with a window; with an address, unless it lies below
  // Where the access trapped after that: when that shadow's program goes on, it will have a page there.
  struct {
    const riscv::Mmu::Shadow* shadow = nullptr;
    std::uint64_t gva = 0;
  } awaited_;
  bool floating_open_ = false;
  bool floating_wanted_ = false;  // by what runs next
  std::uintptr_t segment_ = 0;   // GS's base as this engine set it last, or 0
  unsigned supervisor_samples_ = 0;
  unsigned slices_left_ = 1;      // until there is a sample
  unsigned samples_ = 0;          // that there could have been
  unsigned useless_samples_ = 0;  // that have told nothing new, one after the other
  std::uint64_t code_fences_ = 0;  // FENCE.I, by this hart
  std::uint64_t steps_ = 0;
  std::uint64_t links_ = 0;
  std::uint64_t found_ = 0;  // without asking the cache
  std::uint64_t shadows_made_ = 0, shadow_pages_ = 0;
  std::uint64_t window_pages_ = 0, window_misses_ = 0;
};

}  // namespace doppel
