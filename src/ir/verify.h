// The rules that every block keeps, before and after each pass.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "ir/ir.h"

namespace doppel::ir {

// The longest block. Passes may lengthen one, and values must stay below kNone.
inline constexpr std::size_t kMostInsts = 8192;

// Each operand is a value of the right type that stands before its use; an instruction has as many operands as
// its operation takes, and a detail and an immediate in range; the origins ascend and exist; the block ends with
// its only kExit, kExitTo or kExitState. Otherwise one sentence that names the first instruction at fault.
Result<void> verify(const Block& block);

}  // namespace doppel::ir
