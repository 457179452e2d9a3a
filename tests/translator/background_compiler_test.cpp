#include "translator/background_compiler.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <vector>

namespace doppel {
namespace {

TEST(BackgroundCompiler, DoesJobsInOrderOnAnotherThread) {
  BackgroundCompiler compiler;
  std::vector<int> order;
  std::promise<std::thread::id> last;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(compiler.submit([&order, i] { order.push_back(i); }));
  ASSERT_TRUE(compiler.submit([&] { last.set_value(std::this_thread::get_id()); }));
  EXPECT_NE(last.get_future().get(), std::this_thread::get_id());
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

// A job that stays until it is let go.
class Gate {
 public:
  std::function<void()> job() {
    return [this] {
      begun_.set_value();
      open_.get_future().wait();
    };
  }
  void wait_for_begin() { begun_.get_future().wait(); }
  void open() { open_.set_value(); }

 private:
  std::promise<void> begun_, open_;
};

TEST(BackgroundCompiler, TakesOnlySoManyJobs) {
  BackgroundCompiler compiler;
  Gate gate;
  std::atomic<unsigned> done = 0;
  ASSERT_TRUE(compiler.submit(gate.job()));
  gate.wait_for_begin();
  for (std::size_t i = 0; i < BackgroundCompiler::kMostWaiting; ++i) ASSERT_TRUE(compiler.submit([&] { ++done; }));
  EXPECT_FALSE(compiler.submit([&] { ++done; }));
  gate.open();
  std::promise<void> all;
  while (!compiler.submit([&] { all.set_value(); })) std::this_thread::yield();
  all.get_future().wait();
  EXPECT_EQ(done, BackgroundCompiler::kMostWaiting);
}

// What has begun is finished; what waits is not done any more, and lets go of what it has.
TEST(BackgroundCompiler, EndsWithWorkLeft) {
  Gate gate;
  const auto owned = std::make_shared<int>(0);
  std::atomic<bool> ended = false;
  std::thread opener;
  {
    BackgroundCompiler compiler;
    ASSERT_TRUE(compiler.submit(gate.job()));
    gate.wait_for_begin();
    ASSERT_TRUE(compiler.submit([owned] { ++*owned; }));
    opener = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      EXPECT_FALSE(ended);
      gate.open();
    });
  }
  ended = true;
  opener.join();
  EXPECT_EQ(*owned, 0);
  EXPECT_EQ(owned.use_count(), 1);
}

TEST(BackgroundCompiler, EndsUnused) { const BackgroundCompiler compiler; }

TEST(BackgroundCompiler, TakesJobsOfSeveralThreads) {
  std::atomic<unsigned> taken = 0, done = 0;
  {
    BackgroundCompiler compiler;
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        for (int j = 0; j < 1000; ++j) taken += compiler.submit([&] { ++done; });
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::promise<void> all;
    while (!compiler.submit([&] { all.set_value(); })) std::this_thread::yield();
    all.get_future().wait();
    EXPECT_EQ(done, taken);
  }
  EXPECT_GT(taken, 0u);
}

}  // namespace
}  // namespace doppel
