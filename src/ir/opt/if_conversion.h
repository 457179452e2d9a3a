// Blocks that only branches keep apart become one.
#pragma once

#include <optional>

#include "ir/ir.h"

namespace doppel::ir {

// `head` ends with a branch over `side`, which lies behind it, to where `side` ends: the block that does both without a
// branch. What `side` computes is computed in any case, and chosen where it was to run. None where blocks lie otherwise, or
// where `side` does more than a few cheap operations on whole words of the state.
std::optional<Block> without_branch(const Block& head, const Block& side);

// `first` and then `second`, which lies behind it, where that is all that `first` goes on with.
std::optional<Block> joined(const Block& first, const Block& second);

}  // namespace doppel::ir
