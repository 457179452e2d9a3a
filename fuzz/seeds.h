// What programs that make their own scenarios, by numbers, have in common:
//
//   PROGRAM --seed 1 --count 1000    these scenarios, and no more
//   PROGRAM --seconds 60             from a seed that nobody tried before
#pragma once

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>

namespace doppel {

// Calls `wrong_with` for one seed after the other, until it names what is wrong, which ends the program with that seed, or
// for as long as asked. Then `done` says how that went.
inline int try_seeds(int argc, char** argv, const std::string& description,
                     const std::function<std::string(std::uint64_t seed)>& wrong_with,
                     const std::function<std::string(std::uint64_t count)>& done) {
  using Clock = std::chrono::steady_clock;
  std::uint64_t seed = std::random_device()() * std::uint64_t{1'000'000};
  std::uint64_t count = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t seconds = 60;
  CLI::App app(description);
  app.add_option("--seed", seed, "The first scenario; those after it are of the numbers after it");
  CLI::Option* counted = app.add_option("--count", count, "How many scenarios");
  app.add_option("--seconds", seconds, "For how long, without --count")->excludes(counted);
  CLI11_PARSE(app, argc, argv);

  const Clock::time_point end =
      counted->count() != 0 ? Clock::time_point::max() : Clock::now() + std::chrono::seconds(seconds);
  std::uint64_t tried = 0;
  for (; tried < count && Clock::now() < end; ++tried) {
    // Should the program itself give up, the last line says on what.
    fmt::print(stderr, "\rseed {} ", seed + tried);
    const std::string wrong = wrong_with(seed + tried);
    if (wrong.empty()) continue;
    fmt::print("\nseed {}: {}", seed + tried, wrong);
    return 1;
  }
  fmt::print(stderr, "\r{} from seed {}: {}\n", tried, seed, done(tried));
  return 0;
}

}  // namespace doppel
