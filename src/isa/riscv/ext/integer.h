// RV64I (unprivileged manual, chapters "RV32I" and "RV64I") and Zifencei.
#pragma once

#include "isa/riscv/ext/row.h"

namespace doppel::riscv::semantics {

using namespace isa;

template <class Op>
constexpr auto binary(Op op) {
  return [op](auto& m, const Operands& i) { m.set_x(i.rd, op(m.x(i.rs1), m.x(i.rs2))); };
}
template <class Op>
constexpr auto immediate(Op op) {
  return [op](auto& m, const Operands& i) { m.set_x(i.rd, op(m.x(i.rs1), word(i.imm))); };
}
template <class T>
constexpr auto load(As<T> type) {
  return [type](auto& m, const Operands& i) { m.load_x(i.rd, m.x(i.rs1) + word(i.imm), type); };
}
template <class T>
constexpr auto store(As<T> type) {
  return [type](auto& m, const Operands& i) { m.store(m.x(i.rs1) + word(i.imm), m.x(i.rs2), type); };
}
template <class Op>
constexpr auto branch(Op op) {
  return [op](auto& m, const Operands& i) { m.branch(op(m.x(i.rs1), m.x(i.rs2)), word(i.imm)); };
}

inline constexpr auto kAdd = [](auto a, auto b) { return a + b; };
inline constexpr auto kSub = [](auto a, auto b) { return a - b; };
inline constexpr auto kAnd = [](auto a, auto b) { return a & b; };
inline constexpr auto kOr = [](auto a, auto b) { return a | b; };
inline constexpr auto kXor = [](auto a, auto b) { return a ^ b; };
inline constexpr auto kShl = [](auto a, auto b) { return shl(a, b); };
inline constexpr auto kShr = [](auto a, auto b) { return shr(a, b); };
inline constexpr auto kSar = [](auto a, auto b) { return sar(a, b); };
inline constexpr auto kShl32 = [](auto a, auto b) { return shl32(a, b); };
inline constexpr auto kShr32 = [](auto a, auto b) { return shr32(a, b); };
inline constexpr auto kSar32 = [](auto a, auto b) { return sar32(a, b); };
inline constexpr auto kAdd32 = [](auto a, auto b) { return sext32(a + b); };
inline constexpr auto kSub32 = [](auto a, auto b) { return sext32(a - b); };
inline constexpr auto kEq = [](auto a, auto b) { return eq(a, b); };
inline constexpr auto kNe = [](auto a, auto b) { return ne(a, b); };
inline constexpr auto kLt = [](auto a, auto b) { return lt(a, b); };
inline constexpr auto kLtu = [](auto a, auto b) { return ltu(a, b); };
inline constexpr auto kGe = [](auto a, auto b) { return ge(a, b); };
inline constexpr auto kGeu = [](auto a, auto b) { return geu(a, b); };

inline constexpr auto kLui = [](auto& m, const Operands& i) { m.set_x(i.rd, m.constant(word(i.imm))); };
inline constexpr auto kAuipc = [](auto& m, const Operands& i) { m.set_x(i.rd, m.constant(m.pc() + word(i.imm))); };
inline constexpr auto kJal = [](auto& m, const Operands& i) {
  m.set_x(i.rd, m.constant(m.next_pc()));
  m.jump_relative(word(i.imm), i.rd);
};
inline constexpr auto kJalr = [](auto& m, const Operands& i) {
  const auto target = (m.x(i.rs1) + word(i.imm)) & ~u64{1};
  m.set_x(i.rd, m.constant(m.next_pc()));
  m.jump(target, i);
};

}  // namespace doppel::riscv::semantics

namespace doppel::riscv {

inline constexpr auto kIntegerRows = [] {
  using namespace semantics;
  constexpr Extension kI = Extension::kI;
  return std::tuple{
      row("lui rd, imm", "imm[31:12] rd 0110111", kI, kLui),
      row("auipc rd, imm", "imm[31:12] rd 0010111", kI, kAuipc),
      row("jal rd, imm", "imm[20|10:1|11|19:12] rd 1101111", kI, kJal, kBlockEnd),
      row("jalr rd, imm(rs1)", "imm[11:0] rs1 000 rd 1100111", kI, kJalr, kBlockEnd),
      row("beq rs1, rs2, imm", "imm[12|10:5] rs2 rs1 000 imm[4:1|11] 1100011", kI, branch(kEq), kBlockEnd),
      row("bne rs1, rs2, imm", "imm[12|10:5] rs2 rs1 001 imm[4:1|11] 1100011", kI, branch(kNe), kBlockEnd),
      row("blt rs1, rs2, imm", "imm[12|10:5] rs2 rs1 100 imm[4:1|11] 1100011", kI, branch(kLt), kBlockEnd),
      row("bge rs1, rs2, imm", "imm[12|10:5] rs2 rs1 101 imm[4:1|11] 1100011", kI, branch(kGe), kBlockEnd),
      row("bltu rs1, rs2, imm", "imm[12|10:5] rs2 rs1 110 imm[4:1|11] 1100011", kI, branch(kLtu), kBlockEnd),
      row("bgeu rs1, rs2, imm", "imm[12|10:5] rs2 rs1 111 imm[4:1|11] 1100011", kI, branch(kGeu), kBlockEnd),
      row("lb rd, imm(rs1)", "imm[11:0] rs1 000 rd 0000011", kI, load(as<std::int8_t>)),
      row("lh rd, imm(rs1)", "imm[11:0] rs1 001 rd 0000011", kI, load(as<std::int16_t>)),
      row("lw rd, imm(rs1)", "imm[11:0] rs1 010 rd 0000011", kI, load(as<std::int32_t>)),
      row("ld rd, imm(rs1)", "imm[11:0] rs1 011 rd 0000011", kI, load(as<std::uint64_t>)),
      row("lbu rd, imm(rs1)", "imm[11:0] rs1 100 rd 0000011", kI, load(as<std::uint8_t>)),
      row("lhu rd, imm(rs1)", "imm[11:0] rs1 101 rd 0000011", kI, load(as<std::uint16_t>)),
      row("lwu rd, imm(rs1)", "imm[11:0] rs1 110 rd 0000011", kI, load(as<std::uint32_t>)),
      row("sb rs2, imm(rs1)", "imm[11:5] rs2 rs1 000 imm[4:0] 0100011", kI, store(as<std::uint8_t>)),
      row("sh rs2, imm(rs1)", "imm[11:5] rs2 rs1 001 imm[4:0] 0100011", kI, store(as<std::uint16_t>)),
      row("sw rs2, imm(rs1)", "imm[11:5] rs2 rs1 010 imm[4:0] 0100011", kI, store(as<std::uint32_t>)),
      row("sd rs2, imm(rs1)", "imm[11:5] rs2 rs1 011 imm[4:0] 0100011", kI, store(as<std::uint64_t>)),
      row("addi rd, rs1, imm", "imm[11:0] rs1 000 rd 0010011", kI, immediate(kAdd)),
      row("slti rd, rs1, imm", "imm[11:0] rs1 010 rd 0010011", kI, immediate(kLt)),
      row("sltiu rd, rs1, imm", "imm[11:0] rs1 011 rd 0010011", kI, immediate(kLtu)),
      row("xori rd, rs1, imm", "imm[11:0] rs1 100 rd 0010011", kI, immediate(kXor)),
      row("ori rd, rs1, imm", "imm[11:0] rs1 110 rd 0010011", kI, immediate(kOr)),
      row("andi rd, rs1, imm", "imm[11:0] rs1 111 rd 0010011", kI, immediate(kAnd)),
      row("slli rd, rs1, imm", "000000 shamt rs1 001 rd 0010011", kI, immediate(kShl)),
      row("srli rd, rs1, imm", "000000 shamt rs1 101 rd 0010011", kI, immediate(kShr)),
      row("srai rd, rs1, imm", "010000 shamt rs1 101 rd 0010011", kI, immediate(kSar)),
      row("add rd, rs1, rs2", "0000000 rs2 rs1 000 rd 0110011", kI, binary(kAdd)),
      row("sub rd, rs1, rs2", "0100000 rs2 rs1 000 rd 0110011", kI, binary(kSub)),
      row("sll rd, rs1, rs2", "0000000 rs2 rs1 001 rd 0110011", kI, binary(kShl)),
      row("slt rd, rs1, rs2", "0000000 rs2 rs1 010 rd 0110011", kI, binary(kLt)),
      row("sltu rd, rs1, rs2", "0000000 rs2 rs1 011 rd 0110011", kI, binary(kLtu)),
      row("xor rd, rs1, rs2", "0000000 rs2 rs1 100 rd 0110011", kI, binary(kXor)),
      row("srl rd, rs1, rs2", "0000000 rs2 rs1 101 rd 0110011", kI, binary(kShr)),
      row("sra rd, rs1, rs2", "0100000 rs2 rs1 101 rd 0110011", kI, binary(kSar)),
      row("or rd, rs1, rs2", "0000000 rs2 rs1 110 rd 0110011", kI, binary(kOr)),
      row("and rd, rs1, rs2", "0000000 rs2 rs1 111 rd 0110011", kI, binary(kAnd)),
      row("addiw rd, rs1, imm", "imm[11:0] rs1 000 rd 0011011", kI, immediate(kAdd32)),
      row("slliw rd, rs1, imm", "0000000 shamtw rs1 001 rd 0011011", kI, immediate(kShl32)),
      row("srliw rd, rs1, imm", "0000000 shamtw rs1 101 rd 0011011", kI, immediate(kShr32)),
      row("sraiw rd, rs1, imm", "0100000 shamtw rs1 101 rd 0011011", kI, immediate(kSar32)),
      row("addw rd, rs1, rs2", "0000000 rs2 rs1 000 rd 0111011", kI, binary(kAdd32)),
      row("subw rd, rs1, rs2", "0100000 rs2 rs1 000 rd 0111011", kI, binary(kSub32)),
      row("sllw rd, rs1, rs2", "0000000 rs2 rs1 001 rd 0111011", kI, binary(kShl32)),
      row("srlw rd, rs1, rs2", "0000000 rs2 rs1 101 rd 0111011", kI, binary(kShr32)),
      row("sraw rd, rs1, rs2", "0100000 rs2 rs1 101 rd 0111011", kI, binary(kSar32)),
      // PAUSE (Zihintpause) is one of FENCE's encodings and needs nothing more than it.
      row("fence imm", "uimm[11:0] rs1 000 rd 0001111", kI, [](auto& m, const Operands& i) { m.fence(i.imm); }),
      row("fence.i", "uimm[11:0] rs1 001 rd 0001111", Extension::kZifencei,
          [](auto& m, const Operands&) { m.fence_i(); }, kSystem),
      row("ecall", "000000000000 00000 000 00000 1110011", kI, [](auto& m, const Operands&) { m.ecall(); }, kSystem),
      row("ebreak", "000000000001 00000 000 00000 1110011", kI, [](auto& m, const Operands&) { m.ebreak(); },
          kSystem),
  };
}();

}  // namespace doppel::riscv
