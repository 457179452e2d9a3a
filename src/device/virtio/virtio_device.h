// What one kind of virtio device does, apart from how the guest reaches it.
//
// A transport (virtio_mmio.h) owns the device's status, features and queues, and calls the device; the device
// calls back through VirtioTransport. The transport's monitor is held around every call in either direction, so
// a device has no lock of its own; its own event-loop callbacks lock the monitor first.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <span>
#include <string_view>

#include "base/bits.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "device/virtio/virtqueue.h"
#include "memory/guest_memory.h"
#include "state/state.h"

namespace doppel {

class VirtioTransport {
 public:
  virtual Virtqueue& queue(unsigned index) = 0;
  virtual const GuestMemory& memory() const = 0;
  virtual EventLoop& loop() const = 0;
  virtual std::mutex& monitor() const = 0;

  // True between DRIVER_OK and the next reset, unless the device needs that reset.
  virtual bool live() const = 0;

  // Shows the driver what was pushed to a queue, and interrupts it if it wants that.
  virtual void publish(unsigned queue) = 0;
  virtual void config_changed() = 0;

  // The driver did what it must not: the device stops until reset (DEVICE_NEEDS_RESET, 2.1.2).
  virtual void fail(std::string_view why) = 0;

 protected:
  ~VirtioTransport() = default;
};

class VirtioDevice {
 public:
  // Where a queue's notifications are handled. On the hart that notified: lowest latency, for devices that only
  // hand work on. On the event loop: for work that takes long or belongs there.
  enum class Notified : std::uint8_t { kOnHart, kOnLoop };

  virtual ~VirtioDevice() = default;

  virtual std::string_view name() const = 0;
  virtual std::uint32_t id() const = 0;  // virtio 1.2, section 5
  virtual unsigned queue_count() const = 0;
  virtual std::uint64_t features() const { return 0; }  // of the device's own kind
  virtual Notified notified() const { return Notified::kOnHart; }

  // The configuration space; bytes beyond its end read as zero and ignore writes.
  virtual void read_config(std::uint64_t /*offset*/, std::span<std::byte> into) const {
    std::ranges::fill(into, std::byte{0});
  }
  virtual void write_config(std::uint64_t /*offset*/, std::span<const std::byte> /*from*/) {}

  // The driver is ready; `features` are those agreed on.
  virtual void activate(std::uint64_t features) { features_ = features; }
  virtual void notify(unsigned queue) = 0;

  // Returns when nothing that uses guest memory is in flight.
  virtual void drain() {}
  // Drained: brings what was acknowledged to stable storage.
  virtual void flush() {}
  // Back to what it was before activate(); after drain().
  virtual void reset() { features_ = 0; }

  // The device's own part of the state, drained. restore() is called before the device is used.
  virtual void save(StateWriter& writer) const = 0;
  virtual Result<void> restore(const StateReader& reader) = 0;

  void attach(VirtioTransport& transport) { transport_ = &transport; }
  // The transport is complete and the device may set its callbacks.
  virtual void attached() {}

 protected:
  VirtioTransport& transport() const { return *transport_; }
  bool agreed(unsigned feature) const { return bit(features_, feature); }

  // Hands every available chain of a queue to `handle(DescriptorChain&)`, until it returns false, which leaves
  // that chain in the queue; then shows the driver what was pushed meanwhile.
  template <class Handle>
  void serve(unsigned index, std::span<iovec> storage, Handle handle) {
    Virtqueue& queue = transport_->queue(index);
    if (!transport_->live()) return;
    queue.suppress_notifications();
    bool stopped = false;
    do {
      DescriptorChain chain;
      while (!stopped && queue.pop(transport_->memory(), storage, chain)) {
        stopped = !handle(chain);
        if (stopped) queue.unpop();
        if (!transport_->live()) return;
      }
      if (queue.fault() != Virtqueue::Fault::kNone) return transport_->fail(Virtqueue::describe(queue.fault()));
    } while (queue.request_notifications() && !stopped);
    transport_->publish(index);
  }

 private:
  VirtioTransport* transport_ = nullptr;
  std::uint64_t features_ = 0;
};

}  // namespace doppel
