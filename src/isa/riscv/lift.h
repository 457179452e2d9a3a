// From guest instructions to IR: the rows' semantics over an abstract machine whose words are IR values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "ir/ir.h"
#include "isa/common/block_limits.h"
#include "isa/riscv/decode.h"

namespace doppel::riscv {

// Byte offsets in HartState, for the lifter and for whoever names them in dumps.
namespace state_offset {
std::uint32_t x(unsigned index);
std::uint32_t f(unsigned index);
}  // namespace state_offset

// What the back end cannot do is left to the interpreter.
struct LiftOptions {
  bool fused_multiply_add = true;
  // Floating point and time are open to the code, whatever the CSRs say: no operating system of the guest's is there to
  // close them.
  bool open = false;
};

class Lifter {
 public:
  explicit Lifter(const IsaConfig& isa, const LiftOptions& options = {}) : decoder_(isa), options_(options) {}

  // Lifts the superblock at `offset` (even, in bytes) of a page whose content is `page`: instructions up to
  // the first that ends a block, the page's end, or the limits below. It goes on past conditional branches,
  // which become side exits. The block is position-independent: it finds its virtual page in the state. A program's, in
  // flat memory, lies at `base`, where its page does. `page` may be longer, for the end of its last instruction: in flat
  // memory that is what follows, elsewhere what seems to, and the block asks.
  void lift(std::span<const std::byte> page, unsigned offset, ir::Block& block, const isa::BlockLimits& limits = {},
            std::optional<std::uint64_t> base = std::nullopt) const;

  static constexpr unsigned kMostInstructions = isa::BlockLimits::kMostInstructions;
  static constexpr unsigned kMostBranches = 6;

 private:
  Decoder decoder_;
  LiftOptions options_;
};

}  // namespace doppel::riscv
