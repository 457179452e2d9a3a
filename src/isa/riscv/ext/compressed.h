// C: the 16-bit encodings, each with the semantics of the instruction that it abbreviates.
#pragma once

#include "isa/riscv/ext/integer.h"
#include "isa/riscv/ext/floating.h"

namespace doppel::riscv::semantics {

inline constexpr unsigned kRa = 1, kSp = 2;

// Forms whose destination is also their first source.
template <class Op>
constexpr auto binary_in_place(Op op) {
  return [op](auto& m, const Operands& i) { m.set_x(i.rd, op(m.x(i.rd), m.x(i.rs2))); };
}
template <class Op>
constexpr auto immediate_in_place(Op op) {
  return [op](auto& m, const Operands& i) { m.set_x(i.rd, op(m.x(i.rd), word(i.imm))); };
}
// Forms whose base register is sp.
template <class T>
constexpr auto load_sp(As<T> type) {
  return [type](auto& m, const Operands& i) { m.load_x(i.rd, m.x(kSp) + word(i.imm), type); };
}
template <class T>
constexpr auto store_sp(As<T> type) {
  return [type](auto& m, const Operands& i) { m.store(m.x(kSp) + word(i.imm), m.x(i.rs2), type); };
}
template <class Op>
constexpr auto branch_on_zero(Op op) {
  return [op](auto& m, const Operands& i) { m.branch(op(m.x(i.rs1), u64{0}), word(i.imm)); };
}

}  // namespace doppel::riscv::semantics

namespace doppel::riscv {

inline constexpr auto kCompressedRows = [] {
  using namespace semantics;
  constexpr Extension kC = Extension::kC;
  return std::tuple{
      row("c.addi4spn rd, imm", "000 uimm[5:4|9:6|2|3]!=0 rd' 00", kC,
          [](auto& m, const Operands& i) { m.set_x(i.rd, m.x(kSp) + word(i.imm)); }),
      row("c.fld fd, imm(rs1)", "001 uimm[5:3] rs1' uimm[7:6] fd' 00", kC, load_f(kDouble), kFloating),
      row("c.lw rd, imm(rs1)", "010 uimm[5:3] rs1' uimm[2|6] rd' 00", kC, load(as<i32>)),
      row("c.ld rd, imm(rs1)", "011 uimm[5:3] rs1' uimm[7:6] rd' 00", kC, load(as<u64>)),
      row("c.fsd fs2, imm(rs1)", "101 uimm[5:3] rs1' uimm[7:6] fs2' 00", kC, store_f(kDouble), kFloating),
      row("c.sw rs2, imm(rs1)", "110 uimm[5:3] rs1' uimm[2|6] rs2' 00", kC, store(as<u32>)),
      row("c.sd rs2, imm(rs1)", "111 uimm[5:3] rs1' uimm[7:6] rs2' 00", kC, store(as<u64>)),

      row("c.addi rd, imm", "000 imm[5] rd imm[4:0] 01", kC, immediate_in_place(kAdd)),
      row("c.addiw rd, imm", "001 imm[5] rd!=0 imm[4:0] 01", kC, immediate_in_place(kAdd32)),
      row("c.li rd, imm", "010 imm[5] rd imm[4:0] 01", kC, kLui),
      row("c.addi16sp imm", "011 imm[9]!=0 00010 imm[4|6|8:7|5] 01", kC,
          [](auto& m, const Operands& i) { m.set_x(kSp, m.x(kSp) + word(i.imm)); }),
      row("c.lui rd, imm", "011 imm[17]!=0 rd!=2 imm[16:12] 01", kC, kLui),
      row("c.srli rd, imm", "100 shamt[5] 00 rd' shamt[4:0] 01", kC, immediate_in_place(kShr)),
      row("c.srai rd, imm", "100 shamt[5] 01 rd' shamt[4:0] 01", kC, immediate_in_place(kSar)),
      row("c.andi rd, imm", "100 imm[5] 10 rd' imm[4:0] 01", kC, immediate_in_place(kAnd)),
      row("c.sub rd, rs2", "100 0 11 rd' 00 rs2' 01", kC, binary_in_place(kSub)),
      row("c.xor rd, rs2", "100 0 11 rd' 01 rs2' 01", kC, binary_in_place(kXor)),
      row("c.or rd, rs2", "100 0 11 rd' 10 rs2' 01", kC, binary_in_place(kOr)),
      row("c.and rd, rs2", "100 0 11 rd' 11 rs2' 01", kC, binary_in_place(kAnd)),
      row("c.subw rd, rs2", "100 1 11 rd' 00 rs2' 01", kC, binary_in_place(kSub32)),
      row("c.addw rd, rs2", "100 1 11 rd' 01 rs2' 01", kC, binary_in_place(kAdd32)),
      row("c.j imm", "101 imm[11|4|9:8|10|6|7|3:1|5] 01", kC,
          [](auto& m, const Operands& i) { m.jump_relative(word(i.imm)); }, kBlockEnd),
      row("c.beqz rs1, imm", "110 imm[8|4:3] rs1' imm[7:6|2:1|5] 01", kC, branch_on_zero(kEq), kBlockEnd),
      row("c.bnez rs1, imm", "111 imm[8|4:3] rs1' imm[7:6|2:1|5] 01", kC, branch_on_zero(kNe), kBlockEnd),

      row("c.slli rd, imm", "000 shamt[5] rd shamt[4:0] 10", kC, immediate_in_place(kShl)),
      row("c.fldsp fd, imm(sp)", "001 uimm[5] fd uimm[4:3|8:6] 10", kC,
          [](auto& m, const Operands& i) { m.load_f(i.rd, m.x(kSp) + word(i.imm), kDouble); }, kFloating),
      row("c.lwsp rd, imm(sp)", "010 uimm[5] rd!=0 uimm[4:2|7:6] 10", kC, load_sp(as<i32>)),
      row("c.ldsp rd, imm(sp)", "011 uimm[5] rd!=0 uimm[4:3|8:6] 10", kC, load_sp(as<u64>)),
      row("c.jr rs1", "100 0 rs1!=0 00000 10", kC,
          [](auto& m, const Operands& i) { m.jump(m.x(i.rs1) & ~u64{1}, i); }, kBlockEnd),
      row("c.mv rd, rs2", "100 0 rd rs2!=0 10", kC,
          [](auto& m, const Operands& i) { m.set_x(i.rd, m.x(i.rs2)); }),
      row("c.ebreak", "100 1 00000 00000 10", kC, [](auto& m, const Operands&) { m.ebreak(); }, kSystem),
      row("c.jalr rs1", "100 1 rs1!=0 00000 10", kC,
          [](auto& m, const Operands& i) {
            const auto target = m.x(i.rs1) & ~u64{1};
            m.set_x(kRa, m.constant(m.next_pc()));
            m.jump(target, Operands{.rd = kRa, .rs1 = i.rs1});
          },
          kBlockEnd),
      row("c.add rd, rs2", "100 1 rd rs2!=0 10", kC, binary_in_place(kAdd)),
      row("c.fsdsp fs2, imm(sp)", "101 uimm[5:3|8:6] fs2 10", kC,
          [](auto& m, const Operands& i) { m.store_f(m.x(kSp) + word(i.imm), i.rs2, kDouble); }, kFloating),
      row("c.swsp rs2, imm(sp)", "110 uimm[5:2|7:6] rs2 10", kC, store_sp(as<u32>)),
      row("c.sdsp rs2, imm(sp)", "111 uimm[5:3|8:6] rs2 10", kC, store_sp(as<u64>)),
  };
}();

}  // namespace doppel::riscv
