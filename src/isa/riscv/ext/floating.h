// F, D and Zfhmin: floating point. The machine's f* operations take and give values of a format, round by
// the instruction's mode (already resolved and checked) and accrue flags.
#pragma once

#include "isa/riscv/ext/row.h"

namespace doppel::riscv {

struct HalfFormat {
  using Bits = std::uint16_t;
};
struct SingleFormat {
  using Bits = std::uint32_t;
};
struct DoubleFormat {
  using Bits = std::uint64_t;
};
inline constexpr HalfFormat kHalf{};
inline constexpr SingleFormat kSingle{};
inline constexpr DoubleFormat kDouble{};

inline constexpr Traits kFloating{.floating_point = true};

namespace semantics {

template <class Format>
constexpr auto load_f(Format format) {
  return [format](auto& m, const Operands& i) { m.load_f(i.rd, m.x(i.rs1) + word(i.imm), format); };
}
template <class Format>
constexpr auto store_f(Format format) {
  return [format](auto& m, const Operands& i) { m.store_f(m.x(i.rs1) + word(i.imm), i.rs2, format); };
}

// op(machine, format, a, b) on two registers of a format.
template <class Format, class Op>
constexpr auto binary_f(Format format, Op op) {
  return [format, op](auto& m, const Operands& i) {
    m.set_f(i.rd, op(m, format, m.f(i.rs1, format), m.f(i.rs2, format)), format);
  };
}
// The comparison's result goes to an integer register.
template <class Format, class Op>
constexpr auto compare_f(Format format, Op op) {
  return [format, op](auto& m, const Operands& i) {
    m.set_x(i.rd, op(m, format, m.f(i.rs1, format), m.f(i.rs2, format)));
  };
}
// a * b + c with the signs of the product and of c flipped as asked.
template <class Format>
constexpr auto fused(Format format, bool negate_product, bool negate_addend) {
  return [=](auto& m, const Operands& i) {
    auto a = m.f(i.rs1, format);
    auto c = m.f(i.rs3(), format);
    if (negate_product) a = m.fneg(format, a);
    if (negate_addend) c = m.fneg(format, c);
    m.set_f(i.rd, m.fma(format, a, m.f(i.rs2, format), c), format);
  };
}
template <class Format>
constexpr auto sqrt_f(Format format) {
  return [format](auto& m, const Operands& i) { m.set_f(i.rd, m.fsqrt(format, m.f(i.rs1, format)), format); };
}
template <class To, class From>
constexpr auto convert_f(To to, From from) {
  return [=](auto& m, const Operands& i) { m.set_f(i.rd, m.fconvert(to, from, m.f(i.rs1, from)), to); };
}
// To an integer of type T, sign-extended to a word.
template <class Format, class T>
constexpr auto to_integer(Format format, As<T> type) {
  return [=](auto& m, const Operands& i) { m.set_x(i.rd, m.fto_integer(format, m.f(i.rs1, format), type)); };
}
template <class Format, class T>
constexpr auto from_integer(Format format, As<T> type) {
  return [=](auto& m, const Operands& i) { m.set_f(i.rd, m.ffrom_integer(format, m.x(i.rs1), type), format); };
}
template <class Format>
constexpr auto classify_f(Format format) {
  return [format](auto& m, const Operands& i) { m.set_x(i.rd, m.fclass(format, m.f(i.rs1, format))); };
}
// FMV.X: the raw low bits, boxed or not, sign-extended.
template <class Format>
constexpr auto move_to_x(Format format) {
  return [format](auto& m, const Operands& i) { m.set_x(i.rd, m.f_raw(i.rs1, format)); };
}
template <class Format>
constexpr auto move_from_x(Format format) {
  return [format](auto& m, const Operands& i) { m.set_f(i.rd, m.f_from_raw(m.x(i.rs1), format), format); };
}

inline constexpr auto kFadd = [](auto& m, auto format, auto a, auto b) { return m.fadd(format, a, b); };
inline constexpr auto kFsub = [](auto& m, auto format, auto a, auto b) { return m.fsub(format, a, b); };
inline constexpr auto kFmul = [](auto& m, auto format, auto a, auto b) { return m.fmul(format, a, b); };
inline constexpr auto kFdiv = [](auto& m, auto format, auto a, auto b) { return m.fdiv(format, a, b); };
inline constexpr auto kFmin = [](auto& m, auto format, auto a, auto b) { return m.fmin(format, a, b); };
inline constexpr auto kFmax = [](auto& m, auto format, auto a, auto b) { return m.fmax(format, a, b); };
inline constexpr auto kFsgnj = [](auto& m, auto format, auto a, auto b) { return m.fsign(format, a, b); };
inline constexpr auto kFsgnjn = [](auto& m, auto format, auto a, auto b) {
  return m.fsign(format, a, m.fneg(format, b));
};
inline constexpr auto kFsgnjx = [](auto& m, auto format, auto a, auto b) { return m.fsign_xor(format, a, b); };
inline constexpr auto kFeq = [](auto& m, auto format, auto a, auto b) { return m.feq(format, a, b); };
inline constexpr auto kFlt = [](auto& m, auto format, auto a, auto b) { return m.flt(format, a, b); };
inline constexpr auto kFle = [](auto& m, auto format, auto a, auto b) { return m.fle(format, a, b); };

}  // namespace semantics

inline constexpr auto kSingleRows = [] {
  using namespace semantics;
  constexpr Extension kF = Extension::kF;
  constexpr Traits kT = kFloating;
  return std::tuple{
      row("flw fd, imm(rs1)", "imm[11:0] rs1 010 fd 0000111", kF, load_f(kSingle), kT),
      row("fsw fs2, imm(rs1)", "imm[11:5] fs2 rs1 010 imm[4:0] 0100111", kF, store_f(kSingle), kT),
      row("fmadd.s fd, fs1, fs2, fs3", "fs3 00 fs2 fs1 rm fd 1000011", kF, fused(kSingle, false, false), kT),
      row("fmsub.s fd, fs1, fs2, fs3", "fs3 00 fs2 fs1 rm fd 1000111", kF, fused(kSingle, false, true), kT),
      row("fnmsub.s fd, fs1, fs2, fs3", "fs3 00 fs2 fs1 rm fd 1001011", kF, fused(kSingle, true, false), kT),
      row("fnmadd.s fd, fs1, fs2, fs3", "fs3 00 fs2 fs1 rm fd 1001111", kF, fused(kSingle, true, true), kT),
      row("fadd.s fd, fs1, fs2", "0000000 fs2 fs1 rm fd 1010011", kF, binary_f(kSingle, kFadd), kT),
      row("fsub.s fd, fs1, fs2", "0000100 fs2 fs1 rm fd 1010011", kF, binary_f(kSingle, kFsub), kT),
      row("fmul.s fd, fs1, fs2", "0001000 fs2 fs1 rm fd 1010011", kF, binary_f(kSingle, kFmul), kT),
      row("fdiv.s fd, fs1, fs2", "0001100 fs2 fs1 rm fd 1010011", kF, binary_f(kSingle, kFdiv), kT),
      row("fsqrt.s fd, fs1", "0101100 00000 fs1 rm fd 1010011", kF, sqrt_f(kSingle), kT),
      row("fsgnj.s fd, fs1, fs2", "0010000 fs2 fs1 000 fd 1010011", kF, binary_f(kSingle, kFsgnj), kT),
      row("fsgnjn.s fd, fs1, fs2", "0010000 fs2 fs1 001 fd 1010011", kF, binary_f(kSingle, kFsgnjn), kT),
      row("fsgnjx.s fd, fs1, fs2", "0010000 fs2 fs1 010 fd 1010011", kF, binary_f(kSingle, kFsgnjx), kT),
      row("fmin.s fd, fs1, fs2", "0010100 fs2 fs1 000 fd 1010011", kF, binary_f(kSingle, kFmin), kT),
      row("fmax.s fd, fs1, fs2", "0010100 fs2 fs1 001 fd 1010011", kF, binary_f(kSingle, kFmax), kT),
      row("fcvt.w.s rd, fs1", "1100000 00000 fs1 rm rd 1010011", kF, to_integer(kSingle, as<i32>), kT),
      row("fcvt.wu.s rd, fs1", "1100000 00001 fs1 rm rd 1010011", kF, to_integer(kSingle, as<u32>), kT),
      row("fcvt.l.s rd, fs1", "1100000 00010 fs1 rm rd 1010011", kF, to_integer(kSingle, as<i64>), kT),
      row("fcvt.lu.s rd, fs1", "1100000 00011 fs1 rm rd 1010011", kF, to_integer(kSingle, as<u64>), kT),
      row("fmv.x.w rd, fs1", "1110000 00000 fs1 000 rd 1010011", kF, move_to_x(kSingle), kT),
      row("feq.s rd, fs1, fs2", "1010000 fs2 fs1 010 rd 1010011", kF, compare_f(kSingle, kFeq), kT),
      row("flt.s rd, fs1, fs2", "1010000 fs2 fs1 001 rd 1010011", kF, compare_f(kSingle, kFlt), kT),
      row("fle.s rd, fs1, fs2", "1010000 fs2 fs1 000 rd 1010011", kF, compare_f(kSingle, kFle), kT),
      row("fclass.s rd, fs1", "1110000 00000 fs1 001 rd 1010011", kF, classify_f(kSingle), kT),
      row("fcvt.s.w fd, rs1", "1101000 00000 rs1 rm fd 1010011", kF, from_integer(kSingle, as<i32>), kT),
      row("fcvt.s.wu fd, rs1", "1101000 00001 rs1 rm fd 1010011", kF, from_integer(kSingle, as<u32>), kT),
      row("fcvt.s.l fd, rs1", "1101000 00010 rs1 rm fd 1010011", kF, from_integer(kSingle, as<i64>), kT),
      row("fcvt.s.lu fd, rs1", "1101000 00011 rs1 rm fd 1010011", kF, from_integer(kSingle, as<u64>), kT),
      row("fmv.w.x fd, rs1", "1111000 00000 rs1 000 fd 1010011", kF, move_from_x(kSingle), kT),
  };
}();

inline constexpr auto kDoubleRows = [] {
  using namespace semantics;
  constexpr Extension kD = Extension::kD;
  constexpr Traits kT = kFloating;
  return std::tuple{
      row("fld fd, imm(rs1)", "imm[11:0] rs1 011 fd 0000111", kD, load_f(kDouble), kT),
      row("fsd fs2, imm(rs1)", "imm[11:5] fs2 rs1 011 imm[4:0] 0100111", kD, store_f(kDouble), kT),
      row("fmadd.d fd, fs1, fs2, fs3", "fs3 01 fs2 fs1 rm fd 1000011", kD, fused(kDouble, false, false), kT),
      row("fmsub.d fd, fs1, fs2, fs3", "fs3 01 fs2 fs1 rm fd 1000111", kD, fused(kDouble, false, true), kT),
      row("fnmsub.d fd, fs1, fs2, fs3", "fs3 01 fs2 fs1 rm fd 1001011", kD, fused(kDouble, true, false), kT),
      row("fnmadd.d fd, fs1, fs2, fs3", "fs3 01 fs2 fs1 rm fd 1001111", kD, fused(kDouble, true, true), kT),
      row("fadd.d fd, fs1, fs2", "0000001 fs2 fs1 rm fd 1010011", kD, binary_f(kDouble, kFadd), kT),
      row("fsub.d fd, fs1, fs2", "0000101 fs2 fs1 rm fd 1010011", kD, binary_f(kDouble, kFsub), kT),
      row("fmul.d fd, fs1, fs2", "0001001 fs2 fs1 rm fd 1010011", kD, binary_f(kDouble, kFmul), kT),
      row("fdiv.d fd, fs1, fs2", "0001101 fs2 fs1 rm fd 1010011", kD, binary_f(kDouble, kFdiv), kT),
      row("fsqrt.d fd, fs1", "0101101 00000 fs1 rm fd 1010011", kD, sqrt_f(kDouble), kT),
      row("fsgnj.d fd, fs1, fs2", "0010001 fs2 fs1 000 fd 1010011", kD, binary_f(kDouble, kFsgnj), kT),
      row("fsgnjn.d fd, fs1, fs2", "0010001 fs2 fs1 001 fd 1010011", kD, binary_f(kDouble, kFsgnjn), kT),
      row("fsgnjx.d fd, fs1, fs2", "0010001 fs2 fs1 010 fd 1010011", kD, binary_f(kDouble, kFsgnjx), kT),
      row("fmin.d fd, fs1, fs2", "0010101 fs2 fs1 000 fd 1010011", kD, binary_f(kDouble, kFmin), kT),
      row("fmax.d fd, fs1, fs2", "0010101 fs2 fs1 001 fd 1010011", kD, binary_f(kDouble, kFmax), kT),
      row("fcvt.s.d fd, fs1", "0100000 00001 fs1 rm fd 1010011", kD, convert_f(kSingle, kDouble), kT),
      row("fcvt.d.s fd, fs1", "0100001 00000 fs1 rm fd 1010011", kD, convert_f(kDouble, kSingle), kT),
      row("feq.d rd, fs1, fs2", "1010001 fs2 fs1 010 rd 1010011", kD, compare_f(kDouble, kFeq), kT),
      row("flt.d rd, fs1, fs2", "1010001 fs2 fs1 001 rd 1010011", kD, compare_f(kDouble, kFlt), kT),
      row("fle.d rd, fs1, fs2", "1010001 fs2 fs1 000 rd 1010011", kD, compare_f(kDouble, kFle), kT),
      row("fclass.d rd, fs1", "1110001 00000 fs1 001 rd 1010011", kD, classify_f(kDouble), kT),
      row("fcvt.w.d rd, fs1", "1100001 00000 fs1 rm rd 1010011", kD, to_integer(kDouble, as<i32>), kT),
      row("fcvt.wu.d rd, fs1", "1100001 00001 fs1 rm rd 1010011", kD, to_integer(kDouble, as<u32>), kT),
      row("fcvt.l.d rd, fs1", "1100001 00010 fs1 rm rd 1010011", kD, to_integer(kDouble, as<i64>), kT),
      row("fcvt.lu.d rd, fs1", "1100001 00011 fs1 rm rd 1010011", kD, to_integer(kDouble, as<u64>), kT),
      row("fcvt.d.w fd, rs1", "1101001 00000 rs1 rm fd 1010011", kD, from_integer(kDouble, as<i32>), kT),
      row("fcvt.d.wu fd, rs1", "1101001 00001 rs1 rm fd 1010011", kD, from_integer(kDouble, as<u32>), kT),
      row("fcvt.d.l fd, rs1", "1101001 00010 rs1 rm fd 1010011", kD, from_integer(kDouble, as<i64>), kT),
      row("fcvt.d.lu fd, rs1", "1101001 00011 rs1 rm fd 1010011", kD, from_integer(kDouble, as<u64>), kT),
      row("fmv.x.d rd, fs1", "1110001 00000 fs1 000 rd 1010011", kD, move_to_x(kDouble), kT),
      row("fmv.d.x fd, rs1", "1111001 00000 rs1 000 fd 1010011", kD, move_from_x(kDouble), kT),
  };
}();

inline constexpr auto kHalfRows = [] {
  using namespace semantics;
  constexpr Extension kH = Extension::kZfhmin;
  constexpr Traits kT = kFloating;
  return std::tuple{
      row("flh fd, imm(rs1)", "imm[11:0] rs1 001 fd 0000111", kH, load_f(kHalf), kT),
      row("fsh fs2, imm(rs1)", "imm[11:5] fs2 rs1 001 imm[4:0] 0100111", kH, store_f(kHalf), kT),
      row("fmv.x.h rd, fs1", "1110010 00000 fs1 000 rd 1010011", kH, move_to_x(kHalf), kT),
      row("fmv.h.x fd, rs1", "1111010 00000 rs1 000 fd 1010011", kH, move_from_x(kHalf), kT),
      row("fcvt.s.h fd, fs1", "0100000 00010 fs1 rm fd 1010011", kH, convert_f(kSingle, kHalf), kT),
      row("fcvt.h.s fd, fs1", "0100010 00000 fs1 rm fd 1010011", kH, convert_f(kHalf, kSingle), kT),
      row("fcvt.d.h fd, fs1", "0100001 00010 fs1 rm fd 1010011", kH, convert_f(kDouble, kHalf), kT),
      row("fcvt.h.d fd, fs1", "0100010 00001 fs1 rm fd 1010011", kH, convert_f(kHalf, kDouble), kT),
  };
}();

}  // namespace doppel::riscv
