// A raw disk image: byte n of the disk is byte n of a file, or of a host block device.
//
// Threads as in block_backend.h. A request becomes one file operation after another until all of it is done:
// the host may transfer less than asked.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/unique_fd.h"
#include "storage/disk.h"

namespace doppel {

class RawImage final : public BlockBackend {
 public:
  static Result<std::unique_ptr<BlockBackend>> open(const DiskOptions& options, EventLoop& loop,
                                                    IoEngineKind engine);

  // Over an engine of the caller's choice, which may be one that fails; `direct` is absent without O_DIRECT.
  struct Files {
    UniqueFd cached;
    UniqueFd direct;
    std::uint64_t direct_alignment = 0;  // of offsets, lengths and host buffers, in bytes
  };
  RawImage(Files files, std::uint64_t size_bytes, bool readonly, CacheMode cache,
           std::unique_ptr<IoEngine> engine);

  // Has the host begin to write what the file has in its page cache only: a guest's first flush would wait for it, and an
  // image that was just copied is all there. Before the first submit().
  void write_back();

  std::uint64_t size_bytes() const override { return size_bytes_; }
  bool readonly() const override { return readonly_; }
  void submit(std::span<BlockRequest* const> requests) override;
  std::size_t reap(std::span<BlockRequest*> into) override;
  void wait() override;
  void on_ready(std::function<void()> callback) override { engine_->on_ready(std::move(callback)); }

 private:
  // A request on its way; where it stands in its sequence of file operations.
  struct Task : FileOperation {  // what the engine hands back is the task
    enum class Step : std::uint8_t { kTransfer, kAllocate, kZeroByWriting, kSync };

    BlockRequest* request = nullptr;
    Step step = Step::kTransfer;
    unsigned retries = 0;
    std::uint64_t position = 0;  // where the rest begins
    std::uint64_t left = 0;      // its length in bytes
    std::span<iovec> rest;       // its buffers
    iovec zero_rest{};           // kZeroByWriting: less than a buffer of zeroes
  };

  int check(const BlockRequest& request) const;
  void begin(Task& task);
  void run(Task& task);
  // Takes note of the operation's result: true when the request is finished, false when it goes on.
  bool advance(Task& task);
  bool finish(Task& task, int error);
  bool is_direct(const Task& task) const;

  Files files_;
  std::uint64_t size_bytes_;
  bool readonly_;
  CacheMode cache_;
  FileOperation write_back_;
  std::unique_ptr<IoEngine> engine_;

  std::vector<std::unique_ptr<Task>> tasks_;  // all there are: as many as were ever in flight at once
  std::vector<Task*> idle_;
  std::vector<BlockRequest*> finished_;  // without an operation
  std::size_t in_flight_ = 0;
};

}  // namespace doppel
