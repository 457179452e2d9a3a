// Hot regions: the basic blocks of a loop, of all loops around it within one page, compiled together with the
// guest registers that they use most in host registers.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "host/x64/compile.h"
#include "ir/ir.h"
#include "isa/common/block_limits.h"

namespace doppel {

// What reads guest instructions: lifts the block at an offset of a page's bytes.
using LiftFunction = std::function<void(std::span<const std::byte> page, unsigned offset,
                                        const isa::BlockLimits& limits, ir::Block& block)>;

struct Region {
  std::deque<ir::Block> blocks;           // optimized
  std::vector<x64::RegionBlock> parts;    // of them, the head first, then by address
  x64::Pins pins;
  unsigned instructions = 0;              // of the guest
};

// The blocks from which control can come back to `head`, a page offset, without leaving the page. `heat` counts how often
// each halfword of the page was seen running. None when `head` is in no loop.
std::optional<Region> form_region(std::span<const std::byte> page, unsigned head, const LiftFunction& lift,
                                  const x64::StateOffsets& offsets, std::span<const std::uint8_t> heat);

}  // namespace doppel
