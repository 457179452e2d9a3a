// What runs a vCPU's instructions: the interpreter and the translator stand behind this interface.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "isa/riscv/hart.h"

namespace doppel {

enum class EngineKind : std::uint8_t { kInterpret, kTranslate };

struct EngineStatistics {
  std::uint64_t steps = 0;  // instructions that translated code left to the interpreter
  std::uint64_t links = 0;  // direct jumps joined to their targets
  std::uint64_t blocks_translated = 0;
  std::uint64_t regions_translated = 0;
  double translate_seconds = 0;
  double background_seconds = 0;  // of them, on a thread of its own
  std::uint64_t code_bytes = 0;
  std::uint64_t cache_hits = 0, cache_misses = 0, cache_loaded = 0, cache_evicted = 0, cache_invalidated = 0;

  std::uint64_t shadows = 0;       // programs whose address space was shadowed
  std::uint64_t shadow_pages = 0;  // that were entered there
  std::uint64_t far_links = 0;      // direct jumps of the supervisor to other pages
  std::uint64_t window_pages = 0;   // that were entered in the supervisor's window
  std::uint64_t window_misses = 0;  // accesses that met what is not in it

  EngineStatistics& operator+=(const EngineStatistics& other);
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string_view name() const = 0;
  // Runs on the calling thread until something in Exit happens; at most about `budget` instructions.
  virtual riscv::Exit run(std::uint64_t budget) = 0;
  virtual EngineStatistics statistics() const = 0;
};

}  // namespace doppel
