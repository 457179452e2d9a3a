// What a device is: registers at offsets, a reset, a saved state.
//
// A device is a monitor: the bus holds its lock around read() and write(), which run on the accessing hart's
// thread, and a device's own event-loop callbacks take the same lock first. So a device sees one caller at a
// time, and two devices never wait for each other: while holding its lock a device may call down into
// InterruptLine (interrupt controllers are leaves), never into another device or the bus.
// It does not know where it is mapped. Long work (disk, network) belongs on the event loop, not in write().
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string_view>

#include "base/event_loop.h"
#include "base/virtual_clock.h"
#include "device/fdt.h"
#include "memory/guest_memory.h"
#include "memory/io_space.h"
#include "state/state.h"

namespace doppel {

struct Offset {
  std::uint64_t value = 0;  // bytes from the start of the device's registers
};

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string_view name() const = 0;

  // Register accesses. `offset + width` lies inside the mapped range and is naturally aligned. A width or
  // offset without meaning reads as zero and ignores writes.
  virtual std::uint64_t read(Offset offset, Width width) = 0;
  virtual void write(Offset offset, Width width, std::uint64_t value) = 0;

  // Back to power-on state. The caller holds the monitor, as for read() and write().
  virtual void reset() = 0;

  // Everything that reset() would lose. Each device class has the inverse,
  //   static Result<std::unique_ptr<X>> restore(<the constructor's arguments>, const StateReader&);
  // Interrupt levels are not saved: both ways of making a device drive its lines, so controllers are made
  // before what is wired to them.
  // The caller holds the monitor.
  virtual void save(StateWriter& writer) const = 0;

  // Adds the device's node to the open node of `fdt`.
  virtual void describe(FdtBuilder& fdt, const Placement& placement) const = 0;

  std::mutex& monitor() const { return monitor_; }

 private:
  mutable std::mutex monitor_;
};

// One level-triggered wire into an interrupt controller. set() may be called from any thread.
class InterruptLine {
 public:
  InterruptLine() = default;
  explicit InterruptLine(std::function<void(bool)> set) : set_(std::move(set)) {}

  void set(bool level) const {
    if (set_) set_(level);
  }

 private:
  std::function<void(bool)> set_;
};

// What a device is built from. All of it outlives the device.
struct DeviceEnv {
  const GuestMemory& memory;  // what it reaches by DMA
  InterruptLine irq;
  EventLoop& loop;
  const VirtualClock& clock;
};

}  // namespace doppel
