#include "ir/opt/optimize.h"

#include <algorithm>
#include <array>

#include "ir/opt/passes.h"

namespace doppel::ir {
namespace {

// State first, so that values meet across guest instructions, and what only the state asked for is asked for no more;
// then what looks at values, each pass feeding the next; dead code last, for the others leave some.
constexpr Pass kPasses[] = {
    {"redundant_state", opt::redundant_state},
    {"dead_state", opt::dead_state},
    {"constant_folding", opt::constant_folding},
    {"extension_removal", opt::extension_removal},
    {"compare_fusion", opt::compare_fusion},
    {"quiet_comparison", opt::quiet_comparison},
    {"common_values", opt::common_values},
    {"address_folding", opt::address_folding},
    {"dead_code", opt::dead_code},
};
constexpr std::array<std::string_view, 2> kCombinations{"if_conversion", "block_joining"};

constexpr auto kNames = [] {
  std::array<std::string_view, std::size(kPasses) + kCombinations.size()> names;
  std::ranges::copy(kCombinations, std::ranges::transform(kPasses, names.begin(), &Pass::name).out);
  return names;
}();
static_assert(kNames.size() <= 32);

}  // namespace

std::span<const Pass> passes() { return kPasses; }
std::span<const std::string_view> pass_names() { return kNames; }

bool PassSet::set(std::string_view name, bool enabled) {
  const auto found = std::ranges::find(kNames, name);
  if (found == kNames.end()) return false;
  const std::uint32_t bit = std::uint32_t{1} << (found - kNames.begin());
  enabled_ = enabled ? enabled_ | bit : enabled_ & ~bit;
  return true;
}

bool PassSet::contains(Combination combination) const {
  return contains(static_cast<unsigned>(std::size(kPasses)) + static_cast<unsigned>(combination));
}

PassSet PassSet::quick() {
  PassSet set = all();
  for (const std::string_view name : {"extension_removal", "compare_fusion", "common_values"}) set.set(name, false);
  return set;
}

void optimize(Block& block, const PassSet& enabled) {
  for (unsigned index = 0; index < std::size(kPasses); ++index) {
    if (enabled.contains(index)) kPasses[index].run(block);
  }
}

}  // namespace doppel::ir
