// What a debugger does to one hart's thread: single steps, and runs that look at each instruction's address and
// accesses. It does so with an interpreter of its own, so that it is exact whatever the engine is; while there is
// nothing to look at, the engine runs.
//
// run() belongs to the hart's thread, the rest to the debugger while the hart runs nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "isa/riscv/interpreter.h"

namespace doppel {

// Where harts that look shall stop. Shared by all harts of a machine, and constant while any runs.
struct DebugStops {
  struct Watch {
    std::uint64_t start = 0, size_bytes = 0;  // guest-virtual
    bool reads = false, writes = false;
    friend bool operator==(const Watch&, const Watch&) = default;
  };
  std::vector<std::uint64_t> instructions;  // guest-virtual
  std::vector<Watch> watches;

  bool empty() const { return instructions.empty() && watches.empty(); }
  // Takes out one like it; false if there is none.
  bool remove(const Watch& watch) {
    const auto found = std::ranges::find(watches, watch);
    if (found == watches.end()) return false;
    watches.erase(found);
    return true;
  }
};

struct DebugEvent {
  enum class Kind : std::uint8_t {
    kStep,         // the step is done
    kBreakpoint,   // at an EBREAK of the debugger's
    kInstruction,  // at one of DebugStops' instructions
    kWatch,        // has accessed `address`, which watches[index] covers
  };
  Kind kind = Kind::kStep;
  std::uint64_t address = 0;
  DebugStops::Watch watch;
};

class HartDebugger {
 public:
  // `planted` says whether the EBREAK at a guest-virtual address is the debugger's; `report` takes what happened, and
  // asks the hart's thread to pause. Both are called on the hart's thread.
  HartDebugger(riscv::Hart& hart, const DebugStops& stops, std::function<bool(std::uint64_t)> planted,
               std::function<void(const DebugEvent&)> report);
  ~HartDebugger();
  HartDebugger(const HartDebugger&) = delete;
  HartDebugger& operator=(const HartDebugger&) = delete;

  // The next run() is a step, or it is not.
  void set_step(bool step);
  // Code may have changed.
  void expect_code_changes();

  // Runs the hart until there is a reason to stop, with `engine` where that will do.
  riscv::Exit run(Engine& engine);

 private:
  struct Access {
    std::uint64_t address = 0;
    unsigned size_bytes = 0;
    bool reads = false, writes = false;
  };

  riscv::Exit step();
  riscv::Exit look();
  void run_one();  // and reports what is watched
  void use_own_interpreter(bool own);
  // What the instruction at pc would access; size 0: nothing.
  Access next_access() const;
  std::uint32_t instruction_at(std::uint64_t pc) const;

  riscv::Hart& hart_;
  const DebugStops& stops_;
  std::function<void(const DebugEvent&)> report_;
  std::function<void()> engine_fence_i_;
  std::unique_ptr<riscv::Interpreter> interpreter_;
  bool uses_own_ = false;
  bool step_ = false;
  bool reported_ = false;
};

}  // namespace doppel
