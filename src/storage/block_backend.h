// What a virtual disk reads and writes: a sequence of bytes with asynchronous, scatter-gather access.
//
// Formats implement it (raw image now; overlays and pools stack one on another), device models use it; neither
// knows the other. One owner drives a back end: submit(), reap() and wait() are never called at the same time
// (a device calls them under its monitor), from whatever thread. Only the ready callback runs by itself, on
// the event loop's thread and with no lock held.
//
// A request is acknowledged when all of it was done, or failed; nothing is acknowledged in part. A flush
// covers every write that had been reaped before the flush was submitted.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace doppel {

inline constexpr std::uint64_t kSectorSize = 512;  // disks are whole sectors

struct BlockRequest {
  enum class Kind : std::uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

  Kind kind = Kind::kRead;
  bool durable = false;    // kWrite, kWriteZeroes: done only when on stable storage
  bool may_unmap = false;  // kWriteZeroes: the range need not stay allocated
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;  // the sum of `buffers` for reads and writes; unused by kFlush

  // The host memory to fill or to write. The memory and this array stay put until the request is reaped; the
  // back end may advance the entries as it goes.
  std::span<iovec> buffers = {};

  int error = 0;  // once reaped: 0, or the errno value of what went wrong
};

class BlockBackend {
 public:
  BlockBackend() = default;
  BlockBackend(const BlockBackend&) = delete;
  BlockBackend& operator=(const BlockBackend&) = delete;
  // The owner drains first: nothing is in flight.
  virtual ~BlockBackend() = default;

  virtual std::uint64_t size_bytes() const = 0;
  virtual bool readonly() const = 0;

  // Starts requests, in any order among themselves. Some may be finished on return: reap() after it.
  // A request outside the disk, or that changes a read-only one, finishes with EINVAL or EROFS.
  virtual void submit(std::span<BlockRequest* const> requests) = 0;

  // Takes back finished requests, at most into.size(); returns how many. Call until it returns 0.
  virtual std::size_t reap(std::span<BlockRequest*> into) = 0;

  // Blocks until reap() has something to give; returns at once when nothing is in flight.
  virtual void wait() = 0;

  // Called on the event loop's thread whenever requests have finished since the last reap() returned 0.
  // Set before the first submit().
  virtual void on_ready(std::function<void()> callback) = 0;
};

}  // namespace doppel
