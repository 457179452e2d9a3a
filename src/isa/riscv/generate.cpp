#include "isa/riscv/generate.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include <fmt/format.h>

#include "base/bits.h"
#include "isa/riscv/csr.h"

namespace doppel::riscv {
namespace {

using isa::Field;
using isa::Operands;

bool is_reserved(unsigned x) {
  return x == Program::kScratchStart || x == Program::kScratchMiddle || x == Program::kLoopCounter;
}

const RowInfo& row_named(std::string_view mnemonic) {
  const auto found = std::ranges::find(rows(), mnemonic, &RowInfo::mnemonic);
  assert(found != rows().end());
  return *found;
}

// Bits of an encoding that a field covers.
std::uint32_t field_bits(const isa::Pattern& pattern) {
  return pattern.encode({.imm = -1, .rd = 31, .rs1 = 31, .rs2 = 31, .rm = 7}) & ~pattern.mask();
}

bool fits(const RowInfo& row, const Operands& operands) {
  const std::uint32_t raw = row.pattern.encode(operands);
  return row.pattern.matches(raw) && row.pattern.extract(raw) == operands;
}

bool is_compressed(const RowInfo& row) { return row.pattern.length_bytes() == 2; }
bool is_csr(const RowInfo& row) { return row.extension == Extension::kZicsr; }
bool is_cache_block(const RowInfo& row) {
  return row.extension == Extension::kZicbom || row.extension == Extension::kZicboz;
}
bool jumps_to_register(const RowInfo& row) {
  return row.traits.ends_block && !row.traits.exact && row.pattern.has(Field::kRs1) && !row.pattern.has(Field::kRs2) &&
         (row.mnemonic() == "jalr" || !row.pattern.has(Field::kImm));
}
bool branches(const RowInfo& row) {
  return row.traits.ends_block && !row.traits.exact && !jumps_to_register(row);
}
bool accesses_with_offset(const RowInfo& row) { return row.syntax().ends_with("imm(rs1)") && !branches(row); }

}  // namespace

std::string Program::listing() const {
  const Decoder decoder(IsaConfig::rva22());
  std::string text;
  for (std::size_t i = 0; i < code.size();) {
    const std::uint64_t pc = start + 2 * i;
    const bool wide = instruction_bytes(code[i]) == 4 && i + 1 < code.size();
    const std::uint32_t raw = code[i] | (wide ? std::uint32_t{code[i + 1]} << 16 : 0);
    text += fmt::format("{:#x}: {:0{}x}  {}\n", pc, raw, wide ? 8 : 4, disassemble(decoder, raw, pc));
    i += wide ? 2 : 1;
  }
  return text;
}

bool Generator::generates(const RowInfo& row, const GeneratorOptions& options) {
  constexpr std::string_view kTraps[] = {"ecall", "ebreak", "c.ebreak"};
  return options.isa.has(row.extension) && row.extension != Extension::kPrivileged &&
         row.extension != Extension::kSvinval && (options.cache_blocks || !is_cache_block(row)) &&
         std::ranges::find(kTraps, row.mnemonic()) == std::end(kTraps);
}

Generator::Generator(GeneratorOptions options, std::uint64_t seed) : options_(std::move(options)), random_(seed) {
  for (const RowInfo& row : rows()) {
    if (generates(row, options_)) deck_.insert(deck_.end(), options_.weight(row), &row);
  }
  assert(!deck_.empty());
  dealt_ = deck_.size();
}

const RowInfo& Generator::draw() {
  if (dealt_ == deck_.size()) {
    // Not std::shuffle, whose result differs from library to library.
    for (std::size_t i = deck_.size() - 1; i > 0; --i) std::swap(deck_[i], deck_[below(static_cast<unsigned>(i) + 1)]);
    dealt_ = 0;
  }
  return *deck_[dealt_++];
}

std::uint8_t Generator::free_register(bool compressed) {
  if (compressed) return static_cast<std::uint8_t>(10 + below(6));
  unsigned x = 0;
  do x = 1 + below(31);
  while (is_reserved(x));
  return static_cast<std::uint8_t>(x);
}

std::uint64_t Generator::interesting_integer() {
  constexpr std::uint64_t kOnes = ~std::uint64_t{0};
  switch (below(6)) {
    case 0: return below(64);
    case 1: return kOnes - below(4);
    case 2: return (std::uint64_t{1} << below(64)) - below(2);
    case 3: return sign_extend(0x7fff'ffff + below(3), 32);
    case 4: return kOnes << below(64) >> below(64);
    default: return random_();
  }
}

// A double, or a narrower number boxed in ones as it should be (and now and then not quite).
std::uint64_t Generator::interesting_float() {
  const auto special = [this](unsigned exponent_bits, unsigned fraction_bits) {
    const std::uint64_t ones = (std::uint64_t{1} << exponent_bits) - 1;
    const std::uint64_t exponents[] = {0, 1, ones, ones - 1, ones / 2, ones / 2 + below(70), ones / 2 - below(20),
                                       random_() & ones};
    const std::uint64_t top = std::uint64_t{1} << (fraction_bits - 1);
    const std::uint64_t fractions[] = {0, 1, top, 2 * top - 1, top - 1, top + 1, random_() % (2 * top),
                                       random_() % (2 * top)};
    const std::uint64_t sign = below(2);
    return sign << (exponent_bits + fraction_bits) | exponents[below(8)] << fraction_bits | fractions[below(8)];
  };
  switch (below(16)) {
    case 0: return random_();
    case 1: return special(8, 23);  // a single, not boxed
    case 2:
    case 3: return ~std::uint64_t{0} << 16 | special(5, 10);
    case 4:
    case 5:
    case 6:
    case 7:
    case 8: return ~std::uint64_t{0} << 32 | special(8, 23);
    default: return special(11, 52);
  }
}

// The row with random operands that are legal and leave the reserved registers alone.
Generator::Item Generator::sample(const RowInfo& row) {
  const isa::Pattern& pattern = row.pattern;
  const std::uint32_t bits = is_compressed(row) ? 0xffff : ~0u;
  for (;;) {
    const std::uint32_t raw = ((static_cast<std::uint32_t>(random_()) & ~pattern.mask()) | pattern.match()) & bits;
    Item item{&row, pattern.extract(raw), raw & ~pattern.mask() & ~field_bits(pattern), Item::Offset::kFixed};
    if (!pattern.matches(raw) || (pattern.has(Field::kRd) && is_reserved(item.operands.rd))) continue;
    if (pattern.has(Field::kRm)) {
      constexpr std::uint8_t kModes[] = {0, 1, 2, 3, 4, 7, 7, 7};
      item.operands.rm = kModes[below(8)];
    }
    return item;
  }
}

Generator::Item Generator::make(std::string_view mnemonic, const Operands& operands) const {
  const RowInfo& row = row_named(mnemonic);
  assert(fits(row, operands));
  return {&row, operands, 0, Item::Offset::kFixed};
}

// A load or store with an offset: from the middle of the buffer, or from a register that is set up to lead
// there. Mostly aligned.
void Generator::add_memory_access(Unit& unit, Item item) {
  Operands& o = item.operands;
  constexpr std::int32_t kAlignments[] = {7, 7, 7, 3, 1, 0};
  const std::int32_t place = (static_cast<std::int32_t>(below(4096)) - 2048) & ~kAlignments[below(6)];
  if (one_in(2) && fits(*item.row, {.imm = place, .rd = o.rd, .rs1 = Program::kScratchMiddle, .rs2 = o.rs2})) {
    o.imm = place;
    o.rs1 = Program::kScratchMiddle;
  } else {
    // Compressed forms keep the offset that they have.
    const std::int32_t base = std::clamp(place - o.imm, -2048, 2047);
    if (!is_compressed(*item.row)) o.imm = std::clamp(place - base, -2048, 2047);
    o.rs1 = free_register(is_compressed(*item.row));
    unit.items.push_back(make("addi", {.imm = base, .rd = o.rs1, .rs1 = Program::kScratchMiddle}));
  }
  unit.items.push_back(item);
}

// Atomics take an aligned address from a register. A load-reserved always has its store-conditional; that
// one may also come without, or elsewhere, and fail.
void Generator::add_atomic(Unit& unit, Item item) {
  const std::string_view mnemonic = item.row->mnemonic();
  const bool wide = mnemonic.ends_with(".d");
  const auto aim = [&](std::uint8_t base) {
    const std::int32_t place = (static_cast<std::int32_t>(below(4096)) - 2048) & (wide ? ~7 : ~3);
    unit.items.push_back(make("addi", {.imm = place, .rd = base, .rs1 = Program::kScratchMiddle}));
  };
  const std::uint8_t base = free_register();
  item.operands.rs1 = base;
  aim(base);
  const bool reserves = mnemonic.starts_with("lr.");
  if (reserves && item.operands.rd == base) item.operands.rd = 0;
  unit.items.push_back(item);
  if (!reserves) return;
  if (one_in(4)) aim(base);
  Item store = sample(row_named(wide ? "sc.d" : "sc.w"));
  store.operands.rs1 = base;
  unit.items.push_back(store);
}

// The target's address is computed first, and may have bit 0 set, which jumps ignore.
void Generator::add_jump_to_register(Unit& unit, Item item) {
  const std::uint8_t base = free_register();
  item.operands.rs1 = base;
  unit.items.push_back(make("auipc", {.rd = base}));
  if (item.row->pattern.has(Field::kImm)) {
    item.offset = Item::Offset::kFromUnit;
    item.operands.imm = static_cast<std::int32_t>(below(2));
  } else {
    unit.items.push_back(make("addi", {.imm = static_cast<std::int32_t>(below(2)), .rd = base, .rs1 = base}));
    unit.items.back().offset = Item::Offset::kFromUnit;
  }
  unit.items.push_back(item);
}

// The floating-point CSRs only. The rounding mode stays a legal one: bits of it are cleared or replaced by a
// small number, never set.
Generator::Item Generator::csr_access(const RowInfo& row) {
  constexpr unsigned kNumbers[] = {csr::kFflags, csr::kFrm, csr::kFcsr};
  const std::string_view mnemonic = row.mnemonic();
  const bool immediate = mnemonic.ends_with("i");
  Item item = sample(row);
  unsigned number = kNumbers[below(3)];
  if (number != csr::kFflags && mnemonic.starts_with("csrrs")) {
    item.operands.rs1 = 0;
  } else if (number != csr::kFflags && mnemonic.starts_with("csrrw")) {
    if (!immediate) number = csr::kFflags;
    if (number == csr::kFrm) item.operands.rs1 = static_cast<std::uint8_t>(below(5));
    // An immediate has five bits: in fcsr they are flags, and the mode becomes nearest-even.
  }
  item.operands.imm = static_cast<std::int32_t>(number);
  return item;
}

Generator::Unit Generator::unit_for(const RowInfo& row) {
  Unit unit;
  if (is_csr(row)) {
    unit.items.push_back(csr_access(row));
  } else if (row.mnemonic() == "c.addi16sp") {
    Item there = sample(row), back = there;
    if (there.operands.imm == -512) there.operands.imm = -496;
    back.operands.imm = -there.operands.imm;
    unit.items = {there, back};
  } else if (row.extension == Extension::kA || is_cache_block(row)) {
    add_atomic(unit, sample(row));
  } else if (jumps_to_register(row)) {
    add_jump_to_register(unit, sample(row));
  } else if (branches(row)) {
    unit.items.push_back(sample(row));
    unit.items.back().offset = Item::Offset::kFromHere;
    unit.items.back().operands.imm = 0;
  } else if (accesses_with_offset(row)) {
    add_memory_access(unit, sample(row));
  } else {
    unit.items.push_back(sample(row));
  }
  return unit;
}

// Turns stretches of the program into loops of a few turns: the counter is set before, and after it comes a
// branch back. That branch is taken for positive counts only, so jumping into a loop from before it does no
// harm.
void Generator::add_loops(std::vector<Unit>& units) {
  for (std::size_t begin = below(12); begin + 1 < units.size(); begin += below(30)) {
    const std::size_t length = std::min<std::size_t>(1 + below(8), units.size() - begin);
    const auto turns = static_cast<std::int32_t>(1 + below(6));
    const std::uint8_t s1 = Program::kLoopCounter;
    Unit set{{make("addi", {.imm = turns, .rd = s1})}, 0};
    Unit close{{make("addi", {.imm = -1, .rd = s1, .rs1 = s1})}, begin + 1};
    const auto add_branch = [&](std::string_view mnemonic, const Operands& operands) {
      close.items.push_back(make(mnemonic, operands));
      close.items.back().offset = Item::Offset::kFromHere;
    };
    const std::uint8_t flag = free_register(true);
    const bool compressed = options_.isa.has(Extension::kC);
    const unsigned form = below(compressed ? 4 : 2);
    if (form == 0) {
      add_branch("blt", {.rs2 = s1});
    } else if (form == 3) {
      close.items.push_back(make("slt", {.rd = flag, .rs2 = s1}));
      add_branch("c.bnez", {.rs1 = flag});
    } else {
      // Over the jump back.
      close.items.push_back(make("bge", {.imm = form == 1 ? 8 : 6, .rs2 = s1}));
      if (form == 1) add_branch("jal", {.rd = free_register()});
      if (form == 2) add_branch("c.j", {});
    }
    units.insert(units.begin() + static_cast<std::ptrdiff_t>(begin + length), close);
    units.insert(units.begin() + static_cast<std::ptrdiff_t>(begin), set);
    begin += length + 2;
  }
}

// Lays the units out, and gives the open offsets their values. Loops already have their targets; everything
// else leads a few units ahead. What the open immediates hold is added.
void Generator::encode(const std::vector<Unit>& units, Program& program) const {
  std::vector<std::int32_t> at;  // of each unit, in bytes
  std::int32_t size = 0;
  for (const Unit& unit : units) {
    at.push_back(size);
    for (const Item& item : unit.items) size += static_cast<std::int32_t>(item.row->pattern.length_bytes());
  }
  at.push_back(size);
  for (std::size_t i = 0; i < units.size(); ++i) {
    std::int32_t here = at[i];
    for (Item item : units[i].items) {
      const std::int32_t from = item.offset == Item::Offset::kFromUnit ? at[i] : here;
      if (item.offset != Item::Offset::kFixed) item.operands.imm += at[units[i].target] - from;
      assert(fits(*item.row, item.operands));
      const std::uint32_t raw = item.row->pattern.encode(item.operands) | item.ignored;
      program.code.push_back(static_cast<std::uint16_t>(raw));
      if (!is_compressed(*item.row)) program.code.push_back(static_cast<std::uint16_t>(raw >> 16));
      here += static_cast<std::int32_t>(item.row->pattern.length_bytes());
    }
  }
}

Program Generator::next() {
  Program program;
  program.start = options_.start;
  program.scratch = options_.scratch;
  for (std::uint64_t& x : program.x) x = interesting_integer();
  for (std::uint64_t& f : program.f) f = interesting_float();
  program.x[0] = 0;
  program.x[Program::kScratchStart] = options_.scratch;
  program.x[Program::kScratchMiddle] = options_.scratch + 2048;
  program.x[Program::kLoopCounter] = 0;
  program.fcsr = static_cast<std::uint8_t>(below(5) << 5 | below(32));
  for (std::uint64_t i = 0; i < Program::kScratchBytes / 8; ++i) {
    program.memory.push_back(one_in(2) ? interesting_integer() : interesting_float());
  }

  std::vector<Unit> units;
  while (units.size() < options_.units) units.push_back(unit_for(draw()));
  add_loops(units);
  for (std::size_t i = 0; i < units.size(); ++i) {
    if (units[i].target == 0) units[i].target = std::min(i + 1 + below(5), units.size());
  }
  encode(units, program);
  return program;
}

}  // namespace doppel::riscv
