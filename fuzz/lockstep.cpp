// Random programs on interpreter and translator in lockstep, for as long as asked (seeds.h). Ends with what the engines
// disagree about, and the seed that shows it again.
#include <random>

#include "engine/lockstep.h"
#include "seeds.h"

namespace {

using doppel::TranslatorEngine;
using doppel::engine_test::compare_engines;
using doppel::engine_test::Scenario;
using doppel::engine_test::ScenarioMaker;

// Other slices than the tests have, of which blocks fit or do not, and other times for code to become hot, for shadows and
// for the window.
TranslatorEngine::Options some_options(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto up_to = [&random](std::uint64_t most) { return 1 + random() % most; };
  TranslatorEngine::Options options{
      .slice = static_cast<std::int64_t>(up_to(random() % 2 == 0 ? 40 : 400)),
      .slices_a_sample = static_cast<unsigned>(up_to(3)),
      .hot_after = static_cast<std::uint8_t>(up_to(3)),
      .translate_after = static_cast<std::uint8_t>(up_to(4) - 1),
  };
  if (random() % 2 == 0) options.shadow_after = static_cast<std::uint32_t>(up_to(20));
  if (random() % 2 == 0) options.window_after = static_cast<std::uint32_t>(up_to(20));
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t open = 0;
  return doppel::try_seeds(
      argc, argv, "Compares interpreter and translator on random programs.",
      [&](std::uint64_t seed) {
        bool left_open = false;
        const Scenario scenario = ScenarioMaker(seed).make();
        std::string difference = compare_engines(scenario, doppel::ir::PassSet::all(), &left_open);
        if (difference.empty()) difference = compare_engines(scenario, some_options(seed), &left_open);
        open += left_open;
        return difference;
      },
      [&](std::uint64_t count) {
        return fmt::format("{} programs and no difference; of {} only up to code that changed without FENCE.I", count, open);
      });
}
