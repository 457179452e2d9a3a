// Random guest programs that go everywhere and yet never get stuck: what traps is skipped by handlers that are
// guest code as well, what jumps away comes back to the program's start, and its end leads there too.
//
// Physical memory, from kRam: handlers, the handlers' save areas, page tables, the program, data. With Sv39 on,
// everything is mapped where it lies, the data with rights drawn by lot; user code runs at an alias. All of that may be
// there in the upper half of the address space as well, where supervisors have theirs.
#pragma once

#include <algorithm>
#include <array>
#include <random>
#include <span>
#include <string>
#include <string_view>

#include "base/bits.h"
#include "isa/riscv/assembler.h"
#include "machine.h"

namespace doppel::engine_test {

inline constexpr u64 kMachineHandler = kRam, kSupervisorHandler = kRam + 0x1000, kSaveArea = kRam + 0x2000;
inline constexpr u64 kTables = kRam + 0x10000;
inline constexpr u64 kCode = kRam + 0x20000, kCodeBytes = 0x8000;
inline constexpr u64 kUserCode = 0x2000'0000;      // Sv39: kCode, executable by U
inline constexpr u64 kWritableCode = 0x3000'0000;  // Sv39: kCode, writable by all
inline constexpr u64 kData = kRam + 0x30000;
inline constexpr unsigned kDataPages = 16;
inline constexpr u64 kUpper = 0xffff'ffc0'0000'0000;  // Sv39: what is added to addresses of the first GiB from kRam on
inline constexpr u64 kLargePage = 0x6000'0000;     // Sv39: kRam and more, read-only, in one 2 MiB page

// A program with what it starts from, and what happens to it from outside.
struct Scenario {
  struct Chunk {
    u64 instructions;
    u64 interrupts;  // lines raised before it
    u64 time;        // in ticks
  };
  Contents contents;
  std::vector<Chunk> chunks;
};

// Ends the scenario where its program traps for ever and no instruction retires, because its handler was lost.
inline void end_where_stuck(Scenario& scenario) {
  constexpr unsigned kTraps = 1000;  // more than handlers need to come to rest
  SteppedMachine machine(scenario.contents);
  for (std::size_t i = 0; i < scenario.chunks.size(); ++i) {
    Scenario::Chunk& chunk = scenario.chunks[i];
    machine.begin_chunk(chunk.interrupts, chunk.time);
    const u64 begin = machine.state().instructions;
    unsigned traps = 0;
    for (u64 done = 0; done < chunk.instructions && traps < kTraps; done = machine.state().instructions - begin) {
      machine.step();
      traps = machine.state().instructions - begin == done ? traps + 1 : 0;
    }
    if (traps < kTraps) continue;
    chunk.instructions = machine.state().instructions - begin;
    scenario.chunks.resize(i + 1);
    return;
  }
}

class ScenarioMaker {
 public:
  explicit ScenarioMaker(u64 seed) : random_(seed) {}

  Scenario make() {
    const bool user = chance(0.5);
    return make(user, chance(0.6));
  }
  // In U-mode for good, and with or without Sv39.
  Scenario make(bool user, bool paged) {
    user_ = user;
    paged_ = paged;
    upper_ = paged && !user && chance(0.6);
    guarded_ = chance(0.5);
    Scenario scenario{make_contents(), {}};
    u64 time = 0;
    for (unsigned i = 0; i < 12; ++i) {
      u64 lines = 0;
      for (const unsigned line : {1u, 3u, 5u, 7u, 9u, 11u}) lines |= u64{chance(0.25)} << line;
      scenario.chunks.push_back({chance(0.3) ? below(60) + 1 : below(2500) + 1, lines, time += below(50)});
    }
    end_where_stuck(scenario);
    return scenario;
  }

 private:
  // --- Chance.

  u64 below(u64 bound) { return random_() % bound; }
  bool chance(double probability) { return std::bernoulli_distribution(probability)(random_); }
  template <class T>
  T one_of(std::initializer_list<T> choices) { return choices.begin()[below(choices.size())]; }
  // Numbers that are more interesting than random bits.
  u64 number() {
    switch (below(6)) {
      case 0: return random_();
      case 1: return u64{1} << below(64);
      case 2: return (u64{1} << below(64)) - 1;
      case 3: return -(u64{1} << below(64));
      case 4: return static_cast<u64>(static_cast<std::int64_t>(below(65)) - 32);
      default: return sign_extend(random_(), 32);
    }
  }
  u64 double_bits() {
    const u64 sign = u64{chance(0.5)} << 63;
    const u64 edge = one_of<u64>({0, 1, 0x000f'ffff'ffff'ffff, 0x0010'0000'0000'0000, 0x3ff0'0000'0000'0000,
                                  0x3ff0'0000'0000'0001, 0x7fef'ffff'ffff'ffff, 0x7ff0'0000'0000'0000,
                                  0x7ff0'0000'0000'0001, 0x7ff8'0000'0000'0000, 0x41df'ffff'ffe0'0000,
                                  0x43e0'0000'0000'0000, 0x36a0'0000'0000'0000, 0x47ef'ffff'f000'0000});
    return sign | (chance(0.6) ? edge : (u64{1023} - 40 + below(80)) << 52 | random_() >> 12);
  }
  u64 single_bits() {
    const u64 sign = u64{chance(0.5)} << 31;
    const u64 edge = one_of<u64>({0, 1, 0x007f'ffff, 0x0080'0000, 0x3f80'0000, 0x3f80'0001, 0x7f7f'ffff,
                                  0x7f80'0000, 0x7f80'0001, 0x7fc0'0000, 0x4eff'ffff, 0x4f00'0000});
    const u64 bits = sign | (chance(0.6) ? edge : (u64{127} - 20 + below(40)) << 23 | random_() >> 41);
    return chance(0.95) ? 0xffff'ffff'0000'0000 | bits : bits;
  }

  // --- The program, unit by unit. Control flows from a unit to the start of another.

  struct Fixup {
    std::size_t at;  // halfword
    std::size_t unit;
    const riscv::RowInfo* row;
    isa::Operands operands;
  };
  enum Register : std::uint8_t { kZero, kRa, kSp, kGp, kTp, kT0, kT1, kT2, kS0, kS1, kS2 = 18, kT6 = 31 };

  void emit(std::uint32_t raw, unsigned bytes) {
    code_.push_back(static_cast<std::uint16_t>(raw));
    if (bytes == 4) code_.push_back(static_cast<std::uint16_t>(raw >> 16));
  }
  void emit(std::string_view mnemonic, const isa::Operands& operands) {
    const riscv::RowInfo& row = riscv::test::row_of(mnemonic);
    emit(row.pattern.encode(operands), row.pattern.length_bytes());
  }
  void emit(const std::string& assembly) {
    for (const std::uint16_t half : riscv::test::assemble(assembly)) code_.push_back(half);
  }
  void emit_to(std::string_view mnemonic, const isa::Operands& operands, std::size_t unit) {
    const riscv::RowInfo& row = riscv::test::row_of(mnemonic);
    fixups_.push_back({code_.size(), unit, &row, operands});
    emit(row.pattern.encode(operands), row.pattern.length_bytes());
  }
  void resolve_fixups() {
    for (const Fixup& fixup : fixups_) {
      const std::size_t target = fixup.unit < units_.size() ? units_[fixup.unit] : units_.back();
      isa::Operands operands = fixup.operands;
      operands.imm = static_cast<std::int32_t>(2 * (target - fixup.at));
      std::uint32_t raw = fixup.row->pattern.encode(operands);
      // Too far for a short form: to the next instruction.
      if (fixup.row->pattern.extract(raw).imm != operands.imm) {
        operands.imm = static_cast<std::int32_t>(fixup.row->pattern.length_bytes());
        raw = fixup.row->pattern.encode(operands);
      }
      code_[fixup.at] = static_cast<std::uint16_t>(raw);
      if (fixup.row->pattern.length_bytes() == 4) code_[fixup.at + 1] = static_cast<std::uint16_t>(raw >> 16);
    }
  }

  static bool is_pointer(unsigned r) { return r == kSp || r == kS0 || r == kS1 || r == kS2; }
  std::uint8_t pointer() { return one_of<std::uint8_t>({kSp, kS0, kS1, kS2}); }
  std::uint8_t any_register() { return static_cast<std::uint8_t>(below(32)); }
  // t6 counts loops; the pointers are seldom lost.
  std::uint8_t target_register() {
    for (;;) {
      const std::uint8_t r = any_register();
      if (r != kT6 && (!is_pointer(r) || chance(0.05))) return r;
    }
  }

  void emit_pointer(std::uint8_t r) {
    u64 address = kData + below(kDataPages) * kPageSize;
    address += chance(0.3) ? kPageSize - 1 - below(16) : below(kPageSize / 8) * 8;
    if (chance(0.08)) address = kLargePage + below(0xc0000);
    if (upper_ && chance(0.6)) address += kUpper;
    if (chance(0.08)) address = kDevice + below(kPageSize / 8) * 8;
    if (chance(0.02)) address = number();
    emit(fmt::format("li x{}, {:#x}", r, address));
  }

  // One instruction of any row that neither jumps nor meddles with the machine's set-up.
  void emit_instruction() {
    static const auto candidates = [] {
      std::vector<const riscv::RowInfo*> found;
      for (const riscv::RowInfo& row : riscv::rows()) {
        if (!row.traits.ends_block) found.push_back(&row);
      }
      return found;
    }();
    const riscv::RowInfo& row = *candidates[below(candidates.size())];
    const bool accesses = row.syntax().ends_with("(rs1)");
    for (;;) {
      isa::Operands o{.imm = static_cast<std::int32_t>(random_()),
                      .rd = target_register(),
                      .rs1 = accesses ? pointer() : any_register(),
                      .rs2 = any_register(),
                      .rm = static_cast<std::uint8_t>(chance(0.6) ? 7 : below(chance(0.1) ? 7 : 5))};
      if (accesses && chance(0.8)) o.imm = static_cast<std::int32_t>(8 * below(16));
      const std::uint32_t raw = row.pattern.encode(o);
      const isa::Operands encoded = row.pattern.extract(raw);
      const bool writes = row.pattern.has(isa::Field::kRd);
      const bool harmful = writes && (encoded.rd == kT6 || (is_pointer(encoded.rd) && !chance(0.1)));
      if (row.pattern.matches(raw) && !harmful) return emit(raw, row.pattern.length_bytes());
    }
  }

  void emit_straight_line() {
    for (u64 count = below(12) + 1; count > 0; --count) emit_instruction();
  }
  void emit_floating() {
    static const auto candidates = [] {
      std::vector<const riscv::RowInfo*> found;
      for (const riscv::RowInfo& row : riscv::rows()) {
        if (row.traits.floating_point && !row.syntax().ends_with(")")) found.push_back(&row);
      }
      return found;
    }();
    // Few registers, so that results meet again.
    for (u64 count = below(10) + 2; count > 0; --count) {
      const riscv::RowInfo& row = *candidates[below(candidates.size())];
      const bool to_integer = row.pattern.has(isa::Field::kRd);
      const auto f = [&] { return static_cast<std::uint8_t>(below(8)); };
      emit(row.pattern.encode({.imm = f(),
                               .rd = to_integer ? one_of<std::uint8_t>({kT0, kT1, 10, 11, 28}) : f(),
                               .rs1 = row.pattern.has(isa::Field::kRs1) ? any_register() : f(),
                               .rs2 = f(),
                               .rm = static_cast<std::uint8_t>(chance(0.8) ? 7 : below(5))}),
           4);
    }
  }
  // Needs more registers of the host than there are: what a pinned register was, and several others' values, are used
  // again after a sum took its place, with a scaled index among them.
  void emit_pressure() {
    std::array<std::uint8_t, 15> unpinned{kT0, kT1, kT2, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30};
    std::ranges::shuffle(unpinned, random_);
    const auto living = std::span(unpinned).first(3 + below(3));
    const auto free = std::span(unpinned).subspan(living.size());
    const auto combine = [this](std::uint8_t rd, std::uint8_t rs1, std::uint8_t rs2) {
      emit(one_of<std::string_view>({"add", "sub", "xor", "or", "and"}), {.rd = rd, .rs1 = rs1, .rs2 = rs2});
    };
    const auto sum = one_of<std::uint8_t>({10, 11, 13, 14, 15});  // no pointer
    const std::uint8_t before = free[0], product = free[1], index = living[below(living.size())];

    for (std::size_t i = 1; i < living.size(); ++i) {
      combine(static_cast<std::uint8_t>(10 + below(6)), living[i - 1], living[i]);
    }
    emit("addi", {.rd = before, .rs1 = sum});
    if (chance(0.5)) {
      emit(one_of<std::string_view>({"sh1add", "sh2add", "sh3add"}), {.rd = sum, .rs1 = index, .rs2 = sum});
    } else {
      emit("slli", {.imm = static_cast<std::int32_t>(1 + below(4)), .rd = product, .rs1 = index});
      const bool first = chance(0.5);
      emit("add", {.rd = sum, .rs1 = first ? product : sum, .rs2 = first ? sum : product});
      if (chance(0.7)) emit("addi", {.rd = product});
    }
    std::ranges::shuffle(living, random_);
    for (std::size_t i = 0; i < living.size(); ++i) combine(free[2 + i], living[i], before);
  }
  void emit_accesses() {
    const std::uint8_t base = pointer();
    if (chance(0.5)) emit_pointer(base);
    for (u64 count = below(8) + 1; count > 0; --count) {
      const std::uint8_t r = target_register();
      const std::int32_t imm = static_cast<std::int32_t>(chance(0.7) ? 8 * below(8) : below(64));
      if (is_pointer(r)) continue;
      if (chance(0.5)) {
        emit(one_of<std::string_view>({"lb", "lh", "lw", "ld", "lbu", "lhu", "lwu", "fld", "flw", "ld"}),
             {.imm = imm, .rd = r, .rs1 = base});
      } else {
        emit(one_of<std::string_view>({"sb", "sh", "sw", "sd", "fsw", "fsd", "sd"}),
             {.imm = imm, .rs1 = base, .rs2 = r});
      }
    }
  }

  void emit_branch() {
    const std::size_t target = units_.size() + below(5);
    if (chance(0.25)) {
      const std::string_view mnemonic = one_of<std::string_view>({"c.beqz", "c.bnez", "c.j"});
      emit_to(mnemonic, {.rs1 = static_cast<std::uint8_t>(8 + below(8))}, target);
    } else if (chance(0.2)) {
      emit_to("jal", {.rd = one_of<std::uint8_t>({kZero, kRa, kT0})}, target);
    } else {
      const std::string_view mnemonic = one_of<std::string_view>({"beq", "bne", "blt", "bge", "bltu", "bgeu"});
      const std::uint8_t other = chance(0.3) ? std::uint8_t{kZero} : any_register();
      emit_to(mnemonic, {.rs1 = any_register(), .rs2 = other}, target);
    }
  }
  void emit_loop_begin() {
    if (loop_) return;
    emit(fmt::format("addi t6, zero, {}", below(60) + 1));
    loop_ = units_.size();
  }
  void emit_loop_end() {
    if (!loop_) return;
    emit("addi t6, t6, -1");
    emit_to("bne", {.rs1 = kT6}, *loop_);
    loop_.reset();
  }
  // Over the next unit, which gets a return that a call reaches.
  void emit_call() {
    emit_to("jal", {.rd = kRa}, units_.size());
    emit("c.j", {.imm = 8});
    units_.push_back(code_.size());
    emit("addi a0, a0, 1");
    emit("c.jr", {.rs1 = kRa});
  }
  void emit_indirect_jump() {
    emit("auipc t1, 0");
    const std::string_view rd = one_of<std::string_view>({"zero", "ra", "t0", "t1"});
    emit(fmt::format("jalr {}, {}(t1)", rd, one_of<int>({8, 9, 8, 12})));
    emit("addi t1, zero, 1");
  }
  // Writes an instruction that differs each time, and runs it.
  void emit_self_modification() {
    const std::size_t begin = code_.size();
    const std::uint32_t increment = riscv::test::row_of("addi").pattern.encode({.rd = 10, .rs1 = 10});
    // The address of the instruction depends on the length of the code that loads the address.
    for (u64 offset = 0; offset != 2 * code_.size();) {
      offset = 2 * code_.size();
      code_.resize(begin);
      emit("andi t0, a0, 127; slli t0, t0, 20");
      emit(fmt::format("li t1, {:#x}; li t2, {:#x}", (paged_ ? kWritableCode : kCode) + offset, increment));
      emit("or t2, t2, t0; sw t2, 0(t1); fence.i");
    }
    emit(increment, 4);
    // A store by it would change code that no fence follows.
    emit("addi t1, zero, 1");
  }

  // --- Privileged units; in a mode that may not, they trap and are skipped.

  // Handlers mask what they have seen.
  void emit_interrupts_on() {
    emit(fmt::format("li t1, {:#x}; csrrs zero, {}, t1", random_() & 0xaaa, chance(0.5) ? "mie" : "sie"));
    emit(chance(0.6) ? "csrrsi zero, sstatus, 2" : "csrrsi zero, mstatus, 8");
  }
  void emit_csr() {
    using namespace riscv;
    if (chance(0.15)) return emit_interrupts_on();
    if (chance(0.5)) {
      static constexpr std::array kBits{mstatus::kSie, mstatus::kMie, mstatus::kSum, mstatus::kMxr, mstatus::kMprv,
                                        mstatus::kTsr, mstatus::kTw, mstatus::kTvm, mstatus::kFs, mstatus::kSpie,
                                        mstatus::kSpp, mstatus::kMpp, mstatus::kSie, mstatus::kSie};
      const u64 mask = kBits[below(kBits.size())];
      const bool clear = chance(0.5);
      const std::string_view name = chance(0.5) ? "mstatus" : "sstatus";
      if (mask < 32 && chance(0.7)) {
        const std::string_view rd = one_of<std::string_view>({"zero", "t2"});
        emit(fmt::format("{} {}, {}, {}", clear ? "csrrci" : "csrrsi", rd, name, mask));
      } else {
        emit(fmt::format("li t1, {:#x}; {} t2, {}, t1", mask, clear ? "csrrc" : "csrrs", name));
      }
      if (mask == mstatus::kFs && clear && chance(0.7)) {
        emit_straight_line();
        emit("li t1, 0x6000; csrrs zero, sstatus, t1");
      }
      return;
    }
    static constexpr std::array kFree{
        csr::kFflags, csr::kFrm, csr::kFcsr, csr::kFrm, csr::kFflags, csr::kCycle, csr::kInstret, csr::kTime,
        csr::kScause, csr::kStval, csr::kSie, csr::kSip, csr::kSie, csr::kScounteren, csr::kSenvcfg, csr::kStimecmp,
        csr::kMcause, csr::kMtval, csr::kMie, csr::kMip, csr::kMedeleg, csr::kMideleg, csr::kMcounteren,
        csr::kMcountinhibit, csr::kMcycle, csr::kMinstret, 0x7ffu, csr::kSepc};
    static constexpr std::array kReadable{
        csr::kSepc, csr::kStvec, csr::kSscratch, csr::kSatp, csr::kMepc, csr::kMtvec, csr::kMscratch, csr::kMhartid,
        csr::kMisa, csr::kMstatus, csr::kSstatus, csr::kMenvcfg, csr::kPmpaddr0};
    const std::string rd = fmt::format("x{}", target_register());
    if (chance(0.3)) {
      emit(fmt::format("csrrs {}, {:#x}, zero", rd, kReadable[below(kReadable.size())]));
      return;
    }
    const unsigned which = kFree[below(kFree.size())];
    if (chance(0.4)) {
      const std::string_view mnemonic = one_of<std::string_view>({"csrrwi", "csrrsi", "csrrci"});
      emit(fmt::format("{} {}, {:#x}, {}", mnemonic, rd, which, below(32)));
    } else {
      const std::string_view mnemonic = one_of<std::string_view>({"csrrw", "csrrs", "csrrc"});
      if (which == csr::kFrm) emit(fmt::format("li t1, {}", chance(0.9) ? below(5) : below(8)));
      const unsigned source = which == csr::kFrm ? unsigned{kT1} : any_register();
      emit(fmt::format("{} {}, {:#x}, x{}", mnemonic, rd, which, source));
    }
  }
  // What is done with users' memory, where the supervisor opens it, and what once it is closed, or the other way around.
  void emit_opening() {
    const std::string_view first = chance(0.8) ? "csrrs" : "csrrc";
    const std::string_view rd = one_of<std::string_view>({"zero", "t2"});
    emit(fmt::format("li t1, {:#x}; {} {}, sstatus, t1", riscv::mstatus::kSum, first, rd));
    chance(0.8) ? emit_accesses() : emit_unit();
    if (chance(0.2)) return;
    if (rd == "t2" && chance(0.5)) {
      emit("csrrw t2, sstatus, t2");
    } else {
      emit(fmt::format("li t1, {:#x}; {} {}, sstatus, t1", riscv::mstatus::kSum, first == "csrrs" ? "csrrc" : "csrrs", rd));
    }
    if (chance(0.5)) emit_accesses();
  }
  void emit_fence() {
    switch (below(5)) {
      case 0: {
        const std::uint8_t address = chance(0.5) ? pointer() : std::uint8_t{kZero};
        return emit("sfence.vma", {.rs1 = address, .rs2 = chance(0.3) ? any_register() : std::uint8_t{kZero}});
      }
      case 1: return emit("fence.i");
      case 2: return emit(fmt::format("fence {}", one_of<int>({0x0ff, 0x033, 0x012, 0x021, 0x833, 0x010})));
      case 3: return emit("wfi");
      default: return emit(one_of<std::string_view>({"ecall", "ebreak", "c.ebreak"}), {});
    }
  }
  // Another mapping for a page of data.
  void emit_remap() {
    const unsigned page = static_cast<unsigned>(below(kDataPages));
    emit(fmt::format("li t0, {:#x}; li t1, {:#x}; sd t1, 0(t0)", data_entry(page), data_leaf(page)));
    const bool one = chance(0.7);
    emit(fmt::format("li t2, {:#x}; sfence.vma {}, zero", kData + page * kPageSize, one ? "t2" : "zero"));
    if (one && upper_) emit(fmt::format("li t2, {:#x}; sfence.vma t2, zero", kUpper + kData + page * kPageSize));
  }
  void emit_satp() {
    emit(fmt::format("li t0, {:#x}; csrrw t1, satp, t0", chance(0.3) ? 0 : satp(below(3))));
    if (chance(0.5)) emit("sfence.vma zero, zero");
  }
  // Down to a lesser mode, at the next unit.
  void emit_drop() {
    const bool machine = chance(0.6);
    const bool to_user = chance(0.6);
    // From auipc's address to that of what comes after the return.
    std::string before = "auipc t0, 0;";
    if (to_user && paged_) {
      before += fmt::format("slli t0, t0, 43; srli t0, t0, 43; li t1, {:#x}; add t0, t0, t1;", kUserCode);
    }
    std::string after;
    if (machine) {
      after = "csrrw zero, mepc, t0; li t1, 0x1800; csrrc zero, mstatus, t1;";
      if (!to_user) after += "li t1, 0x800; csrrs zero, mstatus, t1;";
      after += "mret";
    } else {
      after = fmt::format("csrrw zero, sepc, t0; li t1, 0x100; {} zero, sstatus, t1; sret",
                          to_user ? "csrrc" : "csrrs");
    }
    const std::size_t length = riscv::test::assemble(before + after).size() * 2 + 4;
    emit(before + fmt::format("addi t0, t0, {};", length) + after);
  }
  // Anything at all, legal or not. For user mode, which can do no harm.
  void emit_raw() {
    for (u64 count = below(4) + 1; count > 0; --count) {
      const std::uint32_t raw = static_cast<std::uint32_t>(random_());
      if (chance(0.5)) {
        emit(raw, riscv::instruction_bytes(static_cast<std::uint16_t>(raw)));
      } else {
        const riscv::RowInfo& row = riscv::rows()[below(riscv::rows().size())];
        emit(row.pattern.match() | (raw & ~row.pattern.mask()), row.pattern.length_bytes());
      }
    }
  }

  void emit_unit() {
    switch (below(20)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4: return emit_straight_line();
      case 5:
      case 6: return emit_floating();
      case 7:
      case 8: return emit_accesses();
      case 9:
      case 10:
      case 11: return emit_branch();
      case 12: return emit_loop_begin();
      case 13: return emit_loop_end();
      case 14: return chance(0.5) ? emit_call() : emit_indirect_jump();
      case 15: return chance(0.3) ? emit_self_modification() : emit_fence();
      case 16: return emit_pointer(pointer());
      case 17: return user_ ? emit_raw() : chance(0.5) ? emit_drop() : emit_fence();
      case 18: return user_ ? emit_raw() : chance(0.6) ? emit_csr() : chance(0.5) ? emit_remap() : emit_satp();
      // So many sums give the address of a handler sooner or later.
      default:
        if (guarded_ && chance(0.5)) return emit_pressure();
        return paged_ && !user_ && chance(0.5) ? emit_opening() : emit_csr();
    }
  }

  std::vector<std::uint16_t> make_program() {
    for (const std::uint8_t r : {kSp, kS0, kS1, kS2}) emit_pointer(r);
    const u64 most = chance(0.3) ? 0x800 : kCodeBytes - 0x400;
    const u64 units = 20 + below(200);
    while (units_.size() < units && 2 * code_.size() < most) {
      units_.push_back(code_.size());
      emit_unit();
    }
    emit_loop_end();
    units_.push_back(code_.size());
    emit("jal", {.imm = -static_cast<std::int32_t>(2 * code_.size())});
    resolve_fixups();
    return std::move(code_);
  }

  // --- What it runs in.

  static constexpr u64 kV = 1, kR = 2, kW = 4, kX = 8, kU = 16, kG = 32, kA = 64, kD = 128, kAD = kA | kD;

  static u64 leaf(u64 gpa, u64 flags) { return gpa >> 2 | flags; }
  static u64 satp(u64 asid) { return u64{8} << 60 | asid << 44 | kTables >> kPageShift; }
  static u64 data_entry(unsigned page) { return kTables + 0x4000 + ((kData >> 12 & 511) + page) * 8; }
  u64 data_leaf(unsigned page) {
    const u64 gpa = chance(0.8) ? kData + below(kDataPages) * kPageSize
                                : one_of<u64>({kDevice, kRam + kRamBytes, kData + page * kPageSize});
    const u64 rights = chance(0.7) ? kR | kW : one_of<u64>({kR, kX, kR | kX, kR | kW | kX, kW, 0});
    const u64 user = chance(upper_ ? 0.25 : 0.7) ? kU : 0;
    const u64 touched = chance(0.8) ? kAD : one_of<u64>({0, kA});
    const u64 global = upper_ && chance(0.8) ? kG : 0;
    return leaf(gpa, (chance(0.95) ? kV : 0) | rights | user | global | touched);
  }

  void make_tables(Contents& contents) {
    // One table for each gigabyte-sized part, one for each 2 MiB that is mapped finely.
    const auto link = [&](u64 table, u64 index, u64 to) { contents.poke(table + 8 * index, leaf(to, kV)); };
    const u64 low = kTables + 0x1000, high = kTables + 0x2000;
    link(kTables, 0, low);   // from 0
    link(kTables, 1, high);  // from kRam, 1 GiB
    if (upper_) link(kTables, 257, high);
    const u64 fine = kTables + 0x4000, user_code = kTables + 0x5000, writable = kTables + 0x6000;
    link(high, 0, fine);
    link(low, kUserCode >> 21 & 511, user_code);
    link(low, kWritableCode >> 21 & 511, writable);
    contents.poke(high + 8 * (kLargePage >> 21 & 511), leaf(kRam, kV | kR | kU | kAD));
    contents.poke(low + 8 * (kDevice >> 21 & 511), leaf(0x0200'0000, kV | kR | kW | kU | kAD));
    for (u64 page = 0; page < kData - kRam; page += kPageSize) {
      const u64 gpa = kRam + page;
      const bool code = gpa >= kCode && gpa < kCode + kCodeBytes;
      contents.poke(fine + 8 * (page >> 12), leaf(gpa, kV | kR | kX | kAD | (code ? 0 : kW)));
    }
    for (u64 page = 0; page < kCodeBytes; page += kPageSize) {
      const u64 execute = chance(0.9) ? kV | kR | kX | kU | kAD : kV | kX | kU | kA;
      // kUserCode keeps kCode's offset in its 2 MiB, so one addition leads from the one to the other.
      contents.poke(user_code + 8 * ((kCode - kRam + page) >> 12), leaf(kCode + page, execute));
      contents.poke(writable + 8 * (page >> 12), leaf(kCode + page, kV | kR | kW | kU | kAD));
    }
    for (unsigned page = 0; page < kDataPages; ++page) contents.poke(data_entry(page), data_leaf(page));
  }

  // Skips the instruction at epc, or goes to the program's start where it could not be fetched; masks an
  // interrupt that it takes. Where modes mix, a call leads up to the handler's own, and so does that start.
  std::string handler(bool machine) const {
    std::string text;
    for (unsigned i = 0; i < 16; ++i) text += "jal zero, common\n";  // vectored or not
    text += R"(
      common:    csrrw sp, @scratch, sp; sd t0, 0(sp); sd t1, 8(sp)
                 ld t0, 16(sp); addi t0, t0, 1; sd t0, 16(sp)
                 csrrs t0, @cause, zero; blt t0, zero, interrupt
                 addi t1, zero, 12; beq t0, t1, restart; addi t1, zero, 1; beq t0, t1, restart
                 MIXED addi t1, zero, 8; beq t0, t1, call; MACHINE addi t1, zero, 9; beq t0, t1, call
      skip:      li t0, RIGHTS; csrrs zero, @status, t0
                 csrrs t1, @epc, zero; lhu t1, 0(t1)
                 csrrc zero, @status, t0
                 andi t1, t1, 3; addi t1, t1, -3
                 csrrs t0, @epc, zero; addi t0, t0, 2; bne t1, zero, short; addi t0, t0, 2
      short:     csrrw zero, @epc, t0
      out:       ld t0, 0(sp); ld t1, 8(sp); csrrw sp, @scratch, sp; @ret
      call:      csrrs t0, @epc, zero; slli t0, t0, 43; srli t0, t0, 43; li t1, RAM; add t0, t0, t1; addi t0, t0, 4
                 csrrw zero, @epc, t0
                 li t0, PREVIOUS; csrrs zero, @status, t0
                 jal zero, out
      restart:   ld t0, 24(sp); csrrw zero, @epc, t0
                 MIXED li t0, PREVIOUS; csrrs zero, @status, t0
                 jal zero, out
      interrupt: addi t1, zero, 1; sll t1, t1, t0; csrrc zero, @ie, t1
                 jal zero, out
      )";
    const auto replace = [&](std::string_view what, std::string_view with) {
      for (std::size_t at; (at = text.find(what)) != std::string::npos;) text.replace(at, what.size(), with);
    };
    using namespace riscv;
    // What follows one of these words in its line is left out where they do not hold.
    replace("MACHINE", machine ? "" : "#");
    replace("MIXED", user_ ? "#" : "");
    // The instruction is read with the rights of who ran it, even if it is only executable.
    replace("RIGHTS", fmt::format("{}", mstatus::kMxr | (machine ? mstatus::kMprv : mstatus::kSum)));
    replace("PREVIOUS", fmt::format("{}", machine ? mstatus::kMpp : mstatus::kSpp));
    replace("RAM", fmt::format("{}", kRam));
    replace("@", machine ? "m" : "s");
    return text;
  }

  Contents make_contents() {
    using namespace riscv;
    Contents contents;
    contents.load(kMachineHandler, test::assemble(handler(true), kMachineHandler));
    contents.load(kSupervisorHandler, test::assemble(handler(false), kSupervisorHandler));
    for (u64 offset = 0; offset < kDataPages * kPageSize; offset += 8) {
      contents.poke(kData + offset, chance(0.5) ? double_bits() : chance(0.3) ? single_bits() : number());
    }
    make_tables(contents);
    contents.load(kCode, make_program());

    const u64 user_start = paged_ ? kUserCode + (kCode - kRam) : kCode;
    const u64 start = user_ ? user_start : kCode;
    contents.poke(kSaveArea + 24, start);
    contents.poke(kSaveArea + 0x800 + 24, start);

    HartState& s = contents.state = open_state(start);
    if (guarded_) {  // in M-mode as well; the rest is open to all
      s.pmpcfg[0] = 0x9d;
      s.pmpaddr[0] = kRam >> 2 | 0x3ff;
      s.pmpcfg[1] = 0x1f;
      s.pmpaddr[1] = ~u64{0} >> 10;
    }
    for (unsigned r = 1; r < 32; ++r) s.x[r] = number();
    for (u64& f : s.f) f = chance(0.5) ? double_bits() : single_bits();
    s.frm = static_cast<std::uint8_t>(chance(0.7) ? 0 : below(5));
    s.privilege = user_ ? Privilege::kUser : chance(upper_ ? 0.7 : 0.3) ? Privilege::kSupervisor : Privilege::kMachine;
    s.mtvec = kMachineHandler | below(2);
    s.stvec = kSupervisorHandler | below(2);
    s.mscratch = kSaveArea;
    s.sscratch = kSaveArea + 0x800;
    s.medeleg = random_() & 0xb3ff;
    s.mideleg = random_() & 0x222;
    s.mie = random_() & 0xaaa;
    s.mcounteren = random_() & 7;
    s.scounteren = random_() & 7;
    s.menvcfg = random_() & (envcfg::kAdue | envcfg::kPbmte | envcfg::kStce | envcfg::kCbcfe | envcfg::kCbze);
    s.senvcfg = random_() & (envcfg::kCbcfe | envcfg::kCbze);
    s.stimecmp = below(300);
    s.satp = paged_ ? satp(0) : 0;
    return contents;
  }

  std::mt19937_64 random_;
  bool user_ = false;   // in U-mode, and stays there
  bool paged_ = false;  // Sv39
  bool upper_ = false;  // with kRam in the upper half, too
  bool guarded_ = false;  // the handlers are out of the program's reach
  std::vector<std::uint16_t> code_;
  std::vector<std::size_t> units_;
  std::vector<Fixup> fixups_;
  std::optional<std::size_t> loop_;
};

}  // namespace doppel::engine_test
