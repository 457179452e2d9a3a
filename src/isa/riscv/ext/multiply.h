// M: multiplication and division.
#pragma once

#include "isa/riscv/ext/integer.h"

namespace doppel::riscv {

inline constexpr auto kMultiplyRows = [] {
  using namespace semantics;
  constexpr Extension kM = Extension::kM;
  return std::tuple{
      row("mul rd, rs1, rs2", "0000001 rs2 rs1 000 rd 0110011", kM, binary([](auto a, auto b) { return a * b; })),
      row("mulh rd, rs1, rs2", "0000001 rs2 rs1 001 rd 0110011", kM,
          binary([](auto a, auto b) { return mulh(a, b); })),
      row("mulhsu rd, rs1, rs2", "0000001 rs2 rs1 010 rd 0110011", kM,
          binary([](auto a, auto b) { return mulhsu(a, b); })),
      row("mulhu rd, rs1, rs2", "0000001 rs2 rs1 011 rd 0110011", kM,
          binary([](auto a, auto b) { return mulhu(a, b); })),
      row("div rd, rs1, rs2", "0000001 rs2 rs1 100 rd 0110011", kM,
          binary([](auto a, auto b) { return div(a, b); })),
      row("divu rd, rs1, rs2", "0000001 rs2 rs1 101 rd 0110011", kM,
          binary([](auto a, auto b) { return divu(a, b); })),
      row("rem rd, rs1, rs2", "0000001 rs2 rs1 110 rd 0110011", kM,
          binary([](auto a, auto b) { return rem(a, b); })),
      row("remu rd, rs1, rs2", "0000001 rs2 rs1 111 rd 0110011", kM,
          binary([](auto a, auto b) { return remu(a, b); })),
      row("mulw rd, rs1, rs2", "0000001 rs2 rs1 000 rd 0111011", kM,
          binary([](auto a, auto b) { return sext32(a * b); })),
      row("divw rd, rs1, rs2", "0000001 rs2 rs1 100 rd 0111011", kM,
          binary([](auto a, auto b) { return div32(a, b); })),
      row("divuw rd, rs1, rs2", "0000001 rs2 rs1 101 rd 0111011", kM,
          binary([](auto a, auto b) { return divu32(a, b); })),
      row("remw rd, rs1, rs2", "0000001 rs2 rs1 110 rd 0111011", kM,
          binary([](auto a, auto b) { return rem32(a, b); })),
      row("remuw rd, rs1, rs2", "0000001 rs2 rs1 111 rd 0111011", kM,
          binary([](auto a, auto b) { return remu32(a, b); })),
  };
}();

}  // namespace doppel::riscv
