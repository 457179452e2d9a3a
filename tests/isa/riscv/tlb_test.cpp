// The TLB as a whole: whatever is done, all that it has agrees with the page tables as far as fences ask for it.
#include "tlb_scenario.h"

#include <gtest/gtest.h>

namespace doppel::riscv::test {
namespace {

TEST(TlbScenarios, AgreeWithPageTables) {
  for (u64 seed = 1; seed <= 40; ++seed) EXPECT_EQ(TlbScenario(seed).run(400), "") << "seed " << seed;
}

}  // namespace
}  // namespace doppel::riscv::test
