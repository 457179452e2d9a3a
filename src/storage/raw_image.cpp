#include "storage/raw_image.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/bits.h"
#include "base/io_vector.h"

namespace doppel {
namespace {

// The host's answer when it cannot take an operation just now; after so many times in a row it is an error.
constexpr unsigned kMaxRetries = 64;

// What zeroes are written from where the host cannot make them by itself.
constexpr std::size_t kZeroBytes = 64 * 1024;
constexpr unsigned kZeroBuffers = 16;
alignas(4096) constinit std::array<std::byte, kZeroBytes> zeroes{};
const std::array<iovec, kZeroBuffers> zero_buffers = [] {
  std::array<iovec, kZeroBuffers> buffers;
  buffers.fill({zeroes.data(), zeroes.size()});
  return buffers;
}();

Result<UniqueFd> open_image(const DiskOptions& options, int more_flags) {
  const char* path = options.path.c_str();
  // O_NONBLOCK: a FIFO must not hold up the open that is about to refuse it.
  UniqueFd fd(::open(path, (options.readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | more_flags));
  if (fd) return fd;
  switch (errno) {
    case EISDIR:
      return fail("disk image {} is a directory", path);
    case EACCES:
    case EPERM:
    case EROFS:
      if (!options.readonly && ::access(path, R_OK) == 0) {
        return fail("disk image {} may only be read; add ',readonly' or change its permissions", path);
      }
      [[fallthrough]];
    default:
      return fail_errno(errno, "cannot open disk image {}", path);
  }
}

// Open-file-description locks: they hold between two disks of one process too, and end with the descriptor.
Result<void> lock_image(int fd, const DiskOptions& options) {
  struct flock lock {};
  lock.l_type = options.readonly ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return {};
  if (errno == EAGAIN || errno == EACCES) {
    return fail("disk image {} is in use by another virtual machine{}", options.path,
                options.readonly ? ", which may write to it" : "");
  }
  return fail_errno(errno, "cannot lock disk image {}", options.path);
}

Result<std::uint64_t> image_size(int fd, const DiskOptions& options) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return fail_errno(errno, "cannot examine disk image {}", options.path);
  if (S_ISDIR(info.st_mode)) return fail("disk image {} is a directory", options.path);
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
    return fail("disk image {} is neither a file nor a block device", options.path);
  }
  const off_t size = ::lseek(fd, 0, SEEK_END);
  if (size < 0) return fail_errno(errno, "cannot find the size of disk image {}", options.path);
  if (size == 0) return fail("disk image {} is empty", options.path);
  if (!is_aligned(static_cast<std::uint64_t>(size), kSectorSize)) {
    return fail("disk image {} has {} bytes, which is no multiple of {}", options.path, size, kSectorSize);
  }
  return static_cast<std::uint64_t>(size);
}

// What O_DIRECT demands of buffers and offsets; a page where the host does not say.
std::uint64_t direct_alignment(int fd) {
#ifdef STATX_DIOALIGN
  struct statx info {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 && (info.stx_mask & STATX_DIOALIGN) != 0 &&
      info.stx_dio_offset_align != 0) {
    return std::max(info.stx_dio_mem_align, info.stx_dio_offset_align);
  }
#endif
  return 4096;
}

// A second description of the same file past the page cache; the first keeps the lock.
Result<UniqueFd> open_direct(int cached, const DiskOptions& options) {
  auto direct = open_image(options, O_DIRECT);
  if (!direct) {
    return fail("disk image {} is on a file system without direct access, which cache=none needs",
                options.path);
  }
  struct stat first {}, second {};
  if (::fstat(cached, &first) != 0 || ::fstat(direct->get(), &second) != 0 || first.st_dev != second.st_dev ||
      first.st_ino != second.st_ino) {
    return fail("disk image {} was replaced while it was being opened", options.path);
  }
  return direct;
}

bool changes_disk(BlockRequest::Kind kind) {
  return kind == BlockRequest::Kind::kWrite || kind == BlockRequest::Kind::kDiscard ||
         kind == BlockRequest::Kind::kWriteZeroes;
}

}  // namespace

Result<std::unique_ptr<BlockBackend>> RawImage::open(const DiskOptions& options, EventLoop& loop,
                                                     IoEngineKind engine_kind) {
  Files files;
  auto cached = open_image(options, 0);
  if (!cached) return std::unexpected(cached.error());
  files.cached = std::move(*cached);
  const auto size = image_size(files.cached.get(), options);
  if (!size) return std::unexpected(size.error());
  if (auto locked = lock_image(files.cached.get(), options); !locked) return std::unexpected(locked.error());
  if (options.cache == CacheMode::kNone) {
    auto direct = open_direct(files.cached.get(), options);
    if (!direct) return std::unexpected(direct.error());
    files.direct = std::move(*direct);
    files.direct_alignment = direct_alignment(files.direct.get());
  }
  auto engine = make_io_engine(engine_kind, loop);
  if (!engine) return std::unexpected(engine.error());
  auto image = std::make_unique<RawImage>(std::move(files), *size, options.readonly, options.cache, std::move(*engine));
  if (!options.readonly && options.cache != CacheMode::kUnsafe) image->write_back();
  return image;
}

RawImage::RawImage(Files files, std::uint64_t size_bytes, bool readonly, CacheMode cache,
                   std::unique_ptr<IoEngine> engine)
    : files_(std::move(files)),
      size_bytes_(size_bytes),
      readonly_(readonly),
      cache_(cache),
      engine_(std::move(engine)) {}

void RawImage::write_back() {
  write_back_ = {.kind = FileOperation::Kind::kWriteBack, .fd = files_.cached.get()};
  engine_->start(write_back_);
  engine_->commit();
}

int RawImage::check(const BlockRequest& request) const {
  if (request.kind == BlockRequest::Kind::kFlush) return 0;
  if (readonly_ && changes_disk(request.kind)) return EROFS;
  if (request.offset_bytes > size_bytes_ || request.length_bytes > size_bytes_ - request.offset_bytes) {
    return EINVAL;
  }
  return 0;
}

void RawImage::submit(std::span<BlockRequest* const> requests) {
  bool started = false;
  for (BlockRequest* request : requests) {
    request->error = check(*request);
    const bool nothing_to_do =
        request->kind == BlockRequest::Kind::kFlush ? cache_ == CacheMode::kUnsafe : request->length_bytes == 0;
    if (request->error != 0 || nothing_to_do) {
      finished_.push_back(request);
      continue;
    }
    if (idle_.empty()) idle_.push_back(tasks_.emplace_back(std::make_unique<Task>()).get());
    Task& task = *idle_.back();
    idle_.pop_back();
    task.request = request;
    begin(task);
    ++in_flight_;
    started = true;
  }
  if (started) engine_->commit();
}

std::size_t RawImage::reap(std::span<BlockRequest*> into) {
  std::size_t count = 0;
  while (count < into.size() && !finished_.empty()) {
    into[count++] = finished_.back();
    finished_.pop_back();
  }
  bool restarted = true;
  while (restarted) {
    restarted = false;
    while (count < into.size()) {
      FileOperation* operation = engine_->finished();
      if (operation == nullptr) break;
      if (operation == &write_back_) continue;  // what fails there fails again in a flush
      Task& task = static_cast<Task&>(*operation);  // run() started nothing else
      if (advance(task)) {
        into[count++] = task.request;
        idle_.push_back(&task);
        --in_flight_;
      } else {
        restarted = true;
      }
    }
    if (restarted) engine_->commit();
  }
  return count;
}

void RawImage::wait() {
  if (finished_.empty() && in_flight_ > 0) engine_->wait();
}

void RawImage::begin(Task& task) {
  const BlockRequest& request = *task.request;
  task.retries = 0;
  task.position = request.offset_bytes;
  task.left = request.length_bytes;
  task.rest = request.buffers;
  switch (request.kind) {
    case BlockRequest::Kind::kRead:
    case BlockRequest::Kind::kWrite:
      task.step = Task::Step::kTransfer;
      break;
    case BlockRequest::Kind::kDiscard:
    case BlockRequest::Kind::kWriteZeroes:
      task.step = Task::Step::kAllocate;
      break;
    case BlockRequest::Kind::kFlush:
      task.step = Task::Step::kSync;
      break;
  }
  run(task);
}

bool RawImage::is_direct(const Task& task) const {
  if (!files_.direct) return false;
  const std::uint64_t mask = files_.direct_alignment;
  return is_aligned(task.position, mask) && std::ranges::all_of(task.rest, [mask](const iovec& buffer) {
    return is_aligned(reinterpret_cast<std::uintptr_t>(buffer.iov_base), mask) && is_aligned(buffer.iov_len, mask);
  });
}

// Starts the file operation that the task's step calls for.
void RawImage::run(Task& task) {
  const BlockRequest& request = *task.request;
  FileOperation& operation = task;
  operation = {.fd = files_.cached.get(), .offset = task.position, .length = task.left};
  switch (task.step) {
    case Task::Step::kTransfer:
      operation.kind = request.kind == BlockRequest::Kind::kRead ? FileOperation::Kind::kRead
                                                                 : FileOperation::Kind::kWrite;
      if (is_direct(task)) operation.fd = files_.direct.get();
      if (request.kind == BlockRequest::Kind::kWrite && request.durable && cache_ != CacheMode::kUnsafe) {
        operation.flags = RWF_DSYNC;
      }
      operation.cached = operation.fd == files_.cached.get() && operation.flags == 0;
      operation.buffers = task.rest.data();
      operation.buffer_count = static_cast<unsigned>(std::min<std::size_t>(task.rest.size(), IOV_MAX));
      break;
    case Task::Step::kAllocate: {
      operation.kind = FileOperation::Kind::kAllocate;
      const bool may_unmap = request.kind == BlockRequest::Kind::kDiscard || request.may_unmap;
      operation.flags = FALLOC_FL_KEEP_SIZE | (may_unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
      break;
    }
    case Task::Step::kZeroByWriting: {
      operation.kind = FileOperation::Kind::kWrite;
      operation.buffers = zero_buffers.data();
      // Whole buffers while they last, then a part of one: iovecs stay shared and constant.
      operation.buffer_count =
          static_cast<unsigned>(std::min<std::uint64_t>(task.left / kZeroBytes, kZeroBuffers));
      operation.length = operation.buffer_count * kZeroBytes;
      if (operation.buffer_count == 0) {
        operation.buffers = &task.zero_rest;
        operation.buffer_count = 1;
        operation.length = task.left;
        task.zero_rest = {zeroes.data(), task.left};
      }
      break;
    }
    case Task::Step::kSync:
      operation = {.kind = FileOperation::Kind::kSync, .fd = files_.cached.get()};
      break;
  }
  engine_->start(operation);
}

bool RawImage::finish(Task& task, int error) {
  task.request->error = error;
  return true;
}

bool RawImage::advance(Task& task) {
  const BlockRequest& request = *task.request;
  const std::int64_t result = task.result;
  // ECANCELED: io_uring gives up what a thread submitted when that thread ends, as a stopped hart's does.
  if (result == -EINTR || result == -EAGAIN || result == -ECANCELED) {
    if (++task.retries > kMaxRetries) return finish(task, EIO);
    run(task);
    return false;
  }
  task.retries = 0;

  switch (task.step) {
    case Task::Step::kTransfer:
    case Task::Step::kZeroByWriting: {
      if (result < 0) return finish(task, static_cast<int>(-result));
      // Nothing read: the file has become shorter than the disk. Nothing written should not be.
      if (result == 0) return finish(task, EIO);
      const auto done = std::min(static_cast<std::uint64_t>(result), task.left);
      task.position += done;
      task.left -= done;
      if (task.step == Task::Step::kTransfer) drop_front(task.rest, done);
      if (task.left > 0) {
        run(task);
        return false;
      }
      if (task.step == Task::Step::kTransfer) return finish(task, 0);
      break;
    }
    case Task::Step::kAllocate:
      if (result == -EOPNOTSUPP || result == -ENOSYS || result == -ENODEV) {
        // A discard is advice (virtio 1.2, 5.2.6.2); zeroes are a promise.
        if (request.kind == BlockRequest::Kind::kDiscard) return finish(task, 0);
        task.step = Task::Step::kZeroByWriting;
        run(task);
        return false;
      }
      if (result < 0) return finish(task, static_cast<int>(-result));
      break;
    case Task::Step::kSync:
      return finish(task, static_cast<int>(-result));
  }
  // Zeroes made one way or the other.
  if (!request.durable || cache_ == CacheMode::kUnsafe) return finish(task, 0);
  task.step = Task::Step::kSync;
  run(task);
  return false;
}

}  // namespace doppel
