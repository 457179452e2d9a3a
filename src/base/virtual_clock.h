// Guest-visible time: nanoseconds since the machine started, not counting pauses. Every clock that a guest
// can read (time CSR, mtime, RTC) derives from it. Any thread may read; pause and resume are the machine's.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "base/event_loop.h"

namespace doppel {

class VirtualClock {
 public:
  using Nanoseconds = std::uint64_t;

  explicit VirtualClock(Nanoseconds start = 0) : offset_(start - host_now()) {}

  Nanoseconds now() const {
    const Nanoseconds frozen = frozen_at_.load(std::memory_order_acquire);
    return frozen != kRunning ? frozen : host_now() + offset_.load(std::memory_order_relaxed);
  }

  // When the host's clock will show virtual time `at`; meaningful while running.
  HostTime host_time(Nanoseconds at) const {
    return HostTime(std::chrono::nanoseconds(at - offset_.load(std::memory_order_relaxed)));
  }

  void pause() { frozen_at_.store(now(), std::memory_order_release); }
  void resume() {
    const Nanoseconds frozen = frozen_at_.load(std::memory_order_acquire);
    if (frozen == kRunning) return;
    offset_.store(frozen - host_now(), std::memory_order_relaxed);
    frozen_at_.store(kRunning, std::memory_order_release);
  }

 private:
  static constexpr Nanoseconds kRunning = ~Nanoseconds{0};

  static Nanoseconds host_now() {
    return static_cast<Nanoseconds>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
  }

  std::atomic<Nanoseconds> offset_;
  std::atomic<Nanoseconds> frozen_at_{kRunning};
};

}  // namespace doppel
