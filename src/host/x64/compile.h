// From IR to x86-64: register assignment and emission in one forward pass.
//
// Some guest registers live in host registers while translated code runs, in every block alike, so that blocks
// chain without touching memory (StateOffsets::pinned). The values of a block get the remaining registers by next use.
// Blocks hold no absolute address: they reach state, stubs and each other by the state register and by
// relative jumps that the code cache patches.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ir/ir.h"

namespace doppel::x64 {

// What the running host offers beyond x86-64's base. Masked to test the fall-backs.
struct HostFeatures {
  bool bmi2 = false;
  bool lzcnt = false;
  bool bmi1 = false;
  bool popcnt = false;
  bool fma = false;
  bool avx = false;
  // Programs set the bases of segments: code then reaches the software TLB by GS.
  bool segment_bases = false;
  // Of this host; DOPPEL_HOST_FEATURES=base in the environment hides all of them.
  static HostFeatures detect();
};

// Makes `base` the base of the GS segment, for code that was compiled for HostFeatures::segment_bases. On such hosts only.
void set_segment_base(std::uintptr_t base);

// A stub that keeps the guest registers that all blocks pin, and one for regions, which keep their own.
struct StubOffsets {
  std::uint32_t full, bare;
};

// How code reaches guest memory, and what it knows of where it lies itself.
enum class MemoryModel : std::uint8_t {
  kPaged,    // by the software TLB; of its own address code knows only the offset in the page
  kFlat,     // guest addresses are host addresses; code knows its own
  kSegment,  // likewise, from the base of the GS segment on
  kShadow,   // likewise, if they have no bits of StateOffsets::outside; others are left to the interpreter
};

// How far from an address in a shadow accesses may go before that needs a check of its own.
inline constexpr std::int64_t kShadowReach = 1 << 20;
// Whoever enters code in a shadow sees to it that the stack pointer is within that reach. From there each instruction moves
// it by so much at most, or is followed by a check: what is addressed by it needs none.
inline constexpr std::int64_t kStackStride = 2048;

// In paged memory, code can be made to reach data by the GS segment's base as well: those at addresses from
// StateOffsets::window on. The accesses of some instructions go by the software TLB all the same.
struct Window {
  std::bitset<2048> outside;  // those, by halfword of the page
  // Whether there is one at page offsets in [begin, end).
  bool any_in(unsigned begin, unsigned end) const {
    for (unsigned i = begin / 2; outside.any() && i < end / 2; ++i) {
      if (outside[i]) return true;
    }
    return false;
  }
};

// Byte offsets in the guest's flat state and in the tables that it points to.
struct StateOffsets {
  MemoryModel memory;
  std::uint32_t pc;
  std::uint32_t page, tlb, code, exit, budget, exit_reason, exit_site, stack;  // of isa::CodeFrame
  std::uint32_t clock;   // likewise
  std::uint32_t slices, slice, slice_end, attention;  // likewise
  std::uint32_t leave;   // likewise, a pointer for each of kLeaveReasons
  std::uint32_t slots;   // likewise, kSpillSlots of 8 bytes
  std::uint32_t signs;   // likewise, the sign bits of a double and of a single, 8 bytes each
  std::uint32_t outside;  // likewise, the bits that no address in the segment has
  std::uint32_t window;   // likewise, the least address in the window
  StubOffsets read, write, step;                                        // likewise
  std::uint32_t refill_write;                                           // likewise
  std::uint32_t tlb_read, tlb_write, tlb_fetch;  // arrays of {tag, addend or page object} in the TLB
  std::uint32_t tlb_entries;                     // of each array; a power of two
  // In the TLB: arrays of {tag, addend} by chunks of addresses, which entries are filled from, how many there are of each,
  // the binary logarithm of a chunk's bytes, and the set of groups of entries that may be filled, as bits: of how many
  // addresses each is.
  std::uint32_t tlb_read_chunks, tlb_write_chunks, tlb_chunks, tlb_chunk_shift, tlb_filled, tlb_groups;
  // In the TLB: kPageSlots of {tag, addend}, and for each how often it may be filled anew, one byte.
  std::uint32_t tlb_slots, tlb_slot_refills;
  std::uint32_t stack_pointer;                   // state offset of the register that compilers address frames by
  // Where memory is not paged, `tlb` points to a table of {guest address, code} that jumps look up instead, indexed by
  // the address without its lowest bit.
  std::uint32_t jump_mask;                       // of isa::CodeFrame: those bits of the address
  std::uint32_t page_entries;  // in a page object: a 32-bit code offset for each halfword of the page
  std::uint32_t page_first;    // likewise: the page's first two bytes, as fetches see them
  std::vector<std::uint32_t> pinned;             // state offsets of the registers to keep in host registers
  // Where the guest's registers are: the first ones' offsets, 8 bytes each. Regions choose pins among them.
  std::uint32_t integer_registers, integer_count, floating_registers, floating_count;
};

// The state offsets of guest registers that code keeps in host registers.
struct Pins {
  std::vector<std::uint32_t> integer;   // at most kPinnedRegisters
  std::vector<std::uint32_t> floating;  // at most kPinnedFloatingRegisters; 64 bits wide
};

// A block and where it lies: in paged memory its offset in its page, else its guest address. The blocks of a region lie
// in one page.
struct PlacedBlock {
  const ir::Block& block;
  std::uint64_t address;
};

// A jump or call that the code cache may direct to its target once that is translated. In paged memory a target outside of
// the page makes a far link: what lies there may be another page the next time, so its jump goes to a Passage.
struct Link {
  std::uint32_t at;        // offset in the code of its 32-bit displacement
  std::uint32_t unlinked;  // where it leads until then
  std::uint64_t target;    // as PlacedBlock::address
};

// A host instruction that accesses guest memory directly. Should it fault, the guest instruction has had no effect yet.
struct FaultPoint {
  std::uint32_t at;         // offset in the code of the host instruction
  std::uint32_t unretired;  // of the budget to give back: that instruction and those after it
  std::uint64_t pc;         // in paged memory its offset in the page
};

// The way of a far link from one page of virtual memory to another one, for supervisors: a jump that is right for as long as
// the TLB says of the other page what it said.
struct Passage {
  std::uint64_t from, to;  // the pages' guest-virtual addresses
  const void* page;        // the object of the page that lies there, as in the TLB's fetch entries
  unsigned offset;         // of the target in it
};
struct PassageCode {
  std::vector<std::byte> bytes;
  Link link;  // to the target's code, if there is a use for one: `at` is nonzero then
};

struct EmittedCode {
  std::vector<std::byte> bytes;
  std::vector<Link> links;          // in order of `at`
  std::vector<FaultPoint> faults;   // likewise
  std::uint64_t page_slots = 0;     // of a region: which it uses
};

// Why translated code came back; in the state's exit_reason.
enum class ExitReason : std::uint64_t {
  kGo,     // continue at pc: a jump's target is not translated, or not in the fetch TLB
  kLink,   // likewise, by the direct jump whose displacement is at exit_site
  kStep,   // run the one instruction at pc by the interpreter
  kSpent,  // the budget is used up
  kFault,  // a slow access took a trap; pc is the handler
};
inline constexpr unsigned kLeaveReasons = 4;  // all but the last: code itself leaves for them

// Code points its base register this far into the state, so that the first 256 bytes, where guests keep their registers,
// are reached with displacements of one byte.
inline constexpr int kStateBias = 128;
// How many spill slots a state has.
inline constexpr unsigned kSpillSlots = 512;
// How many page slots a TLB has: two for each guest register, for loads and for stores.
inline constexpr unsigned kPageSlots = 64;
// How many state offsets can be pinned.
inline constexpr unsigned kPinnedRegisters = 7;
// And how many floating-point registers, in regions.
inline constexpr unsigned kPinnedFloatingRegisters = 10;

// The stubs that all blocks share, in one piece of code: `enter` is called as void(state, code).
struct Stubs {
  std::vector<std::byte> bytes;
  std::uint32_t enter, exit;
  std::uint32_t exit_spilled;                      // exit when the pinned registers are in the state already
  std::array<std::uint32_t, kLeaveReasons> leave;  // exit for a reason, with pc in rax; kLink: the site in rcx
  StubOffsets read, write, step;
  std::uint32_t refill_write;  // gives rcx: where the byte at rax, to be written, is in the host; 0: not known. Keeps the rest
  std::uint32_t clock;  // gives rax, keeps all other integer registers
};

// What slow accesses and steps call, with the state, the guest address, the value to store (for a step the
// instruction's encoding) and the packed access.
enum class Resume : std::uint64_t {
  kLeave,  // back to the dispatcher: a trap was taken, or somebody asks for attention
  kHere,   // go on after the instruction
  kJump,   // go on at pc
};
struct SlowResult {
  std::uint64_t value;
  Resume resume;
};
using SlowHelper = SlowResult (*)(void* state, std::uint64_t address, std::uint64_t value, std::uint64_t access);

// What the clock's stub calls, with the state. It computes with integers only.
using ClockHelper = std::uint64_t (*)(void* state);

// A slow access's description: what is accessed, the instruction's offset in its page, and how many of the
// block's instructions have not run.
constexpr std::uint32_t pack_slow_access(ir::Access access, unsigned page_offset, unsigned unretired) {
  return static_cast<std::uint32_t>(access) | page_offset << 4 | unretired << 16;
}
constexpr ir::Access slow_access(std::uint64_t packed) { return static_cast<ir::Access>(packed & 15); }
constexpr unsigned slow_page_offset(std::uint64_t packed) { return packed >> 4 & 0xfff; }
constexpr unsigned slow_unretired(std::uint64_t packed) { return packed >> 16 & 0xffff; }

class Compiler {
 public:
  Compiler(const StateOffsets& offsets, const HostFeatures& features);
  ~Compiler();

  const StateOffsets& offsets() const { return offsets_; }
  const HostFeatures& features() const { return features_; }

  // What an empty entry of a page leads to: back to the dispatcher, pc being in the state.
  std::vector<std::byte> make_entry_miss() const;
  Stubs make_stubs(SlowHelper read, SlowHelper write, SlowHelper step, ClockHelper clock) const;

  // In paged memory, for code with a window.
  PassageCode make_passage(const Passage& passage) const;

  // Any thread may compile.
  EmittedCode compile(const PlacedBlock& block, const Window* window = nullptr) const;

  // Compiles blocks together: jumps among them are direct, and they keep `pins` in host registers instead of the
  // ones that all other code agrees on. Entered at the first block. Page slots in `unfit` are not used.
  EmittedCode compile_region(std::span<const PlacedBlock> blocks, const Pins& pins, std::uint64_t unfit = 0,
                             const Window* window = nullptr) const;

  // The host registers that keep pinned guest registers, by their numbers in machine code.
  static std::span<const unsigned> pinned_registers();
  static unsigned pinned_xmm(unsigned index);

 private:
  class Emission;
  StateOffsets offsets_;
  HostFeatures features_;
};

}  // namespace doppel::x64
