// The virtio console (virtio 1.2, section 5.3) with one port.
//
// Both directions are flow-controlled: output that the back end has no room for stays in the guest's queue, and
// so does input in the back end. Pumped on the hart that notifies and, when the back end is ready again, on the
// event loop.
#pragma once

#include <array>

#include "device/console_backend.h"
#include "device/virtio/virtio_device.h"

namespace doppel {

class VirtioConsole final : public VirtioDevice {
 public:
  explicit VirtioConsole(ConsoleBackend& backend) : backend_(backend) {}
  ~VirtioConsole() override { backend_.set_listener({}); }

  std::string_view name() const override { return "virtio-console"; }
  std::uint32_t id() const override { return 3; }
  unsigned queue_count() const override { return 2; }
  std::uint64_t features() const override;
  void write_config(std::uint64_t offset, std::span<const std::byte> from) override;
  void notify(unsigned queue) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;
  void attached() override;

 private:
  static constexpr unsigned kReceive = 0, kTransmit = 1;

  void pump_input();
  void pump_output();

  ConsoleBackend& backend_;
  std::uint64_t taken_bytes_ = 0;  // of the first chain in the transmit queue, by the back end
  std::array<iovec, Virtqueue::kMaxSize> parts_;
};

}  // namespace doppel
