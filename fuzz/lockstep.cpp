// Random programs on interpreter and translator in lockstep, for as long as asked:
//
//   lockstep --seed 1 --count 1000    these programs, and no more
//   lockstep --seconds 60             from a seed that nobody tried before
//
// Ends with what the engines disagree about, and the seed that shows it again.
#include <CLI/CLI.hpp>

#include <chrono>
#include <limits>
#include <random>

#include "engine/lockstep.h"

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
  using Clock = std::chrono::steady_clock;
  std::uint64_t seed = std::random_device()() * std::uint64_t{1'000'000};
  std::uint64_t count = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t seconds = 60;
  CLI::App app("Compares interpreter and translator on random programs.");
  app.add_option("--seed", seed, "The first program; those after it are of the numbers after it");
  CLI::Option* counted = app.add_option("--count", count, "How many programs");
  app.add_option("--seconds", seconds, "For how long, without --count")->excludes(counted);
  CLI11_PARSE(app, argc, argv);

  const Clock::time_point end =
      counted->count() != 0 ? Clock::time_point::max() : Clock::now() + std::chrono::seconds(seconds);
  std::uint64_t done = 0, open = 0;
  for (; done < count && Clock::now() < end; ++done) {
    // Should the translator itself give up, the last line says on what.
    fmt::print(stderr, "\rseed {} ", seed + done);
    bool left_open = false;
    const Scenario scenario = ScenarioMaker(seed + done).make();
    std::string difference = compare_engines(scenario, doppel::ir::PassSet::all(), &left_open);
    if (difference.empty()) difference = compare_engines(scenario, some_options(seed + done), &left_open);
    open += left_open;
    if (difference.empty()) continue;
    fmt::print("\nseed {}: {}", seed + done, difference);
    return 1;
  }
  fmt::print(stderr, "\r{} programs from seed {}: no difference; of {} only up to code that changed without FENCE.I\n",
             done, seed, open);
}
