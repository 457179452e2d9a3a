// One thread's event loop: readiness of descriptors, timers, and functions posted from other threads.
//
// Callbacks run on the thread inside run(), one at a time. post(), stop(), make_timer() and Timer's
// functions may be called from any thread; the rest belongs to the loop's thread, or to anyone before run().
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/unique_fd.h"

namespace doppel {

using HostTime = std::chrono::steady_clock::time_point;

class EventLoop {
 public:
  // A one-shot timer. Arming replaces an earlier deadline; after cancel() or destruction returns on the
  // loop's thread the callback does not run again (from another thread, one already begun may finish).
  class Timer {
   public:
    virtual ~Timer() = default;
    virtual void arm(HostTime deadline) = 0;
    virtual void cancel() = 0;
  };

  enum Readiness : std::uint32_t { kReadable = 1, kWritable = 2, kHangup = 4 };

  // Throws std::system_error when the host gives no descriptors.
  EventLoop();
  ~EventLoop();

  // Calls `callback` with a set of Readiness bits while `fd` has any of `interest`; kHangup is reported
  // unasked when both directions are closed. Level-triggered. The caller keeps `fd` open until unwatch().
  // Throws std::system_error for a descriptor that has no readiness (a regular file).
  void watch(int fd, std::uint32_t interest, std::function<void(std::uint32_t)> callback);
  void change_interest(int fd, std::uint32_t interest);
  void unwatch(int fd);

  std::unique_ptr<Timer> make_timer(std::function<void()> callback);

  // Runs `function` on the loop's thread, soon, in the order posted.
  void post(std::function<void()> function);

  // Runs callbacks until stop(). What was posted before the stop() has run when run() returns, so a stop()
  // before run() makes run() return at once.
  void run();
  void stop();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace doppel
