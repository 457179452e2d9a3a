// The block device as a driver sees it, over a back end whose timing and errors the test decides, and over real
// images with both engines.
#include "device/virtio/blk/virtio_blk.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <map>
#include <numeric>
#include <thread>

#include "base/io_vector.h"
#include "device/virtio/virtio_driver.h"
#include "storage/disk.h"
#include "storage/temporary_image.h"

namespace doppel {
namespace {

using test::Part;
using test::TestEnv;
using test::VirtioDriver;
using Kind = BlockRequest::Kind;

constexpr std::uint32_t kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kDiscard = 11, kWriteZeroes = 13;
constexpr std::uint8_t kOk = 0, kIoError = 1, kUnsupported = 2, kUntouched = 0xee;

// A disk in memory. Holds requests until told to finish them, where `hold`.
class MemoryDisk final : public BlockBackend {
 public:
  struct Control {
    std::vector<std::byte> content;
    bool readonly = false;
    bool hold = false;
    int error = 0;
    std::deque<BlockRequest*> held;
    std::deque<BlockRequest*> finished;
    std::vector<BlockRequest> seen;
    std::function<void()> ready;

    // Finishes what is held, as from the event loop.
    void release() {
      finished.insert(finished.end(), held.begin(), held.end());
      held.clear();
      ready();
    }
  };

  explicit MemoryDisk(Control& control) : control_(control) {}

  std::uint64_t size_bytes() const override { return control_.content.size(); }
  bool readonly() const override { return control_.readonly; }
  void submit(std::span<BlockRequest* const> requests) override {
    for (BlockRequest* request : requests) {
      control_.seen.push_back(*request);
      request->error = carry_out(*request);
      (control_.hold ? control_.held : control_.finished).push_back(request);
    }
  }
  std::size_t reap(std::span<BlockRequest*> into) override {
    std::size_t count = 0;
    while (count < into.size() && !control_.finished.empty()) {
      into[count++] = control_.finished.front();
      control_.finished.pop_front();
    }
    return count;
  }
  void wait() override {
    control_.finished.insert(control_.finished.end(), control_.held.begin(), control_.held.end());
    control_.held.clear();
  }
  void on_ready(std::function<void()> callback) override { control_.ready = std::move(callback); }

 private:
  int carry_out(BlockRequest& request) {
    if (control_.error != 0) return control_.error;
    if (request.kind == Kind::kFlush || request.kind == Kind::kDiscard) return 0;
    if (control_.readonly && request.kind != Kind::kRead) return EROFS;
    if (request.offset_bytes > size_bytes() || request.length_bytes > size_bytes() - request.offset_bytes) return EINVAL;
    const auto range = std::span(control_.content).subspan(request.offset_bytes, request.length_bytes);
    if (request.kind == Kind::kRead) scatter(range, request.buffers);
    if (request.kind == Kind::kWrite) gather(request.buffers, range);
    if (request.kind == Kind::kWriteZeroes) std::ranges::fill(range, std::byte{0});
    return 0;
  }

  Control& control_;
};

// The pieces of a request in guest memory.
constexpr std::uint64_t kHeader = VirtioDriver::kBuffers;
constexpr std::uint64_t kStatus = VirtioDriver::kBuffers + 0x100;
constexpr std::uint64_t kData = VirtioDriver::kBuffers + 0x1000;

class VirtioBlkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    control_.content.resize(64 * 512);
    for (std::size_t at = 0; at < control_.content.size(); ++at) {
      control_.content[at] = static_cast<std::byte>(at / 512 + at % 7);
    }
    make();
  }
  void make() {
    device_ = std::make_unique<VirtioMmio>(env_.env(),
                                           std::make_unique<VirtioBlk>(std::make_unique<MemoryDisk>(control_), "SERIAL-7"));
    driver_.emplace(env_, *device_);
  }

  void put_header(std::uint32_t type, std::uint64_t sector, std::uint64_t at = kHeader) {
    driver_->poke(at, type);
    driver_->poke(at + 4, 0u);
    driver_->poke(at + 8, sector);
    driver_->poke(kStatus, kUntouched);
  }
  // One request with at most one data part; its status.
  std::uint8_t request(std::uint32_t type, std::uint64_t sector, std::optional<Part> data = {}) {
    put_header(type, sector);
    std::vector<Part> parts{{kHeader, 16}};
    if (data) parts.push_back(*data);
    parts.push_back({kStatus, 1, true});
    driver_->add(0, parts);
    driver_->kick(0);
    used_ = driver_->take_used(0);
    return used_ ? driver_->peek<std::uint8_t>(kStatus) : kUntouched;
  }
  std::uint8_t range_request(std::uint32_t type, std::uint64_t sector, std::uint32_t sectors, std::uint32_t flags,
                             std::uint32_t size = 16) {
    driver_->poke(kData, sector);
    driver_->poke(kData + 8, sectors);
    driver_->poke(kData + 12, flags);
    return request(type, 0, Part{kData, size});
  }

  TestEnv env_;
  MemoryDisk::Control control_;
  std::unique_ptr<VirtioMmio> device_;
  std::optional<VirtioDriver> driver_;
  std::optional<VirtioDriver::Used> used_;
};

TEST_F(VirtioBlkTest, ConfigurationDescribesTheDisk) {
  EXPECT_EQ(driver_->get(0x008), 2u);
  EXPECT_EQ(driver_->config(0, Width::k8), 64u);
  EXPECT_EQ(driver_->config(12, Width::k4), 254u);
  EXPECT_EQ(driver_->config(20, Width::k4), 512u);
  EXPECT_EQ(driver_->config(24, Width::k1), 3u) << "blocks of the host in sectors, as a power of two";
  EXPECT_EQ(driver_->config(26, Width::k2), 8u) << "the least that is done well";
  EXPECT_EQ(driver_->config(28, Width::k4), 2048u) << "and what is done best";
  EXPECT_EQ(driver_->config(60, Width::k8), 0u) << "the end of it and beyond";
  EXPECT_EQ(driver_->config(0xef8, Width::k8), 0u);
  EXPECT_EQ(driver_->offered() & 1u << 5, 0u);
}

TEST_F(VirtioBlkTest, ReadonlyDiskSaysSoAndRefusesWrites) {
  control_.readonly = true;
  make();
  EXPECT_NE(driver_->offered() & 1u << 5, 0u);
  EXPECT_EQ(driver_->offered() & (1u << 13 | 1u << 14), 0u);
  driver_->start(1);
  EXPECT_EQ(request(kOut, 0, Part{kData, 512}), kIoError);
  EXPECT_EQ(request(kIn, 0, Part{kData, 512, true}), kOk);
}

TEST_F(VirtioBlkTest, ReadsAndWritesSectors) {
  driver_->start(1);
  EXPECT_EQ(request(kIn, 3, Part{kData, 1024, true}), kOk);
  EXPECT_EQ(used_->written, 1025u);
  EXPECT_EQ(std::memcmp(driver_->text(kData, 1024).data(), control_.content.data() + 3 * 512, 1024), 0);
  EXPECT_TRUE(env_.irq.level);

  driver_->put(kData, std::string(512, 'w'));
  EXPECT_EQ(request(kOut, 63, Part{kData, 512}), kOk);
  EXPECT_EQ(used_->written, 1u);
  EXPECT_EQ(control_.content[63 * 512 + 511], std::byte{'w'});
  EXPECT_NE(control_.content[63 * 512 - 1], std::byte{'w'});
}

TEST_F(VirtioBlkTest, LayoutOverDescriptorsIsFree) {
  driver_->start(1);
  put_header(kIn, 1, kHeader);
  // Header in three parts; data and status in two that end in the same buffer.
  driver_->add(0, {{kHeader, 1}, {kHeader + 1, 14}, {kHeader + 15, 1}, {kData, 100, true}, {kData + 200, 413, true}});
  driver_->kick(0);
  ASSERT_TRUE(driver_->take_used(0));
  EXPECT_EQ(driver_->peek<std::uint8_t>(kData + 200 + 412), kOk);
  EXPECT_EQ(std::memcmp(driver_->text(kData, 100).data(), control_.content.data() + 512, 100), 0);
  EXPECT_EQ(std::memcmp(driver_->text(kData + 200, 412).data(), control_.content.data() + 612, 412), 0);
}

TEST_F(VirtioBlkTest, IndirectRequestsWork) {
  driver_->start(1);
  put_header(kIn, 2);
  driver_->add_indirect(0, VirtioDriver::kBuffers + 0x800, {{kHeader, 16}, {kData, 512, true}, {kStatus, 1, true}});
  driver_->kick(0);
  ASSERT_TRUE(driver_->take_used(0));
  EXPECT_EQ(driver_->peek<std::uint8_t>(kStatus), kOk);
}

TEST_F(VirtioBlkTest, WhatTheHostRefusesIsAnIoError) {
  driver_->start(1);
  for (const int error : {EIO, ENOSPC, EINVAL}) {
    control_.error = error;
    EXPECT_EQ(request(kOut, 0, Part{kData, 512}), kIoError);
    EXPECT_EQ(used_->written, 0u);
    EXPECT_EQ(request(kFlush, 0), kIoError);
  }
  control_.error = EOPNOTSUPP;
  EXPECT_EQ(range_request(kWriteZeroes, 0, 1, 0), kUnsupported);
}

TEST_F(VirtioBlkTest, RequestsOutsideTheDiskAreIoErrors) {
  driver_->start(1);
  EXPECT_EQ(request(kIn, 64, Part{kData, 512, true}), kIoError);
  EXPECT_EQ(request(kIn, 63, Part{kData, 1024, true}), kIoError);
  EXPECT_EQ(request(kIn, ~0ull, Part{kData, 512, true}), kIoError);
  EXPECT_EQ(request(kIn, ~0ull / 512 + 1, Part{kData, 512, true}), kIoError) << "wraps to sector 0 in bytes";
  EXPECT_EQ(request(kIn, 0, Part{kData, 511, true}), kIoError) << "no whole sector";
  EXPECT_EQ(request(kOut, 0, Part{kData, 513}), kIoError);
  EXPECT_FALSE(driver_->needs_reset());
}

TEST_F(VirtioBlkTest, UnknownRequestsAreUnsupported) {
  driver_->start(1);
  EXPECT_EQ(request(2, 0, Part{kData, 512, true}), kUnsupported);
  EXPECT_EQ(request(0xffff'ffff, 0), kUnsupported);
}

TEST_F(VirtioBlkTest, IdentityIsTheSerial) {
  driver_->start(1);
  driver_->put(kData, std::string(20, '?'));
  EXPECT_EQ(request(kGetId, 0, Part{kData, 20, true}), kOk);
  EXPECT_EQ(driver_->text(kData, 20), std::string("SERIAL-7") + std::string(12, '\0'));
  EXPECT_EQ(used_->written, 21u);
  EXPECT_EQ(request(kGetId, 0, Part{kData, 19, true}), kIoError);
}

TEST_F(VirtioBlkTest, DiscardAndWriteZeroesReachTheDisk) {
  driver_->start(1);
  EXPECT_EQ(range_request(kDiscard, 8, 16, 0), kOk);
  EXPECT_EQ(control_.seen.back().kind, Kind::kDiscard);
  EXPECT_EQ(control_.seen.back().offset_bytes, 8u * 512);
  EXPECT_EQ(control_.seen.back().length_bytes, 16u * 512);

  EXPECT_EQ(range_request(kWriteZeroes, 1, 2, 0), kOk);
  EXPECT_FALSE(control_.seen.back().may_unmap);
  EXPECT_EQ(control_.content[512], std::byte{0});
  EXPECT_EQ(control_.content[3 * 512 - 1], std::byte{0});
  EXPECT_NE(control_.content[3 * 512], std::byte{0});
  EXPECT_EQ(range_request(kWriteZeroes, 1, 2, 1), kOk);
  EXPECT_TRUE(control_.seen.back().may_unmap);

  EXPECT_EQ(range_request(kDiscard, 0, 1, 1), kUnsupported);
  EXPECT_EQ(range_request(kWriteZeroes, 0, 1, 2), kUnsupported);
  EXPECT_EQ(range_request(kDiscard, 0, 1, 0, 32), kUnsupported) << "one range at a time";
  EXPECT_EQ(range_request(kDiscard, 0, 1, 0, 12), kUnsupported);
  EXPECT_EQ(range_request(kWriteZeroes, 60, 0xffff'ffff, 0), kIoError);
}

TEST_F(VirtioBlkTest, RequestWithoutHeaderOrStatusNeedsReset) {
  const std::vector<std::vector<Part>> wrong = {
      {{kHeader, 15}, {kStatus, 1, true}},
      {{kStatus, 1, true}},
      {{kHeader, 16}},
      {{kHeader, 16}, {kData, 512}},
  };
  for (const auto& parts : wrong) {
    driver_->start(1);
    put_header(kOut, 0);
    driver_->add(0, parts);
    driver_->kick(0);
    EXPECT_TRUE(driver_->needs_reset());
    EXPECT_FALSE(driver_->take_used(0));
  }
  driver_->start(1);
  EXPECT_EQ(request(kIn, 0, Part{kData, 512, true}), kOk);
}

TEST_F(VirtioBlkTest, DriverWithoutFlushGetsAWriteThroughCache) {
  driver_->start(1, ~std::uint64_t{1u << 9});
  EXPECT_EQ(driver_->config(32, Width::k1), 0u);
  request(kOut, 0, Part{kData, 512});
  EXPECT_TRUE(control_.seen.back().durable);
}

TEST_F(VirtioBlkTest, DriverChoosesTheCacheMode) {
  driver_->start(1);
  EXPECT_EQ(driver_->config(32, Width::k1), 1u);
  request(kOut, 0, Part{kData, 512});
  EXPECT_FALSE(control_.seen.back().durable);
  driver_->set_config(32, Width::k1, 0);
  request(kOut, 0, Part{kData, 512});
  EXPECT_TRUE(control_.seen.back().durable);
  driver_->start(1);
  EXPECT_EQ(driver_->config(32, Width::k1), 1u) << "a reset forgets the choice";
}

TEST_F(VirtioBlkTest, ManyRequestsAreInFlightAtOnceAndCompleteInOneInterrupt) {
  driver_->start(1, ~std::uint64_t{0}, 64);
  control_.hold = true;
  driver_->poke(kHeader, kIn);
  driver_->poke(kHeader + 8, std::uint64_t{0});
  for (unsigned count = 0; count < 20; ++count) {
    driver_->add(0, {{kHeader, 16}, {kData + count * 512, 512, true}, {kStatus + count, 1, true}});
    driver_->kick(0);
  }
  EXPECT_EQ(control_.held.size(), 20u);
  EXPECT_FALSE(env_.irq.level);
  control_.release();
  EXPECT_EQ(env_.irq.rises, 1u);
  for (unsigned count = 0; count < 20; ++count) EXPECT_TRUE(driver_->take_used(0));
}

TEST_F(VirtioBlkTest, OneNotificationServesAllThatIsAvailable) {
  driver_->start(1, ~std::uint64_t{0}, 64);
  put_header(kIn, 0);
  for (unsigned count = 0; count < 20; ++count) driver_->add(0, {{kHeader, 16}, {kData, 512, true}, {kStatus, 1, true}});
  driver_->kick(0);
  for (unsigned count = 0; count < 20; ++count) EXPECT_TRUE(driver_->take_used(0));
  EXPECT_TRUE(driver_->notification_wanted(0));
}

TEST_F(VirtioBlkTest, ResetWaitsForWhatIsInFlight) {
  driver_->start(1);
  control_.hold = true;
  request(kIn, 0, Part{kData, 512, true});
  ASSERT_EQ(control_.held.size(), 1u);
  driver_->set(0x070, 0);
  EXPECT_TRUE(control_.held.empty());
  EXPECT_FALSE(env_.irq.level);
  control_.hold = false;
  driver_->start(1);
  EXPECT_FALSE(driver_->take_used(0)) << "the old request has no place in the new queue";
  EXPECT_EQ(request(kIn, 0, Part{kData, 512, true}), kOk);
}

TEST_F(VirtioBlkTest, MisuseWithRequestsInFlightIsSurvived) {
  driver_->start(1);
  control_.hold = true;
  request(kIn, 0, Part{kData, 512, true});
  driver_->add(0, {{VirtioDriver::kOutside, 16}});
  driver_->kick(0);
  EXPECT_TRUE(driver_->needs_reset());
  control_.release();
  EXPECT_FALSE(driver_->take_used(0));
  control_.hold = false;
  driver_->start(1);
  EXPECT_EQ(request(kIn, 0, Part{kData, 512, true}), kOk);
}

// The same descriptors offered over and over without waiting: more requests than a queue can hold.
TEST_F(VirtioBlkTest, EndlessRequestsInFlightNeedReset) {
  driver_->start(1, ~std::uint64_t{0}, 256);
  control_.hold = true;
  put_header(kIn, 0);
  const std::uint16_t head = driver_->add(0, {{kHeader, 16}, {kData, 512, true}, {kStatus, 1, true}});
  driver_->kick(0);
  for (unsigned count = 0; count < 255; ++count) {
    driver_->offer(0, head);
    driver_->kick(0);
  }
  EXPECT_EQ(control_.held.size(), 256u);
  driver_->kick(0);
  EXPECT_FALSE(driver_->needs_reset()) << "as many as there are entries is no mistake";
  driver_->offer(0, head);
  driver_->kick(0);
  EXPECT_TRUE(driver_->needs_reset());
}

// The limit is reached in the middle of a batch: what was taken before it must not be forgotten.
TEST_F(VirtioBlkTest, ResetReturnsAfterTooManyRequestsInOneNotification) {
  driver_->start(1, ~std::uint64_t{0}, 256);
  control_.hold = true;
  put_header(kIn, 0);
  const std::uint16_t head = driver_->add(0, {{kHeader, 16}, {kData, 512, true}, {kStatus, 1, true}});
  for (unsigned count = 0; count < 199; ++count) driver_->offer(0, head);
  driver_->kick(0);
  for (unsigned count = 0; count < 100; ++count) driver_->offer(0, head);
  driver_->kick(0);
  EXPECT_TRUE(driver_->needs_reset());
  EXPECT_EQ(control_.held.size(), 256u);
  control_.hold = false;
  driver_->start(1);
  EXPECT_EQ(request(kIn, 0, Part{kData, 512, true}), kOk);
}

TEST_F(VirtioBlkTest, DrainFinishesAndFlushes) {
  driver_->start(1);
  control_.hold = true;
  request(kOut, 0, Part{kData, 512});
  device_->drain();
  EXPECT_TRUE(driver_->take_used(0));
  EXPECT_EQ(control_.seen.back().kind, Kind::kFlush);
}

TEST_F(VirtioBlkTest, RestoredDiskContinuesWithTheChosenCacheMode) {
  driver_->start(1);
  driver_->set_config(32, Width::k1, 0);
  EXPECT_EQ(request(kIn, 0, Part{kData, 512, true}), kOk);
  device_->drain();
  const StateNode state = test::save(*device_);
  auto restored = VirtioMmio::restore(
      env_.env(), std::make_unique<VirtioBlk>(std::make_unique<MemoryDisk>(control_), "SERIAL-7"),
      StateReader(state, "blk"));
  ASSERT_TRUE(restored) << restored.error().message;
  driver_->move_to(**restored);
  EXPECT_EQ(driver_->config(32, Width::k1), 0u);
  EXPECT_EQ(request(kOut, 5, Part{kData, 512}), kOk);
  EXPECT_TRUE(control_.seen.back().durable);
}

TEST_F(VirtioBlkTest, DeviceThatIsDestroyedWaitsForWhatIsInFlight) {
  driver_->start(1);
  control_.hold = true;
  request(kIn, 0, Part{kData, 512, true});
  device_.reset();
  EXPECT_TRUE(control_.held.empty());
}

// The whole way to a file, with the loop on a thread of its own as in a machine.
class VirtioBlkOnImage : public ::testing::TestWithParam<IoEngineKind> {};

INSTANTIATE_TEST_SUITE_P(Engines, VirtioBlkOnImage,
                         ::testing::Values(IoEngineKind::kAutomatic, IoEngineKind::kUring, IoEngineKind::kThreads));

TEST_P(VirtioBlkOnImage, WritesAreReadBackUnderLoad) {
  TestEnv env;
  const test::TemporaryImage image(1 << 20);
  auto disk = open_disk({.path = image.path()}, env.loop, GetParam());
  if (!disk) GTEST_SKIP() << disk.error().message;
  auto device = std::make_unique<VirtioMmio>(env.env(), std::make_unique<VirtioBlk>(std::move(*disk), ""));
  VirtioDriver driver(env, *device);
  std::thread loop([&] { env.loop.run(); });

  driver.start(1, ~std::uint64_t{0}, 64);
  constexpr unsigned kAtOnce = 16;
  for (unsigned round = 0; round < 50; ++round) {
    const bool writing = round % 2 == 0;
    for (unsigned slot = 0; slot < kAtOnce; ++slot) {
      const std::uint64_t header = kHeader + 0x200 + 16 * slot;
      const std::uint64_t data = kData + 4096 * slot;
      driver.poke(header, writing ? kOut : kIn);
      driver.poke(header + 4, 0u);
      driver.poke(header + 8, std::uint64_t{slot} * 8);
      driver.poke(kStatus + slot, kUntouched);
      driver.put(data, std::string(4096, static_cast<char>(writing ? 'a' + (round / 2 + slot) % 26 : '?')));
      driver.add(0, {{header, 16}, {data, 4096, !writing}, {kStatus + slot, 1, true}});
      driver.kick(0);
    }
    for (unsigned done = 0; done < kAtOnce;) {
      {
        // The monitor stands for the barrier that a real driver has here.
        const std::lock_guard lock(device->Device::monitor());
        while (driver.take_used(0)) ++done;
      }
      std::this_thread::yield();
    }
    for (unsigned slot = 0; slot < kAtOnce; ++slot) {
      ASSERT_EQ(driver.peek<std::uint8_t>(kStatus + slot), kOk);
      ASSERT_EQ(driver.text(kData + 4096 * slot, 4096), std::string(4096, static_cast<char>('a' + (round / 2 + slot) % 26)));
    }
  }
  env.loop.stop();
  loop.join();
}

}  // namespace
}  // namespace doppel
