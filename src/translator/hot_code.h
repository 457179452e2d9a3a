// Code that is hot, compiled as well as it gets: as a region, if it is in a loop, else as a block with all passes. A
// function of nothing but a snapshot of what is known of the page, so that it can be called while the page changes. Any
// thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "host/x64/compile.h"
#include "ir/ir.h"
#include "ir/opt/optimize.h"
#include "isa/common/block_limits.h"
#include "memory/address.h"
#include "translator/region.h"

namespace doppel {

// How guest code becomes the host's.
struct HotPipeline {
  LiftFunction lift;
  ir::PassSet passes;
  x64::Compiler compiler;
};

struct HotSource {
  std::vector<std::byte> page;  // its bytes, and what is known of those behind
  std::uint64_t base;           // its address
  unsigned offset;              // of the code in question
  bool is_region;               // already: there is no use for a block
  std::array<std::uint8_t, kPageSize / 2> heat{};  // by halfword: how often the block there was found running
  isa::PageOffsets both_ways{};                    // the blocks whose branch goes both ways
  std::optional<x64::Window> window{};             // in paged memory, if there is one
  std::uint64_t unfit = 0;                         // page slots that are not to be used
};

struct HotCode {
  x64::EmittedCode emitted;
  std::optional<x64::Pins> pins;       // of a region
  std::vector<std::pair<std::size_t, std::size_t>> parts;  // what it was made of: page offsets, first and behind the last
  std::vector<ShortBranch> branches;   // of a region: over which there could be a choice
  ir::Block optimized;                 // of a region its first block
  ir::Block lifted;                    // not of a region
};

// Nothing if it is a region, and there would be none.
std::optional<HotCode> compile_hot(const HotPipeline& how, const HotSource& source);

// Verifies the lifter's and the passes' work in debug and sanitizer builds.
void check(const ir::Block& block);

}  // namespace doppel
