// The transport with a device that does nothing but echo.
#include "device/virtio/virtio_mmio.h"

#include <gtest/gtest.h>

#include "base/io_vector.h"
#include "device/fdt.h"
#include "device/virtio/virtio_driver.h"

namespace doppel {
namespace {

using test::Part;
using test::TestEnv;
using test::VirtioDriver;

// Copies each chain's readable part to its writable one. One feature, bit 3; eight bytes of configuration.
class Echo final : public VirtioDevice {
 public:
  struct Log {
    unsigned activations = 0;
    unsigned notifications = 0;
    unsigned drains = 0;
    unsigned resets = 0;
    std::uint64_t features = 0;
  };

  explicit Echo(Log& log, Notified where = Notified::kOnHart) : log_(log), where_(where) {}

  std::string_view name() const override { return "virtio-echo"; }
  std::uint32_t id() const override { return 63; }
  unsigned queue_count() const override { return 2; }
  std::uint64_t features() const override { return 1u << 3; }
  Notified notified() const override { return where_; }
  void read_config(std::uint64_t offset, std::span<std::byte> into) const override {
    for (std::size_t at = 0; at < into.size(); ++at) into[at] = static_cast<std::byte>(offset + at + 1);
  }
  void write_config(std::uint64_t offset, std::span<const std::byte> from) override {
    written = {offset, std::vector(from.begin(), from.end())};
  }
  void activate(std::uint64_t features) override {
    VirtioDevice::activate(features);
    ++log_.activations;
    log_.features = features;
  }
  void notify(unsigned index) override {
    ++log_.notifications;
    serve(index, parts_, [this, index](DescriptorChain& chain) {
      std::vector<std::byte> bytes(total_bytes(chain.readable));
      gather(chain.readable, bytes);
      transport().queue(index).push(chain.head, static_cast<std::uint32_t>(scatter(bytes, chain.writable)));
      return true;
    });
  }
  void drain() override { ++log_.drains; }
  void reset() override {
    VirtioDevice::reset();
    ++log_.resets;
  }
  void save(StateWriter& writer) const override { writer.number("echoes", log_.notifications); }
  Result<void> restore(const StateReader& reader) override {
    std::uint32_t ignored = 0;
    return StateFields(reader).read("echoes", ignored).result();
  }
  using VirtioDevice::transport;

  std::pair<std::uint64_t, std::vector<std::byte>> written;

 private:
  Log& log_;
  Notified where_;
  std::array<iovec, Virtqueue::kMaxSize> parts_;
};

class VirtioMmioTest : public ::testing::Test {
 protected:
  void make(VirtioDevice::Notified where = VirtioDevice::Notified::kOnHart) {
    auto echo = std::make_unique<Echo>(log_, where);
    echo_ = echo.get();
    device_ = std::make_unique<VirtioMmio>(env_.env(), std::move(echo));
    driver_.emplace(env_, *device_);
  }
  void SetUp() override { make(); }

  // One echo through a queue; what came back.
  std::string echo(unsigned queue, std::string_view text) {
    driver_->put(VirtioDriver::kBuffers, text);
    const auto size = static_cast<std::uint32_t>(text.size());
    const std::uint16_t head =
        driver_->add(queue, {{VirtioDriver::kBuffers, size}, {VirtioDriver::kBuffers + 4096, size, true}});
    driver_->kick(queue);
    const auto used = driver_->take_used(queue);
    if (!used || used->head != head || used->written != size) return "(nothing)";
    return driver_->text(VirtioDriver::kBuffers + 4096, size);
  }

  TestEnv env_;
  Echo::Log log_;
  Echo* echo_ = nullptr;
  std::unique_ptr<VirtioMmio> device_;
  std::optional<VirtioDriver> driver_;
};

TEST_F(VirtioMmioTest, IdentifiesItself) {
  EXPECT_EQ(driver_->get(0x000), 0x74726976u);
  EXPECT_EQ(driver_->get(0x004), 2u);
  EXPECT_EQ(driver_->get(0x008), 63u);
  EXPECT_NE(driver_->get(0x00c), 0u);
  EXPECT_EQ(driver_->get(0x034), 256u);
  driver_->set(0x030, 2);
  EXPECT_EQ(driver_->get(0x034), 0u) << "there is no third queue";
  for (const std::uint64_t shared : {0xb0, 0xb4, 0xb8, 0xbc}) EXPECT_EQ(driver_->get(shared), 0xffff'ffffu);
}

TEST_F(VirtioMmioTest, OffersItsFeaturesAndItsDevices) {
  EXPECT_EQ(driver_->offered(), std::uint64_t{1} << 32 | 1u << 29 | 1u << 28 | 1u << 3);
  driver_->set(0x014, 2);
  EXPECT_EQ(driver_->get(0x010), 0u);
}

TEST_F(VirtioMmioTest, ConfigurationHasEveryWidth) {
  EXPECT_EQ(driver_->config(0, Width::k1), 1u);
  EXPECT_EQ(driver_->config(2, Width::k2), 0x0403u);
  EXPECT_EQ(driver_->config(4, Width::k4), 0x0807'0605u);
  EXPECT_EQ(driver_->config(0, Width::k8), 0x0807'0605'0403'0201u);
  driver_->set_config(2, Width::k2, 0xbeef);
  EXPECT_EQ(echo_->written.first, 2u);
  EXPECT_EQ(echo_->written.second, (std::vector{std::byte{0xef}, std::byte{0xbe}}));
}

TEST_F(VirtioMmioTest, RegistersAreWordsOnly) {
  EXPECT_EQ(test::read(*device_, 0, Width::k1), 0u);
  EXPECT_EQ(test::read(*device_, 0, Width::k8), 0u);
  test::write(*device_, 0x070, Width::k1, 1);
  EXPECT_EQ(driver_->status(), 0u);
}

TEST_F(VirtioMmioTest, EchoesOnceStarted) {
  driver_->start(2);
  EXPECT_EQ(driver_->status(), 15u);
  EXPECT_EQ(log_.activations, 1u);
  EXPECT_EQ(log_.features, driver_->offered());
  EXPECT_EQ(echo(0, "one"), "one");
  EXPECT_EQ(echo(1, "two"), "two");
}

TEST_F(VirtioMmioTest, RefusesFeaturesItDidNotOfferAndLegacyDrivers) {
  driver_->negotiate(VirtioDriver::kVersion1 | 1u << 4);
  EXPECT_EQ(driver_->status(), 3u);
  driver_->negotiate(1u << 3);
  EXPECT_EQ(driver_->status(), 3u);
  driver_->negotiate(VirtioDriver::kVersion1);
  EXPECT_EQ(driver_->status(), 11u);
  // Settled now.
  driver_->set(0x024, 0);
  driver_->set(0x020, 1u << 3);
  driver_->set(0x070, 15);
  EXPECT_EQ(log_.features, VirtioDriver::kVersion1);
}

TEST_F(VirtioMmioTest, DoesNothingBeforeDriverOk) {
  driver_->negotiate(VirtioDriver::kVersion1);
  driver_->enable(0, 16);
  EXPECT_EQ(echo(0, "early"), "(nothing)");
  // What was available by then is served without another notification.
  driver_->set(0x070, 15);
  EXPECT_TRUE(driver_->take_used(0));
}

TEST_F(VirtioMmioTest, DriverOkWithoutFeaturesOkNeedsReset) {
  driver_->set(0x070, 7);
  EXPECT_TRUE(driver_->needs_reset());
  EXPECT_EQ(log_.activations, 0u);
}

TEST_F(VirtioMmioTest, InterruptLineFollowsInterruptStatus) {
  driver_->start(1);
  EXPECT_FALSE(env_.irq.level);
  echo(0, "x");
  EXPECT_EQ(driver_->get(0x060), 1u);
  EXPECT_TRUE(env_.irq.level);
  {
    const std::lock_guard lock(device_->Device::monitor());
    echo_->transport().config_changed();
  }
  EXPECT_EQ(driver_->get(0x060), 3u);
  EXPECT_EQ(driver_->get(0x0fc), 1u);
  driver_->set(0x064, 1);
  EXPECT_TRUE(env_.irq.level);
  driver_->set(0x064, 2);
  EXPECT_FALSE(env_.irq.level);
  EXPECT_EQ(driver_->get(0x060), 0u);
}

TEST_F(VirtioMmioTest, QueueSetupIsFixedWhileTheQueueIsReady) {
  driver_->start(1);
  driver_->set(0x030, 0);
  driver_->set(0x038, 4);
  driver_->set(0x080, 0);
  EXPECT_EQ(driver_->get(0x044), 1u);
  EXPECT_EQ(echo(0, "still"), "still");
  const unsigned drains = log_.drains;
  driver_->set(0x044, 0);
  EXPECT_EQ(driver_->get(0x044), 0u);
  EXPECT_EQ(log_.drains, drains + 1) << "nothing may be in flight in a queue that goes";
}

TEST_F(VirtioMmioTest, WrongQueueSetupNeedsReset) {
  for (const std::uint32_t size : {0u, 3u, 512u, 65536u + 16, 0xffff'ffffu}) {
    driver_->negotiate(VirtioDriver::kVersion1);
    driver_->set(0x030, 0);
    driver_->set(0x038, size);
    driver_->set(0x080, static_cast<std::uint32_t>(VirtioDriver::descriptors(0)));
    driver_->set(0x090, static_cast<std::uint32_t>(VirtioDriver::available(0)));
    driver_->set(0x0a0, static_cast<std::uint32_t>(VirtioDriver::used_ring(0)));
    driver_->set(0x044, 1);
    EXPECT_TRUE(driver_->needs_reset()) << size;
  }
}

TEST_F(VirtioMmioTest, MisuseStopsTheDeviceUntilReset) {
  driver_->start(2);
  driver_->add(0, {{VirtioDriver::kOutside, 4}});
  driver_->kick(0);
  EXPECT_TRUE(driver_->needs_reset());
  EXPECT_EQ(driver_->get(0x060), 2u) << "a configuration change says so";
  EXPECT_TRUE(env_.irq.level);
  const unsigned before = log_.notifications;
  EXPECT_EQ(echo(1, "other queue"), "(nothing)");
  EXPECT_EQ(log_.notifications, before);

  driver_->start(2);
  EXPECT_FALSE(env_.irq.level);
  EXPECT_EQ(echo(1, "again"), "again");
}

TEST_F(VirtioMmioTest, ResetForgetsEverythingAfterDraining) {
  driver_->start(2);
  echo(0, "x");
  driver_->set(0x070, 0);
  EXPECT_EQ(driver_->status(), 0u);
  EXPECT_EQ(driver_->get(0x060), 0u);
  EXPECT_FALSE(env_.irq.level);
  driver_->set(0x030, 0);
  EXPECT_EQ(driver_->get(0x044), 0u);
  EXPECT_GE(log_.drains, 1u);
  EXPECT_GE(log_.resets, 1u);
}

TEST_F(VirtioMmioTest, NotificationsOfQueuesThatAreNotAreIgnored) {
  driver_->start(1);
  for (const std::uint32_t queue : {1u, 2u, 31u, 32u, 0xffff'ffffu}) driver_->kick(queue);
  EXPECT_EQ(log_.notifications, 1u) << "the one at DRIVER_OK";
  EXPECT_FALSE(driver_->needs_reset());
}

TEST_F(VirtioMmioTest, LoopDevicesAreNotifiedOnceForAll) {
  make(VirtioDevice::Notified::kOnLoop);
  driver_->start(1);
  env_.run_loop();
  log_ = {};
  driver_->add(0, {{VirtioDriver::kBuffers, 1}});
  driver_->kick(0);
  driver_->add(0, {{VirtioDriver::kBuffers, 1}});
  driver_->kick(0);
  EXPECT_EQ(log_.notifications, 0u);
  env_.run_loop();
  EXPECT_EQ(log_.notifications, 1u);
  EXPECT_TRUE(driver_->take_used(0));
  EXPECT_TRUE(driver_->take_used(0));
}

TEST_F(VirtioMmioTest, PostedNotificationOutlivesItsDevice) {
  make(VirtioDevice::Notified::kOnLoop);
  driver_->start(1);
  driver_->kick(0);
  device_.reset();
  env_.run_loop();
}

TEST_F(VirtioMmioTest, DrainHandlesWhatTheLoopHasNotGotTo) {
  make(VirtioDevice::Notified::kOnLoop);
  driver_->start(1);
  driver_->add(0, {{VirtioDriver::kBuffers, 1}});
  driver_->kick(0);
  device_->drain();
  EXPECT_TRUE(driver_->take_used(0));
}

TEST_F(VirtioMmioTest, RestoredDeviceContinues) {
  driver_->start(2);
  EXPECT_EQ(echo(0, "before"), "before");
  device_->drain();
  const StateNode state = test::save(*device_);
  env_.irq.level = false;

  auto restored = VirtioMmio::restore(env_.env(), std::make_unique<Echo>(log_), StateReader(state, "echo"));
  ASSERT_TRUE(restored) << restored.error().message;
  driver_->move_to(**restored);
  EXPECT_TRUE(env_.irq.level) << "the interrupt of the echo before";
  EXPECT_EQ(driver_->status(), 15u);
  EXPECT_EQ(echo(0, "after"), "after");
  EXPECT_EQ(echo(1, "after"), "after");
  StateNode again;
  StateWriter writer(again);
  (*restored)->save(writer);
  EXPECT_EQ(again.values.size(), state.values.size());
}

TEST_F(VirtioMmioTest, StateWithAMissingOrImpossibleValueIsRefused) {
  driver_->start(2);
  const StateNode state = test::save(*device_);
  const auto restore = [this](const StateNode& node) {
    return VirtioMmio::restore(env_.env(), std::make_unique<Echo>(log_), StateReader(node, "echo")).has_value();
  };
  ASSERT_TRUE(restore(state));
  for (const auto& [name, value] : state.values) {
    StateNode damaged = state;
    damaged.values.erase(name);
    EXPECT_FALSE(restore(damaged)) << name;
  }
  for (const auto& [name, child] : state.children) {
    StateNode damaged = state;
    damaged.children.erase(name);
    EXPECT_FALSE(restore(damaged)) << name;
  }
  StateNode damaged = state;
  damaged.values["driver_features"] = ~std::uint64_t{0};
  EXPECT_FALSE(restore(damaged));
}

TEST_F(VirtioMmioTest, DeviceTreeNodeSaysWhereItIs) {
  FdtBuilder fdt;
  device_->describe(fdt, {.range = {GuestPhysical{0x1000'1000}, VirtioMmio::kSizeBytes}, .irq = 1, .interrupt_parent = 9});
  const std::vector<std::byte> blob = fdt.finish();
  const std::string text(reinterpret_cast<const char*>(blob.data()), blob.size());
  EXPECT_NE(text.find("virtio_mmio@10001000"), std::string::npos);
  EXPECT_NE(text.find("virtio,mmio"), std::string::npos);
}

TEST_F(VirtioMmioTest, RandomAccessesDoNoHarm) {
  for (unsigned seed = 0; seed < 20; ++seed) test::access_at_random(*device_, VirtioMmio::kSizeBytes, 2000, seed);
  driver_->start(2);
  EXPECT_EQ(echo(0, "fine"), "fine");
}

}  // namespace
}  // namespace doppel
