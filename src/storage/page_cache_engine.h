// An engine in front of another that carries out by itself what the host's page cache can serve at once.
//
// A read of cached data, or a write into the cache, is little more than a copy. Done on the submitting thread, often a
// hart's, it takes microseconds; through another thread it takes two wake-ups. Reads are asked for without waiting.
// For writes some file systems do not know that, so they are simply made: one that had to sleep, because the host throttles
// its writers or read the rest of a page, sends those that follow it to the engine behind for a while.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include "storage/io_engine.h"

namespace doppel {

class PageCacheEngine final : public IoEngine {
 public:
  using Clock = std::chrono::steady_clock;

  // Larger operations are better done beside the submitter than by it.
  static constexpr std::uint64_t kMostBytes = 256 * 1024;
  // After a write that slept the submitter writes nothing itself for so many times as long: so little of its time can
  // it lose.
  static constexpr int kRestFactor = 20;

  // What the engine asks of the host, another one in tests.
  struct Host {
    std::function<std::int64_t(const FileOperation&)> carry_out = doppel::carry_out;
    std::function<Clock::time_point()> now = Clock::now;
    std::function<long()> sleeps = sleeps_of_this_thread;  // how often the calling thread waited so far
  };

  explicit PageCacheEngine(std::unique_ptr<IoEngine> behind) : PageCacheEngine(std::move(behind), Host()) {}
  PageCacheEngine(std::unique_ptr<IoEngine> behind, Host host) : behind_(std::move(behind)), host_(std::move(host)) {}

  void start(FileOperation& operation) override;
  void commit() override;
  FileOperation* finished() override;
  void wait() override;
  void on_ready(std::function<void()> callback) override { behind_->on_ready(std::move(callback)); }

 private:
  static long sleeps_of_this_thread();
  bool serve(FileOperation& operation);
  bool write(FileOperation& operation);

  std::unique_ptr<IoEngine> behind_;
  Host host_;
  bool reads_without_waiting_ = true;  // until the file system refuses
  Clock::time_point write_again_{};
  bool started_behind_ = false;
  FileOperationList done_;
};

}  // namespace doppel
