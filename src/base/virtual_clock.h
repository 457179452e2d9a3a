// Guest-visible time: nanoseconds since the machine started, not counting pauses. Every clock that a guest
// can read (time CSR, mtime, RTC) derives from it. Any thread may read; pause and resume are the machine's.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/event_loop.h"

namespace doppel {

class VirtualTimer;

class VirtualClock {
 public:
  using Nanoseconds = std::uint64_t;

  explicit VirtualClock(Nanoseconds start = 0) : offset_(start - host_now()) {}

  Nanoseconds now() const {
    const Nanoseconds frozen = frozen_at_.load(std::memory_order_acquire);
    return frozen != kRunning ? frozen : host_now() + offset_.load(std::memory_order_relaxed);
  }

  // When the host's clock will show virtual time `at`, if nothing pauses; meaningful while running. Times
  // that no host lives to see are HostTime::max().
  HostTime host_time(Nanoseconds at) const {
    if (at >= kDistant) return HostTime::max();
    return HostTime(std::chrono::nanoseconds(at - offset_.load(std::memory_order_relaxed)));
  }

  bool paused() const { return frozen_at_.load(std::memory_order_acquire) != kRunning; }
  void pause() { frozen_at_.store(now(), std::memory_order_release); }
  void resume();

  // Moves a paused clock; timers whose deadline it reaches fire. Time that only moves so is exactly
  // repeatable.
  void set(Nanoseconds time);

 private:
  friend VirtualTimer;

  static constexpr Nanoseconds kRunning = ~Nanoseconds{0};
  static constexpr Nanoseconds kDistant = Nanoseconds{1} << 62;  // 146 years

  static Nanoseconds host_now() {
    return static_cast<Nanoseconds>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
  }

  std::atomic<Nanoseconds> offset_;
  std::atomic<Nanoseconds> frozen_at_{kRunning};

  void time_jumped();

  // Timers wait for the host's time and so must be told when their deadlines have moved in it.
  mutable std::mutex timers_mutex_;
  mutable std::vector<VirtualTimer*> timers_;
};

// A one-shot timer of virtual time, called back on the loop's thread, never before its deadline. All its
// functions may be called from any thread, and arming is cheap. A callback that has begun may still be
// running when cancel() or arm() returns elsewhere, so a callback looks at what it is about again, under
// its own lock.
class VirtualTimer {
 public:
  // Loop and clock outlive the timer.
  VirtualTimer(EventLoop& loop, const VirtualClock& clock, std::function<void()> callback);
  ~VirtualTimer();

  // Replaces an earlier deadline; one that has passed calls back soon.
  void arm(VirtualClock::Nanoseconds at);
  void cancel();

 private:
  friend VirtualClock;

  static constexpr VirtualClock::Nanoseconds kNever = ~VirtualClock::Nanoseconds{0};

  void wait_for_deadline();  // needs mutex_
  void time_jumped();
  void fire();

  const VirtualClock& clock_;
  std::function<void()> callback_;
  std::mutex mutex_;
  VirtualClock::Nanoseconds deadline_ = kNever;
  std::unique_ptr<EventLoop::Timer> timer_;
};

}  // namespace doppel
