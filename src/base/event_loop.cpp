#include "base/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <map>
#include <system_error>
#include <unordered_map>

namespace doppel {

namespace {

UniqueFd open_or_throw(int fd, const char* what) {
  if (fd < 0) throw std::system_error(errno, std::generic_category(), what);
  return UniqueFd(fd);
}

std::uint32_t to_epoll(std::uint32_t interest) {
  return ((interest & EventLoop::kReadable) != 0 ? EPOLLIN : 0u) |
         ((interest & EventLoop::kWritable) != 0 ? EPOLLOUT : 0u) |
         ((interest & EventLoop::kHangup) != 0 ? EPOLLRDHUP : 0u);
}

std::uint32_t from_epoll(std::uint32_t events) {
  return ((events & EPOLLIN) != 0 ? EventLoop::kReadable : 0u) |
         ((events & EPOLLOUT) != 0 ? EventLoop::kWritable : 0u) |
         ((events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0 ? EventLoop::kHangup : 0u);
}

void drain(const UniqueFd& counter) {
  std::uint64_t count = 0;
  // EAGAIN means that somebody else's wake-up was already consumed: nothing to do either way.
  [[maybe_unused]] const auto ignored = ::read(counter.get(), &count, sizeof count);
}

}  // namespace

struct EventLoop::Impl {
  struct TimerState {
    std::function<void()> callback;
  };
  using TimerQueue = std::multimap<HostTime, std::shared_ptr<TimerState>>;

  struct Watch {
    std::uint32_t generation = 0;
    std::function<void(std::uint32_t)> callback;
  };

  UniqueFd epoll = open_or_throw(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  UniqueFd wake = open_or_throw(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
  UniqueFd clock = open_or_throw(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd_create");

  // The loop's thread only.
  std::unordered_map<int, std::shared_ptr<Watch>> watches;
  std::uint32_t generations = 0;
  bool stopping = false;

  std::mutex mutex;  // guards what follows; held for a few instructions, never around a callback
  std::vector<std::function<void()>> posted;
  TimerQueue timers;
  HostTime clock_set_for = HostTime::max();  // max: not set

  // Linux reports `data` back with each event; the generation tells a closed and reused number apart.
  void control(int operation, int fd, std::uint32_t interest, std::uint32_t generation) const {
    epoll_event event{};
    event.events = to_epoll(interest);
    event.data.u64 = std::uint64_t{generation} << 32 | static_cast<std::uint32_t>(fd);
    if (::epoll_ctl(epoll.get(), operation, fd, &event) != 0) {
      throw std::system_error(errno, std::generic_category(), "epoll_ctl");
    }
  }

  void watch(int fd, std::uint32_t interest, std::function<void(std::uint32_t)> callback) {
    auto entry = std::make_shared<Watch>(++generations, std::move(callback));
    control(EPOLL_CTL_ADD, fd, interest, entry->generation);
    watches[fd] = std::move(entry);
  }

  // A deadline that passed fires at once; only a zero time would disarm the descriptor.
  void set_clock(HostTime deadline) {
    clock_set_for = deadline;
    const auto since_boot = std::max(deadline.time_since_epoch(), HostTime::duration(1));
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since_boot);
    itimerspec spec{};
    spec.it_value.tv_sec = seconds.count();
    spec.it_value.tv_nsec = std::chrono::nanoseconds(since_boot - seconds).count();
    [[maybe_unused]] const int result = ::timerfd_settime(clock.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
    assert(result == 0);
  }

  void set_clock_if_earlier() {
    if (!timers.empty() && timers.begin()->first < clock_set_for) set_clock(timers.begin()->first);
  }

  void run_timers() {
    drain(clock);
    const HostTime now = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex);
    clock_set_for = HostTime::max();
    // Counted first, so that a timer that arms itself for the past cannot starve the descriptors.
    auto due = std::distance(timers.begin(), timers.upper_bound(now));
    for (; due > 0 && !timers.empty() && timers.begin()->first <= now; --due) {
      const std::shared_ptr<TimerState> timer = timers.extract(timers.begin()).mapped();
      lock.unlock();
      timer->callback();
      lock.lock();
    }
    set_clock_if_earlier();
  }

  void run_posted() {
    drain(wake);
    std::vector<std::function<void()>> functions;
    {
      const std::lock_guard lock(mutex);
      functions.swap(posted);
    }
    for (auto& function : functions) function();
  }

  void dispatch(const epoll_event& event) {
    const auto found = watches.find(static_cast<int>(event.data.u64 & 0xffff'ffff));
    if (found == watches.end() || found->second->generation != event.data.u64 >> 32) return;
    const std::shared_ptr<Watch> keep = found->second;  // the callback may unwatch itself
    keep->callback(from_epoll(event.events));
  }
};

namespace {

class TimerHandle final : public EventLoop::Timer {
 public:
  using Impl = EventLoop::Impl;

  TimerHandle(Impl& loop, std::function<void()> callback)
      : loop_(loop), state_(std::make_shared<Impl::TimerState>(std::move(callback))) {}
  ~TimerHandle() override { cancel(); }

  void arm(HostTime deadline) override {
    const std::lock_guard lock(loop_.mutex);
    // The node is moved, not reallocated: a hart arms its timer at each tick.
    Impl::TimerQueue::node_type node = take();
    if (node.empty()) {
      loop_.timers.emplace(deadline, state_);
    } else {
      node.key() = deadline;
      loop_.timers.insert(std::move(node));
    }
    deadline_ = deadline;
    loop_.set_clock_if_earlier();
  }

  void cancel() override {
    const std::lock_guard lock(loop_.mutex);
    take();
  }

 private:
  // Removes this timer from the queue, where it is not when it has fired.
  Impl::TimerQueue::node_type take() {
    auto [at, end] = loop_.timers.equal_range(deadline_);
    for (; at != end; ++at) {
      if (at->second == state_) return loop_.timers.extract(at);
    }
    return {};
  }

  Impl& loop_;
  std::shared_ptr<Impl::TimerState> state_;
  HostTime deadline_ = HostTime::max();
};

}  // namespace

EventLoop::EventLoop() : impl_(std::make_unique<Impl>()) {
  watch(impl_->wake.get(), kReadable, [this](std::uint32_t) { impl_->run_posted(); });
  watch(impl_->clock.get(), kReadable, [this](std::uint32_t) { impl_->run_timers(); });
}

EventLoop::~EventLoop() = default;

void EventLoop::watch(int fd, std::uint32_t interest, std::function<void(std::uint32_t)> callback) {
  impl_->watch(fd, interest, std::move(callback));
}

void EventLoop::change_interest(int fd, std::uint32_t interest) {
  impl_->control(EPOLL_CTL_MOD, fd, interest, impl_->watches.at(fd)->generation);
}

void EventLoop::unwatch(int fd) {
  if (impl_->watches.erase(fd) != 0) ::epoll_ctl(impl_->epoll.get(), EPOLL_CTL_DEL, fd, nullptr);
}

std::unique_ptr<EventLoop::Timer> EventLoop::make_timer(std::function<void()> callback) {
  return std::make_unique<TimerHandle>(*impl_, std::move(callback));
}

void EventLoop::post(std::function<void()> function) {
  bool was_empty = false;
  {
    const std::lock_guard lock(impl_->mutex);
    was_empty = impl_->posted.empty();
    impl_->posted.push_back(std::move(function));
  }
  if (!was_empty) return;
  const std::uint64_t one = 1;
  // It can fail only when the counter is at its limit, and then the loop wakes anyway.
  [[maybe_unused]] const auto ignored = ::write(impl_->wake.get(), &one, sizeof one);
}

void EventLoop::run() {
  std::array<epoll_event, 32> events;
  while (!impl_->stopping) {
    const int count = ::epoll_wait(impl_->epoll.get(), events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) impl_->dispatch(events[static_cast<std::size_t>(i)]);
  }
  impl_->stopping = false;
}

void EventLoop::stop() {
  post([this] { impl_->stopping = true; });
}

}  // namespace doppel
