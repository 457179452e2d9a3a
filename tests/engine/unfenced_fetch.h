// Finds where a program runs an instruction that was stored to since its hart's last FENCE.I. There the architecture lets
// a hart see the old bytes or the new ones, each time anew (unprivileged manual, "Zifencei"), and engines that differ may
// both be right. Up to there all engines must have done the same, so one of them tells for all.
//
// Looks at all of RAM after each instruction, which takes a thousand times as long as to run it: this is to be asked about
// programs in which engines differ, not about each.
#pragma once

#include "random_program.h"

namespace doppel::engine_test {

class UnfencedFetch {
 public:
  // Whether the program does so before `instructions` of chunk `index` have run.
  static bool happens(const Scenario& scenario, std::size_t index, u64 instructions) {
    UnfencedFetch watch(scenario.contents);
    for (std::size_t i = 0; i < index; ++i) {
      if (watch.run(scenario.chunks[i], scenario.chunks[i].instructions)) return true;
    }
    return watch.run(scenario.chunks[index], instructions);
  }

 private:
  explicit UnfencedFetch(const Contents& contents) : machine_(contents), before_(contents.ram) {
    machine_.on_fence_i([this] { changed_.assign(kRamBytes, false); });
  }

  // As Machine::run(), up to the first of those instructions. That a trap's handler begins with is fetched like any other.
  bool run(const Scenario::Chunk& chunk, u64 instructions) {
    machine_.begin_chunk(chunk.interrupts, chunk.time);
    const u64 end = machine_.state().instructions + instructions;
    while (machine_.state().instructions < end) {
      if (is_unfenced(machine_.state().pc)) return true;
      machine_.step();
      note_changes();
    }
    return false;
  }

  // Of the instruction at `pc`, if it can be fetched.
  bool is_unfenced(u64 pc) {
    riscv::Mmu& mmu = machine_.hart().mmu();
    for (const u64 half : {pc, pc + 2}) {
      const auto gpa = mmu.look_up(half);  // which leaves no trace
      if (!gpa || gpa->value - kRam >= kRamBytes) return false;
      const u64 at = gpa->value - kRam;
      if (changed_[at] || changed_[at + 1]) {
        return mmu.translate(pc, riscv::Access::kFetch, 2) && mmu.translate(half, riscv::Access::kFetch, 2);
      }
      if (riscv::instruction_bytes(machine_.machine().peek<std::uint16_t>(gpa->value)) == 2) return false;
    }
    return false;
  }

  // Bytes that were something else for a moment have changed, too.
  void note_changes() {
    for (u64 page = 0; page < kRamBytes; page += kPageSize) {
      const std::byte* now = machine_.machine().ram() + page;
      if (std::memcmp(&before_[page], now, kPageSize) == 0) continue;
      for (u64 i = 0; i < kPageSize; ++i) {
        if (before_[page + i] != now[i]) changed_[page + i] = true;
      }
      std::memcpy(&before_[page], now, kPageSize);
    }
  }

  SteppedMachine machine_;
  std::vector<std::byte> before_;  // RAM, one instruction ago
  std::vector<bool> changed_ = std::vector<bool>(kRamBytes);  // byte by byte, since FENCE.I
};

}  // namespace doppel::engine_test
