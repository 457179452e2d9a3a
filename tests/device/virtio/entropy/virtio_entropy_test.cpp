#include "device/virtio/entropy/virtio_entropy.h"

#include <gtest/gtest.h>

#include "device/virtio/virtio_driver.h"

namespace doppel {
namespace {

using test::TestEnv;
using test::VirtioDriver;

constexpr std::uint64_t kData = VirtioDriver::kBuffers;

class VirtioEntropyTest : public ::testing::Test {
 protected:
  TestEnv env_;
  VirtioMmio device_{env_.env(), std::make_unique<VirtioEntropy>()};
  VirtioDriver driver_{env_, device_};
};

TEST_F(VirtioEntropyTest, FillsEveryPartWithDifferentBytes) {
  driver_.start(1);
  driver_.add(0, {{kData, 32, true}, {kData + 100, 32, true}});
  driver_.kick(0);
  const auto used = driver_.take_used(0);
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 64u);
  const std::string zeros(32, '\0');
  EXPECT_NE(driver_.text(kData, 32), zeros);
  EXPECT_NE(driver_.text(kData + 100, 32), zeros);
  EXPECT_NE(driver_.text(kData, 32), driver_.text(kData + 100, 32));
  EXPECT_EQ(driver_.text(kData + 32, 32), zeros);
  EXPECT_TRUE(env_.irq.level);
}

TEST_F(VirtioEntropyTest, OneRequestGetsABoundedAmount) {
  driver_.start(1);
  driver_.add(0, {{kData, 0x8'0000, true}});
  driver_.kick(0);
  const auto used = driver_.take_used(0);
  ASSERT_TRUE(used);
  EXPECT_GE(used->written, 1u);
  EXPECT_LE(used->written, 4096u);
}

TEST_F(VirtioEntropyTest, RequestWithoutRoomNeedsReset) {
  driver_.start(1);
  driver_.add(0, {{kData, 32}});
  driver_.kick(0);
  EXPECT_TRUE(driver_.needs_reset());
}

TEST_F(VirtioEntropyTest, RestoredDeviceContinues) {
  driver_.start(1);
  const StateNode state = test::save(device_);
  auto restored = VirtioMmio::restore(env_.env(), std::make_unique<VirtioEntropy>(), StateReader(state, "rng"));
  ASSERT_TRUE(restored) << restored.error().message;
  driver_.move_to(**restored);
  driver_.add(0, {{kData, 32, true}});
  driver_.kick(0);
  EXPECT_TRUE(driver_.take_used(0));
}

}  // namespace
}  // namespace doppel
