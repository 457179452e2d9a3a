// What a virtual network card is plugged into: Ethernet frames, out and in.
//
// All of it happens on the event loop's thread. The card holds its own lock while it calls, so send() and
// resume() never call the receiver themselves: frames arrive from a callback of the loop.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <functional>
#include <span>

namespace doppel {

class NetworkBackend {
 public:
  // Takes one frame, without checksum; false: there is no room, and the frame must be offered again after
  // resume(). The bytes are the receiver's during the call only.
  using Receiver = std::function<bool(std::span<const std::byte> frame)>;

  NetworkBackend() = default;
  NetworkBackend(const NetworkBackend&) = delete;
  NetworkBackend& operator=(const NetworkBackend&) = delete;
  virtual ~NetworkBackend() = default;

  // Sends one frame, or drops it as networks do. The buffers are the back end's during the call only.
  virtual void send(std::span<const iovec> frame) = 0;

  // An empty function detaches. Frames that arrive without a receiver are dropped.
  virtual void set_receiver(Receiver receiver) = 0;

  // The receiver has room again.
  virtual void resume() = 0;
};

}  // namespace doppel
