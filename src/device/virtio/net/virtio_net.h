// The virtio network card (virtio 1.2, section 5.1), without offloads: one pair of queues.
//
// Works on the event loop's thread, where its back end lives. Frames that find no receive buffer wait in the
// back end.
#pragma once

#include <array>
#include <memory>

#include "base/log.h"
#include "device/virtio/virtio_device.h"
#include "network/mac_address.h"
#include "network/network_backend.h"

namespace doppel {

class VirtioNet final : public VirtioDevice {
 public:
  VirtioNet(std::unique_ptr<NetworkBackend> network, MacAddress mac) : network_(std::move(network)), mac_(mac) {}
  ~VirtioNet() override { network_->set_receiver({}); }

  std::string_view name() const override { return "virtio-net"; }
  std::uint32_t id() const override { return 1; }
  unsigned queue_count() const override { return 2; }
  std::uint64_t features() const override;
  Notified notified() const override { return Notified::kOnLoop; }
  void read_config(std::uint64_t offset, std::span<std::byte> into) const override;
  void notify(unsigned queue) override;
  void save(StateWriter&) const override {}  // the queues say it all
  Result<void> restore(const StateReader&) override { return {}; }
  void attached() override;

 private:
  static constexpr unsigned kReceive = 0, kTransmit = 1;

  bool receive(std::span<const std::byte> frame);

  std::unique_ptr<NetworkBackend> network_;
  MacAddress mac_;
  std::array<iovec, Virtqueue::kMaxSize> parts_;
  LogLimit log_limit_;
};

}  // namespace doppel
