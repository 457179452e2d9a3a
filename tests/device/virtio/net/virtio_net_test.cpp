#include "device/virtio/net/virtio_net.h"

#include <gtest/gtest.h>

#include "base/io_vector.h"
#include "device/virtio/virtio_driver.h"

namespace doppel {
namespace {

using test::TestEnv;
using test::VirtioDriver;

constexpr std::uint64_t kData = VirtioDriver::kBuffers;
constexpr unsigned kReceive = 0, kTransmit = 1;
constexpr std::uint32_t kHeaderBytes = 12;

class FakeNetwork final : public NetworkBackend {
 public:
  struct Control {
    std::vector<std::string> sent;
    unsigned resumed = 0;
    Receiver receiver;

    bool deliver(const std::string& frame) const { return receiver(std::as_bytes(std::span(frame))); }
  };

  explicit FakeNetwork(Control& control) : control_(control) {}
  void send(std::span<const iovec> frame) override {
    std::string bytes(total_bytes(frame), '\0');
    gather(frame, std::as_writable_bytes(std::span(bytes)));
    control_.sent.push_back(bytes);
  }
  void set_receiver(Receiver receiver) override { control_.receiver = std::move(receiver); }
  void resume() override { ++control_.resumed; }

 private:
  Control& control_;
};

class VirtioNetTest : public ::testing::Test {
 protected:
  void start(std::uint64_t features = ~std::uint64_t{0}) {
    driver_.start(2, features);
    env_.run_loop();
  }

  TestEnv env_;
  FakeNetwork::Control network_;
  VirtioMmio device_{env_.env(), std::make_unique<VirtioNet>(std::make_unique<FakeNetwork>(network_),
                                                             *MacAddress::parse("52:54:00:ab:cd:ef"))};
  VirtioDriver driver_{env_, device_};
};

TEST_F(VirtioNetTest, ConfigurationHasAddressAndLink) {
  EXPECT_EQ(driver_.config(0, Width::k4), 0xab'00'54'52u);
  EXPECT_EQ(driver_.config(4, Width::k2), 0xefcdu);
  EXPECT_EQ(driver_.config(6, Width::k2), 1u);
  EXPECT_EQ(driver_.config(8, Width::k8), 0u);
}

TEST_F(VirtioNetTest, FramesGoOutWithoutTheirHeader) {
  start();
  driver_.put(kData, std::string(kHeaderBytes, 'h') + "frame");
  driver_.add(kTransmit, {{kData, 5}, {kData + 5, kHeaderBytes}});
  driver_.add(kTransmit, {{kData, kHeaderBytes}, {kData + kHeaderBytes, 2}, {kData + kHeaderBytes + 2, 3}});
  driver_.kick(kTransmit);
  EXPECT_TRUE(network_.sent.empty()) << "not on the hart";
  env_.run_loop();
  EXPECT_EQ(network_.sent, (std::vector<std::string>{"frame", "frame"}));
  EXPECT_TRUE(driver_.take_used(kTransmit));
  EXPECT_TRUE(driver_.take_used(kTransmit));
}

TEST_F(VirtioNetTest, ChainsWithoutAFrameAreDropped) {
  start();
  driver_.add(kTransmit, {{kData, kHeaderBytes}});
  driver_.add(kTransmit, {{kData, 3}});
  driver_.add(kTransmit, {{kData, 64, true}});
  driver_.add(kTransmit, {{kData, 70'000}});
  driver_.kick(kTransmit);
  env_.run_loop();
  EXPECT_TRUE(network_.sent.empty());
  for (int count = 0; count < 4; ++count) EXPECT_TRUE(driver_.take_used(kTransmit));
  EXPECT_FALSE(driver_.needs_reset());
}

TEST_F(VirtioNetTest, FramesComeInBehindAHeader) {
  start();
  driver_.put(kData, std::string(64, 'x'));
  driver_.add(kReceive, {{kData, 10, true}, {kData + 32, 2000, true}});
  EXPECT_TRUE(network_.deliver("incoming"));
  const auto used = driver_.take_used(kReceive);
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, kHeaderBytes + 8);
  // num_buffers, the header's last field, is 1.
  EXPECT_EQ(driver_.text(kData, 10) + driver_.text(kData + 32, 2), std::string(10, '\0') + std::string("\1\0", 2));
  EXPECT_EQ(driver_.text(kData + 34, 8), "incoming");
  EXPECT_TRUE(env_.irq.level);
}

TEST_F(VirtioNetTest, FrameWithoutBufferWaitsUntilThereIsOne) {
  start();
  EXPECT_FALSE(network_.deliver("early"));
  EXPECT_TRUE(driver_.notification_wanted(kReceive));
  const unsigned before = network_.resumed;
  driver_.add(kReceive, {{kData, 2000, true}});
  driver_.kick(kReceive);
  env_.run_loop();
  EXPECT_EQ(network_.resumed, before + 1);
  EXPECT_TRUE(network_.deliver("early"));
  EXPECT_TRUE(driver_.take_used(kReceive));
}

TEST_F(VirtioNetTest, FrameLargerThanItsBufferIsDroppedAndTheBufferKept) {
  start();
  driver_.add(kReceive, {{kData, kHeaderBytes + 4, true}});
  EXPECT_TRUE(network_.deliver("large"));
  EXPECT_FALSE(driver_.take_used(kReceive));
  EXPECT_TRUE(network_.deliver("fits"));
  EXPECT_TRUE(driver_.take_used(kReceive));
}

TEST_F(VirtioNetTest, FramesAreDroppedWithoutADriver) {
  EXPECT_TRUE(network_.deliver("nobody there"));
}

TEST_F(VirtioNetTest, MisuseOfTheReceiveQueueNeedsReset) {
  start();
  driver_.add(kReceive, {{VirtioDriver::kOutside, 2000, true}});
  EXPECT_TRUE(network_.deliver("frame"));
  EXPECT_TRUE(driver_.needs_reset());
  start();
  driver_.add(kReceive, {{kData, 2000, true}});
  EXPECT_TRUE(network_.deliver("frame"));
  EXPECT_TRUE(driver_.take_used(kReceive));
}

TEST_F(VirtioNetTest, RestoredCardContinues) {
  start();
  driver_.add(kReceive, {{kData, 2000, true}});
  device_.drain();
  const StateNode state = test::save(device_);
  FakeNetwork::Control other;
  auto restored = VirtioMmio::restore(
      env_.env(), std::make_unique<VirtioNet>(std::make_unique<FakeNetwork>(other), MacAddress::local(0)),
      StateReader(state, "net"));
  ASSERT_TRUE(restored) << restored.error().message;
  driver_.move_to(**restored);
  EXPECT_TRUE(other.deliver("after"));
  EXPECT_EQ(driver_.text(kData + kHeaderBytes, 5), "after");
}

}  // namespace
}  // namespace doppel
