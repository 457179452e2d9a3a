// The far end of a guest's character device: a terminal, a pipe, a test.
//
// Both directions are flow-controlled, so no byte is ever dropped: what write() did not take and what read()
// did not fetch stays where it is until the listener is called. Devices call from hart threads and from the
// event loop with their monitor held, so both calls return promptly and never call the listener themselves.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

namespace doppel {

class ConsoleBackend {
 public:
  virtual ~ConsoleBackend() = default;

  // Takes the guest's output; returns how many of its first bytes were taken. Fewer than all: no room, and
  // the listener is called once there is.
  [[nodiscard]] virtual std::size_t write(std::span<const std::byte> output) = 0;

  // Fetches input for the guest into the start of `input`; returns how many bytes. Fewer than asked: no
  // more for now, and the listener is called once there is.
  [[nodiscard]] virtual std::size_t read(std::span<std::byte> input) = 0;

  // The device to call, on the event loop's thread and with no lock held, when it is worth trying read() or
  // write() again; it is also called when there was nothing to wait for. Set before the loop runs; an empty
  // function detaches.
  virtual void set_listener(std::function<void()> ready) = 0;
};

}  // namespace doppel
