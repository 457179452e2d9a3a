#include "storage/io_engine.h"

namespace doppel {

Result<std::unique_ptr<IoEngine>> make_io_engine(IoEngineKind kind, EventLoop& loop) {
  if (kind == IoEngineKind::kThreads) return make_thread_engine(loop);
  auto uring = make_uring_engine(loop);
  if (uring || kind == IoEngineKind::kUring) return uring;
  return make_thread_engine(loop);
}

}  // namespace doppel
