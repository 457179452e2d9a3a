// Runs a scenario on two engines and looks for a difference after each of its chunks.
#pragma once

#include <fcntl.h>
#include <stdlib.h>

#include <filesystem>

#include "base/unique_fd.h"
#include "block_text.h"
#include "random_program.h"
#include "translator/code_archive.h"
#include "unfenced_fetch.h"

namespace doppel::engine_test {

// Two machines in the same scenario, chunk by chunk.
class Lockstep {
 public:
  Lockstep(const Scenario& scenario, const TranslatorEngine::Options& options,
           const MachineCode& kept = {})
      : scenario_(scenario),
        reference_(EngineKind::kInterpret, scenario.contents),
        translated_(options, scenario.contents, kept) {}

  // Runs the first `instructions` of chunk `index`.
  void run(std::size_t index, u64 instructions) {
    const Scenario::Chunk& chunk = scenario_.chunks[index];
    for (Machine* machine : {&reference_, &translated_}) {
      machine->set_time(chunk.time);
      machine->set_interrupts(chunk.interrupts);
      machine->run(instructions);
    }
  }
  // Runs the first `chunks` chunks.
  void run_chunks(std::size_t chunks) {
    for (std::size_t i = 0; i < chunks; ++i) run(i, scenario_.chunks[i].instructions);
  }
  std::string differences() const { return engine_test::differences(reference_, translated_); }
  Machine& reference() { return reference_; }
  Machine& translated() { return translated_; }
  EngineStatistics statistics() const { return translated_.statistics(); }

 private:
  const Scenario& scenario_;
  Machine reference_;
  Machine translated_;
};

// The instruction at `pc` as the hart would fetch it, if it can be.
inline std::optional<std::uint32_t> fetch(Machine& machine, u64 pc) {
  std::uint32_t raw = 0;
  for (unsigned half = 0; half < 2; ++half) {
    const auto gpa = machine.hart().mmu().translate(pc + 2 * half, riscv::Access::kFetch, 2);
    if (!gpa || gpa->value - kRam >= kRamBytes) return std::nullopt;
    raw |= std::uint32_t{machine.peek<std::uint16_t>(gpa->value)} << (16 * half);
    if (riscv::instruction_bytes(static_cast<std::uint16_t>(raw)) == 2) break;
  }
  return raw;
}

// The block that begins at `pc`, if code can be fetched there.
inline std::optional<BlockText> block_at(Machine& machine, u64 pc) {
  const auto gpa = machine.hart().mmu().translate(pc, riscv::Access::kFetch, 2);
  if (!gpa || gpa->value - kRam >= kRamBytes) return std::nullopt;
  const std::byte* page = machine.ram() + (align_down(gpa->value, kPageSize) - kRam);
  return text_of_block({page, kPageSize}, static_cast<unsigned>(pc % kPageSize), x64::HostFeatures::detect());
}

// How the engines differ after so many instructions of chunk `index`.
inline std::string differences_after(const Scenario& scenario, const TranslatorEngine::Options& options,
                                     std::size_t index, u64 instructions) {
  Lockstep lockstep(scenario, options);
  lockstep.run_chunks(index);
  lockstep.run(index, instructions);
  return lockstep.differences();
}

// How many instructions of chunk `index`, after which the engines differ, it takes until they do.
inline u64 instructions_to_difference(const Scenario& scenario, const TranslatorEngine::Options& options,
                                      std::size_t index) {
  u64 equal = 0;
  u64 different = scenario.chunks[index].instructions;
  while (different - equal > 1) {
    const u64 middle = equal + (different - equal) / 2;
    (differences_after(scenario, options, index, middle).empty() ? equal : different) = middle;
  }
  return different;
}

// What there is to know about the difference that the engines reach after `different` instructions of chunk `index`: the
// last of them, the states after them, and the block at fault.
inline std::string explain(const Scenario& scenario, const TranslatorEngine::Options& options, std::size_t index,
                           u64 different) {
  std::string text = fmt::format("chunk {} differs after {} of {} instructions, with slices of {}{}; the last of them:\n",
                                 index, different, scenario.chunks[index].instructions, options.slice,
                                 options.shadow_after == TranslatorEngine::Options::kNever ? "" : " and shadows");

  Machine reference(EngineKind::kInterpret, scenario.contents);
  const auto begin_chunk = [&](std::size_t i) {
    reference.set_time(scenario.chunks[i].time);
    reference.set_interrupts(scenario.chunks[i].interrupts);
  };
  for (std::size_t i = 0; i < index; ++i) {
    begin_chunk(i);
    reference.run(scenario.chunks[i].instructions);
  }
  begin_chunk(index);
  const u64 first = different - std::min<u64>(different, riscv::Lifter::kMostInstructions + 16);
  reference.run(first);
  const riscv::Decoder decoder(reference.hart().isa());
  std::optional<BlockText> culprit;
  for (u64 done = first; done < different; ++done) {
    const u64 pc = reference.state().pc;
    const auto raw = fetch(reference, pc);
    text += fmt::format("  {} {:#x}: {}\n", "US?M"[static_cast<unsigned>(reference.state().privilege)], pc,
                        raw ? riscv::disassemble(decoder, *raw, pc) : "(not fetched)");
    // The end of what it may run, where no block fits, the translator leaves to the interpreter. So the block
    // at fault is one that just fits.
    const std::optional<BlockText> block = block_at(reference, pc);
    if (block && !culprit && done + block->instructions == different) culprit = block;
    reference.run(1);
  }
  text += fmt::format("then\n  {:<16} {:<18} translated\n", "", "interpreted") +
          differences_after(scenario, options, index, different);
  if (culprit) {
    text += fmt::format("most likely by the block\n{}lifted\n{}after the passes\n{}on the host\n{}", culprit->guest,
                        culprit->lifted, culprit->optimized, culprit->host);
  }
  return text;
}

// A folder for kept code, while the test program runs.
class KeptCode {
 public:
  KeptCode() : path_((std::filesystem::temp_directory_path() / "kept-code.XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
    folder_ = UniqueFd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ~KeptCode() { std::filesystem::remove_all(path_); }
  std::shared_ptr<CodeArchive> archive(u64 number, u64 part = 0) const {
    return std::make_shared<CodeArchive>(folder_.get(), CodeArchive::Key{number, part});
  }
  MachineCode of_machine(u64 number) const { return {archive(number, 1), archive(number, 2)}; }

 private:
  std::string path_;
  UniqueFd folder_;
};

// As compare_engines(), with code that others have made: on another hart of the same machine, and in an earlier run.
inline std::string compare_with_kept_code(const Scenario& scenario) {
  static const KeptCode kept;
  static u64 number = 0;
  for (const TranslatorEngine::Options& options : {Machine::kEager, Machine::kShadowing}) {
    ++number;
    MachineCode code = kept.of_machine(number);
    for (const char* from : {"nowhere", "another hart", "another run"}) {
      Lockstep lockstep(scenario, options, code);
      for (std::size_t i = 0; i < scenario.chunks.size(); ++i) {
        lockstep.run(i, scenario.chunks[i].instructions);
        const std::string differences = lockstep.differences();
        if (differences.empty()) continue;
        if (UnfencedFetch::happens(scenario, i, scenario.chunks[i].instructions)) break;
        return fmt::format("code from {}: chunk {} differs:\n{}", from, i, differences);
      }
      if (std::string_view(from) == "another hart") {
        write_machine_code(code);
        code = kept.of_machine(number);
      }
    }
  }
  return {};
}

// Nothing if the engines agree on the scenario, else what they disagree about. Where the architecture leaves to them what
// they do from somewhere on (UnfencedFetch), and they differ from there on, that is no disagreement, and `left_open` is
// told.
inline std::string compare_engines(const Scenario& scenario, const TranslatorEngine::Options& options,
                                   bool* left_open = nullptr) {
  Lockstep lockstep(scenario, options);
  for (std::size_t i = 0; i < scenario.chunks.size(); ++i) {
    lockstep.run(i, scenario.chunks[i].instructions);
    if (lockstep.differences().empty()) continue;
    const u64 different = instructions_to_difference(scenario, options, i);
    if (!UnfencedFetch::happens(scenario, i, different)) return explain(scenario, options, i, different);
    if (left_open != nullptr) *left_open = true;
    break;
  }
  return {};
}

// The same in each of the ways in which code comes to be translated. `passes` run.
inline std::string compare_engines(const Scenario& scenario, const ir::PassSet& passes = ir::PassSet::all(),
                                   bool* left_open = nullptr) {
  for (TranslatorEngine::Options options : {TranslatorEngine::Options{}, Machine::kEager, Machine::kShadowing}) {
    options.passes = passes;
    std::string difference = compare_engines(scenario, options, left_open);
    if (!difference.empty()) return difference;
  }
  return {};
}

}  // namespace doppel::engine_test
