#include "device/virtio/console/virtio_console.h"

#include <gtest/gtest.h>

#include "device/virtio/virtio_driver.h"

namespace doppel {
namespace {

using test::FakeConsole;
using test::TestEnv;
using test::VirtioDriver;

constexpr std::uint64_t kData = VirtioDriver::kBuffers;
constexpr unsigned kReceive = 0, kTransmit = 1;

class VirtioConsoleTest : public ::testing::Test {
 protected:
  TestEnv env_;
  FakeConsole console_;
  VirtioMmio device_{env_.env(), std::make_unique<VirtioConsole>(console_)};
  VirtioDriver driver_{env_, device_};
};

TEST_F(VirtioConsoleTest, OutputReachesTheBackEnd) {
  driver_.start(2);
  driver_.put(kData, "hello, world");
  driver_.add(kTransmit, {{kData, 6}, {kData + 6, 6}});
  driver_.kick(kTransmit);
  EXPECT_EQ(console_.output, "hello, world");
  EXPECT_TRUE(driver_.take_used(kTransmit));
}

TEST_F(VirtioConsoleTest, OutputWaitsForRoomAndLosesNothing) {
  driver_.start(2);
  driver_.put(kData, "hello, world");
  console_.room = 8;
  driver_.add(kTransmit, {{kData, 6}, {kData + 6, 6}});
  driver_.add(kTransmit, {{kData, 5}});
  driver_.kick(kTransmit);
  EXPECT_EQ(console_.output, "hello, w");
  EXPECT_FALSE(driver_.take_used(kTransmit));
  console_.room = 5;
  console_.listener();
  EXPECT_EQ(console_.output, "hello, worldh");
  EXPECT_TRUE(driver_.take_used(kTransmit));
  EXPECT_FALSE(driver_.take_used(kTransmit));
  console_.room = 100;
  console_.listener();
  EXPECT_EQ(console_.output, "hello, worldhello");
  EXPECT_TRUE(driver_.take_used(kTransmit));
}

TEST_F(VirtioConsoleTest, InputFillsTheBuffersThatAreThere) {
  driver_.start(2);
  driver_.add(kReceive, {{kData, 3, true}, {kData + 10, 3, true}});
  driver_.add(kReceive, {{kData + 20, 64, true}});
  driver_.kick(kReceive);
  EXPECT_FALSE(driver_.take_used(kReceive)) << "nobody has typed";
  console_.type("typed text");
  EXPECT_EQ(driver_.take_used(kReceive)->written, 6u);
  EXPECT_EQ(driver_.take_used(kReceive)->written, 4u);
  EXPECT_EQ(driver_.text(kData, 3) + driver_.text(kData + 10, 3) + driver_.text(kData + 20, 4), "typed text");
  EXPECT_TRUE(env_.irq.level);
}

TEST_F(VirtioConsoleTest, InputWaitsForBuffers) {
  console_.type("early");
  driver_.start(2);
  EXPECT_EQ(console_.input, "early");
  driver_.add(kReceive, {{kData, 64, true}});
  driver_.kick(kReceive);
  EXPECT_EQ(driver_.take_used(kReceive)->written, 5u);
}

TEST_F(VirtioConsoleTest, EmergencyWriteNeedsNoDriver) {
  driver_.set_config(8, Width::k4, 'P');
  EXPECT_EQ(console_.output, "P");
}

TEST_F(VirtioConsoleTest, ReceiveBufferThatIsNotWritableNeedsReset) {
  driver_.start(2);
  console_.type("x");
  driver_.add(kReceive, {{kData, 64}});
  driver_.kick(kReceive);
  EXPECT_TRUE(driver_.needs_reset());
}

TEST_F(VirtioConsoleTest, RestoredConsoleContinuesInTheMiddleOfAChain) {
  driver_.start(2);
  driver_.put(kData, "hello, world");
  console_.room = 5;
  driver_.add(kTransmit, {{kData, 12}});
  driver_.kick(kTransmit);
  device_.drain();
  const StateNode state = test::save(device_);
  FakeConsole other;
  auto restored = VirtioMmio::restore(env_.env(), std::make_unique<VirtioConsole>(other), StateReader(state, "console"));
  ASSERT_TRUE(restored) << restored.error().message;
  driver_.move_to(**restored);
  EXPECT_EQ(other.output, ", world") << "the new back end has room";
  EXPECT_TRUE(driver_.take_used(kTransmit));
}

TEST_F(VirtioConsoleTest, ResetForgetsAChainHalfTaken) {
  driver_.start(2);
  driver_.put(kData, "hello");
  console_.room = 2;
  driver_.add(kTransmit, {{kData, 5}});
  driver_.kick(kTransmit);
  console_.room = 100;
  driver_.start(2);
  driver_.add(kTransmit, {{kData, 5}});
  driver_.kick(kTransmit);
  EXPECT_EQ(console_.output, "hehello");
}

}  // namespace
}  // namespace doppel
