// The engine on ordinary system calls in a few threads of its own, for hosts without io_uring.
#include <array>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "storage/completion_event.h"
#include "storage/io_engine.h"

namespace doppel {
namespace {

constexpr unsigned kThreads = 4;

class ThreadEngine final : public IoEngine {
 public:
  explicit ThreadEngine(std::unique_ptr<CompletionEvent> event) : event_(std::move(event)) {
    for (std::jthread& thread : threads_) thread = std::jthread([this](std::stop_token stop) { work(stop); });
  }

  void start(FileOperation& operation) override {
    const std::lock_guard lock(mutex_);
    waiting_.push(operation);
  }

  void commit() override { work_to_do_.notify_all(); }

  FileOperation* finished() override {
    const std::lock_guard lock(mutex_);
    FileOperation* operation = finished_.pop();
    announce_ = announce_ || operation == nullptr;
    return operation;
  }

  void wait() override {
    std::unique_lock lock(mutex_);
    something_finished_.wait(lock, [this] { return !finished_.empty(); });
  }

  void on_ready(std::function<void()> callback) override { event_->on_signal(std::move(callback)); }

 private:
  void work(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (work_to_do_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
      FileOperation* operation = waiting_.pop();
      lock.unlock();
      operation->result = carry_out(*operation);
      lock.lock();
      finished_.push(*operation);
      something_finished_.notify_all();
      // One event for all that finishes before the owner looks and finds nothing more.
      if (std::exchange(announce_, false)) event_->signal();
    }
  }

  std::unique_ptr<CompletionEvent> event_;
  std::mutex mutex_;  // guards the lists and announce_
  std::condition_variable_any work_to_do_;
  std::condition_variable something_finished_;
  FileOperationList waiting_;
  FileOperationList finished_;
  bool announce_ = true;
  std::array<std::jthread, kThreads> threads_;  // last: they end before what they use
};

}  // namespace

Result<std::unique_ptr<IoEngine>> make_thread_engine(EventLoop& loop) {
  auto event = CompletionEvent::make(loop);
  if (!event) return std::unexpected(event.error());
  return std::make_unique<ThreadEngine>(std::move(*event));
}

}  // namespace doppel
