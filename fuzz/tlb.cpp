// Random guests of the MMU, for as long as asked (seeds.h). Ends with what the TLB has that the page tables do not say, and the
// seed that shows it again.
#include "isa/riscv/tlb_scenario.h"
#include "seeds.h"

int main(int argc, char** argv) {
  constexpr unsigned kActions = 2000;
  return doppel::try_seeds(
      argc, argv, "Compares the TLB with page tables.",
      [](std::uint64_t seed) { return doppel::riscv::test::TlbScenario(seed).run(kActions); },
      [](std::uint64_t count) { return fmt::format("{} guests, and all as the page tables say", count); });
}
