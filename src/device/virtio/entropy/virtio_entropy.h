// The virtio entropy device (virtio 1.2, section 5.4): random bytes of the host's kernel.
#pragma once

#include <array>

#include "device/virtio/virtio_device.h"

namespace doppel {

class VirtioEntropy final : public VirtioDevice {
 public:
  std::string_view name() const override { return "virtio-rng"; }
  std::uint32_t id() const override { return 4; }
  unsigned queue_count() const override { return 1; }
  void notify(unsigned queue) override;
  void save(StateWriter&) const override {}  // nothing that lasts
  Result<void> restore(const StateReader&) override { return {}; }

 private:
  std::array<iovec, Virtqueue::kMaxSize> parts_;
};

}  // namespace doppel
