#include "translator/hot_jobs.h"

#include <utility>

#include "base/stopwatch.h"

namespace doppel {

void HotJob::run() {
  {
    const Stopwatch stopwatch(seconds);
    code = compile_hot(*how, source);
  }
  done.store(true, std::memory_order_release);
}

bool HotJobs::submit(const std::shared_ptr<HotJob>& job) {
  if (background_ != nullptr && background_->submit([job] { job->run(); })) {
    in_background_.push_back(job);
    return false;
  }
  job->run();
  return true;
}

std::shared_ptr<const HotJob> HotJobs::take_done() {
  if (in_background_.empty() || !in_background_.front()->done.load(std::memory_order_acquire)) return nullptr;
  std::shared_ptr<const HotJob> job = std::move(in_background_.front());
  in_background_.pop_front();
  return job;
}

}  // namespace doppel
