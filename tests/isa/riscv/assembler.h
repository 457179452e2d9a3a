// An assembler for tests, driven by the rows' syntax: what disassemble() prints, it reads.
//
//   assemble("loop: addi a0, a0, -1\n bnez: bne a0, zero, loop", base)
//
// One instruction a line (or between semicolons), labels before it, '#' to the end of the line ignored.
// Targets of branches and jumps are absolute: a label, a number or '.', the instruction's own address.
// Besides the rows there are `li rd, value` for any value, `.word value` and `.half value`. A mistake in the
// text throws std::invalid_argument.
#pragma once

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/bits.h"
#include "isa/riscv/csr.h"
#include "isa/riscv/decode.h"

namespace doppel::riscv::test {

// The row of an instruction; throws when there is none of that name.
inline const RowInfo& row_of(std::string_view mnemonic) {
  static const auto by_name = [] {
    std::map<std::string_view, const RowInfo*> map;
    for (const RowInfo& row : rows()) map[row.mnemonic()] = &row;
    return map;
  }();
  const auto found = by_name.find(mnemonic);
  if (found == by_name.end()) throw std::invalid_argument("no instruction " + std::string(mnemonic));
  return *found->second;
}

class Assembler {
 public:
  Assembler(std::string_view source, std::uint64_t base) : base_(base) {
    // The first pass learns where the labels are, the second knows them all.
    for (first_pass_ = true;; first_pass_ = false) {
      code_.clear();
      for (std::size_t p = 0; p < source.size();) {
        const std::size_t end = std::min(source.find_first_of("\n;", p), source.size());
        line(source.substr(p, end - p));
        p = end + 1;
      }
      if (!first_pass_) break;
    }
  }

  std::vector<std::uint16_t> take() { return std::move(code_); }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw std::invalid_argument(why + " in '" + std::string(line_) + "'");
  }

  std::uint64_t pc() const { return base_ + 2 * code_.size(); }

  void emit(std::uint32_t raw, unsigned bytes) {
    code_.push_back(static_cast<std::uint16_t>(raw));
    if (bytes == 4) code_.push_back(static_cast<std::uint16_t>(raw >> 16));
  }

  void line(std::string_view text) {
    line_ = text;
    rest_ = text.substr(0, text.find('#'));
    std::string_view first = word();
    while (accept(':')) {
      labels_[first] = pc();
      first = word();
    }
    if (first.empty()) {
      if (!rest_.empty()) fail("an instruction was expected");
      return;
    }
    if (first == "li") {
      const unsigned rd = register_number(integer_register_names(), 'x');
      expect(',');
      load_immediate(rd, static_cast<std::uint64_t>(value()));
    } else if (first == ".word" || first == ".half") {
      emit(static_cast<std::uint32_t>(value()), first == ".word" ? 4 : 2);
    } else {
      instruction(row_of(first));
    }
    skip_spaces();
    if (!rest_.empty()) fail("more than one instruction");
  }

  void instruction(const RowInfo& row) {
    isa::Operands o{.rm = 7};
    const bool pc_relative = row.traits.ends_block && row.pattern.has(isa::Field::kImm) && row.mnemonic() != "jalr";
    std::string_view syntax = row.syntax().substr(row.mnemonic().size());
    while (!syntax.empty()) {
      const std::size_t length = static_cast<std::size_t>(
          std::find_if_not(syntax.begin(), syntax.end(),
                           [](unsigned char c) { return std::isalnum(c) != 0; }) - syntax.begin());
      const std::string_view name = syntax.substr(0, length);
      const auto x = [&] { return register_number(integer_register_names(), 'x'); };
      const auto f = [&] { return register_number(float_register_names(), 'f'); };
      if (length == 0) {
        if (syntax[0] != ' ') expect(syntax[0]);
      } else if (name == "rd") {
        o.rd = x();
      } else if (name == "rs1") {
        o.rs1 = x();
      } else if (name == "rs2") {
        o.rs2 = x();
      } else if (name == "fd") {
        o.rd = f();
      } else if (name == "fs1") {
        o.rs1 = f();
      } else if (name == "fs2") {
        o.rs2 = f();
      } else if (name == "fs3") {
        o.imm = f();
      } else if (name == "zimm") {
        o.rs1 = static_cast<std::uint8_t>(value());
      } else if (name == "csr") {
        o.imm = csr_number();
      } else if (name == "imm") {
        o.imm = static_cast<std::int32_t>(value() - (pc_relative ? static_cast<std::int64_t>(pc()) : 0));
      } else if (word() != name) {
        fail(std::string(name) + " was expected");
      }
      syntax.remove_prefix(std::max<std::size_t>(length, 1));
    }
    if (row.pattern.has(isa::Field::kRm) && accept(',')) {
      constexpr std::string_view kModes[] = {"rne", "rtz", "rdn", "rup", "rmm"};
      const auto mode = std::ranges::find(kModes, word());
      if (mode == std::end(kModes)) fail("no such rounding mode");
      o.rm = static_cast<std::uint8_t>(mode - kModes);
    }
    const std::uint32_t raw = row.pattern.encode(o);
    if (!row.pattern.has(isa::Field::kRm)) o.rm = 0;
    if (!first_pass_ && (!row.pattern.matches(raw) || !(row.pattern.extract(raw) == o))) fail("operand out of range");
    emit(raw, row.pattern.length_bytes());
  }

  void load_immediate(unsigned rd, std::uint64_t value) {
    const auto operation = [&](std::string_view name, unsigned rs1, std::int64_t imm) {
      const RowInfo& row = row_of(name);
      emit(row.pattern.encode({.imm = static_cast<std::int32_t>(imm), .rd = static_cast<std::uint8_t>(rd),
                               .rs1 = static_cast<std::uint8_t>(rs1)}), 4);
    };
    const std::int64_t low = static_cast<std::int64_t>(sign_extend(value, 12));
    const std::uint64_t high = value - static_cast<std::uint64_t>(low);
    if (high == 0) return operation("addi", 0, low);
    if (sign_extend(value, 32) == value) {
      operation("lui", 0, static_cast<std::int32_t>(high));
      if (low != 0) operation("addiw", rd, low);
      return;
    }
    load_immediate(rd, sign_extend(high >> 12, 52));
    operation("slli", rd, 12);
    if (low != 0) operation("addi", rd, low);
  }

  // --- The text not yet read.

  void skip_spaces() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t"), rest_.size())); }

  bool accept(char c) {
    skip_spaces();
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail(std::string("'") + c + "' was expected");
  }

  // Letters, digits, dots and underscores.
  std::string_view word() {
    skip_spaces();
    std::size_t n = 0;
    const auto belongs = [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '_'; };
    while (n < rest_.size() && belongs(static_cast<unsigned char>(rest_[n]))) ++n;
    const std::string_view found = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return found;
  }

  std::uint8_t register_number(std::span<const std::string_view, 32> names, char letter) {
    const std::string_view name = word();
    const auto found = std::ranges::find(names, name);
    if (found != names.end()) return static_cast<std::uint8_t>(found - names.begin());
    unsigned number = 32;
    if (name.starts_with(letter)) std::from_chars(name.data() + 1, name.data() + name.size(), number);
    if (number > 31) fail("no register " + std::string(name));
    return static_cast<std::uint8_t>(number);
  }

  std::int32_t csr_number() {
    static const auto by_name = [] {
      std::map<std::string_view, std::int32_t> map;
      for (unsigned n = 0; n < 4096; ++n) {
        if (csr_name(n) != nullptr) map.emplace(csr_name(n), static_cast<std::int32_t>(n));  // the first of a range
      }
      return map;
    }();
    skip_spaces();
    const std::string_view before = rest_;
    const auto found = by_name.find(word());
    if (found != by_name.end()) return found->second;
    rest_ = before;
    return static_cast<std::int32_t>(value());
  }

  // A number, or where a label is (0 for one not yet seen in the first pass).
  std::int64_t value() {
    const bool negative = accept('-');
    const std::string_view text = word();
    if (text == ".") return static_cast<std::int64_t>(pc());
    if (const auto found = labels_.find(text); found != labels_.end()) return static_cast<std::int64_t>(found->second);
    const bool hex = text.starts_with("0x");
    const std::string_view digits = text.substr(hex ? 2 : 0);
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number, hex ? 16 : 10);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size()) {
      if (!first_pass_ || text.empty()) fail("no number and no label: '" + std::string(text) + "'");
      return static_cast<std::int64_t>(pc());
    }
    return static_cast<std::int64_t>(negative ? -number : number);
  }

  const std::uint64_t base_;
  bool first_pass_ = true;
  std::vector<std::uint16_t> code_;
  std::map<std::string_view, std::uint64_t> labels_;
  std::string_view line_, rest_;
};

inline std::vector<std::uint16_t> assemble(std::string_view source, std::uint64_t base = 0) {
  return Assembler(source, base).take();
}

}  // namespace doppel::riscv::test
