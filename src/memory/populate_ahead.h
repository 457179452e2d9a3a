// Has the host provide pages of guest RAM before the guest comes to them. A page's first touch costs a fault and the
// clearing of the page, some 2 microseconds, about as long as the guest takes to fill it. Operating systems take free memory
// mostly in the order of its addresses: where that is seen, a thread of its own populates what comes next.
//
// RAM is looked at in chunks. Whoever gives out a host address of RAM notes the chunk: any thread, without a lock unless it is
// the chunk's first use. What was populated in vain is bounded by kAhead for each place where the guest stopped.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "memory/address.h"

namespace doppel {

class PopulateAhead {
 public:
  static constexpr std::uint64_t kChunkBytes = 64 << 10;
  // So many chunks in a row, each used for the first time, before anything is populated; and how far ahead that goes, some
  // at a time.
  static constexpr std::size_t kRow = 4, kAhead = 32, kAtOnce = 8;

  // Of the mapping of `size_bytes` at `host`, which outlives this. Nothing is done on a host with one processor.
  PopulateAhead(std::byte* host, std::uint64_t size_bytes);
  ~PopulateAhead();
  PopulateAhead(const PopulateAhead&) = delete;
  PopulateAhead& operator=(const PopulateAhead&) = delete;

  // [offset, offset + bytes), of the mapping, is about to be used.
  void note(std::uint64_t offset, std::uint64_t bytes) {
    const std::size_t last = (offset + (bytes != 0 ? bytes - 1 : 0)) / kChunkBytes;
    for (std::size_t chunk = offset / kChunkBytes; chunk <= last; ++chunk) {
      if (states_[chunk].load(std::memory_order_relaxed) != State::kUsed) note_first_use(chunk);
    }
  }

  // How many chunks it was decided to populate. For tests.
  std::size_t requested() const { return requested_.load(); }
  // Waits until all that is done.
  void wait();

 private:
  enum class State : std::uint8_t { kFree, kRequested, kUsed };
  struct Run {
    std::size_t chunk, count;
  };

  void note_first_use(std::size_t chunk);
  void request(Run run);
  void work();

  std::byte* const host_;
  const std::uint64_t size_bytes_;
  const std::size_t chunks_;
  std::unique_ptr<std::atomic<State>[]> states_;
  std::atomic<bool> useful_;  // the host has done so whenever it was asked
  std::atomic<std::size_t> requested_{0};

  std::mutex mutex_;  // of all that follows
  std::condition_variable changed_;
  std::vector<Run> runs_;
  bool stopping_ = false, busy_ = false;
  std::thread thread_;  // from the first request on
};

}  // namespace doppel
