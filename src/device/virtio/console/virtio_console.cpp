#include "device/virtio/console/virtio_console.h"

#include "base/io_vector.h"

namespace doppel {
namespace {

constexpr unsigned kFeatureEmergencyWrite = 2;         // 5.3.3
constexpr std::uint64_t kConfigEmergencyWrite = 8;     // 5.3.4: le16 cols, le16 rows, le32 max_nr_ports before it

std::span<std::byte> bytes_of(const iovec& buffer) {
  return {static_cast<std::byte*>(buffer.iov_base), buffer.iov_len};
}

}  // namespace

void VirtioConsole::attached() {
  backend_.set_listener([this] {
    const std::lock_guard lock(transport().monitor());
    pump_input();
    pump_output();
  });
}

std::uint64_t VirtioConsole::features() const { return std::uint64_t{1} << kFeatureEmergencyWrite; }

void VirtioConsole::write_config(std::uint64_t offset, std::span<const std::byte> from) {
  // Works in any state of the device (5.3.6); what does not fit is lost.
  if (offset == kConfigEmergencyWrite) std::ignore = backend_.write(from.first(1));
}

void VirtioConsole::notify(unsigned index) {
  if (index == kReceive) {
    pump_input();
  } else {
    pump_output();
  }
}

void VirtioConsole::pump_input() {
  serve(kReceive, parts_, [this](DescriptorChain& chain) {
    if (chain.writable.empty()) {
      transport().fail("a receive buffer is not writable");
      return true;
    }
    std::size_t done = 0;
    for (const iovec& buffer : chain.writable) {
      const std::size_t some = backend_.read(bytes_of(buffer));
      done += some;
      if (some < buffer.iov_len) break;
    }
    if (done == 0) return false;
    transport().queue(kReceive).push(chain.head, static_cast<std::uint32_t>(done));
    return true;
  });
}

void VirtioConsole::pump_output() {
  serve(kTransmit, parts_, [this](DescriptorChain& chain) {
    drop_front(chain.readable, taken_bytes_);
    for (const iovec& buffer : chain.readable) {
      const std::size_t some = backend_.write(bytes_of(buffer));
      taken_bytes_ += some;
      if (some < buffer.iov_len) return false;
    }
    taken_bytes_ = 0;
    transport().queue(kTransmit).push(chain.head, 0);
    return true;
  });
}

void VirtioConsole::reset() {
  VirtioDevice::reset();
  taken_bytes_ = 0;
}

void VirtioConsole::save(StateWriter& writer) const { writer.number("taken_bytes", taken_bytes_); }

Result<void> VirtioConsole::restore(const StateReader& reader) {
  return StateFields(reader).read("taken_bytes", taken_bytes_).result();
}

}  // namespace doppel
