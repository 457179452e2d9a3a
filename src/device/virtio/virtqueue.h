// The device's side of a split virtqueue (virtio 1.2, section 2.7).
//
// Owns the positions in the rings, not the rings: those lie in guest memory, where the driver writes to them
// at the same time. Nothing found there is trusted: every descriptor is copied once, then checked, and the
// first thing that is wrong makes the queue faulty, which it stays until it is enabled anew. Used by one thread
// at a time.
//
// Needs no heap, no exceptions and no host services, so that a bare-metal hypervisor can use it. A `Memory` is
// whatever has `std::byte* host(GuestPhysical, std::uint64_t bytes) const`, as GuestMemory has.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/bits.h"
#include "memory/address.h"

namespace doppel {

// A request of the driver: what it wrote for the device, and where it wants the answer.
struct DescriptorChain {
  std::uint16_t head = 0;  // the chain's name in the used ring
  std::span<iovec> readable;
  std::span<iovec> writable;
};

class Virtqueue {
 public:
  static constexpr std::uint16_t kMaxSize = 256;

  enum class Fault : std::uint8_t {
    kNone,
    kBadSize,
    kBadRing,
    kAvailableJump,
    kBadIndex,
    kLoop,
    kBadIndirect,
    kNestedIndirect,
    kWildBuffer,
    kReadableAfterWritable,
    kEmptyChain,
  };
  static const char* describe(Fault fault);

  struct Layout {
    GuestPhysical descriptors;
    GuestPhysical driver;  // the available ring
    GuestPhysical device;  // the used ring
    std::uint16_t size = 0;
  };

  // What a snapshot keeps of an enabled queue with nothing in flight, beside its layout.
  struct Positions {
    std::uint16_t next_available = 0;
    std::uint16_t next_used = 0;
    std::uint16_t announced_used = 0;
  };

  // Starts at empty rings. A size that is no power of two up to kMaxSize, a ring outside RAM or one misaligned
  // makes the queue faulty at once. With `event_index` both sides suppress notifications by index (2.7.10).
  template <class Memory>
  void enable(const Layout& layout, bool event_index, const Memory& memory) {
    enable(layout, event_index, memory, Positions());
  }
  // The same at positions that were saved.
  template <class Memory>
  void enable(const Layout& layout, bool event_index, const Memory& memory, const Positions& positions);
  void disable() { *this = {}; }

  bool enabled() const { return enabled_; }
  Fault fault() const { return fault_; }
  const Positions& positions() const { return positions_; }

  // Whether the driver has made chains available that were not taken.
  bool has_waiting() const {
    return enabled_ && fault_ == Fault::kNone &&
           available_index().load(std::memory_order_acquire) != positions_.next_available;
  }

  // Takes the next chain that the driver made available; false when there is none or the queue is faulty.
  // `storage` holds the chain's parts, at least kMaxSize of them. No part is empty, nor is the chain.
  template <class Memory>
  [[nodiscard]] bool pop(const Memory& memory, std::span<iovec> storage, DescriptorChain& chain);
  // Undoes the last `count` pops, with nothing pushed for them.
  void unpop(std::uint16_t count = 1) { positions_.next_available -= count; }

  // Gives a chain back, with the number of bytes written to the start of its writable part. The driver sees it
  // after publish().
  void push(std::uint16_t head, std::uint32_t written_bytes);
  // Shows the driver all that was pushed; true when it wants an interrupt for it.
  [[nodiscard]] bool publish();

  // While chains are being taken anyway, the driver need not notify. Before the device stops looking it asks
  // for notifications again: true means that chains arrived in the meantime, so it must look once more.
  void suppress_notifications();
  [[nodiscard]] bool request_notifications();

 private:
  struct Descriptor {  // 2.7.5
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t flags;
    std::uint16_t next;
  };
  static_assert(sizeof(Descriptor) == 16);
  static constexpr std::uint16_t kNext = 1, kWrite = 2, kIndirect = 4;

  struct UsedElement {  // 2.7.8
    std::uint32_t id;
    std::uint32_t length;
  };

  // Both rings: le16 flags, le16 idx, the elements, le16 event.
  static constexpr std::size_t kRingHeader = 4;
  static constexpr std::uint16_t kNoNotify = 1;     // in the used ring's flags
  static constexpr std::uint16_t kNoInterrupt = 1;  // in the available ring's flags

  // The positions are checked to be in RAM and aligned when the queue is enabled, and RAM stays mapped.
  using Half = std::atomic_ref<std::uint16_t>;
  static Half half(std::byte* at) { return Half(*reinterpret_cast<std::uint16_t*>(at)); }
  Half available_flags() const { return half(driver_); }
  Half available_index() const { return half(driver_ + 2); }
  Half used_event() const { return half(driver_ + kRingHeader + 2u * size_); }
  Half used_flags() const { return half(device_); }
  Half used_index() const { return half(device_ + 2); }
  Half available_event() const { return half(device_ + kRingHeader + sizeof(UsedElement) * size_); }

  bool fail(Fault fault) {
    fault_ = fault;
    return false;
  }

  template <class Memory>
  [[nodiscard]] bool walk(const Memory& memory, std::span<iovec> storage, DescriptorChain& chain);

  std::byte* descriptors_ = nullptr;
  std::byte* driver_ = nullptr;
  std::byte* device_ = nullptr;
  std::uint16_t size_ = 0;
  bool enabled_ = false;
  bool event_index_ = false;
  Fault fault_ = Fault::kNone;
  Positions positions_;
};

static_assert(std::endian::native == std::endian::little, "the rings are little-endian");

template <class Memory>
void Virtqueue::enable(const Layout& layout, bool event_index, const Memory& memory, const Positions& positions) {
  *this = {};
  enabled_ = true;
  event_index_ = event_index;
  positions_ = positions;
  if (!std::has_single_bit(layout.size) || layout.size > kMaxSize) {
    fail(Fault::kBadSize);
    return;
  }
  size_ = layout.size;
  // 2.7.10.1: the event fields are there whether or not they are used.
  const std::uint64_t driver_bytes = kRingHeader + 2u * size_ + 2;
  const std::uint64_t device_bytes = kRingHeader + sizeof(UsedElement) * size_ + 2;
  descriptors_ = memory.host(layout.descriptors, sizeof(Descriptor) * size_);
  driver_ = memory.host(layout.driver, driver_bytes);
  device_ = memory.host(layout.device, device_bytes);
  const bool aligned = is_aligned(layout.descriptors.value, 16) && is_aligned(layout.driver.value, 2) &&
                       is_aligned(layout.device.value, 4);
  if (!aligned || descriptors_ == nullptr || driver_ == nullptr || device_ == nullptr) fail(Fault::kBadRing);
}

template <class Memory>
bool Virtqueue::pop(const Memory& memory, std::span<iovec> storage, DescriptorChain& chain) {
  if (!enabled_ || fault_ != Fault::kNone) return false;
  const std::uint16_t available = available_index().load(std::memory_order_acquire);
  const auto waiting = static_cast<std::uint16_t>(available - positions_.next_available);
  if (waiting == 0) return false;
  if (waiting > size_) return fail(Fault::kAvailableJump);
  const std::uint64_t slot = positions_.next_available & (size_ - 1u);
  chain.head = half(driver_ + kRingHeader + 2 * slot).load(std::memory_order_relaxed);
  ++positions_.next_available;
  return walk(memory, storage, chain);
}

template <class Memory>
bool Virtqueue::walk(const Memory& memory, std::span<iovec> storage, DescriptorChain& chain) {
  const std::byte* table = descriptors_;
  std::uint32_t entries = size_;
  std::uint32_t index = chain.head;
  std::uint32_t steps = 0;
  bool indirect = false;
  std::size_t parts = 0;
  std::size_t readable_parts = 0;

  while (true) {
    if (index >= entries) return fail(Fault::kBadIndex);
    // A chain that visits more descriptors than there are comes back to one of them.
    if (steps++ == entries) return fail(Fault::kLoop);
    Descriptor descriptor;
    std::memcpy(&descriptor, table + sizeof descriptor * index, sizeof descriptor);

    if ((descriptor.flags & kIndirect) != 0) {  // 2.7.5.3
      if (indirect) return fail(Fault::kNestedIndirect);
      entries = static_cast<std::uint32_t>(descriptor.length / sizeof descriptor);
      if ((descriptor.flags & kNext) != 0 || descriptor.length % sizeof descriptor != 0 || entries == 0 ||
          entries > kMaxSize) {
        return fail(Fault::kBadIndirect);
      }
      table = memory.host(GuestPhysical{descriptor.address}, descriptor.length);
      if (table == nullptr) return fail(Fault::kBadIndirect);
      indirect = true;
      index = 0;
      steps = 0;
      continue;
    }

    if (descriptor.length != 0) {
      std::byte* host = memory.host(GuestPhysical{descriptor.address}, descriptor.length);
      if (host == nullptr) return fail(Fault::kWildBuffer);
      if (parts == storage.size()) return fail(Fault::kLoop);
      const bool writable = (descriptor.flags & kWrite) != 0;
      if (!writable && readable_parts != parts) return fail(Fault::kReadableAfterWritable);  // 2.7.4.2
      if (!writable) ++readable_parts;
      storage[parts++] = {host, descriptor.length};
    }
    if ((descriptor.flags & kNext) == 0) break;
    index = descriptor.next;
  }

  if (parts == 0) return fail(Fault::kEmptyChain);
  chain.readable = storage.first(readable_parts);
  chain.writable = storage.subspan(readable_parts, parts - readable_parts);
  return true;
}

inline void Virtqueue::push(std::uint16_t head, std::uint32_t written_bytes) {
  if (!enabled_ || fault_ != Fault::kNone) return;
  const UsedElement element{head, written_bytes};
  const std::uint64_t slot = positions_.next_used & (size_ - 1u);
  std::memcpy(device_ + kRingHeader + sizeof element * slot, &element, sizeof element);
  ++positions_.next_used;
}

inline bool Virtqueue::publish() {
  if (!enabled_ || fault_ != Fault::kNone || positions_.announced_used == positions_.next_used) return false;
  const std::uint16_t before = positions_.announced_used;
  const std::uint16_t now = positions_.announced_used = positions_.next_used;
  // Sequentially consistent, as is the load below: the driver writes its event and reads our index, and one of
  // us must see the other's (2.7.7.2).
  used_index().store(now, std::memory_order_seq_cst);
  if (!event_index_) return (available_flags().load(std::memory_order_seq_cst) & kNoInterrupt) == 0;
  const std::uint16_t event = used_event().load(std::memory_order_seq_cst);
  return static_cast<std::uint16_t>(now - event - 1) < static_cast<std::uint16_t>(now - before);
}

inline void Virtqueue::suppress_notifications() {
  // By index there is nothing to do: the event that the driver passed lies behind it.
  if (!enabled_ || fault_ != Fault::kNone || event_index_) return;
  used_flags().store(kNoNotify, std::memory_order_relaxed);
}

inline bool Virtqueue::request_notifications() {
  if (!enabled_ || fault_ != Fault::kNone) return false;
  if (event_index_) {
    available_event().store(positions_.next_available, std::memory_order_seq_cst);
  } else {
    used_flags().store(0, std::memory_order_seq_cst);
  }
  // The counterpart of publish(): either the driver sees the request, or we see its chains.
  return available_index().load(std::memory_order_seq_cst) != positions_.next_available;
}

inline const char* Virtqueue::describe(Fault fault) {
  switch (fault) {
    case Fault::kNone: return "no fault";
    case Fault::kBadSize: return "the queue size is no power of two up to 256";
    case Fault::kBadRing: return "a ring is misaligned or outside memory";
    case Fault::kAvailableJump: return "more chains are available than the queue has entries";
    case Fault::kBadIndex: return "a descriptor index is outside its table";
    case Fault::kLoop: return "a descriptor chain loops";
    case Fault::kBadIndirect: return "an indirect table is malformed or outside memory";
    case Fault::kNestedIndirect: return "an indirect table holds an indirect descriptor";
    case Fault::kWildBuffer: return "a buffer is outside memory";
    case Fault::kReadableAfterWritable: return "a readable buffer follows a writable one";
    case Fault::kEmptyChain: return "a chain holds no bytes";
  }
  return "an unknown fault";
}

}  // namespace doppel
