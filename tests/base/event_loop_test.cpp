#include "base/event_loop.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace doppel {
namespace {

using std::chrono::milliseconds;

HostTime now() { return std::chrono::steady_clock::now(); }

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;

  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    reader = UniqueFd(ends[0]);
    writer = UniqueFd(ends[1]);
  }
  void put(char byte) const { EXPECT_EQ(::write(writer.get(), &byte, 1), 1); }
  char take() const {
    char byte = 0;
    EXPECT_EQ(::read(reader.get(), &byte, 1), 1);
    return byte;
  }
};

TEST(EventLoop, RunsPostedFunctionsInOrder) {
  EventLoop loop;
  std::string order;
  loop.post([&] { order += 'a'; });
  loop.post([&] {
    order += 'b';
    loop.post([&] {
      order += 'd';
      loop.stop();
    });
  });
  loop.post([&] { order += 'c'; });
  loop.run();
  EXPECT_EQ(order, "abcd");
}

TEST(EventLoop, StopBeforeRunReturnsAtOnceAndOnlyOnce) {
  EventLoop loop;
  loop.stop();
  loop.run();
  bool ran = false;
  loop.post([&] {
    ran = true;
    loop.stop();
  });
  loop.run();
  EXPECT_TRUE(ran);
}

TEST(EventLoop, FiresTimersByDeadlineWhateverTheOrderOfArming) {
  EventLoop loop;
  std::string order;
  const auto c = loop.make_timer([&] {
    order += 'c';
    loop.stop();
  });
  const auto a = loop.make_timer([&] { order += 'a'; });
  const auto b = loop.make_timer([&] { order += 'b'; });
  const HostTime start = now();
  c->arm(start + milliseconds(3));
  b->arm(start + milliseconds(2));
  a->arm(start + milliseconds(1));
  loop.run();
  EXPECT_EQ(order, "abc");
}

TEST(EventLoop, TimerNeverFiresEarly) {
  EventLoop loop;
  const HostTime deadline = now() + milliseconds(5);
  HostTime fired{};
  const auto timer = loop.make_timer([&] {
    fired = now();
    loop.stop();
  });
  timer->arm(deadline);
  loop.run();
  EXPECT_GE(fired, deadline);
}

TEST(EventLoop, ArmingReplacesTheDeadlineInBothDirections) {
  EventLoop loop;
  unsigned fired = 0;
  const auto sooner = loop.make_timer([&] { ++fired; });
  sooner->arm(HostTime::max());
  sooner->arm(now());
  const auto never = loop.make_timer([] { FAIL() << "its deadline was moved away"; });
  never->arm(now());
  never->arm(HostTime::max());
  const auto last = loop.make_timer([&] { loop.stop(); });
  last->arm(now() + milliseconds(2));
  loop.run();
  EXPECT_EQ(fired, 1u);
}

TEST(EventLoop, CancelledAndDestroyedTimersStaySilentAlsoWhenAlreadyDue) {
  EventLoop loop;
  auto doomed = loop.make_timer([] { FAIL() << "destroyed"; });
  auto cancelled = loop.make_timer([] { FAIL() << "cancelled"; });
  const HostTime due = now();
  const auto first = loop.make_timer([&] {
    doomed.reset();
    cancelled->cancel();
    loop.stop();
  });
  first->arm(due);
  doomed->arm(due);
  cancelled->arm(due);
  loop.run();
}

TEST(EventLoop, TimerMayRearmAndThenDestroyItself) {
  EventLoop loop;
  unsigned rounds = 0;
  std::unique_ptr<EventLoop::Timer> repeating;
  repeating = loop.make_timer([&] {
    if (++rounds < 3) {
      repeating->arm(now());
    } else {
      repeating.reset();
      loop.stop();
    }
  });
  repeating->arm(now());
  loop.run();
  EXPECT_EQ(rounds, 3u);
}

TEST(EventLoop, TimerThatArmsItselfForThePastDoesNotStarveOthers) {
  EventLoop loop;
  const Pipe pipe;
  std::unique_ptr<EventLoop::Timer> greedy;
  greedy = loop.make_timer([&] { greedy->arm(HostTime{}); });
  greedy->arm(HostTime{});
  loop.watch(pipe.reader.get(), EventLoop::kReadable, [&](std::uint32_t) { loop.stop(); });
  pipe.put('x');
  loop.run();
}

TEST(EventLoop, ReportsReadiness) {
  EventLoop loop;
  const Pipe pipe;
  std::string seen;
  loop.watch(pipe.reader.get(), EventLoop::kReadable, [&](std::uint32_t ready) {
    EXPECT_NE(ready & EventLoop::kReadable, 0u);
    seen += pipe.take();
    if (seen == "xy") loop.stop();
  });
  pipe.put('x');
  pipe.put('y');
  loop.run();
  EXPECT_EQ(seen, "xy");
}

TEST(EventLoop, ReportsHangup) {
  EventLoop loop;
  Pipe pipe;
  std::uint32_t seen = 0;
  loop.watch(pipe.reader.get(), EventLoop::kReadable, [&](std::uint32_t ready) {
    seen = ready;
    loop.stop();
  });
  pipe.writer = UniqueFd();
  loop.run();
  EXPECT_NE(seen & EventLoop::kHangup, 0u);
}

TEST(EventLoop, ChangesInterest) {
  EventLoop loop;
  const Pipe pipe;
  bool writable = false;
  loop.watch(pipe.writer.get(), 0, [&](std::uint32_t ready) {
    writable = (ready & EventLoop::kWritable) != 0;
    loop.stop();
  });
  loop.post([&] { loop.change_interest(pipe.writer.get(), EventLoop::kWritable); });
  loop.run();
  EXPECT_TRUE(writable);
}

TEST(EventLoop, CallbackMayUnwatchItselfAndOthersThatAreReady) {
  EventLoop loop;
  const Pipe one;
  const Pipe two;
  unsigned calls = 0;
  const auto callback = [&](std::uint32_t) {
    ++calls;
    loop.unwatch(one.reader.get());
    loop.unwatch(two.reader.get());
    loop.stop();
  };
  loop.watch(one.reader.get(), EventLoop::kReadable, callback);
  loop.watch(two.reader.get(), EventLoop::kReadable, callback);
  one.put('x');
  two.put('x');
  loop.run();
  EXPECT_EQ(calls, 1u);
}

TEST(EventLoop, StaleReadinessDoesNotReachAReusedDescriptorNumber) {
  EventLoop loop;
  const Pipe one;
  const Pipe two;
  const Pipe fresh;
  unsigned first_calls = 0;
  // Whichever is reported first replaces the other's descriptor, which had been ready too.
  const auto replace = [&](const Pipe& self, const Pipe& other) {
    ++first_calls;
    loop.unwatch(self.reader.get());
    const int number = other.reader.get();
    loop.unwatch(number);
    EXPECT_EQ(::dup2(fresh.reader.get(), number), number);
    loop.watch(number, EventLoop::kReadable, [](std::uint32_t) { FAIL() << "it has nothing to read"; });
    loop.stop();
  };
  loop.watch(one.reader.get(), EventLoop::kReadable, [&](std::uint32_t) { replace(one, two); });
  loop.watch(two.reader.get(), EventLoop::kReadable, [&](std::uint32_t) { replace(two, one); });
  one.put('x');
  two.put('x');
  loop.run();
  EXPECT_EQ(first_calls, 1u);
}

TEST(EventLoop, RefusesWhatHasNoReadiness) {
  EventLoop loop;
  const UniqueFd null(::open("/dev/null", O_RDONLY));
  EXPECT_THROW(loop.watch(null.get(), EventLoop::kReadable, [](std::uint32_t) {}), std::system_error);
}

TEST(EventLoop, TakesWorkFromManyThreads) {
  constexpr unsigned kThreads = 4;
  constexpr unsigned kRounds = 1000;
  EventLoop loop;
  unsigned posted = 0;  // written on the loop's thread only
  std::atomic<unsigned> fired = 0;
  std::vector<std::unique_ptr<EventLoop::Timer>> timers;
  for (unsigned i = 0; i < kThreads; ++i) timers.push_back(loop.make_timer([&] { ++fired; }));
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (unsigned round = 0; round < kRounds; ++round) {
        timers[i]->arm(now());
        loop.post([&] {
          if (++posted == kThreads * kRounds) loop.stop();
        });
        if (round % 3 == 0) timers[i]->cancel();
      }
    });
  }
  loop.run();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(posted, kThreads * kRounds);
  EXPECT_LE(fired, kThreads * kRounds);
}

}  // namespace
}  // namespace doppel
