// What a device under test is built from: RAM, a loop that runs when told to, a clock that stands still
// until moved, and a wire that remembers.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "device/console_backend.h"
#include "device/device.h"

namespace doppel::test {

// The far end of an InterruptLine.
struct Wire {
  std::atomic<bool> level = false;
  std::atomic<unsigned> rises = 0;

  InterruptLine line() {
    return InterruptLine([this](bool now) {
      if (!level.exchange(now) && now) ++rises;
    });
  }
};

struct TestEnv {
  static constexpr GuestPhysical kRam{0x8000'0000};
  static constexpr std::uint64_t kRamBytes = 1 << 20;

  GuestMemory memory;
  EventLoop loop;
  VirtualClock clock;
  Wire irq;

  TestEnv() {
    clock.pause();
    clock.set(0);
    EXPECT_TRUE(memory.add_ram({kRam, kRamBytes}));
  }

  DeviceEnv env() { return {memory, irq.line(), loop, clock}; }

  // Runs what is posted or ready, and returns.
  void run_loop() {
    loop.stop();
    loop.run();
  }

  // Moves virtual time to exactly `time` and runs the timers that this makes due.
  void advance_to(VirtualClock::Nanoseconds time) {
    clock.set(time);
    // The loop takes what is due in order, so this one follows the devices' timers.
    VirtualTimer last(loop, clock, [this] { loop.stop(); });
    last.arm(time);
    loop.run();
  }
};

// Access as the bus does it: under the device's monitor.
inline std::uint64_t read(Device& device, std::uint64_t offset, Width width) {
  const std::lock_guard lock(device.monitor());
  return device.read({offset}, width);
}
inline void write(Device& device, std::uint64_t offset, Width width, std::uint64_t value) {
  const std::lock_guard lock(device.monitor());
  device.write({offset}, width, value);
}

inline StateNode save(const Device& device) {
  StateNode node;
  StateWriter writer(node);
  const std::lock_guard lock(device.monitor());
  device.save(writer);
  return node;
}

// Accesses at random, aligned as the bus guarantees; half of them near the start of the registers. Passing
// means to come back. The seed makes a failure repeatable.
inline void access_at_random(Device& device, std::uint64_t size_bytes, unsigned count, unsigned seed) {
  std::mt19937_64 random(seed);
  for (unsigned i = 0; i < count; ++i) {
    const auto width = static_cast<Width>(1u << (random() % 4));
    const std::uint64_t reach = random() % 2 == 0 ? std::min<std::uint64_t>(size_bytes, 256) : size_bytes;
    const std::uint64_t offset = random() % reach & ~std::uint64_t{bytes_of(width) - 1};
    const std::uint64_t value = random() >> (random() % 64);
    switch (random() % 64) {
      case 0: {
        const std::lock_guard lock(device.monitor());
        device.reset();
        break;
      }
      default:
        if (random() % 2 == 0) {
          read(device, offset, width);
        } else {
          write(device, offset, width, value);
        }
    }
  }
}

// A console end that holds what it was given.
class FakeConsole final : public ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> bytes) override {
    const std::size_t taken = std::min(bytes.size(), room);
    for (const std::byte byte : bytes.first(taken)) output.push_back(static_cast<char>(byte));
    room -= taken;
    return taken;
  }
  std::size_t read(std::span<std::byte> bytes) override {
    const std::size_t count = std::min(bytes.size(), input.size());
    std::memcpy(bytes.data(), input.data(), count);
    input.erase(0, count);
    return count;
  }
  void set_listener(std::function<void()> ready) override { listener = std::move(ready); }

  void type(std::string_view text) {
    input += text;
    listener();
  }

  std::string output;
  std::string input;
  std::size_t room = SIZE_MAX;
  std::function<void()> listener;
};

}  // namespace doppel::test
