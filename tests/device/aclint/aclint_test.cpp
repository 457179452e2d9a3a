#include "device/aclint/aclint.h"

#include "device/fdt_view.h"
#include "device/test_env.h"

namespace doppel::test {
namespace {

constexpr std::uint64_t kMtimecmp = 0x4000;
constexpr std::uint64_t kMtime = 0xbff8;
constexpr std::uint64_t kTick = 100;  // nanoseconds

struct AclintTest : testing::Test {
  static constexpr unsigned kHarts = 2;

  TestEnv env;
  std::array<Wire, kHarts> msip;
  std::array<Wire, kHarts> mtip;
  std::unique_ptr<Aclint> aclint = std::make_unique<Aclint>(env.env(), lines());

  std::vector<Aclint::HartLines> lines() {
    std::vector<Aclint::HartLines> harts;
    for (unsigned i = 0; i < kHarts; ++i) harts.push_back({msip[i].line(), mtip[i].line()});
    return harts;
  }
};

TEST_F(AclintTest, SoftwareInterruptsAreOneBitAHart) {
  write(*aclint, 4, Width::k4, 0xffff'ffff);
  EXPECT_FALSE(msip[0].level);
  EXPECT_TRUE(msip[1].level);
  EXPECT_EQ(read(*aclint, 4, Width::k4), 1u);
  EXPECT_EQ(read(*aclint, 0, Width::k8), std::uint64_t{1} << 32);
  write(*aclint, 0, Width::k8, 1);
  EXPECT_TRUE(msip[0].level);
  EXPECT_FALSE(msip[1].level);
  write(*aclint, 0, Width::k4, 2);
  EXPECT_FALSE(msip[0].level);
}

TEST_F(AclintTest, MtimeCountsVirtualTimeInTicks) {
  env.clock.set(1234 * kTick + 99);
  EXPECT_EQ(read(*aclint, kMtime, Width::k8), 1234u);
  EXPECT_EQ(aclint->mtime(), 1234u);
  env.clock.set((std::uint64_t{5} << 32 | 6) * kTick);
  EXPECT_EQ(read(*aclint, kMtime, Width::k4), 6u);
  EXPECT_EQ(read(*aclint, kMtime + 4, Width::k4), 5u);
}

TEST_F(AclintTest, MtimeIsWritable) {
  env.clock.set(1000 * kTick);
  write(*aclint, kMtime, Width::k8, 5);
  EXPECT_EQ(read(*aclint, kMtime, Width::k8), 5u);
  env.clock.set(1002 * kTick);
  EXPECT_EQ(read(*aclint, kMtime, Width::k8), 7u);
  write(*aclint, kMtime + 4, Width::k4, 1);
  EXPECT_EQ(read(*aclint, kMtime, Width::k8), std::uint64_t{1} << 32 | 7);

  write(*aclint, kMtimecmp, Width::k8, 100);
  EXPECT_TRUE(mtip[0].level);
  write(*aclint, kMtime, Width::k8, 99);
  EXPECT_FALSE(mtip[0].level);
}

TEST_F(AclintTest, TimerLineFollowsTheComparison) {
  EXPECT_FALSE(mtip[0].level);
  write(*aclint, kMtimecmp, Width::k8, 50);
  write(*aclint, kMtimecmp + 8, Width::k8, 80);
  env.advance_to(49 * kTick);
  EXPECT_FALSE(mtip[0].level);
  env.advance_to(50 * kTick);
  EXPECT_TRUE(mtip[0].level);
  EXPECT_FALSE(mtip[1].level);
  env.advance_to(90 * kTick);
  EXPECT_TRUE(mtip[1].level);
  write(*aclint, kMtimecmp, Width::k8, 91);
  EXPECT_FALSE(mtip[0].level);
  write(*aclint, kMtimecmp, Width::k8, 90);
  EXPECT_TRUE(mtip[0].level);
}

TEST_F(AclintTest, MtimecmpHalvesAreSeparate) {
  env.clock.set(10 * kTick);
  // The manual's sequence for 32-bit harts: never a value smaller than both.
  write(*aclint, kMtimecmp, Width::k4, ~0u);
  write(*aclint, kMtimecmp + 4, Width::k4, 0);
  EXPECT_FALSE(mtip[0].level);
  EXPECT_EQ(read(*aclint, kMtimecmp, Width::k8), 0xffff'ffffu);
  write(*aclint, kMtimecmp, Width::k4, 9);
  EXPECT_TRUE(mtip[0].level);
  EXPECT_EQ(mtip[0].rises, 1u);
}

TEST_F(AclintTest, DistantDeadlinesAreNever) {
  env.clock.set(1'000'000);
  for (const std::uint64_t deadline : {~0ull, ~0ull - 1, ~0ull / kTick, ~0ull / kTick + 1, 1ull << 63}) {
    write(*aclint, kMtimecmp, Width::k8, deadline);
    env.advance_to(env.clock.now() + kTick);
    EXPECT_FALSE(mtip[0].level) << deadline;
  }
}

TEST_F(AclintTest, UnmappedWordsAndWidthsAreInert) {
  write(*aclint, 4 * kHarts, Width::k4, 1);
  write(*aclint, kMtimecmp + 8 * kHarts, Width::k8, 0);
  write(*aclint, 0, Width::k1, 1);
  write(*aclint, 0, Width::k2, 1);
  EXPECT_EQ(read(*aclint, 4 * kHarts, Width::k4), 0u);
  EXPECT_EQ(read(*aclint, kMtime, Width::k1), 0u);
  EXPECT_FALSE(msip[0].level);
}

TEST_F(AclintTest, ResetLowersAllLines) {
  write(*aclint, 0, Width::k4, 1);
  write(*aclint, kMtimecmp, Width::k8, 0);
  ASSERT_TRUE(msip[0].level && mtip[0].level);
  {
    const std::lock_guard lock(aclint->monitor());
    aclint->reset();
  }
  EXPECT_FALSE(msip[0].level);
  EXPECT_FALSE(mtip[0].level);
}

TEST_F(AclintTest, RestoredDeviceGoesOnWhereTheSavedOneWas) {
  write(*aclint, kMtime, Width::k8, 1'000);
  write(*aclint, 4, Width::k4, 1);
  write(*aclint, kMtimecmp, Width::k8, 1'010);
  write(*aclint, kMtimecmp + 8, Width::k8, 1'000);
  const StateNode state = save(*aclint);
  aclint.reset();
  for (Wire& wire : msip) wire.level = false;
  for (Wire& wire : mtip) wire.level = false;

  auto restored = Aclint::restore(env.env(), lines(), StateReader(state, "aclint"));
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_TRUE(msip[1].level);
  EXPECT_FALSE(mtip[0].level);
  EXPECT_TRUE(mtip[1].level);
  EXPECT_EQ((*restored)->mtime(), 1'000u);
  env.advance_to(10 * kTick);
  EXPECT_TRUE(mtip[0].level);

  std::vector<Aclint::HartLines> one_hart(1);
  EXPECT_FALSE(Aclint::restore(env.env(), one_hart, StateReader(state, "aclint")));
}

TEST_F(AclintTest, SurvivesRandomAccess) { access_at_random(*aclint, Aclint::kSizeBytes, 200'000, 1); }

TEST_F(AclintTest, DescribesItself) {
  const std::array<Phandle, 2> harts = {4, 2};
  const FdtView fdt =
      describe(*aclint, {.range = {{0x200'0000}, Aclint::kSizeBytes}, .hart_controllers = harts});
  EXPECT_EQ(fdt.texts("/clint@2000000", "compatible"), "sifive,clint0 riscv,clint0");
  EXPECT_EQ(fdt.cells("/clint@2000000", "reg"), (Cells{0, 0x200'0000, 0, 0x10000}));
  EXPECT_EQ(fdt.cells("/clint@2000000", "interrupts-extended"), (Cells{4, 3, 4, 7, 2, 3, 2, 7}));
}

}  // namespace
}  // namespace doppel::test
