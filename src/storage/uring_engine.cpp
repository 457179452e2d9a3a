// The engine on io_uring. Completions that arrive while nobody looks reach the event loop through an eventfd;
// those that are there when commit() returns do not, so a request served from the host's page cache costs one
// system call and no wake-up.
#include <liburing.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "storage/completion_event.h"
#include "storage/io_engine.h"

namespace doppel {
namespace {

constexpr unsigned kEntries = 256;

// The kernel copies cached data inside the submitting call. Above this size a kernel worker does that, so that
// the submitter, often a hart, goes on.
constexpr std::uint64_t kInlineBytes = 256 * 1024;

class UringEngine final : public IoEngine {
 public:
  explicit UringEngine(std::unique_ptr<CompletionEvent> event) : event_(std::move(event)) {}

  ~UringEngine() override {
    if (ring_made_) ::io_uring_queue_exit(&ring_);
  }

  Result<void> set_up() {
    if (const int made = ::io_uring_queue_init(kEntries, &ring_, IORING_SETUP_CLAMP); made < 0) {
      return fail_errno(-made, "the host refuses io_uring");
    }
    ring_made_ = true;
    if ((ring_.features & IORING_FEAT_NODROP) == 0 || ring_.cq.kflags == nullptr || !supports_operations()) {
      return fail("the host's io_uring is too old");
    }
    if (const int registered = ::io_uring_register_eventfd(&ring_, event_->fd()); registered < 0) {
      return fail_errno(-registered, "the host refuses io_uring's eventfd");
    }
    return {};
  }

  void start(FileOperation& operation) override {
    ::io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
    while (entry == nullptr) {
      submit();
      entry = ::io_uring_get_sqe(&ring_);
    }
    switch (operation.kind) {
      case FileOperation::Kind::kRead:
        ::io_uring_prep_readv2(entry, operation.fd, operation.buffers, operation.buffer_count, operation.offset,
                               operation.flags);
        break;
      case FileOperation::Kind::kWrite:
        ::io_uring_prep_writev2(entry, operation.fd, operation.buffers, operation.buffer_count,
                                operation.offset, operation.flags);
        break;
      case FileOperation::Kind::kSync:
        ::io_uring_prep_fsync(entry, operation.fd, IORING_FSYNC_DATASYNC);
        break;
      case FileOperation::Kind::kWriteBack:
        ::io_uring_prep_sync_file_range(entry, operation.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        ::io_uring_sqe_set_flags(entry, IOSQE_ASYNC);
        break;
      case FileOperation::Kind::kAllocate:
        ::io_uring_prep_fallocate(entry, operation.fd, operation.flags, static_cast<off_t>(operation.offset),
                                  static_cast<off_t>(operation.length));
        break;
    }
    if (operation.length > kInlineBytes) ::io_uring_sqe_set_flags(entry, IOSQE_ASYNC);
    ::io_uring_sqe_set_data(entry, &operation);
  }

  void commit() override {
    // Between the two toggles a completion raises no event, and the caller's finished() finds it; after the
    // second it raises one. So none is lost, whichever side of the toggle it falls on.
    ::io_uring_cq_eventfd_toggle(&ring_, false);
    submit();
    // The second toggle as a read-modify-write: it comes before finished() looks at the ring, in one order with
    // the kernel, which posts a completion and then looks at the flag.
    std::atomic_ref(*ring_.cq.kflags).fetch_and(~unsigned{IORING_CQ_EVENTFD_DISABLED}, std::memory_order_seq_cst);
  }

  FileOperation* finished() override {
    if (FileOperation* operation = stash_.pop()) return operation;
    return take_completion();
  }

  void wait() override {
    if (!stash_.empty()) return;
    ::io_uring_cqe* completion = nullptr;
    while (::io_uring_wait_cqe(&ring_, &completion) == -EINTR) {
    }
  }

  void on_ready(std::function<void()> callback) override { event_->on_signal(std::move(callback)); }

 private:
  bool supports_operations() {
    ::io_uring_probe* probe = ::io_uring_get_probe_ring(&ring_);
    if (probe == nullptr) return false;
    bool all = true;
    for (const int code : {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_SYNC_FILE_RANGE, IORING_OP_FALLOCATE}) {
      all = all && ::io_uring_opcode_supported(probe, code) != 0;
    }
    ::io_uring_free_probe(probe);
    return all;
  }

  // Passes every prepared entry to the kernel. A kernel that is out of memory, or has a backlog of completions,
  // takes them later: make room and try again.
  void submit() {
    while (::io_uring_sq_ready(&ring_) != 0) {
      if (::io_uring_submit(&ring_) >= 0) continue;
      bool made_room = false;
      while (FileOperation* operation = take_completion()) {
        stash_.push(*operation);
        made_room = true;
      }
      if (!made_room) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  FileOperation* take_completion() {
    ::io_uring_cqe* completion = nullptr;
    if (::io_uring_peek_cqe(&ring_, &completion) != 0) return nullptr;
    auto* operation = static_cast<FileOperation*>(::io_uring_cqe_get_data(completion));
    operation->result = completion->res;
    ::io_uring_cqe_seen(&ring_, completion);
    return operation;
  }

  std::unique_ptr<CompletionEvent> event_;
  ::io_uring ring_{};
  bool ring_made_ = false;
  FileOperationList stash_;  // finished, found while making room in the ring
};

}  // namespace

Result<std::unique_ptr<IoEngine>> make_uring_engine(EventLoop& loop) {
  auto event = CompletionEvent::make(loop);
  if (!event) return std::unexpected(event.error());
  auto engine = std::make_unique<UringEngine>(std::move(*event));
  if (auto ready = engine->set_up(); !ready) return std::unexpected(ready.error());
  return engine;
}

}  // namespace doppel
