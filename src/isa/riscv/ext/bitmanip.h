// Zba, Zbb and Zbs: address generation, basic bit manipulation, single bits ("B" chapter).
#pragma once

#include "isa/riscv/ext/integer.h"

namespace doppel::riscv::semantics {

template <class Op>
constexpr auto unary(Op op) {
  return [op](auto& m, const Operands& i) { m.set_x(i.rd, op(m.x(i.rs1))); };
}
constexpr auto shift_add(unsigned shift) {
  return binary([shift](auto a, auto b) { return shl(a, u64{shift}) + b; });
}
constexpr auto shift_add_uw(unsigned shift) {
  return binary([shift](auto a, auto b) { return shl(zext32(a), u64{shift}) + b; });
}

inline constexpr auto kRol = [](auto a, auto b) { return rol(a, b); };
inline constexpr auto kRor = [](auto a, auto b) { return ror(a, b); };
inline constexpr auto kRol32 = [](auto a, auto b) { return rol32(a, b); };
inline constexpr auto kRor32 = [](auto a, auto b) { return ror32(a, b); };

}  // namespace doppel::riscv::semantics

namespace doppel::riscv {

inline constexpr auto kBitmanipRows = [] {
  using namespace semantics;
  constexpr Extension kA = Extension::kZba;
  constexpr Extension kB = Extension::kZbb;
  constexpr Extension kS = Extension::kZbs;
  // One single bit of a: the amount wraps at the width, as in shl.
  constexpr auto clear = [](auto a, auto b) { return a & ~shl(u64{1}, b); };
  constexpr auto extract = [](auto a, auto b) { return shr(a, b) & u64{1}; };
  constexpr auto invert = [](auto a, auto b) { return a ^ shl(u64{1}, b); };
  constexpr auto set = [](auto a, auto b) { return a | shl(u64{1}, b); };
  return std::tuple{
      row("add.uw rd, rs1, rs2", "0000100 rs2 rs1 000 rd 0111011", kA, shift_add_uw(0)),
      row("sh1add rd, rs1, rs2", "0010000 rs2 rs1 010 rd 0110011", kA, shift_add(1)),
      row("sh2add rd, rs1, rs2", "0010000 rs2 rs1 100 rd 0110011", kA, shift_add(2)),
      row("sh3add rd, rs1, rs2", "0010000 rs2 rs1 110 rd 0110011", kA, shift_add(3)),
      row("sh1add.uw rd, rs1, rs2", "0010000 rs2 rs1 010 rd 0111011", kA, shift_add_uw(1)),
      row("sh2add.uw rd, rs1, rs2", "0010000 rs2 rs1 100 rd 0111011", kA, shift_add_uw(2)),
      row("sh3add.uw rd, rs1, rs2", "0010000 rs2 rs1 110 rd 0111011", kA, shift_add_uw(3)),
      row("slli.uw rd, rs1, imm", "000010 shamt rs1 001 rd 0011011", kA,
          immediate([](auto a, auto b) { return shl(zext32(a), b); })),

      row("andn rd, rs1, rs2", "0100000 rs2 rs1 111 rd 0110011", kB, binary([](auto a, auto b) { return a & ~b; })),
      row("orn rd, rs1, rs2", "0100000 rs2 rs1 110 rd 0110011", kB, binary([](auto a, auto b) { return a | ~b; })),
      row("xnor rd, rs1, rs2", "0100000 rs2 rs1 100 rd 0110011", kB, binary([](auto a, auto b) { return ~(a ^ b); })),
      row("clz rd, rs1", "011000000000 rs1 001 rd 0010011", kB, unary([](auto a) { return clz(a); })),
      row("ctz rd, rs1", "011000000001 rs1 001 rd 0010011", kB, unary([](auto a) { return ctz(a); })),
      row("cpop rd, rs1", "011000000010 rs1 001 rd 0010011", kB, unary([](auto a) { return popcount(a); })),
      row("sext.b rd, rs1", "011000000100 rs1 001 rd 0010011", kB, unary([](auto a) { return sext8(a); })),
      row("sext.h rd, rs1", "011000000101 rs1 001 rd 0010011", kB, unary([](auto a) { return sext16(a); })),
      row("clzw rd, rs1", "011000000000 rs1 001 rd 0011011", kB, unary([](auto a) { return clz32(a); })),
      row("ctzw rd, rs1", "011000000001 rs1 001 rd 0011011", kB, unary([](auto a) { return ctz32(a); })),
      row("cpopw rd, rs1", "011000000010 rs1 001 rd 0011011", kB, unary([](auto a) { return popcount(zext32(a)); })),
      row("zext.h rd, rs1", "0000100 00000 rs1 100 rd 0111011", kB, unary([](auto a) { return zext16(a); })),
      row("min rd, rs1, rs2", "0000101 rs2 rs1 100 rd 0110011", kB, binary([](auto a, auto b) { return min(a, b); })),
      row("minu rd, rs1, rs2", "0000101 rs2 rs1 101 rd 0110011", kB,
          binary([](auto a, auto b) { return minu(a, b); })),
      row("max rd, rs1, rs2", "0000101 rs2 rs1 110 rd 0110011", kB, binary([](auto a, auto b) { return max(a, b); })),
      row("maxu rd, rs1, rs2", "0000101 rs2 rs1 111 rd 0110011", kB,
          binary([](auto a, auto b) { return maxu(a, b); })),
      row("rol rd, rs1, rs2", "0110000 rs2 rs1 001 rd 0110011", kB, binary(kRol)),
      row("ror rd, rs1, rs2", "0110000 rs2 rs1 101 rd 0110011", kB, binary(kRor)),
      row("rori rd, rs1, imm", "011000 shamt rs1 101 rd 0010011", kB, immediate(kRor)),
      row("rolw rd, rs1, rs2", "0110000 rs2 rs1 001 rd 0111011", kB, binary(kRol32)),
      row("rorw rd, rs1, rs2", "0110000 rs2 rs1 101 rd 0111011", kB, binary(kRor32)),
      row("roriw rd, rs1, imm", "0110000 shamtw rs1 101 rd 0011011", kB, immediate(kRor32)),
      row("orc.b rd, rs1", "001010000111 rs1 101 rd 0010011", kB, unary([](auto a) { return or_combine_bytes(a); })),
      row("rev8 rd, rs1", "011010111000 rs1 101 rd 0010011", kB, unary([](auto a) { return byte_reverse(a); })),

      row("bclr rd, rs1, rs2", "0100100 rs2 rs1 001 rd 0110011", kS, binary(clear)),
      row("bclri rd, rs1, imm", "010010 shamt rs1 001 rd 0010011", kS, immediate(clear)),
      row("bext rd, rs1, rs2", "0100100 rs2 rs1 101 rd 0110011", kS, binary(extract)),
      row("bexti rd, rs1, imm", "010010 shamt rs1 101 rd 0010011", kS, immediate(extract)),
      row("binv rd, rs1, rs2", "0110100 rs2 rs1 001 rd 0110011", kS, binary(invert)),
      row("binvi rd, rs1, imm", "011010 shamt rs1 001 rd 0010011", kS, immediate(invert)),
      row("bset rd, rs1, rs2", "0010100 rs2 rs1 001 rd 0110011", kS, binary(set)),
      row("bseti rd, rs1, imm", "001010 shamt rs1 001 rd 0010011", kS, immediate(set)),
  };
}();

}  // namespace doppel::riscv
