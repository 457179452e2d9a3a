// Where a block of guest code ends besides at an instruction that always ends one.
#pragma once

#include <bitset>

#include "memory/address.h"

namespace doppel::isa {

// A set of instruction addresses of one page, by halfword.
using PageOffsets = std::bitset<kPageSize / 2>;

struct BlockLimits {
  static constexpr unsigned kMostInstructions = 64;
  static constexpr unsigned kMostBytes = 4 * kMostInstructions;

  bool at_branches = false;           // after each conditional branch; otherwise blocks go on past some
  const PageOffsets* heads = nullptr;  // before these, where other blocks begin
};

}  // namespace doppel::isa
