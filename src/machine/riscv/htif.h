// The Berkeley host-target interface, as far as bare-metal tests use it: a doubleword of RAM, `tohost`.
//
// The guest stores a command there and waits until it is zero again: device in bits 63..56, command in 55..48,
// payload below (riscv-isa-sim, fesvr/device.h). RAM stores cause no exits, so the word is looked at every few
// milliseconds, on the event loop. Guests without the symbol have none of this.
#pragma once

#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "device/console_backend.h"
#include "memory/guest_memory.h"

namespace doppel::riscv {

class Htif {
 public:
  // `finish` gets the code of the guest's exit, on the loop's thread, and may destroy the Htif.
  Htif(GuestPhysical tohost, const GuestMemory& memory, EventLoop& loop, ConsoleBackend& console,
       std::function<void(std::uint64_t code)> finish);

 private:
  void look();

  GuestPhysical tohost_;
  const GuestMemory& memory_;
  ConsoleBackend& console_;
  std::function<void(std::uint64_t)> finish_;
  std::unique_ptr<EventLoop::Timer> timer_;
};

}  // namespace doppel::riscv
