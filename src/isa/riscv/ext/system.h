// Zicsr, the privileged instructions (privileged manual, chapters "Machine-Level ISA" and
// "Supervisor-Level ISA"), Svinval, and cache blocks (Zicbom, Zicboz; the Zicbop hints are encodings of ORI).
#pragma once

#include "isa/riscv/ext/row.h"

namespace doppel::riscv {

enum class CsrOp : std::uint8_t { kWrite, kSet, kClear };

namespace semantics {

// The forms that set or clear bits do not write at all when their source is x0 or a zero immediate.
constexpr auto csr_register(CsrOp op) {
  return [op](auto& m, const Operands& i) {
    m.csr(i.rd, static_cast<unsigned>(i.imm), op, m.x(i.rs1), op == CsrOp::kWrite || i.rs1 != 0);
  };
}
constexpr auto csr_immediate(CsrOp op) {
  return [op](auto& m, const Operands& i) {
    m.csr(i.rd, static_cast<unsigned>(i.imm), op, m.constant(u64{i.rs1}), op == CsrOp::kWrite || i.rs1 != 0);
  };
}

enum class CacheBlock : std::uint8_t { kInvalidate, kClean, kFlush, kZero };

constexpr auto cache_block(CacheBlock op) {
  return [op](auto& m, const Operands& i) { m.cache_block(op, m.x(i.rs1)); };
}

}  // namespace semantics

inline constexpr auto kSystemRows = [] {
  using namespace semantics;
  constexpr Extension kCsr = Extension::kZicsr;
  constexpr Extension kPriv = Extension::kPrivileged;
  constexpr Extension kInv = Extension::kSvinval;
  // rs1 of the immediate forms is the five-bit immediate itself.
  return std::tuple{
      row("csrrw rd, csr, rs1", "csr rs1 001 rd 1110011", kCsr, csr_register(CsrOp::kWrite), kSystem),
      row("csrrs rd, csr, rs1", "csr rs1 010 rd 1110011", kCsr, csr_register(CsrOp::kSet), kSystem),
      row("csrrc rd, csr, rs1", "csr rs1 011 rd 1110011", kCsr, csr_register(CsrOp::kClear), kSystem),
      row("csrrwi rd, csr, zimm", "csr rs1 101 rd 1110011", kCsr, csr_immediate(CsrOp::kWrite), kSystem),
      row("csrrsi rd, csr, zimm", "csr rs1 110 rd 1110011", kCsr, csr_immediate(CsrOp::kSet), kSystem),
      row("csrrci rd, csr, zimm", "csr rs1 111 rd 1110011", kCsr, csr_immediate(CsrOp::kClear), kSystem),

      row("sret", "0001000 00010 00000 000 00000 1110011", kPriv, [](auto& m, const Operands&) { m.sret(); },
          kSystem),
      row("mret", "0011000 00010 00000 000 00000 1110011", kPriv, [](auto& m, const Operands&) { m.mret(); },
          kSystem),
      row("wfi", "0001000 00101 00000 000 00000 1110011", kPriv, [](auto& m, const Operands&) { m.wfi(); }, kSystem),
      row("sfence.vma rs1, rs2", "0001001 rs2 rs1 000 00000 1110011", kPriv,
          [](auto& m, const Operands& i) { m.sfence_vma(i); }, kSystem),
      row("sinval.vma rs1, rs2", "0001011 rs2 rs1 000 00000 1110011", kInv,
          [](auto& m, const Operands& i) { m.sfence_vma(i); }, kSystem),
      row("sfence.w.inval", "0001100 00000 00000 000 00000 1110011", kInv,
          [](auto& m, const Operands&) { m.sfence_inval(); }, kSystem),
      row("sfence.inval.ir", "0001100 00001 00000 000 00000 1110011", kInv,
          [](auto& m, const Operands&) { m.sfence_inval(); }, kSystem),

      row("cbo.inval (rs1)", "000000000000 rs1 010 00000 0001111", Extension::kZicbom,
          cache_block(CacheBlock::kInvalidate)),
      row("cbo.clean (rs1)", "000000000001 rs1 010 00000 0001111", Extension::kZicbom,
          cache_block(CacheBlock::kClean)),
      row("cbo.flush (rs1)", "000000000010 rs1 010 00000 0001111", Extension::kZicbom,
          cache_block(CacheBlock::kFlush)),
      row("cbo.zero (rs1)", "000000000100 rs1 010 00000 0001111", Extension::kZicboz,
          cache_block(CacheBlock::kZero)),
  };
}();

}  // namespace doppel::riscv
