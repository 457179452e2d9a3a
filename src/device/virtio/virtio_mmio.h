// The memory-mapped virtio transport (virtio 1.2, section 4.2, version 2): registers, status, feature
// negotiation, queue set-up, interrupts, for any VirtioDevice.
//
// The monitor is the one lock of the transport and its device. Registers are accessed on hart threads; a
// notification is handled there or on the event loop, as the device says. Destroyed on the loop's thread, or
// while the loop does not run.
//
// The interrupt line is high exactly while InterruptStatus is not zero. A driver that breaks the rules brings
// the device to DEVICE_NEEDS_RESET, where it does nothing until the driver resets it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/log.h"
#include "device/device.h"
#include "device/virtio/virtio_device.h"

namespace doppel {

class VirtioMmio final : public Device, private VirtioTransport {
 public:
  static constexpr std::uint64_t kSizeBytes = 0x1000;

  VirtioMmio(const DeviceEnv& env, std::unique_ptr<VirtioDevice> device);
  ~VirtioMmio() override;
  static Result<std::unique_ptr<VirtioMmio>> restore(const DeviceEnv& env, std::unique_ptr<VirtioDevice> device,
                                                     const StateReader& reader);

  std::string_view name() const override { return device_->name(); }
  std::uint64_t read(Offset offset, Width width) override;
  void write(Offset offset, Width width, std::uint64_t value) override;
  void reset() override;
  void describe(FdtBuilder& fdt, const Placement& placement) const override;

  // Before save(), and before the machine ends, with the harts stopped: finishes what is in flight and brings
  // what was acknowledged to stable storage. Takes the monitor.
  void drain();
  // Drained.
  void save(StateWriter& writer) const override;

 private:
  struct QueueSetup {
    Virtqueue::Layout layout;
    Virtqueue queue;
  };

  Virtqueue& queue(unsigned index) override { return queues_[index].queue; }
  const GuestMemory& memory() const override { return memory_; }
  EventLoop& loop() const override { return loop_; }
  std::mutex& monitor() const override { return Device::monitor(); }
  bool live() const override;
  void publish(unsigned queue) override;
  void config_changed() override;
  void fail(std::string_view why) override;

  std::uint64_t offered_features() const;
  std::uint32_t read_register(std::uint64_t offset) const;
  void write_register(std::uint64_t offset, std::uint32_t value);
  void write_status(std::uint32_t value);
  void write_queue_ready(QueueSetup& setup, bool ready);
  void enable_queue(QueueSetup& setup, Virtqueue::Positions positions);
  void notify(std::uint32_t index);
  void notify_on_loop();
  void raise(std::uint32_t cause);
  void start_over();

  const GuestMemory& memory_;
  EventLoop& loop_;
  InterruptLine irq_;
  std::unique_ptr<VirtioDevice> device_;

  std::uint32_t status_ = 0;
  std::uint32_t interrupt_status_ = 0;
  std::uint32_t config_generation_ = 0;
  std::uint32_t device_features_select_ = 0;
  std::uint32_t driver_features_select_ = 0;
  std::uint32_t queue_select_ = 0;
  std::uint64_t driver_features_ = 0;
  std::vector<QueueSetup> queues_;

  std::uint32_t notified_ = 0;  // queues whose notification waits for the loop
  LogLimit log_limit_;
  std::shared_ptr<VirtioMmio*> self_;  // what is posted to the loop holds a weak reference to it
};

}  // namespace doppel
