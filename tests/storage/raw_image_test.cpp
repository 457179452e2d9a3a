// The raw image over both engines, in every cache mode; and over an engine that misbehaves as hosts do.
#include "storage/raw_image.h"

#include <gtest/gtest.h>
#include <linux/falloc.h>

#include <array>
#include <cstdlib>
#include <deque>
#include <map>
#include <numeric>
#include <random>
#include <thread>

#include "storage/temporary_image.h"

namespace doppel {
namespace {

using test::TemporaryImage;
using Kind = BlockRequest::Kind;
using Bytes = std::vector<std::byte>;

constexpr std::uint64_t kImageBytes = 4 << 20;

Bytes pattern(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

// Page-aligned memory, so that cache=none takes the direct path.
class Buffer {
 public:
  explicit Buffer(const Bytes& content) : size_(content.size()) {
    data_ = static_cast<std::byte*>(std::aligned_alloc(4096, (size_ + 4095) / 4096 * 4096));
    std::ranges::copy(content, data_);
  }
  explicit Buffer(std::size_t size) : Buffer(Bytes(size)) {}
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  iovec part(std::size_t offset, std::size_t size) const { return {data_ + offset, size}; }
  iovec all() const { return part(0, size_); }
  Bytes bytes() const { return {data_, data_ + size_}; }

 private:
  std::size_t size_;
  std::byte* data_ = nullptr;
};

// Submits one request and waits for it; returns its error.
int carry_out(BlockBackend& disk, BlockRequest& request) {
  BlockRequest* const submitted[] = {&request};
  disk.submit(submitted);
  BlockRequest* done = nullptr;
  while (disk.reap({&done, 1}) == 0) disk.wait();
  EXPECT_EQ(done, &request);
  return request.error;
}

int transfer(BlockBackend& disk, Kind kind, std::uint64_t offset, std::vector<iovec> buffers,
             bool durable = false) {
  BlockRequest request{.kind = kind, .durable = durable, .offset_bytes = offset, .buffers = buffers};
  for (const iovec& buffer : buffers) request.length_bytes += buffer.iov_len;
  return carry_out(disk, request);
}

int simple(BlockBackend& disk, Kind kind, std::uint64_t offset = 0, std::uint64_t length = 0) {
  BlockRequest request{.kind = kind, .offset_bytes = offset, .length_bytes = length};
  return carry_out(disk, request);
}

using Variant = std::tuple<IoEngineKind, CacheMode>;

class RawImageTest : public ::testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    const auto [engine, cache] = GetParam();
    auto disk = open_disk({.path = image_.path(), .cache = cache}, loop_, engine);
    if (!disk && (engine == IoEngineKind::kUring || cache == CacheMode::kNone)) {
      GTEST_SKIP() << disk.error().message;
    }
    ASSERT_TRUE(disk) << disk.error().message;
    disk_ = std::move(*disk);
  }

  EventLoop loop_;
  TemporaryImage image_{kImageBytes};
  std::unique_ptr<BlockBackend> disk_;
};

std::string variant_name(const ::testing::TestParamInfo<Variant>& info) {
  constexpr const char* kEngines[] = {"automatic", "uring", "threads"};
  constexpr const char* kCaches[] = {"writeback", "none", "unsafe"};
  return std::string(kEngines[static_cast<int>(std::get<0>(info.param))]) + "_" +
         kCaches[static_cast<int>(std::get<1>(info.param))];
}

INSTANTIATE_TEST_SUITE_P(All, RawImageTest,
                         ::testing::Combine(::testing::Values(IoEngineKind::kAutomatic, IoEngineKind::kUring,
                                                              IoEngineKind::kThreads),
                                            ::testing::Values(CacheMode::kWriteback, CacheMode::kNone,
                                                              CacheMode::kUnsafe)),
                         variant_name);

TEST_P(RawImageTest, WritesReachTheFileAndReadsBringThemBack) {
  const Buffer out(pattern(64 * 1024, 1));
  EXPECT_EQ(transfer(*disk_, Kind::kWrite, 8192, {out.part(0, 4096), out.part(4096, 61440)}), 0);
  EXPECT_EQ(image_.bytes(8192, 64 * 1024), out.bytes());

  const Buffer in(64 * 1024);
  EXPECT_EQ(transfer(*disk_, Kind::kRead, 8192, {in.part(0, 16384), in.part(16384, 49152)}), 0);
  EXPECT_EQ(in.bytes(), out.bytes());
}

TEST_P(RawImageTest, AnyBufferAlignmentAndSplitWorks) {
  const Buffer out(pattern(4096, 2));
  EXPECT_EQ(transfer(*disk_, Kind::kWrite, 512, {out.part(1, 3), out.part(5, 506), out.part(600, 515)}), 0);
  const Buffer in(1100);
  EXPECT_EQ(transfer(*disk_, Kind::kRead, 512, {in.part(7, 1000), in.part(1010, 24)}), 0);
  const Bytes expected = out.bytes();
  const Bytes got = in.bytes();
  EXPECT_TRUE(std::equal(expected.begin() + 1, expected.begin() + 4, got.begin() + 7));
  EXPECT_TRUE(std::equal(expected.begin() + 5, expected.begin() + 511, got.begin() + 10));
}

TEST_P(RawImageTest, RequestsOfMoreBuffersThanOneCallTakesAreDoneWhole) {
  const Buffer out(pattern(3000 * 512, 3));
  std::vector<iovec> buffers;
  for (std::size_t at = 0; at < 3000; ++at) buffers.push_back(out.part(at * 512, 512));
  EXPECT_EQ(transfer(*disk_, Kind::kWrite, 0, buffers), 0);
  EXPECT_EQ(image_.bytes(0, 3000 * 512), out.bytes());
}

TEST_P(RawImageTest, FlushAndDurableWritesSucceed) {
  const Buffer out(pattern(4096, 4));
  EXPECT_EQ(transfer(*disk_, Kind::kWrite, 0, {out.all()}, true), 0);
  EXPECT_EQ(simple(*disk_, Kind::kFlush), 0);
  EXPECT_EQ(image_.bytes(0, 4096), out.bytes());
}

TEST_P(RawImageTest, WriteZeroesLeavesZeroesAndTheSize) {
  image_.fill(0, pattern(kImageBytes, 5));
  for (const bool may_unmap : {false, true}) {
    const std::uint64_t offset = may_unmap ? 65536 : 0;
    BlockRequest request{
        .kind = Kind::kWriteZeroes, .durable = true, .may_unmap = may_unmap, .offset_bytes = offset,
        .length_bytes = 8192 + 512};
    EXPECT_EQ(carry_out(*disk_, request), 0);
    EXPECT_EQ(image_.bytes(offset, 8192 + 512), Bytes(8192 + 512));
    EXPECT_NE(image_.bytes(offset + 8192 + 512, 512), Bytes(512));
  }
  EXPECT_EQ(image_.bytes(0, kImageBytes + 1).size(), kImageBytes);
}

TEST_P(RawImageTest, DiscardSucceedsAndKeepsItsNeighbours) {
  const Bytes before = pattern(kImageBytes, 6);
  image_.fill(0, before);
  EXPECT_EQ(simple(*disk_, Kind::kDiscard, 65536, 65536), 0);
  EXPECT_EQ(image_.bytes(0, 65536), Bytes(before.begin(), before.begin() + 65536));
  EXPECT_EQ(image_.bytes(131072, 512), Bytes(before.begin() + 131072, before.begin() + 131584));
}

TEST_P(RawImageTest, RequestsOutsideTheDiskFail) {
  const Buffer buffer(1024);
  EXPECT_EQ(transfer(*disk_, Kind::kRead, kImageBytes - 512, {buffer.all()}), EINVAL);
  EXPECT_EQ(transfer(*disk_, Kind::kWrite, kImageBytes, {buffer.all()}), EINVAL);
  EXPECT_EQ(transfer(*disk_, Kind::kRead, ~std::uint64_t{0} - 511, {buffer.all()}), EINVAL);
  EXPECT_EQ(simple(*disk_, Kind::kDiscard, 512, ~std::uint64_t{0}), EINVAL);
  EXPECT_EQ(simple(*disk_, Kind::kWriteZeroes, kImageBytes, 512), EINVAL);
}

TEST_P(RawImageTest, FileThatShrankUnderTheDiskIsAnError) {
  image_.truncate(4096);
  const Buffer in(8192);
  EXPECT_EQ(transfer(*disk_, Kind::kRead, 0, {in.all()}), EIO);
}

TEST_P(RawImageTest, ManyRequestsInFlightAllFinishOnTheLoop) {
  constexpr unsigned kCount = 600;  // more than the ring has entries
  const Buffer out(pattern(kCount * 4096, 7));
  std::vector<iovec> buffers(kCount);
  std::vector<BlockRequest> requests(kCount);
  std::vector<BlockRequest*> submitted;
  for (unsigned at = 0; at < kCount; ++at) {
    buffers[at] = out.part(at * 4096, 4096);
    requests[at] = {.kind = Kind::kWrite, .offset_bytes = at * 4096, .length_bytes = 4096,
                    .buffers = {&buffers[at], 1}};
    submitted.push_back(&requests[at]);
  }
  std::map<BlockRequest*, unsigned> finished;
  const auto reap_all = [&] {
    std::array<BlockRequest*, 7> some{};
    while (const std::size_t count = disk_->reap(some)) {
      for (BlockRequest* request : std::span(some).first(count)) ++finished[request];
    }
    if (finished.size() == kCount) loop_.stop();
  };
  disk_->on_ready(reap_all);
  disk_->submit(submitted);
  reap_all();
  if (finished.size() < kCount) loop_.run();

  for (const BlockRequest& request : requests) EXPECT_EQ(request.error, 0);
  for (const auto& [request, times] : finished) EXPECT_EQ(times, 1u);
  EXPECT_EQ(image_.bytes(0, kCount * 4096), out.bytes());
}

// What a stopped hart leaves behind must still be done.
TEST_P(RawImageTest, RequestsSurviveTheThreadThatSubmittedThem) {
  const Buffer out(pattern(1 << 20, 8));
  iovec buffer = out.all();
  BlockRequest write{.kind = Kind::kWrite, .length_bytes = 1 << 20, .buffers = {&buffer, 1}};
  BlockRequest flush{.kind = Kind::kFlush};
  std::thread([&] {
    BlockRequest* const both[] = {&write, &flush};
    disk_->submit(both);
  }).join();
  unsigned finished = 0;
  while (finished < 2) {
    BlockRequest* done = nullptr;
    while (disk_->reap({&done, 1}) != 0) ++finished;
    if (finished < 2) disk_->wait();
  }
  EXPECT_EQ(write.error, 0);
  EXPECT_EQ(flush.error, 0);
  EXPECT_EQ(image_.bytes(0, 1 << 20), out.bytes());
}

TEST(RawImage, ReadonlyDiskRefusesEveryChange) {
  EventLoop loop;
  const TemporaryImage image(kImageBytes);
  auto disk = open_disk({.path = image.path(), .readonly = true}, loop);
  ASSERT_TRUE(disk);
  const Buffer buffer(512);
  EXPECT_EQ(transfer(**disk, Kind::kWrite, 0, {buffer.all()}), EROFS);
  EXPECT_EQ(simple(**disk, Kind::kDiscard, 0, 512), EROFS);
  EXPECT_EQ(simple(**disk, Kind::kWriteZeroes, 0, 512), EROFS);
  EXPECT_EQ(transfer(**disk, Kind::kRead, 0, {buffer.all()}), 0);
  EXPECT_EQ(simple(**disk, Kind::kFlush), 0);
}

// Carries nothing out: each operation gets the next of the prepared results, then complete success; and is
// noted.
class ScriptedEngine final : public IoEngine {
 public:
  struct Seen {
    FileOperation::Kind kind;
    std::uint64_t offset;
    std::uint64_t length;
    int flags;
    bool cached = false;
    friend bool operator==(const Seen&, const Seen&) = default;
  };

  ScriptedEngine(std::deque<std::int64_t> results, std::vector<Seen>& seen)
      : results_(std::move(results)), seen_(seen) {}

  void start(FileOperation& operation) override {
    seen_.push_back({operation.kind, operation.offset, operation.length, operation.flags, operation.cached});
    const bool moves = operation.kind == FileOperation::Kind::kRead || operation.kind == FileOperation::Kind::kWrite;
    operation.result = moves ? static_cast<std::int64_t>(operation.length) : 0;
    if (!results_.empty()) {
      operation.result = results_.front();
      results_.pop_front();
    }
    list_.push(operation);
  }
  void commit() override {}
  FileOperation* finished() override { return list_.pop(); }
  void wait() override {}
  void on_ready(std::function<void()>) override {}

 private:
  std::deque<std::int64_t> results_;
  std::vector<Seen>& seen_;
  FileOperationList list_;
};

class ScriptedDisk {
 public:
  explicit ScriptedDisk(std::deque<std::int64_t> results, CacheMode cache = CacheMode::kWriteback)
      : disk_({}, kImageBytes, false, cache, std::make_unique<ScriptedEngine>(std::move(results), seen)) {}

  int write(std::size_t size, bool durable = false) {
    const Buffer buffer(size);
    return transfer(disk_, Kind::kWrite, 0, {buffer.part(0, 512), buffer.part(512, size - 512)}, durable);
  }
  RawImage& disk() { return disk_; }

  std::vector<ScriptedEngine::Seen> seen;

 private:
  RawImage disk_;
};

constexpr auto kWrite = FileOperation::Kind::kWrite;
constexpr auto kSync = FileOperation::Kind::kSync;
constexpr auto kAllocate = FileOperation::Kind::kAllocate;
constexpr auto kWriteBack = FileOperation::Kind::kWriteBack;
using SeenList = std::vector<ScriptedEngine::Seen>;

TEST(RawImageOnBadHost, PartialWritesGoOnWhereTheyStopped) {
  ScriptedDisk host({100, 412, 1});
  EXPECT_EQ(host.write(4096), 0);
  EXPECT_EQ(host.seen, (SeenList{{kWrite, 0, 4096, 0, true}, {kWrite, 100, 3996, 0, true},
                                 {kWrite, 512, 3584, 0, true}, {kWrite, 513, 3583, 0, true}}));
}

TEST(RawImageOnBadHost, FullDiskAfterAPartIsAnError) {
  ScriptedDisk host({512, -ENOSPC});
  EXPECT_EQ(host.write(4096), ENOSPC);
}

TEST(RawImageOnBadHost, WriteThatGetsNowhereIsAnError) {
  ScriptedDisk host({0});
  EXPECT_EQ(host.write(4096), EIO);
}

TEST(RawImageOnBadHost, InterruptedAndCancelledOperationsAreTriedAgain) {
  ScriptedDisk host({-EINTR, -ECANCELED, -EAGAIN});
  EXPECT_EQ(host.write(4096), 0);
  EXPECT_EQ(host.seen.size(), 4u);
}

TEST(RawImageOnBadHost, WritingBackIsNoRequest) {
  ScriptedDisk host({-EIO, 100});
  host.disk().write_back();
  EXPECT_EQ(host.write(512), 0);
  EXPECT_EQ(host.seen, (SeenList{{kWriteBack, 0, 0, 0}, {kWrite, 0, 512, 0, true}, {kWrite, 100, 412, 0, true}}));
}

TEST(RawImageOnBadHost, TryingAgainHasAnEnd) {
  ScriptedDisk host(std::deque<std::int64_t>(1000, -EAGAIN));
  EXPECT_EQ(host.write(4096), EIO);
}

TEST(RawImageOnBadHost, FailedFlushIsReported) {
  ScriptedDisk host({-EIO});
  EXPECT_EQ(simple(host.disk(), Kind::kFlush), EIO);
  EXPECT_EQ(host.seen, (SeenList{{kSync, 0, 0, 0}}));
}

TEST(RawImageOnBadHost, UnsafeCacheSkipsFlushesAndDurability) {
  ScriptedDisk host({}, CacheMode::kUnsafe);
  EXPECT_EQ(simple(host.disk(), Kind::kFlush), 0);
  EXPECT_TRUE(host.seen.empty());
  EXPECT_EQ(host.write(1024, true), 0);
  EXPECT_EQ(host.seen, (SeenList{{kWrite, 0, 1024, 0, true}}));
}

TEST(RawImageOnBadHost, DurableWritesAreSynchronized) {
  ScriptedDisk host({});
  EXPECT_EQ(host.write(1024, true), 0);
  EXPECT_EQ(host.seen, (SeenList{{kWrite, 0, 1024, RWF_DSYNC}}));
}

TEST(RawImageOnBadHost, ZeroesAreWrittenWhereTheyCannotBeMade) {
  ScriptedDisk host({-EOPNOTSUPP});
  BlockRequest request{.kind = Kind::kWriteZeroes, .durable = true, .offset_bytes = 512,
                       .length_bytes = (1 << 20) + 65536 + 512};
  EXPECT_EQ(carry_out(host.disk(), request), 0);
  EXPECT_EQ(host.seen, (SeenList{{kAllocate, 512, (1 << 20) + 65536 + 512,
                                  FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE},
                                 {kWrite, 512, 1 << 20, 0},
                                 {kWrite, 512 + (1 << 20), 65536, 0},
                                 {kWrite, 512 + (1 << 20) + 65536, 512, 0},
                                 {kSync, 0, 0, 0}}));
}

TEST(RawImageOnBadHost, DiscardThatTheHostCannotDoIsNoError) {
  ScriptedDisk host({-EOPNOTSUPP});
  EXPECT_EQ(simple(host.disk(), Kind::kDiscard, 0, 4096), 0);
  EXPECT_EQ(host.seen, (SeenList{{kAllocate, 0, 4096, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE}}));
}

}  // namespace
}  // namespace doppel
