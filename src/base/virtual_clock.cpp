#include "base/virtual_clock.h"

#include <algorithm>

namespace doppel {

void VirtualClock::resume() {
  const Nanoseconds frozen = frozen_at_.load(std::memory_order_acquire);
  if (frozen == kRunning) return;
  offset_.store(frozen - host_now(), std::memory_order_relaxed);
  frozen_at_.store(kRunning, std::memory_order_release);
  time_jumped();
}

void VirtualClock::set(Nanoseconds time) {
  frozen_at_.store(time, std::memory_order_release);
  time_jumped();
}

void VirtualClock::time_jumped() {
  const std::lock_guard lock(timers_mutex_);
  for (VirtualTimer* timer : timers_) timer->time_jumped();
}

VirtualTimer::VirtualTimer(EventLoop& loop, const VirtualClock& clock, std::function<void()> callback)
    : clock_(clock), callback_(std::move(callback)), timer_(loop.make_timer([this] { fire(); })) {
  const std::lock_guard lock(clock_.timers_mutex_);
  clock_.timers_.push_back(this);
}

VirtualTimer::~VirtualTimer() {
  const std::lock_guard lock(clock_.timers_mutex_);
  std::erase(clock_.timers_, this);
}

void VirtualTimer::arm(VirtualClock::Nanoseconds at) {
  const std::lock_guard lock(mutex_);
  deadline_ = std::min(at, kNever - 1);
  wait_for_deadline();
}

void VirtualTimer::cancel() {
  const std::lock_guard lock(mutex_);
  deadline_ = kNever;
  timer_->cancel();
}

// While the clock stands still only time_jumped() can bring a deadline nearer. A pause that begins right
// after the check makes the host's deadline too early, never too late, and fire() looks again.
void VirtualTimer::wait_for_deadline() {
  if (clock_.now() >= deadline_) {
    timer_->arm(HostTime{});
  } else if (!clock_.paused()) {
    timer_->arm(clock_.host_time(deadline_));
  }
}

void VirtualTimer::time_jumped() {
  const std::lock_guard lock(mutex_);
  if (deadline_ != kNever) wait_for_deadline();
}

void VirtualTimer::fire() {
  {
    const std::lock_guard lock(mutex_);
    if (deadline_ == kNever) return;
    if (clock_.now() < deadline_) return wait_for_deadline();
    deadline_ = kNever;
  }
  callback_();
}

}  // namespace doppel
