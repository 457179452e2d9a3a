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

void HotJobs::submit(const std::shared_ptr<HotJob>& job) {
  submitted_.push_back(job);
  const auto run = [job] {
    job->in_background = true;
    job->run();
  };
  if (background_ == nullptr || !background_->submit(run)) job->run();
}

std::shared_ptr<const HotJob> HotJobs::take_done() {
  if (submitted_.empty() || !submitted_.front()->done.load(std::memory_order_acquire)) return nullptr;
  std::shared_ptr<const HotJob> job = std::move(submitted_.front());
  submitted_.pop_front();
  return job;
}

}  // namespace doppel
