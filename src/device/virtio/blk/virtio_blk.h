// The virtio block device (virtio 1.2, section 5.2): a disk of the host as a disk of the guest.
//
// Requests go from the queue to the back end and back without a copy, as many at once as the queue has entries.
// A notification submits at once, on the hart, and completes what the host finished at once; the rest completes
// on the event loop. Where that happens is decided by notified() and nowhere else.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "device/virtio/virtio_device.h"
#include "storage/block_backend.h"

namespace doppel {

class VirtioBlk final : public VirtioDevice {
 public:
  // `serial`: at most 20 bytes, what the guest reads as the disk's identity.
  VirtioBlk(std::unique_ptr<BlockBackend> disk, std::string_view serial);

  std::string_view name() const override { return "virtio-blk"; }
  std::uint32_t id() const override { return 2; }
  unsigned queue_count() const override { return 1; }
  std::uint64_t features() const override;
  Notified notified() const override { return Notified::kOnHart; }
  void read_config(std::uint64_t offset, std::span<std::byte> into) const override;
  void write_config(std::uint64_t offset, std::span<const std::byte> from) override;
  void activate(std::uint64_t features) override;
  void notify(unsigned queue) override;
  void drain() override;
  void flush() override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;
  void attached() override;

 private:
  static constexpr std::size_t kSerialBytes = 20;

  // A chain on its way through the back end.
  struct Request : BlockRequest {
    std::uint16_t head = 0;
    std::byte* status = nullptr;      // the last writable byte
    std::uint32_t written_bytes = 0;  // into the chain's writable part, on success
    std::array<iovec, Virtqueue::kMaxSize> parts;
  };

  // What a chain turned out to be.
  enum class Parsed : std::uint8_t { kSubmit, kDone, kFault };

  Request* take_request();
  Parsed parse(Request& request, DescriptorChain& chain);
  Parsed parse_range(Request& request, std::span<const iovec> readable, BlockRequest::Kind kind);
  Parsed answer(Request& request, std::uint8_t status, std::uint32_t written_bytes);
  void complete_finished();
  bool write_through() const;

  std::unique_ptr<BlockBackend> disk_;
  std::array<std::byte, kSerialBytes> serial_{};
  bool write_back_ = true;  // the driver's choice, in the configuration space

  // As many as were ever in flight at once, at most as a queue has entries; then no more allocation.
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<BlockRequest*> idle_;
  std::vector<BlockRequest*> batch_;  // to submit at the end of a notification
};

}  // namespace doppel
