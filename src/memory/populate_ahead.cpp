#include "memory/populate_ahead.h"

#include <sys/mman.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/processors.h"

namespace doppel {

PopulateAhead::PopulateAhead(std::byte* host, std::uint64_t size_bytes)
    : host_(host),
      size_bytes_(size_bytes),
      chunks_((size_bytes + kChunkBytes - 1) / kChunkBytes),
      states_(std::make_unique<std::atomic<State>[]>(chunks_)),
      useful_(has_several_processors()) {}

PopulateAhead::~PopulateAhead() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void PopulateAhead::note_first_use(std::size_t chunk) {
  if (states_[chunk].exchange(State::kUsed, std::memory_order_relaxed) == State::kUsed) return;
  if (chunk + 1 < kRow || !useful_.load(std::memory_order_relaxed)) return;
  const auto is = [this](std::size_t at, State state) { return states_[at].load(std::memory_order_relaxed) == state; };
  for (std::size_t before = chunk + 1 - kRow; before < chunk; ++before) {
    if (!is(before, State::kUsed)) return;
  }
  // What was requested lies straight ahead.
  const std::size_t end = std::min(chunk + 1 + kAhead, chunks_);
  std::size_t next = chunk + 1;
  while (next < end && is(next, State::kRequested)) ++next;
  if (end - next < kAtOnce) return;
  Run run{next, 0};
  for (; next < end; ++next, ++run.count) {
    State expected = State::kFree;
    if (!states_[next].compare_exchange_strong(expected, State::kRequested, std::memory_order_relaxed)) break;
  }
  if (run.count != 0) request(run);
}

void PopulateAhead::request(Run run) {
  requested_ += run.count;
  {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable()) {
      try {
        thread_ = std::thread([this] { work(); });
      } catch (const std::system_error&) {
        useful_ = false;
        return;
      }
    }
    runs_.push_back(run);
  }
  changed_.notify_all();
}

void PopulateAhead::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    busy_ = false;
    changed_.notify_all();
    changed_.wait(lock, [this] { return stopping_ || !runs_.empty(); });
    if (stopping_) return;
    busy_ = true;
    const std::vector<Run> runs = std::exchange(runs_, {});
    lock.unlock();
    for (const Run& run : runs) {
      for (std::size_t chunk = run.chunk; chunk < run.chunk + run.count && useful_; ++chunk) {
        const std::uint64_t offset = chunk * kChunkBytes;
        const std::uint64_t bytes = std::min(kChunkBytes, size_bytes_ - offset);
        // Linux before 5.14 cannot, and a host without memory will not: the guest's own touch decides.
        if (::madvise(host_ + offset, bytes, MADV_POPULATE_WRITE) != 0) useful_ = false;
      }
    }
    lock.lock();
  }
}

void PopulateAhead::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return runs_.empty() && !busy_; });
}

}  // namespace doppel
