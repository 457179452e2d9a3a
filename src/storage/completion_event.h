// An eventfd on the event loop: how completions, from the kernel or from another thread, wake the loop.
//
// Made and destroyed on the loop's thread or while the loop does not run; signal() from any thread.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace doppel {

class CompletionEvent {
 public:
  static Result<std::unique_ptr<CompletionEvent>> make(EventLoop& loop) {
    UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd) return fail_errno(errno, "the host refuses an eventfd");
    return std::unique_ptr<CompletionEvent>(new CompletionEvent(loop, std::move(fd)));
  }
  ~CompletionEvent() { loop_.unwatch(fd_.get()); }

  int fd() const { return fd_.get(); }
  void on_signal(std::function<void()> callback) { callback_ = std::move(callback); }
  void signal() const {
    const std::uint64_t one = 1;
    // Cannot fail but by a full counter, which wakes the loop just as well.
    [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
  }

 private:
  CompletionEvent(EventLoop& loop, UniqueFd fd) : loop_(loop), fd_(std::move(fd)) {
    loop_.watch(fd_.get(), EventLoop::kReadable, [this](std::uint32_t) {
      std::uint64_t count;
      if (::read(fd_.get(), &count, sizeof count) == sizeof count && callback_) callback_();
    });
  }

  EventLoop& loop_;
  UniqueFd fd_;
  std::function<void()> callback_;
};

}  // namespace doppel
