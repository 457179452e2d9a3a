// Random user-mode programs, made from the rows: what interpreter, translator and foreign emulators are
// compared on.
//
// A program always ends: it has straight lines, branches and jumps ahead of every kind, and bounded loops. It
// reads and writes one scratch buffer, and no other memory. Its result depends on nothing but its initial
// state, so two engines that run it must agree on every register, the flags and the buffer. The same options
// and seed give the same programs.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "isa/riscv/decode.h"
#include "isa/riscv/isa_config.h"

namespace doppel::riscv {

// A program and the state in which it begins, at the address of its first instruction.
struct Program {
  static constexpr std::uint64_t kScratchBytes = 4096 + 64;
  // Registers that hold what the program relies on, and does not change for longer than an instruction or two.
  static constexpr unsigned kScratchStart = 2;    // sp
  static constexpr unsigned kScratchMiddle = 8;   // s0: 2048 bytes on, within reach of every signed offset
  static constexpr unsigned kLoopCounter = 9;     // s1

  std::uint64_t start = 0;          // gva
  std::vector<std::uint16_t> code;  // to be put there; it ends by running out of its end, end()
  std::uint64_t scratch = 0;        // gva of the buffer, kScratchBytes long
  std::vector<std::uint64_t> memory;  // what is in it
  std::array<std::uint64_t, 32> x{};
  std::array<std::uint64_t, 32> f{};
  std::uint8_t fcsr = 0;

  std::uint64_t end() const { return start + 2 * code.size(); }
  // One line an instruction: address, encoding, assembly.
  std::string listing() const;
};

struct GeneratorOptions {
  IsaConfig isa = IsaConfig::rva22();
  std::uint64_t start = 0;    // Program::start
  std::uint64_t scratch = 0;  // Program::scratch, a multiple of 64
  unsigned units = 40;        // how long a program is: a unit is an instruction with what it needs, 1 to 4 in all
  bool cache_blocks = false;  // CBO.*: the hart's menvcfg and senvcfg must allow them
  // How often a row comes, relative to the others; 0: never.
  std::function<unsigned(const RowInfo&)> weight = [](const RowInfo&) { return 1u; };
};

class Generator {
 public:
  Generator(GeneratorOptions options, std::uint64_t seed);

  // True for rows that programs may contain at all: not what needs privilege, traps, or reads counters.
  static bool generates(const RowInfo& row, const GeneratorOptions& options);

  Program next();

 private:
  // An instruction, of which a branch's or jump's offset may still be open.
  struct Item {
    enum class Offset : std::uint8_t { kFixed, kFromHere, kFromUnit };
    const RowInfo* row = nullptr;
    isa::Operands operands;
    std::uint32_t ignored = 0;  // bits that no field covers
    Offset offset = Offset::kFixed;
  };
  struct Unit {
    std::vector<Item> items;
    std::size_t target = 0;  // the unit that its open offsets lead to
  };

  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }
  bool one_in(unsigned n) { return below(n) == 0; }
  std::uint64_t interesting_integer();
  std::uint64_t interesting_float();
  const RowInfo& draw();
  std::uint8_t free_register(bool compressed = false);

  Item sample(const RowInfo& row);
  Item make(std::string_view mnemonic, const isa::Operands& operands) const;
  Unit unit_for(const RowInfo& row);
  void add_memory_access(Unit& unit, Item item);
  void add_atomic(Unit& unit, Item item);
  void add_jump_to_register(Unit& unit, Item item);
  Item csr_access(const RowInfo& row);
  void add_loops(std::vector<Unit>& units);
  void encode(const std::vector<Unit>& units, Program& program) const;

  GeneratorOptions options_;
  std::mt19937_64 random_;
  // Rows are dealt like cards: each comes as often as its weight says before the deck is shuffled again, so a
  // number of programs covers all rows for certain.
  std::vector<const RowInfo*> deck_;
  std::size_t dealt_ = 0;
};

}  // namespace doppel::riscv
