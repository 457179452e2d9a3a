// The engines of one program's harts, which share what they make of its code.
//
// Any thread may call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "engine/hart_thread.h"
#include "translator/code_cache.h"

namespace doppel {

// The stack that a thread needs to run an engine, and what is called from it.
inline constexpr std::size_t kProgramStackBytes = std::size_t{1} << 20;

class ProgramEngines {
 public:
  explicit ProgramEngines(EngineKind kind, std::shared_ptr<TranslationLog> log = nullptr);
  ~ProgramEngines();

  // For `hart`, which runs in flat memory and outlives the engine; all harts in the same. Fails where the host refuses
  // executable memory.
  Result<std::unique_ptr<Engine>> make(riscv::Hart& hart);

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
  std::mutex mutex_;
  std::shared_ptr<CodeCache> cache_;   // of translators; made for the first
  std::vector<riscv::Hart*> harts_;    // of interpreters, each of which decodes for itself
};

}  // namespace doppel
