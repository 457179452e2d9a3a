// A guest's driver for a device on the mmio transport: sets it up as virtio 1.2 section 3.1.1 says, makes chains
// available, reads what was used. Its pieces can also be misused one by one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "device/test_env.h"
#include "device/virtio/virtio_mmio.h"

namespace doppel::test {

struct Part {
  std::uint64_t gpa = 0;
  std::uint32_t length = 0;
  bool writable = false;
};

class VirtioDriver {
 public:
  // Where things lie in guest memory.
  static constexpr std::uint64_t kQueues = TestEnv::kRam.value;
  static constexpr std::uint64_t kBuffers = TestEnv::kRam.value + 0x4'0000;
  static constexpr std::uint64_t kOutside = TestEnv::kRam.value + TestEnv::kRamBytes;

  static constexpr std::uint16_t kNext = 1, kWrite = 2, kIndirect = 4;
  static constexpr std::uint64_t kVersion1 = std::uint64_t{1} << 32, kEventIndex = 1u << 29, kIndirectFeature = 1u << 28;
  static constexpr std::uint32_t kFeaturesOk = 8, kDriverOk = 4, kNeedsReset = 64;

  VirtioDriver(TestEnv& env, VirtioMmio& device) : env_(&env), device_(&device) {}

  std::uint32_t get(std::uint64_t offset) const {
    return static_cast<std::uint32_t>(read(*device_, offset, Width::k4));
  }
  void set(std::uint64_t offset, std::uint32_t value) const { write(*device_, offset, Width::k4, value); }
  std::uint64_t config(std::uint64_t offset, Width width) const { return read(*device_, 0x100 + offset, width); }
  void set_config(std::uint64_t offset, Width width, std::uint64_t value) const {
    write(*device_, 0x100 + offset, width, value);
  }

  std::uint64_t offered() const {
    set(0x014, 0);
    const std::uint64_t low = get(0x010);
    set(0x014, 1);
    return low | std::uint64_t{get(0x010)} << 32;
  }
  std::uint32_t status() const { return get(0x070); }
  bool needs_reset() const { return (status() & kNeedsReset) != 0; }

  // Agrees on `features` of those offered, and enables `queues` queues of `size` entries.
  void start(unsigned queues, std::uint64_t features = ~std::uint64_t{0}, std::uint16_t size = 16) {
    negotiate(features & offered());
    for (unsigned queue = 0; queue < queues; ++queue) enable(queue, size);
    set(0x070, 15);
  }
  void negotiate(std::uint64_t features) {
    set(0x070, 0);
    set(0x070, 1);
    set(0x070, 3);
    for (const std::uint32_t half : {0u, 1u}) {
      set(0x024, half);
      set(0x020, static_cast<std::uint32_t>(features >> (32 * half)));
    }
    set(0x070, 11);
    event_index_ = (features & kEventIndex) != 0;
  }
  void enable(unsigned queue, std::uint16_t size) {
    rings_.resize(std::max<std::size_t>(rings_.size(), queue + 1));
    rings_[queue] = {.size = size};
    const std::vector<std::byte> empty(0x4000);
    EXPECT_TRUE(env_->memory.write(GuestPhysical{descriptors(queue)}, empty));
    set(0x030, queue);
    set(0x038, size);
    set_address(0x080, descriptors(queue));
    set_address(0x090, available(queue));
    set_address(0x0a0, used_ring(queue));
    set(0x044, 1);
  }

  // The rings of a queue, in guest memory.
  static std::uint64_t descriptors(unsigned queue) { return kQueues + queue * 0x4000; }
  static std::uint64_t available(unsigned queue) { return descriptors(queue) + 0x1000; }
  static std::uint64_t used_ring(unsigned queue) { return descriptors(queue) + 0x2000; }

  void put_descriptor(std::uint64_t table, unsigned index, Part part, std::uint16_t flags, std::uint16_t next) const {
    const std::uint64_t at = table + 16 * index;
    poke(at, part.gpa);
    poke(at + 8, part.length);
    poke(at + 12, static_cast<std::uint16_t>(flags | (part.writable ? kWrite : 0)));
    poke(at + 14, next);
  }

  // Makes a chain available, in descriptors taken in turn; returns its head. No notification.
  std::uint16_t add(unsigned queue, const std::vector<Part>& parts) {
    Ring& ring = rings_[queue];
    const std::uint16_t head = ring.free;
    for (std::size_t at = 0; at < parts.size(); ++at) {
      const bool more = at + 1 < parts.size();
      const auto next = static_cast<std::uint16_t>((ring.free + 1) % ring.size);
      put_descriptor(descriptors(queue), ring.free, parts[at], more ? kNext : 0, more ? next : 0);
      ring.free = next;
    }
    offer(queue, head);
    return head;
  }
  // The same through an indirect table at `table`.
  std::uint16_t add_indirect(unsigned queue, std::uint64_t table, const std::vector<Part>& parts) {
    for (std::size_t at = 0; at < parts.size(); ++at) {
      const bool more = at + 1 < parts.size();
      put_descriptor(table, static_cast<unsigned>(at), parts[at], more ? kNext : 0,
                     static_cast<std::uint16_t>(more ? at + 1 : 0));
    }
    Ring& ring = rings_[queue];
    const std::uint16_t head = ring.free;
    put_descriptor(descriptors(queue), head, {table, static_cast<std::uint32_t>(16 * parts.size())}, kIndirect, 0);
    ring.free = static_cast<std::uint16_t>((head + 1) % ring.size);
    offer(queue, head);
    return head;
  }
  void offer(unsigned queue, std::uint16_t head) {
    Ring& ring = rings_[queue];
    poke(available(queue) + 4 + 2 * (ring.available % ring.size), head);
    poke(available(queue) + 2, ++ring.available);
  }
  void kick(unsigned queue) const { set(0x050, queue); }

  struct Used {
    std::uint32_t head;
    std::uint32_t written;
    friend bool operator==(const Used&, const Used&) = default;
  };
  // The next used element; nullopt when there is none. Keeps interrupts wanted for the next one.
  std::optional<Used> take_used(unsigned queue) {
    Ring& ring = rings_[queue];
    if (peek<std::uint16_t>(used_ring(queue) + 2) == ring.used) return std::nullopt;
    const std::uint64_t at = used_ring(queue) + 4 + 8 * (ring.used % ring.size);
    const Used element{peek<std::uint32_t>(at), peek<std::uint32_t>(at + 4)};
    want_interrupt_at(queue, ++ring.used);
    return element;
  }
  void want_interrupt_at(unsigned queue, std::uint16_t used_index) const {
    poke(available(queue) + 4 + 2 * rings_[queue].size, used_index);
  }
  // Whether the device asks to be told of the chain made available next.
  bool notification_wanted(unsigned queue) const {
    const Ring& ring = rings_[queue];
    if (event_index_) return peek<std::uint16_t>(used_ring(queue) + 4 + 8 * ring.size) == ring.available;
    return peek<std::uint16_t>(used_ring(queue)) == 0;
  }
  void acknowledge() const { set(0x064, get(0x060)); }

  template <class T>
  T peek(std::uint64_t gpa) const {
    T value{};
    EXPECT_TRUE(env_->memory.read(GuestPhysical{gpa}, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  template <class T>
  void poke(std::uint64_t gpa, T value) const {
    EXPECT_TRUE(env_->memory.write(GuestPhysical{gpa}, std::as_bytes(std::span(&value, 1))));
  }
  void put(std::uint64_t gpa, std::string_view text) const {
    EXPECT_TRUE(env_->memory.write(GuestPhysical{gpa}, std::as_bytes(std::span(text))));
  }
  std::string text(std::uint64_t gpa, std::size_t size) const {
    std::string text(size, '\0');
    EXPECT_TRUE(env_->memory.read(GuestPhysical{gpa}, std::as_writable_bytes(std::span(text))));
    return text;
  }

  // Continues with a device restored from another's state.
  void move_to(VirtioMmio& device) { device_ = &device; }

 private:
  struct Ring {
    std::uint16_t size = 0;
    std::uint16_t free = 0;
    std::uint16_t available = 0;
    std::uint16_t used = 0;
  };

  void set_address(std::uint64_t offset, std::uint64_t gpa) const {
    set(offset, static_cast<std::uint32_t>(gpa));
    set(offset + 4, static_cast<std::uint32_t>(gpa >> 32));
  }

  TestEnv* env_;
  VirtioMmio* device_;
  std::vector<Ring> rings_;
  bool event_index_ = false;
};

}  // namespace doppel::test
