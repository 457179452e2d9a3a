// What the pure integer operations compute: the one definition that the evaluator and constant folding share.
#pragma once

#include <cstdint>

#include "ir/ir.h"

namespace doppel::ir {

// The value of `op` for operands a, b and c, of which it uses the first info(op).operands. `op` is pure, its
// operands and its result are kI64, and it has operands.
std::uint64_t compute(Op op, std::uint64_t a, std::uint64_t b, std::uint64_t c);

}  // namespace doppel::ir
