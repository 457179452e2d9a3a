#include "device/virtio/virtio_mmio.h"

#include <string>
#include <utility>

#include "base/bits.h"
#include "device/fdt.h"

namespace doppel {
namespace {

// 4.2.2
enum Register : std::uint64_t {
  kMagic = 0x000,
  kVersion = 0x004,
  kDeviceId = 0x008,
  kVendorId = 0x00c,
  kDeviceFeatures = 0x010,
  kDeviceFeaturesSelect = 0x014,
  kDriverFeatures = 0x020,
  kDriverFeaturesSelect = 0x024,
  kQueueSelect = 0x030,
  kQueueSizeMax = 0x034,
  kQueueSize = 0x038,
  kQueueReady = 0x044,
  kQueueNotify = 0x050,
  kInterruptStatus = 0x060,
  kInterruptAcknowledge = 0x064,
  kStatus = 0x070,
  kQueueDescriptorsLow = 0x080,
  kQueueDescriptorsHigh = 0x084,
  kQueueDriverLow = 0x090,
  kQueueDriverHigh = 0x094,
  kQueueDeviceLow = 0x0a0,
  kQueueDeviceHigh = 0x0a4,
  kSharedMemoryLengthLow = 0x0b0,
  kSharedMemoryLengthHigh = 0x0b4,
  kSharedMemoryBaseLow = 0x0b8,
  kSharedMemoryBaseHigh = 0x0bc,
  kConfigGeneration = 0x0fc,
  kConfig = 0x100,
};

constexpr std::uint32_t kMagicValue = 0x74726976;   // "virt"
constexpr std::uint32_t kVendorValue = 0x4c505044;  // "DPPL"

// 2.1
constexpr std::uint32_t kStatusDriverOk = 4, kStatusFeaturesOk = 8, kStatusNeedsReset = 64, kStatusFailed = 128;
constexpr std::uint32_t kStatusDriverBits = 1 | 2 | kStatusDriverOk | kStatusFeaturesOk | kStatusFailed;

// 4.2.2, InterruptStatus
constexpr std::uint32_t kUsedBuffers = 1, kConfigChange = 2;

// 6: what every device on this transport offers
constexpr unsigned kFeatureIndirect = 28, kFeatureEventIndex = 29, kFeatureVersion1 = 32;
constexpr std::uint64_t kTransportFeatures =
    std::uint64_t{1} << kFeatureIndirect | std::uint64_t{1} << kFeatureEventIndex | std::uint64_t{1} << kFeatureVersion1;

std::uint32_t half_of(std::uint64_t value, std::uint32_t select) {
  return select < 2 ? static_cast<std::uint32_t>(value >> (32 * select)) : 0;
}

void set_half(std::uint64_t& into, bool high, std::uint32_t value) {
  into = high ? with_bits(into, 63, 32, value) : with_bits(into, 31, 0, value);
}

}  // namespace

VirtioMmio::VirtioMmio(const DeviceEnv& env, std::unique_ptr<VirtioDevice> device)
    : memory_(env.memory),
      loop_(env.loop),
      irq_(env.irq),
      device_(std::move(device)),
      queues_(device_->queue_count()),
      self_(std::make_shared<VirtioMmio*>(this)) {
  irq_.set(false);
  device_->attach(*this);
  device_->attached();
}

VirtioMmio::~VirtioMmio() {
  const std::lock_guard lock(Device::monitor());
  device_->drain();
}

std::uint64_t VirtioMmio::offered_features() const { return device_->features() | kTransportFeatures; }

std::uint64_t VirtioMmio::read(Offset offset, Width width) {
  if (offset.value >= kConfig) {
    std::uint64_t value = 0;
    device_->read_config(offset.value - kConfig,
                         std::as_writable_bytes(std::span(&value, 1)).first(bytes_of(width)));
    return value;
  }
  return width == Width::k4 ? read_register(offset.value) : 0;
}

void VirtioMmio::write(Offset offset, Width width, std::uint64_t value) {
  if (offset.value >= kConfig) {
    device_->write_config(offset.value - kConfig, std::as_bytes(std::span(&value, 1)).first(bytes_of(width)));
  } else if (width == Width::k4) {
    write_register(offset.value, static_cast<std::uint32_t>(value));
  }
}

std::uint32_t VirtioMmio::read_register(std::uint64_t offset) const {
  switch (offset) {
    case kMagic: return kMagicValue;
    case kVersion: return 2;
    case kDeviceId: return device_->id();
    case kVendorId: return kVendorValue;
    case kDeviceFeatures: return half_of(offered_features(), device_features_select_);
    case kQueueSizeMax: return queue_select_ < queues_.size() ? Virtqueue::kMaxSize : 0;
    case kQueueReady: return queue_select_ < queues_.size() && queues_[queue_select_].queue.enabled() ? 1 : 0;
    case kInterruptStatus: return interrupt_status_;
    case kStatus: return status_;
    // 4.2.2.1: a shared memory region that does not exist has all ones for length; we have none.
    case kSharedMemoryLengthLow:
    case kSharedMemoryLengthHigh:
    case kSharedMemoryBaseLow:
    case kSharedMemoryBaseHigh: return ~std::uint32_t{0};
    case kConfigGeneration: return config_generation_;
    default: return 0;
  }
}

void VirtioMmio::write_register(std::uint64_t offset, std::uint32_t value) {
  switch (offset) {
    case kDeviceFeaturesSelect: device_features_select_ = value; return;
    case kDriverFeaturesSelect: driver_features_select_ = value; return;
    case kDriverFeatures:
      // 3.1.1: the features are settled with FEATURES_OK.
      if ((status_ & kStatusFeaturesOk) == 0 && driver_features_select_ < 2) {
        set_half(driver_features_, driver_features_select_ == 1, value);
      }
      return;
    case kQueueSelect: queue_select_ = value; return;
    case kQueueNotify: return notify(value);
    case kInterruptAcknowledge:
      interrupt_status_ &= ~value;
      return irq_.set(interrupt_status_ != 0);
    case kStatus: return write_status(value);
    default: break;
  }

  if (queue_select_ >= queues_.size()) return;
  QueueSetup& setup = queues_[queue_select_];
  if (offset == kQueueReady) return write_queue_ready(setup, bit(value, 0));
  if (setup.queue.enabled()) return;  // 4.2.2.2: its set-up stays while a queue is in use
  Virtqueue::Layout& layout = setup.layout;
  switch (offset) {
    // A size that does not fit in the field is as wrong as 0.
    case kQueueSize: layout.size = value <= Virtqueue::kMaxSize ? static_cast<std::uint16_t>(value) : 0; return;
    case kQueueDescriptorsLow:
    case kQueueDescriptorsHigh: return set_half(layout.descriptors.value, offset == kQueueDescriptorsHigh, value);
    case kQueueDriverLow:
    case kQueueDriverHigh: return set_half(layout.driver.value, offset == kQueueDriverHigh, value);
    case kQueueDeviceLow:
    case kQueueDeviceHigh: return set_half(layout.device.value, offset == kQueueDeviceHigh, value);
    default: return;
  }
}

void VirtioMmio::write_status(std::uint32_t value) {
  if (value == 0) return start_over();
  // 2.1.1: a driver only sets bits.
  std::uint32_t rising = value & kStatusDriverBits & ~status_;
  if ((rising & kStatusFeaturesOk) != 0 &&
      ((driver_features_ & ~offered_features()) != 0 || !bit(driver_features_, kFeatureVersion1))) {
    rising &= ~kStatusFeaturesOk;  // 3.1.1: the driver reads back that we do not agree
  }
  status_ |= rising;
  if ((rising & kStatusDriverOk) == 0) return;
  if ((status_ & kStatusFeaturesOk) == 0) return fail("DRIVER_OK without FEATURES_OK");
  if (!live()) return;
  device_->activate(driver_features_);
  // Chains that were made available before now must not need a second notification.
  for (std::uint32_t index = 0; index < queues_.size(); ++index) notify(index);
}

void VirtioMmio::write_queue_ready(QueueSetup& setup, bool ready) {
  if (ready == setup.queue.enabled()) return;
  if (ready) return enable_queue(setup, {});
  device_->drain();
  setup.queue.disable();
}

void VirtioMmio::enable_queue(QueueSetup& setup, Virtqueue::Positions positions) {
  setup.queue.enable(setup.layout, bit(driver_features_, kFeatureEventIndex), memory_, positions);
  if (setup.queue.fault() != Virtqueue::Fault::kNone) fail(Virtqueue::describe(setup.queue.fault()));
}

void VirtioMmio::notify(std::uint32_t index) {
  if (!live() || index >= queues_.size() || !queues_[index].queue.enabled()) return;
  if (device_->notified() == VirtioDevice::Notified::kOnHart) return device_->notify(index);
  const bool posted = notified_ != 0;
  notified_ |= 1u << index;
  if (posted) return;
  loop_.post([weak = std::weak_ptr(self_)] {
    if (const auto self = weak.lock()) (*self)->notify_on_loop();
  });
}

void VirtioMmio::notify_on_loop() {
  const std::lock_guard lock(Device::monitor());
  const std::uint32_t queues = std::exchange(notified_, 0);
  for (unsigned index = 0; index < queues_.size(); ++index) {
    if (bit(queues, index) && live()) device_->notify(index);
  }
}

bool VirtioMmio::live() const {
  return (status_ & (kStatusDriverOk | kStatusNeedsReset | kStatusFailed)) == kStatusDriverOk;
}

void VirtioMmio::raise(std::uint32_t cause) {
  interrupt_status_ |= cause;
  irq_.set(true);
}

void VirtioMmio::publish(unsigned index) {
  if (queues_[index].queue.publish()) raise(kUsedBuffers);
}

void VirtioMmio::config_changed() {
  ++config_generation_;
  if ((status_ & kStatusDriverOk) != 0) raise(kConfigChange);
}

void VirtioMmio::fail(std::string_view why) {
  if ((status_ & kStatusNeedsReset) != 0) return;
  log_limited(log_limit_, "{}: the guest's driver is at fault: {}; the device waits to be reset", name(), why);
  status_ |= kStatusNeedsReset;
  // 2.1.2: the driver learns of it by a configuration change.
  config_changed();
}

// 2.4: what the driver asks for by writing status 0.
void VirtioMmio::start_over() {
  device_->drain();
  device_->reset();
  for (QueueSetup& setup : queues_) setup = {};
  status_ = 0;
  driver_features_ = 0;
  device_features_select_ = 0;
  driver_features_select_ = 0;
  queue_select_ = 0;
  interrupt_status_ = 0;
  irq_.set(false);
}

void VirtioMmio::reset() {
  start_over();
  config_generation_ = 0;
}

void VirtioMmio::drain() {
  const std::lock_guard lock(Device::monitor());
  // Also what still waits for the loop: the state has no place for it.
  const std::uint32_t queues = std::exchange(notified_, 0);
  for (unsigned index = 0; index < queues_.size(); ++index) {
    if (bit(queues, index) && live()) device_->notify(index);
  }
  device_->drain();
  device_->flush();
}

void VirtioMmio::save(StateWriter& writer) const {
  writer.number("status", status_);
  writer.number("interrupt_status", interrupt_status_);
  writer.number("config_generation", config_generation_);
  writer.number("device_features_select", device_features_select_);
  writer.number("driver_features_select", driver_features_select_);
  writer.number("queue_select", queue_select_);
  writer.number("driver_features", driver_features_);
  for (std::size_t index = 0; index < queues_.size(); ++index) {
    const QueueSetup& setup = queues_[index];
    StateWriter queue = writer.child("queue" + std::to_string(index));
    queue.number("size", setup.layout.size);
    queue.number("descriptors", setup.layout.descriptors.value);
    queue.number("driver", setup.layout.driver.value);
    queue.number("device", setup.layout.device.value);
    queue.number("enabled", setup.queue.enabled());
    queue.number("next_available", setup.queue.positions().next_available);
    queue.number("next_used", setup.queue.positions().next_used);
    queue.number("announced_used", setup.queue.positions().announced_used);
  }
  StateWriter device = writer.child("device");
  device_->save(device);
}

Result<std::unique_ptr<VirtioMmio>> VirtioMmio::restore(const DeviceEnv& env, std::unique_ptr<VirtioDevice> device,
                                                        const StateReader& reader) {
  auto mmio = std::make_unique<VirtioMmio>(env, std::move(device));
  const std::lock_guard lock(mmio->Device::monitor());
  StateFields fields(reader);
  fields.read("status", mmio->status_)
      .read("interrupt_status", mmio->interrupt_status_)
      .read("config_generation", mmio->config_generation_)
      .read("device_features_select", mmio->device_features_select_)
      .read("driver_features_select", mmio->driver_features_select_)
      .read("queue_select", mmio->queue_select_)
      .read("driver_features", mmio->driver_features_)
      .require((mmio->status_ & kStatusFeaturesOk) == 0 ||
                   (mmio->driver_features_ & ~mmio->offered_features()) == 0,
               "driver_features", "names a feature that this device lacks");
  if (auto result = fields.result(); !result) return std::unexpected(result.error());
  for (std::size_t index = 0; index < mmio->queues_.size(); ++index) {
    const auto child = reader.child("queue" + std::to_string(index));
    if (!child) return std::unexpected(child.error());
    QueueSetup& setup = mmio->queues_[index];
    bool enabled = false;
    Virtqueue::Positions positions;
    StateFields queue(*child);
    queue.read("size", setup.layout.size)
        .read("descriptors", setup.layout.descriptors.value)
        .read("driver", setup.layout.driver.value)
        .read("device", setup.layout.device.value)
        .read("enabled", enabled)
        .read("next_available", positions.next_available)
        .read("next_used", positions.next_used)
        .read("announced_used", positions.announced_used);
    if (auto result = queue.result(); !result) return std::unexpected(result.error());
    if (enabled) mmio->enable_queue(setup, positions);
  }
  if ((mmio->status_ & kStatusDriverOk) != 0) mmio->device_->activate(mmio->driver_features_);
  const auto child = reader.child("device");
  if (!child) return std::unexpected(child.error());
  if (auto result = mmio->device_->restore(*child); !result) return std::unexpected(result.error());
  mmio->irq_.set(mmio->interrupt_status_ != 0);
  // The back ends are new: what the old ones had no room for is offered again.
  for (std::uint32_t index = 0; index < mmio->queues_.size(); ++index) mmio->notify(index);
  return mmio;
}

void VirtioMmio::describe(FdtBuilder& fdt, const Placement& placement) const {
  const auto node = fdt.node("virtio_mmio", placement.range.start.value);
  fdt.text("compatible", "virtio,mmio");
  fdt.reg(placement.range);
  fdt.interrupt(placement);
}

}  // namespace doppel
