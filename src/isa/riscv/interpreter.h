// The reference engine: predecodes guest pages into arrays of operations and runs them one by one.
//
// A page is decoded as it was when first entered (or after the last FENCE.I, when it is compared with
// memory): the architecture promises instruction fetches to see stores no earlier. Belongs to the hart's
// thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "isa/common/pattern.h"
#include "isa/riscv/decode.h"
#include "isa/riscv/hart.h"
#include "isa/riscv/mmu.h"
#include "memory/code_page.h"

namespace doppel::riscv {

class Interpreter {
 public:
  explicit Interpreter(Hart& hart);
  ~Interpreter();

  // Runs until there is a reason to stop; at most about `budget` instructions.
  Exit run(std::uint64_t budget);

  // For an engine that leaves single instructions to this one: runs the instruction at state.pc, or takes the
  // trap that it causes. Attention is the caller's business.
  void step();
  // The same for an instruction whose encoding, all of it in one page, is known: nothing is fetched.
  void step(std::uint32_t raw);
  // One data access at `gva` with the checks of the current mode, as the instruction there would make it.
  // On a trap nullopt or false, and fault() says which.
  std::optional<std::uint64_t> read(std::uint64_t gva, unsigned bytes) { return read_slow(gva, bytes); }
  bool write(std::uint64_t gva, unsigned bytes, std::uint64_t value) { return write_slow(gva, bytes, value); }
  Trap fault() const { return fault_; }
  // FENCE.I, from wherever. Of the translator's fetch entries those stay whose objects `keeps_translated` tells of.
  void expect_code_changes(TlbContext::KeepsCode keeps_translated = nullptr);

 private:
  friend class Step;

  struct Op;
  // Runs one instruction and gives the operation after it.
  using Handler = const Op* (*)(HartState&, const Op*, Interpreter&);
  struct Op {
    Handler handler;
    isa::Operands operands;
  };

  // One slot for each halfword at which an instruction can begin, and two that lead out of the page.
  static constexpr std::size_t kSlots = kPageSize / 2;
  struct Page {
    std::array<Op, kSlots + 2> ops;
    CodePage source;  // what was decoded
    const std::byte* host = nullptr;
    GuestPhysical gpa;
    std::uint64_t generation = 0;  // of the last comparison with memory
  };

  template <std::size_t Index>
  static const Op* execute(HartState& state, const Op* op, Interpreter& self);
  static Handler handler_of(RowIndex row);

  // Handlers of slots that are no instruction.
  static const Op* decode_here(HartState& state, const Op* op, Interpreter& self);   // not decoded yet
  static const Op* illegal_here(HartState& state, const Op* op, Interpreter& self);
  static const Op* straddle_here(HartState& state, const Op* op, Interpreter& self); // continues on the next page
  static const Op* leave_here(HartState& state, const Op* op, Interpreter& self);    // past the end
  static const Op* refetch_here(HartState& state, const Op* op, Interpreter& self);  // resume at state.pc

  std::uint64_t pc_of(const Op* op) const {
    return page_gva_ + static_cast<std::uint64_t>(op - page_->ops.data()) * 2;
  }
  std::uint32_t raw_of(const Op* op) const;

  // The operation at `gva`, in the translation regime of now. Faults are taken when it is run.
  const Op* go(std::uint64_t gva);
  const Op* enter(Page& page, std::uint64_t gva);
  const Op* fetch_slow();
  const Op* single(std::uint64_t pc);
  Page* page_for(GuestPhysical gpa, const std::byte* host);
  void reset_ops(Page& page, Handler handler);
  // Takes `trap` at `op`, which does not retire.
  const Op* raise(const Op* op, Trap trap);
  const Op* resume();  // continue at state.pc, wherever that is

  // Brings state.instructions up to date, excluding the instruction being run.
  void sync_instructions();

  // Accesses that missed the TLB or are misaligned. nullopt or false: fault_ holds the trap.
  std::optional<std::uint64_t> read_slow(std::uint64_t gva, unsigned bytes);
  bool write_slow(std::uint64_t gva, unsigned bytes, std::uint64_t value);
  // The same in the flat memory of a program, and what tells why not.
  bool user_access(std::uint64_t gva, unsigned bytes, Access access,
                   int (*perform)(std::byte*, unsigned, std::uint64_t&), std::uint64_t& value);
  std::byte* user_location(std::uint64_t gva, unsigned bytes, Access access);
  // The host location of an aligned atomic access to RAM, or nullptr with fault_ set.
  std::byte* atomic_location(std::uint64_t gva, unsigned bytes, Access access);

  Hart& hart_;
  HartState& state_;
  Mmu& mmu_;
  Decoder decoder_;
  TlbContext* tlb_;
  Trap fault_{};

  Page* page_ = nullptr;         // being run
  std::uint64_t page_gva_ = 0;   // where it is mapped
  std::int64_t remaining_ = 0;   // of the budget
  std::uint64_t end_ = 0;        // state.instructions when remaining_ reaches zero
  std::uint64_t generation_ = 1;  // counts FENCE.I
  std::uint64_t traps_ = 0;       // taken, of any kind

  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;  // by guest-physical page number
  std::vector<std::uint64_t> page_order_;  // for eviction, round robin
  std::size_t next_eviction_ = 0;

  // What step() was given, decoded, by a hash of the encoding. Zeros are no instruction: pages of it that nothing hashes to
  // are never touched.
  struct Known {
    std::uint32_t raw;
    Op op;
  };
  static constexpr unsigned kKnownBits = 11;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<Known, Free> known_;

  // For instructions that cannot be kept in a page: those that straddle two, or lie in a page that PMP
  // splits, or came without one. One slot at a time holds an instruction; the others lead out.
  // What step() is given needs the first slot alone, so the rest is not touched before it must be.
  std::unique_ptr<Page, Free> scratch_;
  bool scratch_whole_ = false;
  std::size_t scratch_slot_ = 0;
  std::uint32_t scratch_raw_ = 0;
  Op refetch_;
};

}  // namespace doppel::riscv
