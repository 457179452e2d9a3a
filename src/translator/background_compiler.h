// The thread that compiles hot code while harts run on in the code that there is.
//
// It knows jobs, and nothing of what they do: they own what they work on, and their results are fetched by whoever asked
// for them (HotJobs). Whoever owns it outlives those who submit.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace doppel {

// Where work is done that nobody waits for.
class Background {
 public:
  virtual ~Background() = default;
  // Does `job` later, on another thread, or never. false: it cannot, and has not kept it. Any thread.
  virtual bool submit(std::function<void()> job) = 0;
};

class BackgroundCompiler final : public Background {
 public:
  // As many jobs wait at most.
  static constexpr std::size_t kMostWaiting = 64;

  BackgroundCompiler() = default;
  // Finishes the job that it has begun, and forgets those that wait.
  ~BackgroundCompiler() override;
  BackgroundCompiler(const BackgroundCompiler&) = delete;
  BackgroundCompiler& operator=(const BackgroundCompiler&) = delete;

  // In the order in which they come. The first one starts the thread; where the host refuses that, nothing is submitted.
  bool submit(std::function<void()> job) override;

 private:
  void main();

  std::mutex mutex_;  // of all that follows
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace doppel
