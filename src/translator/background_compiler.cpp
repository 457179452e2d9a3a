#include "translator/background_compiler.h"

#include <system_error>
#include <utility>

namespace doppel {

BackgroundCompiler::~BackgroundCompiler() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

bool BackgroundCompiler::submit(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= kMostWaiting) return false;
    try {
      if (!thread_.joinable()) thread_ = std::thread([this] { main(); });
    } catch (const std::system_error&) {
      return false;
    }
    waiting_.push_back(std::move(job));
  }
  changed_.notify_one();
  return true;
}

void BackgroundCompiler::main() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (ending_) return;
    {
      const std::function<void()> job = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      job();
    }  // what it owned goes without the lock
    lock.lock();
  }
}

}  // namespace doppel
