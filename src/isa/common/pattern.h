// Encodings as the manuals print them, parsed at compile time.
//
//   Pattern("imm[11:5] rs2 rs1 010 imm[4:0] 0100011")
//
// Fields run from the most significant bit down. A token is a run of 0 and 1, a run of '-' (ignored bits),
// or a named field, optionally with
//   [7|5:3]   which bits of the value these are (a value may be spread over several tokens),
//   '         a three-bit register number that stands for x8 to x15 (or f8 to f15),
//   !=0,2     the encoding is this instruction only if the field's whole value is none of these.
// Immediates named imm are sign-extended from their highest bit; all others are unsigned.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace doppel::isa {

enum class Field : std::uint8_t { kRd, kRs1, kRs2, kFd, kFs1, kFs2, kRs3, kRm, kImm, kCount };

// The values that an encoding carries. rd, fd share a slot, as do rs1 and fs1, rs2 and fs2.
struct Operands {
  std::int32_t imm = 0;  // also shamt, csr, rs3: no encoding has two of them
  std::uint8_t rd = 0;
  std::uint8_t rs1 = 0;
  std::uint8_t rs2 = 0;
  std::uint8_t rm = 0;

  constexpr unsigned rs3() const { return static_cast<unsigned>(imm); }
  friend constexpr bool operator==(const Operands&, const Operands&) = default;
};

class Pattern {
 public:
  consteval explicit Pattern(std::string_view text) { parse(text); }

  constexpr std::uint32_t mask() const { return mask_; }
  constexpr std::uint32_t match() const { return match_; }
  constexpr unsigned length_bytes() const { return length_bits_ / 8; }
  constexpr bool has(Field field) const { return fields_ >> static_cast<unsigned>(field) & 1; }

  constexpr bool matches(std::uint32_t raw) const {
    if ((raw & mask_) != match_) return false;
    for (unsigned i = 0; i < excluded_count_; ++i) {
      if (raw_value(excluded_[i].field, raw) == excluded_[i].value) return false;
    }
    return true;
  }

  // The operands of `raw`, which matches.
  constexpr Operands extract(std::uint32_t raw) const {
    Operands operands;
    std::uint32_t imm = 0;
    for (unsigned i = 0; i < piece_count_; ++i) {
      const Piece& piece = pieces_[i];
      const std::uint32_t value = (raw >> piece.from & low_mask(piece.width)) << piece.to;
      switch (piece.field) {
        case Field::kRd:
        case Field::kFd: operands.rd |= static_cast<std::uint8_t>(value | piece.bias); break;
        case Field::kRs1:
        case Field::kFs1: operands.rs1 |= static_cast<std::uint8_t>(value | piece.bias); break;
        case Field::kRs2:
        case Field::kFs2: operands.rs2 |= static_cast<std::uint8_t>(value | piece.bias); break;
        case Field::kRm: operands.rm |= static_cast<std::uint8_t>(value); break;
        default: imm |= value; break;
      }
    }
    if (sign_bit_ != 0) imm = (imm ^ sign_bit_) - sign_bit_;
    operands.imm = static_cast<std::int32_t>(imm);
    return operands;
  }

  // The inverse, for generators: the encoding with these operands, as far as the fields can hold them.
  constexpr std::uint32_t encode(const Operands& operands) const {
    std::uint32_t raw = match_;
    for (unsigned i = 0; i < piece_count_; ++i) {
      const Piece& piece = pieces_[i];
      std::uint32_t value = static_cast<std::uint32_t>(operands.imm);
      switch (piece.field) {
        case Field::kRd:
        case Field::kFd: value = operands.rd; break;
        case Field::kRs1:
        case Field::kFs1: value = operands.rs1; break;
        case Field::kRs2:
        case Field::kFs2: value = operands.rs2; break;
        case Field::kRm: value = operands.rm; break;
        default: break;
      }
      raw |= (value >> piece.to & low_mask(piece.width)) << piece.from;
    }
    return raw;
  }

  // True when some encoding matches both and neither's exclusions keep them apart.
  friend constexpr bool overlap(const Pattern& a, const Pattern& b) {
    if (a.length_bits_ != b.length_bits_) return false;
    const std::uint32_t common = a.mask_ & b.mask_;
    if ((a.match_ & common) != (b.match_ & common)) return false;
    const std::uint32_t mask = a.mask_ | b.mask_;
    const std::uint32_t match = a.match_ | b.match_;
    return !a.excludes(mask, match) && !b.excludes(mask, match);
  }

 private:
  struct Piece {
    Field field{};
    std::uint8_t from = 0;   // bit position in the encoding
    std::uint8_t to = 0;     // bit position in the value
    std::uint8_t width = 0;  // bits
    std::uint8_t bias = 0;   // 8 for three-bit register fields
  };
  struct Exclusion {
    Field field{};
    std::uint32_t value = 0;
  };

  static constexpr std::uint32_t low_mask(unsigned width) { return (1u << width) - 1; }
  static constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

  constexpr std::uint32_t raw_value(Field field, std::uint32_t raw) const {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < piece_count_; ++i) {
      if (pieces_[i].field != field) continue;
      value |= (raw >> pieces_[i].from & low_mask(pieces_[i].width)) << pieces_[i].to;
    }
    return value;
  }

  // True when an encoding whose bits `mask` are `match` has an excluded value for certain.
  constexpr bool excludes(std::uint32_t mask, std::uint32_t match) const {
    for (unsigned e = 0; e < excluded_count_; ++e) {
      bool fixed = true;
      for (unsigned i = 0; i < piece_count_; ++i) {
        if (pieces_[i].field != excluded_[e].field) continue;
        const std::uint32_t bits = low_mask(pieces_[i].width) << pieces_[i].from;
        if ((mask & bits) != bits) fixed = false;
      }
      if (fixed && raw_value(excluded_[e].field, match) == excluded_[e].value) return true;
    }
    return false;
  }

  struct Name {
    std::string_view text;
    Field field;
    unsigned width;
    bool is_signed;
  };
  static constexpr std::array<Name, 13> kNames{{
      {"rd", Field::kRd, 5, false},     {"rs1", Field::kRs1, 5, false},  {"rs2", Field::kRs2, 5, false},
      {"fd", Field::kFd, 5, false},     {"fs1", Field::kFs1, 5, false},  {"fs2", Field::kFs2, 5, false},
      {"fs3", Field::kRs3, 5, false},   {"rm", Field::kRm, 3, false},    {"imm", Field::kImm, 0, true},
      {"uimm", Field::kImm, 0, false},  {"shamt", Field::kImm, 6, false}, {"shamtw", Field::kImm, 5, false},
      {"csr", Field::kImm, 12, false},
  }};

  consteval void parse(std::string_view text) {
    // First pass: the total length, so that the second knows bit positions.
    unsigned total = 0;
    for (int pass = 0; pass < 2; ++pass) {
      unsigned at = total;  // bits not yet consumed (second pass)
      std::size_t p = 0;
      while (p < text.size()) {
        if (text[p] == ' ') {
          ++p;
          continue;
        }
        if (is_digit(text[p]) || text[p] == '-') {
          for (; p < text.size() && text[p] != ' '; ++p) {
            if (pass == 0) {
              ++total;
              continue;
            }
            --at;
            if (text[p] == '-') continue;
            mask_ |= 1u << at;
            if (text[p] == '1') match_ |= 1u << at;
          }
          continue;
        }
        p = parse_field(text, p, pass == 0, total, at);
      }
    }
    if (total != 16 && total != 32) throw "an encoding has 16 or 32 bits";
    length_bits_ = total;
  }

  consteval std::size_t parse_field(std::string_view text, std::size_t p, bool measuring, unsigned& total, unsigned& at) {
    const std::size_t begin = p;
    while (p < text.size() && ((text[p] >= 'a' && text[p] <= 'z') || is_digit(text[p]))) ++p;
    // A copy, not a pointer: GCC's undefined-behaviour checks make no constant of an address compared with null.
    Name name{};
    for (const Name& candidate : kNames) {
      if (candidate.text == text.substr(begin, p - begin)) name = candidate;
    }
    if (name.text.empty()) throw "unknown field name";
    unsigned width = name.width;
    std::uint8_t bias = 0;
    if (p < text.size() && text[p] == '\'') {
      width = 3;
      bias = 8;
      ++p;
    }
    if (!measuring) fields_ |= 1u << static_cast<unsigned>(name.field);
    if (p < text.size() && text[p] == '[') {
      ++p;
      while (text[p - 1] != ']') {
        const unsigned high = number(text, p);
        unsigned low = high;
        if (text[p] == ':') low = number(text, ++p);
        ++p;  // '|' or ']'
        const unsigned piece_width = high - low + 1;
        if (measuring) {
          total += piece_width;
          continue;
        }
        at -= piece_width;
        add_piece({name.field, static_cast<std::uint8_t>(at), static_cast<std::uint8_t>(low),
                   static_cast<std::uint8_t>(piece_width), 0});
        if (name.is_signed && (1u << high) > sign_bit_) sign_bit_ = 1u << high;
      }
    } else if (measuring) {
      total += width;
    } else {
      if (width == 0) throw "an immediate needs its bits named";
      at -= width;
      add_piece({name.field, static_cast<std::uint8_t>(at), 0, static_cast<std::uint8_t>(width), bias});
    }
    if (p + 1 < text.size() && text[p] == '!' && text[p + 1] == '=') {
      ++p;
      do {
        const unsigned value = number(text, ++p);
        if (!measuring) excluded_[excluded_count_++] = {name.field, value};
      } while (p < text.size() && text[p] == ',');
    }
    return p;
  }

  static consteval unsigned number(std::string_view text, std::size_t& p) {
    if (p >= text.size() || !is_digit(text[p])) throw "a number was expected";
    unsigned value = 0;
    while (p < text.size() && is_digit(text[p])) value = value * 10 + static_cast<unsigned>(text[p++] - '0');
    return value;
  }

  consteval void add_piece(Piece piece) { pieces_[piece_count_++] = piece; }

  std::uint32_t mask_ = 0;
  std::uint32_t match_ = 0;
  std::uint32_t fields_ = 0;    // bit per Field
  std::uint32_t sign_bit_ = 0;  // of the immediate; 0: unsigned
  unsigned length_bits_ = 0;
  std::array<Piece, 14> pieces_{};
  unsigned piece_count_ = 0;
  std::array<Exclusion, 4> excluded_{};
  unsigned excluded_count_ = 0;
};

}  // namespace doppel::isa
