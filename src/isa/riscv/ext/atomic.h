// A: load-reserved/store-conditional and atomic memory operations. Every form is executed sequentially
// consistent, which is stronger than any aq/rl combination asks for.
#pragma once

#include "isa/riscv/ext/row.h"

namespace doppel::riscv {

enum class Amo : std::uint8_t { kSwap, kAdd, kXor, kAnd, kOr, kMin, kMax, kMinu, kMaxu };

namespace semantics {

template <class T>
constexpr auto amo(Amo op, As<T> type) {
  return [op, type](auto& m, const Operands& i) { m.amo(i.rd, m.x(i.rs1), m.x(i.rs2), op, type); };
}
template <class T>
constexpr auto load_reserved(As<T> type) {
  return [type](auto& m, const Operands& i) { m.load_reserved(i.rd, m.x(i.rs1), type); };
}
template <class T>
constexpr auto store_conditional(As<T> type) {
  return [type](auto& m, const Operands& i) { m.store_conditional(i.rd, m.x(i.rs1), m.x(i.rs2), type); };
}

}  // namespace semantics

inline constexpr auto kAtomicRows = [] {
  using namespace semantics;
  constexpr Extension kA = Extension::kA;
  return std::tuple{
      row("lr.w rd, (rs1)", "00010 -- 00000 rs1 010 rd 0101111", kA, load_reserved(as<i32>)),
      row("sc.w rd, rs2, (rs1)", "00011 -- rs2 rs1 010 rd 0101111", kA, store_conditional(as<i32>)),
      row("amoswap.w rd, rs2, (rs1)", "00001 -- rs2 rs1 010 rd 0101111", kA, amo(Amo::kSwap, as<i32>)),
      row("amoadd.w rd, rs2, (rs1)", "00000 -- rs2 rs1 010 rd 0101111", kA, amo(Amo::kAdd, as<i32>)),
      row("amoxor.w rd, rs2, (rs1)", "00100 -- rs2 rs1 010 rd 0101111", kA, amo(Amo::kXor, as<i32>)),
      row("amoand.w rd, rs2, (rs1)", "01100 -- rs2 rs1 010 rd 0101111", kA, amo(Amo::kAnd, as<i32>)),
      row("amoor.w rd, rs2, (rs1)", "01000 -- rs2 rs1 010 rd 0101111", kA, amo(Amo::kOr, as<i32>)),
      row("amomin.w rd, rs2, (rs1)", "10000 -- rs2 rs1 010 rd 0101111", kA, amo(Amo::kMin, as<i32>)),
      row("amomax.w rd, rs2, (rs1)", "10100 -- rs2 rs1 010 rd 0101111", kA, amo(Amo::kMax, as<i32>)),
      row("amominu.w rd, rs2, (rs1)", "11000 -- rs2 rs1 010 rd 0101111", kA, amo(Amo::kMinu, as<i32>)),
      row("amomaxu.w rd, rs2, (rs1)", "11100 -- rs2 rs1 010 rd 0101111", kA, amo(Amo::kMaxu, as<i32>)),
      row("lr.d rd, (rs1)", "00010 -- 00000 rs1 011 rd 0101111", kA, load_reserved(as<i64>)),
      row("sc.d rd, rs2, (rs1)", "00011 -- rs2 rs1 011 rd 0101111", kA, store_conditional(as<i64>)),
      row("amoswap.d rd, rs2, (rs1)", "00001 -- rs2 rs1 011 rd 0101111", kA, amo(Amo::kSwap, as<i64>)),
      row("amoadd.d rd, rs2, (rs1)", "00000 -- rs2 rs1 011 rd 0101111", kA, amo(Amo::kAdd, as<i64>)),
      row("amoxor.d rd, rs2, (rs1)", "00100 -- rs2 rs1 011 rd 0101111", kA, amo(Amo::kXor, as<i64>)),
      row("amoand.d rd, rs2, (rs1)", "01100 -- rs2 rs1 011 rd 0101111", kA, amo(Amo::kAnd, as<i64>)),
      row("amoor.d rd, rs2, (rs1)", "01000 -- rs2 rs1 011 rd 0101111", kA, amo(Amo::kOr, as<i64>)),
      row("amomin.d rd, rs2, (rs1)", "10000 -- rs2 rs1 011 rd 0101111", kA, amo(Amo::kMin, as<i64>)),
      row("amomax.d rd, rs2, (rs1)", "10100 -- rs2 rs1 011 rd 0101111", kA, amo(Amo::kMax, as<i64>)),
      row("amominu.d rd, rs2, (rs1)", "11000 -- rs2 rs1 011 rd 0101111", kA, amo(Amo::kMinu, as<i64>)),
      row("amomaxu.d rd, rs2, (rs1)", "11100 -- rs2 rs1 011 rd 0101111", kA, amo(Amo::kMaxu, as<i64>)),
  };
}();

}  // namespace doppel::riscv
