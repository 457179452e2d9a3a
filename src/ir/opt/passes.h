// The passes, one file each; optimize.cpp puts them in order.
#pragma once

#include "ir/ir.h"

namespace doppel::ir::opt {

// A get of state that the block has already read or written becomes that value; a set of what is there goes.
void redundant_state(Block& block);
// A set that a later one overwrites before anything could see it goes.
void dead_state(Block& block);

}  // namespace doppel::ir::opt
