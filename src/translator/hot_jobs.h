// Hot code being compiled: at once, or in a Background. Its results are fetched from here.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "translator/background_compiler.h"
#include "translator/hot_code.h"

namespace doppel {

// What is to be compiled as well as it gets, and the result. It owns what it works on. Once submitted it is the background's
// until it is done.
struct HotJob {
  std::shared_ptr<const HotPipeline> how;
  std::uint64_t page;    // as whoever asks names it
  std::uint32_t number;  // so that they know it
  bool slots_known;      // which of a region's page slots repay
  HotSource source;
  std::optional<HotCode> code{};
  double seconds = 0;  // that it took
  bool in_background = false;  // who has submitted it ran on meanwhile
  std::atomic<bool> done{false};

  void run();
};

// One thread at a time; the background calls none of it.
class HotJobs {
 public:
  // Jobs are done there from now on, and not by who submits them. It outlives this.
  void compile_in(Background& background) { background_ = &background; }
  // take_done() will give it, at once if the background does not take it.
  void submit(const std::shared_ptr<HotJob>& job);
  // In the order in which they were submitted, the next one, if it is done.
  std::shared_ptr<const HotJob> take_done();

 private:
  Background* background_ = nullptr;  // may be null
  std::deque<std::shared_ptr<HotJob>> submitted_;
};

}  // namespace doppel
