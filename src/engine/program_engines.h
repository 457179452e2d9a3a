// The engines of one program's harts, which share what they make of its code.
//
// Any thread may call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/hart_thread.h"
#include "translator/code_cache.h"

namespace doppel {

// The stack that a thread needs to run an engine, and what is called from it.
inline constexpr std::size_t kProgramStackBytes = std::size_t{1} << 20;

class ProgramEngines {
 public:
  // A translator reports what it does to `log`, if there is one; of its passes only `passes` run.
  explicit ProgramEngines(EngineKind kind, std::shared_ptr<TranslationLog> log = nullptr,
                          const PassSet& passes = PassSet::all());
  ~ProgramEngines();

  // For `hart`, which runs in flat memory and outlives the engine; all harts in the same. Fails where the host refuses
  // executable memory.
  Result<std::unique_ptr<Engine>> make(riscv::Hart& hart);

  // Keeps what is translated in `folder`, an open directory, for the program that `identity` tells from others, and takes
  // from there what earlier runs have kept. Gives a number that is the same in each of them, to lay out memory by; nothing
  // if no code is kept. Before make().
  std::optional<std::uint64_t> keep_code(int folder, std::span<const std::byte> identity);
  // What was translated so far, once: at the end, and before the process becomes another program.
  void save_code();

  // Code in [gva, gva + bytes) has changed, or is not to be run any more: no hart enters what was made of it. One that is
  // inside leaves it soon.
  void code_changed(std::uint64_t gva, std::uint64_t bytes);

  // Around fork(), so that the child gets everything whole.
  void lock();
  void unlock();
  // In the child, whose code memory is its parent's: engines made before are only to be destroyed.
  void start_anew();

 private:
  class Interpreting;

  const EngineKind kind_;
  const std::shared_ptr<TranslationLog> log_;
  const PassSet passes_;
  std::mutex mutex_;
  std::shared_ptr<CodeArchive> archive_;  // may be null
  std::shared_ptr<CodeCache> cache_;   // of translators; made for the first
  std::vector<riscv::Hart*> harts_;    // of interpreters, each of which decodes for itself
};

}  // namespace doppel
