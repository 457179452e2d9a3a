#include "ir/opt/optimize.h"

#include "ir/opt/passes.h"

namespace doppel::ir {
namespace {

constexpr Pass kPasses[] = {
    {"redundant_state", opt::redundant_state},
    {"dead_state", opt::dead_state},
};

}  // namespace

std::span<const Pass> passes() { return kPasses; }

bool PassSet::set(std::string_view name, bool enabled) {
  for (unsigned index = 0; index < std::size(kPasses); ++index) {
    if (kPasses[index].name != name) continue;
    const std::uint32_t bit = std::uint32_t{1} << index;
    enabled_ = enabled ? enabled_ | bit : enabled_ & ~bit;
    return true;
  }
  return false;
}

void optimize(Block& block, const PassSet& enabled) {
  for (unsigned index = 0; index < std::size(kPasses); ++index) {
    if (enabled.contains(index)) kPasses[index].run(block);
  }
}

}  // namespace doppel::ir
