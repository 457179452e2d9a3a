// A guest made of fuzzer's bytes, for any virtio device: the generator turns them into register accesses, rings,
// descriptors, notifications, snapshots and events at the back end; the oracle looks on.
//
// The oracle: the device never leaves guest RAM (the sanitizers' part), its interrupt line is high exactly while
// InterruptStatus is not zero, nothing but the driver takes it out of DEVICE_NEEDS_RESET, its own saved state is
// accepted, and after a reset it serves a driver that does everything right.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/log.h"
#include "device/virtio/virtio_mmio.h"
#include "input.h"

namespace doppel::fuzz {

struct Part {
  std::uint64_t gpa;
  std::uint32_t length;
  bool writable;
};

class Guest {
 public:
  static constexpr GuestPhysical kRam{0x8000'0000};
  static constexpr std::uint64_t kRamBytes = 0x1'0000;
  // Makes the device, each time with a new back end.
  using Make = std::function<std::unique_ptr<VirtioDevice>()>;
  // Lets something happen at the back end.
  using Event = std::function<void(Input&)>;

  Guest(Make make, Event event) : make_(std::move(make)), event_(std::move(event)) {
    std::memset(memory().host(kRam, kRamBytes), 0, kRamBytes);
    [[maybe_unused]] static const bool quiet = configure_log(LogLevel::kOff).has_value();
    device_ = std::make_unique<VirtioMmio>(env(), make_());
  }

  void run(Input& input) {
    while (!input.empty()) {
      const bool needed_reset = (get(kStatus) & kNeedsReset) != 0;
      const bool may_recover = step(input);
      DOPPEL_FUZZ_CHECK(irq_ == (get(kInterruptStatus) != 0));
      if (needed_reset && !may_recover) DOPPEL_FUZZ_CHECK((get(kStatus) & kNeedsReset) != 0);
    }
  }

  // A driver without fault: resets the device and agrees on all it offers.
  void start_over(unsigned queues) {
    negotiate(~std::uint64_t{0});
    for (unsigned queue = 0; queue < queues; ++queue) {
      std::memset(host(ring(queue)), 0, 0x1000);
      enable(queue, kGoodSize);
    }
    set(kStatus, 15);
    run_loop();
    DOPPEL_FUZZ_CHECK(get(kStatus) == 15);
    good_ = {};
  }
  // Makes one good chain available and notifies.
  void request(unsigned queue, std::span<const Part> parts) {
    for (std::size_t at = 0; at < parts.size(); ++at) {
      const bool more = at + 1 < parts.size();
      put_descriptor(queue, at, parts[at].gpa, parts[at].length,
                     static_cast<std::uint16_t>((more ? 1 : 0) | (parts[at].writable ? 2 : 0)),
                     static_cast<std::uint16_t>(at + 1));
    }
    std::byte* available = host(ring(queue)) + kAvailable;
    poke<std::uint16_t>(available + 4 + 2 * (good_[queue] % kGoodSize), 0);
    poke<std::uint16_t>(available + 2, ++good_[queue]);
    set(kQueueNotify, queue);
    run_loop();
  }
  // How many bytes the device wrote for the last good chain; nullopt when it has not answered.
  std::optional<std::uint32_t> answer(unsigned queue) {
    const std::byte* used = host(ring(queue)) + kUsed;
    if (peek<std::uint16_t>(used + 2) != good_[queue]) return std::nullopt;
    return peek<std::uint32_t>(used + 4 + 8 * ((good_[queue] - 1u) % kGoodSize) + 4);
  }

  static std::byte* host(GuestPhysical gpa) { return memory().host(gpa, 1); }
  template <class T>
  static void poke(std::byte* at, T value) {
    std::memcpy(at, &value, sizeof value);
  }
  template <class T>
  static T peek(const std::byte* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  // Where a target may put the data of its good requests.
  static constexpr GuestPhysical kData = kRam + 0x8000;

  void run_loop() {
    loop_.stop();
    loop_.run();
  }

 private:
  enum Register : std::uint32_t {
    kDriverFeatures = 0x020,
    kDriverFeaturesSelect = 0x024,
    kQueueSelect = 0x030,
    kQueueSize = 0x038,
    kQueueReady = 0x044,
    kQueueNotify = 0x050,
    kInterruptStatus = 0x060,
    kStatus = 0x070,
    kQueueDescriptors = 0x080,
    kQueueDriver = 0x090,
    kQueueDevice = 0x0a0,
  };
  static constexpr std::uint32_t kNeedsReset = 64;
  static constexpr std::uint16_t kGoodSize = 8;

  // Each queue has a page for its rings, with descriptors first.
  static GuestPhysical ring(unsigned queue) { return kRam + 0x1000 * (queue % 4); }
  static constexpr std::uint64_t kAvailable = 0x400, kUsed = 0x600;
  static constexpr std::uint16_t kLargestSize = 64;  // that fits there

  static const GuestMemory& memory() {
    static const GuestMemory ram = [] {
      GuestMemory made;
      const bool ok = made.add_ram({kRam, kRamBytes}).has_value() &&
                      made.add_ram({kRam + 4 * kRamBytes, kPageSize}).has_value();
      DOPPEL_FUZZ_CHECK(ok);
      return made;
    }();
    return ram;
  }
  DeviceEnv env() { return {memory(), InterruptLine([this](bool level) { irq_ = level; }), loop_, clock_}; }

  std::uint32_t get(std::uint64_t offset) {
    const std::lock_guard lock(device_->Device::monitor());
    return static_cast<std::uint32_t>(device_->read({offset}, Width::k4));
  }
  void set(std::uint64_t offset, std::uint32_t value) {
    const std::lock_guard lock(device_->Device::monitor());
    device_->write({offset}, Width::k4, value);
  }

  void negotiate(std::uint64_t wanted) {
    set(kStatus, 0);
    set(kStatus, 3);
    for (const std::uint32_t half : {0u, 1u}) {
      set(0x014, half);
      set(kDriverFeaturesSelect, half);
      set(kDriverFeatures, get(0x010) & static_cast<std::uint32_t>(wanted >> (32 * half)));
    }
    set(kStatus, 11);
  }
  void enable(unsigned queue, std::uint16_t size) {
    set(kQueueSelect, queue);
    set(kQueueSize, size);
    const std::uint64_t start = ring(queue).value;
    set_address(kQueueDescriptors, start);
    set_address(kQueueDriver, start + kAvailable);
    set_address(kQueueDevice, start + kUsed);
    set(kQueueReady, 1);
  }
  void set_address(std::uint64_t offset, std::uint64_t gpa) {
    set(offset, static_cast<std::uint32_t>(gpa));
    set(offset + 4, static_cast<std::uint32_t>(gpa >> 32));
  }
  void put_descriptor(unsigned queue, std::size_t index, std::uint64_t gpa, std::uint32_t length, std::uint16_t flags,
                      std::uint16_t next) {
    std::byte* at = host(ring(queue)) + 16 * index;
    poke(at, gpa);
    poke(at + 8, length);
    poke(at + 12, flags);
    poke(at + 14, next);
  }

  // An address that is mostly in RAM, often near its end, now and then anything.
  static std::uint64_t take_gpa(Input& input) {
    switch (input.below(16)) {
      case 0: return input.take<std::uint64_t>();
      case 1: return kRam.value + kRamBytes - input.take<std::uint8_t>();
      case 2: return (kRam + 4 * kRamBytes).value + input.take<std::uint16_t>() % kPageSize;
      default: return kRam.value + input.take<std::uint16_t>();
    }
  }

  // One choice of the guest; true when it may have reset the device.
  bool step(Input& input) {
    switch (input.below(14)) {
      case 0: {  // any register, or a configuration byte
        const std::uint64_t offset = input.one_in(2) ? 4 * input.below(0x48) : 0x100 + input.below(0x60);
        const auto width = static_cast<Width>(1u << input.below(4));
        const std::uint64_t aligned = offset & ~std::uint64_t{bytes_of(width) - 1};
        const std::lock_guard lock(device_->Device::monitor());
        if (input.one_in(2)) {
          device_->read({aligned}, width);
          return false;
        }
        const auto value = input.take<std::uint64_t>() >> input.below(64);
        device_->write({aligned}, width, value);
        return aligned == kStatus;
      }
      case 1:
        negotiate(input.one_in(2) ? ~std::uint64_t{0} : input.take<std::uint64_t>() | std::uint64_t{1} << 32);
        set(kStatus, 15);
        return true;
      case 2: {
        const unsigned queue = input.below(4);
        enable(queue, input.one_in(8) ? input.take<std::uint16_t>() : static_cast<std::uint16_t>(1u << input.below(7)));
        return false;
      }
      case 3: {  // a device as it should be, with all its queues
        negotiate(~std::uint64_t{0});
        for (unsigned queue = 0; queue < 2; ++queue) enable(queue, static_cast<std::uint16_t>(1u << input.below(7)));
        set(kStatus, 15);
        return true;
      }
      case 4:
      case 5:
      case 6: {  // a descriptor, in the ring or in an indirect table
        const unsigned queue = input.below(4);
        const std::uint64_t index = input.below(kLargestSize);
        const std::uint64_t gpa = take_gpa(input);
        const std::uint32_t length = input.one_in(16) ? input.take<std::uint32_t>() : input.take<std::uint16_t>() >> input.below(16);
        const auto flags = static_cast<std::uint16_t>(input.one_in(16) ? input.take<std::uint16_t>() : input.below(8));
        const auto next = static_cast<std::uint16_t>(input.one_in(16) ? input.take<std::uint16_t>() : (index + 1) % kLargestSize);
        put_descriptor(queue, index, gpa, length, flags, next);
        return false;
      }
      case 7: {  // contents
        const std::uint64_t at = input.take<std::uint16_t>();
        const auto bytes = input.take_bytes(std::min<std::uint64_t>(input.take<std::uint8_t>() % 64, kRamBytes - at));
        std::memcpy(host(kRam) + at, bytes.data(), bytes.size());
        return false;
      }
      case 8:
      case 9: {  // one more chain is available, and the device hears of it
        const unsigned queue = input.below(4);
        const auto head = static_cast<std::uint16_t>(input.below(kLargestSize));
        std::byte* available = host(ring(queue)) + kAvailable;
        const auto index = peek<std::uint16_t>(available + 2);
        // Whatever the queue's size is, the head lands in the slot that is next.
        for (unsigned queue_size = 1; queue_size <= kLargestSize; queue_size *= 2) {
          poke(available + 4 + 2 * (index % queue_size), head);
        }
        poke(available + 2, static_cast<std::uint16_t>(index + 1));
        set(kQueueNotify, queue);
        return false;
      }
      case 10: {  // the available ring's flags, index and event
        std::byte* available = host(ring(input.below(4))) + kAvailable;
        poke(available, input.take<std::uint32_t>());
        return false;
      }
      case 11:
        run_loop();
        return false;
      case 12:
        event_(input);
        return false;
      default:
        snapshot();
        return false;
    }
  }

  void snapshot() {
    const StateNode state = save();
    const auto decoded = decode(encode(state));
    DOPPEL_FUZZ_CHECK(decoded.has_value());
    device_.reset();
    auto restored = VirtioMmio::restore(env(), make_(), StateReader(*decoded, "device"));
    DOPPEL_FUZZ_CHECK(restored.has_value());
    device_ = std::move(*restored);
  }
  StateNode save() {
    device_->drain();
    StateNode node;
    StateWriter writer(node);
    const std::lock_guard lock(device_->Device::monitor());
    device_->save(writer);
    return node;
  }

  Make make_;
  Event event_;
  EventLoop loop_;
  VirtualClock clock_;
  bool irq_ = false;
  std::array<std::uint16_t, 4> good_{};
  std::unique_ptr<VirtioMmio> device_;
};

}  // namespace doppel::fuzz
