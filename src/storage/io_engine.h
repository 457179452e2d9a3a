// How file operations reach the host: at once where its page cache has what they need (page_cache_engine.h), else by
// io_uring, or a pool of threads where the host forbids that.
//
// The back end above drives an engine under the rules of block_backend.h: one caller at a time, and only the
// ready callback by itself on the event loop's thread. An engine knows nothing of disks: it carries out
// single system calls and reports what they returned.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/result.h"

namespace doppel {

struct FileOperation {
  enum class Kind : std::uint8_t { kRead, kWrite, kSync, kWriteBack, kAllocate };

  Kind kind = Kind::kRead;  // kSync, kWriteBack: of the whole file; kWriteBack only begins to write
  int fd = -1;
  bool cached = false;       // kRead, kWrite: by way of the host's page cache, and done when it is there
  int flags = 0;             // kRead, kWrite: RWF_*; kAllocate: FALLOC_FL_*
  std::uint64_t offset = 0;  // bytes
  std::uint64_t length = 0;  // bytes; kRead, kWrite: the sum of the buffers
  const iovec* buffers = nullptr;
  unsigned buffer_count = 0;  // at most IOV_MAX

  std::int64_t result = 0;        // as io_uring reports it: what the call returned, or a negative errno value
  FileOperation* next = nullptr;  // the engine's, while it has the operation
};

// Carries an operation out on the calling thread; gives its result.
std::int64_t carry_out(const FileOperation& operation);

// A queue of operations through their own links: no allocation.
class FileOperationList {
 public:
  bool empty() const { return head_ == nullptr; }
  void push(FileOperation& operation) {
    operation.next = nullptr;
    (head_ == nullptr ? head_ : tail_->next) = &operation;
    tail_ = &operation;
  }
  FileOperation* pop() {
    FileOperation* first = head_;
    if (first != nullptr) head_ = first->next;
    return first;
  }

 private:
  FileOperation* head_ = nullptr;
  FileOperation* tail_ = nullptr;
};

class IoEngine {
 public:
  virtual ~IoEngine() = default;

  // Queues an operation, which stays put until finished() returns it.
  virtual void start(FileOperation& operation) = 0;
  // Hands the queued operations to the host.
  virtual void commit() = 0;
  // One finished operation, or nullptr. After commit(), call until nullptr: operations that finished at once
  // are not announced.
  virtual FileOperation* finished() = 0;
  // Blocks until an operation of those committed has finished; at least one is in flight.
  virtual void wait() = 0;

  virtual void on_ready(std::function<void()> callback) = 0;
};

enum class IoEngineKind { kAutomatic, kUring, kThreads };

// kAutomatic takes io_uring where the host offers it, and puts a PageCacheEngine in front. Fails when the host refuses
// the kind asked for.
// `loop` outlives the engine, which is made and destroyed on its thread or while it does not run.
Result<std::unique_ptr<IoEngine>> make_io_engine(IoEngineKind kind, EventLoop& loop);

// The two kinds, each in its own file. make_uring_engine fails where the kernel or a sandbox lacks io_uring.
Result<std::unique_ptr<IoEngine>> make_uring_engine(EventLoop& loop);
Result<std::unique_ptr<IoEngine>> make_thread_engine(EventLoop& loop);

}  // namespace doppel
