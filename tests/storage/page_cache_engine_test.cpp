// What the engine in front of the others does itself and what it passes on, over a host of the test's making.
#include "storage/page_cache_engine.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <vector>

namespace doppel {
namespace {

using Kind = FileOperation::Kind;
using std::chrono::milliseconds;

// Finishes everything with kBehind.
constexpr std::int64_t kBehind = 77;

class EngineBehind final : public IoEngine {
 public:
  void start(FileOperation& operation) override { started_.push(operation); }
  void commit() override {
    ++commits;
    while (FileOperation* operation = started_.pop()) {
      operation->result = kBehind;
      finished_.push(*operation);
    }
  }
  FileOperation* finished() override { return finished_.pop(); }
  void wait() override { ++waits; }
  void on_ready(std::function<void()>) override {}

  int commits = 0;
  int waits = 0;

 private:
  FileOperationList started_;
  FileOperationList finished_;
};

class PageCacheEngineTest : public ::testing::Test {
 protected:
  std::int64_t carry_out(Kind kind, std::uint64_t length = 4096, bool cached = true, int flags = 0) {
    FileOperation operation{.kind = kind, .cached = cached, .flags = flags, .length = length};
    engine_.start(operation);
    engine_.commit();
    EXPECT_EQ(engine_.finished(), &operation);
    EXPECT_EQ(engine_.finished(), nullptr);
    return operation.result;
  }

  // The host: what its calls return, how long they take, and whether the caller slept meanwhile.
  std::int64_t result_ = 4096;
  milliseconds duration_{0};
  bool sleeps_ = false;

  std::vector<FileOperation> calls_;
  PageCacheEngine::Clock::time_point now_{};
  long slept_ = 0;

  std::unique_ptr<EngineBehind> owned_ = std::make_unique<EngineBehind>();
  EngineBehind& behind_ = *owned_;
  PageCacheEngine engine_{std::move(owned_),
                          {.carry_out =
                               [this](const FileOperation& operation) {
                                 calls_.push_back(operation);
                                 now_ += duration_;
                                 slept_ += sleeps_ ? 1 : 0;
                                 return result_;
                               },
                           .now = [this] { return now_; },
                           .sleeps = [this] { return slept_; }}};
};

TEST_F(PageCacheEngineTest, CachedTransfersAreDoneAtOnce) {
  EXPECT_EQ(carry_out(Kind::kWrite), 4096);
  EXPECT_EQ(carry_out(Kind::kRead), 4096);
  ASSERT_EQ(calls_.size(), 2u);
  EXPECT_EQ(calls_[0].flags, 0);
  EXPECT_EQ(calls_[1].flags, RWF_NOWAIT);
  EXPECT_EQ(behind_.commits, 0);
}

TEST_F(PageCacheEngineTest, EverythingElseIsPassedOn) {
  EXPECT_EQ(carry_out(Kind::kWrite, 4096, false), kBehind);
  EXPECT_EQ(carry_out(Kind::kRead, 4096, false), kBehind);
  EXPECT_EQ(carry_out(Kind::kSync), kBehind);
  EXPECT_EQ(carry_out(Kind::kAllocate), kBehind);
  EXPECT_EQ(carry_out(Kind::kRead, PageCacheEngine::kMostBytes + 1), kBehind);
  EXPECT_EQ(carry_out(Kind::kWrite, PageCacheEngine::kMostBytes + 1), kBehind);
  EXPECT_TRUE(calls_.empty());
}

TEST_F(PageCacheEngineTest, ReadThatWouldWaitIsPassedOnWithItsOwnFlags) {
  result_ = -EAGAIN;
  EXPECT_EQ(carry_out(Kind::kRead), kBehind);
  // The end of the file: the engine behind tells, so that there is one place that does.
  result_ = 0;
  EXPECT_EQ(carry_out(Kind::kRead), kBehind);
  EXPECT_EQ(calls_.size(), 2u);
}

TEST_F(PageCacheEngineTest, ReadsAreNoLongerTriedWhereTheFileSystemCannotSay) {
  result_ = -EOPNOTSUPP;
  EXPECT_EQ(carry_out(Kind::kRead), kBehind);
  EXPECT_EQ(carry_out(Kind::kRead), kBehind);
  EXPECT_EQ(calls_.size(), 1u);
}

TEST_F(PageCacheEngineTest, FailedWriteIsTheCallersToJudge) {
  result_ = -ENOSPC;
  EXPECT_EQ(carry_out(Kind::kWrite), -ENOSPC);
}

TEST_F(PageCacheEngineTest, WritesAfterOneThatSleptArePassedOnForAWhile) {
  sleeps_ = true;
  duration_ = milliseconds(30);
  EXPECT_EQ(carry_out(Kind::kWrite), 4096);
  now_ += PageCacheEngine::kRestFactor * milliseconds(30) - milliseconds(1);
  EXPECT_EQ(carry_out(Kind::kWrite), kBehind);
  now_ += milliseconds(1);
  EXPECT_EQ(carry_out(Kind::kWrite), 4096);
}

TEST_F(PageCacheEngineTest, WriteThatOnlyLostItsProcessorChangesNothing) {
  duration_ = milliseconds(30);
  EXPECT_EQ(carry_out(Kind::kWrite), 4096);
  EXPECT_EQ(carry_out(Kind::kWrite), 4096);
}

TEST_F(PageCacheEngineTest, WaitingIsForTheEngineBehindAlone) {
  FileOperation write{.kind = Kind::kWrite, .cached = true, .length = 512};
  engine_.start(write);
  engine_.commit();
  engine_.wait();
  EXPECT_EQ(behind_.waits, 0);
  EXPECT_EQ(engine_.finished(), &write);
  engine_.wait();
  EXPECT_EQ(behind_.waits, 1);
}

}  // namespace
}  // namespace doppel
