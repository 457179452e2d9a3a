#include "storage/io_engine.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "storage/page_cache_engine.h"

namespace doppel {

std::int64_t carry_out(const FileOperation& operation) {
  const auto offset = static_cast<off_t>(operation.offset);
  const int count = static_cast<int>(operation.buffer_count);
  std::int64_t returned = -1;
  switch (operation.kind) {
    case FileOperation::Kind::kRead:
      returned = ::preadv2(operation.fd, operation.buffers, count, offset, operation.flags);
      break;
    case FileOperation::Kind::kWrite:
      returned = ::pwritev2(operation.fd, operation.buffers, count, offset, operation.flags);
      break;
    case FileOperation::Kind::kSync:
      returned = ::fdatasync(operation.fd);
      break;
    case FileOperation::Kind::kWriteBack:
      returned = ::sync_file_range(operation.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
      break;
    case FileOperation::Kind::kAllocate:
      returned = ::fallocate(operation.fd, operation.flags, offset, static_cast<off_t>(operation.length));
      break;
  }
  return returned < 0 ? -errno : returned;
}

Result<std::unique_ptr<IoEngine>> make_io_engine(IoEngineKind kind, EventLoop& loop) {
  if (kind == IoEngineKind::kThreads) return make_thread_engine(loop);
  auto engine = make_uring_engine(loop);
  if (kind == IoEngineKind::kUring) return engine;
  if (!engine) engine = make_thread_engine(loop);
  if (!engine) return engine;
  return std::make_unique<PageCacheEngine>(std::move(*engine));
}

}  // namespace doppel
