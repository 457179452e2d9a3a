#include "device/virtio/net/virtio_net.h"

#include "base/io_vector.h"

namespace doppel {
namespace {

constexpr unsigned kFeatureMac = 5, kFeatureStatus = 16;  // 5.1.3

struct Config {  // 5.1.4
  MacAddress mac;
  std::uint16_t status;
};
static_assert(sizeof(Config) == 8);
constexpr std::uint16_t kStatusLinkUp = 1;

struct Header {  // 5.1.6; precedes each frame in either direction
  std::uint8_t flags = 0;
  std::uint8_t gso_type = 0;
  std::uint16_t header_length = 0;
  std::uint16_t gso_size = 0;
  std::uint16_t checksum_start = 0;
  std::uint16_t checksum_offset = 0;
  std::uint16_t buffers = 0;
};
static_assert(sizeof(Header) == 12);

// Larger than any frame without offloads; a chain may hold more, which no network takes.
constexpr std::uint64_t kMaxFrameBytes = 65'550;

}  // namespace

void VirtioNet::attached() {
  network_->set_receiver([this](std::span<const std::byte> frame) {
    const std::lock_guard lock(transport().monitor());
    return receive(frame);
  });
}

std::uint64_t VirtioNet::features() const {
  return std::uint64_t{1} << kFeatureMac | std::uint64_t{1} << kFeatureStatus;
}

void VirtioNet::read_config(std::uint64_t offset, std::span<std::byte> into) const {
  const Config config{mac_, kStatusLinkUp};
  std::ranges::fill(into, std::byte{0});
  if (offset >= sizeof config) return;
  const auto bytes = std::as_bytes(std::span(&config, 1)).subspan(offset);
  std::ranges::copy(bytes.first(std::min(bytes.size(), into.size())), into.begin());
}

void VirtioNet::notify(unsigned index) {
  if (index == kReceive) {
    transport().queue(kReceive).suppress_notifications();
    return network_->resume();
  }
  serve(kTransmit, parts_, [this](DescriptorChain& chain) {
    drop_front(chain.readable, sizeof(Header));
    const std::uint64_t size = total_bytes(chain.readable);
    if (size > 0 && size <= kMaxFrameBytes) network_->send(chain.readable);
    transport().queue(kTransmit).push(chain.head, 0);
    return true;
  });
}

// 5.1.6.4
bool VirtioNet::receive(std::span<const std::byte> frame) {
  if (!transport().live()) return true;  // a card without a driver hears nothing
  Virtqueue& queue = transport().queue(kReceive);
  DescriptorChain chain;
  while (!queue.pop(transport().memory(), parts_, chain)) {
    if (queue.fault() != Virtqueue::Fault::kNone) {
      transport().fail(Virtqueue::describe(queue.fault()));
      return true;
    }
    if (!queue.request_notifications()) return false;
  }
  std::span<iovec> room = chain.writable;
  if (total_bytes(room) < sizeof(Header) + frame.size()) {
    queue.unpop();
    log_limited(log_limit_, "{}: a frame of {} bytes does not fit the guest's buffers", name(), frame.size());
    return true;
  }
  const Header header{.buffers = 1};
  scatter(std::as_bytes(std::span(&header, 1)), room);
  drop_front(room, sizeof header);
  scatter(frame, room);
  queue.suppress_notifications();
  queue.push(chain.head, static_cast<std::uint32_t>(sizeof header + frame.size()));
  transport().publish(kReceive);
  return true;
}

}  // namespace doppel
