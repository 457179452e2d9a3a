// Every row of the RISC-V guest, in one tuple: what the decoder, the interpreter and the disassembler read.
#pragma once

#include "isa/riscv/ext/atomic.h"
#include "isa/riscv/ext/bitmanip.h"
#include "isa/riscv/ext/compressed.h"
#include "isa/riscv/ext/floating.h"
#include "isa/riscv/ext/integer.h"
#include "isa/riscv/ext/multiply.h"
#include "isa/riscv/ext/system.h"

namespace doppel::riscv {

inline constexpr auto kRows = std::tuple_cat(kIntegerRows, kMultiplyRows, kAtomicRows, kBitmanipRows,
                                             kSingleRows, kDoubleRows, kHalfRows, kCompressedRows, kSystemRows);
inline constexpr std::size_t kRowCount = std::tuple_size_v<decltype(kRows)>;

}  // namespace doppel::riscv
