// The translating engine of a RISC-V hart: dispatches translated code, and leaves to the reference interpreter
// what has no translation. Belongs to the hart's thread.
#pragma once

#include "engine/engine.h"
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
    // A loop is hot when this many slices ended at one of its blocks.
    std::uint8_t hot_after = 16;
  };
  static Result<std::unique_ptr<TranslatorEngine>> create(riscv::Hart& hart, const Options& options);
  static Result<std::unique_ptr<TranslatorEngine>> create(riscv::Hart& hart) { return create(hart, Options{}); }
  ~TranslatorEngine() override;

  // Reports each translation to `log`, which may be shared.
  void trace(std::shared_ptr<TranslationLog> log);

  std::string_view name() const override { return "translate"; }
  riscv::Exit run(std::uint64_t budget) override;
  EngineStatistics statistics() const override;

  // Where translated code finds things in a HartState.
  static x64::StateOffsets state_offsets();

 private:
  class HostFloating;
  TranslatorEngine(riscv::Hart& hart, CodeMemory memory, const Options& options);

  // The code for state.pc, or nullptr when there is none to be had: the interpreter's turn.
  const std::byte* find();
  riscv::FetchEntry& fetch_entry();  // where the TLB may hold state.pc's page
  void step();
  void step(std::uint32_t raw);  // the encoding of the instruction at state.pc, as far as it is known
  // MXCSR holds the guest's rounding mode and accrued flags only while floating-point code may run.
  void open_floating();
  void close_floating();

  static x64::SlowResult slow_read(void* state, std::uint64_t address, std::uint64_t value, std::uint64_t access);
  static x64::SlowResult slow_write(void* state, std::uint64_t address, std::uint64_t value, std::uint64_t access);
  static x64::SlowResult slow_step(void* state, std::uint64_t address, std::uint64_t value, std::uint64_t access);
  x64::SlowResult fault(std::uint64_t access);

  const Options options_;
  riscv::Hart& hart_;
  riscv::HartState& state_;
  riscv::Mmu& mmu_;
  riscv::Interpreter interpreter_;
  riscv::Lifter lifter_;
  CodeCache cache_;
  CodeCache::EnterFunction enter_;
  bool floating_open_ = false;
  std::uint64_t slice_end_ = 0;  // state.instructions when the slice's budget is zero
  std::uint64_t steps_ = 0;
  std::uint64_t links_ = 0;
};

}  // namespace doppel
