// The passes, one file each; optimize.cpp puts them in order.
#pragma once

#include "ir/ir.h"

namespace doppel::ir::opt {

// A get of state that the block has already read or written becomes that value; a set of what is there goes.
void redundant_state(Block& block);
// Operations on constants are done; algebraic identities apply; commutative ones have constants on the right.
void constant_folding(Block& block);
// Extensions and masks that change nothing, or nothing that their user looks at, go.
void extension_removal(Block& block);
// Exits and selections ask comparisons directly.
void compare_fusion(Block& block);
// Comparisons between reading the accrued flags and writing them back as they were become quiet ones.
void quiet_comparison(Block& block);
// Equal pure operations become one.
void common_values(Block& block);
// Constants that are added to an address move into the access.
void address_folding(Block& block);
// A set that a later one overwrites before anything could see it goes.
void dead_state(Block& block);
// Unused values go, and the rest is renumbered.
void dead_code(Block& block);

}  // namespace doppel::ir::opt
