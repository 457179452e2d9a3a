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
#include "ir/opt/optimize.h"
#include "isa/common/block_limits.h"

namespace doppel {

// What reads guest instructions: lifts the block at an offset of a page's bytes. The page's address matters only to code
// that knows its own. Any thread may call it, also when the cache is gone that it was given to.
using LiftFunction = std::function<void(std::span<const std::byte> page, std::uint64_t base, unsigned offset,
                                        const isa::BlockLimits& limits, ir::Block& block)>;

struct Region {
  std::deque<ir::Block> blocks;           // optimized
  std::vector<x64::PlacedBlock> parts;    // of them, the head first, then by address
  x64::Pins pins;
  unsigned instructions = 0;              // of the guest
};

// A branch at the end of `head` over little code, `side`: their page offsets and how many instructions they have.
struct ShortBranch {
  unsigned head, side;
  std::size_t head_instructions, side_instructions;
};

// What is known of how a page's code runs.
struct RegionProfile {
  std::function<unsigned(unsigned offset)> heat;  // how often the block there was seen running
  std::function<bool(const ShortBranch&)> goes_both_ways;
};

// The blocks from which control can come back to `head`, a page offset, without leaving the page, which lies at `base`.
// None when `head` is in no loop. Branches that go both ways become choices where they can. `passes` run.
std::optional<Region> form_region(std::span<const std::byte> page, std::uint64_t base, unsigned head,
                                  const LiftFunction& lift, const x64::StateOffsets& offsets,
                                  const RegionProfile& profile, const ir::PassSet& passes = ir::PassSet::all());

}  // namespace doppel
