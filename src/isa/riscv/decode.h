// From encodings to rows and operands.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "isa/common/pattern.h"
#include "isa/common/row.h"
#include "isa/riscv/isa_config.h"

namespace doppel::riscv {

// What a row says besides its semantics. Its index in rows() is the instruction's identity: interpreter and
// lifter keep their handlers in arrays of the same order. It has no pointers: those of a table would all have to be
// relocated whenever the program starts, which costs more than what many guests do.
struct RowInfo {
  std::array<char, 40> text;  // of the syntax, padded with zeros
  isa::Pattern pattern;
  Extension extension;
  isa::Traits traits;

  constexpr std::string_view syntax() const { return text.data(); }
  constexpr std::string_view mnemonic() const { return syntax().substr(0, syntax().find(' ')); }
};

std::span<const RowInfo> rows();

using RowIndex = std::uint16_t;
inline constexpr RowIndex kIllegal = 0xffff;

struct Decoded {
  RowIndex row = kIllegal;
  isa::Operands operands;
};

// 4 when the halfword begins a 32-bit instruction, else 2. (Longer formats are reserved: illegal.)
constexpr unsigned instruction_bytes(std::uint16_t first_half) { return (first_half & 3) == 3 ? 4 : 2; }

class Decoder {
 public:
  explicit Decoder(const IsaConfig& isa) : isa_(isa) {}

  // `raw` holds the instruction in its low 16 or 32 bits.
  Decoded decode(std::uint32_t raw) const;

 private:
  IsaConfig isa_;
};

// The ABI's names of the registers, as assembly has them.
std::span<const std::string_view, 32> integer_register_names();
std::span<const std::string_view, 32> float_register_names();

// One line of assembly, in the rows' own syntax; "unimp" where nothing matches.
std::string disassemble(const Decoder& decoder, std::uint32_t raw, std::uint64_t pc);

}  // namespace doppel::riscv
