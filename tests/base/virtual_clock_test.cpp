#include "base/virtual_clock.h"

#include <gtest/gtest.h>

namespace doppel {
namespace {

using std::chrono::milliseconds;

TEST(VirtualClock, StandsStillWhilePaused) {
  VirtualClock clock(1000);
  EXPECT_FALSE(clock.paused());
  clock.pause();
  EXPECT_TRUE(clock.paused());
  const auto at = clock.now();
  EXPECT_GE(at, 1000u);
  const HostTime until = std::chrono::steady_clock::now() + milliseconds(2);
  while (std::chrono::steady_clock::now() < until) EXPECT_EQ(clock.now(), at);
  clock.resume();
  EXPECT_GE(clock.now(), at);
}

TEST(VirtualClock, HostTimeInvertsNow) {
  VirtualClock clock(5'000'000'000);
  const HostTime before = std::chrono::steady_clock::now();
  const auto at = clock.now();
  const HostTime after = std::chrono::steady_clock::now();
  EXPECT_LE(before, clock.host_time(at));
  EXPECT_GE(after, clock.host_time(at));
  EXPECT_EQ(clock.host_time(at + 7) - clock.host_time(at), std::chrono::nanoseconds(7));
}

TEST(VirtualClock, DistantTimesDoNotWrap) {
  VirtualClock clock;
  EXPECT_EQ(clock.host_time(~std::uint64_t{0}), HostTime::max());
  EXPECT_EQ(clock.host_time(~std::uint64_t{0} >> 1), HostTime::max());
}

TEST(VirtualTimer, WaitsThroughAPause) {
  EventLoop loop;
  VirtualClock clock;
  bool fired = false;
  VirtualTimer timer(loop, clock, [&] { fired = true; });
  const VirtualClock::Nanoseconds deadline = clock.now() + 1'000'000;
  timer.arm(deadline);
  clock.pause();
  clock.set(deadline - 500'000);
  // The host's time passes the deadline, virtual time does not.
  const auto host_timer = loop.make_timer([&] { loop.stop(); });
  host_timer->arm(std::chrono::steady_clock::now() + milliseconds(3));
  loop.run();
  EXPECT_FALSE(fired);
  VirtualTimer last(loop, clock, [&] { loop.stop(); });
  last.arm(deadline);
  clock.resume();
  loop.run();
  EXPECT_TRUE(fired);
}

TEST(VirtualTimer, FollowsAClockThatIsMovedByHand) {
  EventLoop loop;
  VirtualClock clock;
  clock.pause();
  clock.set(100);
  unsigned fired = 0;
  VirtualTimer timer(loop, clock, [&] { ++fired; });
  timer.arm(200);
  const auto move_to = [&](VirtualClock::Nanoseconds time) {
    clock.set(time);
    VirtualTimer last(loop, clock, [&] { loop.stop(); });
    last.arm(time);
    loop.run();
  };
  move_to(199);
  EXPECT_EQ(fired, 0u);
  move_to(200);
  EXPECT_EQ(fired, 1u);
  move_to(300);
  EXPECT_EQ(fired, 1u);
}

TEST(VirtualTimer, FiresNeitherEarlyNorTwice) {
  EventLoop loop;
  VirtualClock clock;
  unsigned fired = 0;
  const VirtualClock::Nanoseconds deadline = clock.now() + 3'000'000;
  VirtualTimer timer(loop, clock, [&] {
    ++fired;
    EXPECT_GE(clock.now(), deadline);
  });
  timer.arm(deadline);
  // The pause makes the host's deadline wrong.
  clock.pause();
  clock.set(deadline - 2'000'000);
  clock.resume();
  VirtualTimer last(loop, clock, [&] { loop.stop(); });
  last.arm(deadline + 1'000'000);
  loop.run();
  EXPECT_EQ(fired, 1u);
}

TEST(VirtualTimer, CancelledOrDistantNeverFires) {
  EventLoop loop;
  VirtualClock clock;
  VirtualTimer cancelled(loop, clock, [] { FAIL(); });
  VirtualTimer distant(loop, clock, [] { FAIL(); });
  cancelled.arm(clock.now());
  cancelled.cancel();
  distant.arm(~std::uint64_t{0});
  clock.pause();
  clock.resume();
  VirtualTimer last(loop, clock, [&] { loop.stop(); });
  last.arm(clock.now());
  loop.run();
}

}  // namespace
}  // namespace doppel
