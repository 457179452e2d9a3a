#include "device/goldfish_rtc/goldfish_rtc.h"

#include "device/fdt_view.h"
#include "device/test_env.h"

namespace doppel::test {
namespace {

enum : std::uint64_t {
  kTimeLow = 0x00,
  kTimeHigh = 0x04,
  kAlarmLow = 0x08,
  kAlarmHigh = 0x0c,
  kIrqEnabled = 0x10,
  kClearAlarm = 0x14,
  kAlarmStatus = 0x18,
  kClearInterrupt = 0x1c,
};

constexpr std::uint64_t kStart = 0x1776'5544'ffff'fff0;  // about 2023-08, close to a carry

struct GoldfishRtcTest : testing::Test {
  TestEnv env;
  std::unique_ptr<GoldfishRtc> rtc = std::make_unique<GoldfishRtc>(env.env(), kStart);

  std::uint64_t get(std::uint64_t offset) { return read(*rtc, offset, Width::k4); }
  void set(std::uint64_t offset, std::uint64_t value) { write(*rtc, offset, Width::k4, value & 0xffff'ffff); }
  std::uint64_t time() {
    const std::uint64_t low = get(kTimeLow);
    return get(kTimeHigh) << 32 | low;
  }
  void set_alarm(std::uint64_t at) {
    set(kAlarmHigh, at >> 32);
    set(kAlarmLow, at);
  }
};

TEST_F(GoldfishRtcTest, ShowsTheWallClockPlusVirtualTime) {
  EXPECT_EQ(time(), kStart);
  env.clock.set(1'000'000'000);
  EXPECT_EQ(time(), kStart + 1'000'000'000);
}

TEST_F(GoldfishRtcTest, ReadingTheLowHalfLatchesTheHigh) {
  const std::uint64_t low = get(kTimeLow);
  env.clock.set(0x20);
  EXPECT_EQ(get(kTimeHigh) << 32 | low, kStart);
}

TEST_F(GoldfishRtcTest, StartsAtTheHostsWallClock) {
  const std::uint64_t before = GoldfishRtc::host_wall_clock();
  rtc = std::make_unique<GoldfishRtc>(env.env());
  const std::uint64_t after = GoldfishRtc::host_wall_clock();
  EXPECT_LE(before, time());
  EXPECT_GE(after, time());
}

TEST_F(GoldfishRtcTest, TimeIsWritable) {
  set(kTimeHigh, 0x1234);
  set(kTimeLow, 0x5678);
  EXPECT_EQ(time(), 0x1234'0000'5678u);
  env.clock.set(2);
  EXPECT_EQ(time(), 0x1234'0000'567au);
}

TEST_F(GoldfishRtcTest, AlarmInterruptsOnceWhenReached) {
  set(kIrqEnabled, 1);
  set_alarm(kStart + 1000);
  EXPECT_EQ(get(kAlarmStatus), 1u);
  EXPECT_EQ(get(kAlarmHigh) << 32 | get(kAlarmLow), kStart + 1000);
  env.advance_to(999);
  EXPECT_FALSE(env.irq.level);
  env.advance_to(1000);
  EXPECT_TRUE(env.irq.level);
  EXPECT_EQ(get(kAlarmStatus), 0u);
  set(kClearInterrupt, 1);
  EXPECT_FALSE(env.irq.level);
  env.advance_to(5000);
  EXPECT_EQ(env.irq.rises, 1u);
}

TEST_F(GoldfishRtcTest, AlarmInThePastInterruptsAtOnceAndIsGatedByEnable) {
  set_alarm(kStart - 1);
  EXPECT_FALSE(env.irq.level);
  set(kIrqEnabled, 1);
  EXPECT_TRUE(env.irq.level);
  set(kIrqEnabled, 0);
  EXPECT_FALSE(env.irq.level);
}

TEST_F(GoldfishRtcTest, ClearedAlarmStaysSilent) {
  set(kIrqEnabled, 1);
  set_alarm(kStart + 1000);
  set(kClearAlarm, 1);
  EXPECT_EQ(get(kAlarmStatus), 0u);
  env.advance_to(2000);
  EXPECT_FALSE(env.irq.level);
}

TEST_F(GoldfishRtcTest, SettingTheClockPastTheAlarmRingsIt) {
  set(kIrqEnabled, 1);
  set_alarm(kStart + (std::uint64_t{1} << 40));
  set(kTimeHigh, 0x1800'0000);
  EXPECT_TRUE(env.irq.level);
}

TEST_F(GoldfishRtcTest, ResetKeepsTheTimeOnly) {
  set(kIrqEnabled, 1);
  set_alarm(0);
  ASSERT_TRUE(env.irq.level);
  {
    const std::lock_guard lock(rtc->monitor());
    rtc->reset();
  }
  EXPECT_FALSE(env.irq.level);
  EXPECT_EQ(get(kIrqEnabled), 0u);
  EXPECT_EQ(time(), kStart);
}

TEST_F(GoldfishRtcTest, RestoredClockGoesOnWhereTheSavedOneWas) {
  set(kIrqEnabled, 1);
  set_alarm(kStart + 1000);
  get(kTimeLow);
  const StateNode state = save(*rtc);
  rtc.reset();
  auto restored = GoldfishRtc::restore(env.env(), StateReader(state, "rtc"));
  ASSERT_TRUE(restored) << restored.error().message;
  rtc = std::move(*restored);
  EXPECT_EQ(get(kTimeHigh), kStart >> 32);
  EXPECT_EQ(time(), kStart);
  env.advance_to(1000);
  EXPECT_TRUE(env.irq.level);
  EXPECT_FALSE(GoldfishRtc::restore(env.env(), StateReader(StateNode{}, "rtc")));
}

TEST_F(GoldfishRtcTest, SurvivesRandomAccess) {
  access_at_random(*rtc, GoldfishRtc::kSizeBytes, 100'000, 5);
  access_at_random(*rtc, 0x20, 100'000, 6);
}

TEST_F(GoldfishRtcTest, DescribesItself) {
  const FdtView fdt = describe(
      *rtc, {.range = {{0x10'1000}, GoldfishRtc::kSizeBytes}, .irq = 11, .interrupt_parent = 5});
  EXPECT_EQ(fdt.texts("/rtc@101000", "compatible"), "google,goldfish-rtc");
  EXPECT_EQ(fdt.cells("/rtc@101000", "reg"), (Cells{0, 0x10'1000, 0, 0x1000}));
  EXPECT_EQ(fdt.cells("/rtc@101000", "interrupts"), Cells{11});
  EXPECT_EQ(fdt.cells("/rtc@101000", "interrupt-parent"), Cells{5});
}

}  // namespace
}  // namespace doppel::test
