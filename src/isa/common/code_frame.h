// What translated code keeps in memory beside the guest's registers. Part of every guest's flat state, so that
// one base register reaches both. Offsets from the start of the state are given to the back end.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace doppel::isa {

struct CodeFrame {
  std::uint64_t page = 0;            // guest-virtual address of the page that the running block lies in
  void* tlb = nullptr;               // the software TLB in force; where memory is flat, the table of jumps
  // Which that is while the guest's supervisor has closed users' memory, and while it has opened it; null where only the
  // engine can tell.
  void* closed_tlb = nullptr;
  void* open_tlb = nullptr;
  const std::byte* code = nullptr;   // base of the code memory that block entries are relative to
  // Entry points that blocks reach through memory, which keeps their own code position-independent.
  const void* exit = nullptr;        // leaves to the dispatcher
  std::array<const void*, 4> leave{};  // likewise, having set pc and exit_reason, which it is the index of
  struct Stub {
    const void* full = nullptr;
    const void* bare = nullptr;      // for regions
  };
  Stub read, write;                  // slow load and store
  Stub step;                         // runs one instruction in the interpreter
  const void* clock = nullptr;       // reads the engine's clock
  std::int64_t budget = 0;           // guest instructions that may still run; in a register while code runs
  std::uint64_t exit_reason = 0;     // an x64::ExitReason, set on leaving
  std::uint64_t exit_site = 0;       // which link, for kLink
  // Nonzero while floating-point code must leave for a step, by which the engine either makes the host's rounding
  // and flags the guest's, or runs what the host cannot.
  std::uint64_t floating_closed = 1;
  void* stack = nullptr;             // the host's stack pointer as the dispatcher left it
  std::array<std::uint64_t, 2> signs{std::uint64_t{1} << 63, std::uint64_t{1} << 31};  // of a double and of a single
  std::uint64_t jump_mask = 0;       // the bits of a guest address by which its entry in the table of jumps is found
  std::uint64_t outside = 0;         // address bits that are not to be seen in a shadow (memory/shadow_space.h)
  std::uint64_t window = 0;          // the least address of a window
  // How often code may go on for `slice` more of them by itself, as long as nobody asks for the hart's attention; and how
  // many will have run when the budget is used up.
  std::uint64_t slices = 0;
  std::uint64_t slice = 0;
  std::uint64_t slice_end = 0;
  const void* attention = nullptr;   // 32 bits, not zero when it is asked for
  const void* refill_write = nullptr;  // finds where a store that missed the TLB goes
  // Where values of a block go that find no register. More than the longest block can keep alive.
  static constexpr unsigned kSlots = 512;
  std::array<std::uint64_t, kSlots> slots;
};

}  // namespace doppel::isa
